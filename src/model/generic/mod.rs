//! The operations of [`super::pass`] as ordinary tensor operations, on whatever device the weights are.
//!
//! The tape, the order of the operations and what they save are those of the fused kernels; so is what they compute, up to
//! rounding. Nothing here is differentiated by candle: each operation works on plain tensors and leaves its backward as a
//! closure of such operations.

mod attention;
mod head;

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::lora::LowRank;
use super::ops::glu::Activation;
use super::ops::norm::Heads;
use super::pass::Pass;
use super::tape::{Act, Saved};
use crate::error::{Error, Result};

pub(crate) use attention::{KeyValues, Seen};
pub(crate) use head::cap_logits;

/// a b of matrices, or of batches of them.
///
/// CUDA takes a whole matrix or the transpose of one, but no part of a wider one.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(whole(a)?.matmul(&whole(b)?)?)
}

fn whole(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
    let strides = &x.stride()[x.rank() - 2..];
    let fits = *strides == [columns, 1] || *strides == [1, rows];
    Ok(if fits { x.clone() } else { x.contiguous()? })
}

/// Pieces side by side.
fn cat(pieces: &[Tensor], dim: usize) -> Result<Tensor> {
    match pieces {
        [one] => Ok(one.contiguous()?),
        // of pieces that are not contiguous candle makes a tensor that is not
        _ => {
            let pieces = pieces.iter().map(Tensor::contiguous).collect::<candle_core::Result<Vec<_>>>()?;
            Ok(Tensor::cat(&pieces, dim)?.contiguous()?)
        }
    }
}

/// Some columns of rows, contiguous.
fn columns(x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
    Ok(x.narrow(1, first, count)?.contiguous()?)
}

/// Row numbers or token ids on `device`.
fn ids(values: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), device)?)
}

/// A weight as f32, however it is kept.
fn wide(weight: &Tensor) -> Result<Tensor> {
    Ok(weight.to_dtype(DType::F32)?)
}

/// The sum of what is there.
fn sum(a: Option<Tensor>, b: Tensor) -> Result<Tensor> {
    Ok(match a {
        None => b,
        Some(a) => (a + b)?,
    })
}

/// 1 / (1 + e⁻ˣ).
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// The vectors that a norm works on, [T · heads, width].
fn vectors(x: &Tensor, h: Heads) -> Result<Tensor> {
    Ok(x.narrow(1, h.offset, h.heads * h.width)?.contiguous()?.reshape(((), h.width))?)
}

/// Rows with other vectors in these places, which are in order.
fn with_vectors(x: &Tensor, parts: Vec<(Heads, Tensor)>) -> Result<Tensor> {
    let (rows, stride) = x.dims2()?;
    let (mut pieces, mut at) = (Vec::new(), 0);
    for (h, part) in parts {
        if h.offset > at {
            pieces.push(x.narrow(1, at, h.offset - at)?);
        }
        pieces.push(part.reshape((rows, h.heads * h.width))?);
        at = h.offset + h.heads * h.width;
    }
    if at < stride {
        pieces.push(x.narrow(1, at, stride - at)?);
    }
    cat(&pieces, 1)
}

/// A norm of one part of the rows, as it is saved.
struct Norm {
    parameter: usize,
    heads: Heads,
    weight: Tensor, // [width]
    r: Tensor,      // [T · heads, 1]
}

/// (mean x² + ε)^(-½) of each vector.
fn inverse_root(x: &Tensor, eps: f32) -> Result<Tensor> {
    let square = (x.sqr()?.mean_keepdim(1)? + f64::from(eps))?;
    // 1/∞ would hide an overflow as a row of zeros; 0 · ∞ does not
    Ok((square.sqrt()?.recip()? + square.affine(0.0, 0.0)?)?)
}

/// a(x) and a'(x) of an activation x σ(a(x)).
fn inner(activation: Activation, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    const SLOPE: f64 = 1.595_769_121_605_730_8; // √(8/π)
    Ok(match activation {
        Activation::Silu => (x.clone(), None),
        Activation::GeluTanh => {
            let cubic = (x.sqr()? * 0.044_715)?;
            let a = ((x * (&cubic + 1.0)?)? * SLOPE)?;
            (a, Some(((cubic * 3.0)? + 1.0)?.affine(SLOPE, 0.0)?))
        }
    })
}

/// A linear map of one pass.
struct Linear {
    parameter: usize,
    weight: Tensor, // [out, in]
    out: usize,
    low: Option<(LowRank, Tensor)>, // s x Aᵀ [T, r]
}

impl Linear {
    fn new(pass: &Pass, parameter: usize, x: &Tensor) -> Result<Self> {
        let weight = pass.parameter(parameter);
        let hidden = |low: LowRank| {
            let h = (product(x, &low.a.t()?)? * f64::from(low.scale))?;
            Ok::<_, Error>((low, h))
        };
        let low = LowRank::of(pass.parts, parameter).map(hidden).transpose()?;
        Ok(Self { parameter, out: weight.dim(0)?, weight, low })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = product(x, &wide(&self.weight)?.t()?)?;
        match &self.low {
            None => Ok(y),
            Some((low, h)) => Ok((y + product(h, &low.b.t()?)?)?),
        }
    }
}

