//! Stochastic gradient descent with momentum.

use candle_core::Tensor;
use rayon::prelude::*;

use super::optimizer::{CHUNK, Rule, Step, check_fraction, check_number};
use crate::error::Result;

/// SGD; plain descent without momentum.
///
/// ```text
///     g ← g + decay·θ,  b ← momentum·b + g  (b = g at the first step),  θ ← θ - lr·b
///     with nesterov     θ ← θ - lr·(g + momentum·b)
/// ```
///
/// Source: `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sgd {
    /// Decay of the sum of past gradients, in [0, 1).
    pub momentum: f64,
    /// Weight decay added to the gradient, ≥ 0.
    pub decay: f64,
    /// Look ahead along the momentum.
    pub nesterov: bool,
}

impl Sgd {
    /// The rule over `size` parameters.
    ///
    /// # Errors
    /// A constant outside its range.
    pub(super) fn rule(self, size: usize) -> Result<Momentum> {
        check_fraction("momentum", self.momentum)?;
        check_number("decay", self.decay, 0.0)?;
        let size = if self.momentum > 0.0 { size } else { 0 };
        Ok(Momentum { of: self, buffer: vec![0.0; size] })
    }
}

pub(super) struct Momentum {
    of: Sgd,
    buffer: Vec<f32>, // b [P], empty without momentum
}

impl Rule for Momentum {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        if self.of.momentum == 0.0 { vec![] } else { vec![("momentum", &self.buffer)] }
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        if self.of.momentum == 0.0 { vec![] } else { vec![("momentum", &mut self.buffer)] }
    }

    /// |b| ≤ peak · Σ momentumᵏ, and as much once more for nesterov's g + momentum·b.
    fn reach(&self, _step: &Step, peak: f64) -> f64 {
        peak / (1.0 - self.of.momentum)
    }

    fn coupled_decay(&self) -> f64 {
        self.of.decay
    }

    fn apply(&mut self, step: &Step, at: usize, weights: &mut [f32], update: &[f32]) {
        let (lr, scale, decay) = (step.lr as f32, step.scale, self.of.decay as f32);
        let (momentum, nesterov) = (self.of.momentum as f32, self.of.nesterov);
        let arch = pulp::Arch::new();
        if self.buffer.is_empty() {
            let run = |w: &mut [f32], g: &[f32]| {
                arch.dispatch(
                    #[inline(always)]
                    || w.iter_mut().zip(g).for_each(|(w, g)| *w -= lr * (g * scale + decay * *w)),
                );
            };
            return weights.par_chunks_mut(CHUNK).zip(update.par_chunks(CHUNK)).for_each(|(w, g)| run(w, g));
        }
        let buffer = &mut self.buffer[at..][..weights.len()];
        let run = |w: &mut [f32], b: &mut [f32], g: &[f32]| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for ((w, b), g) in w.iter_mut().zip(b).zip(g) {
                        let g = g * scale + decay * *w;
                        *b = momentum * *b + g;
                        *w -= lr * if nesterov { g + momentum * *b } else { *b };
                    }
                },
            );
        };
        if weights.len() <= CHUNK {
            return run(weights, buffer, update);
        }
        weights
            .par_chunks_mut(CHUNK)
            .zip(buffer.par_chunks_mut(CHUNK))
            .zip(update.par_chunks(CHUNK))
            .for_each(|((w, b), g)| run(w, b, g));
    }

    fn shift(&self, step: &Step, weight: &Tensor, update: &Tensor, state: &mut [Tensor]) -> Result<Tensor> {
        let Sgd { momentum, decay, nesterov } = self.of;
        let mut g = update.affine(f64::from(step.scale), 0.0)?;
        if decay > 0.0 {
            g = (g + weight.affine(decay, 0.0)?)?;
        }
        if let [b] = state {
            *b = (b.affine(momentum, 0.0)? + &g)?;
            g = if nesterov { (g + b.affine(momentum, 0.0)?)? } else { b.clone() };
        }
        Ok((weight - g.affine(step.lr, 0.0)?)?)
    }
}
