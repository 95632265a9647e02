//! Matrices of gradients by construction: each family has a structure that a solver may trip over.

use std::fmt;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::math::Matrix;

/// How the rows of a case relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Independent normal rows.
    Generic,
    /// Rank below the number of rows.
    LowRank,
    /// A positive combination of the rows is zero: no common descent.
    Stationary,
    /// Every pair at an obtuse angle, yet with a common descent.
    Conflicting,
    /// Some rows are zero.
    ZeroRows,
    /// Some rows twice.
    Duplicates,
    /// Some rows are the negative of others, up to a factor.
    Opposing,
    /// Row norms from 1e-3 to 1e3.
    MixedScales,
    /// Small integers: ties and dependencies that are exact.
    Integers,
    /// No two rows at an obtuse angle.
    Agreeing,
    /// Normal rows times 1e140.
    Huge,
    /// Normal rows times 1e-140.
    Tiny,
    /// No row but zeros.
    Zero,
}

/// The families whose rows are near 1: what is done to them may scale them on.
pub const FAMILIES: [Family; 11] = [
    Family::Generic,
    Family::LowRank,
    Family::Stationary,
    Family::Conflicting,
    Family::ZeroRows,
    Family::Duplicates,
    Family::Opposing,
    Family::MixedScales,
    Family::Integers,
    Family::Agreeing,
    Family::Zero,
];

/// The families at the ends of the scale.
pub const EXTREMES: [Family; 2] = [Family::Huge, Family::Tiny];

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::LowRank => "low rank",
            Self::Stationary => "stationary",
            Self::Conflicting => "conflicting",
            Self::ZeroRows => "zero rows",
            Self::Duplicates => "duplicates",
            Self::Opposing => "opposing",
            Self::MixedScales => "mixed scales",
            Self::Integers => "integers",
            Self::Agreeing => "agreeing",
            Self::Huge => "huge",
            Self::Tiny => "tiny",
            Self::Zero => "zero",
        })
    }
}

/// Gradient rows and preference weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// How the rows relate.
    pub family: Family,
    /// Gradient rows J.
    pub rows: Vec<Vec<f64>>, // [m, n]
    /// Preference weights.
    pub w: Vec<f64>, // [m]
}

impl Case {
    /// Number of rows.
    pub fn m(&self) -> usize {
        self.rows.len()
    }

    /// The Gramian of the rows.
    pub fn gramian(&self) -> Matrix {
        let n = self.rows.first().map_or(0, Vec::len);
        let mut j = Matrix::zeros(self.m(), n);
        for (i, row) in self.rows.iter().enumerate() {
            row.iter().enumerate().for_each(|(k, x)| j[(i, k)] = *x);
        }
        j.gram()
    }
}

/// One case, the same for the same seed. Seeds that follow each other run through the kinds of weights: spread, uniform,
/// with zeros, one-hot.
pub fn case(family: Family, m: usize, seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = m + 2;
    let mut rows: Vec<Vec<f64>> = (0..m).map(|_| normals(&mut rng, n)).collect();
    let pick = |rng: &mut ChaCha8Rng| rng.random_range(0..m);
    match family {
        Family::Generic => {}
        Family::LowRank => {
            let rank = rng.random_range(1..=m.div_ceil(2));
            let span: Vec<Vec<f64>> = (0..rank).map(|_| normals(&mut rng, n)).collect();
            rows.iter_mut().for_each(|row| *row = mix(&normals(&mut rng, rank), &span));
        }
        Family::Stationary => {
            let shares: Vec<f64> = (1..m).map(|_| -rng.random_range(0.1..1.0)).collect();
            rows[m - 1] = if m > 1 { mix(&shares, &rows[..m - 1]) } else { vec![0.0; n] };
        }
        Family::Conflicting => {
            for (i, row) in rows.iter_mut().enumerate() {
                row.iter_mut().for_each(|x| *x *= 0.05 / (m * m) as f64);
                (0..m).for_each(|k| row[k] -= 0.9 / m as f64);
                row[i] += 1.0;
            }
        }
        Family::ZeroRows => (0..m.div_ceil(3)).for_each(|_| rows[pick(&mut rng)] = vec![0.0; n]),
        Family::Duplicates => (0..m.div_ceil(2)).for_each(|_| {
            let (from, to) = (pick(&mut rng), pick(&mut rng));
            rows[to] = rows[from].clone();
        }),
        Family::Opposing => (0..m.div_ceil(3)).for_each(|_| {
            let (from, to) = (pick(&mut rng), pick(&mut rng));
            let factor = [1.0, 2.0, 0.5][rng.random_range(0..3)];
            rows[to] = rows[from].iter().map(|x| -factor * x).collect();
        }),
        Family::MixedScales => rows.iter_mut().for_each(|row| {
            let scale = 10.0_f64.powf(rng.random_range(-3.0..3.0));
            row.iter_mut().for_each(|x| *x *= scale);
        }),
        Family::Integers => {
            let columns = rng.random_range(1..=4);
            let entry = |rng: &mut ChaCha8Rng| f64::from(rng.random_range(-2_i8..=2));
            rows.iter_mut().for_each(|row| *row = (0..columns).map(|_| entry(&mut rng)).collect());
        }
        Family::Agreeing => rows.iter_mut().flatten().for_each(|x| *x = x.abs()),
        Family::Huge => rows.iter_mut().flatten().for_each(|x| *x *= 1e140),
        Family::Tiny => rows.iter_mut().flatten().for_each(|x| *x *= 1e-140),
        Family::Zero => rows.iter_mut().flatten().for_each(|x| *x = 0.0),
    }
    Case { family, rows, w: weights(&mut rng, m, seed.wrapping_add(family as u64) % 4) }
}

/// Weights in the simplex.
fn weights(rng: &mut ChaCha8Rng, m: usize, kind: u64) -> Vec<f64> {
    let mut w: Vec<f64> = (0..m).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect();
    match kind {
        1 => w.fill(1.0),
        2 => w.iter_mut().for_each(|x| *x = if *x < 0.7 { 0.0 } else { *x }),
        3 => w.fill(0.0),
        _ => {}
    }
    if w.iter().all(|x| *x == 0.0) {
        w[rng.random_range(0..m)] = 1.0;
    }
    let sum: f64 = w.iter().sum();
    w.iter().map(|x| x / sum).collect()
}

fn normals(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    let normal = |rng: &mut ChaCha8Rng| {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
    };
    (0..n).map(|_| normal(rng)).collect()
}

/// `Σ x_i rows_i`.
pub fn mix(x: &[f64], rows: &[Vec<f64>]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    (0..n).map(|k| x.iter().zip(rows).map(|(x, row)| x * row[k]).sum()).collect()
}

/// `⟨a, b⟩`.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `‖v‖`.
pub(super) fn length(v: &[f64]) -> f64 {
    dot(v, v).sqrt()
}
