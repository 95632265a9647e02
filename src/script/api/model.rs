//! Models, tokenizers and what they generate.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, Map};

use crate::data::hub::Wanted;
use crate::data::{Prompt, Template, Tokenizer};
use crate::engine::{Costs, Moments};
use crate::error::{Error, Result};
use crate::model::{
    Keep, Kernels, Load, Lora, Model, Precision, Processor, Sampling, Targets, Weights, allowed_bytes,
    read_config, weight_bytes,
};

use super::super::session::Session;
use super::super::value::{Answer, Opts, count, from_json, show, strings, to_json, unknown};

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<Model>("Model");
    let shared = session.clone();
    let load = move |path: &str, options: Map| -> Answer<Model> {
        let mut options = Opts::new("load_model", options);
        let adapter = options.text("adapter")?;
        let load = Load {
            precision: precision(&mut options)?,
            processor: options.text("device")?.map_or(Ok(Default::default()), |name| name.parse())?,
            kernels: kernels(&mut options)?,
        };
        // gradients stay on the device
        let objectives = options.count("objectives")?.filter(|_| load.processor == Processor::default());
        options.finish()?;
        let folder = shared.local(path, Wanted::Model)?;
        if let Some(objectives) = objectives {
            check_training(&folder, load.precision, objectives)?;
        }
        let model = Model::load_as(&folder, load)?;
        shared.note_input(path, model.fingerprint()?);
        let Some(adapter) = adapter else { return Ok(model) };
        let model = model.load_adapter(&shared.local(&adapter, Wanted::Model)?)?;
        shared.note_input(&adapter, model.fingerprint()?);
        Ok(model)
    };
    let plain = load.clone();
    engine.register_fn("load_model", move |path: &str| plain(path, Map::new()));
    engine.register_fn("load_model", load);
    engine.register_fn("lora", |model: &mut Model| adapt(model, Map::new()));
    engine.register_fn("lora", adapt);
    engine.register_fn("base", |model: &mut Model| model.base());
    engine.register_fn("merged", |model: &mut Model| -> Answer<Model> { Ok(model.merged()?) });
    engine.register_fn("init_model", |config: Map, tokenizer: SharedTokenizer, seed: i64| -> Answer<Model> {
        Ok(Model::init(to_json(&config.into())?, tokenizer.0, count(seed, "the seed")? as u64)?)
    });
    engine.register_fn("frozen", |model: &mut Model| model.frozen());
    engine.register_fn("fingerprint", |model: &mut Model| -> Answer<String> { Ok(model.fingerprint()?) });
    engine.register_get("family", |model: &mut Model| model.config().family.name().to_owned());
    engine.register_get("parameters", |model: &mut Model| model.weights().space().size() as i64);
    engine.register_get("dtype", |model: &mut Model| model.precision().short().to_owned());
    engine.register_get("device", |model: &mut Model| model.processor().to_string());
    engine.register_get("kernels", |model: &mut Model| model.kernels().name().to_owned());
    engine.register_get("layers", |model: &mut Model| model.config().layers as i64);
    engine.register_get("context", |model: &mut Model| model.config().context as i64);
    engine.register_get("vocab", |model: &mut Model| model.config().vocab as i64);
    engine.register_get("tokenizer", |model: &mut Model| SharedTokenizer(model.tokenizer().clone()));
    engine.register_get("adapter", |model: &mut Model| -> Answer<Dynamic> {
        let Some(adapter) = model.adapter() else { return Ok(Dynamic::UNIT) };
        Ok(from_json(&adapter.describe())?)
    });
    engine.register_get("tensors", |model: &mut Model| -> Array {
        model.weights().space().names.iter().map(|name| name.into()).collect()
    });
    engine.register_fn("to_string", |model: &mut Model| describe(model));
    engine.register_fn("to_debug", |model: &mut Model| describe(model));
    engine.register_fn("==", |a: Model, b: Model| a.same_as(&b));

    for has_options in [false, true] {
        let shared = session.clone();
        let save = move |model: &mut Model, path: &str, options: Map| -> Answer<()> {
            let mut options = Opts::new("save", options);
            let precision = precision(&mut options)?;
            options.finish()?;
            shared.sandbox.borrow().check(Path::new(path))?;
            Ok(model.save(Path::new(path), precision)?)
        };
        let shared = session.clone();
        let generate = move |model: &mut Model, prompts: Array, options: Map| -> Answer<Array> {
            Ok(responses(&shared, model, &prompts, options)?.into_iter().map(Dynamic::from).collect())
        };
        if has_options {
            engine.register_fn("save", save);
            engine.register_fn("generate", generate);
        } else {
            engine.register_fn("save", move |model: &mut Model, path: &str| save(model, path, Map::new()));
            engine.register_fn("generate", move |model: &mut Model, prompts: Array| {
                generate(model, prompts, Map::new())
            });
        }
    }

    engine.register_type_with_name::<SharedTokenizer>("Tokenizer");
    engine.register_fn("word_level_tokenizer", |words: Array| -> Answer<SharedTokenizer> {
        Ok(SharedTokenizer(Arc::new(Tokenizer::word_level(&strings(&words, "the words")?)?)))
    });
    let shared = session.clone();
    engine.register_fn("load_tokenizer", move |path: &str| -> Answer<SharedTokenizer> {
        Ok(SharedTokenizer(Arc::new(Tokenizer::load(&shared.local(path, Wanted::Tokenizer)?)?)))
    });
    engine.register_fn("render", |tokenizer: &mut SharedTokenizer, value: Dynamic| -> Answer<String> {
        Ok(tokenizer.prompt_text(&prompt(&value)?, Template::Auto)?)
    });
    engine.register_fn("encode", |tokenizer: &mut SharedTokenizer, text: &str| -> Answer<Array> {
        Ok(tokenizer.encode(text)?.into_iter().map(|id| Dynamic::from(i64::from(id))).collect())
    });
    engine.register_fn("decode", |tokenizer: &mut SharedTokenizer, ids: Array| -> Answer<String> {
        let id = |v: &Dynamic| {
            v.as_int().ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                Error::new(format!("token id `{}`", show(v))).help("ids are whole numbers of 0 or more")
            })
        };
        Ok(tokenizer.decode(&ids.iter().map(id).collect::<Result<Vec<u32>>>()?)?)
    });
    engine.register_get("vocab", |tokenizer: &mut SharedTokenizer| tokenizer.vocab_size() as i64);
    let text = |tokenizer: &mut SharedTokenizer| format!("Tokenizer({} tokens)", tokenizer.vocab_size());
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

