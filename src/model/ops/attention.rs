//! Causal attention on packed rows, rotary positions included, by blocks of queries.
//!
//! Rows are [q | k | v] as the projections leave them. For each query head,
//! y = softmax(scale · q Kᵀ) V over the rows that it sees: those of its prefix, and its own span up to itself; in a
//! window of n, the last n of them.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::gemm::{Into, Threads, View, ViewMut, gemm};
use super::simd::{dispatch, dot, exp, exp_in_place, max};
use super::with_scratch;
use crate::data::Span;

/// Queries of one block.
const BLOCK: usize = 64;

/// cos and sin of every position and frequency, [positions, head_dim / 2].
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// The table for positions below `positions`. Angles are computed in f32, as transformers does.
    pub(crate) fn new(frequencies: &[f32], positions: usize) -> Self {
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (sin, cos) = angles.map(f32::sin_cos).unzip();
        Self { half: frequencies.len(), cos, sin }
    }

    /// Number of positions.
    pub(crate) fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// cos and sin of these positions, [positions, head_dim / 2].
    pub(crate) fn rows(&self, positions: &[u32]) -> (Vec<f32>, Vec<f32>) {
        let of = |table: &[f32]| {
            positions.iter().flat_map(|&p| &table[p as usize * self.half..][..self.half]).copied().collect()
        };
        (of(&self.cos), of(&self.sin))
    }

    fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half;
        (&self.cos[start..start + self.half], &self.sin[start..start + self.half])
    }

    /// Rotates `src` to its position, times `scale`; with `direction` -1 back.
    #[inline(always)]
    pub(super) fn rotate(&self, position: u32, src: &[f32], dst: &mut [f32], scale: f32, direction: f32) {
        let (cos, sin) = self.at(position);
        let (dst_low, dst_high) = dst.split_at_mut(self.half);
        let (low, high) = src.split_at(self.half);
        for i in 0..self.half {
            let (c, s) = (cos[i] * scale, sin[i] * scale * direction);
            dst_low[i] = low[i] * c - high[i] * s;
            dst_high[i] = high[i] * c + low[i] * s;
        }
    }
}

/// Head counts and width, and what scores are multiplied by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
    pub(crate) scale: f32,
}

impl Heads {
    /// Width of a row [q | k | v].
    pub(crate) fn stride(&self) -> usize {
        (self.queries + 2 * self.keys) * self.width
    }

    pub(super) fn share(&self) -> usize {
        self.queries / self.keys
    }

    pub(super) fn query(&self, head: usize) -> usize {
        head * self.width
    }

    pub(super) fn key(&self, head: usize) -> usize {
        (self.queries + head) * self.width
    }

    pub(super) fn value(&self, head: usize) -> usize {
        (self.queries + self.keys + head) * self.width
    }
}

/// How a layer places and limits what its rows see.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) rotation: Arc<Rotation>,
    /// Rows that a row sees at most, itself included; `usize::MAX` where there is no limit.
    pub(crate) window: usize,
}

/// Who sees whom.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) heads: Heads,
    pub(crate) groups: Arc<Vec<Vec<Span>>>,
    pub(crate) positions: Arc<Vec<u32>>, // [T]
    /// Of the global layers, and of the local ones.
    pub(crate) sights: [Sight; 2],
    /// The present layer is local.
    pub(crate) local: bool,
}

/// Rotated keys of a group's rows, [n, d], the first of them row `base`.
struct Keys {
    values: Vec<f32>,
    base: usize,
}

/// A few queries of one span, and the rows that some of them see: the end of the prefix, then the span's own.
struct Block {
    queries: Range<usize>,
    prefix: Range<usize>,
    own: Range<usize>,
    window: usize,
}

impl Block {
    /// The part of a row's scores, [prefix + own], that the row sees; the others become 0.
    #[inline(always)]
    fn seen<'a>(&self, row: usize, scores: &'a mut [f32]) -> &'a mut [f32] {
        let end = self.prefix.len() + row - self.own.start + 1;
        let start = end.saturating_sub(self.window);
        scores[..start].fill(0.0);
        scores[end..].fill(0.0);
        &mut scores[start..end]
    }
}

