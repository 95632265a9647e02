//! RMS normalisation: y = x · r ∘ w with r = (mean x² + ε)^(-½) a row.

use std::ops::Range;

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{axpy, dispatch, dot, dot3};

/// `heads` vectors of `width` numbers inside rows of `stride`, from column `offset`: an ordinary norm has one
/// head as wide as the row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) stride: usize,
    pub(crate) offset: usize,
    pub(crate) heads: usize,
    pub(crate) width: usize,
}

impl Heads {
    pub(crate) fn row(width: usize) -> Self {
        Self { stride: width, offset: 0, heads: 1, width }
    }

    fn columns(&self, head: usize) -> Range<usize> {
        let start = self.offset + head * self.width;
        start..start + self.width
    }
}

/// Normalises in place in `y`, a copy of x; returns r, [T, heads].
pub(crate) fn forward(y: &mut [f32], w: &[f32], eps: f32, h: Heads) -> Vec<f32> {
    let rows = y.len() / h.stride;
    let mut r = vec![0f32; rows * h.heads];
    let task = rows_per_task(rows);
    y.par_chunks_mut(task * h.stride).zip(r.par_chunks_mut(task * h.heads)).for_each(|(y, r)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, r) in y.chunks_exact_mut(h.stride).zip(r.chunks_exact_mut(h.heads)) {
                    for (head, r) in r.iter_mut().enumerate() {
                        let y = &mut y[h.columns(head)];
                        let square = dot(y, y) / h.width as f32 + eps;
                        // 1/∞ would hide an overflow as a row of zeros
                        *r = if square.is_finite() { 1.0 / square.sqrt() } else { f32::NAN };
                        scale(y, w, *r);
                    }
                }
            },
        );
    });
    r
}

/// The same where r is known; to the same bits.
pub(crate) fn again(y: &mut [f32], w: &[f32], r: &[f32], h: Heads) {
    let task = rows_per_task(y.len() / h.stride);
    y.par_chunks_mut(task * h.stride).zip(r.par_chunks(task * h.heads)).for_each(|(y, r)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, r) in y.chunks_exact_mut(h.stride).zip(r.chunks_exact(h.heads)) {
                    for (head, r) in r.iter().enumerate() {
                        scale(&mut y[h.columns(head)], w, *r);
                    }
                }
            },
        );
    });
}

/// y ← y · r ∘ w.
#[inline(always)]
fn scale(y: &mut [f32], w: &[f32], r: f32) {
    y.iter_mut().zip(w).for_each(|(y, w)| *y *= r * w);
}

/// Turns dy into dx in place; columns outside the heads are left as they are.
pub(crate) fn backward(dy: &mut [f32], x: &[f32], r: &[f32], w: &[f32], h: Heads) {
    let task = rows_per_task(dy.len() / h.stride);
    dy.par_chunks_mut(task * h.stride)
        .zip(x.par_chunks(task * h.stride))
        .zip(r.par_chunks(task * h.heads))
        .for_each(|((dy, x), r)| {
            dispatch(
                #[inline(always)]
                || {
                    let rows = dy.chunks_exact_mut(h.stride).zip(x.chunks_exact(h.stride));
                    for ((dy, x), r) in rows.zip(r.chunks_exact(h.heads)) {
                        for (head, &r) in r.iter().enumerate() {
                            let (dy, x) = (&mut dy[h.columns(head)], &x[h.columns(head)]);
                            let c = dot3(x, dy, w) * r * r * r / h.width as f32;
                            for i in 0..h.width {
                                dy[i] = (dy[i] * w[i]).mul_add(r, -(x[i] * c));
                            }
                        }
                    }
                },
            );
        });
}

/// Per segment Σ over its rows and heads of dy ∘ x r: the gradient of w before weighting, [K, width].
pub(crate) fn weight_sums(dy: &[f32], x: &[f32], r: &[f32], h: Heads, segments: &[Range<usize>]) -> Vec<f32> {
    let mut sums = vec![0f32; segments.len() * h.width];
    sums.par_chunks_mut(h.width).zip(segments).for_each(|(sum, rows)| {
        dispatch(
            #[inline(always)]
            || {
                for row in rows.clone() {
                    for head in 0..h.heads {
                        let columns = h.columns(head);
                        let (dy, x) = (&dy[row * h.stride..][columns.clone()], &x[row * h.stride..][columns]);
                        let r = r[row * h.heads + head];
                        for i in 0..h.width {
                            sum[i] = (x[i] * r).mul_add(dy[i], sum[i]);
                        }
                    }
                }
            },
        );
    });
    sums
}

/// y = a + b.
pub(crate) fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut y = a.to_vec();
    y.par_chunks_mut(1 << 14).zip(b.par_chunks(1 << 14)).for_each(|(y, b)| {
        dispatch(
            #[inline(always)]
            || axpy(1.0, b, y),
        );
    });
    y
}
