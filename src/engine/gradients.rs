//! m gradient rows over all parameters, and the algebra on them.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::algebra;
use super::blocks::By;
use super::log_probs::LogProbs;
use super::pairs::{Factors, several};
use super::unformed::Unformed;
use crate::error::{Error, Place, Result};
use crate::math::Matrix;
use crate::model::ops::simd::{all_finite, combine, dispatch, dot, dots};
use crate::model::values::{Values, host, values};
use crate::model::{Kernels, ParameterSpace, reserve};

/// Scalars that one task of a reduction works on; fixed, so that sums do not depend on the thread count.
pub(super) const BLOCK: usize = 1 << 16;
/// Scalars summed in the working precision before the sum moves to f64.
const LANE: usize = 1 << 10;

/// The rows gᵢ = ∇Lᵢ, J [m, P], one a named objective. Copies share the rows.
#[derive(Debug, Clone)]
pub struct Gradients {
    names: Arc<Vec<String>>,
    space: Arc<ParameterSpace>,
    rows: Arc<OnceLock<Tensor>>, // [m, P]
    /// What the rows are formed from, where they were not formed at once.
    unformed: Option<Arc<Unformed>>,
    losses: Arc<Vec<f64>>,
    terms: usize,
    gramian: Arc<OnceLock<Matrix>>,
    layers: Arc<OnceLock<Vec<(String, Matrix)>>>,
    factors: Option<Arc<Factors>>,
    pairs: Arc<OnceLock<Matrix>>,
    kernels: Kernels,
}

/// One vector over all parameters, [P]. Copies share the values.
#[derive(Debug, Clone)]
pub struct Gradient {
    space: Arc<ParameterSpace>,
    values: Tensor, // [P]
    kernels: Kernels,
}

