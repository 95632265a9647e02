//! A run as it is read again: whatever its folder still holds, and what is wrong with the rest.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::files::{entries, read_json};
use super::flatten;
use super::log::read_log_part;
use crate::error::{Error, Result};

/// Files of which one makes a folder that of a run.
const MARKS: [&str; 4] = ["run.json", "args.json", "log.jsonl", "point.json"];
/// How deep below a folder runs are looked for.
const DEPTH: usize = 6;

/// What a run left in its folder.
#[derive(Debug, Clone, Default)]
pub struct StoredRun {
    /// The folder's name, with those above it as far as it was looked for.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// The arguments of the script.
    pub args: Map<String, Value>,
    /// `run.json`: versions, inputs, sessions.
    pub facts: Map<String, Value>,
    /// `point.json` of a point of a sweep.
    pub point: Map<String, Value>,
    /// `evaluation.json`, as scripts write it.
    pub evaluation: Map<String, Value>,
    /// The rows of the log.
    pub rows: Vec<Map<String, Value>>,
    /// What could not be read, and what is missing.
    pub problems: Vec<String>,
}

impl StoredRun {
    /// Reads a folder; what is broken is told in `problems`.
    pub fn read(name: impl Into<String>, dir: &Path) -> Self {
        let mut record = Self { name: name.into(), dir: dir.to_owned(), ..Self::default() };
        record.args = record.map("args.json", true);
        record.facts = record.map("run.json", true);
        record.point = record.map("point.json", false);
        record.evaluation = record.map("evaluation.json", false);
        match read_log_part(&dir.join("log.jsonl")) {
            Ok((rows, problem)) => {
                record.rows = rows;
                record.problems.extend(problem.map(|error| error.to_string().replace('\n', "; ")));
            }
            Err(error) => record.problems.push(error.to_string().replace('\n', "; ")),
        }
        if let Some(error) = record.point.get("error").and_then(Value::as_str) {
            record.problems.push(format!("the run failed: {error}"));
        }
        record
    }

    fn map(&mut self, file: &str, needed: bool) -> Map<String, Value> {
        let path = self.dir.join(file);
        if !path.exists() {
            if needed {
                self.problems.push(format!("`{file}` is missing"));
            }
            return Map::new();
        }
        match read_json(&path) {
            Ok(Value::Object(map)) => return map,
            Ok(_) => self.problems.push(format!("`{file}` is no map")),
            Err(error) => self.problems.push(error.to_string().replace('\n', "; ")),
        }
        Map::new()
    }

    /// Objectives in the order of the log's losses, or of the weights given.
    pub fn objectives(&self) -> Vec<String> {
        let first = self.rows.first().and_then(|row| row.get("losses"));
        let named = first.or_else(|| self.argument("weights")).and_then(Value::as_object);
        named.map(|map| map.keys().cloned().collect()).unwrap_or_default()
    }

    /// An argument of the script, or of the sweep's configuration.
    pub fn argument(&self, key: &str) -> Option<&Value> {
        let config = self.point.get("config").and_then(Value::as_object);
        self.args.get(key).or_else(|| config?.get(key))
    }

    /// Name of the method.
    pub fn method(&self) -> Option<&str> {
        ["method", "aggregator"].iter().find_map(|key| self.argument(key)?.as_str())
    }

    /// Preference weights by objective: those of the arguments, or of the log.
    pub fn weights(&self) -> Option<&Map<String, Value>> {
        let logged = self.rows.first().and_then(|row| row.get("w")).and_then(Value::as_object);
        self.argument("weights").and_then(Value::as_object).or(logged)
    }

    /// The weights as `quality 0.5, brevity 0.5`.
    pub fn weights_text(&self) -> Option<String> {
        // 1 - 0.8 is 0.2
        let digits = |w: &Value| w.as_f64().map_or(f64::NAN, |w| (w * 1e6).round() / 1e6);
        let each = self.weights()?.iter().map(|(name, w)| format!("{name} {}", digits(w)));
        Some(each.collect::<Vec<_>>().join(", "))
    }

