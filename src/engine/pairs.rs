//! The Gramian of preference pairs: which pairs the objectives' conflict comes from.
//!
//! Where one backward serves all objectives (Q = 1), gᵢ = Σₖ U[i,k] hₖ with a vector hₖ for each pair k. Then
//! H = U S Uᵀ with S = [⟨hₖ, hₗ⟩], and no hₖ is needed as a whole: a product y = xWᵀ with rows t adds
//! Σ_{t∈k, s∈l} ⟨δ_t, δ_s⟩⟨x_t, x_s⟩ (a ghost product), the other operations their sums.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::Tensor;

use super::log_probs::LogProbs;
use crate::error::{Error, Result};
use crate::math;
use crate::model::ops::gemm::{Into, Threads, View, ViewMut, gemm};
use crate::model::{Axis, Matrix, Sink};

/// Scalars of the tiles of all hₖ together.
const TILE: usize = 1 << 22;

/// What one backward for all objectives was run with.
#[derive(Debug, Clone)]
pub struct Factors {
    /// ∂/∂log π of the common direction, [N].
    pub(super) seeds: Vec<f32>,
    /// How each objective weighs each pair, [m, K].
    pub(super) u: math::Matrix,
    /// Token rows of the pairs, [K].
    pub(super) tokens: Vec<Range<usize>>,
    /// Scored positions of the pairs, [K].
    pub(super) scored: Vec<Range<usize>>,
}

impl Factors {
    /// Runs forward and backward once more, for S [K, K] alone.
    pub(super) fn gramian(&self, log_probs: &LogProbs) -> Result<math::Matrix> {
        if !log_probs.is_current() {
            return Err(Error::new("the gradients are older than the weights: a step was taken since")
                .help("ask for the pairs before the step: `jacobian(losses, #{ pairs: true })`"));
        }
        let [pack] = &log_probs.packs[..] else { return Err(split()) };
        let tensors = log_probs.model.weights().space().names.len();
        let mut sink = PairGramian::new(self, &pack.tokens, tensors);
        let recorded = log_probs.model.record(pack, log_probs.plan.keep)?.1;
        recorded.backward(vec![self.seeds.clone()], &mut sink)?;
        Ok(sink.into_matrix())
    }
}

/// Σ of [K, K] matrices.
pub(super) fn sum<'a>(k: usize, all: impl IntoIterator<Item = &'a math::Matrix>) -> math::Matrix {
    let mut sum = math::Matrix::zeros(k, k);
    for s in all {
        (0..k).for_each(|a| (0..k).for_each(|b| sum[(a, b)] += s[(a, b)]));
    }
    sum
}

/// The batch did not fit one pass.
fn split() -> Error {
    Error::new("the batch was split to fit the memory, its pairs were never together in one backward")
        .help("take fewer pairs, or give `log_probs` more `memory`")
}

/// Why these log-probs have no pairs as the unit of the backward, if so.
pub(super) fn no_pairs(log_probs: &LogProbs) -> Option<Error> {
    let [pack] = &log_probs.packs[..] else { return Some(split()) };
    (pack.segments.len() != log_probs.examples()).then(|| {
        Error::new("the responses of a pair were encoded apart, each with a prompt of its own")
            .help("leave out `share_prompt: false`")
    })
}

/// Losses that need several backwards.
pub(super) fn several(terms: usize) -> Error {
    Error::new(format!("these losses need {terms} backwards (Q = {terms}), pairs have a Gramian where Q = 1"))
        .help("use losses of the margin, such as `losses/dpo`")
}

/// Adds up S, over each tensor alone.
pub(super) struct PairGramian {
    tokens: Vec<Range<usize>>,
    scored: Vec<Range<usize>>,
    s: Vec<math::Matrix>, // [tensors][K, K], the lower triangle
    /// Token ids of the batch, each once, in order.
    words: Vec<u32>,
    head: Option<Head>,
}

/// What a tied head leaves for the embedding, with which it shares a parameter.
struct Head {
    parameter: usize,
    /// Gradients of the logits of the batch's own words, [N, words].
    columns: Vec<f32>,
    /// Inputs of the head, [N, D].
    x: Vec<f32>,
}

impl PairGramian {
    pub fn new(factors: &Factors, tokens: &[u32], tensors: usize) -> Self {
        let mut words = tokens.to_vec();
        words.sort_unstable();
        words.dedup();
        let k = factors.tokens.len();
        Self {
            tokens: factors.tokens.clone(),
            scored: factors.scored.clone(),
            s: vec![math::Matrix::zeros(k, k); tensors],
            words,
            head: None,
        }
    }

