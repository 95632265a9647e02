//! config.json of a Hugging Face folder → the architecture.
//!
//! Every key of the file is used, known not to change what is computed, or refused by name: a key that is
//! silently skipped is a model that silently computes something else.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{gemma3, llama, qwen3};
use crate::error::{Error, Place, Result, io_error, nearest};

/// The architectures that raco computes; the name of the file that holds each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3, 3.x and what is built like them.
    Llama,
    /// Qwen3: Llama with normalised queries and keys.
    Qwen3,
    /// Gemma 3, its text part: local and global layers, norms before and after each block.
    Gemma3,
}

impl Family {
    const ALL: [Self; 3] = [Self::Llama, Self::Qwen3, Self::Gemma3];

    /// `model_type` in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3_text",
        }
    }

    pub(super) fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    /// What norms add to their weights before they multiply by them.
    pub(super) fn norm_offset(self) -> f32 {
        match self {
            Self::Llama | Self::Qwen3 => 0.0,
            Self::Gemma3 => 1.0,
        }
    }
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// What is done to the frequencies.
    pub scaling: Option<Scaling>,
}

/// `rope_type` other than `default`.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// `linear`: all frequencies are divided by this factor.
    Linear(f64),
    /// `llama3`: the low frequencies are.
    Llama3(Llama3Scaling),
}

/// `rope_type: llama3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama3Scaling {
    /// What the low frequencies are divided by.
    pub factor: f64,
    /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// Context of the pretraining, in tokens.
    pub original_max_position_embeddings: usize,
}

/// Layers that see the last few positions only, with a rotary embedding of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// Positions that a token sees, its own included.
    pub window: usize,
    /// Rotary position embedding of these layers.
    pub rope: Rope,
    /// For each layer, whether it is one of them.
    pub layers: Vec<bool>,
}

/// What the forward pass needs to know about a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which file computes it.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Width of the gated layer.
    pub intermediate: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f64,
    /// Rotary position embedding, of the layers that are not local.
    pub rope: Rope,
    /// Local layers, if the model has such.
    pub local: Option<Local>,
    /// Queries are multiplied by the root of its inverse; `head_dim` unless the file says otherwise.
    pub query_scalar: f64,
    /// Logits are capped smoothly: c tanh(logit / c).
    pub logit_cap: Option<f64>,
    /// The head is the embedding.
    pub tied: bool,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Tokens that end a generation: those of the file, and once a model is loaded those of its tokenizer and
    /// generation_config.json.
    pub stop_tokens: Vec<u32>,
    /// The file as read, written back on saving.
    pub json: Value,
}

/// What the families read differently.
pub(super) struct Particular {
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Context where the file names none.
    pub context: usize,
    pub query_scalar: f64,
    pub logit_cap: Option<f64>,
}