impl Gradients {
    /// Rows as computed by the engine: `rows` is [m, P], contiguous; `losses` [m]; `terms` the number Q of
    /// activation backwards.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn new(
        names: Arc<Vec<String>>,
        space: Arc<ParameterSpace>,
        rows: Tensor,
        losses: Vec<f64>,
        terms: usize,
    ) -> Result<Self> {
        let expected = (names.len(), space.size());
        if rows.dims2()? != expected || losses.len() != names.len() || !rows.is_contiguous() {
            return Err(Error::internal(format!(
                "gradient rows {:?} and {} losses for {expected:?}",
                rows.dims(),
                losses.len()
            )));
        }
        let kernels = Kernels::of(rows.device());
        Ok(Self::of(names, space, (Arc::new(OnceLock::from(rows)), kernels), losses, terms))
    }

    fn of(
        names: Arc<Vec<String>>,
        space: Arc<ParameterSpace>,
        (rows, kernels): (Arc<OnceLock<Tensor>>, Kernels),
        losses: Vec<f64>,
        terms: usize,
    ) -> Self {
        Self {
            names,
            space,
            kernels,
            rows,
            unformed: None,
            losses: Arc::new(losses),
            terms,
            gramian: Arc::default(),
            layers: Arc::default(),
            factors: None,
            pairs: Arc::default(),
        }
    }

    /// Rows that are formed when they are asked for.
    pub(super) fn unformed(
        names: Arc<Vec<String>>,
        space: Arc<ParameterSpace>,
        unformed: Unformed,
        losses: Vec<f64>,
    ) -> Self {
        let s = super::pairs::sum(unformed.factors.u.cols(), &unformed.pairs);
        let rows = (Arc::default(), unformed.model.kernels());
        let gradients = Self::of(names, space, rows, losses, 1);
        let gradients = gradients.with_pairs(Some(unformed.factors.clone()), Some(s));
        Self { unformed: Some(Arc::new(unformed)), ..gradients }
    }

    /// True if the Gramian is known and the rows are not: a combination of them takes a backward.
    pub fn is_unformed(&self) -> bool {
        self.rows.get().is_none()
    }

    /// Rows given as plain numbers, kept in f64: the same methods work on paper examples.
    ///
    /// # Errors
    /// No row, rows of unequal length, a name count that differs, a number that is not finite.
    pub fn from_rows(rows: &[Vec<f64>], names: Vec<String>) -> Result<Self> {
        let Some(width) = rows.first().map(Vec::len) else {
            return Err(Error::new("gradients need at least one row").help("give one row an objective"));
        };
        if let Some(i) = rows.iter().position(|r| r.len() != width) {
            return Err(Error::new(format!("row {i} has {} numbers, row 0 has {width}", rows[i].len()))
                .help("give all rows the same length"));
        }
        if names.len() != rows.len() {
            return Err(Error::new(format!("{} rows but {} names", rows.len(), names.len()))
                .help("give one name a row"));
        }
        if let Some(i) = rows.iter().position(|r| r.iter().any(|x| !x.is_finite())) {
            return Err(Error::new(format!("gradient of `{}` is not finite", names[i]))
                .help("look for a division by zero or an overflow where the row is computed"));
        }
        let m = rows.len();
        let space = Arc::new(ParameterSpace::new([("x".to_owned(), vec![width])]));
        let rows = Tensor::from_vec(rows.concat(), (m, width), &Device::Cpu)?;
        Self::new(Arc::new(names), space, rows, vec![0.0; m], 1)
    }

    /// The same rows, their algebra computed by `kernels`.
    pub(super) fn computed_by(self, kernels: Kernels) -> Self {
        Self { kernels, ..self }
    }

    /// The code that computes their algebra.
    pub(super) fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Objective names, in the order of the rows.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Names, shapes and places of the parameters.
    pub fn space(&self) -> &Arc<ParameterSpace> {
        &self.space
    }

    /// Number of objectives m.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True without any objective.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The loss of each objective on the batch, [m].
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Number Q of activation backwards that the losses needed.
    pub fn terms(&self) -> usize {
        self.terms
    }

    /// Where the numbers are, and their type: f32, or f64 for plain ones.
    pub fn kind(&self) -> (Device, DType) {
        let device = || self.unformed.as_ref().map_or(Device::Cpu, |unformed| unformed.model.device());
        self.rows.get().map_or_else(|| (device(), DType::F32), |rows| (rows.device().clone(), rows.dtype()))
    }

    /// J itself, [m, P]; formed by a backward where it was not.
    ///
    /// # Errors
    /// Rows that are to be formed when the weights have moved, or do not fit the memory.
    pub fn tensor(&self) -> Result<&Tensor> {
        if let (None, Some(unformed)) = (self.rows.get(), &self.unformed) {
            let (m, size) = (self.len(), self.space.size());
            reserve(&format!("the gradients of {m} objectives"), (4 * m * size) as u64)?;
            let rows = unformed.rows()?;
            return Ok(self.rows.get_or_init(|| rows));
        }
        self.rows.get().ok_or_else(|| Error::internal("gradients without rows"))
    }

    /// The gradient of objective `i`.
    ///
    /// # Errors
    /// An index past the last objective.
    pub fn row(&self, i: usize) -> Result<Gradient> {
        if i >= self.len() {
            return Err(Error::new(format!("row {i} of {} gradients", self.len())).help("rows count from 0"));
        }
        if self.is_unformed() {
            let alpha: Vec<f64> = (0..self.len()).map(|j| f64::from(u8::from(i == j))).collect();
            return self.combine(&alpha);
        }
        let values = self.tensor()?.narrow(0, i, 1)?.squeeze(0)?;
        Ok(Gradient { space: self.space.clone(), values, kernels: self.kernels })
    }

    /// H = J Jᵀ, [m, m]: products in the working precision over short runs, sums in f64; the sum of the layers'
    /// Gramians, so that one reading of the rows gives both.
    ///
    /// # Errors
    /// A device that holds the rows and fails.
    pub fn gramian(&self) -> Result<Matrix> {
        if let Some(h) = self.gramian.get() {
            return Ok(h.clone());
        }
        let mut h = Matrix::zeros(self.len(), self.len());
        for (_, layer) in self.layer_gramians()? {
            for i in 0..self.len() {
                (0..self.len()).for_each(|j| h[(i, j)] += layer[(i, j)]);
            }
        }
        Ok(self.gramian.get_or_init(|| h).clone())
    }

    /// The Gramian over each layer alone and over what lies outside the layers by its kind, in the order of the
    /// parameters.
    ///
    /// # Errors
    /// As [`Gradients::gramian`].
    pub fn layer_gramians(&self) -> Result<&[(String, Matrix)]> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        let layers = self.compute_gramians(By::Layer)?;
        Ok(self.layers.get_or_init(|| layers))
    }

    /// The Gramian of the scalars in `ranges` alone: that of a layer, a module kind or a parameter.
    ///
    /// # Errors
    /// As [`Gradients::gramian`].
    pub fn gramian_over(&self, ranges: impl IntoIterator<Item = Range<usize>>) -> Result<Matrix> {
        let mut parts = self.gramians_over(std::iter::once(ranges))?;
        parts.pop().ok_or_else(|| Error::internal("no Gramian of one group of ranges"))
    }

    /// The Gramian over one tensor alone.
    pub(super) fn tensor_gramian(&self, tensor: usize) -> Result<Matrix> {
        self.gramian_of(&[vec![tensor]])?.pop().ok_or_else(|| Error::internal("no Gramian of one tensor"))
    }

    /// The Gramian over each group of tensors.
    pub(super) fn gramian_of(&self, groups: &[Vec<usize>]) -> Result<Vec<Matrix>> {
        if let (true, Some(unformed)) = (self.is_unformed(), &self.unformed) {
            return groups.iter().map(|tensors| unformed.gramian(tensors)).collect();
        }
        let range = |&i: &usize| self.space.offsets[i]..self.space.offsets[i + 1];
        self.gramians_over(groups.iter().map(|tensors| tensors.iter().map(range)))
    }

    /// The Gramian of each group of ranges, in one pass over the rows.
    pub(super) fn gramians_over<R: IntoIterator<Item = Range<usize>>>(
        &self,
        groups: impl IntoIterator<Item = R>,
    ) -> Result<Vec<Matrix>> {
        if self.kernels == Kernels::Generic {
            let rows = self.tensor()?;
            return groups.into_iter().map(|ranges| algebra::gramian(rows, joined(ranges))).collect();
        }
        let (m, width) = (self.len(), self.space.size());
        let (mut blocks, mut ends) = (Vec::new(), Vec::new());
        for ranges in groups {
            for r in joined(ranges) {
                blocks.extend(r.clone().step_by(BLOCK).map(|a| a..(a + BLOCK).min(r.end)));
            }
            ends.push(blocks.len());
        }
        /// The lower triangle over each block: two rows by two rows over a short run, so that all of J passes
        /// through the cache once.
        fn products<T: Sync>(
            x: &[T],
            (m, width): (usize, usize),
            blocks: &[Range<usize>],
            dots: impl Fn([&[T]; 2], [&[T]; 2]) -> [[f64; 2]; 2] + Sync,
        ) -> Vec<Vec<f64>> {
            let product = |block: &Range<usize>| {
                let mut h = vec![0.0; m * m];
                for lane in block.clone().step_by(LANE) {
                    let end = (lane + LANE).min(block.end);
                    let row = |i: usize| &x[i.min(m - 1) * width..][lane..end];
                    for i in (0..m).step_by(2) {
                        for j in (0..=i).step_by(2) {
                            let tile = dots([row(i), row(i + 1)], [row(j), row(j + 1)]);
                            for (i, tile) in (i..m).zip(tile) {
                                (j..m).zip(tile).for_each(|(j, product)| h[i * m + j] += product);
                            }
                        }
                    }
                }
                h
            };
            blocks.par_iter().map(product).collect()
        }
        let lower = match slice(self.tensor()?)? {
            Slice::F32(x) => products(&x, (m, width), &blocks, |a, b| {
                let tile = dispatch(
                    #[inline(always)]
                    || dots(a, b),
                );
                tile.map(|row| row.map(f64::from))
            }),
            Slice::F64(x) => products(&x, (m, width), &blocks, |a, b| {
                a.map(|a| b.map(|b| a.iter().zip(b).map(|(a, b)| a * b).sum()))
            }),
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let gramian = |(start, &end): (usize, &usize)| {
            let mut h = Matrix::zeros(m, m);
            for part in &lower[start..end] {
                for i in 0..m {
                    (0..=i).for_each(|j| h[(i, j)] += part[i * m + j]);
                }
            }
            for i in 0..m {
                (0..i).for_each(|j| h[(j, i)] = h[(i, j)]);
            }
            h
        };
        Ok(starts.zip(&ends).map(gramian).collect())
    }

    /// Jᵀ alpha, [P].
    ///
    /// # Errors
    /// A length other than m, a weight that is not finite.
    pub fn combine(&self, alpha: &[f64]) -> Result<Gradient> {
        if alpha.len() != self.len() {
            return Err(Error::new(format!("{} row weights for {} objectives", alpha.len(), self.len()))
                .help("return one alpha an objective"));
        }
        if let Some(i) = alpha.iter().position(|a| !a.is_finite()) {
            return Err(Error::new(format!("row weight of `{}` is `{}`", self.names[i], alpha[i]))
                .help("look for a division by zero in the aggregator"));
        }
        if let (true, Some(unformed)) = (self.is_unformed(), &self.unformed) {
            let values = unformed.combine(alpha)?;
            return Ok(Gradient { space: self.space.clone(), values, kernels: self.kernels });
        }
        if self.kernels == Kernels::Generic {
            let values = algebra::combine(self.tensor()?, alpha)?;
            return Ok(Gradient { space: self.space.clone(), values, kernels: self.kernels });
        }
        let width = self.space.size();
        /// `add` is given a short run of the sum and where it starts.
        fn sum<T: Send>(mut out: Vec<T>, add: impl Fn(&mut [T], usize) + Sync) -> Vec<T> {
            out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
                let runs = out.chunks_mut(LANE).enumerate();
                runs.for_each(|(run, out)| add(out, block * BLOCK + run * LANE));
            });
            out
        }
        let values = match slice(self.tensor()?)? {
            Slice::F32(x) => {
                let x: &[f32] = &x;
                let alpha: Vec<f32> = alpha.iter().map(|&a| a as f32).collect();
                let values = sum(vec![0f32; width], |out, start| {
                    dispatch(
                        #[inline(always)]
                        || combine(out, &alpha, |i| &x[i * width + start..]),
                    );
                });
                Tensor::from_vec(values, width, &Device::Cpu)?
            }
            Slice::F64(x) => {
                let x: &[f64] = &x;
                let values = sum(vec![0f64; width], |out, start| {
                    for (i, a) in alpha.iter().enumerate() {
                        out.iter_mut().zip(&x[i * width + start..]).for_each(|(o, g)| *o += a * g);
                    }
                });
                Tensor::from_vec(values, width, &Device::Cpu)?
            }
        };
        Gradient::new(self.space.clone(), values)
    }

    /// The same rows with what their backward was run with and, where it was added up, the pairs' Gramian.
    pub(super) fn with_pairs(self, factors: Option<Factors>, s: Option<Matrix>) -> Self {
        let pairs = s.map_or_else(OnceLock::new, OnceLock::from);
        Self { factors: factors.map(Arc::new), pairs: Arc::new(pairs), ..self }
    }

    /// How each objective weighs the vectors of the pairs, U [m, K]: gᵢ = Σₖ U[i,k] hₖ.
    ///
    /// # Errors
    /// Rows of plain numbers; losses that needed several backwards; a batch that was split.
    pub fn pair_weights(&self) -> Result<&Matrix> {
        Ok(&self.factors()?.u)
    }

    /// S = [⟨hₖ, hₗ⟩], [K, K], such that H = U S Uᵀ. Runs forward and backward once more unless it was computed
    /// with the rows.
    ///
    /// # Errors
    /// As [`Gradients::pair_weights`]; weights that have moved since.
    pub fn pair_gramian(&self, log_probs: &LogProbs) -> Result<&Matrix> {
        let factors = self.factors()?;
        if let Some(s) = self.pairs.get() {
            return Ok(s);
        }
        let s = factors.gramian(log_probs)?;
        Ok(self.pairs.get_or_init(|| s))
    }

    fn factors(&self) -> Result<&Factors> {
        match &self.factors {
            Some(factors) => Ok(factors),
            None if self.terms > 1 => Err(several(self.terms)),
            None => Err(Error::new(
                "these gradients come from no batch whose pairs were together in one backward",
            )
            .help("take them from `jacobian(losses)` of a batch that fits the memory, its prompts shared")),
        }
    }

    /// Fails with the objective and the tensor of the first number that is not finite.
    ///
    /// # Errors
    /// A NaN or an infinity in a row.
    pub fn check_finite(&self) -> Result<()> {
        for (i, name) in self.names.iter().enumerate() {
            self.row(i)?.check_finite(&format!("gradient of `{name}`"))?;
        }
        Ok(())
    }
}

