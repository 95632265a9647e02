//! The least-norm point of the convex hull of the rows.

use super::Matrix;
use super::gramian::Gramian;
use super::least_squares::nonnegative_least_squares;
use super::matrix::dot;
use super::nearest::nearest;
use crate::error::Result;

/// The least-norm point `G_p` of the convex hull of the rows, with its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct MinNorm {
    /// Weights in the simplex; zeros are exact.
    pub p: Vec<f64>, // [m]
    /// `‖G_p‖`; exactly 0 where the hull holds 0.
    pub norm: f64,
    /// `max_i (‖G_p‖² - ⟨g_i, G_p⟩)/(‖G_p‖(‖g_i‖ + ‖G_p‖))`, 0 at the optimum: relative, and never negative.
    pub gap: f64,
}

/// p ∈ argmin over the simplex of `pᵀHp`; among minimisers the one nearest to uniform (Euclidean), so that the
/// answer does not depend on the order of the rows.
///
/// `h` [m, m] is the Gramian of the rows. Exact up to rounding (active set). Refused: a matrix that is not square,
/// finite, symmetric and positive semi-definite.
pub fn min_norm_point(h: &Matrix) -> Result<MinNorm> {
    let rows = Gramian::new(h)?;
    let m = rows.len();
    let start = least_norm(&rows);
    let (direction, length) = rows.direction(&rows.lengths(&start));
    let length = if rows.norm_and_products(&start).0 == 0.0 { 0.0 } else { length };
    let free: Vec<usize> = (0..m)
        .filter(|i| {
            let slack = rows.d[*i] * dot(&rows.u[*i], &direction) - length;
            start[*i] > 0.0 || length == 0.0 || slack <= 1e-9 * (rows.d[*i] + length)
        })
        .collect();
    let near = nearest(&rows, &start, &free, &vec![1.0 / m as f64; m], None);
    let (norm, gap) = certificate(&rows, &near);
    let (p, norm, gap) = match certificate(&rows, &start) {
        // Rounding in a null space may cost accuracy; the minimiser itself comes first.
        (start_norm, start_gap) if gap > (10.0 * start_gap).max(rows.tolerance()) => {
            (start, start_norm, start_gap)
        }
        _ => (near, norm, gap),
    };
    Ok(MinNorm { p, norm: norm * rows.scale, gap })
}

/// Some minimiser of `‖G_p‖` over the simplex, with independent rows in its support.
///
/// The nonnegative least squares solution of `Σ x_i [g_i; μ] ≈ [0; 1]` is a multiple of it (Wolfe). μ is the
/// shortest row's norm, and the columns are taken at unit length in the first part: `x_i d_i [u_i; μ/d_i]`.
pub(super) fn least_norm(rows: &Gramian) -> Vec<f64> {
    let (shares, columns) = hull_columns(rows, &(0..rows.len()).collect::<Vec<_>>());
    let mut f = vec![0.0; rows.rank + 1];
    f[rows.rank] = 1.0;
    let x = nonnegative_least_squares(&columns, &f, rows.tolerance());
    let p: Vec<f64> = x.iter().zip(&shares).map(|(x, c)| x * c).collect();
    let sum: f64 = p.iter().sum();
    p.iter().map(|p| p / sum).collect()
}

/// `c_i = μ/d_i` and `[u_i; c_i]` for the rows `s`, μ the norm of the shortest that is not zero.
pub(super) fn hull_columns(rows: &Gramian, s: &[usize]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let shortest = s.iter().map(|i| rows.d[*i]).filter(|d| *d > 0.0).fold(f64::INFINITY, f64::min);
    let shares: Vec<f64> =
        s.iter().map(|i| if rows.d[*i] > 0.0 { shortest / rows.d[*i] } else { 1.0 }).collect();
    let column = |(i, c): (&usize, &f64)| rows.u[*i].iter().copied().chain([*c]).collect();
    let columns = s.iter().zip(&shares).map(column).collect();
    (shares, columns)
}

fn certificate(rows: &Gramian, p: &[f64]) -> (f64, f64) {
    let (norm, products) = rows.norm_and_products(p);
    if norm == 0.0 {
        return (0.0, 0.0);
    }
    let gap = |(d, x): (&f64, &f64)| (norm - d * (x / norm)) / (d + norm);
    (norm, rows.d.iter().zip(&products).map(gap).fold(0.0, f64::max))
}
