//! The plain way: a padded batch with its own copy of the prompt for each response, composed candle operations,
//! one autograd backward an objective. In f64 the oracle of the tests, in f32 the baseline of the benches.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use raco::data::Batch;
use raco::model::{Family, Layout, Model, Rope};

/// A model whose trained parameters are autograd variables.
pub struct Oracle {
    model: Model,
    layout: Layout,
    dtype: DType,
    pub parameters: Vec<Var>,
    decoder: Vec<Tensor>,
    /// Where the A of a decoder's parameter stands among the trained ones; B follows.
    adapted: Vec<Option<usize>>,
}

impl Oracle {
    pub fn new(model: &Model, dtype: DType) -> Self {
        let weights = model.weights();
        let variable = |t: &Tensor| Var::from_tensor(&t.to_dtype(dtype).unwrap().copy().unwrap()).unwrap();
        let parameters: Vec<Var> = weights.parameters().iter().map(|p| variable(&p.tensor)).collect();
        let base = model.base().weights();
        let decoder = match model.adapter() {
            None => parameters.iter().map(|v| v.as_tensor().clone()).collect(),
            Some(_) => base.parameters().iter().map(|p| p.tensor.to_dtype(dtype).unwrap()).collect(),
        };
        let place = |name: &String| {
            let a = name.replace(".weight", ".lora_A.weight");
            weights.space().names.iter().position(|name| *name == a)
        };
        let adapted = base.space().names.iter().map(place).collect();
        let layout = Layout::new(model.config());
        Self { model: model.clone(), layout, dtype, parameters, decoder, adapted }
    }