/// Keys that do not change the forward pass: training and generation defaults, book-keeping, labels.
/// Dropout is off in preference training, as in TRL.
pub(super) const IRRELEVANT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "sliding_window",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read, and what [`Config::from_json`] refuses.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        Self::from_json(read_json(&path)?).map_err(|e| e.in_file(&path))
    }

    /// The architecture that a `config.json` of transformers 4 or 5 describes.
    ///
    /// # Errors
    /// An unknown `model_type`; every missing, ill-typed or unknown key and every value that changes the
    /// computation in a way that raco does not have, all by name.
    pub fn from_json(json: Value) -> Result<Self> {
        let json = gemma3::text_only(json)?;
        let object = json.as_object().ok_or_else(|| {
            Error::new(format!("expected a JSON object, found `{}`", short(&json)))
                .help("take config.json from the model's folder")
        })?;
        let mut keys = Keys::new(object, "");
        let family = family(object.get("model_type"))?;
        keys.used.insert("model_type");

        let hidden = keys.size("hidden_size");
        let heads = keys.size("num_attention_heads");
        let layers = keys.size("num_hidden_layers");
        let particular = match family {
            Family::Llama => llama::read(&mut keys, hidden, heads),
            Family::Qwen3 => qwen3::read(&mut keys, heads),
            Family::Gemma3 => gemma3::read(&mut keys),
        };
        let context = keys.size_or("max_position_embeddings", particular.context);
        let (rope, local) = match family {
            Family::Llama | Family::Qwen3 => {
                keys.only("hidden_act", &[json!("silu"), json!("swish")]);
                keys.only("layer_types", &[json!(vec!["full_attention"; layers])]);
                (rope(&mut keys, context), None)
            }
            Family::Gemma3 => gemma3::ropes(&mut keys, context, layers),
        };
        let config = Self {
            family,
            vocab: keys.size("vocab_size"),
            hidden,
            layers,
            heads,
            kv_heads: particular.kv_heads,
            head_dim: particular.head_dim,
            intermediate: keys.size("intermediate_size"),
            norm_eps: keys.positive_or("rms_norm_eps", 1e-6),
            rope,
            local,
            query_scalar: particular.query_scalar,
            logit_cap: particular.logit_cap,
            tied: keys.flag_or("tie_word_embeddings", false),
            context,
            stop_tokens: stop_tokens(&json)?,
            json: json.clone(),
        };
        keys.used.insert("eos_token_id");
        keys.only("architectures", &[json!([family.architecture()])]);
        keys.only("attention_bias", &[json!(false)]);
        keys.only("partial_rotary_factor", &[json!(1), json!(1.0)]);
        keys.only("is_encoder_decoder", &[json!(false)]);
        keys.only("add_cross_attention", &[json!(false)]);
        keys.only("pruned_heads", &[json!({})]);
        keys.refuse("quantization_config", "quantised weights are not read", "take the unquantised model");
        keys.refuse("auto_map", "the model brings its own code", "take a model of a known family");
        if heads > 0 && config.kv_heads > 0 && !heads.is_multiple_of(config.kv_heads) {
            keys.problem(
                format!(
                    "`num_attention_heads` is `{heads}`, not a multiple of `num_key_value_heads` `{}`",
                    config.kv_heads
                ),
                "check both keys",
            );
        }
        if config.head_dim % 2 == 1 {
            keys.problem(
                format!("`head_dim` is `{}`; rotary embeddings need an even one", config.head_dim),
                "check `head_dim`",
            );
        }
        keys.finish(IRRELEVANT)?;
        Ok(config)
    }

    /// Adds tokens that end a generation, each once.
    pub fn add_stop_tokens(&mut self, tokens: impl IntoIterator<Item = u32>) {
        for token in tokens {
            if !self.stop_tokens.contains(&token) {
                self.stop_tokens.push(token);
            }
        }
    }

    /// All that decides what is computed from the weights, in one line; equal configs have equal lines.
    pub fn computation(&self) -> String {
        let Self { family, vocab, hidden, layers, heads, kv_heads, head_dim, intermediate, .. } = self;
        let Self { norm_eps, rope, local, query_scalar, logit_cap, tied, .. } = self;
        format!(
            "{} vocab {vocab} hidden {hidden} layers {layers} heads {heads}/{kv_heads}x{head_dim} \
             intermediate {intermediate} eps {norm_eps:e} {rope:?} {local:?} query scalar {query_scalar} \
             cap {logit_cap:?} tied {tied}",
            family.name()
        )
    }
}

pub(super) fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| io_error(&e, "read", path))?;
    serde_json::from_str(&text).map_err(|e| {
        Error::new(format!("not valid JSON: {e}"))
            .at(Place::File { path: path.to_owned(), line: Some(e.line()), column: Some(e.column()) })
            .help("fetch the file again")
    })
}

fn family(model_type: Option<&Value>) -> Result<Family> {
    let known = || Family::ALL.map(Family::name).map(|n| format!("`{n}`")).join(", ");
    let Some(name) = model_type.and_then(Value::as_str) else {
        return Err(Error::new("`model_type` is missing")
            .at(Place::Key("model_type".into()))
            .help(format!("set it to the model's family, one of {}", known())));
    };
    Family::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
        Error::new(format!("model type `{name}` is not known, expected one of {}", known()))
            .at(Place::Key("model_type".into()))
            .help("choose a model of one of these families")
    })
}

