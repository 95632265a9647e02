//! A Gramian as row lengths and directions, so that no product of two scales is ever formed.

use super::Matrix;
use super::matrix::{dot, unit};
use crate::error::{Error, Result};

/// How far a matrix may be from symmetric and positive semi-definite, relative to its diagonal, and still pass
/// for the Gramian of single-precision rows.
const NOT_A_GRAMIAN: f64 = 1e-6;

/// `H_ij = scale² d_i d_j C_ij` and `C = U Uᵀ`.
pub(super) struct Gramian {
    /// The longest row's norm, 1 where all rows are zero.
    pub scale: f64,
    /// Row norms over `scale`, in [0, 1].
    pub d: Vec<f64>, // [m]
    /// Unit rows in the coordinates of a pivoted Cholesky factor, zero for a zero row. What a row has outside the
    /// span of the others and below rounding (squared length under 4mε) is left out: dependent rows are dependent.
    pub u: Vec<Vec<f64>>, // [m, rank]
    pub rank: usize,
    /// The squared length, relative to a row's, below which the factor knows nothing: 4mε, more if `h` is noisy.
    pub noise: f64,
}

impl Gramian {
    /// Checks `h` and takes it apart.
    pub fn new(h: &Matrix) -> Result<Self> {
        let (norms, cosines) = take_apart(h)?;
        let largest = norms.iter().fold(0.0_f64, |a, d| a.max(*d));
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let (u, rank, noise) = unit_rows(&cosines)?;
        Ok(Self { scale, d: norms.iter().map(|d| d / scale).collect(), u, rank, noise })
    }

    pub fn len(&self) -> usize {
        self.d.len()
    }

    /// Relative tolerance of a sum over rows.
    pub fn tolerance(&self) -> f64 {
        8.0 * self.noise
    }

    /// A squared length this small, relative to the squared lengths of what was added up, is 0 up to rounding.
    pub fn zero(&self) -> f64 {
        self.len() as f64 * self.noise
    }

    /// The direction of `Σ q_i u_i` and its length.
    pub fn direction(&self, q: &[f64]) -> (Vec<f64>, f64) {
        unit(super::matrix::combine(q, &self.u, self.rank))
    }

    /// `p_i d_i`: how much of the unit rows is in G_p, over `scale`.
    pub fn lengths(&self, p: &[f64]) -> Vec<f64> {
        p.iter().zip(&self.d).map(|(p, d)| p * d).collect()
    }

    /// The rows of positive but little weight, least first.
    pub fn little(&self, p: &[f64]) -> Vec<usize> {
        let q = self.lengths(p);
        let largest = q.iter().fold(0.0_f64, |a, q| a.max(*q));
        let is_little = |i: &usize| 0.0 < p[*i] && p[*i] <= 1e-6 && q[*i] <= 1e-6 * largest;
        let mut little: Vec<usize> = (0..p.len()).filter(is_little).collect();
        little.sort_by(|a, b| q[*a].total_cmp(&q[*b]));
        little
    }

    /// The direction of G_p, and its length over `scale`: 0 where it counts as 0, though the direction may be there.
    pub fn combined(&self, p: &[f64]) -> (Vec<f64>, f64) {
        let q = self.lengths(p);
        let (_, parts) = unit(q.clone());
        let (direction, length) = self.direction(&q);
        (direction, if length <= self.zero().sqrt() * parts { 0.0 } else { length })
    }
}

/// `√(pᵀHp)`, the norm of `G_p`; exactly 0 where `pᵀHp ≤ 4m²ε Σ p_i² H_ii`, which is rounding (more than ε where `h`
/// has negative eigenvalues beyond rounding: it is then known to their size only).
///
/// `h` [m, m] is a Gramian, `p` [m] any row weights. Refused: shapes that differ, values that are not finite.
pub fn norm(h: &Matrix, p: &[f64]) -> Result<f64> {
    let gramian = Gramian::new(h)?;
    check_vector("p", p, gramian.len())?;
    Ok(gramian.combined(p).1 * gramian.scale)
}

/// The cosines of the rows of a Gramian, [m, m]: `H_ij/√(H_ii H_jj)`, 0 for a zero row.
pub fn cosines(h: &Matrix) -> Result<Matrix> {
    Ok(take_apart(h)?.1)
}

/// The norms of the rows of a Gramian, [m]: `√H_ii`.
pub fn row_norms(h: &Matrix) -> Result<Vec<f64>> {
    Ok(take_apart(h)?.0)
}

/// Refuses a vector of the wrong length or with a value that is not finite, by name.
pub(super) fn check_vector(name: &str, v: &[f64], len: usize) -> Result<()> {
    if v.len() != len {
        return Err(Error::new(format!(
            "`{name}` must have {len} values, one a row of `h`, found {}",
            v.len()
        )));
    }
    check_finite(name, v)
}

/// Refuses a vector with a value that is not finite, by name.
pub(super) fn check_finite(name: &str, v: &[f64]) -> Result<()> {
    match v.iter().position(|x| !x.is_finite()) {
        Some(i) => Err(Error::new(format!("`{name}[{i}]` is `{}`, expected a finite number", v[i]))),
        None => Ok(()),
    }
}