/// Spans in blocks of queries.
fn blocks(spans: &[Span], window: usize) -> impl Iterator<Item = Block> {
    spans.iter().flat_map(move |span| {
        let (rows, prefix) = (span.rows.clone(), span.prefix.clone());
        rows.clone().step_by(BLOCK).map(move |start| {
            let queries = start..(start + BLOCK).min(rows.end);
            // what lies before the window of the first query lies before that of all
            let before = (prefix.len() + start - rows.start + 1).saturating_sub(window);
            let cut = before.min(prefix.len());
            let own = rows.start + before - cut..queries.end;
            Block { queries, prefix: prefix.start + cut..prefix.end, own, window }
        })
    })
}

/// Scores that one head computes over the spans of a group, those that a row of a block does not see among them.
pub(crate) fn scores(spans: &[Span], window: usize) -> usize {
    blocks(spans, window).map(|block| block.queries.len() * (block.prefix.len() + block.own.len())).sum()
}

/// Scratch of one block of queries.
struct Scratch<'a> {
    q: &'a mut [f32],      // [BLOCK, d]
    scores: &'a mut [f32], // [BLOCK, n]
}

impl<'a> Scratch<'a> {
    /// The first numbers of a larger scratch, and what is left of it.
    fn split(scratch: &'a mut [f32], d: usize, n: usize) -> (Self, &'a mut [f32]) {
        let (q, rest) = scratch.split_at_mut(BLOCK * d);
        let (scores, rest) = rest.split_at_mut(BLOCK * n);
        (Self { q, scores }, rest)
    }
}

impl Attention {
    /// What rows of the present layer see.
    pub(crate) fn sight(&self) -> &Sight {
        &self.sights[usize::from(self.local)]
    }

    pub(crate) fn group_rows(&self, group: usize) -> Range<usize> {
        let spans = &self.groups[group];
        let start = spans.first().map_or(0, |s| s.rows.start);
        start..spans.last().map_or(start, |s| s.rows.end)
    }

    fn tasks(&self) -> Vec<(usize, usize)> {
        (0..self.groups.len()).flat_map(|g| (0..self.heads.keys).map(move |h| (g, h))).collect()
    }

    #[inline(always)]
    fn keys(&self, qkv: &[f32], rows: &Range<usize>, head: usize) -> Keys {
        let (h, d) = (self.heads, self.heads.width);
        let mut values = vec![0f32; rows.len() * d];
        for (row, key) in rows.clone().zip(values.chunks_exact_mut(d)) {
            let src = &qkv[row * h.stride() + h.key(head)..][..d];
            self.sight().rotation.rotate(self.positions[row], src, key, 1.0, 1.0);
        }
        Keys { values, base: rows.start }
    }

    /// Every span of a group in blocks of queries.
    fn blocks(&self, group: usize) -> impl Iterator<Item = Block> {
        blocks(&self.groups[group], self.sight().window)
    }

    /// Rotated, scaled queries of a block, then scores [block, prefix + own].
    #[inline(always)]
    fn scores(&self, qkv: &[f32], keys: &Keys, block: &Block, head: usize, s: &mut Scratch) {
        let (h, d) = (self.heads, self.heads.width);
        for (row, q) in block.queries.clone().zip(s.q.chunks_exact_mut(d)) {
            let src = &qkv[row * h.stride() + h.query(head)..][..d];
            self.sight().rotation.rotate(self.positions[row], src, q, h.scale, 1.0);
        }
        let (n, prefix, own) = (block.queries.len(), block.prefix.len(), block.own.len());
        let width = prefix + own;
        let q = View::new(s.q, n, d);
        let keys_of =
            |rows: Range<usize>| View::new(&keys.values[(rows.start - keys.base) * d..], rows.len(), d).t();
        if prefix > 0 {
            let dst = ViewMut::strided(s.scores, n, prefix, width);
            gemm(dst, Into::Overwrite, 1.0, q, keys_of(block.prefix.clone()), Threads::One);
        }
        let dst = ViewMut::strided(&mut s.scores[prefix..], n, own, width);
        gemm(dst, Into::Overwrite, 1.0, q, keys_of(block.own.clone()), Threads::One);
    }

