//! An optimiser's state as tensors, on the device of the model.

use candle_core::{DType, Tensor};

use super::optimizer::Extent;
use crate::error::Result;
use crate::model::Weights;
use crate::model::values::{host, values};

/// Scalars that are summed in f32 before the sum moves to f64.
const LANE: usize = 1 << 10;

/// The vectors of a rule, in parts of the shapes of the parameters. A step puts new tensors in the place of the old, so
/// that copies share them.
#[derive(Debug, Clone)]
pub(super) struct TensorState {
    parts: Vec<Vec<Tensor>>, // [parameter][vector]
}

impl TensorState {
    /// Zeros.
    pub(super) fn zeros(vectors: usize, weights: &Weights) -> Result<Self> {
        let part = |tensor: &Tensor| (0..vectors).map(|_| Ok(tensor.zeros_like()?)).collect();
        let parts = weights.parameters().iter().map(|p| part(&p.tensor)).collect::<Result<_>>()?;
        Ok(Self { parts })
    }

    /// From vectors over all parameters.
    pub(super) fn of_numbers(vectors: &[Vec<f32>], weights: &Weights) -> Result<Self> {
        let offsets = &weights.space().offsets;
        let part = |(i, tensor): (usize, &Tensor)| {
            let of = |vector: &Vec<f32>| {
                let part = &vector[offsets[i]..offsets[i + 1]];
                Ok(Tensor::from_slice(part, tensor.shape(), tensor.device())?)
            };
            vectors.iter().map(of).collect()
        };
        let tensors = weights.parameters().iter().map(|p| &p.tensor).enumerate();
        Ok(Self { parts: tensors.map(part).collect::<Result<_>>()? })
    }

    /// As vectors over all parameters, on the CPU.
    pub(super) fn numbers(&self) -> Result<Vec<Vec<f32>>> {
        let vectors = self.parts.first().map_or(0, Vec::len);
        let mut numbers = vec![Vec::new(); vectors];
        for part in &self.parts {
            for (numbers, tensor) in numbers.iter_mut().zip(part) {
                numbers.extend_from_slice(&values::<f32>(&host(tensor)?)?);
            }
        }
        Ok(numbers)
    }

    /// The state of one parameter.
    pub(super) fn of(&mut self, parameter: usize) -> &mut [Tensor] {
        &mut self.parts[parameter]
    }

    /// What tells the states of two optimisers apart.
    pub(super) fn shapes(&self) -> Vec<Vec<&[usize]>> {
        self.parts.iter().map(|part| part.iter().map(Tensor::dims).collect()).collect()
    }
}

/// Sum of squares and largest magnitude of a tensor; the sum is finite exactly when all numbers are.
pub(super) fn extent_of(tensor: &Tensor) -> Result<Extent> {
    let flat = tensor.flatten_all()?;
    let size = flat.dim(0)?;
    if size == 0 {
        return Ok(Extent::default());
    }
    let largest = flat.abs()?.max(0)?.to_scalar::<f32>()?;
    // squares of the numbers themselves could overflow
    let unit = if largest > 0.0 { f64::from(largest) } else { 1.0 };
    let squares = (&flat / unit)?.sqr()?;
    let total = |x: Tensor| x.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>();
    let (whole, mut sum) = (size / LANE * LANE, 0.0);
    // CUDA refuses work on nothing
    if whole > 0 {
        sum += total(squares.narrow(0, 0, whole)?.reshape((whole / LANE, LANE))?.sum(1)?)?;
    }
    if whole < size {
        sum += total(squares.narrow(0, whole, size - whole)?)?;
    }
    Ok(Extent { squares: sum * unit * unit, largest })
}
