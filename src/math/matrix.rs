//! A small dense matrix.

use std::ops::{Index, IndexMut};

use serde::Serialize;

use crate::error::{Error, Result};

/// A row-major matrix of f64.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>, // [rows, cols]
}

impl Matrix {
    /// A matrix [rows, cols] of `data`, row after row; refused where the number of values differs.
    pub fn new(rows: usize, cols: usize, data: Vec<f64>) -> Result<Self> {
        if rows.checked_mul(cols) != Some(data.len()) {
            return Err(Error::new(format!(
                "a matrix of {rows} rows and {cols} columns cannot hold {} values",
                data.len()
            )));
        }
        Ok(Self { rows, cols, data })
    }

    /// A matrix of the given rows; refused where they differ in length.
    pub fn from_rows(rows: &[Vec<f64>]) -> Result<Self> {
        let cols = rows.first().map_or(0, Vec::len);
        if let Some(i) = rows.iter().position(|r| r.len() != cols) {
            return Err(Error::new(format!(
                "row {i} of a matrix has {} values where row 0 has {cols}",
                rows[i].len()
            ))
            .help("give all rows the same length"));
        }
        Ok(Self { rows: rows.len(), cols, data: rows.concat() })
    }

    /// Zeros, [rows, cols].
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `i`, [cols].
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// All values, row after row.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The product with a vector [cols]: [rows]; refused where the lengths differ.
    pub fn mul_vec(&self, x: &[f64]) -> Result<Vec<f64>> {
        if x.len() != self.cols {
            return Err(Error::new(format!(
                "a matrix of {} columns cannot multiply a vector of {} values",
                self.cols,
                x.len()
            )));
        }
        Ok((0..self.rows).map(|i| dot(self.row(i), x)).collect())
    }

    /// The product with a matrix [cols, n]: [rows, n]; refused where the inner sizes differ.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        if self.cols != other.rows {
            return Err(Error::new(format!(
                "a matrix of {} columns cannot multiply one of {} rows",
                self.cols, other.rows
            )));
        }
        let mut product = Self::zeros(self.rows, other.cols);
        for i in 0..self.rows {
            for k in 0..self.cols {
                (0..other.cols).for_each(|j| product[(i, j)] += self[(i, k)] * other[(k, j)]);
            }
        }
        Ok(product)
    }

    /// Rows as columns: [cols, rows].
    pub fn transposed(&self) -> Self {
        let mut turned = Self::zeros(self.cols, self.rows);
        (0..self.rows).for_each(|i| (0..self.cols).for_each(|j| turned[(j, i)] = self[(i, j)]));
        turned
    }

    /// `v` on the diagonal and zeros elsewhere, [n, n].
    pub fn from_diagonal(v: &[f64]) -> Self {
        let mut diagonal = Self::zeros(v.len(), v.len());
        v.iter().enumerate().for_each(|(i, x)| diagonal[(i, i)] = *x);
        diagonal
    }

    /// The Gramian of the rows: [rows, rows].
    pub fn gram(&self) -> Self {
        let mut h = Self::zeros(self.rows, self.rows);
        for i in 0..self.rows {
            for j in 0..=i {
                let product = dot(self.row(i), self.row(j));
                h[(i, j)] = product;
                h[(j, i)] = product;
            }
        }
        h
    }
}

impl Index<(usize, usize)> for Matrix {
    type Output = f64;

    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.data[i * self.cols + j]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.data[i * self.cols + j]
    }
}

/// `Σ a_i b_i`.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `Σ x_i rows_i`, [dim].
pub(super) fn combine(x: &[f64], rows: &[Vec<f64>], dim: usize) -> Vec<f64> {
    let mut sum = vec![0.0; dim];
    for (x, row) in x.iter().zip(rows).filter(|(x, _)| **x != 0.0) {
        sum.iter_mut().zip(row).for_each(|(s, r)| *s += x * r);
    }
    sum
}

/// `v/‖v‖` and `‖v‖`, whatever the scale of v; zero stays zero.
pub(super) fn unit(mut v: Vec<f64>) -> (Vec<f64>, f64) {
    let largest = v.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
    if largest == 0.0 {
        return (v, 0.0);
    }
    v.iter_mut().for_each(|x| *x /= largest);
    let length = dot(&v, &v).sqrt();
    v.iter_mut().for_each(|x| *x /= length);
    (v, length * largest)
}
