//! log π of each scored token: the head fused with log-softmax, by blocks of the vocabulary.
//!
//! With a cap c, logits are c tanh(logit / c). The forward keeps one log-sum-exp a row and, where they are few, the logits;
//! otherwise no [N, V] tensor exists, and the backward computes a block's logits again.

use rayon::prelude::*;

use super::gemm::{Into, Threads, View, ViewMut, gemm};
use super::kept::Kept;
use super::simd::{dispatch, exp, exp_sum, max, tanh};
use super::{linear, rows_per_task, with_scratch};

/// Scalars of one block of logits.
const BUDGET: usize = 1 << 20;

/// Scalars up to which all logits are kept: 32 MiB.
const KEPT: usize = 1 << 23;

/// True if a forward that may keep its logits does.
pub(crate) fn keeps(rows: usize, vocab: usize) -> bool {
    rows * vocab <= KEPT
}

/// Words of a block for `rows` rows.
pub(crate) fn block(rows: usize, vocab: usize) -> usize {
    (BUDGET / rows.max(1)).next_multiple_of(64).clamp(64, vocab.max(64))
}

fn blocks(rows: usize, vocab: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = block(rows, vocab);
    (0..vocab).step_by(step).map(move |start| start..(start + step).min(vocab))
}

/// The head W, [V, D], and the cap of its logits.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) weight: &'a Kept<'a>,
    pub(crate) cap: Option<f32>,
}

/// logit ← c tanh(logit / c).
pub(crate) fn cap_rows(logits: &mut [f32], cap: f32) {
    logits.par_chunks_mut(1 << 14).for_each(|logits| {
        dispatch(
            #[inline(always)]
            || cap_row(logits, cap),
        );
    });
}

/// c tanh(x / c) and its derivative.
#[inline(always)]
fn capped(x: f32, cap: f32) -> (f32, f32) {
    let t = tanh(x / cap);
    (cap * t, 1.0 - t * t)
}

#[inline(always)]
fn cap_row(logits: &mut [f32], cap: f32) {
    logits.iter_mut().for_each(|x| *x = capped(*x, cap).0);
}

/// What a forward leaves for its backward.
pub(crate) struct Softmax {
    /// Log-sum-exp of each row, [N].
    lse: Vec<f32>,
    /// Before the cap, [N, V].
    logits: Option<Vec<f32>>,
}

/// Hidden rows [N, D] → log-probs of the targets [N]; with `keep` the logits stay where they are few.
pub(crate) fn forward(x: &[f32], head: Head, targets: &[u32], keep: bool) -> (Vec<f32>, Softmax) {
    let Head { weight, cap } = head;
    let (rows, vocab, width) = (targets.len(), weight.len(), x.len() / targets.len().max(1));
    let (x, step) = (View::new(x, rows, width), block(rows, vocab));
    // running maximum, sum of exponentials, and the target's logit, a row
    let mut state = vec![(f32::NEG_INFINITY, 0f32, 0f32); rows];
    let logits = if keep && keeps(rows, vocab) {
        let logits = linear::forward(x, std::slice::from_ref(weight), None);
        advance(&mut state, View::new(&logits, rows, vocab), (0, step), targets, cap);
        Some(logits)
    } else {
        let mut scratch = Vec::new();
        let mut logits = vec![0f32; rows * step];
        for words in blocks(rows, vocab) {
            let w = weight.rows(words.clone(), &mut scratch);
            gemm(ViewMut::new(&mut logits, rows, words.len()), Into::Overwrite, 1.0, x, w.t(), Threads::All);
            advance(&mut state, View::new(&logits, rows, words.len()), (words.start, step), targets, cap);
        }
        None
    };
    // the difference first: top and logit are large, their difference is not
    let rows = state.iter().map(|&(top, sum, logit)| ((logit - top) - sum.ln(), top + sum.ln()));
    let (log_probs, lse) = rows.unzip();
    (log_probs, Softmax { lse, logits })
}

/// Takes logits of words from `first` on into the state of each row, `step` words at a time.
fn advance(
    state: &mut [(f32, f32, f32)],
    logits: View,
    (first, step): (usize, usize),
    targets: &[u32],
    cap: Option<f32>,
) {
    let task = rows_per_task(state.len());
    let tasks = state.par_chunks_mut(task).zip(targets.par_chunks(task)).enumerate();
    tasks.for_each(|(chunk, (state, targets))| {
        with_scratch(if cap.is_some() { step } else { 0 }, |scratch| {
            dispatch(
                #[inline(always)]
                || {
                    for (i, (state, &target)) in state.iter_mut().zip(targets).enumerate() {
                        // in the same steps where all logits are there: to the same bits
                        for (block, mut row) in logits.row(chunk * task + i).chunks(step).enumerate() {
                            let first = first + block * step;
                            if let Some(cap) = cap {
                                let capped = &mut scratch[..row.len()];
                                capped.copy_from_slice(row);
                                cap_row(capped, cap);
                                row = capped;
                            }
                            if let Some(&logit) =
                                (target as usize).checked_sub(first).and_then(|word| row.get(word))
                            {
                                state.2 = logit;
                            }
                            let top = state.0.max(max(row));
                            state.1 = state.1 * exp(state.0 - top) + exp_sum(row, top);
                            state.0 = top;
                        }
                    }
                },
            );
        });
    });
}

/// For seeds v [N], G = v (onehot - softmax): calls `block(first word, G [N, n])` for each block of words, and
/// returns the gradient of the hidden rows, G W [N, D].
pub(crate) fn backward(
    x: &[f32],
    head: Head,
    targets: &[u32],
    softmax: &Softmax,
    seeds: &[f32],
    mut each_block: impl FnMut(usize, View),
) -> Vec<f32> {
    let Head { weight, cap } = head;
    let (rows, vocab, width) = (targets.len(), weight.len(), x.len() / targets.len().max(1));
    let mut scratch = Vec::new();
    let mut g = vec![0f32; rows * block(rows, vocab)];
    let mut dx = vec![0f32; rows * width];
    for words in blocks(rows, vocab) {
        let n = words.len();
        let w = weight.rows(words.clone(), &mut scratch);
        if softmax.logits.is_none() {
            let dst = ViewMut::new(&mut g, rows, n);
            gemm(dst, Into::Overwrite, 1.0, View::new(x, rows, width), w.t(), Threads::All);
        }
        let rows_of_g = g.par_chunks_exact_mut(n).take(rows).enumerate();
        rows_of_g.zip(targets).zip(softmax.lse.par_iter().zip(seeds)).for_each(
            |(((i, row), &target), (&lse, &seed))| {
                if let Some(logits) = &softmax.logits {
                    row.copy_from_slice(&logits[i * vocab..][words.clone()]);
                }
                let word = (target as usize).checked_sub(words.start).filter(|&word| word < n);
                let at_target = word.map(|word| row[word]);
                dispatch(
                    #[inline(always)]
                    || match cap {
                        None => row.iter_mut().for_each(|logit| *logit = -seed * exp(*logit - lse)),
                        Some(cap) => row.iter_mut().for_each(|logit| {
                            let (capped, slope) = capped(*logit, cap);
                            *logit = -seed * exp(capped - lse) * slope;
                        }),
                    },
                );
                if let (Some(word), Some(logit)) = (word, at_target) {
                    row[word] += seed * cap.map_or(1.0, |cap| capped(logit, cap).1);
                }
            },
        );
        let g = View::new(&g, rows, n);
        gemm(ViewMut::new(&mut dx, rows, width), Into::Add, 1.0, g, w, Threads::All);
        each_block(words.start, g);
    }
    dx
}
