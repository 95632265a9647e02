//! What a step of training costs, before anything is computed.

use std::rc::Rc;
use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};

use crate::data::hub::Wanted;
use crate::data::{Example, Packed};
use crate::engine::{Costs, Moments, Phases, Plan, Shape, TAPE_BYTES, shapes};
use crate::error::{Error, Result};
use crate::model::{
    Config, Keep, Lora, Model, Precision, allowed_bytes, parse_bytes, read_config, weight_bytes,
};

use super::super::session::Session;
use super::super::value::{Answer, Opts, number, show, to_json, type_of, unknown};
use super::data::{Batch, Preferences};
use super::model::precision;

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    let shared = session.clone();
    engine.register_fn("estimate", move |of: Dynamic, options: Map| -> Answer<Map> {
        if let Some(model) = of.clone().try_cast::<Model>() {
            return Ok(of_lengths(model.config(), Some(&model), options)?);
        }
        let config = match (of.clone().into_string(), of.is_map()) {
            (Ok(path), _) => read_config(&shared.local(&path, Wanted::Model)?)?,
            (_, true) => Config::from_json(to_json(&of)?)?,
            _ => {
                return Err(Error::new(format!("`estimate` of {}", type_of(&of)))
                    .help("give a model, its folder, or a map with the keys of config.json")
                    .into());
            }
        };
        Ok(of_lengths(&config, None, options)?)
    });
    engine.register_fn("estimate", |policy: Model, batch: Batch, options: Map| -> Answer<Map> {
        let examples = &batch.0.examples;
        Ok(of_examples(&policy, examples, batch.0.share_prompt, Opts::new("estimate", options))?)
    });
    engine.register_fn("estimate", |policy: Model, pairs: Preferences, options: Map| -> Answer<Map> {
        let mut options = Opts::new("estimate", options);
        let size = options.count("size")?.unwrap_or(pairs.inner.examples.len());
        let length = |e: &Arc<Example>| {
            e.prompt_ids.len() + e.responses.iter().map(|response| response.ids.len()).sum::<usize>()
        };
        let mut longest = pairs.inner.examples.to_vec();
        longest.sort_by_key(|example| std::cmp::Reverse(length(example)));
        longest.truncate(size);
        let share = options.flag("share_prompt")?.unwrap_or(true);
        Ok(of_examples(&policy, &longest, share, options)?)
    });
}

/// A size of memory, in bytes.
pub(super) fn memory(options: &mut Opts) -> Result<Option<usize>> {
    let Some(value) = options.take("memory") else { return Ok(None) };
    match (value.clone().into_string(), number(&value)) {
        (Ok(text), _) => parse_bytes(&text).map(Some),
        (_, Some(bytes)) => parse_bytes(&bytes.to_string()).map(Some),
        _ => parse_bytes(&show(&value)).map(Some),
    }
}

/// The plan of these examples, within `memory` where it is given.
fn plan(costs: &Costs, shapes: &[Shape], keep: Option<Keep>, memory: Option<usize>) -> Result<Plan> {
    match keep {
        None => Plan::new(costs, shapes, memory.unwrap_or_else(|| default_bytes(costs, shapes))),
        Some(keep) => Plan::keeping(costs, shapes, keep, memory.unwrap_or(usize::MAX)),
    }
}

/// What passes may take where nothing is said: 1 GiB, or what the longest example takes by itself.
pub(super) fn default_bytes(costs: &Costs, shapes: &[Shape]) -> usize {
    TAPE_BYTES.max(Plan::least(costs, shapes))
}

/// The options that both forms have.
struct Setting {
    objectives: usize,
    moments: Moments,
    keep: Option<Keep>,
    memory: Option<usize>,
    reference: bool,
}

impl Setting {
    fn read(options: &mut Opts) -> Result<Self> {
        let moments = match options.text("optimizer")?.as_deref() {
            None | Some("adamw") => Moments::Two,
            Some("momentum") => Moments::One,
            Some("sgd") => Moments::None,
            Some(other) => return Err(unknown("optimizer", other, ["adamw", "momentum", "sgd"])),
        };
        let keep = match options.text("keep")?.as_deref() {
            None => None,
            Some("everything") => Some(Keep::Everything),
            Some("layers") => Some(Keep::Layers),
            Some("inputs") => Some(Keep::Inputs),
            Some(other) => return Err(unknown("keep", other, ["everything", "layers", "inputs"])),
        };
        Ok(Self {
            objectives: options.count("objectives")?.unwrap_or(1),
            moments,
            keep,
            memory: memory(options)?,
            reference: options.flag("reference")?.unwrap_or(true),
        })
    }
}

