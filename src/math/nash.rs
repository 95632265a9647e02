//! Fair row weights: the Nash bargaining solution and its α-fair relatives.

use super::Matrix;
use super::gramian::{Gramian, cosines};
use super::matrix::dot;
use super::min_norm::least_norm;
use crate::error::{Error, Result};

/// A residual beyond this is refused.
const UNCERTIFIED: f64 = 1e-6;
/// Newton steps; dozens do unless the lengths of the rows are hundreds of powers of ten apart.
const STEPS: usize = 2000;
/// Changes and residuals below this shrink with every step until rounding stops them.
const NEAR: f64 = 1e-6;
/// A slope this small, relative to what cancels in the sum that it equals, cannot be told from 0.
const LEAST: f64 = 1e-40;

/// Row weights in balance, with their certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct FairScaling {
    /// Row weights, positive; exactly 0 for a zero row.
    pub alpha: Vec<f64>, // [m]
    /// `max_i |(Hα)_i - α_i^(-1/a)| / (Σ_j |H_ij| α_j + α_i^(-1/a))`: relative to what is added up, 0 at the solution.
    pub gap: f64,
}

/// The Nash bargaining solution: α > 0 with `α_i (Hα)_i = 1`, so that ‖Jᵀα‖ = √m at any scale.
///
/// `h` [m, m] is the Gramian of the rows. Refused, besides what is no Gramian: a zero row, and rows whose convex hull
/// holds 0 (as [`super::min_norm_point`] finds it on unit rows), for which there is no solution.
pub fn nash_bargaining(h: &Matrix) -> Result<FairScaling> {
    let rows = Gramian::new(h)?;
    if let Some(i) = rows.d.iter().position(|d| *d == 0.0) {
        return Err(Error::new(format!("there is no Nash bargaining solution: row {i} of `h` is zero"))
            .help("leave out objectives whose gradient is zero"));
    }
    solve(h, &rows, 1.0)
}

/// The α-fair row weights: x > 0 with `(Hx)_i = x_i^(-1/a)`; `a` = 1 is [`nash_bargaining`], `a` = 0 gives 1/m.
///
/// `h` [m, m] is the Gramian of the rows. J → kJ takes x to k^(-2a/(1+a)) x. A zero row is left out: its weight is 0.
/// Refused, besides what is no Gramian: an `a` that is negative or not finite; for `a` > 0 rows whose convex hull,
/// zero rows left out, holds 0, for which there is no solution.
pub fn fair_scaling(h: &Matrix, a: f64) -> Result<FairScaling> {
    let rows = Gramian::new(h)?;
    if !(0.0..f64::INFINITY).contains(&a) {
        return Err(Error::new(format!("`a` must be finite and not negative, found `{a}`"))
            .help("give a fairness such as 2"));
    }
    if a == 0.0 {
        let m = rows.len();
        return Ok(FairScaling { alpha: vec![1.0 / m as f64; m], gap: 0.0 });
    }
    solve(h, &rows, a)
}

/// The problem on unit rows: y_i = x_i‖g_i‖ is the minimum of `½yᵀCy - Σ φ_i(y_i)`, convex, with C the cosines and
/// `log φ_i' = k_i - log y_i / a`, `k_i = (1/a - 1) log‖g_i‖`.
struct Problem {
    c: Vec<f64>, // [n, n]
    k: Vec<f64>, // [n]
    a: f64,
}

