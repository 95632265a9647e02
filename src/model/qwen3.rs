//! Qwen3: Llama with RMS norms on every head's queries and keys, and a head width of its own.

use serde_json::json;

use super::config::{Keys, Particular};
use super::layers;
use super::layout::LayerParams;
use super::pass::Pass;
use super::tape::Act;
use crate::error::Result;

/// What config.json says in the way of this family; absent values as in transformers' `Qwen3Config`.
pub(super) fn read(keys: &mut Keys, heads: usize) -> Particular {
    keys.only("use_sliding_window", &[json!(false)]);
    let kv_heads = if keys.is_null("num_key_value_heads") { heads } else { 32 };
    Particular {
        kv_heads: keys.size_or("num_key_value_heads", kv_heads),
        head_dim: keys.size_or("head_dim", 128),
        context: 32768,
    }
}

/// One layer: attention on normalised queries and keys, then the gated layer, each on a residual.
pub(super) fn layer(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let mut qkv = layers::project(pass, x, l)?;
    if let (Some(q), Some(k)) = (l.q_norm, l.k_norm) {
        qkv = pass.qk_norm(&qkv, q, k)?;
    }
    let x = layers::attend(pass, x, &qkv, l)?;
    layers::mlp(pass, &x, l)
}