    /// S over each tensor alone, [tensors][K, K].
    pub fn into_matrices(self) -> Vec<math::Matrix> {
        let mut all = self.s;
        for s in &mut all {
            for k in 0..s.rows() {
                (0..k).for_each(|l| s[(l, k)] = s[(k, l)]);
            }
        }
        all
    }

    /// S [K, K].
    pub fn into_matrix(self) -> math::Matrix {
        sum(self.tokens.len(), &self.into_matrices())
    }

    fn ranges(&self, axis: Axis) -> &[Range<usize>] {
        match axis {
            Axis::Tokens => &self.tokens,
            Axis::Scored => &self.scored,
        }
    }

    /// S += ⟨row k, row l⟩ of `rows` [K, width], l ≤ k.
    fn add_gram(&mut self, parameter: usize, rows: &[f32], width: usize) {
        let k = self.tokens.len();
        let mut gram = vec![0f32; k * k];
        let rows = View::new(rows, k, width);
        gemm(ViewMut::new(&mut gram, k, k), Into::Overwrite, 1.0, rows, rows.t(), Threads::All);
        for a in 0..k {
            (0..=a).for_each(|b| self.s[parameter][(a, b)] += f64::from(gram[a * k + b]));
        }
    }

    /// Σ_{t∈k, s∈l} ⟨δ_t, δ_s⟩⟨x_t, x_s⟩, l ≤ k.
    fn ghost(&mut self, parameter: usize, dy: View, x: View, axis: Axis) {
        let ranges = self.ranges(axis).to_vec();
        for (k, own) in ranges.iter().enumerate() {
            let seen = 0..own.end;
            let size = own.len() * seen.len();
            let (mut a, mut b) = (vec![0f32; size], vec![0f32; size]);
            for (out, rows) in [(&mut a, dy), (&mut b, x)] {
                let out = ViewMut::new(out, own.len(), seen.len());
                let (own, seen) = (rows.rows(own.clone()), rows.rows(seen.clone()));
                gemm(out, Into::Overwrite, 1.0, own, seen.t(), Threads::All);
            }
            for (l, other) in ranges[..=k].iter().enumerate() {
                let rows = a.chunks_exact(seen.len()).zip(b.chunks_exact(seen.len()));
                let sum = rows.map(|(a, b)| {
                    a[other.clone()].iter().zip(&b[other.clone()]).map(|(a, b)| f64::from(a * b)).sum::<f64>()
                });
                self.s[parameter][(k, l)] += sum.sum::<f64>();
            }
        }
    }

    /// The same from the hₖ of a product, a few rows of the weight at a time.
    fn tiled(&mut self, parameter: usize, dy: View, x: View, axis: Axis) {
        let ranges = self.ranges(axis).to_vec();
        let (out, width, k) = (dy.width(), x.width(), ranges.len());
        let step = (TILE / (k * width).max(1)).clamp(1, out);
        let mut tile = Vec::new();
        for rows in (0..out).step_by(step).map(|start| start..(start + step).min(out)) {
            let size = rows.len() * width;
            tile.clear();
            tile.resize(k * size, 0f32);
            for (range, h) in ranges.iter().zip(tile.chunks_exact_mut(size)) {
                let dy = dy.rows(range.clone()).cols(rows.clone());
                let h = ViewMut::new(h, rows.len(), width);
                gemm(h, Into::Overwrite, 1.0, dy.t(), x.rows(range.clone()), Threads::All);
            }
            self.add_gram(parameter, &tile, size);
        }
    }

    /// Keeps of a head's block what its embedding will be multiplied by.
    fn keep(&mut self, parameter: usize, first: usize, g: View, x: View) {
        let (rows, words) = (g.height(), self.words.len());
        let head = self.head.get_or_insert_with(|| {
            let x = (0..rows).flat_map(|row| (0..x.width()).map(move |col| x.at(row, col))).collect();
            Head { parameter, columns: vec![0f32; rows * words], x }
        });
        let block = first..first + g.width();
        for (i, &word) in self.words.iter().enumerate().filter(|(_, word)| block.contains(&(**word as usize)))
        {
            (0..rows).for_each(|row| head.columns[row * words + i] = g.at(row, word as usize - first));
        }
    }
}

impl Sink for PairGramian {
    fn segments(&self, axis: Axis) -> &[Range<usize>] {
        self.ranges(axis)
    }