impl Pass<'_> {
    pub(super) fn generic_rows(&self, parameter: usize, tokens: &[u32]) -> Result<Tensor> {
        let weight = self.parameter(parameter);
        wide(&weight.index_select(&ids(tokens, weight.device())?, 0)?)
    }

    pub(super) fn generic_scale(&mut self, x: &Act, c: f32) -> Result<Act> {
        let times = move |x: &Tensor| Ok::<_, Error>(x.affine(f64::from(c), 0.0)?);
        let y = times(&x.tensor)?;
        Ok(self.node(x, y, false, move |dy, _| times(dy).map(Some)))
    }

    pub(super) fn generic_norm(&mut self, x: &Act, parts: Vec<(usize, Heads)>) -> Result<Act> {
        let axis = self.axis;
        let input = x.tensor.clone();
        let mut saved = Vec::new();
        for (parameter, heads) in parts {
            let weight = (wide(&self.parameter(parameter))? + f64::from(self.norm_offset))?;
            let r = inverse_root(&vectors(&input, heads)?, self.eps)?;
            saved.push(Norm { parameter, heads, weight, r });
        }
        let saved = Arc::new(saved);
        let forward = {
            let (input, saved) = (input.clone(), saved.clone());
            move || {
                let one = |norm: &Norm| {
                    let x = vectors(&input, norm.heads)?;
                    Ok::<_, Error>((norm.heads, x.broadcast_mul(&norm.r)?.broadcast_mul(&norm.weight)?))
                };
                with_vectors(&input, saved.iter().map(one).collect::<Result<_>>()?)
            }
        };
        let trains = self.trains_decoder();
        let y = self.node(x, forward()?, trains, move |dy, sink| {
            let mut new = Vec::with_capacity(saved.len());
            for Norm { parameter, heads, weight, r } in saved.iter() {
                let (x, dy) = (vectors(&input, *heads)?, vectors(dy, *heads)?);
                if trains {
                    let each = (&dy * x.broadcast_mul(r)?)?.reshape(((), heads.heads, heads.width))?;
                    sink.sum_of(*parameter, &each.sum(1)?, axis)?;
                }
                let dy = dy.broadcast_mul(weight)?;
                let mean = (&x * &dy)?.mean_keepdim(1)?;
                let c = (mean * r.powf(3.0)?)?;
                new.push((*heads, (dy.broadcast_mul(r)? - x.broadcast_mul(&c)?)?));
            }
            with_vectors(dy, new).map(Some)
        });
        Ok(y.computed_by(forward))
    }

    pub(super) fn generic_linear(&mut self, x: &Act, parameters: &[usize]) -> Result<Act> {
        let maps = parameters.iter().map(|&p| Linear::new(self, p, &x.tensor)).collect::<Result<Vec<_>>>()?;
        let parts = maps.iter().map(|map| map.forward(&x.tensor)).collect::<Result<Vec<_>>>()?;
        let decoder = self.trains_decoder();
        let trains = decoder || maps.iter().any(|map| map.low.is_some());
        // a frozen product needs its input for nothing
        let input = trains.then(|| x.saved());
        let (wanted, axis) = (!x.is_constant(), self.axis);
        Ok(self.node(x, cat(&parts, 1)?, trains, move |dy, sink| {
            let input = input.as_ref().map(Saved::get).transpose()?;
            let (mut dx, mut at) = (None, 0);
            for map in &maps {
                let dy = columns(dy, at, map.out)?;
                at += map.out;
                if wanted {
                    dx = Some(sum(dx, product(&dy, &wide(&map.weight)?)?)?);
                }
                match (&map.low, &input) {
                    (Some((low, h)), Some(x)) => {
                        let dh = (product(&dy, &low.b)? * f64::from(low.scale))?;
                        if wanted {
                            dx = Some(sum(dx, product(&dh, &low.a)?)?);
                        }
                        sink.product_of(low.index, 0, &dh, x, axis)?;
                        sink.product_of(low.index + 1, 0, &dy, h, axis)?;
                    }
                    (None, Some(x)) if decoder => {
                        sink.product_of(map.parameter, 0, &dy, x, axis)?;
                    }
                    _ => {}
                }
            }
            Ok(dx)
        }))
    }

    pub(super) fn generic_glu(&mut self, x: &Act, activation: Activation) -> Result<Act> {
        let input = x.tensor.clone();
        let width = input.dim(1)? / 2;
        let halves = move |x: &Tensor| Ok::<_, Error>((columns(x, 0, width)?, columns(x, width, width)?));
        let forward = {
            let input = input.clone();
            move || {
                let (gate, up) = halves(&input)?;
                Ok::<_, Error>(((&gate * sigmoid(&inner(activation, &gate)?.0)?)? * up)?)
            }
        };
        let y = self.node(x, forward()?, false, move |dy, _| {
            let (gate, up) = halves(&input)?;
            let (a, slope) = inner(activation, &gate)?;
            let s = sigmoid(&a)?;
            let act = (&s * &gate)?;
            let mut bend = (&act * s.affine(-1.0, 1.0)?)?;
            if let Some(slope) = slope {
                bend = (bend * slope)?;
            }
            let dgate = ((dy * up)? * (s + bend)?)?;
            cat(&[dgate, (dy * act)?], 1).map(Some)
        });
        Ok(y.computed_by(forward))
    }

    pub(super) fn generic_gather(&mut self, x: &Act, rows: &[u32]) -> Result<Act> {
        let (total, width) = x.tensor.dims2()?;
        let rows = ids(rows, x.tensor.device())?;
        let y = x.tensor.index_select(&rows, 0)?;
        Ok(self.node(x, y, false, move |dy, _| {
            let zeros = Tensor::zeros((total, width), dy.dtype(), dy.device())?;
            Ok(Some(zeros.index_add(&rows, &dy.contiguous()?, 0)?))
        }))
    }
}