/// That of a step on examples with these lengths of prompt and responses.
fn of_lengths(config: &Config, model: Option<&Model>, options: Map) -> Result<Map> {
    let mut options = Opts::new("estimate", options);
    let mut size = |key, default| Ok::<usize, Error>(options.count(key)?.unwrap_or(default));
    let (pairs, prompt) = (size("pairs", 8)?, size("prompt", 256)?);
    let (chosen, rejected, rank) = (size("chosen", 128)?, size("rejected", 128)?, size("rank", 0)?);
    let share = options.flag("share_prompt")?.unwrap_or(true);
    let kept = model.map_or_else(|| precision(&mut options), |model| Ok(model.precision()))?;
    let setting = Setting::read(&mut options)?;
    options.finish()?;
    let words = vec![0; prompt.max(chosen).max(rejected)];
    let pair = Packed::new([(&words[..prompt], vec![&words[..chosen], &words[..rejected]])], share)?;
    let shapes = vec![Shape::new(config, &pair); pairs];
    let costs = match model {
        Some(model) => Costs::of(model),
        None if rank == 0 => Costs::new(config, None),
        None => {
            let lora = Lora { rank, alpha: rank as f64, ..Lora::default() };
            Costs::new(config, Some((rank, &lora.parameters(config)?)))
        }
    };
    told(&costs, config, kept, &shapes, &setting)
}

fn of_examples(
    policy: &Model,
    examples: &[Arc<Example>],
    share_prompt: bool,
    mut options: Opts,
) -> Result<Map> {
    let setting = Setting::read(&mut options)?;
    options.finish()?;
    let shapes = shapes(policy.config(), examples, share_prompt)?;
    told(&Costs::of(policy), policy.config(), policy.precision(), &shapes, &setting)
}

fn told(
    costs: &Costs,
    config: &Config,
    kept: Precision,
    examples: &[Shape],
    setting: &Setting,
) -> Result<Map> {
    let plan = plan(costs, examples, setting.keep, setting.memory)?;
    let passes = plan.shapes(examples);
    let phases = costs.phases(&passes, plan.keep, setting.objectives, setting.moments);
    let decoder = weight_bytes(config, kept) as usize;
    let mut memory = costs.memory(&passes, plan.keep, setting.objectives, setting.moments, decoder);
    if !setting.reference {
        memory.reference = 0;
    }
    let parts = [
        ("weights", memory.weights),
        ("reference", memory.reference),
        ("gradients", memory.gradients),
        ("update", memory.update),
        ("optimizer", memory.optimizer),
        ("tape", memory.tape),
        ("workspace", memory.workspace),
        ("program", memory.program),
        ("total", memory.total()),
    ];
    let mut bytes = map(parts.map(|(part, bytes)| (part, Dynamic::from(bytes as i64))));
    let available = allowed_bytes().map_or(Dynamic::UNIT, |bytes| Dynamic::from(bytes as i64));
    bytes.insert("available".into(), available);
    let whole: Shape = passes.iter().copied().sum();
    let keep = match plan.keep {
        Keep::Everything => "everything",
        Keep::Layers => "layers",
        Keep::Inputs => "inputs",
    };
    Ok(map([
        ("parameters", Dynamic::from(costs.decoder() as i64)),
        ("trained", Dynamic::from(costs.trained() as i64)),
        ("tokens", Dynamic::from(whole.rows as i64)),
        ("scored", Dynamic::from(whole.scored as i64)),
        ("passes", Dynamic::from(passes.len() as i64)),
        ("keep", keep.into()),
        ("memory", bytes.into()),
        ("flops", of_phases(&phases, |work| work.flops).into()),
        ("bytes", of_phases(&phases, |work| work.bytes).into()),
    ]))
}

fn of_phases(phases: &Phases, of: impl Fn(crate::engine::Work) -> f64) -> Map {
    map(phases.all().map(|(name, work)| (name, Dynamic::from(of(work)))))
}

fn map<const N: usize>(entries: [(&str, Dynamic); N]) -> Map {
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect()
}