/// Refuses a model whose training in full, with AdamW, cannot fit, whatever the batch.
fn check_training(folder: &Path, precision: Precision, objectives: usize) -> Result<()> {
    let config = read_config(folder)?;
    let weights = weight_bytes(&config, precision) as usize;
    let costs = Costs::new(&config, None);
    let memory = costs.memory(&[], Keep::Everything, objectives, Moments::Two, weights);
    memory.check(0, allowed_bytes()).map_err(|e| e.in_file(folder))
}

pub(super) fn precision(options: &mut Opts) -> Result<Precision> {
    match options.text("dtype")?.as_deref() {
        None | Some("f32") => Ok(Precision::F32),
        Some("bf16") => Ok(Precision::Bf16),
        Some(other) => Err(unknown("dtype", other, ["f32", "bf16"])),
    }
}

fn kernels(options: &mut Opts) -> Result<Option<Kernels>> {
    match options.text("kernels")?.as_deref() {
        None => Ok(None),
        Some("fused") => Ok(Some(Kernels::Fused)),
        Some("generic") => Ok(Some(Kernels::Generic)),
        Some(other) => Err(unknown("kernels", other, ["fused", "generic"])),
    }
}

/// A tokenizer as scripts hold it.
#[derive(Clone)]
pub(super) struct SharedTokenizer(Arc<Tokenizer>);

impl std::ops::Deref for SharedTokenizer {
    type Target = Tokenizer;

    fn deref(&self) -> &Tokenizer {
        &self.0
    }
}