impl Gradient {
    /// A vector [P] over `space`.
    ///
    /// # Errors
    /// A shape that does not fit.
    pub fn new(space: Arc<ParameterSpace>, values: Tensor) -> Result<Self> {
        if values.dims() != [space.size()] {
            return Err(Error::internal(format!(
                "gradient {:?} over {} numbers",
                values.dims(),
                space.size()
            )));
        }
        let kernels = Kernels::of(values.device());
        Ok(Self { space, values, kernels })
    }

    /// The same vector, its algebra computed by `kernels`.
    pub(super) fn computed_by(self, kernels: Kernels) -> Self {
        Self { kernels, ..self }
    }

    /// The code that computes its algebra.
    pub(super) fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Names, shapes and places of the parameters.
    pub fn space(&self) -> &Arc<ParameterSpace> {
        &self.space
    }

    /// The values, [P].
    pub fn tensor(&self) -> &Tensor {
        &self.values
    }

    /// Calls `read` with the values in f32, copied to the CPU where they are elsewhere.
    ///
    /// # Errors
    /// A gradient of plain f64 numbers, or what `read` returns.
    pub fn with_f32<R>(&self, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
        match slice(&host(&self.values)?)? {
            Slice::F32(x) => read(&x),
            Slice::F64(_) => Err(Error::new("this gradient belongs to plain numbers, not to a model")
                .help("take gradients from `jacobian(losses)`")),
        }
    }

