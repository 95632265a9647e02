//! The plain way: every response a sequence of its own, composed candle operations in f64, one autograd
//! backward an objective.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use raco::data::Batch;
use raco::model::{Family, Layout, Model};

/// A model whose parameters are autograd variables in f64.
pub struct Oracle {
    model: Model,
    layout: Layout,
    pub parameters: Vec<Var>,
}

impl Oracle {
    pub fn new(model: &Model) -> Self {
        let weights = model.weights();
        let variable = |t: &Tensor| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap();
        let parameters = weights.parameters().iter().map(|p| variable(&p.tensor)).collect();
        Self { model: model.clone(), layout: Layout::new(model.config()), parameters }
    }

    fn norm(&self, x: &Tensor, parameter: usize) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + self.model.config().norm_eps)?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(&self.parameters[parameter])
    }

    fn linear(&self, x: &Tensor, parameter: usize) -> Result<Tensor> {
        x.matmul(&self.parameters[parameter].t()?)
    }

    /// log π of every response token of one sequence, [response length].
    pub fn log_probs(&self, prompt: &[u32], response: &[u32]) -> Result<Tensor> {
        let config = self.model.config();
        let (h, kv, d) = (config.heads, config.kv_heads, config.head_dim);
        let ids: Vec<u32> = prompt.iter().chain(response).copied().collect();
        let n = ids.len();
        let tokens = Tensor::from_slice(&ids, n, &Device::Cpu)?;
        let mut x = self.parameters[self.layout.embed].index_select(&tokens, 0)?;

        let frequency = |i: usize| 1.0 / (config.rope.theta as f32).powf((2 * i) as f32 / d as f32);
        let angles: Vec<f32> =
            (0..n).flat_map(|p| (0..d / 2).map(move |i| p as f32 * frequency(i))).collect();
        let table = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f64> = angles.iter().map(|&a| f64::from(f(a))).collect();
            Tensor::from_vec(values, (n, 1, d / 2), &Device::Cpu)
        };
        let (cos, sin) = (table(f32::cos)?, table(f32::sin)?);
        let rotate = |y: Tensor| -> Result<Tensor> {
            let (a, b) = (y.narrow(2, 0, d / 2)?, y.narrow(2, d / 2, d / 2)?);
            let low = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let high = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[low, high], 2)
        };
        let mask: Vec<f64> =
            (0..n).flat_map(|i| (0..n).map(move |j| if j <= i { 0.0 } else { f64::NEG_INFINITY })).collect();
        let mask = Tensor::from_vec(mask, (1, n, n), &Device::Cpu)?;

        for l in &self.layout.layers {
            let y = self.norm(&x, l.input_norm)?;
            let mut q = self.linear(&y, l.q)?.reshape((n, h, d))?;
            let mut k = self.linear(&y, l.k)?.reshape((n, kv, d))?;
            let v = self.linear(&y, l.v)?.reshape((n, kv, d))?;
            if config.family == Family::Qwen3 {
                q = self.norm(&q, l.q_norm.unwrap())?;
                k = self.norm(&k, l.k_norm.unwrap())?;
            }
            let heads_first = |z: Tensor| z.transpose(0, 1)?.contiguous();
            let repeat =
                |z: Tensor| z.unsqueeze(1)?.expand((kv, h / kv, n, d))?.contiguous()?.reshape((h, n, d));
            let q = heads_first(rotate(q)?)?;
            let (k, v) = (repeat(heads_first(rotate(k)?)?)?, repeat(heads_first(v)?)?);
            let scores = (q.matmul(&k.t()?)? / (d as f64).sqrt())?.broadcast_add(&mask)?;
            let top = scores.max_keepdim(2)?.detach();
            let scores = scores.broadcast_sub(&top)?.exp()?;
            let p = scores.broadcast_div(&scores.sum_keepdim(2)?)?;
            let y = p.matmul(&v)?.transpose(0, 1)?.contiguous()?.reshape((n, h * d))?;
            x = (x + self.linear(&y, l.o)?)?;
            let y = self.norm(&x, l.mlp_norm)?;
            let y = (self.linear(&y, l.gate)?.silu()? * self.linear(&y, l.up)?)?;
            x = (x + self.linear(&y, l.down)?)?;
        }
        let x = self.norm(&x.narrow(0, prompt.len() - 1, response.len())?, self.layout.norm)?;
        let logits = self.linear(&x, self.layout.head)?;
        let targets = Tensor::from_slice(response, (response.len(), 1), &Device::Cpu)?;
        let normaliser = logits.log_sum_exp(1)?.unsqueeze(1)?;
        (logits.gather(&targets, 1)? - normaliser)?.squeeze(1)
    }

    /// log π of every response token of a batch, chosen before rejected, [N].
    pub fn batch(&self, batch: &Batch) -> Result<Tensor> {
        let mut parts = Vec::new();
        for example in &batch.examples {
            for response in &example.responses {
                parts.push(self.log_probs(&example.prompt_ids, &response.ids)?);
            }
        }
        Tensor::cat(&parts, 0)
    }

    /// The gradient of each loss, flattened over all parameters, [m][P].
    pub fn jacobian(&self, losses: &[Tensor]) -> Result<Vec<Vec<f64>>> {
        losses
            .iter()
            .map(|loss| {
                let gradients = loss.backward()?;
                let mut row = Vec::new();
                for parameter in &self.parameters {
                    match gradients.get(parameter) {
                        Some(g) => row.extend(g.flatten_all()?.to_vec1::<f64>()?),
                        None => row.extend(vec![0.0; parameter.elem_count()]),
                    }
                }
                Ok(row)
            })
            .collect()
    }
}