/// The model with a fresh adapter.
fn adapt(model: &mut Model, options: Map) -> Answer<Model> {
    let mut options = Opts::new("lora", options);
    let rank = options.count("rank")?.unwrap_or(16);
    let alpha = options.float("alpha")?.unwrap_or(2.0 * rank as f64);
    let rslora = options.flag("rslora")?.unwrap_or_default();
    let targets = match options.take("targets") {
        None => Targets::AllLinear,
        Some(targets) => match (targets.clone().into_string(), targets.read_lock::<Array>()) {
            (Ok(pattern), _) => Targets::pattern(&pattern),
            (_, Some(names)) => Targets::Names(strings(&names, "`targets`")?),
            _ => {
                return Err(Error::new(format!(
                    "`targets` is `{}`, expected names or a pattern",
                    show(&targets)
                ))
                .help("for example `[\"q_proj\", \"v_proj\"]`, or `\"all-linear\"`")
                .into());
            }
        },
    };
    let seed = options.seed("seed")?.unwrap_or_default();
    options.finish()?;
    Ok(model.with_adapter(Lora { rank, alpha, rslora, targets }, seed)?)
}

/// `Model(qwen3, 3 layers; 0.30 M parameters, cpu f32)`; with an adapter, what is trained of it.
fn describe(model: &Model) -> String {
    let config = model.config();
    let count = |weights: &Weights| match weights.space().size() {
        few if few < 100_000 => few.to_string(),
        many => format!("{:.2} M", many as f64 / 1e6),
    };
    let size = match model.adapter() {
        None => format!("{} parameters", count(&model.weights())),
        Some(adapter) => format!(
            "{} parameters frozen, {} trained: rank {} on {} modules",
            count(adapter.base()),
            count(&model.weights()),
            adapter.lora().rank,
            adapter.module_count()
        ),
    };
    let kept = model.precision().short();
    let place = model.processor();
    format!("Model({}, {} layers; {size}, {place} {kept})", config.family.name(), config.layers)
}

/// One response text a prompt; a prompt is text or an array of chat messages.
pub(super) fn responses(
    session: &Session,
    model: &Model,
    prompts: &[Dynamic],
    options: Map,
) -> Result<Vec<String>> {
    let mut options = Opts::new("generate", options);
    let room = options.count("max_tokens")?.unwrap_or(128);
    let mut sampling = Sampling::greedy(model, room);
    sampling.temperature = options.float("temperature")?.unwrap_or(sampling.temperature);
    sampling.top_p = options.float("top_p")?.unwrap_or(sampling.top_p);
    sampling.seed = options.seed("seed")?.unwrap_or(sampling.seed);
    sampling.first_index = options.seed("first_index")?.unwrap_or(sampling.first_index);
    let template: Template = options.text("template")?.map_or(Ok(Template::Auto), |t| t.parse())?;
    let tokenizer = model.tokenizer();
    if let Some(stop) = options.texts("stop")? {
        sampling.stop_tokens = stop
            .iter()
            .map(|token| {
                tokenizer.token_id(token).ok_or_else(|| {
                    Error::new(format!("stop token `{token}` is no token of the model"))
                        .help("give one token, such as the end-of-turn token of the chat template")
                })
            })
            .collect::<Result<_>>()?;
    }
    options.finish()?;
    let ids = prompts
        .iter()
        .map(|value| tokenizer.prompt_ids(&prompt(value)?, template))
        .collect::<Result<Vec<_>>>()?;
    let generations = model.generate(&ids, &sampling, &|| session.interrupted())?;
    generations.iter().map(|g| Ok(tokenizer.decode(&g.tokens)?.trim().to_owned())).collect()
}

/// A prompt from a string or from chat messages.
pub(super) fn prompt(value: &Dynamic) -> Result<Prompt> {
    if let Ok(text) = value.clone().into_string() {
        return Ok(Prompt::Text(text));
    }
    let wrong = || {
        Error::new(format!("a prompt is `{}`, expected text or chat messages", show(value)))
            .help("give a string, or an array of `#{ role: \"user\", content: \"…\" }`")
    };
    let messages = value.read_lock::<Array>().ok_or_else(wrong)?;
    let message = |m: &Dynamic| {
        let map = m.read_lock::<Map>().ok_or_else(wrong)?;
        let text = |key: &str| map.get(key).and_then(|v| v.clone().into_string().ok()).ok_or_else(wrong);
        Ok(crate::data::Message::new(text("role")?, text("content")?))
    };
    messages.iter().map(message).collect::<Result<_>>().map(Prompt::Messages)
}
