//! The matrix products of a training step, alone: a step could not be faster than these.

use super::log_probs::LogProbs;
use crate::data::Packed;
use crate::model::Model;
use crate::model::ops::gemm::{Into, Threads, View, ViewMut, gemm};

/// The products of one step with one objective on given log-probs: of every linear module and of the head, forward and
/// backward. Attention is not among them.
///
/// A linear module of T rows, `in` to `out`, is y = x Wᵀ, dx = dy W and, where W is trained, dW = dyᵀ x, each of 2·T·in·out
/// operations. The head works on scored rows only and computes its logits again in the backward. An adapter of rank r
/// adds two modules, `in` to r and r to `out`.
pub struct Products {
    products: Vec<Product>,
    buffers: [Vec<f32>; 3],
}

struct Product {
    rows: usize,
    inputs: usize,
    outputs: usize,
    /// How often y = x Wᵀ is computed.
    forwards: usize,
    trained: bool,
}

impl Product {
    fn units(&self) -> usize {
        self.forwards + 1 + usize::from(self.trained)
    }
}

impl Products {
    /// Those of a step on these log-probs.
    pub fn new(log_probs: &LogProbs) -> Self {
        let products: Vec<Product> =
            log_probs.packs.iter().flat_map(|pack| of_pack(&log_probs.model, pack)).collect();
        let most = |size: fn(&Product) -> usize| products.iter().map(size).max().unwrap_or(0);
        let buffers = [
            vec![0.5; most(|p| p.rows * p.inputs)],
            vec![0.5; most(|p| p.rows * p.outputs)],
            vec![0.5; most(|p| p.inputs * p.outputs)],
        ];
        Self { products, buffers }
    }

    /// Floating point operations of all products.
    pub fn flops(&self) -> f64 {
        self.products.iter().map(|p| 2.0 * (p.units() * p.rows * p.inputs) as f64 * p.outputs as f64).sum()
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
            let dst = ViewMut::new(&mut x[..t * a], t, a);
            gemm(dst, Into::Overwrite, 0.01, View::new(y, t, b), View::new(w, b, a), Threads::All);
            if p.trained {
                let dst = ViewMut::new(&mut w[..a * b], b, a);
                gemm(dst, Into::Overwrite, 0.01, View::new(y, t, b).t(), View::new(x, t, a), Threads::All);
            }
        }
    }
}

fn of_pack(model: &Model, pack: &Packed) -> Vec<Product> {
    let config = model.config();
    let rank = model.adapter().map(|adapter| adapter.lora().rank);
    let (rows, hidden, inner) = (pack.len(), config.hidden, config.intermediate);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let linear = [
        (hidden, q),
        (hidden, kv),
        (hidden, kv),
        (q, hidden),
        (hidden, inner),
        (hidden, inner),
        (inner, hidden),
    ];
    let mut products = Vec::new();
    let scored = pack.targets.len();
    for (i, (inputs, outputs)) in std::iter::repeat_n(linear, config.layers).flatten().enumerate() {
        // after the attention of the last layer only scored rows are read
        let last = i + 4 >= linear.len() * config.layers;
        let rows = if last { scored } else { rows };
        products.push(Product { rows, inputs, outputs, forwards: 1, trained: rank.is_none() });
        if let Some(rank) = rank {
            products.push(Product { rows, inputs, outputs: rank, forwards: 1, trained: true });
            products.push(Product { rows, inputs: rank, outputs, forwards: 1, trained: true });
        }
    }
    let trained = rank.is_none();
    products.push(Product { rows: scored, inputs: hidden, outputs: config.vocab, forwards: 2, trained });
    products
}
