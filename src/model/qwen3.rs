//! Qwen3: Llama with RMS norms on every head's queries and keys, and a head width of its own.

use serde_json::json;

use super::config::{Keys, Particular};
use super::layers;
use super::layout::LayerParams;
use super::ops::glu::Activation;
use super::pass::Pass;
use super::tape::Act;
use crate::error::Result;

/// What config.json says in the way of this family; absent values as in transformers' `Qwen3Config`.
pub(super) fn read(keys: &mut Keys, heads: usize) -> Particular {
    keys.only("use_sliding_window", &[json!(false)]);
    let kv_heads = if keys.is_null("num_key_value_heads") { heads } else { 32 };
    let head_dim = keys.size_or("head_dim", 128);
    Particular {
        kv_heads: keys.size_or("num_key_value_heads", kv_heads),
        head_dim,
        context: 32768,
        query_scalar: head_dim as f64,
        logit_cap: None,
    }
}

/// One layer: attention on normalised queries and keys, then the gated layer, each on a residual.
pub(super) fn layer(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let x = layers::attend(pass, x, l)?;
    layers::mlp(pass, &x, l, Activation::Silu)
}
