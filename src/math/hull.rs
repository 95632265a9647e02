//! Descent of a norm plus a linear function over the convex hull of the rows, face by face.

use super::gramian::Gramian;
use super::least_squares::{least_squares, step_to_boundary};
use super::matrix::{combine, dot};

/// `φ(p) = ⟨G_p, g₀⟩ + c‖G_p‖` over the simplex, with g₀ = 0 or ‖g₀‖ = 1, and c > 0.
pub(super) struct Objective<'a> {
    pub rows: &'a Gramian,
    pub g0: Vec<f64>, // [rank]
    pub c: f64,
}

/// The affine hull of some rows: `G = at + t·along` with ‖at‖ = `distance` from 0 and `along` the part of g₀ in it.
struct Face {
    at: Vec<f64>,    // [rows], weights of the point nearest to 0
    along: Vec<f64>, // [rows], weights summing to 0
    distance: f64,   // ‖at‖ as a vector, in units of the shortest row
    slope: f64,      // ‖along‖ as a vector, in [0, 1]
}

impl Objective<'_> {
    /// `(⟨g_i, d⟩ - φ)/(‖g_i‖ + ‖G_p‖)` with `d = g₀ + c G_p/‖G_p‖`: the slope of φ towards row i.
    pub fn slack(&self, p: &[f64]) -> Vec<f64> {
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
    pub fn descend(&self, mut p: Vec<f64>) -> Vec<f64> {
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
    /// On `G = at - t·along` φ = ⟨at, g₀⟩ - t·slope² + c√(distance² + t²slope²): t = distance/√(c² - slope²).
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
}

/// The rows with positive weight.
pub(super) fn support(p: &[f64]) -> Vec<usize> {
    (0..p.len()).filter(|i| p[*i] > 0.0).collect()
}

fn drop_row(s: &mut Vec<usize>, barred: &mut [bool], j: usize) {
    s.retain(|i| *i != j);
    barred[j] = true;
}
