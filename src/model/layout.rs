//! Which parameter is where: names and shapes in the safetensors file, indices in [`super::Weights`].

use super::{Config, Family};

/// Indices into [`super::Weights::parameters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Embedding, [vocab, hidden].
    pub embed: usize,
    /// Layers in order.
    pub layers: Vec<LayerParams>,
    /// Final norm, [hidden].
    pub norm: usize,
    /// Head, [vocab, hidden]; equal to `embed` when tied.
    pub head: usize,
}

/// Indices of one layer's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerParams {
    /// Norm before the attention, [hidden].
    pub input_norm: usize,
    /// Queries, [heads · head_dim, hidden].
    pub q: usize,
    /// Keys, [kv_heads · head_dim, hidden].
    pub k: usize,
    /// Values, [kv_heads · head_dim, hidden].
    pub v: usize,
    /// Output of the attention, [hidden, heads · head_dim].
    pub o: usize,
    /// Norm of each head's query, [head_dim].
    pub q_norm: Option<usize>,
    /// Norm of each head's key, [head_dim].
    pub k_norm: Option<usize>,
    /// Norm of what the attention adds, [hidden].
    pub post_attention_norm: Option<usize>,
    /// Norm before the gated layer, [hidden].
    pub mlp_norm: usize,
    /// Gate, [intermediate, hidden].
    pub gate: usize,
    /// Up, [intermediate, hidden].
    pub up: usize,
    /// Down, [hidden, intermediate].
    pub down: usize,
    /// Norm of what the gated layer adds, [hidden].
    pub post_mlp_norm: Option<usize>,
}

impl Layout {
    /// The layout of an architecture.
    pub fn new(config: &Config) -> Self {
        build(config).0
    }
}

/// Name and shape of every parameter, in the order of [`super::Weights::parameters`]: the embedding, the
/// layers, the final norm, and the head unless tied.
pub fn parameters(config: &Config) -> Vec<(String, Vec<usize>)> {
    build(config).1
}

fn build(config: &Config) -> (Layout, Vec<(String, Vec<usize>)>) {
    let Config { family, vocab, hidden, heads, kv_heads, head_dim, intermediate, .. } = *config;
    let mut list = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        list.push((format!("{name}.weight"), shape.to_vec()));
        list.len() - 1
    };
    let embed = add("model.embed_tokens".into(), &[vocab, hidden]);
    let layers = (0..config.layers)
        .map(|layer| {
            let mut add = |name: &str, shape: &[usize]| add(format!("model.layers.{layer}.{name}"), shape);
            let (head_norms, post_norms, mlp_norm) = match family {
                Family::Llama => (false, false, "post_attention_layernorm"),
                Family::Qwen3 => (true, false, "post_attention_layernorm"),
                Family::Gemma3 => (true, true, "pre_feedforward_layernorm"),
            };
            LayerParams {
                input_norm: add("input_layernorm", &[hidden]),
                q: add("self_attn.q_proj", &[heads * head_dim, hidden]),
                k: add("self_attn.k_proj", &[kv_heads * head_dim, hidden]),
                v: add("self_attn.v_proj", &[kv_heads * head_dim, hidden]),
                o: add("self_attn.o_proj", &[hidden, heads * head_dim]),
                q_norm: head_norms.then(|| add("self_attn.q_norm", &[head_dim])),
                k_norm: head_norms.then(|| add("self_attn.k_norm", &[head_dim])),
                post_attention_norm: post_norms.then(|| add("post_attention_layernorm", &[hidden])),
                mlp_norm: add(mlp_norm, &[hidden]),
                gate: add("mlp.gate_proj", &[intermediate, hidden]),
                up: add("mlp.up_proj", &[intermediate, hidden]),
                down: add("mlp.down_proj", &[hidden, intermediate]),
                post_mlp_norm: post_norms.then(|| add("post_feedforward_layernorm", &[hidden])),
            }
        })
        .collect();
    let norm = add("model.norm".into(), &[hidden]);
    let head = if config.tied { embed } else { add("lm_head".into(), &[vocab, hidden]) };
    (Layout { embed, layers, norm, head }, list)
}
