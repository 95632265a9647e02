//! Batch → response log-probs: decoders read from Hugging Face folders, their forward and backward passes,
//! generation, saving.

mod config;
mod decoder;
mod device;
mod gemma3;
mod generate;
mod generic;
mod gguf;
mod init;
mod layers;
mod layout;
mod llama;
mod load;
mod lora;
mod memory;
pub(crate) mod ops;
mod pass;
mod peft;
mod qwen3;
mod rope;
mod save;
mod tape;
pub(crate) mod values;
mod weights;

pub use config::{Config, Family, Llama3Scaling, Local, Rope, Scaling};
pub use decoder::{Keep, Recorded};
pub use device::{Kernels, Processor};
pub use generate::{Generation, Sampling};
pub use layout::{LayerParams, Layout, parameters};
pub use load::{Load, read_config, read_weights};
pub use lora::{Adapter, Lora, Targets};
pub use memory::{allowed_bytes, available_bytes, parse_bytes, reserve, show_bytes, weight_bytes};
pub use save::Precision;
pub use tape::{Axis, Matrix, Sink};
pub use weights::{Parameter, ParameterSpace, Weights};

pub(crate) use weights::Parts;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use candle_core::{DType, Device, Tensor};

use crate::data::Tokenizer;
use crate::error::{Error, Result};

/// A decoder with its weights and tokenizer; copies share the weights.
///
/// [`Model::frozen`] is a copy that stays as it is while the original is trained; it costs memory only once
/// the original takes its first step. A model with an [`Adapter`] trains the adapter alone; its decoder is shared by
/// all copies for good.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    config: Config,
    tokenizer: Arc<Tokenizer>,
    /// Folder or name that the decoder came from.
    source: Option<String>,
    /// What is trained: the decoder, or its adapter alone.
    weights: RwLock<Arc<Weights>>,
    adapter: Option<Arc<Adapter>>,
    kernels: Kernels,
    version: AtomicU64,
    alive: AtomicBool,
    /// Rotary angles of the positions met so far: of the model's layers, and of its local ones.
    rotations: Mutex<[Arc<ops::attention::Rotation>; 2]>,
}

impl Model {
    /// A model of the given parts, computed by the code that suits the device of the weights.
    pub fn new(config: Config, weights: Weights, tokenizer: Arc<Tokenizer>) -> Self {
        let kernels = Kernels::of(&weights.device());
        Self::of(config, tokenizer, None, (Arc::new(weights), None), kernels)
    }

    fn of(
        config: Config,
        tokenizer: Arc<Tokenizer>,
        source: Option<String>,
        (weights, adapter): (Arc<Weights>, Option<Arc<Adapter>>),
        kernels: Kernels,
    ) -> Self {
        Self(Arc::new(Inner {
            config,
            tokenizer,
            source,
            weights: RwLock::new(weights),
            adapter,
            kernels,
            version: AtomicU64::new(0),
            alive: AtomicBool::new(false),
            rotations: Mutex::default(),
        }))
    }

    /// A model of the same architecture, tokenizer and source with other weights.
    fn with(&self, weights: Arc<Weights>, adapter: Option<Arc<Adapter>>) -> Self {
        self.computed_by(self.kernels(), weights, adapter)
    }

    fn computed_by(&self, kernels: Kernels, weights: Arc<Weights>, adapter: Option<Arc<Adapter>>) -> Self {
        let Inner { config, tokenizer, source, .. } = &*self.0;
        Self::of(config.clone(), tokenizer.clone(), source.clone(), (weights, adapter), kernels)
    }

    /// A model of its own with the same weights on `processor`, computed by `kernels` (by default those that suit the
    /// processor).
    ///
    /// # Errors
    /// As [`Processor::open`] and [`Kernels::choose`]; a device without room for the weights.
    pub fn on(&self, processor: Processor, kernels: Option<Kernels>) -> Result<Self> {
        let device = processor.open()?;
        let kernels = Kernels::choose(kernels, &device)?;
        let weights = Arc::new(self.weights().copied(&device)?);
        let adapter = self.adapter().map(|adapter| adapter.on(&device)).transpose()?;
        Ok(self.computed_by(kernels, weights, adapter.map(Arc::new)))
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.weights().device()
    }

    /// The processor that computes.
    pub fn processor(&self) -> Processor {
        Processor::of(&self.device())
    }

    /// The code that computes.
    pub fn kernels(&self) -> Kernels {
        self.0.kernels
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The tokenizer and chat template.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.0.tokenizer
    }

