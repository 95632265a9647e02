//! Rows that were never formed: their Gramian is known, and a combination of them is one more pass.
//!
//! With gᵢ = Σₖ U[i,k] hₖ, H = U S Uᵀ needs S = [⟨hₖ, hₗ⟩] alone, and Jᵀ α is the gradient under the seed of pair k times
//! Σᵢ αᵢ U[i,k]: one vector of P numbers instead of m. The price is one more forward and backward,
//! and the products behind S instead of m combinations.

use candle_core::Tensor;

use super::jacobian::rows_of;
use super::pairs::{Factors, sum};
use crate::data::Packed;
use crate::error::{Error, Result};
use crate::math::Matrix;
use crate::model::{Keep, Model};

/// What rows can be formed from.
pub(super) struct Unformed {
    pub(super) model: Model,
    pub(super) version: u64,
    pub(super) pack: Packed,
    pub(super) keep: Keep,
    pub(super) factors: Factors,
    /// S over each tensor alone, [tensors][K, K].
    pub(super) pairs: Vec<Matrix>,
}

impl std::fmt::Debug for Unformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unformed").field("factors", &self.factors).finish_non_exhaustive()
    }
}

impl Unformed {
    /// H over these tensors, [m, m].
    pub(super) fn gramian(&self, tensors: &[usize]) -> Result<Matrix> {
        let u = &self.factors.u;
        let s = sum(u.cols(), tensors.iter().map(|&i| &self.pairs[i]));
        let mut h = u.mul(&s)?.mul(&u.transposed())?;
        // the two halves of a product of three matrices round apart
        for i in 0..h.rows() {
            (0..i).for_each(|j| h[(j, i)] = h[(i, j)]);
        }
        Ok(h)
    }

    /// Jᵀ α, [P].
    pub(super) fn combine(&self, alpha: &[f64]) -> Result<Tensor> {
        let Factors { seeds, u, scored, .. } = &self.factors;
        let mut weighed = seeds.clone();
        for (k, scored) in scored.iter().enumerate() {
            let weight: f64 = alpha.iter().enumerate().map(|(i, a)| a * u[(i, k)]).sum();
            weighed[scored.clone()].iter_mut().for_each(|v| *v = (f64::from(*v) * weight) as f32);
        }
        let size = self.model.weights().space().size();
        Ok(self.backward(1, weighed, vec![1.0])?.reshape(size)?)
    }

    /// All rows, [m, P].
    pub(super) fn rows(&self) -> Result<Tensor> {
        let u = &self.factors.u;
        self.backward(u.rows(), self.factors.seeds.clone(), u.data().iter().map(|&u| u as f32).collect())
    }

    fn backward(&self, m: usize, seeds: Vec<f32>, u: Vec<f32>) -> Result<Tensor> {
        if self.version != self.model.version() {
            return Err(Error::new("the gradients are older than the weights: a step was taken since").help(
                "combine them before the step, or form their rows: `jacobian(losses, #{ gramian_only: false })`",
            ));
        }
        let recorded = self.model.record(&self.pack, self.keep)?.1;
        let mut rows = rows_of(&self.model, m)?;
        let Factors { tokens, scored, .. } = &self.factors;
        // with one row all pairs are one segment
        let whole = |n: usize| std::iter::once(0..n).collect();
        match m {
            1 => rows.weigh(vec![vec![1.0]], whole(self.pack.len()), whole(seeds.len()))?,
            _ => rows.weigh(vec![u], tokens.clone(), scored.clone())?,
        }
        recorded.backward(vec![seeds], &mut *rows)?;
        rows.finish()
    }
}
