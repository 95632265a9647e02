//! Runs: the folder, the loop with its safe point, the log.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use candle_core::DType;
use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::math::Matrix;
use crate::model::Model;
use crate::run::{self, Responses, RunOptions, Source, Stateful, StepRow};

use super::super::session::Session;
use super::super::value::{Answer, Opts, floats, from_json, to_json, type_of};
use super::data::{Batch, Batches};
use super::gradients::Gradients;
use super::method::Method;
use super::optim::Optimizer;

/// A run that is being written; copies share it.
#[derive(Clone)]
struct Run(Rc<Inner>);

struct Inner {
    session: Rc<Session>,
    run: RefCell<run::Run>,
    optimizers: Vec<Optimizer>,
    /// How often each thing that the run holds has changed so far.
    changes: Vec<Box<dyn Fn() -> u64>>,
    sources: Cell<usize>,
    steps: Cell<usize>,
    /// From the script's begin to the first step: loading, and what was evaluated before.
    start: Duration,
}

/// The batches of a run, from the step it stands at.
#[derive(Clone)]
struct Steps {
    run: Rc<Inner>,
    batches: Batches,
}

impl IntoIterator for Steps {
    type Item = Answer<Batch>;
    type IntoIter = Box<dyn Iterator<Item = Answer<Batch>>>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(Walk { steps: self, begun: false, changes: None })
    }
}

/// A loop at work; its end, however it comes, ends the progress bar and the waiting of Ctrl-C.
struct Walk {
    steps: Steps,
    begun: bool,
    /// Changes before the step at work, while one is.
    changes: Option<Vec<u64>>,
}

impl Walk {
    /// The safe point between two steps.
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let Steps { run, batches } = &self.steps;
        self.changes = None;
        if self.begun {
            run.keep_sources()?;
            run.run.borrow_mut().advance()?;
        } else {
            batches.prepare(run.run.borrow().step())?;
            self.begun = true;
        }
        run.session.in_step.set(false);
        let step = run.run.borrow().step();
        if run.session.interrupted() {
            run.run.borrow().checkpoint()?;
            return Err(Error::interrupted(format!("stopped after step {step} of {}", batches.len()))
                .help(format!("resume with `{}`", run.resume_command())));
        }
        if step >= batches.len() {
            run.run.borrow().checkpoint()?;
            run.run.borrow().plot()?;
            return Ok(None);
        }
        let batch = batches.batch(step)?;
        self.changes = Some(run.changes());
        if let Some(edits) = &*run.session.edits.borrow() {
            edits.look_at_next_call();
        }
        run.session.in_step.set(true);
        Ok(Some(batch))
    }
}

impl Iterator for Walk {
    type Item = Answer<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().map_err(Into::into).transpose()
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        let Steps { run, batches } = &self.steps;
        run.session.in_step.set(false);
        run.session.console().progress_end();
        // a `break` or an error left the loop within a step
        let Some(before) = self.changes.take().filter(|_| !std::thread::panicking()) else { return };
        let told = match run.leave(&before) {
            Ok(Some(step)) => format!(
                "stopped after step {step} of {}: resume with `{}`",
                batches.len(),
                run.resume_command()
            ),
            Ok(None) => return,
            Err(error) => format!("the steps since the last checkpoint could not be saved: {}", error.what()),
        };
        run.session.console().print(&format!("note: {told}"));
    }
}

impl Drop for Inner {
    /// The end of the script: what it took goes beside where it ran. A killed one leaves nothing, and so does an error here,
    /// which is none of the run's.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let seconds = |duration: Duration| Value::from((duration.as_secs_f64() * 1e3).round() / 1e3);
        let mut took = serde_json::Map::new();
        took.insert("start_s".into(), seconds(self.start));
        took.insert("evaluate_s".into(), seconds(self.session.evaluated.get()));
        took.insert("whole_s".into(), seconds(self.session.begun.elapsed()));
        if let Some(memory) = run::memory() {
            took.insert("peak_mib".into(), Value::from(memory.peak_mib.round()));
        }
        let _ = self.run.borrow().close(took);
    }
}

impl Inner {
    fn resume_command(&self) -> String {
        if self.session.in_point.get() {
            return "the command that started the sweep".to_owned();
        }
        let script = self.session.script.borrow().display().to_string();
        let lib: String = self.session.lib.iter().map(|dir| format!(" --lib {}", dir.display())).collect();
        let watch = if self.session.edits.borrow().is_some() { " --watch" } else { "" };
        format!("raco script {script}{lib}{watch} --resume {}", self.run.borrow().dir().display())
    }

    fn changes(&self) -> Vec<u64> {
        self.changes.iter().map(|count| count()).collect()
    }

