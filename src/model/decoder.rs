//! A decoder as a whole: embedding, layers, final norm, head.

use std::sync::Arc;

use candle_core::Tensor;

use super::layout::{LayerParams, Layout};
use super::ops::attention::{Attention, Heads, Rotation, Sight};
use super::pass::{Mode, Pass};
use super::tape::{Act, Sink, Tape};
use super::values::{host, tensor, values};
use super::{Config, Family, Kernels, Model, gemma3, llama, qwen3};
use crate::data::Packed;
use crate::error::{Error, Result};

/// What a forward pass keeps for its backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// What every operation needs, and logits that are few.
    Everything,
    /// What every operation of the layers needs; logits are computed once more.
    Layers,
    /// The input of each layer; going back, a layer is computed once more and run backward at once.
    Inputs,
}

/// A recorded forward pass, which can be run backward once. A layer of which only the input was kept is computed from
/// the weights as they are by then: they must not have changed.
pub struct Recorded {
    tape: Tape,
    output: Act,
    tokens: Vec<u32>,
    embed: usize,
    kernels: Kernels,
}

impl Recorded {
    /// Runs the activations backward from each of the `seeds`, the gradient of some scalar by each token's log-prob,
    /// [N]; what is learnt about the parameters goes to `sink`.
    ///
    /// # Errors
    /// A tensor operation that fails.
    pub fn backward(self, seeds: Vec<Vec<f32>>, sink: &mut dyn Sink) -> Result<()> {
        let device = self.output.tensor.device().clone();
        let seeds = seeds.into_iter().map(|seed| {
            let n = seed.len();
            Ok(tensor(seed, n)?.to_device(&device)?)
        });
        let dxs = self.tape.backward(&self.output, seeds.collect::<Result<_>>()?, sink)?;
        for (seed, dx) in dxs.iter().enumerate() {
            sink.term(seed);
            match self.kernels {
                Kernels::Fused => sink.embedding(self.embed, &self.tokens, &values(dx)?),
                Kernels::Generic => sink.embedding_of(self.embed, &self.tokens, dx)?,
            }
        }
        Ok(())
    }
}

impl Model {
    /// log π of every scored token, [N].
    ///
    /// # Errors
    /// A token outside the vocabulary, a position outside the context, a log-prob that is not finite.
    pub fn score(&self, packed: &Packed) -> Result<Vec<f32>> {
        Ok(self.run(packed, None)?.0)
    }

    /// The same, recorded for the backward.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn record(&self, packed: &Packed, keep: Keep) -> Result<(Vec<f32>, Recorded)> {
        let (log_probs, recorded) = self.run(packed, Some(keep))?;
        Ok((log_probs, recorded.ok_or_else(|| Error::internal("the pass was not recorded"))?))
    }

    fn run(&self, packed: &Packed, keep: Option<Keep>) -> Result<(Vec<f32>, Option<Recorded>)> {
        let (config, parts) = (self.config(), self.parts());
        check(config, &packed.tokens, &packed.positions)?;
        let attention = self.attention(packed.groups.clone(), packed.positions.clone());
        let layout = Arc::new(Layout::new(config));
        let mode = Mode::Packed(attention.clone());
        let mut pass = Pass::new(&parts, config, mode, keep.is_some());
        let mut x = embed(&mut pass, config, &layout, &packed.tokens)?;
        let read = Some(&packed.predict[..]);
        for i in 0..layout.layers.len() {
            x = match keep {
                Some(Keep::Inputs) => {
                    self.checkpoint(&mut pass, &attention, (&layout, i), &x, &packed.predict)?
                }
                _ => layer(&mut pass, config, (&layout, i), &x, read)?,
            };
        }
        let x = pass.rms_norm(&x, layout.norm)?;
        let output = pass.log_probs(&x, layout.head, &packed.targets, keep == Some(Keep::Everything))?;
        let log_probs = values::<f32>(&host(&output.tensor)?)?.to_vec();
        if let Some(bad) = log_probs.iter().position(|x| !x.is_finite()) {
            let token = packed.targets[bad];
            return Err(parts.blame(Error::new(format!("the log-prob of token {token} is not finite"))));
        }
        let tokens = packed.tokens.clone();
        let (embed, kernels) = (layout.embed, self.kernels());
        let recorded = pass.into_tape().map(|tape| Recorded { tape, output, tokens, embed, kernels });
        Ok((log_probs, recorded))
    }

    /// Layer `i` of a recorded pass, of which the input alone is kept.
    fn checkpoint(
        &self,
        pass: &mut Pass,
        attention: &Attention,
        (layout, i): (&Arc<Layout>, usize),
        x: &Act,
        read: &[u32],
    ) -> Result<Act> {
        let config = self.config();
        let trains = self.parts().train(&layout.layers[i]);
        let y = pass.unrecorded(|pass| layer(pass, config, (layout, i), x, Some(read)))?.tensor;
        let (model, attention, layout) = (self.clone(), attention.clone(), layout.clone());
        let read = read.to_vec();
        let (input, wanted) = (x.tensor.clone(), !x.is_constant());
        let replay = move || {
            let (config, parts) = (model.config(), model.parts());
            let mut pass = Pass::new(&parts, config, Mode::Packed(attention.clone()), true);
            let x = pass.input(input.clone(), wanted);
            let y = layer(&mut pass, config, (&layout, i), &x, Some(&read))?;
            let tape = pass.into_tape().ok_or_else(|| Error::internal("the layer was not recorded"))?;
            Ok((tape, y))
        };
        Ok(pass.section(x, y, trains, Box::new(replay)))
    }

    pub(crate) fn attention(&self, groups: Vec<Vec<crate::data::Span>>, positions: Vec<u32>) -> Attention {
        let config = self.config();
        let heads = Heads {
            queries: config.heads,
            keys: config.kv_heads,
            width: config.head_dim,
            scale: 1.0 / (config.query_scalar as f32).sqrt(),
        };
        let needed = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let sights = self.sights(needed);
        Attention { heads, groups: Arc::new(groups), positions: Arc::new(positions), sights, local: false }
    }

    /// What rows of global and of local layers see, with rotation tables for at least `positions` positions, which
    /// are kept for later calls.
    fn sights(&self, positions: usize) -> [Sight; 2] {
        let (config, all) = (self.config(), usize::MAX);
        let kinds = [
            (&config.rope, all),
            config.local.as_ref().map_or((&config.rope, all), |local| (&local.rope, local.window)),
        ];
        let mut tables = self.0.rotations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::array::from_fn(|i| {
            let ((rope, window), table) = (kinds[i], &mut tables[i]);
            if table.positions() < positions && (i == 0 || config.local.is_some()) {
                let frequencies = rope.frequencies(config.head_dim);
                *table = Arc::new(Rotation::new(&frequencies, positions.next_power_of_two()));
            }
            Sight { rotation: table.clone(), window }
        })
    }
}

