//! The dual of conflict-averse gradient descent, for any number of objectives.

use super::Matrix;
use super::gramian::{Gramian, check_simplex};
use super::least_squares::{least_squares, nonnegative_least_squares, step_to_boundary};
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
        return Err(Error::new(format!("`c` must be in [0, 1), found `{c}`")));
    }
    let (g0_norm, b) = rows.norm_and_products(w);
    let answer = |p, value: f64, gap, gp_norm: f64| CagradDual {
        p,
        value: value * g0_norm * rows.scale * rows.scale,
        gap,
        g0_norm: g0_norm * rows.scale,
        gp_norm: gp_norm * rows.scale,
        radius: c * g0_norm * rows.scale,
    };
    if g0_norm == 0.0 {
        let gp_norm = rows.norm_and_products(w).0;
        return Ok(answer(w.to_vec(), 0.0, 0.0, gp_norm));
    }
    let (g0, _) = rows.direction(&rows.lengths(w));
    let b = b.iter().map(|b| b / g0_norm).collect();
    let dual = Dual { rows: &rows, g0, b, c };
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

/// The problem with ‖g₀‖ = 1: φ = ⟨G_p, ĝ₀⟩ + c‖G_p‖.
struct Dual<'a> {
    rows: &'a Gramian,
    g0: Vec<f64>, // [rank]
    b: Vec<f64>,  // [m]: cosine of each row with g₀, from the cosines themselves
    c: f64,
}

/// The affine hull of some rows: `G = at + t·along` with ‖at‖ = `distance` from 0 and `along` the part of ĝ₀ in it.
struct Face {
    at: Vec<f64>,    // [rows], weights of the point nearest to 0
    along: Vec<f64>, // [rows], weights summing to 0
    distance: f64,   // ‖at‖ as a vector, in units of the shortest row
    slope: f64,      // ‖along‖ as a vector, in [0, 1]
}

