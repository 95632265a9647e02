//! config.json of a Hugging Face folder → the architecture.

/// The architectures that raco computes; the name of the file that holds each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3, 3.x and what is built like them.
    Llama,
    /// Qwen3: Llama with normalised queries and keys.
    Qwen3,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Llama 3 scaling of the low frequencies, if any.
    pub scaling: Option<Llama3Scaling>,
}

/// `rope_type: llama3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

/// What the forward pass needs to know about a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub family: Family,
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub intermediate: usize,
    pub norm_eps: f64,
    pub rope: Rope,
    /// The head is the embedding.
    pub tied: bool,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// The file as read, written back on saving.
    pub json: serde_json::Value,
}
