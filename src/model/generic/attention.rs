//! Causal attention by tensor operations, as in [`super::super::ops::attention`].
//!
//! Groups of about one length are padded to the longest and computed together, under a mask of -∞ where a row does not
//! see another. The scores of a layer are computed again in the backward, not kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::super::ops::attention::{Attention, Heads};
use super::super::pass::{Mode, Pass};
use super::super::tape::Act;
use super::{cat, columns, ids, product};
use crate::data::Span;
use crate::error::{Error, Result};

/// Scores that are held at once.
const BUDGET: usize = 1 << 26;

/// What rows of one kind of layer see, as tensors.
pub(crate) struct Seen {
    cos: Tensor, // [T, 1, d / 2]
    sin: Tensor,
    chunks: Vec<Chunk>,
    /// The place of each row among the rows of all chunks, [T].
    back: Tensor,
}

/// Groups that are computed together, padded to `length` rows.
struct Chunk {
    groups: usize,
    length: usize,
    /// The row in each place, T where there is none, [groups · length].
    take: Tensor,
    /// 0 where a row sees another, -∞ elsewhere, [groups, 1, length, length].
    mask: Tensor,
}

impl Seen {
    /// Of the present layer; `padded` for rows that see each other alone, not keys that are held.
    fn new(attention: &Attention, device: &Device, padded: bool) -> Result<Self> {
        let rows = attention.positions.len();
        let (cos, sin) = attention.sight().rotation.rows(&attention.positions);
        let table = |values: Vec<f32>| {
            Ok::<_, Error>(Tensor::from_vec(values, (rows, 1, attention.heads.width / 2), device)?)
        };
        let mut back = vec![0u32; rows];
        let mut chunks = Vec::new();
        let mut at = 0;
        for groups in if padded { together(attention) } else { Vec::new() } {
            let length = groups.iter().map(|&g| attention.group_rows(g).len()).max().unwrap_or(0);
            let mut take = vec![rows as u32; groups.len() * length];
            let mut mask = vec![f32::NEG_INFINITY; groups.len() * length * length];
            for ((&group, take), mask) in
                groups.iter().zip(take.chunks_exact_mut(length)).zip(mask.chunks_exact_mut(length * length))
            {
                for (place, row) in attention.group_rows(group).enumerate() {
                    take[place] = row as u32;
                    back[row] = (at + place) as u32;
                }
                at += length;
                fill(mask, length, &attention.groups[group], attention.sight().window);
            }
            let size = groups.len();
            chunks.push(Chunk {
                groups: size,
                length,
                take: ids(&take, device)?,
                mask: Tensor::from_vec(mask, (size, 1, length, length), device)?,
            });
        }
        Ok(Self { cos: table(cos)?, sin: table(sin)?, chunks, back: ids(&back, device)? })
    }

    /// Heads [T, n, d] turned to their positions; with `direction` -1 back.
    fn rotate(&self, x: &Tensor, direction: f64) -> Result<Tensor> {
        let half = x.dim(2)? / 2;
        let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let sin = (&self.sin * direction)?;
        let new_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(&sin)?)?;
        let new_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(&sin)?)?;
        cat(&[new_low, new_high], 2)
    }

    /// Rows [q | k | v] with queries and keys turned.
    fn rotate_rows(&self, rows: &Tensor, h: Heads, direction: f64) -> Result<Tensor> {
        let turned = (h.queries + h.keys) * h.width;
        let heads = columns(rows, 0, turned)?.reshape(((), h.queries + h.keys, h.width))?;
        let heads = self.rotate(&heads, direction)?.reshape(((), turned))?;
        cat(&[heads, rows.narrow(1, turned, h.keys * h.width)?], 1)
    }

    /// Rows [T, (q + 2 kv) d] → outputs [T, q d].
    fn forward(&self, rows: &Tensor, h: Heads) -> Result<Tensor> {
        let padded = with_zeros(&self.rotate_rows(rows, h, 1.0)?)?;
        let one = |chunk: &Chunk| {
            let (_, _, v, p) = chunk.weights(&padded, h)?;
            chunk.rows(&product(&p, &v)?, h.queries)
        };
        self.unpadded(self.chunks.iter().map(one).collect::<Result<Vec<_>>>()?)
    }

    /// The gradient of the rows from that of the outputs.
    fn backward(&self, rows: &Tensor, dy: &Tensor, h: Heads) -> Result<Tensor> {
        let (padded, dy) = (with_zeros(&self.rotate_rows(rows, h, 1.0)?)?, with_zeros(dy)?);
        let scale = f64::from(h.scale);
        let one = |chunk: &Chunk| {
            let (q, k, v, p) = chunk.weights(&padded, h)?;
            let dy = chunk.heads(&dy.index_select(&chunk.take, 0)?, 0, h.queries, h)?;
            let dv = product(&p.t()?, &dy)?;
            let dp = product(&dy, &v.t()?)?;
            let mean = (&p * &dp)?.sum_keepdim(D::Minus1)?;
            let ds = ((p * dp.broadcast_sub(&mean)?)? * scale)?;
            let (dq, dk) = (product(&ds, &k)?, product(&ds.t()?, &q)?);
            cat(&[chunk.rows(&dq, h.queries)?, chunk.rows(&dk, h.keys)?, chunk.rows(&dv, h.keys)?], 1)
        };
        let drows = self.unpadded(self.chunks.iter().map(one).collect::<Result<Vec<_>>>()?)?;
        self.rotate_rows(&drows, h, -1.0)
    }

    fn unpadded(&self, chunks: Vec<Tensor>) -> Result<Tensor> {
        Ok(cat(&chunks, 0)?.index_select(&self.back, 0)?)
    }
}

