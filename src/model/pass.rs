//! The operations a decoder is made of, as one forward pass over its rows.
//!
//! A family file writes its layer once, in these words; the same code trains, scores and generates.

use std::sync::Arc;

use candle_core::Tensor;

use super::generic::{KeyValues, Seen};
use super::lora::LowRank;
use super::ops::attention::Attention;
use super::ops::cache::Cache;
use super::ops::gemm::{View, ViewMut};
use super::ops::glu::Activation;
use super::ops::head::Head;
use super::ops::kept::Kept;
use super::ops::norm::Heads;
use super::ops::{glu, head, linear, norm};
use super::tape::{Act, Axis, Matrix, Replay, Saved, Tape};
use super::values::{tensor, values};
use super::weights::Parts;
use super::{Config, Kernels};
use crate::error::{Error, Result};

/// How rows see each other.
pub(crate) enum Mode<'a> {
    /// Packed sequences; nothing is kept.
    Packed(Attention),
    /// Packed prompts whose keys and values are kept, [sequence][layer].
    Prefill(Attention, &'a mut [Vec<Cache>]),
    /// One new row for each of these sequences.
    Decode(Attention, Vec<&'a mut Vec<Cache>>),
    /// New rows of these sequences, a group each, whose keys and values are tensors: one row or a whole prompt.
    Grow(Attention, Vec<&'a mut Vec<KeyValues>>),
}

impl Mode<'_> {
    pub(super) fn attention(&mut self) -> &mut Attention {
        match self {
            Mode::Packed(a) | Mode::Prefill(a, _) | Mode::Decode(a, _) | Mode::Grow(a, _) => a,
        }
    }
}

/// One forward pass.
pub(crate) struct Pass<'a> {
    pub(super) parts: &'a Parts,
    pub(super) eps: f32,
    pub(super) norm_offset: f32,
    pub(super) mode: Mode<'a>,
    tape: Option<Tape>,
    pub(super) logit_cap: Option<f32>,
    pub(super) layer: usize,
    /// Which rows activations have by now.
    pub(super) axis: Axis,
    /// Rows that something is read from after the present layer, if not all.
    read: Option<Vec<u32>>,
    /// What rows of global and of local layers see, as tensors, once a layer has asked.
    pub(super) seen: [Option<Arc<Seen>>; 2],
}

impl<'a> Pass<'a> {
    /// A pass over `parts`; with `record` it can be run backward.
    pub(crate) fn new(parts: &'a Parts, config: &Config, mode: Mode<'a>, record: bool) -> Self {
        Self {
            parts,
            eps: config.norm_eps as f32,
            norm_offset: config.family.norm_offset(),
            logit_cap: config.logit_cap.map(|cap| cap as f32),
            mode,
            tape: record.then(Tape::new),
            layer: 0,
            axis: Axis::Tokens,
            read: None,
            seen: [None, None],
        }
    }

    /// Tells which layer the next attention belongs to, and whether it is local.
    pub(crate) fn enter_layer(&mut self, layer: usize, local: bool) {
        self.layer = layer;
        self.mode.attention().local = local;
    }

    /// Tells that after this layer only these rows are read, in this order.
    pub(crate) fn read_only(&mut self, rows: Vec<u32>) {
        self.read = Some(rows);
    }

    /// The rows of x and h that are read later, where the layer was told: other rows have done their part once their
    /// keys and values are there.
    pub(crate) fn narrow(&mut self, x: &Act, h: &Act) -> Result<(Act, Act)> {
        let Some(rows) = self.read.take() else { return Ok((x.clone(), h.clone())) };
        let (x, h) = (self.gather(x, &rows)?, self.gather(h, &rows)?);
        self.axis = Axis::Scored;
        Ok((x, h))
    }

    /// The tape, if this pass was recorded.
    pub(crate) fn into_tape(self) -> Option<Tape> {
        self.tape
    }

    /// True where ordinary tensor operations compute, those of [`super::generic`].
    fn is_generic(&self) -> bool {
        self.parts.kernels == Kernels::Generic
    }

