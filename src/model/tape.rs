//! A tape of its own: one forward, then a backward whose parameter gradients go wherever the caller wants.
//!
//! candle's autograd would compute one gradient row a backward. Here the backward carries one seed for all
//! objectives, and hands each operation's inputs and output gradients to a [`Sink`], which weighs them apart by
//! segment: m rows for the price of one activation backward.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::ops::gemm::View;
use super::values::{host, tensor, values};
use crate::error::{Error, Result};

/// Which rows an operation worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Token rows, [T].
    Tokens,
    /// Scored positions, [N].
    Scored,
}

/// Receives what the backward learns about parameters.
///
/// Rows of an operation fall into segments that share nothing; for every segment the sink sees the gradient
/// under the seed, and combines those as it likes.
pub trait Sink {
    /// What follows belongs to the seed of this number.
    fn term(&mut self, _seed: usize) {}

    /// The segments, as ranges of rows along `axis`, [K].
    fn segments(&self, axis: Axis) -> &[Range<usize>];

    /// y = x Wᵀ, W from row `first_row` of the parameter: the gradient of a segment is dyᵀ x over its rows.
    fn product(&mut self, parameter: usize, first_row: usize, dy: Matrix, x: Matrix, axis: Axis);

    /// The gradient of each segment as computed by the operation, [K, numel].
    fn sums(&mut self, parameter: usize, sums: &[f32]);

    /// y = W[token]: the gradient of a segment is its rows of dy added up by token.
    fn embedding(&mut self, parameter: usize, tokens: &[u32], dy: &[f32]);

    /// [`Sink::product`] of tensors on any device, contiguous.
    ///
    /// # Errors
    /// A device that fails.
    fn product_of(
        &mut self,
        parameter: usize,
        first_row: usize,
        dy: &Tensor,
        x: &Tensor,
        axis: Axis,
    ) -> Result<()> {
        let (dy, x) = (host(dy)?, host(x)?);
        let ((rows, out), (_, width)) = (dy.dims2()?, x.dims2()?);
        let (dy, x) = (values::<f32>(&dy)?, values::<f32>(&x)?);
        let (dy, x) = (View::new(&dy, rows, out), View::new(&x, rows, width));
        self.product(parameter, first_row, Matrix(dy), Matrix(x), axis);
        Ok(())
    }

    /// The gradient of each segment is the sum of its rows, [rows, numel].
    ///
    /// # Errors
    /// A device that fails.
    fn sum_of(&mut self, parameter: usize, rows: &Tensor, axis: Axis) -> Result<()> {
        let rows = host(rows)?;
        let width = rows.dim(1)?;
        let rows = values::<f32>(&rows)?;
        let segments = self.segments(axis);
        let mut sums = vec![0f32; segments.len() * width];
        for (sum, segment) in sums.chunks_exact_mut(width).zip(segments) {
            let rows = rows[segment.start * width..segment.end * width].chunks_exact(width);
            rows.for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        }
        self.sums(parameter, &sums);
        Ok(())
    }

    /// [`Sink::embedding`] of a tensor on any device, [T, D].
    ///
    /// # Errors
    /// A device that fails.
    fn embedding_of(&mut self, parameter: usize, tokens: &[u32], dy: &Tensor) -> Result<()> {
        self.embedding(parameter, tokens, &values(&host(dy)?)?);
        Ok(())
    }
}

/// Rows of an operation, as a strided view.
#[derive(Clone, Copy)]
pub struct Matrix<'a>(pub(crate) View<'a>);

/// The gradient of an operation's input from that of its output, where one is wanted; parameter gradients go to
/// the sink.
pub(crate) type Backward = Box<dyn Fn(&Tensor, &mut dyn Sink) -> Result<Option<Tensor>> + Send + Sync>;

/// Computes a section again, on a tape of its own; the leaf of that is the section's input.
pub(crate) type Replay = Box<dyn Fn() -> Result<(Tape, Act)> + Send + Sync>;

/// Computes an activation again from what its operation has saved, to the same bits.
pub(crate) type Again = Arc<dyn Fn() -> Result<Tensor> + Send + Sync>;

/// An activation that a backward needs.
pub(crate) enum Saved {
    Kept(Tensor),
    Again(Again),
}

impl Saved {
    pub(crate) fn get(&self) -> Result<Tensor> {
        match self {
            Self::Kept(tensor) => Ok(tensor.clone()),
            Self::Again(compute) => compute(),
        }
    }
}

/// An activation and its place on the tape, if it depends on something that is trained.
#[derive(Clone)]
pub(crate) struct Act {
    pub(crate) tensor: Tensor,
    id: Option<usize>,
    again: Option<Again>,
}

impl Act {
    /// An activation that nothing is learnt from.
    pub(crate) fn constant(tensor: Tensor) -> Self {
        Self { tensor, id: None, again: None }
    }

    /// The same, which later operations need not keep: what its own has saved suffices to compute it again.
    pub(crate) fn computed_by(self, again: impl Fn() -> Result<Tensor> + Send + Sync + 'static) -> Self {
        // of an operation that saved nothing nothing can be computed without keeping more
        let again = (!self.is_constant()).then(|| Arc::new(again) as Again);
        Self { again, ..self }
    }

