//! m gradient rows by tensor operations, on the device of the model: the twin of [`super::accumulate`].
//!
//! gᵢ = Σₖ U[i,k] hₖ is one product for each objective, of the rows of dy times the weight of their segment:
//! gᵢ = (sᵢ ∘ dy)ᵀ x with sᵢ[t] = U[i,k] for the rows t of segment k.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::accumulate::Rows;
use crate::error::{Error, Result};
use crate::model::{Axis, Matrix, ParameterSpace, Sink};

/// Adds up the m rows of a Jacobian, [m, P], in place on a device.
pub(crate) struct TensorRows {
    space: Arc<ParameterSpace>,
    rows: Tensor,          // [m, P]
    tokens: Vec<Segments>, // a seed each
    scored: Vec<Segments>,
    seed: usize,
    /// An operation handed over slices, which are for [`super::accumulate`].
    misled: bool,
}

/// The segments along one axis, and the weight of each row under each objective.
struct Segments {
    ranges: Vec<Range<usize>>,
    scales: Tensor, // [m, rows]
}

impl Segments {
    fn new(ranges: Vec<Range<usize>>, u: &[f32], m: usize, device: &Device) -> Result<Self> {
        // never without a row: CUDA has no empty tensors
        let rows = ranges.last().map_or(1, |range| range.end);
        let mut scales = vec![0f32; m * rows];
        for (scales, u) in scales.chunks_exact_mut(rows).zip(u.chunks_exact(ranges.len().max(1))) {
            ranges.iter().zip(u).for_each(|(range, u)| scales[range.clone()].fill(*u));
        }
        Ok(Self { ranges, scales: Tensor::from_vec(scales, (m, rows), device)? })
    }

    /// Rows [rows, …] times their weights under one objective.
    fn weigh(&self, objective: usize, rows: &Tensor) -> Result<Tensor> {
        let scale = self.scales.narrow(0, objective, 1)?.contiguous()?.reshape((rows.dim(0)?, 1))?;
        Ok(rows.broadcast_mul(&scale)?)
    }
}

impl TensorRows {
    /// Rows of zeros.
    pub(crate) fn new(space: Arc<ParameterSpace>, m: usize, device: &Device) -> Result<Self> {
        let rows = Tensor::zeros((m, space.size()), DType::F32, device)?;
        Ok(Self { space, rows, tokens: Vec::new(), scored: Vec::new(), seed: 0, misled: false })
    }

    fn along(&self, axis: Axis) -> &Segments {
        match axis {
            Axis::Tokens => &self.tokens[self.seed],
            Axis::Scored => &self.scored[self.seed],
        }
    }

    fn objectives(&self) -> usize {
        self.rows.dims()[0]
    }

    /// Adds `block` to row `objective` from column `at` on.
    fn add(&self, objective: usize, at: usize, block: &Tensor) -> Result<()> {
        let row = self.rows.narrow(0, objective, 1)?;
        let size = block.elem_count();
        let sum = (row.narrow(1, at, size)? + block.reshape((1, size))?)?;
        Ok(row.slice_set(&sum, 1, at)?)
    }
}

impl Rows for TensorRows {
    fn weigh(
        &mut self,
        u: Vec<Vec<f32>>,
        tokens: Vec<Range<usize>>,
        scored: Vec<Range<usize>>,
    ) -> Result<()> {
        let (m, device) = (self.objectives(), self.rows.device().clone());
        let of = |ranges: &[Range<usize>]| {
            u.iter().map(|u| Segments::new(ranges.to_vec(), u, m, &device)).collect::<Result<Vec<_>>>()
        };
        (self.tokens, self.scored, self.seed) = (of(&tokens)?, of(&scored)?, 0);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        if self.misled {
            return Err(Error::internal("an operation of the fused kernels in a generic backward"));
        }
        Ok(self.rows)
    }
}

impl Sink for TensorRows {
    fn term(&mut self, seed: usize) {
        self.seed = seed;
    }

    fn segments(&self, axis: Axis) -> &[Range<usize>] {
        &self.along(axis).ranges
    }

    fn product(&mut self, _: usize, _: usize, _: Matrix, _: Matrix, _: Axis) {
        self.misled = true;
    }

    fn sums(&mut self, _: usize, _: &[f32]) {
        self.misled = true;
    }

    fn embedding(&mut self, _: usize, _: &[u32], _: &[f32]) {
        self.misled = true;
    }

    fn product_of(
        &mut self,
        parameter: usize,
        first_row: usize,
        dy: &Tensor,
        x: &Tensor,
        axis: Axis,
    ) -> Result<()> {
        let at = self.space.offsets[parameter] + first_row * x.dim(1)?;
        for i in 0..self.objectives() {
            let weighed = self.along(axis).weigh(i, dy)?;
            self.add(i, at, &weighed.t()?.matmul(x)?)?;
        }
        Ok(())
    }

    fn sum_of(&mut self, parameter: usize, rows: &Tensor, axis: Axis) -> Result<()> {
        let sums = self.along(axis).scales.matmul(rows)?; // [m, numel]
        for i in 0..self.objectives() {
            self.add(i, self.space.offsets[parameter], &sums.narrow(0, i, 1)?)?;
        }
        Ok(())
    }

    fn embedding_of(&mut self, parameter: usize, tokens: &[u32], dy: &Tensor) -> Result<()> {
        let (at, size) = (self.space.offsets[parameter], self.space.shapes[parameter].iter().product());
        let tokens = Tensor::from_slice(tokens, tokens.len(), dy.device())?;
        for i in 0..self.objectives() {
            let row = self.rows.narrow(0, i, 1)?;
            let old =
                row.narrow(1, at, size)?.contiguous()?.reshape(self.space.shapes[parameter].as_slice())?;
            let new = old.index_add(&tokens, &self.along(Axis::Tokens).weigh(i, dy)?, 0)?;
            row.slice_set(&new.reshape((1, size))?, 1, at)?;
        }
        Ok(())
    }
}
