//! The head with log-softmax by blocks of the vocabulary, as in [`super::super::ops::head`]: no [N, V] tensor exists.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::super::pass::Pass;
use super::super::tape::{Act, Axis};
use super::{ids, product, wide};
use crate::error::{Error, Result};

/// Scalars of one block of logits.
const BUDGET: usize = 1 << 22;

fn blocks(rows: usize, vocab: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (BUDGET / rows.max(1)).next_multiple_of(64).clamp(64, vocab.max(64));
    (0..vocab).step_by(step).map(move |start| start..(start + step).min(vocab))
}

/// c tanh(x / c).
pub(crate) fn cap_logits(logits: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    Ok(((logits / cap)?.tanh()? * cap)?)
}

/// The scored rows of one pass.
struct Head {
    x: Tensor,       // [N, D]
    weight: Tensor,  // [V, D]
    targets: Tensor, // [N, 1]
    cap: Option<f32>,
}

/// Some words' part of the head.
struct Block {
    weight: Tensor, // [n, D]
    logits: Tensor, // [N, n], capped
    target: Tensor, // 1 at the target, [N, n]
}

impl Head {
    fn block(&self, words: Range<usize>) -> Result<Block> {
        let weight = wide(&self.weight.narrow(0, words.start, words.len())?)?;
        let logits = product(&self.x, &weight.t()?)?;
        let logits = match self.cap {
            None => logits,
            Some(cap) => cap_logits(&logits, cap)?,
        };
        let numbers = Tensor::arange(words.start as u32, words.end as u32, self.x.device())?;
        let target = self.targets.broadcast_eq(&numbers.unsqueeze(0)?)?.to_dtype(logits.dtype())?;
        Ok(Block { weight, logits, target })
    }

    /// Log-probs of the targets and log-sum-exps, each [N, 1].
    fn forward(&self) -> Result<(Tensor, Tensor)> {
        let rows = self.x.dim(0)?;
        // running maximum, sum of exponentials, and the target's logit
        let mut state: Option<(Tensor, Tensor, Tensor)> = None;
        for words in blocks(rows, self.weight.dim(0)?) {
            let Block { logits, target, .. } = self.block(words)?;
            let top = logits.max_keepdim(1)?;
            let logit = (target * &logits)?.sum_keepdim(1)?;
            let exps = |top: &Tensor| logits.broadcast_sub(top)?.exp()?.sum_keepdim(1);
            state = Some(match state {
                None => {
                    let sum = exps(&top)?;
                    (top, sum, logit)
                }
                Some((old, sum, before)) => {
                    let top = old.maximum(&top)?;
                    let sum = ((sum * (old - &top)?.exp()?)? + exps(&top)?)?;
                    (top, sum, (before + logit)?)
                }
            });
        }
        let (top, sum, logit) = state.ok_or_else(|| Error::internal("a head without words"))?;
        let log = sum.log()?;
        // the difference first: top and logit are large, their difference is not
        Ok((((logit - &top)? - &log)?, (top + log)?))
    }
}

impl Pass<'_> {
    pub(in super::super) fn generic_log_probs(
        &mut self,
        x: &Act,
        parameter: usize,
        targets: &[u32],
    ) -> Result<Act> {
        let rows = x.tensor.dim(0)?;
        let targets = ids(targets, x.tensor.device())?.unsqueeze(1)?;
        let cap = self.logit_cap;
        let head = Head { x: x.tensor.clone(), weight: self.parameter(parameter), targets, cap };
        let (log_probs, lse) = head.forward()?;
        let trains = self.trains_decoder();
        Ok(self.node(x, log_probs.squeeze(1)?, trains, move |seeds, sink| {
            let seeds = seeds.unsqueeze(1)?;
            let mut dx = Tensor::zeros(head.x.shape(), DType::F32, head.x.device())?;
            for words in blocks(rows, head.weight.dim(0)?) {
                let first = words.start;
                let Block { weight, logits, target } = head.block(words)?;
                let p = logits.broadcast_sub(&lse)?.exp()?;
                let mut g = (target - p)?.broadcast_mul(&seeds)?;
                if let Some(cap) = head.cap {
                    // the slope of c tanh(x / c) is 1 - tanh²
                    let slope = (logits / f64::from(cap))?.sqr()?.affine(-1.0, 1.0)?;
                    g = (g * slope)?;
                }
                dx = (dx + product(&g, &weight)?)?;
                if trains {
                    sink.product_of(parameter, first, &g, &head.x, Axis::Scored)?;
                }
            }
            Ok(Some(dx))
        }))
    }
}