    /// ⟨a, b⟩, summed in f64.
    ///
    /// # Errors
    /// Vectors over different parameters.
    pub fn dot(&self, other: &Self) -> Result<f64> {
        self.check_same(other)?;
        if self.kernels == Kernels::Generic {
            return algebra::dot(&self.values, &self.beside(other)?);
        }
        let sum = |parts: Vec<f64>| parts.iter().sum::<f64>();
        Ok(match (slice(&self.values)?, slice(&other.values)?) {
            (Slice::F32(a), Slice::F32(b)) => sum(a
                .par_chunks(BLOCK)
                .zip(b.par_chunks(BLOCK))
                .map(|(a, b)| a.chunks(LANE).zip(b.chunks(LANE)).map(|(a, b)| dot_f32(a, b)).sum())
                .collect()),
            (Slice::F64(a), Slice::F64(b)) => sum(a
                .par_chunks(BLOCK)
                .zip(b.par_chunks(BLOCK))
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
                .collect()),
            _ => return Err(mixed_precision()),
        })
    }

    /// ‖a‖.
    ///
    /// # Errors
    /// As [`Gradient::dot`].
    pub fn norm(&self) -> Result<f64> {
        Ok(self.dot(self)?.sqrt())
    }

    /// The norm of the part over each parameter tensor, in the order of the space.
    ///
    /// # Errors
    /// As [`Gradient::dot`].
    pub fn norms_by_tensor(&self) -> Result<Vec<f64>> {
        let row = Gradients::new(
            Arc::new(vec![String::new()]),
            self.space.clone(),
            self.values.reshape((1, self.space.size()))?,
            vec![0.0],
            1,
        )?
        .computed_by(self.kernels);
        let norm =
            |range: &[usize]| Ok(row.gramian_over(std::iter::once(range[0]..range[1]))?[(0, 0)].sqrt());
        self.space.offsets.windows(2).map(norm).collect()
    }