    /// Saves what a loop that is left within a step has done: the step too where it is complete, the steps before
    /// it where it has changed nothing. Between the two only the older checkpoints are sound.
    fn leave(&self, before: &[u64]) -> Result<Option<usize>> {
        let changed = |&(after, before): &(u64, &u64)| after != *before;
        let changed = self.changes().into_iter().zip(before).filter(changed).count();
        let logged = self.run.borrow().is_logged();
        if logged && changed == before.len() {
            self.keep_sources()?;
            self.run.borrow_mut().advance()?;
        } else if logged || changed > 0 {
            return Ok(None);
        }
        let run = self.run.borrow();
        if run.step() == 0 {
            return Ok(None);
        }
        run.checkpoint()?;
        run.plot()?;
        Ok(Some(run.step()))
    }

    /// Keeps modules that were loaded since the start.
    fn keep_sources(&self) -> Result<()> {
        if self.session.sources.borrow().len() == self.sources.get() {
            return Ok(());
        }
        let modules = modules(&self.session);
        self.sources.set(self.session.sources.borrow().len());
        modules.iter().try_for_each(|module| self.run.borrow().add_module(module))
    }

    /// Keeps the texts that were edited for this step: their names, where edits are followed.
    fn edited(&self) -> Result<Option<String>> {
        let Some(edits) = &*self.session.edits.borrow() else { return Ok(None) };
        let (run, edited) = (self.run.borrow(), edits.take());
        edited.iter().try_for_each(|file| run.add_edit(file))?;
        Ok(Some(edited.into_iter().map(|file| file.name).collect::<Vec<_>>().join(", ")))
    }

    fn log(
        &self,
        context: &NativeCallContext,
        gradients: &Gradients,
        update: &Map,
        more: &Map,
    ) -> Answer<()> {
        let list = |key: &str| update.get(key).and_then(|v| v.read_lock::<Array>().map(|a| a.to_vec()));
        let Some(w) = list("w") else {
            return Err(Error::new("the update has no weights `w`")
                .help("log what `method.update(gradients, weights)` returned")
                .into());
        };
        let alpha = list("alpha").map(|a| floats(&a, "alpha")).transpose()?;
        let mut diagnostics = serde_json::Map::new();
        for (key, value) in update.iter().chain(more) {
            if !["alpha", "w", "direction", "state"].contains(&key.as_str()) {
                diagnostics.insert(key.to_string(), to_json(value)?);
            }
        }
        let sums = |which: usize| -> Result<Option<Vec<f64>>> {
            let Some(origin) = gradients.origin().filter(|o| o.batch.lengths(which).is_ok()) else {
                return Ok(None);
            };
            Ok(Some(origin.log_probs.sums(which)?.to_dtype(DType::F64)?.to_vec1()?))
        };
        let (chosen, rejected) = (sums(0)?, sums(1)?);
        let responses = gradients.origin().zip(chosen.as_deref()).map(|(origin, chosen)| Responses {
            batch: &origin.batch,
            chosen,
            rejected: rejected.as_deref(),
        });
        let row = StepRow {
            gradients: gradients.rows(),
            gramian: gradients.gramian()?,
            weights: &floats(&w, "w")?,
            alpha: alpha.as_deref(),
            diagnostics: &diagnostics,
            report: self.optimizers.first().and_then(|o| o.report.get()),
            responses,
        };
        let mut row = row.to_map()?;
        let edited = self.edited()?;
        row.extend(edited.map(|names| (EDITED.to_owned(), names.into())));
        self.run.borrow_mut().log(&row)?;
        let done = self.run.borrow().step() + 1;
        self.session.console().progress(
            done.min(self.steps.get()),
            self.steps.get(),
            &message(&row, &diagnostics),
        );
        let pauser = self.session.pauser.borrow().clone();
        pauser
            .map_or(Ok(()), |pauser| pauser.logged(&self.session, context.engine(), || names(row, done - 1)))
    }
}

/// The column that names the files edited for a step.
const EDITED: &str = "edited";

/// Whether a run followed the edits of its modules.
pub(in crate::script) fn was_watched(dir: &Path) -> bool {
    run::columns(dir).iter().any(|name| name == EDITED)
}

/// The names of a condition: the columns of the row, its step, and the least of its cosines.
fn names(row: serde_json::Map<String, Value>, step: usize) -> Result<Map> {
    let rows = row.get("cosines").and_then(Value::as_object);
    let cosines = rows.into_iter().flat_map(|rows| rows.values().filter_map(Value::as_object));
    let least = cosines.flat_map(|row| row.values().filter_map(Value::as_f64)).reduce(f64::min);
    let row = row.into_iter().map(|(name, value)| Ok((name.into(), from_json(&value)?)));
    let mut names = row.collect::<Result<Map>>()?;
    names.insert("step".into(), (step as i64).into());
    names.extend(least.map(|cosine| ("cosine".into(), cosine.into())));
    Ok(names)
}

