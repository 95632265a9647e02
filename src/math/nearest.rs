//! Among weights with the same combined gradient, the ones nearest to a target.

use super::gramian::Gramian;
use super::least_squares::{basis, nonnegative_least_squares, remove};
use super::matrix::{combine, dot, unit};

/// Combined gradients that differ by less, relative to the rows that make them, are the same.
const SAME: f64 = 1e-9;
/// Weights below this, of which the combined gradient knows nothing, are rounding.
const ZERO: f64 = 1e-13;

/// The p' of the simplex nearest to `target` with `G_p' = G_p` that is zero off `free`, which holds the support of
/// `p`; with a `ray` (unit), `G_p'` may lie anywhere on it.
///
/// p' - p lies in the null space of the rows over `free` (and of the sum); where that is trivial p' = p. Else it is
/// a least distance problem with p' ≥ 0, solved as Lawson and Hanson do, by nonnegative least squares.
pub(super) fn nearest(
    rows: &Gramian,
    p: &[f64],
    free: &[usize],
    target: &[f64],
    ray: Option<&[f64]>,
) -> Vec<f64> {
    let along: Vec<f64> = free.iter().map(|i| ray.map_or(0.0, |r| dot(&rows.u[*i], r))).collect();
    let z = null_space(rows, p, free, &along, ray);
    if z.is_empty() {
        return p.to_vec();
    }
    let n = free.len();
    let wanted: Vec<f64> = free.iter().map(|i| target[*i] - p[*i]).collect();
    let shift: Vec<f64> = z.iter().map(|z| dot(z, &wanted)).collect();
    let mut base: Vec<f64> = combine(&shift, &z, n);
    base.iter_mut().zip(free).for_each(|(b, i)| *b += p[*i]);

    // ⟨G, ray⟩ ≥ 0
    let forward = ray.map(|_| unit(free.iter().zip(&along).map(|(i, a)| rows.d[*i] * a).collect()).0);
    let Some(values) = least_move(&base, &z, forward.as_deref(), rows.tolerance()) else {
        return p.to_vec();
    };
    let mut near = vec![0.0; p.len()];
    free.iter().zip(values).for_each(|(i, value)| near[*i] = value);
    let sum: f64 = near.iter().sum();
    // Row norms too far apart for the sum to be felt: what was found is no change at all.
    if (sum - 1.0).abs() > SAME {
        return p.to_vec();
    }
    near.iter_mut().for_each(|x| *x /= sum);
    if near.iter().zip(target).all(|(x, t)| (x - t).abs() < ZERO) { target.to_vec() } else { near }
}

/// Orthonormal changes of the weights over `free` that leave the combined gradient (but for its part on the ray)
/// and the sum of the weights.
fn null_space(
    rows: &Gramian,
    p: &[f64],
    free: &[usize],
    along: &[f64],
    ray: Option<&[f64]>,
) -> Vec<Vec<f64>> {
    // The scale at which the sum competes with the rows: that of the combined gradient, or of what cancels in it.
    let q = rows.lengths(p);
    let shortest = free.iter().map(|i| rows.d[*i]).filter(|d| *d > 0.0).fold(f64::INFINITY, f64::min);
    let sigma = match q.iter().fold(0.0_f64, |a, q| a.max(*q)) {
        0.0 if shortest.is_finite() => shortest,
        0.0 => 1.0,
        longest => longest,
    };
    let scales: Vec<f64> = free.iter().map(|i| rows.d[*i].hypot(sigma)).collect();
    let n = free.len();
    let mut conditions = vec![vec![0.0; n]; rows.rank + 1]; // one a coordinate, and the sum
    for (k, i) in free.iter().enumerate() {
        let share = rows.d[*i] / scales[k];
        for (axis, condition) in conditions[..rows.rank].iter_mut().enumerate() {
            condition[k] = share * (rows.u[*i][axis] - ray.map_or(0.0, |r| along[k] * r[axis]));
        }
        conditions[rows.rank][k] = sigma / scales[k];
    }
    let z = complement(conditions, n);
    let least = scales.iter().fold(f64::INFINITY, |a, s| a.min(*s));
    let changes =
        z.iter().map(|z| unit(z.iter().zip(&scales).map(|(z, s)| z * (least / s)).collect()).0).collect();
    basis(changes, SAME, n)
}

/// An orthonormal basis of what is orthogonal to every one of `vectors`, in n dimensions.
pub(super) fn complement(vectors: Vec<Vec<f64>>, n: usize) -> Vec<Vec<f64>> {
    let fixed = basis(vectors, SAME, n);
    let unit_vector = |k: usize| (0..n).map(|i| f64::from(u8::from(i == k))).collect::<Vec<f64>>();
    let left = (0..n).map(|k| remove(remove(unit_vector(k), &fixed), &fixed)).collect();
    basis(left, SAME, n - fixed.len())
}

/// `base + Zv` for the shortest v that makes no value negative, and its product with `forward` neither; Z has
/// orthonormal columns `z`. Zeros are exact. `None` where rounding leaves no such v.
pub(super) fn least_move(
    base: &[f64],
    z: &[Vec<f64>],
    forward: Option<&[f64]>,
    tolerance: f64,
) -> Option<Vec<f64>> {
    // one column a constraint
    let constraint = |row: &dyn Fn(&[f64]) -> f64| {
        let mut column: Vec<f64> = z.iter().map(|z| row(z)).chain([-row(base)]).collect();
        column.iter_mut().for_each(|x| *x = if x.abs() < ZERO { 0.0 } else { *x });
        column
    };
    let mut columns: Vec<Vec<f64>> = (0..base.len()).map(|i| constraint(&|v| v[i])).collect();
    columns.extend(forward.map(|forward| constraint(&|v| dot(v, forward))));
    let mut f = vec![0.0; z.len() + 1];
    f[z.len()] = 1.0;
    let multipliers = nonnegative_least_squares(&columns, &f, tolerance);
    let rest = combine(&multipliers, &columns, f.len());
    let last = 1.0 - rest[z.len()];
    if last <= 0.0 {
        return None;
    }
    let v: Vec<f64> = rest[..z.len()].iter().map(|r| r / last).collect();
    let mut values = combine(&v, z, base.len());
    for ((value, base), multiplier) in values.iter_mut().zip(base).zip(&multipliers) {
        *value += base;
        if *multiplier > 0.0 || *value < ZERO {
            *value = 0.0;
        }
    }
    Some(values)
}
