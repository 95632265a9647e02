//! The least-norm point of the convex hull of the rows.

use super::Matrix;
use super::gramian::Gramian;
use super::hull::{Objective, support};
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
    let inside = rows.combined(&start).1 == 0.0;
    let slack = objective(&rows).slack(&start);
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

/// `φ = ‖G_p‖`.
fn objective(rows: &Gramian) -> Objective<'_> {
    Objective { rows, g0: vec![0.0; rows.rank], c: 1.0 }
}

/// Some minimiser of `‖G_p‖` over the simplex, with independent rows in its support.
pub(super) fn least_norm(rows: &Gramian) -> Vec<f64> {
    let mut p = over(rows, &(0..rows.len()).collect::<Vec<_>>());
    if rows.combined(&p).1 > 0.0 {
        // What least squares knows to ε of the rows, descent knows to ε of the point.
        return objective(rows).descend(p);
    }
    // A row of little weight without which the rest cancels too has its weight from rounding.
    for i in rows.little(&p) {
        let s: Vec<usize> = support(&p).into_iter().filter(|k| *k != i).collect();
        let without = over(rows, &s);
        if rows.combined(&without).1 == 0.0 {
            p = without;
        }
    }
    p
}

/// Nearly a minimiser over the rows `s`.
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

/// ‖G_p‖/scale and the relative gap.
fn certificate(rows: &Gramian, p: &[f64]) -> (f64, f64) {
    match rows.combined(p).1 {
        0.0 => (0.0, 0.0),
        norm => (norm, objective(rows).slack(p).iter().fold(0.0, |a, x| a.max(-x))),
    }
}
