//! Keys and values of a growing sequence, and the attention of its newest row.

use super::attention::{Heads, Rotation, Sight};
use super::simd::{axpy, dispatch, exp_in_place, max};

/// Numbers that are accumulated in registers together.
const BLOCK: usize = 32;

/// Rotated keys and values of one sequence in one layer.
///
/// Keys lie by dimension, so that scores of neighbouring positions are computed side by side.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    keys: Vec<f32>,   // [kv, d, capacity]
    values: Vec<f32>, // [kv, capacity, d]
    len: usize,
    capacity: usize, // a multiple of BLOCK
}

impl Cache {
    /// Room for `positions`.
    pub(crate) fn new(heads: Heads, positions: usize) -> Self {
        let capacity = positions.next_multiple_of(BLOCK);
        let size = heads.keys * capacity * heads.width;
        Self { keys: vec![0f32; size], values: vec![0f32; size], len: 0, capacity }
    }

    /// Appends a row [q | k | v] at `position`.
    pub(crate) fn push(&mut self, heads: Heads, rotation: &Rotation, position: u32, row: &[f32]) {
        assert!(self.len < self.capacity, "key cache is full");
        let (d, n) = (heads.width, self.capacity);
        let mut key = vec![0f32; d];
        for head in 0..heads.keys {
            rotation.rotate(position, &row[heads.key(head)..][..d], &mut key, 1.0, 1.0);
            let column = self.keys[head * d * n..][..d * n].iter_mut().skip(self.len).step_by(n);
            column.zip(&key).for_each(|(place, x)| *place = *x);
            let at = (head * n + self.len) * d;
            self.values[at..at + d].copy_from_slice(&row[heads.value(head)..][..d]);
        }
        self.len += 1;
    }

    /// Attention of one row over the positions held, the newest `window` of them, [q d].
    pub(crate) fn attend(&self, heads: Heads, sight: &Sight, position: u32, row: &[f32], out: &mut [f32]) {
        dispatch(
            #[inline(always)]
            || {
                let (d, n) = (heads.width, self.capacity);
                let start = self.len.saturating_sub(sight.window);
                let first = start / BLOCK * BLOCK;
                let mut q = vec![0f32; d];
                let mut scores = vec![0f32; (self.len - first).next_multiple_of(BLOCK)];
                for head in 0..heads.queries {
                    let query = &row[heads.query(head)..][..d];
                    sight.rotation.rotate(position, query, &mut q, heads.scale, 1.0);
                    let at = head / heads.share() * d * n;
                    dots(&q, &self.keys[at + first..at + d * n], n, &mut scores);
                    let scores = &mut scores[start - first..self.len - first];
                    let top = max(scores);
                    let inverse = 1.0 / exp_in_place(scores, top);
                    scores.iter_mut().for_each(|x| *x *= inverse);
                    mix(scores, &self.values[at + start * d..at + d * n], &mut out[head * d..][..d]);
                }
            },
        );
    }
}

/// scores[p] = Σᵢ q[i] keys[i, p], for whole blocks of positions; rows of `keys` begin `stride` apart.
#[inline(always)]
fn dots(q: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
    for (block, scores) in scores.chunks_exact_mut(BLOCK).enumerate() {
        let mut sums = [0f32; BLOCK];
        for (q, keys) in q.iter().zip(keys.chunks(stride)) {
            axpy(*q, &keys[block * BLOCK..][..BLOCK], &mut sums);
        }
        scores.copy_from_slice(&sums);
    }
}

/// out = Σₚ weights[p] values[p].
#[inline(always)]
fn mix(weights: &[f32], values: &[f32], out: &mut [f32]) {
    let width = out.len();
    let mut blocks = out.chunks_exact_mut(BLOCK);
    let mut at = 0;
    for out in &mut blocks {
        let mut sums = [0f32; BLOCK];
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            axpy(*weight, &value[at..][..BLOCK], &mut sums);
        }
        out.copy_from_slice(&sums);
        at += BLOCK;
    }
    let rest = blocks.into_remainder();
    rest.fill(0.0);
    for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
        axpy(*weight, &value[at..], rest);
    }
}
