mod bootstrap;
mod cagrad;
mod cone;
mod eigen;
mod front;
mod gram_eigen;
mod gramian;
mod matrix;
mod min_norm;
mod nash;
mod simplex;
mod statistics;

use nalgebra::{DMatrix, DVector};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::common::families::Case;
use raco::math::Matrix;
use serde_json::Value;

/// What other libraries compute of fronts and of values over seeds; see fronts.py.
fn golden_fronts() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fronts.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The points of the simplex whose coordinates are multiples of 1/n, for two or three rows.
fn grid(m: usize, n: usize) -> Vec<Vec<f64>> {
    let share = |k: usize| k as f64 / n as f64;
    match m {
        2 => (0..=n).map(|i| vec![share(i), share(n - i)]).collect(),
        _ => (0..=n)
            .flat_map(|i| (0..=n - i).map(move |j| vec![share(i), share(j), share(n - i - j)]))
            .collect(),
    }
}

fn shuffle(m: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..m).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

/// The Gramian with row `order[k]` at place k.
fn permuted(h: &Matrix, order: &[usize]) -> Matrix {
    let rows: Vec<Vec<f64>> = order.iter().map(|i| order.iter().map(|j| h[(*i, *j)]).collect()).collect();
    Matrix::from_rows(&rows).unwrap()
}

/// The Gramian of the rows times `k`.
fn scaled(case: &Case, k: f64) -> Matrix {
    let rows: Vec<Vec<f64>> = case.rows.iter().map(|row| row.iter().map(|x| x * k).collect()).collect();
    Matrix::from_rows(&rows).unwrap().gram()
}

/// The point of {p' ≥ 0, Σ p' = 1, Jᵀp' = Jᵀp} nearest to `target`, by trying every set of zeros: slow, and nothing
/// but pseudo-inverses. `None` where the rank of the rows is lost in the square of the rows.
fn nearest_by_trial(rows: &[Vec<f64>], p: &[f64], target: &[f64]) -> Option<Vec<f64>> {
    let (m, n) = (rows.len(), rows[0].len());
    let longest = rows.iter().flatten().fold(0.0_f64, |a, x| a.max(x.abs())).max(f64::MIN_POSITIVE);
    let length = |i: usize| DVector::from_column_slice(&rows[i]).norm().max(f64::MIN_POSITIVE);
    let units = DMatrix::from_fn(m, n, |i, k| rows[i][k] / length(i));
    let shortest = (0..m).map(length).filter(|l| *l > f64::MIN_POSITIVE).fold(f64::INFINITY, f64::min);
    if units.singular_values().iter().any(|s| (1e-10..1e-5).contains(s)) || shortest < 1e-3 * longest {
        return None;
    }
    let (p, target) = (DVector::from_column_slice(p), DVector::from_column_slice(target));
    let trial = |zeros: u32| {
        let conditions = DMatrix::from_fn(n + 1 + m, m, |k, i| match k {
            _ if k < n => rows[i][k] / longest,
            _ if k == n => 1.0,
            _ => f64::from(u8::from(k - n - 1 == i && zeros >> i & 1 == 1)),
        });
        let mut wanted = &conditions * &p;
        (0..m).for_each(|i| wanted[n + 1 + i] = 0.0);
        // By the eigenvectors of the square: the singular values of nalgebra fail on some singular matrices.
        let eigen = (conditions.transpose() * &conditions).symmetric_eigen();
        let inverse =
            eigen.eigenvalues.map(|l| if l > 1e-11 * eigen.eigenvalues.max() { 1.0 / l } else { 0.0 });
        let missing = conditions.transpose() * (&wanted - &conditions * &target);
        let step = (eigen.eigenvectors.transpose() * missing).component_mul(&inverse);
        let x = &target + &eigen.eigenvectors * step;
        let holds = (&conditions * &x - &wanted).amax() < 1e-7 && x.iter().all(|x| *x > -1e-9);
        holds.then(|| ((&x - &target).norm(), x))
    };
    let best = (0..1 << m).filter_map(trial).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    Some(best.1.as_slice().to_vec())
}