    pub(super) fn parameter(&self, index: usize) -> Tensor {
        self.parts.decoder.parameters()[index].tensor.clone()
    }

    /// What a norm multiplies by.
    fn norm_weight(&self, index: usize) -> Result<Vec<f32>> {
        let weight = self.parameter(index);
        let mut row = vec![0f32; weight.elem_count()];
        Kept::of(&weight)?.copy_row(0, &mut row);
        row.iter_mut().for_each(|w| *w += self.norm_offset);
        Ok(row)
    }

    /// True if the decoder itself is trained, not an adapter of it.
    pub(super) fn trains_decoder(&self) -> bool {
        self.parts.adapter.is_none()
    }

    /// The output of an operation, which is kept on the tape where it `trains` something or its input depends on
    /// something that is trained.
    pub(super) fn node(
        &mut self,
        input: &Act,
        output: Tensor,
        trains: bool,
        backward: impl Fn(&Tensor, &mut dyn super::tape::Sink) -> Result<Option<Tensor>> + Send + Sync + 'static,
    ) -> Act {
        match &mut self.tape {
            Some(tape) if trains || !input.is_constant() => tape.op(input, output, Box::new(backward)),
            _ => Act::constant(output),
        }
    }

    /// Computes without a tape, keeping nothing.
    pub(crate) fn unrecorded(&mut self, compute: impl FnOnce(&mut Self) -> Result<Act>) -> Result<Act> {
        let tape = self.tape.take();
        let result = compute(self);
        self.tape = tape;
        result
    }

    /// The output of operations that ran unrecorded, of which the tape keeps `x` alone and how to `replay` them; a
    /// constant where they train nothing (`trains`) and `x` is one.
    pub(crate) fn section(&mut self, x: &Act, output: Tensor, trains: bool, replay: Replay) -> Act {
        match &mut self.tape {
            Some(tape) if trains || !x.is_constant() => tape.section(x, output, replay),
            _ => Act::constant(output),
        }
    }

    /// The input of a replayed section: a leaf where its gradient is wanted.
    pub(crate) fn input(&mut self, x: Tensor, wanted: bool) -> Act {
        match &mut self.tape {
            Some(tape) if wanted => tape.leaf(x),
            _ => Act::constant(x),
        }
    }

    /// Rows of the embedding, [T, D].
    pub(crate) fn embed(&mut self, parameter: usize, tokens: &[u32]) -> Result<Act> {
        let x = if self.is_generic() {
            self.generic_rows(parameter, tokens)?
        } else {
            self.rows(parameter, tokens)?
        };
        let trains = self.trains_decoder();
        Ok(self.input(x, trains))
    }

    fn rows(&self, parameter: usize, tokens: &[u32]) -> Result<Tensor> {
        let weight = self.parameter(parameter);
        let width = weight.dim(1)?;
        let w = Kept::of(&weight)?;
        let mut x = vec![0f32; tokens.len() * width];
        for (row, &token) in x.chunks_exact_mut(width).zip(tokens) {
            w.copy_row(token as usize, row);
        }
        tensor(x, (tokens.len(), width))
    }

    /// c x.
    pub(crate) fn scale(&mut self, x: &Act, c: f32) -> Result<Act> {
        if self.is_generic() {
            return self.generic_scale(x, c);
        }
        let shape = x.tensor.shape().clone();
        let times = move |x: &Tensor| {
            tensor(values::<f32>(x)?.iter().map(|x| c * x).collect::<Vec<f32>>(), shape.clone())
        };
        Ok(self.node(x, times(&x.tensor)?, false, move |dy, _| times(dy).map(Some)))
    }

    /// a + b.
    pub(crate) fn add(&mut self, a: &Act, b: &Act) -> Result<Act> {
        let sum = if self.is_generic() {
            (&a.tensor + &b.tensor)?
        } else {
            tensor(norm::add(&values(&a.tensor)?, &values(&b.tensor)?), a.tensor.shape())?
        };
        Ok(self.sum(a, b, sum))
    }

    fn sum(&mut self, a: &Act, b: &Act, sum: Tensor) -> Act {
        match &mut self.tape {
            Some(tape) => tape.add(a, b, sum),
            None => Act::constant(sum),
        }
    }

