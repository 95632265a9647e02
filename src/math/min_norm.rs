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
    let inside = rows.norm_and_products(&start).0 == 0.0;
    let slack = slack(&rows, &start);
    let free: Vec<usize> = (0..m).filter(|i| inside || start[*i] > 0.0 || slack[*i] <= 1e-9).collect();
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
pub(super) fn least_norm(rows: &Gramian) -> Vec<f64> {
    let mut p = over(rows, &(0..rows.len()).collect::<Vec<_>>());
    // A row of little weight without which the answer is as good has its weight from rounding.
    for i in rows.little(&p) {
        let s: Vec<usize> = (0..p.len()).filter(|k| p[*k] > 0.0 && *k != i).collect();
        let without = over(rows, &s);
        let q = rows.lengths(&without);
        let rounding = rows.tolerance() * q.iter().fold(0.0_f64, |a, q| a.max(*q));
        let stationary = rows.direction(&q).1 <= rounding;
        if stationary || slack(rows, &without).iter().all(|x| *x >= -rows.tolerance()) {
            p = without;
        }
    }
    p
}

/// A minimiser over the rows `s`.
///
/// The nonnegative least squares solution of `Σ x_i [g_i; μ] ≈ [0; 1]` is a multiple of it (Wolfe). μ is the norm of
/// the shortest row that is not zero, and the columns are `[u_i; c_i]`, c_i = μ/d_i, p_i = c_i x_i.
fn over(rows: &Gramian, s: &[usize]) -> Vec<f64> {
    let shortest = s.iter().map(|i| rows.d[*i]).filter(|d| *d > 0.0).fold(f64::INFINITY, f64::min);
    let shares: Vec<f64> =
        s.iter().map(|i| if rows.d[*i] > 0.0 { shortest / rows.d[*i] } else { 1.0 }).collect();
    let column = |(i, c): (&usize, &f64)| rows.u[*i].iter().copied().chain([*c]).collect();
    let columns: Vec<Vec<f64>> = s.iter().zip(&shares).map(column).collect();
    let mut f = vec![0.0; rows.rank + 1];
    f[rows.rank] = 1.0;
    let x = nonnegative_least_squares(&columns, &f, rows.tolerance());
    let total = dot(&x, &shares);
    let mut p = vec![0.0; rows.len()];
    s.iter().zip(x.iter().zip(&shares)).for_each(|(i, (x, c))| p[*i] = x * c / total);
    p
}

/// `(⟨g_i, G_p⟩/‖G_p‖ - ‖G_p‖)/(‖g_i‖ + ‖G_p‖)`: the slope of the norm towards row i.
fn slack(rows: &Gramian, p: &[f64]) -> Vec<f64> {
    let (direction, length) = rows.direction(&rows.lengths(p));
    let relative = |(u, d): (&Vec<f64>, &f64)| (d * dot(u, &direction) - length) / (d + length);
    rows.u.iter().zip(&rows.d).map(relative).collect()
}

fn certificate(rows: &Gramian, p: &[f64]) -> (f64, f64) {
    let (norm, products) = rows.norm_and_products(p);
    if norm == 0.0 {
        return (0.0, 0.0);
    }
    let gap = |(d, x): (&f64, &f64)| (norm - d * (x / norm)) / (d + norm);
    (norm, rows.d.iter().zip(&products).map(gap).fold(0.0, f64::max))
}
