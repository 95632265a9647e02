//! Eigenvectors, pseudo-inverses and linear systems.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::Matrix;
use super::gramian::{Gramian, check_finite};
use super::least_squares::least_squares;
use super::matrix::dot;
use crate::error::{Error, Result};

/// How far a matrix may be from symmetric, relative to its largest entry.
const ASYMMETRY: f64 = 1e-6;
/// An answer whose relative residual exceeds this is refused.
const UNCERTIFIED: f64 = 1e-6;

/// The eigenvalues and eigenvectors of a symmetric matrix, with their certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// Ascending.
    pub values: Vec<f64>, // [n]
    /// Column k is the unit eigenvector of `values[k]`; its largest entry is positive.
    pub vectors: Matrix, // [n, n]
    /// The largest entry of `HV - VΛ`, relative to the largest eigenvalue, or of `VᵀV - I`.
    pub gap: f64,
}

/// `H = V Λ Vᵀ` for a symmetric `h` [n, n] of any sign and scale, accurate to ε of the largest eigenvalue.
///
/// Refused: a matrix that is empty, not square, not finite or not symmetric.
pub fn eigh(h: &Matrix) -> Result<Eigen> {
    let n = h.rows();
    if n == 0 || h.cols() != n {
        return Err(not_square("h", h));
    }
    let largest = check_entries("h", h)?;
    for i in 0..n {
        if let Some(j) = (0..i).find(|j| (h[(i, *j)] - h[(*j, i)]).abs() > ASYMMETRY * largest) {
            return Err(Error::new(format!(
                "`h` must be symmetric, found `h[{i}, {j}]` = `{}` and `h[{j}, {i}]` = `{}`",
                h[(i, j)],
                h[(j, i)]
            )));
        }
    }
    let scale = power_of_two(largest);
    let entry = |i, j| 0.5 * (h[(i, j)] / scale + h[(j, i)] / scale);
    let a = DMatrix::from_fn(n, n, entry);
    let eigen = SymmetricEigen::try_new(a.clone(), f64::EPSILON, 1000 * n)
        .ok_or_else(|| Error::internal("the eigenvalues do not converge"))?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| eigen.eigenvalues[*i].total_cmp(&eigen.eigenvalues[*j]));
    let values = DVector::from_fn(n, |k, _| eigen.eigenvalues[order[k]]);
    let mut v = DMatrix::from_fn(n, n, |i, k| eigen.eigenvectors[(i, order[k])]);
    for mut column in v.column_iter_mut() {
        if column[column.iamax()] < 0.0 {
            column.neg_mut();
        }
    }
    let off = (&a * &v - &v * DMatrix::from_diagonal(&values)).amax() / values.amax().max(f64::MIN_POSITIVE);
    let gap = off.max((v.transpose() * &v - DMatrix::identity(n, n)).amax());
    certified("the eigenvectors", gap)?;
    let mut vectors = Matrix::zeros(n, n);
    (0..n).for_each(|i| (0..n).for_each(|k| vectors[(i, k)] = v[(i, k)]));
    Ok(Eigen { values: values.iter().map(|x| x * scale).collect(), vectors, gap })
}

/// A pseudo-inverse, with its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct PseudoInverse {
    /// H⁺, symmetric.
    pub matrix: Matrix, // [m, m]
    /// How far, on rows of length 1, `HH⁺H` is from H and `HH⁺` from symmetric, relative to what is added up.
    pub gap: f64,
}

