//! Log-probs of a batch under the policy, as the leaf of the loss graph.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor, Var};

use super::cost::{Costs, Shape};
use super::plan::Plan;
use crate::data::{Batch, Example, Packed};
use crate::error::Result;
use crate::model::{Config, Model, Recorded};

/// Bytes that a pass may take where nothing else is said.
pub const TAPE_BYTES: usize = 1 << 30;

/// log π of every response token of a batch, with the recorded pass that computed it.
///
/// The values are f64 on the CPU whatever the model's device: the graph of losses on top of them is tiny.
pub struct LogProbs {
    pub(super) model: Model,
    pub(super) version: u64,
    pub(super) plan: Plan,
    pub(super) packs: Vec<Packed>,
    /// Where the scored positions of each example of a pack are among all of them.
    places: Vec<Vec<Range<usize>>>,
    pub(super) recorded: Mutex<Option<Recorded>>,
    leaf: Var, // [N]
    responses: Vec<Range<usize>>,
    per_example: usize,
}

impl LogProbs {
    /// Runs the policy forward on a batch, recorded for [`super::jacobian`].
    ///
    /// A pass takes at most `bytes` ([`Plan`]). Where there is more than one, nothing is kept and the backward runs each
    /// forward again. The results are in the order of the batch, whatever the passes.
    ///
    /// # Errors
    /// A sequence that the model has no place for, a log-prob that is not finite, an example that takes more than `bytes`
    /// by itself.
    pub fn new(model: &Model, batch: &Batch, bytes: usize) -> Result<Self> {
        let version = model.version();
        let shapes = shapes(model.config(), &batch.examples, batch.share_prompt)?;
        let plan = Plan::new(&Costs::of(model), &shapes, bytes)?;
        let packs = plan.passes.iter().map(|pass| pack(batch, pass)).collect::<Result<Vec<Packed>>>()?;

        let mut responses = Vec::new();
        let mut end = 0;
        for response in batch.examples.iter().flat_map(|example| &example.responses) {
            responses.push(end..end + response.ids.len());
            end += response.ids.len();
        }
        let per_example = batch.examples.first().map_or(1, |example| example.responses.len());
        let place = |&i: &usize| {
            let own = &responses[i * per_example..(i + 1) * per_example];
            own.first().map_or(0, |first| first.start)..own.last().map_or(0, |last| last.end)
        };
        let places: Vec<Vec<_>> = plan.passes.iter().map(|pass| pass.iter().map(place).collect()).collect();

        let mut values = vec![0f64; end];
        let mut recorded = None;
        for (pack, places) in packs.iter().zip(&places) {
            let log_probs = if packs.len() == 1 {
                let (log_probs, tape) = model.record(pack, plan.keep)?;
                recorded = Some(tape);
                log_probs
            } else {
                model.score(pack)?
            };
            let mut found = log_probs.into_iter().map(f64::from);
            for place in places {
                values[place.clone()].iter_mut().zip(&mut found).for_each(|(value, found)| *value = found);
            }
        }
        Ok(Self {
            model: model.clone(),
            version,
            plan,
            packs,
            places,
            recorded: Mutex::new(recorded),
            leaf: Var::from_vec(values, end, &Device::Cpu)?,
            responses,
            per_example,
        })
    }

    /// How the batch was run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Shapes of the passes.
    pub fn shapes(&self) -> Vec<Shape> {
        self.packs.iter().map(|pack| Shape::new(self.model.config(), pack)).collect()
    }

    /// The scored positions of pass `pass` of a row over all of them, [N].
    pub(super) fn of_pass(&self, pass: usize, row: &[f64]) -> Vec<f64> {
        self.places[pass].iter().flat_map(|place| row[place.clone()].iter().copied()).collect()
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

/// The shape of each example by itself.
///
/// # Errors
/// An empty prompt or response.
pub fn shapes(config: &Config, examples: &[Arc<Example>], share_prompt: bool) -> Result<Vec<Shape>> {
    let shape = |example: &Arc<Example>| {
        let packed = packed(std::iter::once(example), share_prompt)?;
        Ok(Shape::new(config, &packed))
    };
    examples.iter().map(shape).collect()
}

/// Some examples of a batch in one pass.
fn pack(batch: &Batch, pass: &[usize]) -> Result<Packed> {
    packed(pass.iter().map(|&i| &batch.examples[i]), batch.share_prompt)
}

fn packed<'a>(examples: impl Iterator<Item = &'a Arc<Example>>, share_prompt: bool) -> Result<Packed> {
    let sequences =
        examples.map(|e| (&e.prompt_ids[..], e.responses.iter().map(|r| &r.ids[..]).collect::<Vec<_>>()));
    Packed::new(sequences, share_prompt)
}
