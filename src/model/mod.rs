//! Batch → response log-probs: decoders read from Hugging Face folders, their forward and backward passes,
//! generation, saving.

mod config;
mod decoder;
mod gemma3;
mod generate;
mod init;
mod layers;
mod layout;
mod llama;
mod load;
pub(crate) mod ops;
mod pass;
mod qwen3;
mod rope;
mod save;
mod tape;
pub(crate) mod values;
mod weights;

pub use config::{Config, Family, Llama3Scaling, Local, Rope, Scaling};
pub use decoder::Recorded;
pub use generate::{Generation, Sampling};
pub use layout::{LayerParams, Layout, parameters};
pub use load::{available_bytes, check_memory, read_weights, weight_bytes};
pub use save::Precision;
pub use tape::{Axis, Matrix, Sink};
pub use weights::{Parameter, ParameterSpace, Weights};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::data::Tokenizer;
use crate::error::{Error, Result};

/// A decoder with its weights and tokenizer; copies share the weights.
///
/// [`Model::frozen`] is a copy that stays as it is while the original is trained; it costs memory only once
/// the original takes its first step.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    config: Config,
    tokenizer: Arc<Tokenizer>,
    weights: RwLock<Arc<Weights>>,
    version: AtomicU64,
    differentiated: AtomicBool,
    /// Rotary angles of the positions met so far: of the model's layers, and of its local ones.
    rotations: Mutex<[Arc<ops::attention::Rotation>; 2]>,
}

impl Model {
    /// A model of the given parts.
    pub fn new(config: Config, weights: Weights, tokenizer: Arc<Tokenizer>) -> Self {
        Self(Arc::new(Inner {
            config,
            tokenizer,
            weights: RwLock::new(Arc::new(weights)),
            version: AtomicU64::new(0),
            differentiated: AtomicBool::new(false),
            rotations: Mutex::default(),
        }))
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The tokenizer and chat template.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.0.tokenizer
    }

    /// The weights as they are now.
    pub fn weights(&self) -> Arc<Weights> {
        self.0.weights.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// A hash of the architecture and every weight, the same on every machine; what a cache of log-probs is
    /// keyed by.
    ///
    /// # Errors
    /// Weights that are not contiguous f32 on the CPU.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config().computation().as_bytes());
        let mut bytes = [0; 4 << 10];
        for parameter in self.weights().parameters() {
            hasher.update(parameter.name.as_bytes());
            for block in values::values::<f32>(&parameter.tensor)?.chunks(bytes.len() / 4) {
                let bytes = &mut bytes[..4 * block.len()];
                bytes.chunks_exact_mut(4).zip(block).for_each(|(b, v)| b.copy_from_slice(&v.to_le_bytes()));
                hasher.update(bytes);
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Counts the changes of the weights; log-probs of an older version are stale.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Set once a backward has reached every tensor.
    pub(crate) fn differentiated(&self) -> &AtomicBool {
        &self.0.differentiated
    }

    /// A copy that keeps the present weights.
    pub fn frozen(&self) -> Self {
        Self(Arc::new(Inner {
            config: self.config().clone(),
            tokenizer: self.tokenizer().clone(),
            weights: RwLock::new(self.weights()),
            version: AtomicU64::new(0),
            differentiated: AtomicBool::new(false),
            rotations: Mutex::default(),
        }))
    }

    /// True if both share the same weights, so that training one changes the other.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Changes the weights in place: `change(index, parameter values)` for every parameter in order.
    ///
    /// Frozen copies keep the old values. The version goes up even when `change` fails.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn update(&self, mut change: impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let mut guard = self.0.weights.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.0.version.fetch_add(1, Ordering::AcqRel);
        if Arc::get_mut(&mut guard).is_none() {
            *guard = Arc::new(guard.copy()?);
        }
        let weights = Arc::get_mut(&mut guard)
            .ok_or_else(|| Error::internal("a fresh copy of the weights is shared"))?;
        (0..weights.parameters().len()).try_for_each(|i| weights.change(i, |values| change(i, values)))
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("tensor operation failed: {error}"))
    }
}