/// Losses, cosines, and the diagnostics that are short lists: `quality 0.690 brevity 0.710 · cos -0.55 · p 0.60 0.40`.
fn message(row: &serde_json::Map<String, Value>, diagnostics: &serde_json::Map<String, Value>) -> String {
    let number = |v: &Value| v.as_f64().map(|x| format!("{x:.2}"));
    let numbers = |v: &Value| -> Vec<String> {
        match v {
            Value::Object(map) => map.values().filter_map(number).collect(),
            Value::Array(list) => list.iter().filter_map(number).collect(),
            _ => Vec::new(),
        }
    };
    let mut parts = Vec::new();
    if let Some(Value::Object(losses)) = row.get("losses") {
        let losses = losses.iter().filter_map(|(name, loss)| Some(format!("{name} {:.3}", loss.as_f64()?)));
        parts.push(losses.collect::<Vec<_>>().join(" "));
    }
    if let Some(Value::Object(rows)) = row.get("cosines") {
        parts.push(format!("cos {}", rows.values().flat_map(numbers).collect::<Vec<_>>().join(" ")));
    }
    for (key, value) in diagnostics.iter().filter(|(_, value)| value.is_array()) {
        let values = numbers(value);
        if (1..=4).contains(&values.len()) {
            parts.push(format!("{key} {}", values.join(" ")));
        }
    }
    parts.join(" · ")
}

fn modules(session: &Session) -> Vec<Source> {
    let script = session.script.borrow().display().to_string();
    let others = session.sources().into_iter().filter(|(name, _)| *name != script);
    others.map(|(name, text)| Source { name, text }).collect()
}