    fn norm(&self, x: &Tensor, parameter: usize) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + self.model.config().norm_eps)?.sqrt()?;
        let weight = match self.model.config().family {
            Family::Gemma3 => (&self.decoder[parameter] + 1.0)?,
            _ => self.decoder[parameter].clone(),
        };
        x.broadcast_div(&root)?.broadcast_mul(&weight)
    }

    fn linear(&self, x: &Tensor, parameter: usize) -> Result<Tensor> {
        let y = x.matmul(&self.decoder[parameter].t()?)?;
        let Some(a) = self.adapted[parameter] else { return Ok(y) };
        let scale = self.model.adapter().unwrap().lora().scale();
        y + (x.matmul(&self.parameters[a].t()?)?.matmul(&self.parameters[a + 1].t()?)? * scale)?
    }

    /// log π of every response token of a batch, chosen before rejected, [N].
    pub fn batch(&self, batch: &Batch) -> Result<Tensor> {
        let config = self.model.config();
        let (h, kv, d) = (config.heads, config.kv_heads, config.head_dim);
        let sequences: Vec<(Vec<u32>, usize)> = batch
            .examples
            .iter()
            .flat_map(|e| {
                e.responses.iter().map(|r| ([&e.prompt_ids[..], &r.ids[..]].concat(), e.prompt_ids.len()))
            })
            .collect();
        let (n, t) = (sequences.len(), sequences.iter().map(|(ids, _)| ids.len()).max().unwrap());
        let padded: Vec<u32> = sequences
            .iter()
            .flat_map(|(ids, _)| ids.iter().copied().chain(std::iter::repeat_n(0, t - ids.len())))
            .collect();
        let tokens = Tensor::from_vec(padded, n * t, &Device::Cpu)?;
        let mut x = self.decoder[self.layout.embed].index_select(&tokens, 0)?;

        if config.family == Family::Gemma3 {
            x = (x * (config.hidden as f64).sqrt())?;
        }

        let table = |rope: &Rope, f: fn(f32) -> f32| -> Result<Tensor> {
            let frequency = |i: usize| 1.0 / (rope.theta as f32).powf((2 * i) as f32 / d as f32);
            let values: Vec<f32> =
                (0..t).flat_map(|p| (0..d / 2).map(move |i| f(p as f32 * frequency(i)))).collect();
            Tensor::from_vec(values, (1, t, 1, d / 2), &Device::Cpu)?.to_dtype(self.dtype)
        };
        let rotate = |y: Tensor, rope: &Rope| -> Result<Tensor> {
            let (cos, sin) = (table(rope, f32::cos)?, table(rope, f32::sin)?);
            let (a, b) = (y.narrow(3, 0, d / 2)?, y.narrow(3, d / 2, d / 2)?);
            let low = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let high = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[low, high], 3)
        };
        let mask = |window: usize| -> Result<Tensor> {
            let seen = |i: usize, j: usize| j <= i && i - j < window;
            let value = |i, j| if seen(i, j) { 0.0 } else { f32::NEG_INFINITY };
            let mask: Vec<f32> = (0..t).flat_map(|i| (0..t).map(move |j| value(i, j))).collect();
            Tensor::from_vec(mask, (1, 1, t, t), &Device::Cpu)?.to_dtype(self.dtype)
        };

        for (i, l) in self.layout.layers.iter().enumerate() {
            let (rope, window) = match &config.local {
                Some(local) if local.layers[i] => (&local.rope, local.window),
                _ => (&config.rope, usize::MAX),
            };
            let y = self.norm(&x, l.input_norm)?;
            let mut q = self.linear(&y, l.q)?.reshape((n, t, h, d))?;
            let mut k = self.linear(&y, l.k)?.reshape((n, t, kv, d))?;
            let v = self.linear(&y, l.v)?.reshape((n, t, kv, d))?;
            if config.family != Family::Llama {
                q = self.norm(&q, l.q_norm.unwrap())?;
                k = self.norm(&k, l.k_norm.unwrap())?;
            }
            let heads_first = |z: Tensor| z.transpose(1, 2)?.contiguous();
            let repeat = |z: Tensor| {
                z.unsqueeze(2)?.expand((n, kv, h / kv, t, d))?.contiguous()?.reshape((n, h, t, d))
            };
            let q = heads_first(rotate(q, rope)?)?;
            let (k, v) = (repeat(heads_first(rotate(k, rope)?)?)?, repeat(heads_first(v)?)?);
            let scores = (q.matmul(&k.t()?)? / config.query_scalar.sqrt())?.broadcast_add(&mask(window)?)?;
            let top = scores.max_keepdim(3)?.detach();
            let scores = scores.broadcast_sub(&top)?.exp()?;
            let p = scores.broadcast_div(&scores.sum_keepdim(3)?)?;
            let y = p.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((n * t, h * d))?;
            let post = |y: Tensor, norm: Option<usize>| norm.map_or(Ok(y.clone()), |n| self.norm(&y, n));
            x = (x + post(self.linear(&y, l.o)?, l.post_attention_norm)?)?;
            let y = self.norm(&x, l.mlp_norm)?;
            let gate = self.linear(&y, l.gate)?;
            let gate = if config.family == Family::Gemma3 { gate.gelu()? } else { gate.silu()? };
            let y = (gate * self.linear(&y, l.up)?)?;
            x = (x + post(self.linear(&y, l.down)?, l.post_mlp_norm)?)?;
        }

        let scored =
            sequences.iter().enumerate().flat_map(|(i, (ids, p))| (*p..ids.len()).map(move |j| (i, j)));
        let (rows, targets): (Vec<u32>, Vec<u32>) =
            scored.map(|(i, j)| ((i * t + j - 1) as u32, sequences[i].0[j])).unzip();
        let count = rows.len();
        let x = x.index_select(&Tensor::from_vec(rows, count, &Device::Cpu)?, 0)?;
        let mut logits = self.linear(&self.norm(&x, self.layout.norm)?, self.layout.head)?;
        if let Some(cap) = config.logit_cap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        let targets = Tensor::from_vec(targets, (count, 1), &Device::Cpu)?;
        let normaliser = logits.log_sum_exp(1)?.unsqueeze(1)?;
        (logits.gather(&targets, 1)? - normaliser)?.squeeze(1)
    }

    /// The gradient of each loss by each parameter, [m][parameters].
    pub fn jacobian(&self, losses: &[Tensor]) -> Result<Vec<Vec<Tensor>>> {
        losses
            .iter()
            .map(|loss| {
                let gradients = loss.backward()?;
                let of = |p: &Var| gradients.get(p).map_or_else(|| p.zeros_like(), |g| Ok(g.detach()));
                self.parameters.iter().map(of).collect()
            })
            .collect()
    }

    /// The same in one long row an objective, [m][P].
    pub fn rows(&self, losses: &[Tensor]) -> Result<Vec<Vec<f64>>> {
        let flat = |g: &Tensor| g.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
        let rows = self.jacobian(losses)?;
        rows.iter().map(|row| Ok(row.iter().map(flat).collect::<Result<Vec<_>>>()?.concat())).collect()
    }
}
