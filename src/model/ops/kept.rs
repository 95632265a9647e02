//! A weight matrix as it is kept: f32 in place, or bf16 that is widened a few rows at a time.

use std::ops::Range;

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::super::values::{Values, values};
use super::gemm::View;
use super::simd::dispatch;
use crate::error::Result;

/// Numbers that are widened together: they stay in cache until they are used.
const TILE: usize = 1 << 19;

/// The rows of a weight, [out, width].
pub(crate) struct Kept<'a> {
    values: Stored<'a>,
    width: usize,
}

enum Stored<'a> {
    F32(Values<'a, f32>),
    Bf16(Values<'a, bf16>),
}

impl<'a> Kept<'a> {
    /// The rows of `tensor`, [out, width].
    ///
    /// # Errors
    /// A tensor of another type, or one that is not contiguous on the CPU.
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Self> {
        let width = tensor.dims().last().copied().unwrap_or(1);
        let values = match tensor.dtype() {
            DType::BF16 => Stored::Bf16(values(tensor)?),
            _ => Stored::F32(values(tensor)?),
        };
        Ok(Self { values, width })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        let count = match &self.values {
            Stored::F32(values) => values.len(),
            Stored::Bf16(values) => values.len(),
        };
        count / self.width.max(1)
    }

    /// Some rows as f32; `scratch` holds them where they are widened.
    pub(crate) fn rows<'s>(&'s self, rows: Range<usize>, scratch: &'s mut Vec<f32>) -> View<'s> {
        let range = rows.start * self.width..rows.end * self.width;
        match &self.values {
            Stored::F32(values) => View::new(&values[range], rows.len(), self.width),
            Stored::Bf16(values) => {
                scratch.resize(range.len(), 0.0);
                widen(&values[range], scratch);
                View::new(scratch, rows.len(), self.width)
            }
        }
    }

    /// All rows in order, `each(first row, rows)`: at once where they are f32.
    pub(crate) fn for_rows(&self, mut each: impl FnMut(usize, View)) {
        let step = match &self.values {
            Stored::F32(_) => self.len(),
            Stored::Bf16(_) => TILE / self.width.max(1),
        };
        let mut scratch = Vec::new();
        for first in (0..self.len()).step_by(step.max(1)) {
            each(first, self.rows(first..(first + step.max(1)).min(self.len()), &mut scratch));
        }
    }

    /// Copies one row.
    pub(crate) fn copy_row(&self, row: usize, to: &mut [f32]) {
        let range = row * self.width..(row + 1) * self.width;
        match &self.values {
            Stored::F32(values) => to.copy_from_slice(&values[range]),
            Stored::Bf16(values) => to.iter_mut().zip(&values[range]).for_each(|(y, x)| *y = x.to_f32()),
        }
    }
}

fn widen(from: &[bf16], to: &mut [f32]) {
    to.par_chunks_mut(1 << 14).zip(from.par_chunks(1 << 14)).for_each(|(to, from)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, x) in to.iter_mut().zip(from) {
                    *y = f32::from_bits(u32::from(x.to_bits()) << 16);
                }
            },
        );
    });
}
