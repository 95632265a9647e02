//! Fresh weights for pretraining.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::memory::check_weights;
use super::{Config, Model, Parameter, Precision, Weights, allowed_bytes, parameters};
use crate::data::Tokenizer;
use crate::error::Result;

/// Standard deviation of the embeddings.
const EMBEDDING: f64 = 0.02;
/// Standard deviation of a linear map, times √fan_in.
const LINEAR: f64 = 0.7;

impl Model {
    /// A model of the architecture of a config.json, with random weights: embeddings `N(0, 0.02²)`, linear
    /// maps `N(0, 0.49 / fan_in)`, norms multiply by 1. The same seed gives the same weights.
    ///
    /// # Errors
    /// What [`Config::from_json`] refuses; a tokenizer with more tokens than the embedding has rows; weights
    /// that do not fit into memory.
    pub fn init(config: Value, tokenizer: impl Into<Arc<Tokenizer>>, seed: u64) -> Result<Self> {
        let tokenizer = tokenizer.into();
        let mut config = Config::from_json(config)?;
        tokenizer.check_fits(config.vocab)?;
        check_weights(&config, Precision::F32, allowed_bytes())?;
        config.add_stop_tokens(tokenizer.end_tokens().iter().copied());
        let norm_offset = config.family.norm_offset();
        let fresh = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
            // a stream for each tensor: a model with more layers shares the first ones
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            let size = shape.iter().product();
            let values = match shape[..] {
                [_] => vec![1.0 - norm_offset; size],
                _ if index == 0 => normal(&mut rng, size, EMBEDDING),
                _ => {
                    let fan_in = shape.last().copied().unwrap_or(1);
                    normal(&mut rng, size, LINEAR / (fan_in as f64).sqrt())
                }
            };
            Ok(Parameter { name, tensor: Tensor::from_vec(values, shape, &Device::Cpu)? })
        };
        let weights = parameters(&config).into_iter().enumerate().map(fresh).collect::<Result<_>>()?;
        Ok(Self::new(config, Weights::new(weights), tokenizer))
    }
}

/// Independent normal numbers of the given standard deviation (Box–Muller).
fn normal(rng: &mut impl Rng, count: usize, deviation: f64) -> Vec<f32> {
    let draw = || {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        [(deviation * radius * cos) as f32, (deviation * radius * sin) as f32]
    };
    std::iter::repeat_with(draw).flatten().take(count).collect()
}
