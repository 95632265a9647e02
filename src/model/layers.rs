//! Parts of a layer that the families share.

use super::layout::LayerParams;
use super::pass::Pass;
use super::tape::Act;
use crate::error::Result;

/// [q | k | v] of the normalised rows, before the rotation.
pub(super) fn project(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let h = pass.rms_norm(x, l.input_norm)?;
    pass.linear(&h, &[l.q, l.k, l.v])
}

/// x + W_o attention(qkv).
pub(super) fn attend(pass: &mut Pass, x: &Act, qkv: &Act, l: &LayerParams) -> Result<Act> {
    let h = pass.attention(qkv)?;
    let h = pass.linear(&h, &[l.o])?;
    pass.add(x, &h)
}

/// x + W_down (silu(W_gate h) ∘ W_up h), h the normalised rows.
pub(super) fn mlp(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let h = pass.rms_norm(x, l.mlp_norm)?;
    let h = pass.linear(&h, &[l.gate, l.up])?;
    let h = pass.swiglu(&h)?;
    let h = pass.linear(&h, &[l.down])?;
    pass.add(x, &h)
}
