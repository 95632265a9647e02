//! Qwen3: Llama with RMS norms on every head's queries and keys, and a head width of its own.

use serde_json::json;

use super::config::{Keys, Particular};

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
