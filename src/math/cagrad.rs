//! The dual of conflict-averse gradient descent, for any number of objectives.

use super::Matrix;
use super::gramian::{Gramian, check_simplex};
use super::hull::{Objective, support};
use super::least_squares::{basis, nonnegative_least_squares, remove};
use super::matrix::{combine, dot};
use super::min_norm::least_norm;
use super::nearest::nearest;
use super::simplex::project;
use crate::error::{Error, Result};

/// An answer whose relative gap exceeds this is refused.
const UNCERTIFIED: f64 = 1e-6;
/// A slope this small, relative, leaves it open whether a row takes part.
const TIGHT: f64 = 1e-9;

/// Minimiser of the CAGrad dual, with its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct CagradDual {
    /// Dual weights in the simplex; zeros are exact.
    pub p: Vec<f64>, // [m]
    /// `φ(p) = ⟨G_p, g₀⟩ + s‖G_p‖`.
    pub value: f64,
    /// `max_i (φ(p) - ⟨g_i, d⟩)/(‖g₀‖(‖g_i‖ + ‖G_p‖))`, 0 at the optimum, never negative. d, in the ball of radius s
    /// around g₀, is `g₀ + s G_p/‖G_p‖`; where G_p = 0 it is the point of the ball nearest to {d : Jd ≥ 0}, so that a
    /// gap of 0 says that the ball meets this cone.
    pub gap: f64,
    /// `‖g₀‖`.
    pub g0_norm: f64,
    /// `‖G_p‖`; exactly 0 where it is 0 up to rounding.
    pub gp_norm: f64,
    /// `s = c‖g₀‖`.
    pub radius: f64,
}

/// p ∈ argmin over the simplex of `φ(p) = bᵀp + s√(pᵀHp)`, b = Hw, s = c‖g₀‖; among minimisers the one nearest to w
/// (Euclidean), which makes `clip(p, w)` independent of the order of the rows. g₀ = 0 gives p = w.
///
/// `h` [m, m] is the Gramian of the gradients, `w` [m] the preference weights, `c` the radius in [0, 1). φ has the
/// units of `h`. Exact up to rounding: on a face of the simplex the minimiser is closed form, and faces are left and
/// entered so that φ falls. Refused: `h` not a finite Gramian, `w` off the simplex, `c` outside [0, 1).
pub fn cagrad_dual(h: &Matrix, w: &[f64], c: f64) -> Result<CagradDual> {
    let rows = Gramian::new(h)?;
    check_simplex("w", w, rows.len())?;
    if !(0.0..1.0).contains(&c) {
        return Err(
            Error::new(format!("`c` must be in [0, 1), found `{c}`")).help("give a radius such as 0.4")
        );
    }
    let (g0, g0_norm) = rows.combined(w);
    let answer = |p, value: f64, gap, gp_norm: f64| CagradDual {
        p,
        value: value * g0_norm * rows.scale * rows.scale,
        gap,
        g0_norm: g0_norm * rows.scale,
        gp_norm: gp_norm * rows.scale,
        radius: c * g0_norm * rows.scale,
    };
    if g0_norm == 0.0 {
        return Ok(answer(w.to_vec(), 0.0, 0.0, 0.0));
    }
    let dual = Objective { rows: &rows, g0, c };
    let (start, near) = dual.minimise(w);
    let certified = dual.certificate(&near);
    let (p, (value, gap, gp_norm)) = match dual.certificate(&start) {
        // Rounding in a null space may cost accuracy; the minimiser itself comes first.
        fallback if certified.1 > (10.0 * fallback.1).max(rows.tolerance()) => (start, fallback),
        _ => (near, certified),
    };
    if gap.is_nan() || gap > UNCERTIFIED {
        return Err(Error::internal(format!("the CAGrad dual ends with a relative gap of `{gap:e}`")));
    }
    Ok(answer(p, value, gap, gp_norm))
}