impl Chunk {
    /// Heads of rows [groups · length, …] from one column on: [groups · kv, share · length, d], the heads that share keys
    /// one after another.
    fn heads(&self, rows: &Tensor, first: usize, heads: usize, h: Heads) -> Result<Tensor> {
        let part = columns(rows, first, heads * h.width)?;
        let part = part.reshape((self.groups, self.length, heads, h.width))?.transpose(1, 2)?.contiguous()?;
        Ok(part.reshape((self.groups * h.keys, heads / h.keys * self.length, h.width))?)
    }

    /// The way back, [groups · length, heads · d].
    fn rows(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let width = x.dim(2)?;
        let x = x.reshape((self.groups, heads, self.length, width))?.transpose(1, 2)?.contiguous()?;
        Ok(x.reshape((self.groups * self.length, heads * width))?)
    }

    /// q, k, v and softmax(scale · q kᵀ).
    fn weights(&self, padded: &Tensor, h: Heads) -> Result<(Tensor, Tensor, Tensor, Tensor)> {
        let rows = padded.index_select(&self.take, 0)?;
        let q = self.heads(&rows, 0, h.queries, h)?;
        let k = self.heads(&rows, h.queries * h.width, h.keys, h)?;
        let v = self.heads(&rows, (h.queries + h.keys) * h.width, h.keys, h)?;
        let scores = (product(&q, &k.t()?)? * f64::from(h.scale))?;
        let shape = scores.shape().clone();
        let scores = scores.reshape((self.groups, h.queries, self.length, self.length))?;
        let p = softmax(&scores.broadcast_add(&self.mask)?)?.reshape(shape)?;
        Ok((q, k, v, p))
    }
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let top = scores.max_keepdim(D::Minus1)?;
    let exps = scores.broadcast_sub(&top)?.exp()?;
    Ok(exps.broadcast_div(&exps.sum_keepdim(D::Minus1)?)?)
}

/// Rows and one more of zeros, for places without a row.
fn with_zeros(rows: &Tensor) -> Result<Tensor> {
    let zeros = Tensor::zeros((1, rows.dim(1)?), rows.dtype(), rows.device())?;
    cat(&[rows.clone(), zeros], 0)
}

