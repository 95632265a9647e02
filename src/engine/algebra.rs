//! The algebra of gradient rows by tensor operations, on the device that holds them.
//!
//! As in [`super::gradients`], products are summed over short runs in the precision of the rows, and the runs in f64.

use std::ops::Range;

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::math::Matrix;

/// Scalars of a row that are summed in the working precision.
const LANE: usize = 1 << 10;
/// Scalars of a row that are copied together.
const BLOCK: usize = 1 << 24;

/// The Gramian of the columns in `ranges`, [m, m].
pub(super) fn gramian(rows: &Tensor, ranges: Vec<Range<usize>>) -> Result<Matrix> {
    let m = rows.dim(0)?;
    let mut h = Matrix::zeros(m, m);
    for range in ranges {
        for start in range.clone().step_by(BLOCK) {
            let block = rows.narrow(1, start, BLOCK.min(range.end - start))?;
            for part in runs(&block)? {
                let products = part.matmul(&part.t()?)?.to_dtype(DType::F64)?.sum(0)?.to_vec2::<f64>()?;
                for (i, row) in products.iter().enumerate() {
                    row.iter().enumerate().for_each(|(j, product)| h[(i, j)] += product);
                }
            }
        }
    }
    Ok(h)
}

/// Columns [m, n] as runs of one length, [runs, m, LANE], and what is left, [1, m, rest].
fn runs(block: &Tensor) -> Result<Vec<Tensor>> {
    let (m, n) = block.dims2()?;
    let whole = n / LANE * LANE;
    let mut parts = Vec::with_capacity(2);
    if whole > 0 {
        let lanes = block.narrow(1, 0, whole)?.contiguous()?.reshape((m, whole / LANE, LANE))?;
        parts.push(lanes.transpose(0, 1)?.contiguous()?);
    }
    if whole < n {
        parts.push(block.narrow(1, whole, n - whole)?.contiguous()?.unsqueeze(0)?);
    }
    Ok(parts)
}

/// ⟨a, b⟩.
pub(super) fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    let mut total = 0.0;
    let n = a.dim(0)?;
    for start in (0..n).step_by(BLOCK) {
        let size = BLOCK.min(n - start);
        let products = (a.narrow(0, start, size)? * b.narrow(0, start, size)?)?;
        for part in runs(&products.unsqueeze(0)?)? {
            total += part.sum(2)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        }
    }
    Ok(total)
}

/// Jᵀ alpha, [P].
pub(super) fn combine(rows: &Tensor, alpha: &[f64]) -> Result<Tensor> {
    let alpha = Tensor::from_slice(alpha, (1, alpha.len()), rows.device())?.to_dtype(rows.dtype())?;
    Ok(alpha.matmul(rows)?.squeeze(0)?)
}

/// Where the first part that holds a NaN or an infinity begins; parts begin at `offsets`, the last of which is the end.
pub(super) fn first_not_finite(values: &Tensor, offsets: &[usize]) -> Result<Option<usize>> {
    // 0 · x is 0 for every finite x, so the sum is NaN where one is not
    let finite = |part: &Tensor| -> Result<bool> {
        Ok(part.affine(0.0, 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? == 0.0)
    };
    if finite(values)? {
        return Ok(None);
    }
    for part in offsets.windows(2).filter(|part| part[0] < part[1]) {
        if !finite(&values.narrow(0, part[0], part[1] - part[0])?)? {
            return Ok(Some(part[0]));
        }
    }
    Ok(None)
}
