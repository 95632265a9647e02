//! The matrix products of a training step, alone: a step could not be faster than these.

use super::cost::{Costs, Product, Runs};
use super::log_probs::LogProbs;
use crate::model::ops::gemm::{Into, Threads, View, ViewMut, gemm};
use crate::model::ops::norm::add;
use crate::model::ops::simd::{axpy, dispatch};

/// The products of one step with one objective on given log-probs: of every linear module and of the head, forward and
/// backward, as often as they run. Attention is not among them. Counted by [`Costs::products`].
pub struct Products {
    products: Vec<Product>,
    buffers: [Vec<f32>; 3],
    /// What [`Products::stream`] adds.
    terms: Vec<f32>,
}

/// Numbers of a sum that no cache holds.
const STREAM: usize = 1 << 24;

impl Products {
    /// Those of a step on these log-probs.
    pub fn new(log_probs: &LogProbs) -> Self {
        let costs = Costs::of(&log_probs.model);
        let runs = Runs::new(log_probs.plan.keep, log_probs.packs.len());
        let shapes = log_probs.shapes();
        let products: Vec<Product> = shapes.iter().flat_map(|&shape| costs.products(shape, runs)).collect();
        let most = |size: fn(&Product) -> usize| products.iter().map(size).max().unwrap_or(0);
        let buffers = [
            vec![0.5; most(|p| p.rows * p.inputs)],
            vec![0.5; most(|p| p.rows * p.outputs)],
            vec![0.5; most(|p| p.inputs * p.outputs)],
        ];
        Self { products, buffers, terms: vec![0.5; STREAM] }
    }

    /// Floating point operations of all products.
    pub fn flops(&self) -> f64 {
        self.products.iter().map(Product::flops).sum()
    }

    /// Computes them once, on numbers that mean nothing.
    pub fn run(&mut self) {
        let [x, y, w] = &mut self.buffers;
        for p in &self.products {
            let (t, a, b) = (p.rows, p.inputs, p.outputs);
            for _ in 0..p.forwards {
                let dst = ViewMut::new(&mut y[..t * b], t, b);
                gemm(dst, Into::Overwrite, 0.01, View::new(x, t, a), View::new(w, b, a).t(), Threads::All);
            }
            if p.wanted {
                let dst = ViewMut::new(&mut x[..t * a], t, a);
                gemm(dst, Into::Overwrite, 0.01, View::new(y, t, b), View::new(w, b, a), Threads::All);
            }
            if p.trained {
                let dst = ViewMut::new(&mut w[..a * b], b, a);
                gemm(dst, Into::Overwrite, 0.01, View::new(y, t, b).t(), View::new(x, t, a), Threads::All);
            }
        }
    }

    /// Sums of arrays of 64 MiB, one into new memory and one in place, as a step has them; the bytes that were read and
    /// written.
    pub fn stream(&self) -> usize {
        let mut sum = add(&self.terms, &self.terms);
        dispatch(
            #[inline(always)]
            || axpy(1.0, &self.terms, &mut sum),
        );
        std::hint::black_box(&sum);
        // the first is a copy that is added to
        size_of::<f32>() * STREAM * (2 + 3 + 3)
    }
}