/// Refuses a vector outside the simplex, by name; a sum within 1e-6 of 1 passes.
pub(super) fn check_simplex(name: &str, v: &[f64], len: usize) -> Result<()> {
    check_vector(name, v, len)?;
    if let Some(i) = v.iter().position(|x| *x < 0.0) {
        return Err(Error::new(format!("`{name}[{i}]` must not be negative, found `{}`", v[i])));
    }
    let sum: f64 = v.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(Error::new(format!("`{name}` must sum to 1, found `{sum}`")));
    }
    Ok(())
}

/// Row norms and cosines of a checked Gramian.
fn take_apart(h: &Matrix) -> Result<(Vec<f64>, Matrix)> {
    let m = h.rows();
    if m == 0 || h.cols() != m {
        return Err(Error::new(format!(
            "`h` must be square with one row an objective, found {m} rows and {} columns",
            h.cols()
        )));
    }
    for i in 0..m {
        if let Some(j) = h.row(i).iter().position(|x| !x.is_finite()) {
            return Err(Error::new(format!("`h[{i}, {j}]` is `{}`, expected a finite number", h[(i, j)])));
        }
        if h[(i, i)] < 0.0 {
            return Err(Error::new(format!(
                "`h[{i}, {i}]` is a squared norm and must not be negative, found `{}`",
                h[(i, i)]
            )));
        }
    }
    let norms: Vec<f64> = (0..m)
        .map(|i| h[(i, i)])
        .map(|square| if square < f64::MIN_POSITIVE { 0.0 } else { square.sqrt() })
        .collect();
    let mut cosines = Matrix::zeros(m, m);
    for i in 0..m {
        for j in 0..i {
            if norms[i] == 0.0 || norms[j] == 0.0 {
                continue;
            }
            let [a, b] = [h[(i, j)], h[(j, i)]].map(|x| x / norms[i] / norms[j]);
            if (a - b).abs() > NOT_A_GRAMIAN {
                return Err(Error::new(format!(
                    "`h` must be symmetric, found `h[{i}, {j}]` = `{}` and `h[{j}, {i}]` = `{}`",
                    h[(i, j)],
                    h[(j, i)]
                )));
            }
            let cosine = 0.5 * (a + b);
            if cosine.abs() > 1.0 + NOT_A_GRAMIAN {
                return Err(not_a_gramian(format!(
                    "`h[{i}, {j}]` = `{}` is larger than the norms of rows {i} and {j} allow",
                    h[(i, j)]
                )));
            }
            cosines[(i, j)] = cosine.clamp(-1.0, 1.0);
            cosines[(j, i)] = cosines[(i, j)];
        }
        cosines[(i, i)] = if norms[i] > 0.0 { 1.0 } else { 0.0 };
    }
    Ok((norms, cosines))
}

fn not_a_gramian(why: String) -> Error {
    Error::new(format!("`h` is not a Gramian: {why}")).help("give the matrix of inner products of gradients")
}

/// `U` with `U Uᵀ = C`, as far as `C` is the Gramian of anything.
///
/// Where `C` is known to δ only, its smallest eigenvalues are noise of that size, some negative, and a factor that
/// takes them at their word is far from `C`. So what is left out grows until what is left over is as small.
fn unit_rows(cosines: &Matrix) -> Result<(Vec<Vec<f64>>, usize, f64)> {
    let mut least = 4.0 * cosines.rows() as f64 * f64::EPSILON;
    loop {
        let (u, (i, j, left)) = factor(cosines, least);
        if left <= 2.0 * least {
            let rank = u.first().map_or(0, Vec::len);
            return Ok((u, rank, least));
        }
        if least > NOT_A_GRAMIAN {
            return Err(not_a_gramian(format!("rows {i} and {j} make it indefinite")));
        }
        least *= 10.0;
    }
}

/// Cholesky, the longest residual first, down to squared residuals of `least`; and the worst entry left over.
fn factor(cosines: &Matrix, least: f64) -> (Vec<Vec<f64>>, (usize, usize, f64)) {
    let m = cosines.rows();
    let mut u: Vec<Vec<f64>> = vec![Vec::new(); m];
    let mut residual: Vec<f64> = (0..m).map(|i| cosines[(i, i)]).collect();
    let mut open: Vec<usize> = (0..m).filter(|i| residual[*i] > 0.0).collect();
    while let Some(k) = open.iter().copied().reduce(|a, b| if residual[b] > residual[a] { b } else { a }) {
        if residual[k] <= least {
            break;
        }
        let pivot = residual[k].sqrt();
        let row = u[k].clone();
        open.retain(|i| *i != k);
        for i in 0..m {
            let value = match i {
                _ if i == k => pivot,
                _ if open.contains(&i) => (cosines[(i, k)] - dot(&u[i], &row)) / pivot,
                _ => 0.0,
            };
            u[i].push(value);
            residual[i] -= value * value;
        }
    }
    let mut worst = (0, 0, 0.0);
    for &i in &open {
        for &j in &open {
            let left = (cosines[(i, j)] - dot(&u[i], &u[j])).abs();
            worst = if left > worst.2 { (i, j, left) } else { worst };
        }
    }
    (u, worst)
}
