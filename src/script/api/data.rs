//! Preference pairs, demonstrations, and the batches drawn from them.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, Map};

use crate::data::hub::Wanted;
use crate::data::{self, Example, ReadOptions, Row};
use crate::engine::Reference;
use crate::error::{Error, Result};
use crate::model::Model;

use super::super::session::Session;
use super::super::value::{Answer, Opts, count, show, to_json, type_of};
use super::model::prompt;

/// A set of examples with the reference that scores them.
#[derive(Clone)]
pub(super) struct Preferences {
    pub session: Rc<Session>,
    pub inner: data::Preferences,
    reference: Option<Rc<Reference>>,
}

/// A schedule of batches over a set.
#[derive(Clone)]
pub(super) struct Batches {
    session: Rc<Session>,
    inner: data::Batches,
    reference: Option<Rc<Reference>>,
}

/// One batch, with reference log-probs where the set has a reference.
#[derive(Clone)]
pub(super) struct Batch(pub Rc<data::Batch>);

impl Preferences {
    /// Another set of the same kind.
    pub fn with(&self, inner: data::Preferences) -> Self {
        Self { inner, ..self.clone() }
    }

    /// Sums of response log-probs under a model, `#{ chosen, rejected }`.
    fn score(&self, reference: &Reference, what: &str) -> Result<Map> {
        let scores = score(&self.session, reference, &self.inner.examples, what)?;
        let column = |which: usize| -> Array {
            let value = |row: &Vec<f64>| row.get(which).copied().map_or(Dynamic::UNIT, Dynamic::from);
            scores.iter().map(value).collect()
        };
        Ok([("chosen", 0), ("rejected", 1)].map(|(name, i)| (name.into(), column(i).into())).into())
    }
}

impl Batches {
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Scores what the batches from `first` on will visit, so that the steps do not wait for the reference.
    pub fn prepare(&self, first: usize) -> Result<()> {
        let Some(reference) = &self.reference else { return Ok(()) };
        let examples = &self.inner.preferences().examples;
        let visited: Vec<Arc<Example>> =
            self.inner.visited(first..self.len()).into_iter().map(|i| examples[i].clone()).collect();
        score(&self.session, reference, &visited, "reference log-probs").map(drop)
    }

    pub fn batch(&self, k: usize) -> Result<Batch> {
        let mut batch = self.inner.batch(k);
        if let Some(reference) = &self.reference {
            batch.reference = Some(reference.log_probs(&batch.examples, |_, _| !self.session.interrupted())?);
        }
        Ok(Batch(Rc::new(batch)))
    }
}

fn score(
    session: &Session,
    reference: &Reference,
    examples: &[Arc<Example>],
    what: &str,
) -> Result<Vec<Vec<f64>>> {
    let scored = reference.log_probs(examples, |done, total| {
        session.console().progress(done, total, what);
        !session.interrupted()
    });
    session.console().progress_end();
    scored
}

/// Goes through the batches in a `for` loop without a run.
struct Walk {
    batches: Batches,
    next: usize,
}

impl Iterator for Walk {
    type Item = Answer<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let k = self.next;
        self.next += 1;
        (k < self.batches.len()).then(|| self.batches.batch(k).map_err(Into::into))
    }
}

