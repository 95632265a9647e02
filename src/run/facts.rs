//! What a run is made of, written at its start and compared when it continues.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::files::{create_dir, parent, read_json, write_whole};
use super::{RunOptions, Source};
use crate::error::{Error, Result, io_error};

const FACTS: &str = "run.json";
const ARGUMENTS: &str = "args.json";

/// Writes what the run is made of.
pub(super) fn describe(dir: &Path, options: &RunOptions) -> Result<()> {
    if let Some(script) = &options.script {
        let path = script_path(dir, &script.name);
        create_dir(parent(&path))?;
        write_whole(&path, script.text.as_bytes())?;
    }
    options.modules.iter().try_for_each(|module| keep_module(dir, module))?;
    write_json(&dir.join(ARGUMENTS), &Value::Object(options.args.clone()))?;
    let facts = json!({
        "raco": env!("CARGO_PKG_VERSION"),
        "versions": versions(&["candle-core", "rhai", "safetensors", "tokenizers"]),
        "script": options.script.as_ref().map(|s| &s.name),
        "modules": options.modules.iter().map(|m| &m.name).collect::<Vec<_>>(),
        "seed": options.seed,
        "inputs": options.inputs,
        "optimizer": options.optimizer,
        "device": "cpu, f32",
        "sessions": [session(0)],
    });
    write_json(&dir.join(FACTS), &facts)
}

/// Checks that the run in the folder is the one that is to be continued; returns what the user should know.
pub(super) fn compare(dir: &Path, options: &RunOptions) -> Result<Vec<String>> {
    if !dir.join(FACTS).is_file() {
        return Err(Error::new("no run to resume here").in_file(dir).help("start it without `--resume`"));
    }
    let facts = read_json(&dir.join(FACTS))?;
    let stored = read_json(&dir.join(ARGUMENTS))?;
    let empty = Map::new();
    let bound = |key: &String| !options.free_args.contains(key);
    let changed = differences(stored.as_object().unwrap_or(&empty), &options.args, bound);
    if !changed.is_empty() {
        return Err(Error::new(format!("the run began with other arguments: {}", changed.join(", ")))
            .in_file(dir.join(ARGUMENTS))
            .help("give the arguments of the run, or start a new one without `--resume`"));
    }
    let changed = differences(facts["inputs"].as_object().unwrap_or(&empty), &options.inputs, |_| true);
    if !changed.is_empty() {
        return Err(Error::new(format!("what the run reads has changed: {}", changed.join(", ")))
            .in_file(dir.join(FACTS))
            .help("bring back the files that the run began with, or start a new run"));
    }
    let mut notes = Vec::new();
    let script = options.script.iter().map(|s| (script_path(dir, &s.name), s));
    let modules = options.modules.iter().map(|m| (module_path(dir, &m.name), m));
    for (path, source) in script.chain(modules) {
        if fs::read_to_string(&path).is_ok_and(|text| text != source.text) {
            notes.push(format!("`{}` is not as it was when the run began", source.name));
        }
    }
    let began = &facts["sessions"][0];
    if facts["raco"] != env!("CARGO_PKG_VERSION") {
        notes.push(format!("the run began with raco {}", facts["raco"]));
    }
    if began["threads"] != json!(rayon::current_num_threads()) || began["cpu"] != json!(cpu()) {
        notes.push(format!(
            "the run began on {} with {} threads: results may differ in the last bits",
            began["cpu"], began["threads"]
        ));
    }
    Ok(notes)
}

/// Keeps the text of a module.
pub(super) fn keep_module(dir: &Path, module: &Source) -> Result<()> {
    let path = module_path(dir, &module.name);
    create_dir(parent(&path))?;
    write_whole(&path, module.text.as_bytes())
}

/// Keeps the text of a module as it was edited for a step.
pub(super) fn keep_edit(dir: &Path, module: &Source, step: usize) -> Result<()> {
    let path = edit_path(&module_path(dir, &module.name), step);
    create_dir(parent(&path))?;
    write_whole(&path, module.text.as_bytes())
}

fn edit_path(path: &Path, step: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}@{step}.rhai"))
}

/// The text of a module before a step; edits from that step on are removed.
pub(super) fn last_edit(dir: &Path, name: &str, step: usize) -> Result<Option<String>> {
    let path = module_path(dir, name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned() + "@";
    let (mut last, mut newest) = (path.clone(), None);
    for entry in fs::read_dir(parent(&path)).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let of = file.strip_prefix(&stem).and_then(|rest| rest.strip_suffix(".rhai")?.parse::<usize>().ok());
        match of {
            Some(at) if at >= step => {
                fs::remove_file(entry.path()).map_err(|e| io_error(&e, "remove an edit", entry.path()))?;
            }
            Some(at) if newest.is_none_or(|newest| newest < at) => {
                (last, newest) = (entry.path(), Some(at));
            }
            _ => {}
        }
    }
    Ok(fs::read_to_string(last).ok())
}

/// `KEY is NEW, was OLD` for each value that differs.
fn differences(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    counts: impl Fn(&String) -> bool,
) -> Vec<String> {
    let shown = |value: Option<&Value>| value.map_or("not given".to_owned(), |v| format!("`{v}`"));
    old.keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)))
        .filter(|key| counts(key) && old.get(*key) != new.get(*key))
        .map(|key| format!("`{key}` is {}, was {}", shown(new.get(key)), shown(old.get(key))))
        .collect()
}

/// Adds a session to the facts of a continued run.
pub(super) fn note_session(dir: &Path, step: usize) -> Result<()> {
    let mut facts = read_json(&dir.join(FACTS))?;
    if let Some(sessions) = facts["sessions"].as_array_mut() {
        sessions.push(session(step));
    }
    write_json(&dir.join(FACTS), &facts)
}

/// Adds what the newest session took to it.
pub(super) fn close_session(dir: &Path, took: Map<String, Value>) -> Result<()> {
    let mut facts = read_json(&dir.join(FACTS))?;
    if let Some(Value::Object(session)) = facts["sessions"].as_array_mut().and_then(|all| all.last_mut()) {
        session.extend(took);
    }
    write_json(&dir.join(FACTS), &facts)
}

fn session(step: usize) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    json!({
        "from_step": step,
        "unix_s": now.as_secs(),
        "os": std::env::consts::OS,
        "cpu": cpu(),
        "threads": rayon::current_num_threads(),
    })
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or(std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Versions of the libraries that results depend on, from the lock file of the build.
fn versions(names: &[&str]) -> Value {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Value::Object(names.iter().map(|name| ((*name).to_owned(), json!(version(name)))).collect())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, format!("{value:#}\n").as_bytes())
}

fn script_path(dir: &Path, name: &str) -> PathBuf {
    let file = Path::new(name).file_name().map_or(Path::new("script.rhai"), Path::new);
    dir.join("source").join(file)
}

fn module_path(dir: &Path, name: &str) -> PathBuf {
    let parts = Path::new(name).components().filter(|c| matches!(c, Component::Normal(_)));
    let path = dir.join("source/modules").join(parts.collect::<PathBuf>());
    if path.extension().is_some() { path } else { path.with_extension("rhai") }
}