/// `eos_token_id`: a token, a list of them, or none.
fn stop_tokens(json: &Value) -> Result<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|v| u32::try_from(v).ok());
    let tokens = match json.get("eos_token_id") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(value) => id(value).map(|token| vec![token]),
    };
    tokens.ok_or_else(|| {
        let found = json.get("eos_token_id").map(short).unwrap_or_default();
        Error::new(format!("expected a token id or a list of them, found `{found}`"))
            .at(Place::Key("eos_token_id".into()))
            .help("write the ids of the end tokens")
    })
}

/// Frequencies of the rotary embedding: `rope_parameters` (transformers 5), or `rope_theta` with
/// `rope_scaling` (transformers 4).
fn rope(keys: &mut Keys, context: usize) -> Rope {
    let default_theta = keys.positive_or("rope_theta", 1e4);
    let original = keys.size_or("original_max_position_embeddings", 0);
    let (new, old) = (keys.object_or_null("rope_parameters"), keys.object_or_null("rope_scaling"));
    let (name, object) = match (new, old) {
        (None, None) => return Rope::plain(default_theta),
        (Some(object), None) => ("rope_parameters", object),
        (None, Some(object)) => ("rope_scaling", object),
        (Some(new), Some(old)) => {
            if new != old {
                keys.problem("`rope_parameters` and `rope_scaling` differ".into(), "keep one of them");
            }
            ("rope_parameters", new)
        }
    };
    keys.inside(object, name, |inner| inner.rope(default_theta, original, context))
}

impl Rope {
    /// Without scaling.
    pub fn plain(theta: f64) -> Self {
        Self { theta, scaling: None }
    }
}

/// The keys of one JSON object. Each is asked for by name; what nobody asked for is a problem, and all
/// problems come out together. A getter that meets a problem returns a number that is never used, since
/// [`Keys::finish`] fails then.
pub(super) struct Keys<'a> {
    object: &'a Map<String, Value>,
    parent: &'static str,
    used: BTreeSet<&'a str>,
    problems: Vec<(String, String)>,
}

impl<'a> Keys<'a> {
    pub fn new(object: &'a Map<String, Value>, parent: &'static str) -> Self {
        Self { object, parent, used: BTreeSet::new(), problems: Vec::new() }
    }

    fn path(&self, key: &str) -> String {
        if self.parent.is_empty() { format!("`{key}`") } else { format!("`{}.{key}`", self.parent) }
    }

    pub fn problem(&mut self, what: String, help: &str) {
        self.problems.push((what, help.to_owned()));
    }

    /// Reads an object under this one, with all of its keys.
    pub fn inside<T>(
        &mut self,
        object: &'a Map<String, Value>,
        parent: &'static str,
        read: impl FnOnce(&mut Keys<'a>) -> T,
    ) -> T {
        let mut inner = Keys::new(object, parent);
        let found = read(&mut inner);
        inner.close(&[]);
        self.problems.append(&mut inner.problems);
        found
    }

    /// The rotary embedding that an object of `rope_parameters` or `rope_scaling` describes; `original` is the
    /// context of the pretraining where it stands outside, otherwise 0.
    pub fn rope(&mut self, default_theta: f64, original: usize, context: usize) -> Rope {
        let theta = self.positive_or("rope_theta", default_theta);
        self.only("partial_rotary_factor", &[json!(1), json!(1.0)]);
        let kind = ["rope_type", "type"].map(|key| self.text(key)).into_iter().flatten().next();
        let scaling = match kind.as_deref().unwrap_or("default") {
            "default" => None,
            "linear" => Some(Scaling::Linear(self.positive("factor"))),
            "llama3" => Some(Scaling::Llama3(Llama3Scaling {
                factor: self.positive("factor"),
                low_freq_factor: self.positive("low_freq_factor"),
                high_freq_factor: self.positive("high_freq_factor"),
                original_max_position_embeddings: match original {
                    0 => self.size_or("original_max_position_embeddings", context),
                    outer => {
                        self.used.insert("original_max_position_embeddings");
                        outer
                    }
                },
            })),
            other => {
                let what = format!(
                    "{} is `{other}`, raco computes `default`, `linear` and `llama3`",
                    self.path("rope_type")
                );
                self.problem(what, "choose a model with one of these");
                // its other keys belong to that type
                self.used.extend(self.object.keys().map(String::as_str));
                None
            }
        };
        Rope { theta, scaling }
    }

    /// The value, unless it is absent or null.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.used.insert(key);
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// True if the key is there with the value null.
    pub fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.get(key) else {
            if default.is_none() {
                let what = format!("{} is missing, expected {kind}", self.path(key));
                self.problem(what, "add the key as it is in the model's own config.json");
            }
            return default;
        };
        let found = read(value);
        if found.is_none() {
            let what = format!("{} must be {kind}, found `{}`", self.path(key), short(value));
            self.problem(what, "correct the value");
        }
        found
    }

