//! Projection on the cone of directions to which no row objects.

use super::Matrix;
use super::gramian::{Gramian, check_vector};
use super::least_squares::{least_squares, nonnegative_least_squares};
use super::matrix::{combine, dot};
use super::nearest::{complement, least_move};
use crate::error::{Error, Result};

/// A slope this small, relative, leaves it open whether a row takes part.
const TIGHT: f64 = 1e-9;

/// The projection of Jᵀu on {d : Jd ≥ 0}, with its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct ConeProjection {
    /// Row weights of the projection, d = Jᵀ alpha; exactly u where the projection needs nothing of a row.
    pub alpha: Vec<f64>, // [m]
    /// How far alpha is from optimal: the worst of `-⟨g_i, d⟩` and, where alpha_i > u_i, of `|⟨g_i, d⟩|`, relative to
    /// `‖g_i‖‖Jᵀu‖`. 0 at the optimum, never negative.
    pub gap: f64,
}

/// alpha ∈ argmin{vᵀHv : v ≥ u}: Jᵀ alpha is the point of {d : Jd ≥ 0} nearest to Jᵀu.
///
/// `h` [m, m] is the Gramian of the rows, `u` [m] any weights. The projection is unique; where rows are dependent alpha
/// is not, and is the one with the least `Σ ((alpha_i - u_i)‖g_i‖)²`, so that it does not depend on the order of the
/// rows. A zero row keeps its weight. Exact up to rounding (active set). Refused: `h` not a finite Gramian, `u` not
/// finite or of another length.
pub fn cone_project(h: &Matrix, u: &[f64]) -> Result<ConeProjection> {
    check_vector("u", u, h.rows())?;
    project(&Gramian::new(h)?, u)
}

/// [`cone_project`] for each row of `u` [k, m]; the Gramian is taken apart once.
pub fn cone_project_each(h: &Matrix, u: &Matrix) -> Result<Vec<ConeProjection>> {
    let rows = Gramian::new(h)?;
    let each = |k: usize| {
        check_vector(&format!("u[{k}]"), u.row(k), rows.len())?;
        project(&rows, u.row(k))
    };
    (0..u.rows()).map(each).collect()
}

fn project(rows: &Gramian, u: &[f64]) -> Result<ConeProjection> {
    let largest = u.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
    let unit: Vec<f64> = u.iter().map(|x| if largest > 0.0 { x / largest } else { 0.0 }).collect();
    let (target, length) = rows.combined(&unit);
    if length == 0.0 {
        return Ok(ConeProjection { alpha: u.to_vec(), gap: 0.0 });
    }
    let certified = |q: &[f64]| {
        let add = |(i, q): (usize, &f64)| if *q > 0.0 { unit[i] + q * (length / rows.d[i]) } else { unit[i] };
        let alpha: Vec<f64> = q.iter().enumerate().map(add).collect();
        let gap = residual(rows, &alpha, &unit, length);
        (alpha, gap)
    };
    // Σ q_i u_i takes the unit vector `target` to its projection (Moreau).
    let away: Vec<f64> = target.iter().map(|x| -x).collect();
    let q =
        at_once(rows, &away).unwrap_or_else(|| nonnegative_least_squares(&rows.u, &away, rows.tolerance()));
    let (mut alpha, mut gap) = certified(&q);
    if let Some((near, near_gap)) = smallest(rows, &q, &target).map(|q| certified(&q)) {
        // Rounding in a null space may cost accuracy; the projection itself comes first.
        let size: f64 = rows.lengths(&near).iter().map(|q| q.abs()).sum();
        if near_gap <= (10.0 * gap).max(rows.tolerance() * size / length) {
            (alpha, gap) = (near, near_gap);
        }
    }
    alpha.iter_mut().zip(&unit).zip(u).for_each(|((alpha, unit), u)| {
        *alpha = if alpha == unit { *u } else { *alpha * largest };
    });
    match alpha.iter().position(|x| !x.is_finite()) {
        Some(i) => {
            Err(Error::new(format!("the projection needs a weight of row {i} beyond what a float holds"))
                .help("scale the rows to lengths closer to each other"))
        }
        None => Ok(ConeProjection { alpha, gap }),
    }
}

/// What nonnegative least squares finds, where the rows that take part are those that object to Jᵀu: most often.
fn at_once(rows: &Gramian, away: &[f64]) -> Option<Vec<f64>> {
    let against: Vec<usize> = (0..rows.len()).filter(|i| dot(&rows.u[*i], away) > rows.tolerance()).collect();
    let mut q = vec![0.0; rows.len()];
    if !against.is_empty() {
        let columns: Vec<&[f64]> = against.iter().map(|i| rows.u[*i].as_slice()).collect();
        let found = least_squares(&columns, &[away])?.pop()?;
        against.iter().zip(found).for_each(|(i, x)| q[*i] = x);
    }
    let mut left = combine(&q, &rows.u, rows.rank);
    left.iter_mut().zip(away).for_each(|(l, a)| *l = a - *l);
    let holds =
        against.iter().all(|i| q[*i] > 0.0) && rows.u.iter().all(|u| dot(u, &left) <= rows.tolerance());
    holds.then_some(q)
}

/// The shortest q' ≥ 0 with `Σ q'_i u_i = Σ q_i u_i`; `None` where there is but one.
fn smallest(rows: &Gramian, q: &[f64], target: &[f64]) -> Option<Vec<f64>> {
    let mut projection = combine(q, &rows.u, rows.rank);
    projection.iter_mut().zip(target).for_each(|(p, t)| *p += t);
    let takes_part = |i: &usize| rows.d[*i] > 0.0 && (q[*i] > 0.0 || dot(&rows.u[*i], &projection) <= TIGHT);
    let free: Vec<usize> = (0..q.len()).filter(takes_part).collect();
    // the rows with q_i > 0 are independent
    if free.iter().all(|i| q[*i] > 0.0) {
        return None;
    }
    let coordinate = |axis: usize| free.iter().map(|i| rows.u[*i][axis]).collect();
    let z = complement((0..rows.rank).map(coordinate).collect(), free.len());
    if z.is_empty() {
        return None;
    }
    let mut base: Vec<f64> = free.iter().map(|i| q[*i]).collect();
    for z in &z {
        let part = dot(z, &base);
        base.iter_mut().zip(z).for_each(|(b, z)| *b -= part * z);
    }
    let values = least_move(&base, &z, None, rows.tolerance())?;
    let mut near = vec![0.0; q.len()];
    free.iter().zip(values).for_each(|(i, value)| near[*i] = value);
    Some(near)
}

/// The gap of `alpha`, with `length` that of Jᵀu over the scale of the rows.
fn residual(rows: &Gramian, alpha: &[f64], u: &[f64], length: f64) -> f64 {
    let (direction, norm) = rows.direction(&rows.lengths(alpha));
    let each = |i: usize| {
        let slope = dot(&rows.u[i], &direction) * (norm / length);
        if alpha[i] > u[i] { slope.abs() } else { -slope }
    };
    (0..alpha.len()).map(each).fold(0.0, f64::max)
}