    /// What a backward keeps of it.
    pub(crate) fn saved(&self) -> Saved {
        self.again.clone().map_or_else(|| Saved::Kept(self.tensor.clone()), Saved::Again)
    }

    /// True for one that nothing is learnt from.
    pub(crate) fn is_constant(&self) -> bool {
        self.id.is_none()
    }
}

enum Step {
    Op { input: Option<usize>, output: usize, backward: Backward },
    Add { a: Option<usize>, b: Option<usize>, output: usize },
    Section { input: Option<usize>, output: usize, replay: Replay },
}

/// The operations of one forward pass.
pub(crate) struct Tape {
    steps: Vec<Step>,
    nodes: usize,
    leaf: Option<usize>,
}

impl Tape {
    pub(crate) fn new() -> Self {
        Self { steps: Vec::new(), nodes: 0, leaf: None }
    }

    /// An input whose gradient is wanted.
    pub(crate) fn leaf(&mut self, tensor: Tensor) -> Act {
        let id = self.node();
        self.leaf = Some(id);
        Act { tensor, id: Some(id), again: None }
    }

    fn node(&mut self) -> usize {
        self.nodes += 1;
        self.nodes - 1
    }

    pub(crate) fn op(&mut self, input: &Act, tensor: Tensor, backward: Backward) -> Act {
        let output = self.node();
        self.steps.push(Step::Op { input: input.id, output, backward });
        Act { tensor, id: Some(output), again: None }
    }

    pub(crate) fn add(&mut self, a: &Act, b: &Act, sum: Tensor) -> Act {
        if a.is_constant() && b.is_constant() {
            return Act::constant(sum);
        }
        let output = self.node();
        self.steps.push(Step::Add { a: a.id, b: b.id, output });
        Act { tensor: sum, id: Some(output), again: None }
    }

    /// Several operations of which only the input is kept.
    pub(crate) fn section(&mut self, input: &Act, tensor: Tensor, replay: Replay) -> Act {
        let output = self.node();
        self.steps.push(Step::Section { input: input.id, output, replay });
        Act { tensor, id: Some(output), again: None }
    }

    /// The gradient of the leaf, if there is one, for each of the `seeds` at `output`. Each operation frees what it
    /// saved once it has served all of them.
    pub(crate) fn backward(
        mut self,
        output: &Act,
        seeds: Vec<Tensor>,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Tensor>> {
        let start = |seed| {
            let mut gradients: Vec<Option<Tensor>> = vec![None; self.nodes];
            if let Some(output) = output.id {
                gradients[output] = Some(seed);
            }
            gradients
        };
        let mut gradients: Vec<Vec<Option<Tensor>>> = seeds.into_iter().map(start).collect();
        while let Some(step) = self.steps.pop() {
            Self::back(step, &mut gradients, sink)?;
        }
        let Some(leaf) = self.leaf else { return Ok(Vec::new()) };
        let reached = |gradients: &mut Vec<Option<Tensor>>| {
            gradients[leaf].take().ok_or_else(|| Error::internal("the tape's input was not reached"))
        };
        gradients.iter_mut().map(reached).collect()
    }

    fn back(step: Step, gradients: &mut [Vec<Option<Tensor>>], sink: &mut dyn Sink) -> Result<()> {
        match step {
            Step::Op { input, output, backward } => {
                for (seed, gradients) in gradients.iter_mut().enumerate() {
                    let Some(dy) = gradients[output].take() else { continue };
                    sink.term(seed);
                    let dx = backward(&dy, sink)?;
                    drop(dy);
                    put(gradients, input, dx)?;
                }
            }
            Step::Add { a, b, output } => {
                for gradients in gradients {
                    let Some(dy) = gradients[output].take() else { continue };
                    put(gradients, a, Some(dy.clone()))?;
                    put(gradients, b, Some(dy))?;
                }
            }
            Step::Section { input, output, replay } => {
                // what one seed reaches all of them reach
                let dys: Vec<Tensor> = gradients.iter_mut().filter_map(|g| g[output].take()).collect();
                if dys.is_empty() {
                    return Ok(());
                }
                let (tape, y) = replay()?;
                // the tape holds the input while it needs it
                drop(replay);
                let dxs = tape.backward(&y, dys, sink)?;
                for (gradients, dx) in gradients.iter_mut().zip(dxs) {
                    put(gradients, input, Some(dx))?;
                }
            }
        }
        Ok(())
    }
}

fn put(gradients: &mut [Option<Tensor>], node: Option<usize>, gradient: Option<Tensor>) -> Result<()> {
    let (Some(node), Some(gradient)) = (node, gradient) else { return Ok(()) };
    gradients[node] = Some(match gradients[node].take() {
        None => gradient,
        Some(present) if !present.device().is_cpu() => (present + gradient)?,
        Some(present) => {
            let sum = super::ops::norm::add(&values(&present)?, &values(&gradient)?);
            tensor(sum, gradient.shape())?
        }
    });
    Ok(())
}