    /// A vector made of this one and a tensor operation on its values.
    ///
    /// # Errors
    /// What `op` returns.
    pub fn map(&self, op: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self::new(self.space.clone(), op(&self.values)?)?.computed_by(self.kernels))
    }

    /// A vector made of two and a tensor operation on their values.
    ///
    /// # Errors
    /// Vectors over different parameters, or what `op` returns.
    pub fn zip(
        &self,
        other: &Self,
        op: impl FnOnce(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        self.check_same(other)?;
        Ok(Self::new(self.space.clone(), op(&self.values, &self.beside(other)?)?)?.computed_by(self.kernels))
    }

    /// Fails with the tensor of the first number that is not finite; `what` names this vector.
    ///
    /// # Errors
    /// A NaN or an infinity.
    pub fn check_finite(&self, what: &str) -> Result<()> {
        let bad = if self.kernels == Kernels::Generic {
            algebra::first_not_finite(&self.values, &self.space.offsets)?
        } else {
            match slice(&self.values)? {
                Slice::F32(x) => {
                    let finite = |part: &[f32]| {
                        dispatch(
                            #[inline(always)]
                            || all_finite(part),
                        )
                    };
                    let part = x.par_chunks(BLOCK).position_first(|part| !finite(part));
                    part.and_then(|i| Some(i * BLOCK + x[i * BLOCK..].iter().position(|v| !v.is_finite())?))
                }
                Slice::F64(x) => x.par_iter().position_first(|v| !v.is_finite()),
            }
        };
        match bad {
            None => Ok(()),
            Some(index) => Err(Error::new(format!("{what} is not finite"))
                .at(Place::Tensor(self.space.name_at(index).to_owned()))
                .help("lower the learning rate, or look for a weight or loss that overflows")),
        }
    }

    /// The values of another vector of the same precision, where those of this one are.
    fn beside(&self, other: &Self) -> Result<Tensor> {
        if self.values.dtype() != other.values.dtype() {
            return Err(mixed_precision());
        }
        Ok(other.values.to_device(self.values.device())?)
    }

    fn check_same(&self, other: &Self) -> Result<()> {
        if Arc::ptr_eq(&self.space, &other.space) || self.space == other.space {
            return Ok(());
        }
        Err(Error::new("the two gradients are over different parameters")
            .help("combine gradients of one model only"))
    }
}

fn mixed_precision() -> Error {
    Error::new("one gradient is of plain numbers, the other of a model")
        .help("combine gradients that came from the same place")
}

/// Ranges of which one that begins where the last ends goes on in it: small tensors share a block.
fn joined(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut whole: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match whole.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => whole.push(range),
        }
    }
    whole
}

/// Dot product of a short f32 run.
fn dot_f32(a: &[f32], b: &[f32]) -> f64 {
    f64::from(dispatch(
        #[inline(always)]
        || dot(a, b),
    ))
}

pub(super) enum Slice<'a> {
    F32(Values<'a, f32>),
    F64(Values<'a, f64>),
}

pub(super) fn slice(tensor: &Tensor) -> Result<Slice<'_>> {
    match tensor.dtype() {
        DType::F32 => Ok(Slice::F32(values(tensor)?)),
        DType::F64 => Ok(Slice::F64(values(tensor)?)),
        other => Err(Error::internal(format!("gradient values of type {other:?}"))),
    }
}
