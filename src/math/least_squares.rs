//! Least squares with and without a sign constraint, and orthonormal bases.

use nalgebra::{DMatrix, DVector};

use super::matrix::{combine, dot, unit};

/// A column whose part off the others is shorter than this, relative to the columns as they are given (of length
/// about 1) and once they have length 1, depends on them.
const DEPENDENT: f64 = 1e-11;

/// For each `f` of `targets` the x that minimises `‖Σ x_k a_k - f‖`; `None` where the columns are dependent.
pub(super) fn least_squares<C: AsRef<[f64]>>(columns: &[C], targets: &[&[f64]]) -> Option<Vec<Vec<f64>>> {
    let (rows, cols) = (targets.first()?.len(), columns.len());
    if cols > rows {
        return None;
    }
    if let [a] = columns {
        let a = a.as_ref();
        let square = dot(a, a);
        let closed_form = || targets.iter().map(|f| vec![dot(a, f) / square]).collect();
        return (square > DEPENDENT * DEPENDENT).then(closed_form);
    }
    let (units, lengths): (Vec<_>, Vec<_>) = columns.iter().map(|a| unit(a.as_ref().to_vec())).unzip();
    let qr = DMatrix::from_fn(rows, cols, |i, k| units[k][i]).qr();
    let r = qr.r();
    if (0..cols).any(|k| lengths[k] <= DEPENDENT || r[(k, k)].abs() <= DEPENDENT) {
        return None;
    }
    let solve = |f: &&[f64]| {
        let mut rhs = DVector::from_column_slice(f);
        qr.q_tr_mul(&mut rhs);
        let x = r.solve_upper_triangular(&rhs.rows(0, cols))?;
        Some(x.iter().zip(&lengths).map(|(x, l)| x / l).collect())
    };
    targets.iter().map(solve).collect()
}

/// The x ≥ 0 that minimises `‖Σ x_k a_k - f‖`, by the active set method of Lawson and Hanson. The columns with
/// x_k > 0 are independent, and the others are exactly 0.
///
/// A column enters while its slope, relative to its length and to f, exceeds `tolerance`. Zero columns stay out.
pub(super) fn nonnegative_least_squares(columns: &[Vec<f64>], f: &[f64], tolerance: f64) -> Vec<f64> {
    let (columns, lengths): (Vec<_>, Vec<_>) = columns.iter().cloned().map(unit).unzip();
    let target = dot(f, f).sqrt();
    let n = columns.len();
    let mut x = vec![0.0; n];
    let mut active: Vec<usize> = Vec::new();
    let mut barred = vec![false; n];
    // Lawson and Hanson end after a few rounds of n; the bound only cuts short a cycle of rounding.
    for _ in 0..20 * (n + 1) {
        let mut rest = combine(&x, &columns, f.len());
        rest.iter_mut().zip(f).for_each(|(r, f)| *r = f - *r);
        let slope: Vec<f64> = columns.iter().map(|a| dot(a, &rest)).collect();
        let entering = (0..n)
            .filter(|k| !active.contains(k) && !barred[*k] && lengths[*k] > 0.0)
            .max_by(|a, b| slope[*a].total_cmp(&slope[*b]).then(b.cmp(a)));
        let Some(entering) = entering.filter(|k| slope[*k] > tolerance * target) else { break };
        active.push(entering);
        barred[entering] = true;
        while !active.is_empty() {
            let chosen: Vec<&[f64]> = active.iter().map(|k| columns[*k].as_slice()).collect();
            let Some(z) = least_squares(&chosen, &[f]).and_then(|mut z| z.pop()) else {
                active.retain(|k| *k != entering);
                continue;
            };
            if z.iter().all(|z| *z > 0.0) {
                if active.contains(&entering) {
                    barred.fill(false);
                }
                active.iter().zip(&z).for_each(|(k, z)| x[*k] = *z);
                break;
            }
            step_to_boundary(&mut x, &mut active, &z);
        }
    }
    x.iter().zip(&lengths).map(|(x, l)| if *x == 0.0 { 0.0 } else { x / l }).collect()
}

/// Moves `x` over `active` towards `z` until the first coordinates reach 0; these leave `active`.
pub(super) fn step_to_boundary(x: &mut [f64], active: &mut Vec<usize>, z: &[f64]) {
    let share =
        |(k, z): (&usize, &f64)| (*z <= 0.0).then(|| if x[*k] > 0.0 { x[*k] / (x[*k] - z) } else { 0.0 });
    let shares: Vec<Option<f64>> = active.iter().zip(z).map(share).collect();
    let step = shares.iter().flatten().fold(1.0_f64, |a, b| a.min(*b));
    for (k, z) in active.iter().zip(z) {
        x[*k] += step * (z - x[*k]);
    }
    let mut reached = shares.iter().map(|s| s.is_some_and(|s| s <= step));
    active.retain(|k| {
        let stays = !reached.next().unwrap_or(false) && x[*k] > 0.0;
        if !stays {
            x[*k] = 0.0;
        }
        stays
    });
}

/// An orthonormal basis of the span of `vectors`, the longest residual first; what is shorter than `tolerance`
/// counts as dependent. At most `limit` vectors.
pub(super) fn basis(mut vectors: Vec<Vec<f64>>, tolerance: f64, limit: usize) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < limit {
        let longest = (0..vectors.len()).max_by(|a, b| {
            dot(&vectors[*a], &vectors[*a]).total_cmp(&dot(&vectors[*b], &vectors[*b])).then(b.cmp(a))
        });
        let Some(longest) = longest else { break };
        let vector = vectors.swap_remove(longest);
        if dot(&vector, &vector).sqrt() <= tolerance {
            break;
        }
        let (direction, _) = unit(remove(unit(vector).0, &basis));
        vectors = vectors.into_iter().map(|v| remove(v, std::slice::from_ref(&direction))).collect();
        basis.push(direction);
    }
    basis
}

/// `v` without its part in the span of an orthonormal basis.
pub(super) fn remove(mut v: Vec<f64>, basis: &[Vec<f64>]) -> Vec<f64> {
    for b in basis {
        let part = dot(&v, b);
        v.iter_mut().zip(b).for_each(|(v, b)| *v -= part * b);
    }
    v
}
