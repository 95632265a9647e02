//! AdamW: Adam with decoupled weight decay.

use candle_core::Tensor;
use rayon::prelude::*;

use super::optimizer::{CHUNK, Rule, Step, check_fraction, check_number};
use crate::error::{Error, Result};

/// AdamW, with PyTorch's defaults but for the decay, which is off.
///
/// ```text
///     m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²
///     θ ← (1 - lr·decay)θ - lr · m/(1-β₁ᵗ) / (√v/√(1-β₂ᵗ) + eps)
/// ```
///
/// Source: arXiv 1711.05101; `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of the gradients, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of their squares, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, > 0.
    pub eps: f64,
    /// Decoupled weight decay, ≥ 0.
    pub decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.0 }
    }
}

impl AdamW {
    /// The rule with moments of zero over `size` parameters.
    ///
    /// # Errors
    /// A constant outside its range.
    pub(super) fn rule(self, size: usize) -> Result<Moments> {
        check_fraction("beta1", self.beta1)?;
        check_fraction("beta2", self.beta2)?;
        check_number("eps", self.eps, 1e-30)?;
        check_number("decay", self.decay, 0.0)?;
        Ok(Moments { of: self, first: vec![0.0; size], second: vec![0.0; size] })
    }
}

pub(super) struct Moments {
    of: AdamW,
    first: Vec<f32>,  // m [P]
    second: Vec<f32>, // v [P]
}

/// What one step needs for every scalar.
#[derive(Clone, Copy)]
struct Coefficients {
    keep: f32,
    scale: f32,
    gain1: f32,
    beta2: f32,
    gain2: f32,
    root_correction2: f32,
    eps: f32,
    step_size: f32,
}

impl Moments {
    fn coefficients(&self, step: &Step) -> Coefficients {
        let AdamW { beta1, beta2, eps, decay } = self.of;
        Coefficients {
            keep: (1.0 - step.lr * decay) as f32,
            scale: step.scale,
            gain1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            gain2: (1.0 - beta2) as f32,
            root_correction2: (1.0 - beta2.powi(step.exponent())).sqrt() as f32,
            eps: eps as f32,
            step_size: (step.lr / (1.0 - beta1.powi(step.exponent()))) as f32,
        }
    }
}

impl Rule for Moments {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("first_moment", &self.first), ("second_moment", &self.second)]
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        vec![("first_moment", &mut self.first), ("second_moment", &mut self.second)]
    }

    /// |m| ≤ peak and v ≤ peak², so that v is finite where peak² is.
    fn reach(&self, step: &Step, peak: f64) -> f64 {
        if peak * peak > f64::from(f32::MAX) {
            return f64::INFINITY;
        }
        peak / (self.of.eps * (1.0 - self.of.beta1.powi(step.exponent())))
    }

    fn decay(&self) -> f64 {
        self.of.decay
    }

    fn apply(&mut self, step: &Step, at: usize, weights: &mut [f32], update: &[f32]) {
        let of = self.coefficients(step);
        let (first, second) =
            (&mut self.first[at..][..weights.len()], &mut self.second[at..][..weights.len()]);
        let arch = pulp::Arch::new();
        let run = |w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]| {
            arch.dispatch(
                #[inline(always)]
                || descend(w, m, v, g, &of),
            );
        };
        if weights.len() <= CHUNK {
            return run(weights, first, second, update);
        }
        weights
            .par_chunks_mut(CHUNK)
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .zip(update.par_chunks(CHUNK))
            .for_each(|(((w, m), v), g)| run(w, m, v, g));
    }

    fn shift(&self, step: &Step, weight: &Tensor, update: &Tensor, state: &mut [Tensor]) -> Result<Tensor> {
        let [m, v] = state else { return Err(Error::internal("AdamW keeps two moments")) };
        let of = self.coefficients(step);
        let times = |x: &Tensor, c: f32| x.affine(f64::from(c), 0.0);
        let g = times(update, of.scale)?;
        *m = (&*m + times(&(&g - &*m)?, of.gain1)?)?;
        *v = (times(v, of.beta2)? + times(&g.sqr()?, of.gain2)?)?;
        let root = v.sqrt()?.affine(f64::from(1.0 / of.root_correction2), f64::from(of.eps))?;
        Ok((times(weight, of.keep)? - times(&(&*m / root)?, of.step_size)?)?)
    }
}

#[inline(always)]
fn descend(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], of: &Coefficients) {
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * of.scale;
        *m += (g - *m) * of.gain1;
        *v = *v * of.beta2 + of.gain2 * g * g;
        *w = *w * of.keep - of.step_size * (*m / (v.sqrt() / of.root_correction2 + of.eps));
    }
}
