//! Gemma 3, text only: local and global layers with rotary embeddings of their own, RMS norms of 1 + w before and
//! after each block, scaled embeddings, a gelu gate.

use serde_json::{Map, Value, json};

use super::config::{IRRELEVANT, Keys, Local, Particular, Rope};
use super::layers;
use super::layout::LayerParams;
use super::ops::glu::Activation;
use super::pass::Pass;
use super::tape::Act;
use crate::error::{Error, Result};

/// Values of absent keys, as in transformers' `Gemma3TextConfig`; published files leave them out.
const DEFAULTS: [(&str, f64); 8] = [
    ("vocab_size", 262_208.0),
    ("num_attention_heads", 8.0),
    ("num_key_value_heads", 4.0),
    ("head_dim", 256.0),
    ("max_position_embeddings", 131_072.0),
    ("rms_norm_eps", 1e-6),
    ("query_pre_attn_scalar", 256.0),
    ("sliding_window", 4096.0),
];

/// Keys of a model with a vision tower that say nothing about its text.
const VISION: [&str; 9] = [
    "text_config",
    "vision_config",
    "mm_tokens_per_image",
    "image_token_index",
    "image_token_id",
    "boi_token_index",
    "boi_token_id",
    "eoi_token_index",
    "eoi_token_id",
];

/// config.json of the text part alone (`gemma3_text`), every key of the family written out; other families' as they
/// are.
///
/// # Errors
/// A `gemma3` file without `text_config`, and its keys that are not known.
pub(super) fn text_only(json: Value) -> Result<Value> {
    let text = match json.get("model_type").and_then(Value::as_str) {
        Some("gemma3") => text_config(&json)?,
        Some("gemma3_text") => json.as_object().cloned().unwrap_or_default(),
        _ => return Ok(json),
    };
    let mut text = text;
    for (key, value) in DEFAULTS {
        let value = if value.fract() == 0.0 { json!(value as u64) } else { json!(value) };
        text.entry(key).or_insert(value);
    }
    text.entry("tie_word_embeddings").or_insert(true.into());
    Ok(Value::Object(text))
}

/// The text part of a file that describes text and vision towers.
fn text_config(json: &Value) -> Result<Map<String, Value>> {
    let Some(outer) = json.as_object() else { return Ok(Map::new()) };
    let mut keys = Keys::new(outer, "");
    let Some(text) = keys.object_or_null("text_config") else {
        return Err(Error::new(
            "`text_config` is missing, expected an object with the keys of the text model",
        )
        .help("take config.json from the model's own folder"));
    };
    keys.only("architectures", &[json!(["Gemma3ForConditionalGeneration"])]);
    keys.refuse("quantization_config", "quantised weights are not read", "take the unquantised model");
    keys.refuse("auto_map", "the model brings its own code", "take a model of a known family");
    let mut text = text.clone();
    text.insert("model_type".into(), "gemma3_text".into());
    text.insert("architectures".into(), json!(["Gemma3ForCausalLM"]));
    // the head is that of the whole model, and so are the defaults of a generation
    for key in ["tie_word_embeddings", "eos_token_id", "torch_dtype", "dtype", "transformers_version"] {
        if let Some(value) = keys.get(key) {
            text.insert(key.into(), value.clone());
        }
    }
    let known = [&VISION[..], &["model_type"], IRRELEVANT].concat();
    keys.finish(&known)?;
    Ok(text)
}

/// What config.json says in the way of this family.
pub(super) fn read(keys: &mut Keys) -> Particular {
    for key in ["hidden_activation", "hidden_act"] {
        keys.only(key, &[json!("gelu_pytorch_tanh")]);
    }
    keys.only("use_bidirectional_attention", &[json!(false)]);
    // transformers reads the key and computes nothing with it
    keys.get("attn_logit_softcapping");
    Particular {
        kv_heads: keys.size("num_key_value_heads"),
        head_dim: keys.size("head_dim"),
        context: 131_072,
        query_scalar: keys.positive("query_pre_attn_scalar"),
        logit_cap: keys.positive_or_null("final_logit_softcapping"),
    }
}

/// Rotary embeddings of the global layers, and the local layers with theirs.
pub(super) fn ropes(keys: &mut Keys, context: usize, layers: usize) -> (Rope, Option<Local>) {
    let theta = keys.positive_or("rope_theta", 1e6);
    let local_theta = keys.positive_or("rope_local_base_freq", 1e4);
    let (mut global, mut local) = (Rope::plain(theta), Rope::plain(local_theta));
    if let Some(object) = keys.object_or_null("rope_parameters") {
        keys.inside(object, "rope_parameters", |both| {
            if let Some(full) = both.object_or_null("full_attention") {
                global = both.inside(full, "rope_parameters.full_attention", |k| k.rope(theta, 0, context));
            }
            if let Some(sliding) = both.object_or_null("sliding_attention") {
                let name = "rope_parameters.sliding_attention";
                local = both.inside(sliding, name, |k| k.rope(local_theta, 0, context));
            }
        });
    }
    if let Some(object) = keys.object_or_null("rope_scaling") {
        global = keys.inside(object, "rope_scaling", |k| k.rope(theta, 0, context));
    }
    let layers = local_layers(keys, layers);
    let window = keys.size("sliding_window");
    (global, layers.contains(&true).then_some(Local { window, rope: local, layers }))
}

/// Which layers are local: `layer_types` says so one by one, `sliding_window_pattern` makes each n-th global.
fn local_layers(keys: &mut Keys, layers: usize) -> Vec<bool> {
    let pattern = keys.size_or("sliding_window_pattern", 6).max(1);
    // a note that transformers keeps for itself
    keys.get("_sliding_window_pattern");
    let Some(types) = keys.texts("layer_types") else {
        return (1..=layers).map(|layer| !layer.is_multiple_of(pattern)).collect();
    };
    if types.len() != layers {
        let what = format!("`layer_types` has {} entries, the model has {layers} layers", types.len());
        keys.problem(what, "write one entry a layer");
    }
    if let Some(other) = types.iter().find(|t| !["full_attention", "sliding_attention"].contains(&t.as_str()))
    {
        let what =
            format!("`layer_types` has `{other}`, raco computes `full_attention` and `sliding_attention`");
        keys.problem(what, "choose a model with these layers only");
    }
    types.iter().map(|kind| kind == "sliding_attention").collect()
}

/// What a tensor is called in a folder of the text part alone; `None` for those of the vision tower.
///
/// Models with a vision tower are stored as `language_model.model.…` (transformers 4.50, and 5 again), or as
/// `model.language_model.…`.
pub(super) fn canonical(name: &str) -> Option<String> {
    let inner = name.strip_prefix("model.").unwrap_or(name);
    if inner.starts_with("vision_tower.") || inner.starts_with("multi_modal_projector.") {
        return None;
    }
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return Some(format!("model.{rest}"));
    }
    Some(name.strip_prefix("language_model.").unwrap_or(name).to_owned())
}

/// One layer: attention in its window, then the gated layer, each normalised and on a residual.
pub(super) fn layer(pass: &mut Pass, x: &Act, l: &LayerParams) -> Result<Act> {
    let x = layers::attend(pass, x, l)?;
    layers::mlp(pass, &x, l, Activation::GeluTanh)
}
