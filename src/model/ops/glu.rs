//! Gated layers: y = act(gate) ∘ up, on rows [gate | up].
//!
//! Both activations are x σ(a(x)): silu with a(x) = x, and the tanh form of gelu, ½ x (1 + tanh ½a(x)), with
//! a(x) = √(8/π) (x + 0.044715 x³).

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{dispatch, sigmoid};

/// Activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    GeluTanh,
}

/// [T, 2F] → [T, F].
pub(crate) fn forward(activation: Activation, gate_up: &[f32], width: usize) -> Vec<f32> {
    match activation {
        Activation::Silu => forward_of(silu, gate_up, width),
        Activation::GeluTanh => forward_of(gelu_tanh, gate_up, width),
    }
}

/// The gradient of the input, [T, 2F], from that of the output, [T, F].
pub(crate) fn backward(activation: Activation, gate_up: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    match activation {
        Activation::Silu => backward_of(silu, gate_up, dy, width),
        Activation::GeluTanh => backward_of(gelu_tanh, gate_up, dy, width),
    }
}

/// a(x) and a'(x).
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    (x, 1.0)
}

/// a(x) and a'(x).
#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    const SLOPE: f32 = 1.595_769; // √(8/π)
    let cubic = 0.044_715 * x * x;
    (SLOPE * x * (1.0 + cubic), SLOPE * (1.0 + 3.0 * cubic))
}

fn forward_of(inner: impl Fn(f32) -> (f32, f32) + Sync, gate_up: &[f32], width: usize) -> Vec<f32> {
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
                        y[i] = gate[i] * sigmoid(inner(gate[i]).0) * up[i];
                    }
                }
            },
        );
    });
    y
}

fn backward_of(
    inner: impl Fn(f32) -> (f32, f32) + Sync,
    gate_up: &[f32],
    dy: &[f32],
    width: usize,
) -> Vec<f32> {
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
                            let (a, slope) = inner(gate[i]);
                            let s = sigmoid(a);
                            let act = s * gate[i];
                            dup[i] = dy[i] * act;
                            dgate[i] = dy[i] * up[i] * (s + act * (1.0 - s) * slope);
                        }
                    }
                },
            );
        });
    dx
}