    /// Rows [T, (q + 2 kv) d] → outputs [T, q d] and the log-sum-exp of each row's scores, [q, T].
    pub(crate) fn forward(&self, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (h, d) = (self.heads, self.heads.width);
        let total = qkv.len() / h.stride();
        let parts: Vec<(Vec<f32>, Vec<f32>)> = self
            .tasks()
            .into_par_iter()
            .with_max_len(1)
            .map(|(group, kv)| {
                with_scratch(BLOCK * (d + self.group_rows(group).len()), |scratch| {
                    dispatch(
                        #[inline(always)]
                        || self.forward_task(qkv, group, kv, scratch),
                    )
                })
            })
            .collect();
        let mut out = vec![0f32; total * h.queries * d];
        let mut lse = vec![0f32; h.queries * total];
        let width = h.share() * d;
        for ((group, kv), (y, l)) in self.tasks().into_iter().zip(&parts) {
            let rows = self.group_rows(group);
            for (row, y) in rows.clone().zip(y.chunks_exact(width)) {
                out[(row * h.keys + kv) * width..][..width].copy_from_slice(y);
            }
            for (i, l) in l.chunks_exact(rows.len().max(1)).enumerate() {
                lse[(kv * h.share() + i) * total..][rows.clone()].copy_from_slice(l);
            }
        }
        (out, lse)
    }

    #[inline(always)]
    fn forward_task(
        &self,
        qkv: &[f32],
        group: usize,
        kv: usize,
        scratch: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let (h, d) = (self.heads, self.heads.width);
        let rows = self.group_rows(group);
        let (base, n, width) = (rows.start, rows.len(), h.share() * d);
        let keys = self.keys(qkv, &rows, kv);
        let mut out = vec![0f32; n * width];
        let mut lse = vec![0f32; h.share() * n];
        let (mut s, _) = Scratch::split(scratch, d, n);
        for i in 0..h.share() {
            for block in self.blocks(group) {
                self.scores(qkv, &keys, &block, kv * h.share() + i, &mut s);
                let (n_block, prefix, own) = (block.queries.len(), block.prefix.len(), block.own.len());
                for (row, scores) in block.queries.clone().zip(s.scores.chunks_exact_mut(prefix + own)) {
                    let seen = block.seen(row, scores);
                    let top = max(seen);
                    let sum = exp_in_place(seen, top);
                    let inverse = 1.0 / sum;
                    seen.iter_mut().for_each(|x| *x *= inverse);
                    lse[i * n + row - base] = top + sum.ln();
                }
                let values = |rows: Range<usize>| {
                    View::strided(&qkv[rows.start * h.stride() + h.value(kv)..], rows.len(), d, h.stride())
                };
                let weights = View::new(s.scores, n_block, prefix + own);
                let at = (block.queries.start - base) * width + i * d;
                let dst = ViewMut::strided(&mut out[at..], n_block, d, width);
                let (a, b) = (weights.cols(prefix..prefix + own), values(block.own.clone()));
                gemm(dst, Into::Overwrite, 1.0, a, b, Threads::One);
                if prefix > 0 {
                    let dst = ViewMut::strided(&mut out[at..], n_block, d, width);
                    let (a, b) = (weights.cols(0..prefix), values(block.prefix.clone()));
                    gemm(dst, Into::Add, 1.0, a, b, Threads::One);
                }
            }
        }
        (out, lse)
    }

    /// The gradient of the rows, [T, (q + 2 kv) d], from that of the outputs, [T, q d].
    pub(crate) fn backward(&self, qkv: &[f32], out: &[f32], lse: &[f32], dout: &[f32]) -> Vec<f32> {
        let (h, d) = (self.heads, self.heads.width);
        let parts: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = self
            .tasks()
            .into_par_iter()
            .with_max_len(1)
            .map(|(group, kv)| {
                with_scratch(2 * BLOCK * (d + self.group_rows(group).len()), |scratch| {
                    dispatch(
                        #[inline(always)]
                        || self.backward_task(qkv, (out, lse, dout), group, kv, scratch),
                    )
                })
            })
            .collect();
        let mut dqkv = vec![0f32; qkv.len()];
        let width = h.share() * d;
        for ((group, kv), (dq, dk, dv)) in self.tasks().into_iter().zip(&parts) {
            let grads = dq.chunks_exact(width).zip(dk.chunks_exact(d)).zip(dv.chunks_exact(d));
            for (row, ((dq, dk), dv)) in self.group_rows(group).zip(grads) {
                let dst = &mut dqkv[row * h.stride()..][..h.stride()];
                dst[h.query(kv * h.share())..][..width].copy_from_slice(dq);
                dst[h.key(kv)..][..d].copy_from_slice(dk);
                dst[h.value(kv)..][..d].copy_from_slice(dv);
            }
        }
        dqkv
    }