/// Tokens → hidden rows before the final norm: of all tokens, [T, D], or those to `read`, [N, D].
pub(crate) fn hidden(
    pass: &mut Pass,
    config: &Config,
    layout: &Layout,
    tokens: &[u32],
    read: Option<&[u32]>,
) -> Result<Act> {
    let mut x = embed(pass, config, layout, tokens)?;
    for i in 0..layout.layers.len() {
        x = layer(pass, config, (layout, i), &x, read)?;
    }
    Ok(x)
}

/// Tokens → input of the first layer, [T, D].
fn embed(pass: &mut Pass, config: &Config, layout: &Layout, tokens: &[u32]) -> Result<Act> {
    let x = pass.embed(layout.embed, tokens)?;
    match config.family {
        Family::Gemma3 => pass.scale(&x, (config.hidden as f32).sqrt()),
        _ => Ok(x),
    }
}

/// Layer `i`, [T, D] → [T, D]; the last one gives the rows to `read`, [N, D].
fn layer(
    pass: &mut Pass,
    config: &Config,
    (layout, i): (&Layout, usize),
    x: &Act,
    read: Option<&[u32]>,
) -> Result<Act> {
    let layer: fn(&mut Pass, &Act, &LayerParams) -> Result<Act> = match config.family {
        Family::Llama => llama::layer,
        Family::Qwen3 => qwen3::layer,
        Family::Gemma3 => gemma3::layer,
    };
    pass.enter_layer(i, config.local.as_ref().is_some_and(|local| local.layers[i]));
    if let Some(rows) = read.filter(|_| i + 1 == layout.layers.len()) {
        pass.read_only(rows.to_vec());
    }
    layer(pass, x, &layout.layers[i])
}

/// Final norm and head of hidden rows, for generation: [rows, V].
pub(crate) fn logits(pass: &mut Pass, layout: &Layout, x: &Act) -> Result<Tensor> {
    let x = pass.rms_norm(x, layout.norm)?;
    pass.logits(&x, layout.head)
}

/// Refuses tokens and positions that the model has no place for.
pub(crate) fn check(config: &Config, tokens: &[u32], positions: &[u32]) -> Result<()> {
    if let Some(token) = tokens.iter().find(|&&t| t as usize >= config.vocab) {
        return Err(Error::new(format!("token {token}, but the model has {} words", config.vocab))
            .help("use the tokenizer that belongs to the model"));
    }
    if let Some(&position) = positions.iter().max().filter(|&&p| p as usize >= config.context) {
        let (needed, context) = (position as usize + 1, config.context);
        return Err(Error::new(format!(
            "a sequence of {needed} tokens, but the model's context is {context}"
        ))
        .help("leave the row out, or shorten it"));
    }
    Ok(())
}