    /// x (mean x² + ε)^(-½) ∘ w, a row at a time.
    pub(crate) fn rms_norm(&mut self, x: &Act, parameter: usize) -> Result<Act> {
        let width = x.tensor.dim(1)?;
        self.norm_parts(x, vec![(parameter, Heads::row(width))])
    }

    /// Normalises each head of the queries and of the keys in rows [q | k | v].
    pub(crate) fn qk_norm(&mut self, qkv: &Act, q: usize, k: usize) -> Result<Act> {
        let h = self.mode.attention().heads;
        let part = |offset: usize, heads: usize| Heads { stride: h.stride(), offset, heads, width: h.width };
        let parts = vec![(q, part(0, h.queries)), (k, part(h.queries * h.width, h.keys))];
        self.norm_parts(qkv, parts)
    }

    /// Normalises parts of each row, each with a weight of its own; other columns pass through.
    fn norm_parts(&mut self, x: &Act, parts: Vec<(usize, Heads)>) -> Result<Act> {
        if self.is_generic() {
            return self.generic_norm(x, parts);
        }
        let axis = self.axis;
        let (input, shape) = (x.tensor.clone(), x.tensor.shape().clone());
        let mut y = values::<f32>(&input)?.to_vec();
        let mut saved = Vec::with_capacity(parts.len());
        for (parameter, heads) in parts {
            let weight = self.norm_weight(parameter)?;
            let r = norm::forward(&mut y, &weight, self.eps, heads);
            saved.push((parameter, heads, weight, r));
        }
        let trains = self.trains_decoder();
        let saved = Arc::new(saved);
        let (known, source, size) = (saved.clone(), input.clone(), shape.clone());
        let y = self.node(x, tensor(y, &shape)?, trains, move |dy, sink| {
            let x = values::<f32>(&input)?;
            let mut dx = values::<f32>(dy)?.to_vec();
            for (parameter, heads, weight, r) in saved.iter() {
                if trains {
                    sink.sums(*parameter, &norm::weight_sums(&dx, &x, r, *heads, sink.segments(axis)));
                }
                norm::backward(&mut dx, &x, r, weight, *heads);
            }
            tensor(dx, &shape).map(Some)
        });
        Ok(y.computed_by(move || {
            let mut y = values::<f32>(&source)?.to_vec();
            known.iter().for_each(|(_, heads, weight, r)| norm::again(&mut y, weight, r, *heads));
            tensor(y, &size)
        }))
    }

    /// [x W₁ᵀ | x W₂ᵀ | …], [T, Σ out], each with its adapter, if any.
    pub(crate) fn linear(&mut self, x: &Act, parameters: &[usize]) -> Result<Act> {
        if self.is_generic() {
            return self.generic_linear(x, parameters);
        }
        self.product(x, parameters, None)
    }

    /// x + h Wᵀ, [T, D].
    pub(crate) fn add_linear(&mut self, x: &Act, h: &Act, parameter: usize) -> Result<Act> {
        if self.is_generic() {
            let h = self.generic_linear(h, &[parameter])?;
            return self.add(x, &h);
        }
        let sum = self.product(h, &[parameter], Some(x))?;
        Ok(self.sum(x, &sum, sum.tensor.clone()))
    }