impl IntoIterator for Batches {
    type Item = Answer<Batch>;
    type IntoIter = Box<dyn Iterator<Item = Answer<Batch>>>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(Walk { batches: self, next: 0 })
    }
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<Preferences>("Preferences");
    engine.register_type_with_name::<Batches>("Batches");
    engine.register_type_with_name::<Batch>("Batch");
    engine.register_iterator_result::<Batches, Batch>();

    let shared = session.clone();
    engine.register_fn(
        "load_preferences",
        move |path: &str, policy: Model, options: Map| -> Answer<Preferences> {
            Ok(load(&shared, path, &policy, options)?)
        },
    );
    let shared = session.clone();
    engine.register_fn("load_preferences", move |path: &str, policy: Model| -> Answer<Preferences> {
        Ok(load(&shared, path, &policy, Map::new())?)
    });
    let shared = session.clone();
    engine.register_fn(
        "preferences",
        move |rows: Array, policy: Model, options: Map| -> Answer<Preferences> {
            Ok(from_rows(&shared, &rows, &policy, options, pair)?)
        },
    );
    let shared = session.clone();
    engine.register_fn("preferences", move |rows: Array, policy: Model| -> Answer<Preferences> {
        Ok(from_rows(&shared, &rows, &policy, Map::new(), pair)?)
    });
    for has_options in [false, true] {
        let shared = session.clone();
        let of_rows = move |rows: Array, policy: Model, options: Map| -> Answer<Preferences> {
            Ok(from_rows(&shared, &rows, &policy, options, demonstration)?)
        };
        let shared = session.clone();
        let of_file = move |path: &str, policy: Model, options: Map| -> Answer<Preferences> {
            let (reference, read) = read_options(Opts::new("demonstrations", options), &policy)?;
            let file = shared.local(path, Wanted::Model)?;
            let mut inner = data::Preferences::demonstrations(&file, policy.tokenizer(), &read)?;
            inner.origin = path.to_owned();
            shared.note_input(path, inner.fingerprint());
            Ok(loaded(&shared, inner, reference))
        };
        if has_options {
            engine.register_fn("demonstrations", of_rows);
            engine.register_fn("demonstrations", of_file);
        } else {
            engine.register_fn("demonstrations", move |rows: Array, policy: Model| {
                of_rows(rows, policy, Map::new())
            });
            engine.register_fn("demonstrations", move |path: &str, policy: Model| {
                of_file(path, policy, Map::new())
            });
        }
    }
    preferences(engine);
    batch(engine);
}

