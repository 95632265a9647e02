//! Llama 2, 3, 3.x (and SmolLM2): pre-norm decoder, grouped-query attention, SwiGLU.

use serde_json::json;

use super::config::{Keys, Particular};
use super::layers;
use super::layout::LayerParams;
use super::ops::glu::Activation;
use super::pass::Pass;
use super::tape::Act;
use crate::error::Result;

/// What config.json says in the way of this family; absent values as in transformers' `LlamaConfig`.
pub(super) fn read(keys: &mut Keys, hidden: usize, heads: usize) -> Particular {
    keys.only("mlp_bias", &[json!(false)]);
    keys.only("pretraining_tp", &[json!(1)]);
    keys.only("rope_interleaved", &[json!(false)]);
    let head_dim = keys.size_or("head_dim", hidden.checked_div(heads).unwrap_or(0));
    Particular {
        kv_heads: keys.size_or("num_key_value_heads", heads),
        head_dim,
        context: 2048,
        query_scalar: head_dim as f64,
        logit_cap: None,
    }
}

/// One layer: attention, then the gated layer, each on a residual.
pub(super) fn layer(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let x = layers::attend(pass, x, l)?;
    layers::mlp(pass, &x, l, Activation::Silu)
}