    pub fn size(&mut self, key: &'static str) -> usize {
        self.read(key, None, "a positive integer", size).unwrap_or(0)
    }

    pub fn size_or(&mut self, key: &'static str, default: usize) -> usize {
        self.read(key, Some(default), "a positive integer", size).unwrap_or(0)
    }

    pub fn positive(&mut self, key: &'static str) -> f64 {
        self.read(key, None, "a positive number", positive).unwrap_or(1.0)
    }

    pub fn positive_or(&mut self, key: &'static str, default: f64) -> f64 {
        self.read(key, Some(default), "a positive number", positive).unwrap_or(1.0)
    }

    pub fn positive_or_null(&mut self, key: &'static str) -> Option<f64> {
        self.read(key, Some(None), "a positive number or null", |v| positive(v).map(Some)).flatten()
    }

    fn flag_or(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, Some(default), "`true` or `false`", Value::as_bool).unwrap_or(default)
    }

    /// An array of strings, unless absent or null.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let texts = |v: &Value| v.as_array().and_then(|list| list.iter().map(text).collect()).map(Some);
        self.read(key, Some(None), "an array of strings", texts).flatten()
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, Some(None), "a string", |v| v.as_str().map(|s| Some(s.to_owned()))).flatten()
    }

    pub fn object_or_null(&mut self, key: &'static str) -> Option<&'a Map<String, Value>> {
        let value = self.get(key)?;
        if !value.is_object() {
            let what = format!("{} must be an object or null, found `{}`", self.path(key), short(value));
            self.problem(what, "correct the value");
        }
        value.as_object()
    }

    /// Refuses every value but these (and null): others change the computation.
    pub fn only(&mut self, key: &'static str, computed: &[Value]) {
        let Some(value) = self.get(key) else { return };
        if !computed.contains(value) {
            let expected = computed.first().map(short).unwrap_or_default();
            let what = format!("{} is `{}`, raco computes `{expected}` only", self.path(key), short(value));
            self.problem(what, "choose a model without this feature");
        }
    }

    /// Refuses the key whatever its value, unless null.
    pub fn refuse(&mut self, key: &'static str, why: &str, help: &str) {
        if self.get(key).is_some() {
            let what = format!("{}: {why}", self.path(key));
            self.problem(what, help);
        }
    }

    /// Notes the keys that nobody asked for.
    fn close(&mut self, irrelevant: &[&str]) {
        let known = |key: &str| self.used.contains(key) || irrelevant.contains(&key);
        let unknown: Vec<String> =
            self.object.iter().filter(|(k, v)| !known(k) && !v.is_null()).map(|(k, _)| k.clone()).collect();
        for key in unknown {
            let near = nearest(&key, self.used.iter().copied());
            let hint = near.first().map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
            let what = format!("{} is not a key that raco knows{hint}", self.path(&key));
            self.problem(what, "remove the key if it does not change what the model computes");
        }
    }

    /// Fails with every problem found.
    pub fn finish(mut self, irrelevant: &[&str]) -> Result<()> {
        self.close(irrelevant);
        let Some((_, help)) = self.problems.first().cloned() else { return Ok(()) };
        let list: Vec<&str> = self.problems.iter().take(10).map(|(what, _)| what.as_str()).collect();
        let more = match self.problems.len() {
            n if n > 10 => format!("; and {} more", n - 10),
            _ => String::new(),
        };
        Err(Error::new(format!("{}{more}", list.join("; "))).help(help))
    }
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().filter(|&v| v > 0 && v <= u32::MAX.into()).map(|v| v as usize)
}

fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| *v > 0.0 && v.is_finite())
}

/// A value as it fits into a message.
fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
