//! Parts of a layer that the families share.

use super::layout::LayerParams;
use super::ops::glu::Activation;
use super::pass::Pass;
use super::tape::Act;
use crate::error::Result;

/// x + W_o attention(q, k, v) of the normalised rows; norms of heads and of the sum's second part where the layer
/// has them.
pub(super) fn attend(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let h = pass.rms_norm(x, l.input_norm)?;
    let mut qkv = pass.linear(&h, &[l.q, l.k, l.v])?;
    if let (Some(q), Some(k)) = (l.q_norm, l.k_norm) {
        qkv = pass.qk_norm(&qkv, q, k)?;
    }
    let h = pass.attention(&qkv)?;
    let (x, h) = pass.narrow(x, &h)?;
    onto(pass, &x, &h, l.o, l.post_attention_norm)
}

/// x + W_down (act(W_gate h) ∘ W_up h), h the normalised rows; a norm of the sum's second part where the layer has
/// one.
pub(super) fn mlp(pass: &mut Pass, x: &Act, l: &LayerParams, activation: Activation) -> Result<Act> {
    let h = pass.rms_norm(x, l.mlp_norm)?;
    let h = pass.linear(&h, &[l.gate, l.up])?;
    let h = pass.glu(&h, activation)?;
    onto(pass, x, &h, l.down, l.post_mlp_norm)
}

fn onto(pass: &mut Pass, x: &Act, h: &Act, parameter: usize, norm: Option<usize>) -> Result<Act> {
    let Some(norm) = norm else { return pass.add_linear(x, h, parameter) };
    let h = pass.linear(h, &[parameter])?;
    let h = pass.rms_norm(&h, norm)?;
    pass.add(x, &h)
}
