//! Eigenvalues of a Gramian, the small ones as exact as the large.

use super::Matrix;
use super::eigen::Eigen;
use super::gramian::Gramian;
use super::matrix::{dot, unit};
use crate::error::{Error, Result};

/// Sweeps over all pairs of columns; ten do.
const SWEEPS: usize = 60;

/// The eigenvalues of a Gramian `h` [m, m] that are not 0, ascending, with their unit eigenvectors as columns [m, rank].
///
/// Each eigenvalue is accurate relative to itself however far apart the lengths of the rows are, where
/// [`super::eigh`] is accurate to ε of the largest. Dependent rows (as everywhere here) add none. Cholesky, the longest
/// rows first, then one-sided Jacobi (Veselić and Hari 1989). Refused: what is no Gramian.
pub fn gram_eigh(h: &Matrix) -> Result<Eigen> {
    let rows = Gramian::new(h)?;
    let m = rows.len();
    let mut columns = cholesky(&rows);
    let tolerance = m as f64 * f64::EPSILON;
    let mut gap = 0.0;
    for _ in 0..SWEEPS {
        gap = 0.0;
        for q in 1..columns.len() {
            let (left, right) = columns.split_at_mut(q);
            left.iter_mut().for_each(|p| gap = orthogonalise(p, &mut right[0], tolerance).max(gap));
        }
        if gap <= tolerance {
            break;
        }
    }
    if gap > 1e-9 {
        return Err(Error::internal(format!("eigenvectors end {gap:e} from orthogonal")));
    }
    let mut found: Vec<(Vec<f64>, f64)> = columns.into_iter().map(unit).collect();
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut vectors = Matrix::zeros(m, found.len());
    for (k, (v, _)) in found.iter().enumerate() {
        let largest = v.iter().fold(0.0_f64, |a, x| if x.abs() > a.abs() { *x } else { a });
        v.iter().enumerate().for_each(|(i, x)| vectors[(i, k)] = x * largest.signum());
    }
    let values = found.iter().map(|(_, length)| (length * rows.scale).powi(2)).collect();
    Ok(Eigen { values, vectors, gap })
}

/// The columns of L [m, rank], `H = L Lᵀ` over `scale²`.
fn cholesky(rows: &Gramian) -> Vec<Vec<f64>> {
    let m = rows.len();
    let mut l: Vec<Vec<f64>> = vec![Vec::new(); m];
    let mut rest: Vec<f64> = rows.d.iter().map(|d| d * d).collect();
    loop {
        let open = (0..m).filter(|i| rest[*i] > rows.noise * rows.d[*i] * rows.d[*i]);
        let Some(pivot) = open.max_by(|i, j| rest[*i].total_cmp(&rest[*j]).then(j.cmp(i))) else { break };
        let root = rest[pivot].sqrt();
        let row = l[pivot].clone();
        for j in 0..m {
            let entry = match rest[j] > 0.0 {
                _ if j == pivot => root,
                true => {
                    (rows.d[pivot] * rows.d[j] * dot(&rows.u[pivot], &rows.u[j]) - dot(&row, &l[j])) / root
                }
                false => 0.0,
            };
            l[j].push(entry);
            rest[j] = if j == pivot { 0.0 } else { rest[j] - entry * entry };
        }
    }
    let rank = l.first().map_or(0, Vec::len);
    (0..rank).map(|k| l.iter().map(|row| row[k]).collect()).collect()
}

/// Turns two columns in their plane until they are orthogonal; their cosine before.
fn orthogonalise(p: &mut [f64], q: &mut [f64], tolerance: f64) -> f64 {
    let (pp, qq, pq) = (dot(p, p), dot(q, q), dot(p, q));
    let cosine = pq.abs() / (pp.sqrt() * qq.sqrt()).max(f64::MIN_POSITIVE);
    if cosine > tolerance {
        let zeta = (qq - pp) / (2.0 * pq);
        let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
        let c = 1.0 / tangent.hypot(1.0);
        for (x, y) in p.iter_mut().zip(q) {
            (*x, *y) = (c * (*x - tangent * *y), c * (tangent * *x + *y));
        }
    }
    cosine
}
