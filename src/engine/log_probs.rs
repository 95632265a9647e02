//! Log-probs of a batch under the policy, as the leaf of the loss graph.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor, Var};

use crate::data::{Batch, Packed};
use crate::error::Result;
use crate::model::{Family, Model, Recorded};

/// Bytes of activations that one forward pass may keep for its backward; a batch that needs more is split.
pub const TAPE_BYTES: usize = 1 << 30;

/// log π of every response token of a batch, with the recorded pass that computed it.
///
/// The values are f64 on the CPU whatever the model's device: the graph of losses on top of them is tiny.
pub struct LogProbs {
    pub(super) model: Model,
    pub(super) version: u64,
    pub(super) packs: Vec<Packed>,
    pub(super) recorded: Mutex<Option<Vec<Recorded>>>,
    leaf: Var, // [N]
    responses: Vec<Range<usize>>,
    per_example: usize,
}

impl LogProbs {
    /// Runs the policy forward on a batch, recorded for [`super::jacobian`].
    ///
    /// Examples are packed one after another and split into micro-batches of at most `tape_bytes`; when there is
    /// more than one, nothing is kept and the backward runs each forward again.
    ///
    /// # Errors
    /// A sequence that the model has no place for, a log-prob that is not finite.
    pub fn new(model: &Model, batch: &Batch, tape_bytes: usize) -> Result<Self> {
        let version = model.version();
        let packs = pack(model, batch, tape_bytes)?;
        let mut values = Vec::new();
        let mut recorded = None;
        if let [pack] = &packs[..] {
            let (log_probs, tape) = model.record(pack)?;
            values.extend(log_probs.into_iter().map(f64::from));
            recorded = Some(vec![tape]);
        } else {
            for pack in &packs {
                values.extend(model.score(pack)?.into_iter().map(f64::from));
            }
        }
        let mut offset = 0;
        let mut responses = Vec::new();
        for pack in &packs {
            responses.extend(pack.responses.iter().map(|r| r.start + offset..r.end + offset));
            offset += pack.targets.len();
        }
        Ok(Self {
            model: model.clone(),
            version,
            leaf: Var::from_vec(values, offset, &Device::Cpu)?,
            packs,
            recorded: Mutex::new(recorded),
            responses,
            per_example: batch.examples.first().map_or(1, |e| e.responses.len()),
        })
    }

    /// log π of each response token, [N]: the leaf that losses are differentiated by.
    pub fn tokens(&self) -> &Tensor {
        self.leaf.as_tensor()
    }

    /// Scored positions of each response; the responses of an example follow one another, [R].
    pub fn responses(&self) -> &[Range<usize>] {
        &self.responses
    }

    /// log π(y|x), the sum over its tokens, of response `which` of every example, [B]: 0 is the chosen one (or
    /// the demonstration), 1 the rejected one.
    ///
    /// # Errors
    /// A tensor operation that fails.
    pub fn sums(&self, which: usize) -> Result<Tensor> {
        let examples = self.examples();
        // tokens of the other responses fall into one more slot, which is cut off
        let mut slots = vec![examples as u32; self.leaf.elem_count()];
        for (example, response) in self.responses.iter().skip(which).step_by(self.per_example).enumerate() {
            slots[response.clone()].fill(example as u32);
        }
        let slots = Tensor::from_vec(slots, self.leaf.elem_count(), &Device::Cpu)?;
        let zeros = Tensor::zeros(examples + 1, DType::F64, &Device::Cpu)?;
        Ok(zeros.index_add(&slots, self.leaf.as_tensor(), 0)?.narrow(0, 0, examples)?)
    }

    /// Number of examples B.
    pub(super) fn examples(&self) -> usize {
        self.responses.len() / self.per_example
    }

    /// The model that computed them.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// True unless the weights changed since.
    pub fn is_current(&self) -> bool {
        self.version == self.model.version()
    }
}

/// Consecutive examples whose activations fit the budget, at least one each.
fn pack(model: &Model, batch: &Batch, tape_bytes: usize) -> Result<Vec<Packed>> {
    let mut packs = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    let cost: Vec<usize> = batch
        .examples
        .iter()
        .map(|example| {
            let copies = if batch.share_prompt { 1 } else { example.responses.len() };
            let responses: usize = example.responses.iter().map(|r| r.ids.len()).sum();
            (copies * example.prompt_ids.len() + responses) * activation_bytes(model)
        })
        .collect();
    for (i, cost) in cost.iter().enumerate() {
        if i > start && bytes + cost > tape_bytes {
            packs.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes += cost;
    }
    packs.push(start..batch.examples.len());
    packs
        .into_iter()
        .map(|range| {
            let examples: &[Arc<_>] = &batch.examples[range];
            let sequences = examples
                .iter()
                .map(|e| (&e.prompt_ids[..], e.responses.iter().map(|r| &r.ids[..]).collect()));
            Packed::new(sequences, batch.share_prompt)
        })
        .collect()
}

/// Bytes that one token row leaves on the tape.
fn activation_bytes(model: &Model) -> usize {
    let config = model.config();
    let queries = config.heads * config.head_dim;
    let qkv = queries + 2 * config.kv_heads * config.head_dim;
    let norms = if config.family == Family::Gemma3 { 6 } else { 4 };
    let layer = norms * config.hidden + 2 * qkv + queries + 3 * config.intermediate;
    let adapter = model.adapter().map_or(0, |adapter| adapter.activations());
    4 * (config.layers * layer + 2 * config.hidden + adapter)
}