    /// Rows times weights, added onto those of another activation, which the gradient does not reach from here.
    fn product(&mut self, x: &Act, parameters: &[usize], onto: Option<&Act>) -> Result<Act> {
        let (rows, width) = x.tensor.dims2()?;
        let weights: Vec<Tensor> = parameters.iter().map(|&p| self.parameter(p)).collect();
        let outs = weights.iter().map(|w| Ok(w.dim(0)?)).collect::<Result<Vec<usize>>>()?;
        let total: usize = outs.iter().sum();
        let mut low = Vec::with_capacity(parameters.len());
        let y = {
            let x = values::<f32>(&x.tensor)?;
            let x = View::new(&x, rows, width);
            let onto = onto.map(|act| values::<f32>(&act.tensor)).transpose()?;
            let mut y = linear::forward(x, &kept(&weights)?, onto.as_deref());
            let mut at = 0;
            for (&out, &parameter) in outs.iter().zip(parameters) {
                let add =
                    |low: LowRank| low.forward(x, ViewMut::strided(&mut y[at..], rows, out, total), rows);
                low.push(LowRank::of(self.parts, parameter).map(add).transpose()?);
                at += out;
            }
            y
        };
        let decoder = self.trains_decoder();
        let trains = decoder || low.iter().any(Option::is_some);
        // a frozen product needs its input for nothing
        let input = trains.then(|| x.saved());
        let wanted = !x.is_constant();
        let axis = self.axis;
        let parameters = parameters.to_vec();
        Ok(self.node(x, tensor(y, (rows, total))?, trains, move |dy, sink| {
            let dy = values::<f32>(dy)?;
            let dy = View::new(&dy, rows, total);
            let input = input.as_ref().map(Saved::get).transpose()?;
            let x = input.as_ref().map(values::<f32>).transpose()?;
            let x = x.as_ref().map(|x| View::new(x, rows, width));
            let mut dx =
                wanted.then(|| Ok::<_, Error>(linear::backward(dy, &kept(&weights)?))).transpose()?;
            let mut at = 0;
            for (i, &out) in outs.iter().enumerate() {
                let dy = dy.cols(at..at + out);
                match (&low[i], x) {
                    (Some(low), Some(x)) => {
                        let dx = dx.as_mut().map(|dx| ViewMut::new(dx, rows, width));
                        low.backward(x, dy, dx, axis, sink)?;
                    }
                    (None, Some(x)) if decoder => {
                        sink.product(parameters[i], 0, Matrix(dy), Matrix(x), axis);
                    }
                    _ => {}
                }
                at += out;
            }
            dx.map(|dx| tensor(dx, (rows, width))).transpose()
        }))
    }

    /// act(gate) ∘ up of rows [gate | up].
    pub(crate) fn glu(&mut self, x: &Act, activation: Activation) -> Result<Act> {
        if self.is_generic() {
            return self.generic_glu(x, activation);
        }
        let (rows, both) = x.tensor.dims2()?;
        let width = both / 2;
        let forward = move |x: &Tensor| tensor(glu::forward(activation, &values(x)?, width), (rows, width));
        let (input, source) = (x.tensor.clone(), x.tensor.clone());
        let y = self.node(x, forward(&input)?, false, move |dy, _| {
            tensor(glu::backward(activation, &values(&input)?, &values(dy)?, width), (rows, both)).map(Some)
        });
        Ok(y.computed_by(move || forward(&source)))
    }

    /// Attention of rows [q | k | v], [T, q d].
    pub(crate) fn attention(&mut self, qkv: &Act) -> Result<Act> {
        if self.is_generic() {
            return self.generic_attention(qkv);
        }
        let (rows, stride) = qkv.tensor.dims2()?;
        let input = qkv.saved();
        let guard = values::<f32>(&qkv.tensor)?;
        let x: &[f32] = &guard;
        let layer = self.layer;
        let attention = match &mut self.mode {
            Mode::Packed(attention) => attention.clone(),
            Mode::Prefill(attention, caches) => {
                for (spans, cache) in attention.groups.iter().zip(caches.iter_mut()) {
                    for row in spans.iter().flat_map(|span| span.rows.clone()) {
                        let position = attention.positions[row];
                        let row = &x[row * stride..][..stride];
                        cache[layer].push(attention.heads, &attention.sight().rotation, position, row);
                    }
                }
                attention.clone()
            }
            Mode::Decode(attention, caches) => {
                use rayon::prelude::*;
                let (heads, sight) = (attention.heads, attention.sight());
                let width = heads.queries * heads.width;
                let mut out = vec![0f32; rows * width];
                let tasks = out.par_chunks_exact_mut(width).zip(caches.par_iter_mut()).enumerate();
                tasks.for_each(|(i, (out, cache))| {
                    let (position, row) = (attention.positions[i], &x[i * stride..][..stride]);
                    cache[layer].push(heads, &sight.rotation, position, row);
                    cache[layer].attend(heads, sight, position, row, out);
                });
                return Ok(Act::constant(tensor(out, (rows, width))?));
            }
            Mode::Grow(..) => return Err(Error::internal("keys are tensors, the kernels are not")),
        };
        let (y, lse) = attention.forward(x);
        drop(guard);
        let width = attention.heads.queries * attention.heads.width;
        let y = tensor(y, (rows, width))?;
        let output = y.clone();
        let lse = Arc::new(lse);
        Ok(self.node(qkv, y, false, move |dy, _| {
            let input = input.get()?;
            let (x, y) = (values::<f32>(&input)?, values::<f32>(&output)?);
            tensor(attention.backward(&x, &y, &lse, &values(dy)?), (rows, stride)).map(Some)
        }))
    }

