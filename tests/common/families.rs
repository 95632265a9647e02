//! Matrices of gradients by construction: each family has a structure that a solver may trip over.

use proptest::prelude::*;
use raco::math::Matrix;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
}

/// All families.
pub const FAMILIES: [Family; 9] = [
    Family::Generic,
    Family::LowRank,
    Family::Stationary,
    Family::Conflicting,
    Family::ZeroRows,
    Family::Duplicates,
    Family::Opposing,
    Family::MixedScales,
    Family::Integers,
];

/// Gradient rows and preference weights.
#[derive(Debug, Clone)]
pub struct Case {
    pub family: Family,
    pub rows: Vec<Vec<f64>>, // [m, n]
    pub w: Vec<f64>,         // [m]
}

impl Case {
    pub fn m(&self) -> usize {
        self.rows.len()
    }

    /// The Gramian of the rows.
    pub fn gramian(&self) -> Matrix {
        Matrix::from_rows(&self.rows).unwrap().gram()
    }
}

/// Cases of every family with `m` rows; weights inside the simplex, with zeros, or one-hot.
pub fn cases(m: impl Strategy<Value = usize>) -> impl Strategy<Value = Case> {
    (proptest::sample::select(FAMILIES.to_vec()), m, any::<u64>())
        .prop_map(|(family, m, seed)| case(family, m, seed))
}

/// One case, the same for the same seed.
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
    }
    Case { family, rows, w: weights(&mut rng, m) }
}

/// Weights in the simplex: uniform, spread, with zeros, or one-hot.
fn weights(rng: &mut ChaCha8Rng, m: usize) -> Vec<f64> {
    let mut w: Vec<f64> = (0..m).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect();
    match rng.random_range(0..4) {
        0 => w.fill(1.0),
        1 => w.iter_mut().for_each(|x| *x = if *x < 0.7 { 0.0 } else { *x }),
        2 => w.fill(0.0),
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