impl Objective<'_> {
    /// A minimiser, and the minimiser nearest to `w`.
    fn minimise(&self, w: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let rows = self.rows;
        if self.c == 0.0 {
            return self.linear(w);
        }
        // Where the ball around g₀ misses the cone {d : Jd ≥ 0} the least φ is negative, and what points from the
        // ball to the cone has a negative φ; else φ ≥ 0, and 0 is its least value if the hull holds 0.
        let (toward, x) = self.to_cone(&[]);
        let distance = dot(&toward, &toward).sqrt();
        let touches = (distance - self.c).abs() <= rows.tolerance();
        let mut p = least_norm(rows);
        if distance > self.c + rows.tolerance() {
            p = x;
        } else if rows.combined(&p).1 == 0.0 {
            let d: Vec<f64> = self.g0.iter().zip(&toward).map(|(g, t)| g + t).collect();
            let free = self.free(&p, |i| dot(&rows.u[i], &d));
            let ray: Option<Vec<f64>> = touches.then(|| toward.iter().map(|t| t / distance).collect());
            let near = nearest(rows, &p, &free, w, ray.as_deref());
            return (p, near);
        }
        p = self.descend(p);
        let (direction, _) = rows.direction(&rows.lengths(&p));
        let slack = self.slack(&p);
        let free = self.free(&p, |i| slack[i]);
        let d_along = dot(&direction, &self.g0) + self.c;
        let ray = (d_along.abs() <= rows.tolerance()).then_some(direction.as_slice());
        let near = nearest(rows, &p, &free, w, ray);
        (p, near)
    }

    /// c = 0: φ is linear, its minimisers are a face of the simplex.
    fn linear(&self, w: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let d = &self.rows.d;
        let value = |i: usize| d[i] * dot(&self.rows.u[i], &self.g0);
        let least = (1..d.len()).fold(0, |k, i| if value(i) < value(k) { i } else { k });
        let tolerance = self.rows.tolerance();
        let free: Vec<usize> =
            (0..d.len()).filter(|i| value(*i) - value(least) <= tolerance * (d[*i] + d[least])).collect();
        let onto = project(&free.iter().map(|i| w[*i]).collect::<Vec<_>>());
        let (mut vertex, mut near) = (vec![0.0; d.len()], vec![0.0; d.len()]);
        vertex[least] = 1.0;
        free.iter().zip(onto).for_each(|(i, x)| near[*i] = x);
        (vertex, near)
    }

    /// The vector from ĝ₀ to its projection on {d : Jd ≥ 0, d ⟂ flat}, and the weights in the simplex whose combination
    /// points along it. By Moreau the vector is `Σ x_i g_i` with x ≥ 0 least `‖ĝ₀ + Σ x_i g_i‖`.
    fn to_cone(&self, flat: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
        let rows = self.rows;
        let outside = |v: &Vec<f64>| {
            let v = remove(v.clone(), flat);
            if dot(&v, &v) <= rows.zero() { vec![0.0; rows.rank] } else { v }
        };
        let u: Vec<Vec<f64>> = rows.u.iter().map(outside).collect();
        let g0 = remove(self.g0.clone(), flat);
        let q = nonnegative_least_squares(&u, &g0.iter().map(|g| -g).collect::<Vec<_>>(), rows.tolerance());
        let shortest = support(&q).iter().map(|i| rows.d[*i]).fold(f64::INFINITY, f64::min);
        let x: Vec<f64> =
            q.iter().zip(&rows.d).map(|(q, d)| if *q > 0.0 { q * (shortest / d) } else { 0.0 }).collect();
        let sum: f64 = x.iter().sum();
        let mut toward = combine(&q, &u, rows.rank);
        toward.iter_mut().zip(g0.iter().zip(&self.g0)).for_each(|(t, (flat, g))| *t += flat - g);
        (toward, x.iter().map(|x| x / sum).collect())
    }

    /// The support of `p` and the rows that may join it at no cost, by their relative slack.
    fn free(&self, p: &[f64], slack: impl Fn(usize) -> f64) -> Vec<usize> {
        (0..p.len()).filter(|i| p[*i] > 0.0 || slack(*i) <= TIGHT).collect()
    }

    /// φ(p) over ‖g₀‖·scale, the relative gap, and ‖G_p‖/scale.
    fn certificate(&self, p: &[f64]) -> (f64, f64, f64) {
        let rows = self.rows;
        let (direction, norm) = rows.combined(p);
        let value = norm * (dot(&direction, &self.g0) + self.c);
        let gap = |toward: &[f64]| {
            let d: Vec<f64> = self.g0.iter().zip(toward).map(|(g, t)| g + t).collect();
            let slack = |(u, l): (&Vec<f64>, &f64)| match l + norm {
                0.0 => 0.0,
                scale => (value - l * dot(u, &d)) / scale,
            };
            rows.u.iter().zip(&rows.d).map(slack).fold(0.0, f64::max)
        };
        let along: Vec<f64> = direction.iter().map(|x| self.c * x).collect();
        if norm > 0.0 {
            return (value, gap(&along), norm);
        }
        // The rows that cancel are orthogonal to d at the optimum, and dependent up to rounding.
        let q = rows.lengths(p);
        let least = rows.zero().sqrt() * q.iter().fold(0.0_f64, |a, q| a.max(*q));
        let cancelling = (0..p.len()).filter(|i| q[*i] > least).map(|i| rows.u[i].clone()).collect();
        let (toward, _) = self.to_cone(&basis(cancelling, rows.zero().sqrt(), p.len()));
        let distance = dot(&toward, &toward).sqrt();
        let reach = if distance > self.c { self.c / distance } else { 1.0 };
        let toward: Vec<f64> = toward.iter().map(|t| reach * t).collect();
        (value, gap(&along).min(gap(&toward)), norm)
    }
}