    fn product(&mut self, parameter: usize, first_row: usize, dy: Matrix, x: Matrix, axis: Axis) {
        let (dy, x) = (dy.0, x.0);
        // the head comes first in a backward
        if axis == Axis::Scored && self.head.as_ref().is_none_or(|head| head.parameter == parameter) {
            self.keep(parameter, first_row, dy, x);
        }
        // both count multiplications; half of the ghost products are seen twice
        let (t, out, width) = (dy.height() as f64, dy.width() as f64, x.width() as f64);
        let k = self.tokens.len() as f64;
        let ghost = t * t * (1.0 + 1.0 / k) / 2.0 * (out + width);
        let tiled = (t + k * k) * out * width;
        if ghost < tiled { self.ghost(parameter, dy, x, axis) } else { self.tiled(parameter, dy, x, axis) }
    }

    fn sums(&mut self, parameter: usize, sums: &[f32]) {
        self.add_gram(parameter, sums, sums.len() / self.tokens.len().max(1));
    }

    /// Row `word` of hₖ is e + r, from the embedding and from a tied head; ⟨r, r⟩ is in S already.
    fn embedding(&mut self, parameter: usize, tokens: &[u32], dy: &[f32]) {
        let width = dy.len() / tokens.len().max(1);
        let (k, words) = (self.tokens.len(), self.words.len());
        let place: HashMap<u32, usize> = self.words.iter().enumerate().map(|(i, &word)| (word, i)).collect();
        let head = self.head.take().filter(|head| head.parameter == parameter);
        let mut met: Vec<Vec<(usize, usize)>> = vec![Vec::new(); words]; // (pair, token row)
        for (pair, range) in self.tokens.iter().enumerate() {
            range.clone().for_each(|t| met[place[&tokens[t]]].push((pair, t)));
        }
        let (mut e, mut r) = (vec![0f64; k * width], vec![0f64; k * width]);
        for (i, met) in met.iter().enumerate() {
            e.fill(0.0);
            for &(pair, t) in met {
                let row = e[pair * width..][..width].iter_mut().zip(&dy[t * width..][..width]);
                row.for_each(|(e, dy)| *e += f64::from(*dy));
            }
            r.fill(0.0);
            for (pair, range) in self.scored.iter().enumerate().filter(|_| head.is_some()) {
                let Some(head) = &head else { continue };
                for n in range.clone() {
                    let g = f64::from(head.columns[n * words + i]);
                    let row = r[pair * width..][..width].iter_mut().zip(&head.x[n * width..][..width]);
                    row.for_each(|(r, x)| *r += g * f64::from(*x));
                }
            }
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let of = |pair: usize| (&e[pair * width..][..width], &r[pair * width..][..width]);
            let meets = |pair: usize| met.iter().any(|&(other, _)| other == pair);
            for a in 0..k {
                for b in (0..=a).filter(|&b| meets(a) || meets(b)) {
                    let ((ea, ra), (eb, rb)) = (of(a), of(b));
                    self.s[parameter][(a, b)] += dot(ea, eb) + dot(ea, rb) + dot(ra, eb);
                }
            }
        }
    }
}

/// Two sinks of one backward; the segments are those of both.
pub(super) struct Both<'a, A: ?Sized, B>(pub &'a mut A, pub &'a mut B);

impl<A: Sink + ?Sized, B: Sink> Sink for Both<'_, A, B> {
    fn term(&mut self, seed: usize) {
        self.0.term(seed);
        self.1.term(seed);
    }

    fn segments(&self, axis: Axis) -> &[Range<usize>] {
        self.0.segments(axis)
    }

    fn product(&mut self, parameter: usize, first_row: usize, dy: Matrix, x: Matrix, axis: Axis) {
        self.0.product(parameter, first_row, dy, x, axis);
        self.1.product(parameter, first_row, dy, x, axis);
    }

    fn sums(&mut self, parameter: usize, sums: &[f32]) {
        self.0.sums(parameter, sums);
        self.1.sums(parameter, sums);
    }

    fn embedding(&mut self, parameter: usize, tokens: &[u32], dy: &[f32]) {
        self.0.embedding(parameter, tokens, dy);
        self.1.embedding(parameter, tokens, dy);
    }

    fn product_of(
        &mut self,
        parameter: usize,
        first_row: usize,
        dy: &Tensor,
        x: &Tensor,
        axis: Axis,
    ) -> Result<()> {
        self.0.product_of(parameter, first_row, dy, x, axis)?;
        self.1.product_of(parameter, first_row, dy, x, axis)
    }

    fn sum_of(&mut self, parameter: usize, rows: &Tensor, axis: Axis) -> Result<()> {
        self.0.sum_of(parameter, rows, axis)?;
        self.1.sum_of(parameter, rows, axis)
    }

    fn embedding_of(&mut self, parameter: usize, tokens: &[u32], dy: &Tensor) -> Result<()> {
        self.0.embedding_of(parameter, tokens, dy)?;
        self.1.embedding_of(parameter, tokens, dy)
    }
}