fn preferences(engine: &mut Engine) {
    engine.register_get("size", |p: &mut Preferences| p.inner.len() as i64);
    engine.register_fn("len", |p: &mut Preferences| p.inner.len() as i64);
    engine.register_get("objectives", |p: &mut Preferences| names(&p.inner.objectives));
    engine.register_get("origin", |p: &mut Preferences| p.inner.origin.clone());
    engine.register_get("rendering", |p: &mut Preferences| p.inner.rendering.clone());
    engine.register_get("prompts", |p: &mut Preferences| -> Array {
        p.inner.examples.iter().map(|e| Dynamic::from(e.prompt.clone())).collect()
    });
    engine.register_fn("rows", |p: &mut Preferences| -> Array {
        p.inner.examples.iter().map(|e| Dynamic::from(row_map(e, &p.inner.objectives))).collect()
    });
    engine.register_fn("labels", |p: &mut Preferences, objective: &str| -> Answer<Array> {
        let all: Vec<usize> = (0..p.inner.len()).collect();
        let batch = p.inner.select(&all);
        let (signs, labelled) = (batch.signs(objective)?, batch.labelled(objective)?);
        let label =
            |(&sign, labelled): (&f64, bool)| if labelled { (sign as i64).into() } else { Dynamic::UNIT };
        Ok(signs.iter().zip(labelled).map(label).collect())
    });
    engine.register_fn("score", |p: &mut Preferences, model: Model| -> Answer<Map> {
        // a policy that is still the reference was scored with it
        if let Some(reference) = &p.reference
            && reference.model().fingerprint()? == model.fingerprint()?
        {
            return Ok(p.score(reference, "log-probs")?);
        }
        Ok(p.score(&Reference::new(model.frozen(), None)?, "log-probs")?)
    });
    engine.register_fn("reference_score", |p: &mut Preferences| -> Answer<Map> {
        let reference = p.reference.clone().ok_or_else(no_reference)?;
        Ok(p.score(&reference, "reference log-probs")?)
    });
    engine.register_fn("ids", |p: &mut Preferences| -> Array {
        p.inner.examples.iter().map(|e| ids(e)).collect()
    });
    engine.register_fn("batches", |p: &mut Preferences, options: Map| -> Answer<Batches> {
        Ok(batches(p, options)?)
    });
    engine.register_fn("batch", |p: &mut Preferences| -> Answer<Batch> {
        let inner = p.inner.in_order(p.inner.len())?;
        let all = Batches { session: p.session.clone(), inner, reference: p.reference.clone() };
        Ok(all.batch(0)?)
    });
    let text = |p: &mut Preferences| {
        let objectives = if p.inner.objectives.is_empty() {
            "demonstrations".into()
        } else {
            p.inner.objectives.join(", ")
        };
        format!("Preferences({objectives}; {} rows of {})", p.inner.len(), p.inner.origin)
    };
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
    engine.register_fn("len", |b: &mut Batches| b.len() as i64);
    engine.register_fn("batch", |b: &mut Batches, k: i64| -> Answer<Batch> {
        let step = count(k, "the number of the batch")?;
        if step >= b.len() {
            return Err(Error::new(format!("batch {step} of {}", b.len()))
                .help("batches count from 0")
                .into());
        }
        b.batch(step).map_err(Into::into)
    });
    let text = |b: &mut Batches| format!("Batches({} of {} rows)", b.len(), b.inner.size());
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

fn batch(engine: &mut Engine) {
    engine.register_get("size", |b: &mut Batch| b.0.len() as i64);
    engine.register_get("index", |b: &mut Batch| b.0.index as i64);
    engine.register_get("objectives", |b: &mut Batch| names(&b.0.objectives));
    engine.register_fn("rows", |b: &mut Batch| -> Array {
        b.0.examples.iter().map(|e| Dynamic::from(row_map(e, &b.0.objectives))).collect()
    });
    engine.register_fn("ids", |b: &mut Batch| -> Array { b.0.examples.iter().map(|e| ids(e)).collect() });
    let text = |b: &mut Batch| {
        let tokens = b.0.scored_tokens();
        format!("Batch({} rows, {tokens} response tokens)", b.0.len())
    };
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

/// The token ids of a row, in the form of the layout `ids`.
fn ids(example: &Example) -> Dynamic {
    let numbers = |ids: &[u32]| -> Dynamic {
        ids.iter().map(|&id| Dynamic::from(i64::from(id))).collect::<Array>().into()
    };
    let keys: &[&str] =
        if example.responses.len() == 1 { &["response_ids"] } else { &["chosen_ids", "rejected_ids"] };
    let responses = keys.iter().zip(&example.responses).map(|(key, r)| ((*key).into(), numbers(&r.ids)));
    std::iter::once(("prompt_ids".into(), numbers(&example.prompt_ids)))
        .chain(responses)
        .collect::<Map>()
        .into()
}

pub(super) fn names(names: &[String]) -> Array {
    names.iter().map(|name| name.into()).collect()
}

pub(super) fn row_map(example: &Example, objectives: &[String]) -> Map {
    let mut row = Map::new();
    row.insert("prompt".into(), example.prompt.clone().into());
    let keys: &[&str] = if example.responses.len() == 1 { &["response"] } else { &["chosen", "rejected"] };
    for (key, response) in keys.iter().zip(&example.responses) {
        row.insert((*key).into(), response.text.clone().into());
    }
    let label = |l: &Option<i8>| l.map_or(Dynamic::UNIT, |l| i64::from(l).into());
    let labels: Map =
        objectives.iter().zip(&example.labels).map(|(n, l)| (n.as_str().into(), label(l))).collect();
    row.insert("objectives".into(), labels.into());
    row.insert("line".into(), (example.line as i64).into());
    row
}

pub(super) fn no_reference() -> Error {
    Error::new("the pairs have no reference")
        .help("load them with `#{ reference: policy.frozen() }`, or use a loss without one, such as `simpo`")
}

fn read_options(mut options: Opts, policy: &Model) -> Result<(Option<Rc<Reference>>, ReadOptions)> {
    let read = ReadOptions {
        objectives: options.texts("objectives")?,
        template: options.text("template")?.map_or(Ok(data::Template::Auto), |t| t.parse())?,
        context: policy.config().context,
        vocab: policy.config().vocab,
        max_length: options.count("max_length")?.unwrap_or(usize::MAX),
        max_prompt_length: options.count("max_prompt_length")?.unwrap_or(usize::MAX),
        keep: options.text("truncation")?.map_or(Ok(data::Keep::default()), |keep| keep.parse())?,
    };
    let reference = options.host::<Model>("reference", "a model, such as `policy.frozen()`")?;
    options.finish()?;
    let reference =
        reference.map(|model| Reference::new(model, cache_folder("reference").as_deref()).map(Rc::new));
    Ok((reference.transpose()?, read))
}

/// Where something is kept between runs, such as reference log-probs.
pub(super) fn cache_folder(what: &str) -> Option<PathBuf> {
    let chosen = std::env::var_os("RACO_CACHE").filter(|v| !v.is_empty()).map(PathBuf::from);
    chosen.or_else(|| dirs::cache_dir().map(|d| d.join("raco"))).map(|d| d.join(what))
}

fn load(session: &Rc<Session>, path: &str, policy: &Model, options: Map) -> Result<Preferences> {
    let (reference, read) = read_options(Opts::new("load_preferences", options), policy)?;
    let file = session.local(path, Wanted::Model)?;
    let mut inner = data::Preferences::read(&file, policy.tokenizer(), &read)?;
    inner.origin = path.to_owned();
    session.note_input(path, inner.fingerprint());
    Ok(loaded(session, inner, reference))
}

/// The set as scripts hold it; tells what a length limit cut.
fn loaded(session: &Rc<Session>, inner: data::Preferences, reference: Option<Rc<Reference>>) -> Preferences {
    let cut = inner.truncated();
    if cut.rows > 0 {
        session.console().print(&format!(
            "{}: {} of {} rows are truncated ({} prompts, {} responses)",
            inner.origin,
            cut.rows,
            inner.len(),
            cut.prompts,
            cut.responses
        ));
    }
    Preferences { session: session.clone(), inner, reference }
}

fn from_rows(
    session: &Rc<Session>,
    rows: &[Dynamic],
    policy: &Model,
    options: Map,
    convert: fn(&Map) -> Result<Row>,
) -> Result<Preferences> {
    let (reference, read) = read_options(Opts::new("preferences", options), policy)?;
    let row = |(i, value): (usize, &Dynamic)| {
        let map = value.read_lock::<Map>().ok_or_else(|| {
            Error::new(format!("row {i} is {}, expected a map", type_of(value)))
                .help("give rows as `#{ prompt: \"…\", … }`")
        })?;
        convert(&map)
            .map_err(|e| Error::new(format!("row {i}: {}", e.what())).help(e.help_text().unwrap_or_default()))
    };
    let rows = rows.iter().enumerate().map(row).collect::<Result<Vec<Row>>>()?;
    let inner = data::Preferences::from_rows(rows, policy.tokenizer(), &read)?;
    Ok(loaded(session, inner, reference))
}

fn field(map: &Map, key: &str) -> Result<String> {
    map.get(key).and_then(|v| v.clone().into_string().ok()).ok_or_else(|| {
        Error::new(format!("`{key}` is missing or no string")).help(format!("give `{key}` as a string"))
    })
}

fn prompt_of(map: &Map) -> Result<data::Prompt> {
    let value = map.get("prompt").or_else(|| map.get("messages"));
    prompt(value.ok_or_else(|| Error::new("`prompt` is missing").help("give the row a `prompt`"))?)
}

fn pair(map: &Map) -> Result<Row> {
    let labels = map.get("objectives").and_then(|v| v.read_lock::<Map>()).ok_or_else(|| {
        Error::new("`objectives` is missing or no map").help("give labels: `objectives: #{ quality: 1 }`")
    })?;
    let label = |(name, value): (&rhai::Identifier, &Dynamic)| {
        let label = match value.as_int() {
            Ok(sign @ -1..=1) => Some(sign as i8),
            _ if value.is_unit() => None,
            _ => {
                return Err(Error::new(format!(
                    "label of `{name}` is `{}`, expected -1, 0 or 1",
                    show(value)
                ))
                .help("1 prefers `chosen`, -1 `rejected`, 0 neither"));
            }
        };
        Ok((name.to_string(), label))
    };
    let labels = labels.iter().map(label).collect::<Result<_>>()?;
    if map.contains_key("prompt_ids") {
        let whole = to_json(&Dynamic::from(map.clone()))?;
        return Row::pair_from_json(whole.as_object().unwrap_or(&serde_json::Map::new()));
    }
    Ok(Row::pair(prompt_of(map)?, field(map, "chosen")?, field(map, "rejected")?, labels))
}

fn demonstration(map: &Map) -> Result<Row> {
    Ok(Row::demonstration(prompt_of(map)?, field(map, "response")?))
}

fn batches(p: &Preferences, options: Map) -> Result<Batches> {
    let mut options = Opts::new("batches", options);
    let size = options.count("size")?.unwrap_or(16);
    let inner = match (options.count("steps")?, options.seed("seed")?) {
        (Some(steps), seed) => p.inner.batches(size, steps, seed.unwrap_or(0))?,
        (None, None) => p.inner.in_order(size)?,
        (None, Some(_)) => {
            return Err(Error::new("`batches` has a seed but no `steps`")
                .help("give `steps`, or leave out both to go through all rows in order"));
        }
    };
    let inner = inner.share_prompt(options.flag("share_prompt")?.unwrap_or(true));
    options.finish()?;
    Ok(Batches { session: p.session.clone(), inner, reference: p.reference.clone() })
}
