//! How far a Gramian is noise of the batch: resampled pairs.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Matrix;
use crate::error::{Error, Result};

/// Percentile intervals over resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// Lower ends of the cosines, [m, m].
    pub low: Matrix,
    /// Upper ends of the cosines, [m, m].
    pub high: Matrix,
    /// Share of resamples with a negative cosine, [m, m].
    pub negative: Matrix,
    /// Lower and upper ends of the norms, [m].
    pub norms: Vec<(f64, f64)>,
}

/// Resamples the K pairs with replacement: with counts r the gradients become gᵢ* = aᵢ Σₖ rₖ U[i,k] hₖ, aᵢ such that each
/// is a mean over its labelled pairs again, and H* = A (U∘r) S (U∘r)ᵀ A.
///
/// `s` [K, K] are the products of the pairs' vectors, `u` [m, K] how each objective weighs them, `labelled` [m][K] which
/// pairs an objective has labels for; `level` in (0, 1) is what the intervals cover. What varies is which of the batch's
/// pairs are drawn; their number, and pairs never seen, are not in it.
///
/// # Errors
/// Shapes that do not fit; a level outside (0, 1); no resample.
pub fn bootstrap(
    s: &Matrix,
    u: &Matrix,
    labelled: &[Vec<bool>],
    (samples, level): (usize, f64),
    seed: u64,
) -> Result<Bootstrap> {
    let (m, k) = (u.rows(), u.cols());
    if s.rows() != k || s.cols() != k || labelled.len() != m || labelled.iter().any(|row| row.len() != k) {
        return Err(Error::internal("a bootstrap of shapes that do not fit"));
    }
    if !(level > 0.0 && level < 1.0) || samples == 0 {
        return Err(Error::new(format!("a bootstrap of {samples} samples at level `{level}`"))
            .help("give one sample or more, and a level between 0 and 1 such as 0.95"));
    }
    let counts: Vec<f64> =
        labelled.iter().map(|row| row.iter().filter(|labelled| **labelled).count() as f64).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cosines: Vec<Vec<f64>> = vec![Vec::with_capacity(samples); m * m];
    let mut norms: Vec<Vec<f64>> = vec![Vec::with_capacity(samples); m];
    for _ in 0..samples {
        let mut r = vec![0f64; k];
        (0..k).for_each(|_| r[rng.random_range(0..k)] += 1.0);
        let drawn: Vec<usize> = (0..k).filter(|&pair| r[pair] > 0.0).collect();
        let rows: Vec<Vec<f64>> = (0..m)
            .map(|i| {
                let labelled: f64 = drawn.iter().filter(|&&pair| labelled[i][pair]).map(|&p| r[p]).sum();
                let a = if labelled > 0.0 { counts[i] / labelled } else { 0.0 };
                (0..k).map(|pair| a * r[pair] * u[(i, pair)]).collect()
            })
            .collect();
        let mut h = Matrix::zeros(m, m);
        for j in 0..m {
            let mut reach = vec![0f64; k];
            for &l in drawn.iter().filter(|&&l| rows[j][l] != 0.0) {
                drawn.iter().for_each(|&pair| reach[pair] += s[(pair, l)] * rows[j][l]);
            }
            for i in 0..=j {
                h[(i, j)] = drawn.iter().map(|&pair| rows[i][pair] * reach[pair]).sum();
            }
        }
        for j in 0..m {
            norms[j].push(h[(j, j)].max(0.0).sqrt());
            for i in 0..=j {
                let lengths = (h[(i, i)] * h[(j, j)]).sqrt();
                // a resample without a labelled pair of an objective says nothing of its angles
                if lengths > 0.0 {
                    cosines[i * m + j].push((h[(i, j)] / lengths).clamp(-1.0, 1.0));
                }
            }
        }
    }
    let tail = (1.0 - level) / 2.0;
    let (mut low, mut high, mut negative) = (Matrix::zeros(m, m), Matrix::zeros(m, m), Matrix::zeros(m, m));
    for j in 0..m {
        for i in 0..=j {
            let values = &mut cosines[i * m + j];
            let (from, to) = percentiles(values, tail);
            let below = values.iter().filter(|x| **x < 0.0).count() as f64 / values.len().max(1) as f64;
            for at in [(i, j), (j, i)] {
                (low[at], high[at], negative[at]) = (from, to, below);
            }
        }
    }
    let norms = norms.iter_mut().map(|values| percentiles(values, tail)).collect();
    Ok(Bootstrap { low, high, negative, norms })
}

/// The quantiles `tail` and 1 - `tail`, between the order statistics; zeros without a value.
pub(super) fn percentiles(values: &mut [f64], tail: f64) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let place = q * values.len().saturating_sub(1) as f64;
        let (below, part) = (place.floor() as usize, place.fract());
        match (values.get(below), values.get(below + 1)) {
            (Some(a), Some(b)) => a + part * (b - a),
            (Some(a), None) => *a,
            _ => 0.0,
        }
    };
    (at(tail), at(1.0 - tail))
}