    /// Some rows, [N, D]; one may come several times.
    fn gather(&mut self, x: &Act, rows: &[u32]) -> Result<Act> {
        if self.is_generic() {
            return self.generic_gather(x, rows);
        }
        let (total, width) = x.tensor.dims2()?;
        let mut y = vec![0f32; rows.len() * width];
        {
            let x = values::<f32>(&x.tensor)?;
            for (y, &row) in y.chunks_exact_mut(width).zip(rows) {
                y.copy_from_slice(&x[row as usize * width..][..width]);
            }
        }
        let indices = rows.to_vec();
        Ok(self.node(x, tensor(y, (rows.len(), width))?, false, move |dy, _| {
            let dy = values::<f32>(dy)?;
            let mut dx = vec![0f32; total * width];
            for (dy, &row) in dy.chunks_exact(width).zip(&indices) {
                let dx = &mut dx[row as usize * width..][..width];
                dx.iter_mut().zip(dy).for_each(|(x, y)| *x += y);
            }
            tensor(dx, (total, width)).map(Some)
        }))
    }

    /// log π(target) a row, [N]; the seed of the backward is the gradient of these. With `keep` the logits stay for it
    /// where they are few.
    pub(crate) fn log_probs(
        &mut self,
        x: &Act,
        parameter: usize,
        targets: &[u32],
        keep: bool,
    ) -> Result<Act> {
        if self.is_generic() {
            return self.generic_log_probs(x, parameter, targets);
        }
        let (rows, width) = x.tensor.dims2()?;
        let (input, weight, targets) = (x.saved(), self.parameter(parameter), targets.to_vec());
        let cap = self.logit_cap;
        let (log_probs, softmax) = {
            let head = Head { weight: &Kept::of(&weight)?, cap };
            head::forward(&values(&x.tensor)?, head, &targets, keep)
        };
        let trains = self.trains_decoder();
        Ok(self.node(x, tensor(log_probs, rows)?, trains, move |seeds, sink| {
            let input = input.get()?;
            let x = values::<f32>(&input)?;
            let rows_of_x = Matrix(View::new(&x, rows, width));
            let block = |first: usize, g: View| {
                if trains {
                    sink.product(parameter, first, Matrix(g), rows_of_x, Axis::Scored);
                }
            };
            let head = Head { weight: &Kept::of(&weight)?, cap };
            let dx = head::backward(&x, head, &targets, &softmax, &values(seeds)?, block);
            tensor(dx, (rows, width)).map(Some)
        }))
    }

    /// Logits over the vocabulary, [rows, V]: for generation only.
    pub(crate) fn logits(&mut self, x: &Act, parameter: usize) -> Result<Tensor> {
        let logits = self.linear(x, &[parameter])?.tensor;
        let Some(cap) = self.logit_cap else { return Ok(logits) };
        if self.is_generic() {
            return super::generic::cap_logits(&logits, cap);
        }
        let mut capped = values::<f32>(&logits)?.to_vec();
        head::cap_rows(&mut capped, cap);
        tensor(capped, logits.shape())
    }
}

fn kept(weights: &[Tensor]) -> Result<Vec<Kept<'_>>> {
    weights.iter().map(Kept::of).collect()
}