    /// What the run was judged by at its end, by name: the scores of a sweep's point; else of the evaluation the numbers
    /// that are named as the objectives, or all of them where none is.
    pub fn scores(&self) -> Map<String, Value> {
        let point = self.point.get("result").and_then(|result| result.get("scores"));
        let after = || self.evaluation.get("after")?.get("rows");
        let scores = point.or_else(after).and_then(Value::as_object);
        let objectives = self.objectives();
        let judged = |name: &String| point.is_some() || objectives.contains(name);
        let any = scores.into_iter().flatten().any(|(name, _)| judged(name));
        let numbers =
            scores.into_iter().flatten().filter(|(name, value)| value.is_number() && (judged(name) || !any));
        numbers.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Steps that the log holds, and the number planned where the arguments tell.
    pub fn steps(&self) -> (usize, Option<usize>) {
        let planned = self.argument("steps").and_then(Value::as_u64);
        (self.rows.len(), planned.map(|steps| steps as usize))
    }

    /// Seconds of all logged steps.
    pub fn training_seconds(&self) -> f64 {
        let times = self.rows.iter().filter_map(|row| row.get("time_ms")?.as_f64());
        times.sum::<f64>() / 1e3
    }

    /// When it began, UTC.
    pub fn began(&self) -> Option<String> {
        let unix = self.facts.get("sessions")?.get(0)?.get("unix_s")?.as_u64()?;
        Some(utc(unix))
    }

    /// Everything by flat names such as `weights.quality`, `scores.quality`, `losses.quality` of the last row.
    pub fn flat(&self) -> Vec<(String, Value)> {
        let (done, planned) = self.steps();
        let mut all = Map::from_iter([
            ("name".to_owned(), json!(self.name)),
            ("method".to_owned(), json!(self.method())),
            ("weights".to_owned(), self.weights().map_or(Value::Null, |w| json!(w))),
            ("c".to_owned(), self.argument("c").cloned().unwrap_or(Value::Null)),
            ("seed".to_owned(), self.argument("seed").cloned().unwrap_or(Value::Null)),
            ("steps".to_owned(), json!(done)),
            ("planned".to_owned(), json!(planned)),
            ("scores".to_owned(), Value::Object(self.scores())),
            ("seconds".to_owned(), json!((self.training_seconds() * 1e3).round() / 1e3)),
            ("date".to_owned(), json!(self.began())),
            ("problem".to_owned(), json!(self.problems.first())),
        ]);
        let point = |key: &str| self.point.get(key).and_then(Value::as_object);
        let last = self.rows.last().into_iter().flatten();
        let more = self.args.iter().chain(point("config").into_iter().flatten()).chain(last);
        for (key, value) in more.chain(point("result").into_iter().flatten()) {
            if !all.contains_key(key) {
                all.insert(key.clone(), value.clone());
            }
        }
        for side in ["before", "after"] {
            if let Some(rows) = self.evaluation.get(side).and_then(|side| side.get("rows")) {
                all.insert(side.to_owned(), rows.clone());
            }
        }
        let mut flat: Vec<(String, Value)> =
            flatten(&all).into_iter().map(|(name, value)| (name, value.clone())).collect();
        flat.insert(2, ("weights".into(), json!(self.weights_text())));
        flat
    }
}

/// The runs at or below folders, in the order given and by name; `name` of a run is its path below the folder given.
///
/// # Errors
/// A folder that is not there or that cannot be listed, one without any run.
pub fn find_runs(dirs: &[PathBuf]) -> Result<Vec<StoredRun>> {
    let mut found = Vec::new();
    for dir in dirs {
        if !dir.is_dir() {
            let what = if dir.exists() { "this is a file, not a folder" } else { "there is no such folder" };
            return Err(Error::new(what)
                .in_file(dir)
                .help("give the folder of a run, or one that holds runs, such as `runs`"));
        }
        let mut runs = Vec::new();
        collect(dir, DEPTH, &mut runs)?;
        if runs.is_empty() {
            return Err(Error::new("there is no run in this folder or below it")
                .in_file(dir)
                .help("give a folder that a training script wrote, such as `runs/raco_clip`"));
        }
        found.extend(runs.into_iter().map(|run| {
            let below = run.strip_prefix(dir).ok().filter(|path| *path != Path::new(""));
            (below.map_or_else(|| folder_name(&run), |path| path.display().to_string()), run)
        }));
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    found.retain(|(_, run)| {
        let place = run.canonicalize().unwrap_or_else(|_| run.clone());
        let new = !seen.contains(&place);
        seen.push(place);
        new
    });
    Ok(found.into_iter().map(|(name, run)| StoredRun::read(name, &run)).collect())
}

fn folder_name(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    whole.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if MARKS.iter().any(|mark| dir.join(mark).is_file()) {
        found.push(dir.to_owned());
        return Ok(());
    }
    for entry in entries(dir)? {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // a link may lead back to a folder above
        let folder = fs::symlink_metadata(&entry).is_ok_and(|data| data.is_dir());
        if folder && !hidden && depth > 0 {
            // a folder that cannot be listed holds no run that can be read
            let _ = collect(&entry, depth - 1, found);
        }
    }
    Ok(())
}

/// `2026-01-31 12:30` of seconds since 1970, UTC (days to a date after Howard Hinnant's `civil_from_days`).
pub(super) fn utc(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400 + 719_468, unix % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}", year + era * 400 + next)
}