fn start(session: &Rc<Session>, args: &Map, states: &[Dynamic], options: Map) -> Result<Run> {
    let mut options = Opts::new("start_run", options);
    let out = args.get("out").and_then(|v| v.clone().into_string().ok()).ok_or_else(|| {
        Error::new("the arguments have no `out`, the folder of the run")
            .help("add `out: \"runs/NAME\"` to `args`")
    })?;
    if out.is_empty() {
        return Err(Error::with_kind(Kind::Usage, "`out`, the folder of the run, is empty")
            .help("give it a name: `--out runs/NAME`"));
    }
    let resume = session.resume.borrow_mut().take();
    let dir = resume.clone().unwrap_or_else(|| PathBuf::from(&out));
    session.sandbox.borrow().check_start(&dir)?;
    let mut optimizers = Vec::new();
    let mut held: Vec<Rc<dyn Stateful>> = Vec::new();
    let mut changes: Vec<Box<dyn Fn() -> u64>> = Vec::new();
    for state in states {
        if let Some(model) = state.clone().try_cast::<Model>() {
            held.push(Rc::new(model.clone()));
            changes.push(Box::new(move || model.version()));
        } else if let Some(optimizer) = state.clone().try_cast::<Optimizer>() {
            held.push(optimizer.inner.clone());
            optimizers.push(optimizer.clone());
            changes.push(Box::new(move || optimizer.inner.borrow().step_count() as u64));
        } else if let Some(method) = state.clone().try_cast::<Method>() {
            held.push(method.0.clone());
            if method.0.is_stateful() {
                changes.push(Box::new(move || method.0.updates.get()));
            }
        } else {
            return Err(Error::new(format!("a run cannot hold {}", type_of(state)))
                .help("give the model, the optimiser and the aggregator"));
        }
    }
    let defaults = RunOptions::new(dir);
    let Value::Object(stored) = to_json(&Dynamic::from(args.clone()))? else {
        return Err(Error::internal("arguments are no map"));
    };
    let script = session.script.borrow().display().to_string();
    let text = session.sources.borrow().get(&script).cloned();
    let run = run::Run::start(
        RunOptions {
            resume: resume.is_some(),
            script: text.map(|text| Source { name: script, text }),
            modules: modules(session),
            args: stored,
            free_args: vec!["out".into()],
            inputs: session.inputs.borrow().clone(),
            seed: args.get("seed").and_then(|v| v.as_int().ok()).and_then(|s| s.try_into().ok()),
            optimizer: optimizers.first().map(|o| o.inner.borrow().name().to_owned()),
            checkpoint_every: options.count("checkpoint_every")?.unwrap_or(defaults.checkpoint_every),
            keep: options.count("keep")?.unwrap_or(defaults.keep),
            ..defaults
        },
        held,
    )?;
    options.finish()?;
    session.sandbox.borrow_mut().allow(run.dir());
    run.notes().iter().for_each(|note| session.console().print(&format!("note: {note}")));
    if resume.is_some() {
        session.console().print(&format!("resumed after step {}", run.step()));
        if let Some(edits) = &*session.edits.borrow() {
            edits.compare(|name| run.last_edit(name))?;
        }
    }
    Ok(Run(Rc::new(Inner {
        session: session.clone(),
        run: RefCell::new(run),
        optimizers,
        changes,
        sources: Cell::new(session.sources.borrow().len()),
        steps: Cell::new(0),
        start: session.begun.elapsed(),
    })))
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<Run>("Run");
    engine.register_type_with_name::<Steps>("Steps");
    engine.register_iterator_result::<Steps, Batch>();
    let shared = session.clone();
    engine.register_fn("start_run", move |args: Map, states: Array| -> Answer<Run> {
        Ok(start(&shared, &args, &states, Map::new())?)
    });
    let shared = session.clone();
    engine.register_fn("start_run", move |args: Map, states: Array, options: Map| -> Answer<Run> {
        Ok(start(&shared, &args, &states, options)?)
    });
    engine.register_fn("steps", |run: &mut Run, batches: Batches| {
        run.0.steps.set(batches.len());
        Steps { run: run.0.clone(), batches }
    });
    engine.register_fn(
        "log",
        |context: NativeCallContext, run: &mut Run, gradients: Gradients, update: Map| -> Answer<()> {
            run.0.log(&context, &gradients, &update, &Map::new())
        },
    );
    engine.register_fn(
        "log",
        |context: NativeCallContext,
         run: &mut Run,
         gradients: Gradients,
         update: Map,
         more: Map|
         -> Answer<()> { run.0.log(&context, &gradients, &update, &more) },
    );
    // where a script can pause, the debugger stops before this call
    engine.register_fn("breakpoint", || {});
    engine.register_get("step", |run: &mut Run| run.0.run.borrow().step() as i64);
    engine.register_get("dir", |run: &mut Run| run.0.run.borrow().dir().display().to_string());
    engine.register_fn("path", |run: &mut Run, name: &str| -> Answer<String> {
        Ok(run.0.run.borrow().path(name)?.display().to_string())
    });
    engine.register_fn("rows", |run: &mut Run| -> Answer<Array> {
        let rows = run.0.run.borrow().rows()?;
        Ok(rows.into_iter().map(|row| from_json(&Value::Object(row))).collect::<Result<_>>()?)
    });
    engine.register_fn("read_run", |dir: &str| -> Answer<Map> { Ok(read(Path::new(dir))?) });
    let text = |run: &mut Run| {
        let run = run.0.run.borrow();
        format!("Run({}; {} steps done)", run.dir().display(), run.step())
    };
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

/// What a run left: `#{ objectives, args, rows }`; objectives in the order of the gradients, `h` of each row a matrix.
fn read(dir: &Path) -> Result<Map> {
    if !dir.join("args.json").is_file() {
        return Err(Error::new("this is not the folder of a run")
            .in_file(dir)
            .help("give a folder that a training script wrote, such as `runs/raco_clip`"));
    }
    let args = stored_arguments(dir)?;
    let path = dir.join("log.jsonl");
    let log = run::read_log(&path)?;
    let Some(first) = log.first() else {
        return Err(Error::new("the log has no row yet").in_file(&path).help("wait for the first step"));
    };
    let names = first.get("losses").and_then(Value::as_object).map(|losses| losses.keys().cloned());
    let objectives: Array = names.into_iter().flatten().map(Dynamic::from).collect();
    let row = |(i, row): (usize, serde_json::Map<String, Value>)| {
        let gramian = row.get("h").map(|h| {
            let rows: Vec<Vec<f64>> = serde_json::from_value(h.clone()).map_err(|_| {
                Error::new("`h` is no matrix of numbers").at_line(&path, i + 1).help("restore the log")
            })?;
            Matrix::from_rows(&rows)
        });
        let mut row = from_json(&Value::Object(row))?.cast::<Map>();
        if let Some(h) = gramian.transpose()? {
            row.insert("h".into(), Dynamic::from(h));
        }
        Ok(Dynamic::from(row))
    };
    let rows = log.into_iter().enumerate().map(row).collect::<Result<Array>>()?;
    let parts = [("objectives", objectives.into()), ("args", args.into()), ("rows", rows.into())];
    Ok(parts.map(|(key, value): (&str, Dynamic)| (key.into(), value)).into())
}

/// A path below the folder of a run that is resumed, as `--resume` gives it.
pub(super) fn stored_arguments(dir: &Path) -> Result<Map> {
    let path = dir.join("args.json");
    let text = std::fs::read_to_string(&path).map_err(|_| {
        Error::new("there is no run to resume")
            .in_file(dir)
            .help("give the folder of a run: `--resume runs/NAME`")
    })?;
    let stored = serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("not valid JSON: {e}")).in_file(&path).help("start a new run"))?;
    from_json(&stored)?
        .try_cast::<Map>()
        .ok_or_else(|| Error::new("the arguments are no map").in_file(&path).help("start a new run"))
}