/// The pseudo-inverse of a Gramian `h` [m, m], however far apart the lengths of its rows are.
///
/// A row counts as dependent on others by its part outside their span relative to its own length (a squared part below
/// 4mε, as everywhere here), never relative to another row. Refused: what is no Gramian, and an inverse that overflows.
pub fn pinv(h: &Matrix) -> Result<PseudoInverse> {
    let rows = Gramian::new(h)?;
    let m = rows.len();
    // Independent rows P, the longest first: J = T J_P with T = I on P, and H⁺ = KᵀK with K = (J_P)⁺ᵀ T⁺.
    let basis = independent(&rows);
    let columns = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let width = rows.first().map_or(0, Vec::len);
        (0..width).map(|k| rows.iter().map(|row| row[k]).collect()).collect()
    };
    let chosen: Vec<Vec<f64>> = basis.iter().map(|i| rows.u[*i].clone()).collect();
    let targets: Vec<&[f64]> = rows.u.iter().map(Vec::as_slice).collect();
    let unit_vectors: Vec<Vec<f64>> =
        (0..m).map(|i| (0..m).map(|k| f64::from(u8::from(i == k))).collect()).collect();
    let mut matrix = Matrix::zeros(m, m);
    if !basis.is_empty() {
        let lost = || Error::internal("the rows of a Gramian lose their rank");
        let mut t = least_squares(&chosen, &targets).ok_or_else(lost)?; // [m, r]
        for (i, t) in t.iter_mut().enumerate() {
            match basis.iter().position(|k| *k == i) {
                Some(own) => t.iter_mut().enumerate().for_each(|(k, t)| *t = f64::from(u8::from(k == own))),
                None => t.iter_mut().zip(&basis).for_each(|(t, k)| *t *= rows.d[i] / rows.d[*k]),
            }
        }
        let units: Vec<&[f64]> = unit_vectors.iter().map(Vec::as_slice).collect();
        // where all rows are independent T is a permutation, and rounding in its inverse would be that of the longest row
        let dependent = (0..m).any(|i| rows.d[i] > 0.0 && !basis.contains(&i));
        let inverse = if dependent { least_squares(&columns(&t), &units) } else { Some(t) };
        let mut left = inverse.ok_or_else(lost)?; // [m, r], T⁺ transposed
        for (row, d) in left.iter_mut().zip(&rows.d) {
            let own = |k: usize| if *d > 0.0 { 1.0 / (rows.d[k] * rows.scale) } else { 0.0 };
            row.iter_mut().zip(&basis).for_each(|(x, k)| *x *= own(*k));
        }
        let left: Vec<&[f64]> = left.iter().map(Vec::as_slice).collect();
        let k = least_squares(&columns(&chosen), &left).ok_or_else(lost)?; // [m, r]
        matrix = Matrix::from_rows(&k)?.gram();
    }
    if matrix.data().iter().any(|x| !x.is_finite()) {
        return Err(Error::new("the pseudo-inverse of `h` is larger than a float holds")
            .help("scale the rows to lengths near 1"));
    }
    let gap = penrose(&rows, &matrix);
    certified("the pseudo-inverse", gap)?;
    Ok(PseudoInverse { matrix, gap })
}

/// The pseudo-inverse of a symmetric `h` [n, n] by its eigenvalues; those of size `rtol` of the largest, and less,
/// count as 0.
///
/// Refused: as [`eigh`], and an `rtol` outside [0, 1).
pub fn pinv_cut(h: &Matrix, rtol: f64) -> Result<Matrix> {
    if !(0.0..1.0).contains(&rtol) {
        return Err(
            Error::new(format!("`rtol` must be in [0, 1), found `{rtol}`")).help("give one such as 1e-12")
        );
    }
    let Eigen { values, vectors, .. } = eigh(h)?;
    let n = values.len();
    let least = rtol * values.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
    let mut inverse = Matrix::zeros(n, n);
    for k in (0..n).filter(|k| values[*k].abs() > least) {
        for i in 0..n {
            let left = vectors[(i, k)] / values[k];
            (0..n).for_each(|j| inverse[(i, j)] += left * vectors[(j, k)]);
        }
    }
    Ok(inverse)
}

/// A solution of a linear system, with its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The unknowns.
    pub x: Vec<f64>, // [n]
    /// `max_i |(Ax - b)_i| / (Σ_j |a_ij x_j| + |b_i|)`.
    pub gap: f64,
}

/// The x with `Ax = b`, for any square `a` [n, n] that has an inverse, whatever the scales of its rows and columns.
///
/// Refused: shapes that do not fit, values that are not finite, and a matrix that is singular up to rounding.
pub fn solve(a: &Matrix, b: &[f64]) -> Result<Solution> {
    let n = a.rows();
    if n == 0 || a.cols() != n {
        return Err(not_square("a", a));
    }
    check_entries("a", a)?;
    if b.len() != n {
        return Err(Error::new(format!("`b` must have {n} values, one a row of `a`, found {}", b.len())));
    }
    check_finite("b", b)?;
    let singular = || {
        Error::new("`a` is singular, so that `a x = b` has no solution or many")
            .help("use `pinv(h) * b` for a Gramian")
    };
    let (of_row, of_column) = scales(a);
    let scaled = DMatrix::from_fn(n, n, |i, j| a[(i, j)] / of_row[i] / of_column[j]);
    let lu = scaled.full_piv_lu();
    let pivots = lu.u().diagonal();
    if pivots.iter().any(|p| p.abs() <= 4.0 * n as f64 * f64::EPSILON * pivots[0].abs()) {
        return Err(singular());
    }
    let rhs = DVector::from_fn(n, |i, _| b[i] / of_row[i]);
    let scaled_x = lu.solve(&rhs).ok_or_else(singular)?;
    let x: Vec<f64> = scaled_x.iter().zip(&of_column).map(|(x, s)| x / s).collect();
    if x.iter().any(|x| !x.is_finite()) {
        return Err(Error::new("the solution of `a x = b` is larger than a float holds")
            .help("scale `b` and the columns of `a` to lengths near 1"));
    }
    let each = |i: usize| {
        let terms: Vec<f64> =
            (0..n).map(|j| a[(i, j)] / of_row[i] / of_column[j] * (x[j] * of_column[j])).collect();
        let b = b[i] / of_row[i];
        let size = terms.iter().map(|t| t.abs()).sum::<f64>() + b.abs();
        if size > 0.0 { (terms.iter().sum::<f64>() - b).abs() / size } else { 0.0 }
    };
    let gap = (0..n).map(each).fold(0.0, f64::max);
    certified("the solution of `a x = b`", gap)?;
    Ok(Solution { x, gap })
}