    /// Folder or name that the decoder came from, if any.
    pub fn source(&self) -> Option<&str> {
        self.0.source.as_deref()
    }

    /// The adapter, if the model has one.
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.0.adapter.as_ref()
    }

    /// The weights that are trained, as they are now: those of the decoder or, where the model has an adapter, of the
    /// adapter alone.
    pub fn weights(&self) -> Arc<Weights> {
        self.0.weights.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// All weights that the model computes with, as they are now.
    pub(crate) fn parts(&self) -> Parts {
        match self.adapter() {
            None => Parts { decoder: self.weights(), adapter: None, kernels: self.kernels() },
            Some(adapter) => Parts {
                decoder: adapter.base().clone(),
                adapter: Some((adapter.clone(), self.weights())),
                kernels: self.kernels(),
            },
        }
    }

    /// How the weights of the decoder are kept.
    pub fn precision(&self) -> Precision {
        self.parts().decoder.precision()
    }

    /// A hash of the architecture and every weight, the same on every machine and however the weights are kept; what
    /// a cache of log-probs is keyed by.
    ///
    /// # Errors
    /// A device that fails.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config().computation().as_bytes());
        let mut bytes = [0; 4 << 10];
        let parts = self.parts();
        if let Some((adapter, _)) = &parts.adapter {
            hasher.update(&adapter.scale().to_le_bytes());
        }
        for parameter in parts.parameters() {
            hasher.update(parameter.name.as_bytes());
            let tensor = values::host(&parameter.tensor)?.to_dtype(DType::F32)?;
            for block in values::values::<f32>(&tensor)?.chunks(bytes.len() / 4) {
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

    /// True once a backward has reached every tensor that is trained.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.alive.load(Ordering::Acquire)
    }

    pub(crate) fn set_alive(&self) {
        self.0.alive.store(true, Ordering::Release);
    }

    /// A copy that keeps the present weights. While every B of an adapter is zero, as in a fresh one, that is the
    /// model without it.
    pub fn frozen(&self) -> Self {
        match self.adapter() {
            Some(adapter) if adapter.is_idle(&self.weights()) => self.base(),
            adapter => self.with(self.weights(), adapter.cloned()),
        }
    }

    /// A model of its own with the same weights, adapter included; a step of either leaves the other as it is.
    pub fn twin(&self) -> Self {
        self.with(self.weights(), self.adapter().cloned())
    }

    /// A copy without the adapter.
    pub fn base(&self) -> Self {
        self.with(self.parts().decoder, None)
    }

    /// True if both share the same weights, so that training one changes the other.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Puts weights back that [`Model::weights`] gave, shared until the next step copies them.
    ///
    /// # Errors
    /// Weights over other parameters.
    pub fn restore(&self, weights: Arc<Weights>) -> Result<()> {
        let mut guard = self.0.weights.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if guard.space() != weights.space() {
            return Err(Error::new("the weights belong to a model of other parameters")
                .help("restore what was taken from this model"));
        }
        *guard = weights;
        self.0.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Changes the weights in place: `change(index, parameter values)` for every parameter in order.
    ///
    /// Frozen copies keep the old values. The version goes up even when `change` fails.
    ///
    /// # Errors
    /// The first error of `change`; weights that are kept as bf16.
    pub fn update(&self, mut change: impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let mut guard = self.0.weights.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        guard.check_trainable()?;
        self.0.version.fetch_add(1, Ordering::AcqRel);
        if Arc::get_mut(&mut guard).is_none() {
            *guard = Arc::new(guard.copy()?);
        }
        let weights = Arc::get_mut(&mut guard)
            .ok_or_else(|| Error::internal("a fresh copy of the weights is shared"))?;
        (0..weights.parameters().len()).try_for_each(|i| weights.change(i, |values| change(i, values)))
    }

    /// Puts new tensors in the place of the weights: `change(index, tensor)` for every parameter in order, on the
    /// device of the model; none may share memory with an old one.
    ///
    /// Frozen copies keep the old ones. The version goes up even when `change` fails.
    ///
    /// # Errors
    /// As [`Model::update`].
    pub(crate) fn replace(&self, change: impl FnMut(usize, &Tensor) -> Result<Tensor>) -> Result<()> {
        let mut guard = self.0.weights.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        guard.check_trainable()?;
        self.0.version.fetch_add(1, Ordering::AcqRel);
        if let Some(own) = Arc::get_mut(&mut guard) {
            return own.replace(change);
        }
        let mut next = guard.shared();
        next.replace(change)?;
        *guard = Arc::new(next);
        Ok(())
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("tensor operation failed: {error}"))
    }
}
