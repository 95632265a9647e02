//! y = silu(gate) ∘ up, on rows [gate | up].

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{dispatch, sigmoid};

/// [T, 2F] → [T, F].
pub(crate) fn forward(gate_up: &[f32], width: usize) -> Vec<f32> {
    let rows = gate_up.len() / (2 * width);
    let mut y = vec![0f32; rows * width];
    let task = rows_per_task(rows);
    y.par_chunks_mut(task * width).zip(gate_up.par_chunks(task * 2 * width)).for_each(|(y, gate_up)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, gate_up) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
                    let (gate, up) = gate_up.split_at(width);
                    for i in 0..width {
                        y[i] = gate[i] * sigmoid(gate[i]) * up[i];
                    }
                }
            },
        );
    });
    y
}

/// The gradient of the input, [T, 2F], from that of the output, [T, F].
pub(crate) fn backward(gate_up: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let mut dx = vec![0f32; gate_up.len()];
    let task = rows_per_task(dy.len() / width);
    dx.par_chunks_mut(task * 2 * width)
        .zip(gate_up.par_chunks(task * 2 * width))
        .zip(dy.par_chunks(task * width))
        .for_each(|((dx, gate_up), dy)| {
            dispatch(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(2 * width).zip(gate_up.chunks_exact(2 * width));
                    for ((dx, gate_up), dy) in rows.zip(dy.chunks_exact(width)) {
                        let (gate, up) = gate_up.split_at(width);
                        let (dgate, dup) = dx.split_at_mut(width);
                        for i in 0..width {
                            let s = sigmoid(gate[i]);
                            let silu = s * gate[i];
                            dup[i] = dy[i] * silu;
                            dgate[i] = dy[i] * up[i] * (s + silu * (1.0 - s));
                        }
                    }
                },
            );
        });
    dx
}