/// Groups that are computed together: none is twice as long as another, and their scores are within the budget.
fn together(attention: &Attention) -> Vec<Vec<usize>> {
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for group in 0..attention.groups.len() {
        by_length.entry(attention.group_rows(group).len().next_power_of_two()).or_default().push(group);
    }
    let split = |(length, groups): (usize, Vec<usize>)| {
        let scores = attention.heads.queries * length * length;
        let most = (BUDGET / scores.max(1)).max(1);
        groups.chunks(most).map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    by_length.into_iter().flat_map(split).collect()
}

/// Writes 0 where a row of a group sees another, [length, length]; padding sees itself, so that its softmax is finite.
fn fill(mask: &mut [f32], length: usize, spans: &[Span], window: usize) {
    let base = spans.first().map_or(0, |span| span.rows.start);
    let mut used = 0;
    for Span { rows, prefix } in spans {
        for (own, row) in rows.clone().enumerate() {
            let mask = &mut mask[(row - base) * length..][..length];
            // prefix and own rows are one sequence, of which the row sees the last `window` up to itself
            let seen = (prefix.len() + own + 1).saturating_sub(window)..prefix.len() + own + 1;
            for place in seen {
                let key = if place < prefix.len() {
                    prefix.start + place
                } else {
                    rows.start + place - prefix.len()
                };
                mask[key - base] = 0.0;
            }
            used = used.max(row - base + 1);
        }
    }
    (used..length).for_each(|row| mask[row * length + row] = 0.0);
}

/// Rotated keys and values of one growing sequence in one layer, [kv, capacity, d].
pub(crate) struct KeyValues {
    keys: Tensor,
    values: Tensor,
    len: usize,
}

impl KeyValues {
    /// Room for `positions`.
    pub(crate) fn new(heads: Heads, positions: usize, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((heads.keys, positions, heads.width), DType::F32, device);
        Ok(Self { keys: zeros()?, values: zeros()?, len: 0 })
    }

    /// Appends rows [n, kv d].
    fn push(&mut self, keys: &Tensor, values: &Tensor, h: Heads) -> Result<()> {
        for (held, rows) in [(&self.keys, keys), (&self.values, values)] {
            let rows = rows.reshape(((), h.keys, h.width))?.transpose(0, 1)?.contiguous()?;
            held.slice_set(&rows, 1, self.len)?;
        }
        self.len += keys.dim(0)?;
        Ok(())
    }

    /// Attention of the newest rows, queries [n, q d], over what is held, each up to itself.
    fn attend(&self, queries: &Tensor, h: Heads, window: usize) -> Result<Tensor> {
        let n = queries.dim(0)?;
        let share = h.queries / h.keys;
        let first = (self.len - n + 1).saturating_sub(window);
        let seen = self.len - first;
        let held = |x: &Tensor| x.narrow(1, first, seen);
        let q = queries.reshape((n, h.queries, h.width))?.transpose(0, 1)?.contiguous()?;
        let q = q.reshape((h.keys, share * n, h.width))?;
        let mut scores = (product(&q, &held(&self.keys)?.t()?)? * f64::from(h.scale))?;
        if n > 1 {
            let mask = causal(n, first..self.len, window);
            let mask = Tensor::from_vec(mask, (1, n, seen), queries.device())?;
            scores = scores.reshape((h.queries, n, seen))?.broadcast_add(&mask)?;
        }
        let p = softmax(&scores)?.reshape((h.keys, share * n, seen))?;
        let y = product(&p, &held(&self.values)?)?.reshape((h.queries, n, h.width))?;
        Ok(y.transpose(0, 1)?.contiguous()?.reshape((n, h.queries * h.width))?)
    }
}

/// 0 where one of the last `n` of the places sees another, -∞ elsewhere, [n, places].
fn causal(n: usize, places: Range<usize>, window: usize) -> Vec<f32> {
    let rows = places.end - n..places.end;
    let sees = |row: usize, key: usize| key <= row && row - key < window;
    let value = |row, key| if sees(row, key) { 0.0 } else { f32::NEG_INFINITY };
    rows.flat_map(|row| places.clone().map(move |key| value(row, key))).collect()
}

impl Pass<'_> {
    /// What rows of the present layer see, built once a pass for each kind of layer.
    fn seen(&mut self, device: &Device) -> Result<Arc<Seen>> {
        let padded = matches!(self.mode, Mode::Packed(_));
        let attention = self.mode.attention();
        let known = &mut self.seen[usize::from(attention.local)];
        if let Some(seen) = known {
            return Ok(seen.clone());
        }
        let seen = Arc::new(Seen::new(attention, device, padded)?);
        *known = Some(seen.clone());
        Ok(seen)
    }

    pub(in super::super) fn generic_attention(&mut self, qkv: &Act) -> Result<Act> {
        let input = qkv.tensor.clone();
        let seen = self.seen(input.device())?;
        let layer = self.layer;
        let heads = match &mut self.mode {
            Mode::Packed(attention) => attention.heads,
            Mode::Grow(attention, sequences) => {
                let rows = seen.rotate_rows(&input, attention.heads, 1.0)?;
                return Ok(Act::constant(grow(attention, sequences, layer, &rows)?));
            }
            Mode::Prefill(..) | Mode::Decode(..) => {
                return Err(Error::internal("the kernels are tensors, the keys are not"));
            }
        };
        let (y, input) = (seen.forward(&input, heads)?, qkv.saved());
        Ok(self.node(qkv, y, false, move |dy, _| seen.backward(&input.get()?, dy, heads).map(Some)))
    }
}

/// Keeps the keys and values of new rows, turned to their positions, and lets the rows see all that is held, [T, q d].
fn grow(
    attention: &Attention,
    sequences: &mut [&mut Vec<KeyValues>],
    layer: usize,
    rows: &Tensor,
) -> Result<Tensor> {
    let (h, window) = (attention.heads, attention.sight().window);
    let mut outputs = Vec::with_capacity(sequences.len());
    for (group, sequence) in sequences.iter_mut().enumerate() {
        let own = attention.group_rows(group);
        let own = rows.narrow(0, own.start, own.len())?;
        let (q, kv) = (h.queries * h.width, h.keys * h.width);
        let held = &mut sequence[layer];
        held.push(&columns(&own, q, kv)?, &columns(&own, q + kv, kv)?, h)?;
        outputs.push(held.attend(&columns(&own, 0, q)?, h, window)?);
    }
    cat(&outputs, 0)
}