/// Divisors of the rows and of the columns of a square matrix that leave entries near 1, the largest of each column
/// between ½ and 2: powers of two, so that nothing is rounded.
///
/// Logarithms of the entries that are not 0 are fitted by a number a row plus a number a column, in least squares (Curtis and Reid
/// 1972), by turns; one turn would do were none 0. Largest entries alone are no such fit: a small entry in a large column
/// hides how small its row is.
fn scales(a: &Matrix) -> (Vec<f64>, Vec<f64>) {
    const TURNS: usize = 20;
    let n = a.rows();
    let log = DMatrix::from_fn(n, n, |i, j| a[(i, j)].abs().log2());
    let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; n]);
    let finite = |values: Vec<f64>| values.into_iter().filter(|x| x.is_finite()).collect::<Vec<f64>>();
    let mean = |x: Vec<f64>| x.iter().sum::<f64>() / x.len().max(1) as f64;
    let most = |x: Vec<f64>| x.into_iter().reduce(f64::max).unwrap_or(0.0);
    for turn in 0..=TURNS {
        // in the end no entry is far above 1
        let fit: fn(Vec<f64>) -> f64 = if turn < TURNS { mean } else { most };
        rows = (0..n).map(|i| fit(finite((0..n).map(|j| log[(i, j)] - columns[j]).collect()))).collect();
        columns = (0..n).map(|j| fit(finite((0..n).map(|i| log[(i, j)] - rows[i]).collect()))).collect();
    }
    let powers =
        |logs: Vec<f64>| logs.into_iter().map(|log| log.round().clamp(-1022.0, 1023.0).exp2()).collect();
    (powers(rows), powers(columns))
}

/// As many rows as the rank, each the one with the most outside the span of those before.
fn independent(rows: &Gramian) -> Vec<usize> {
    let mut left = rows.u.clone();
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < rows.rank {
        let open = (0..rows.len()).filter(|i| !chosen.contains(i) && dot(&left[*i], &left[*i]) > rows.noise);
        let length = |i: &usize| rows.d[*i] * dot(&left[*i], &left[*i]).sqrt();
        let Some(next) = open.max_by(|i, j| length(i).total_cmp(&length(j)).then(j.cmp(i))) else { break };
        let (direction, _) = super::matrix::unit(left[next].clone());
        left.iter_mut().for_each(|v| {
            let part = dot(v, &direction);
            v.iter_mut().zip(&direction).for_each(|(v, d)| *v -= part * d);
        });
        chosen.push(next);
    }
    chosen
}

/// The gap of a pseudo-inverse, on unit rows: with P = D H⁺ D it is `CPC = C`, and `D CP D⁻¹` symmetric.
fn penrose(rows: &Gramian, inverse: &Matrix) -> f64 {
    let m = rows.len();
    let c = DMatrix::from_fn(m, m, |i, j| dot(&rows.u[i], &rows.u[j]));
    let length = |i: usize| rows.d[i] * rows.scale;
    let p = DMatrix::from_fn(m, m, |i, j| inverse[(i, j)] * length(i) * length(j));
    let (cp, size) = (&c * &p, c.abs() * p.abs());
    let off = (&cp * &c - &c).amax() / (&size * c.abs()).amax().max(f64::MIN_POSITIVE);
    let skew = |i: usize, j: usize| {
        let (long, short) = if rows.d[i] > rows.d[j] { (i, j) } else { (j, i) };
        let ratio = if rows.d[short] > 0.0 { rows.d[short] / rows.d[long] } else { 0.0 };
        (cp[(long, short)] - ratio * ratio * cp[(short, long)]).abs()
    };
    let skew = (0..m).flat_map(|i| (0..i).map(move |j| (i, j))).fold(0.0_f64, |a, (i, j)| a.max(skew(i, j)));
    off.max(skew / size.amax().max(f64::MIN_POSITIVE))
}

fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |a, x| a.max(x.abs()))
}

/// The power of two below `x`, 1 for 0.
fn power_of_two(x: f64) -> f64 {
    if x < f64::MIN_POSITIVE { 1.0 } else { f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000) }
}

/// The largest entry by size; refused: one that is not finite.
fn check_entries(name: &str, a: &Matrix) -> Result<f64> {
    (0..a.rows()).try_for_each(|i| check_finite(&format!("{name}[{i}]"), a.row(i)))?;
    Ok(largest(a.data()))
}

fn not_square(name: &str, a: &Matrix) -> Error {
    Error::new(format!("`{name}` must be square, found {} rows and {} columns", a.rows(), a.cols()))
}

fn certified(what: &str, gap: f64) -> Result<()> {
    if gap <= UNCERTIFIED {
        return Ok(());
    }
    Err(Error::internal(format!("a relative residual of `{gap:e}` is left in {what}")))
}