impl Dual<'_> {
    /// A minimiser, and the minimiser nearest to `w`.
    fn minimise(&self, w: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let rows = self.rows;
        if self.c == 0.0 {
            return self.linear(w);
        }
        // Where the ball around g₀ misses the cone {d : Jd ≥ 0} the least φ is negative, and what points from the
        // ball to the cone has a negative φ; else φ ≥ 0, and 0 is its least value if the hull holds 0.
        let (toward, x) = self.to_cone();
        let distance = dot(&toward, &toward).sqrt();
        let touches = (distance - self.c).abs() <= rows.tolerance();
        let mut p = least_norm(rows);
        if distance > self.c + rows.tolerance() {
            p = x;
        } else if rows.norm_and_products(&p).0 == 0.0 {
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
        let value = |i: usize| d[i] * self.b[i];
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

    /// The vector from ĝ₀ to its projection on {d : Jd ≥ 0}, and the weights in the simplex whose combination points
    /// along it. By Moreau the vector is `Σ x_i g_i` with x ≥ 0 least `‖ĝ₀ + Σ x_i g_i‖`.
    fn to_cone(&self) -> (Vec<f64>, Vec<f64>) {
        let rows = self.rows;
        let away: Vec<f64> = self.g0.iter().map(|g| -g).collect();
        let q = nonnegative_least_squares(&rows.u, &away, rows.tolerance());
        let shortest = support(&q).iter().map(|i| rows.d[*i]).fold(f64::INFINITY, f64::min);
        let x: Vec<f64> =
            q.iter().zip(&rows.d).map(|(q, d)| if *q > 0.0 { q * (shortest / d) } else { 0.0 }).collect();
        let sum: f64 = x.iter().sum();
        (combine(&q, &rows.u, rows.rank), x.iter().map(|x| x / sum).collect())
    }

    /// The support of `p` and the rows that may join it at no cost, by their relative slack.
    fn free(&self, p: &[f64], slack: impl Fn(usize) -> f64) -> Vec<usize> {
        (0..p.len()).filter(|i| p[*i] > 0.0 || slack(*i) <= TIGHT).collect()
    }

    /// `(⟨g_i, d⟩ - φ)/(‖g_i‖ + ‖G_p‖)` with `d = ĝ₀ + c G_p/‖G_p‖`: the slope of φ towards row i.
    fn slack(&self, p: &[f64]) -> Vec<f64> {
        let (direction, length) = self.rows.direction(&self.rows.lengths(p));
        let d: Vec<f64> = self.g0.iter().zip(&direction).map(|(g, x)| g + self.c * x).collect();
        let along = dot(&direction, &d);
        let relative = |(u, l): (&Vec<f64>, &f64)| {
            let share = length / (l + length);
            (1.0 - share) * dot(u, &d) - share * along
        };
        self.rows.u.iter().zip(&self.rows.d).map(relative).collect()
    }

    /// φ over the length of the longest row.
    fn value(&self, p: &[f64]) -> f64 {
        let (direction, length) = self.rows.direction(&self.rows.lengths(p));
        length * (dot(&direction, &self.g0) + self.c)
    }

    /// From `p`, whose support is independent, to a minimiser of φ.
    fn descend(&self, mut p: Vec<f64>) -> Vec<f64> {
        let m = p.len();
        let mut s = support(&p);
        let mut entering = None;
        let mut barred = vec![false; m];
        let mut least = f64::INFINITY;
        // Each face is visited once, and few are; the bound only cuts short a cycle of rounding.
        for _ in 0..50 * (m + 1) {
            let Some(face) = self.face(&s) else {
                match entering.take() {
                    Some(j) => drop_row(&mut s, &mut barred, j),
                    None => break,
                }
                continue;
            };
            let Some(target) = self.best_on(&face) else {
                self.slide(&mut p, &mut s, &face.along);
                continue;
            };
            if target.iter().any(|x| *x <= 0.0) {
                step_to_boundary(&mut p, &mut s, &target);
                continue;
            }
            p.fill(0.0);
            s.iter().zip(&target).for_each(|(i, x)| p[*i] = *x);
            match (self.value(&p), entering) {
                (value, _) if value < least => {
                    least = value;
                    barred.fill(false);
                }
                (_, Some(j)) => barred[j] = true,
                _ => {}
            }
            let slack = self.slack(&p);
            let next = (0..m)
                .filter(|i| !s.contains(i) && !barred[*i] && slack[*i] < -self.rows.tolerance())
                .min_by(|a, b| slack[*a].total_cmp(&slack[*b]));
            let Some(next) = next else { break };
            s.push(next);
            entering = Some(next);
        }
        self.prune(p)
    }

    /// Leaves out the rows of little weight without which the answer is as good: their weight is rounding.
    fn prune(&self, mut p: Vec<f64>) -> Vec<f64> {
        for i in self.rows.little(&p) {
            let s: Vec<usize> = support(&p).into_iter().filter(|k| *k != i).collect();
            let Some(target) = self.face(&s).and_then(|f| self.best_on(&f)) else { continue };
            let mut without = vec![0.0; p.len()];
            s.iter().zip(&target).for_each(|(k, x)| without[*k] = *x);
            let tolerance = -self.rows.tolerance();
            if target.iter().all(|x| *x > 0.0) && self.slack(&without).iter().all(|x| *x >= tolerance) {
                p = without;
            }
        }
        p
    }

    /// `None` where the rows are affinely dependent.
    ///
    /// With r the shortest row, `G = λ(u_r + Σ q_i (u_i - c_i u_r))`, λ = d_r, c_i = λ/d_i, p_i = c_i q_i: the sum of
    /// the weights holds by construction, however far apart the row norms are.
    fn face(&self, s: &[usize]) -> Option<Face> {
        let Gramian { d, u, rank, .. } = self.rows;
        let reference = (0..s.len()).min_by(|a, b| d[s[*a]].total_cmp(&d[s[*b]]))?;
        let r = s[reference];
        let others: Vec<usize> = s.iter().copied().filter(|i| *i != r).collect();
        let shares: Vec<f64> = others.iter().map(|i| if d[r] > 0.0 { d[r] / d[*i] } else { 0.0 }).collect();
        let edge = |(i, c): (&usize, &f64)| u[*i].iter().zip(&u[r]).map(|(x, y)| x - c * y).collect();
        let edges: Vec<Vec<f64>> = others.iter().zip(&shares).map(edge).collect();
        let back: Vec<f64> = u[r].iter().map(|x| -x).collect();
        let solved =
            if edges.is_empty() { vec![vec![]; 2] } else { least_squares(&edges, &[&back, &self.g0])? };
        let [at, along] = <[Vec<f64>; 2]>::try_from(solved).ok()?;

        let mut nearest = combine(&at, &edges, *rank);
        nearest.iter_mut().zip(&u[r]).for_each(|(x, y)| *x += y);
        let part = combine(&along, &edges, *rank);
        let weights = |q: &[f64], total: f64| {
            let mut p: Vec<f64> = q.iter().zip(&shares).map(|(q, c)| q * c).collect();
            p.insert(reference, total - p.iter().sum::<f64>());
            p
        };
        Some(Face {
            at: weights(&at, 1.0),
            along: weights(&along, 0.0),
            distance: dot(&nearest, &nearest).sqrt(),
            slope: dot(&part, &part).sqrt(),
        })
    }

    /// The weights that minimise φ over the affine hull; `None` where φ falls for ever against `along`.
    ///
    /// On `G = at - t·along` φ = ⟨at, ĝ₀⟩ - t·slope² + c√(distance² + t²slope²): t = distance/√(c² - slope²).
    fn best_on(&self, face: &Face) -> Option<Vec<f64>> {
        let room = (self.c - face.slope) * (self.c + face.slope);
        let vertex = face.at.len() == 1;
        if room <= 0.0 && !vertex {
            return None;
        }
        let t = if vertex { 0.0 } else { face.distance / room.sqrt() };
        Some(face.at.iter().zip(&face.along).map(|(x, y)| x - t * y).collect())
    }

    /// Moves `p` over `s` against `along` until the first weights reach 0; these leave `s`.
    fn slide(&self, p: &mut [f64], s: &mut Vec<usize>, along: &[f64]) {
        let limit = |(i, y): (&usize, &f64)| if *y > 0.0 { p[*i] / y } else { f64::INFINITY };
        let limits: Vec<f64> = s.iter().zip(along).map(limit).collect();
        let step = limits.iter().fold(f64::INFINITY, |a, b| a.min(*b));
        for (i, y) in s.iter().zip(along) {
            p[*i] -= step * y;
        }
        let mut reached = limits.iter().map(|l| *l <= step);
        s.retain(|i| {
            let stays = !reached.next().unwrap_or(false);
            if !stays {
                p[*i] = 0.0;
            }
            stays
        });
    }

    /// φ(p) over ‖g₀‖·scale, the relative gap, and ‖G_p‖/scale, all from the cosines themselves.
    fn certificate(&self, p: &[f64]) -> (f64, f64, f64) {
        let rows = self.rows;
        let (norm, products) = rows.norm_and_products(p);
        let value = if norm > 0.0 { dot(&rows.lengths(p), &self.b) + self.c * norm } else { 0.0 };
        let toward: Vec<f64> = if norm > 0.0 {
            products.iter().map(|x| self.c * x / norm).collect()
        } else {
            let (toward, _) = self.to_cone();
            let distance = dot(&toward, &toward).sqrt();
            let reach = if distance > self.c { self.c / distance } else { 1.0 };
            rows.u.iter().map(|u| reach * dot(u, &toward)).collect()
        };
        let slack = |i: usize| {
            let scale = rows.d[i] + norm;
            if scale == 0.0 { 0.0 } else { (value - rows.d[i] * (self.b[i] + toward[i])) / scale }
        };
        (value, (0..rows.len()).map(slack).fold(0.0, f64::max), norm)
    }
}

fn support(p: &[f64]) -> Vec<usize> {
    (0..p.len()).filter(|i| p[*i] > 0.0).collect()
}

fn drop_row(s: &mut Vec<usize>, barred: &mut [bool], j: usize) {
    s.retain(|i| *i != j);
    barred[j] = true;
}
