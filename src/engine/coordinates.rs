//! Vectors over all parameters made coordinate by coordinate: ranks among the rows, uniform draws.

use std::cmp::Ordering;
use std::ops::Range;

use candle_core::DType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::gradients::{BLOCK, Gradient, Gradients, Slice, slice};
use crate::error::{Error, Result};
use crate::model::values::{host, tensor};

impl Gradients {
    /// In each coordinate the mean of the rows' values of these ranks, 0 the least: `0..m` is the mean of the rows,
    /// `k..m - k` the mean without the k least and the k largest.
    ///
    /// # Errors
    /// No rank, or one past the last row.
    pub fn rank_mean(&self, ranks: Range<usize>) -> Result<Gradient> {
        let (m, width) = (self.len(), self.space().size());
        if ranks.is_empty() || ranks.end > m {
            return Err(Error::new(format!("ranks {} to {} of {m} rows", ranks.start, ranks.end))
                .help("give the first rank, from 0, and the one after the last"));
        }
        fn means<T: Copy + Default + Send + Sync + PartialOrd + Into<f64>>(
            x: &[T],
            (m, width): (usize, usize),
            ranks: Range<usize>,
            narrow: impl Fn(f64) -> T + Sync,
        ) -> Vec<T> {
            let mut out = vec![T::default(); width];
            out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
                let mut column = vec![T::default(); m];
                for (k, out) in out.iter_mut().enumerate() {
                    column.iter_mut().enumerate().for_each(|(i, v)| *v = x[i * width + block * BLOCK + k]);
                    column.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
                    let sum: f64 = column[ranks.clone()].iter().map(|&v| v.into()).sum();
                    *out = narrow(sum / ranks.len() as f64);
                }
            });
            out
        }
        // ranks are found on the CPU
        let here = host(self.tensor()?)?;
        let values = match slice(&here)? {
            Slice::F32(x) => tensor(means(&x, (m, width), ranks, |v| v as f32), width)?,
            Slice::F64(x) => tensor(means(&x, (m, width), ranks, |v| v), width)?,
        };
        Ok(Gradient::new(self.space().clone(), values.to_device(self.tensor()?.device())?)?
            .computed_by(self.kernels()))
    }
}

impl Gradient {
    /// Draws from [0, 1), one a coordinate of this vector; they do not depend on the number of threads.
    ///
    /// # Errors
    /// A device that fails.
    pub fn uniform(&self, seed: u64) -> Result<Self> {
        let width = self.space().size();
        fn draws<T: Copy + Default + Send>(
            width: usize,
            seed: u64,
            draw: impl Fn(&mut ChaCha8Rng) -> T + Sync,
        ) -> Vec<T> {
            let mut out = vec![T::default(); width];
            out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(block as u64);
                out.iter_mut().for_each(|v| *v = draw(&mut rng));
            });
            out
        }
        let values = match self.tensor().dtype() {
            DType::F32 => tensor(draws(width, seed, |rng| rng.random::<f32>()), width)?,
            _ => tensor(draws(width, seed, |rng| rng.random::<f64>()), width)?,
        };
        let values = values.to_device(self.tensor().device())?;
        Ok(Self::new(self.space().clone(), values)?.computed_by(self.kernels()))
    }
}