fn solve(h: &Matrix, rows: &Gramian, a: f64) -> Result<FairScaling> {
    let open: Vec<usize> = (0..rows.len()).filter(|i| rows.d[*i] > 0.0).collect();
    let mut alpha = vec![0.0; rows.len()];
    if open.is_empty() {
        return Ok(FairScaling { alpha, gap: 0.0 });
    }
    let u: Vec<Vec<f64>> = open.iter().map(|i| rows.u[*i].clone()).collect();
    let n = open.len();
    let units = Gramian { scale: 1.0, d: vec![1.0; n], u, rank: rows.rank, noise: rows.noise };
    if units.combined(&least_norm(&units)).1 == 0.0 {
        return Err(Error::new("there is no fair solution: 0 is in the convex hull of the rows")
            .help("stop, for no direction improves all objectives, or use a method such as `mgda`"));
    }
    let log_length: Vec<f64> = open.iter().map(|i| rows.d[*i].ln() + rows.scale.ln()).collect();
    let c = cosines(h)?;
    let problem = Problem {
        c: open.iter().flat_map(|i| open.iter().map(|j| c[(*i, *j)])).collect(),
        k: log_length.iter().map(|l| (1.0 / a - 1.0) * l).collect(),
        a,
    };
    // what solves it where all rows are orthogonal
    let start = log_length.iter().map(|l| ((1.0 - a) / (1.0 + a) * l).exp()).collect();
    let (y, gap) = problem.newton(start);
    open.iter().zip(&y).for_each(|(i, y)| alpha[*i] = y / rows.d[*i] / rows.scale);
    let held = open.iter().all(|i| alpha[*i] > 0.0 && alpha[*i].is_finite());
    if !held || gap.is_nan() || gap > UNCERTIFIED {
        return Err(Error::new("the fair weights of `h` are further apart than floats can hold")
            .help("give a smaller `a`, or scale the rows to lengths closer to each other"));
    }
    Ok(FairScaling { alpha, gap })
}

impl Problem {
    /// Newton with steps that leave y positive; y and its gap.
    fn newton(&self, mut y: Vec<f64>) -> (Vec<f64>, f64) {
        let n = y.len();
        // a weight falls by a factor of 100 at most, and φ' rises by e³
        let lowest = (1.0 - (-3.0 * self.a).exp()).min(0.99);
        let mut best = (y.clone(), f64::INFINITY);
        for _ in 0..STEPS {
            let (gap, s, rest) = self.residual(&y);
            let better = gap < best.1;
            if better {
                best = (y.clone(), gap);
            }
            // (W C W + I/a) e = W (s - Cy), W = √(y/s), e = √(s y) · relative change of y
            let w: Vec<f64> = y.iter().zip(&s).map(|(y, s)| (y / s).sqrt()).collect();
            let mut e: Vec<f64> = w.iter().zip(&rest).map(|(w, rest)| w * rest).collect();
            self.divide(&w, &mut e);
            let change: Vec<f64> = (0..n).map(|i| e[i] / s[i].sqrt() / y[i].sqrt()).collect();
            let (least, largest) = change.iter().fold((0.0_f64, 0.0_f64), |(l, h), x| (l.min(*x), h.max(*x)));
            let near = largest.max(-least) <= NEAR && gap <= NEAR;
            if change.iter().any(|x| !x.is_finite()) || (near && !better) {
                break;
            }
            let step = if least < -lowest { lowest / -least } else { 1.0 };
            y.iter_mut().zip(&change).for_each(|(y, change)| *y *= 1.0 + step * change);
        }
        best
    }

    /// `e ← (W C W + I/a)⁻¹ e`, by Cholesky; no pivot is below 1/a.
    fn divide(&self, w: &[f64], e: &mut [f64]) {
        let n = e.len();
        let mut l = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let product = dot(&l[i * n..i * n + j], &l[j * n..j * n + j]);
                let value = w[i] * w[j] * self.c[i * n + j] - product;
                l[i * n + j] = if i == j {
                    (value + 1.0 / self.a).max(1.0 / self.a).sqrt()
                } else {
                    value / l[j * n + j]
                };
            }
        }
        for i in 0..n {
            e[i] = (e[i] - dot(&l[i * n..i * n + i], &e[..i])) / l[i * n + i];
        }
        for i in (0..n).rev() {
            e[i] /= l[i * n + i];
            (0..i).for_each(|j| e[j] -= l[i * n + j] * e[i]);
        }
    }

    /// The gap of y, `s = φ'(y)`, no less than what rounding leaves of the sum that it equals, and `s - Cy`.
    fn residual(&self, y: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let n = y.len();
        let (mut gap, mut s, mut rest) = (0.0_f64, Vec::with_capacity(n), Vec::with_capacity(n));
        for i in 0..n {
            let terms = || self.c[i * n..][..n].iter().zip(y).map(|(c, y)| c * y);
            let size: f64 = terms().map(f64::abs).sum();
            s.push((self.k[i] - y[i].ln() / self.a).exp().max(LEAST * size));
            rest.push(s[i] - terms().sum::<f64>());
            gap = gap.max(rest[i].abs() / (size + s[i]));
        }
        (gap, s, rest)
    }
}