    #[inline(always)]
    fn backward_task(
        &self,
        qkv: &[f32],
        (out, lse, dout): (&[f32], &[f32], &[f32]),
        group: usize,
        kv: usize,
        scratch: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (h, d) = (self.heads, self.heads.width);
        let rows = self.group_rows(group);
        let total = lse.len() / h.queries;
        let (base, n, width, out_stride) = (rows.start, rows.len(), h.share() * d, h.queries * d);
        let keys = self.keys(qkv, &rows, kv);
        let mut dq = vec![0f32; n * width];
        let mut dk = vec![0f32; n * d];
        let mut dv = vec![0f32; n * d];
        let (mut s, rest) = Scratch::split(scratch, d, n);
        let (Scratch { q: dq_block, scores: dscores }, _) = Scratch::split(rest, d, n);
        for i in 0..h.share() {
            let head = kv * h.share() + i;
            for block in self.blocks(group) {
                self.scores(qkv, &keys, &block, head, &mut s);
                let (n_block, prefix, own) = (block.queries.len(), block.prefix.len(), block.own.len());
                let seen_width = prefix + own;
                let values = |rows: Range<usize>| {
                    View::strided(&qkv[rows.start * h.stride() + h.value(kv)..], rows.len(), d, h.stride())
                };
                let at = block.queries.start * out_stride + head * d;
                let dy = View::strided(&dout[at..], n_block, d, out_stride);
                if prefix > 0 {
                    let dst = ViewMut::strided(dscores, n_block, prefix, seen_width);
                    gemm(dst, Into::Overwrite, 1.0, dy, values(block.prefix.clone()).t(), Threads::One);
                }
                let dst = ViewMut::strided(&mut dscores[prefix..], n_block, own, seen_width);
                gemm(dst, Into::Overwrite, 1.0, dy, values(block.own.clone()).t(), Threads::One);

                let both = s.scores.chunks_exact_mut(seen_width).zip(dscores.chunks_exact_mut(seen_width));
                for (row, (p, dp)) in block.queries.clone().zip(both) {
                    let (p, dp) = (block.seen(row, p), block.seen(row, dp));
                    let log_sum = lse[head * total + row];
                    p.iter_mut().for_each(|x| *x = exp(*x - log_sum));
                    let at = row * out_stride + head * d;
                    let mean = dot(&out[at..at + d], &dout[at..at + d]);
                    for (dp, p) in dp.iter_mut().zip(p) {
                        *dp = *p * (*dp - mean);
                    }
                }

                let p = View::new(s.scores, n_block, seen_width);
                let dp = View::new(dscores, n_block, seen_width);
                let q = View::new(s.q, n_block, d);
                let mut parts = vec![(prefix..seen_width, block.own.clone())];
                if prefix > 0 {
                    parts.push((0..prefix, block.prefix.clone()));
                }
                for (part, (columns, rows)) in parts.into_iter().enumerate() {
                    let at = (rows.start - base) * d;
                    let into = if part == 0 { Into::Overwrite } else { Into::Add };
                    let (p, dp) = (p.cols(columns.clone()), dp.cols(columns));
                    gemm(ViewMut::new(&mut dv[at..], rows.len(), d), Into::Add, 1.0, p.t(), dy, Threads::One);
                    gemm(ViewMut::new(&mut dk[at..], rows.len(), d), Into::Add, 1.0, dp.t(), q, Threads::One);
                    let dst = ViewMut::new(dq_block, n_block, d);
                    let keys = View::new(&keys.values[at..], rows.len(), d);
                    gemm(dst, into, h.scale, dp, keys, Threads::One);
                }
                for (row, src) in block.queries.clone().zip(dq_block.chunks_exact(d)) {
                    let dst = &mut dq[(row - base) * width + i * d..][..d];
                    self.sight().rotation.rotate(self.positions[row], src, dst, 1.0, -1.0);
                }
            }
        }
        let mut rotated = vec![0f32; d];
        for (row, dk) in rows.zip(dk.chunks_exact_mut(d)) {
            self.sight().rotation.rotate(self.positions[row], dk, &mut rotated, 1.0, -1.0);
            dk.copy_from_slice(&rotated);
        }
        (dq, dk, dv)
    }
}
