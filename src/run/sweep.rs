//! A sweep: points of a grid, each a folder named by its content, that several processes work off together.
//!
//! ```text
//!     SWEEP/  sweep.json  .claims/  .jobs/
//!             METHOD-…-0123456789abcdef/  point.json, and the files of the point's run
//! ```
//!
//! A point is finished once its `point.json` is there: it appears whole or not at all. A point at work is claimed by a
//! lock that the system lets go when its process ends, however it ends.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::files::{create_dir, entries, read_json, write_whole};
use crate::error::{Error, Result, io_error};

const FACTS: &str = "sweep.json";
const RECORD: &str = "point.json";
const CLAIMS: &str = ".claims";
/// The readable part of a point's name is cut here; the hash tells points apart.
const READABLE: usize = 96;
/// Digits of the hash.
const HASH: usize = 16;

/// Values of one grid by key; each key's values in the order given.
pub type Axes = BTreeMap<String, Vec<Value>>;

/// A point that is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Name of its folder.
    pub name: String,
    /// One value a key.
    pub config: Map<String, Value>,
}

/// How a point ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has a result.
    Done,
    /// It has an error; a later start tries it again.
    Failed,
}

/// What a point left: the file `point.json` of its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of its folder.
    pub name: String,
    /// One value a key.
    pub config: Map<String, Value>,
    /// How it ended.
    pub status: Status,
    /// What it came to; null where it failed.
    pub result: Value,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Wall time in seconds, the parts before an interruption not counted.
    pub seconds: f64,
    /// Time of all threads on the processors in seconds, where the system tells it.
    pub cpu_seconds: Option<f64>,
    /// BLAKE3 of each text that it was made with, by name.
    #[serde(default)]
    pub sources: BTreeMap<String, String>,
}

/// A point as a process finds it.
#[derive(Debug)]
pub enum Claim {
    /// Finished before.
    Done(Box<Record>),
    /// Another process works on it.
    Taken,
    /// Now this process's own, until the value is dropped.
    Mine(File),
}

/// The points of a sweep and its folder.
#[derive(Debug)]
pub struct Sweep {
    dir: PathBuf,
    points: Vec<Planned>,
}

impl Sweep {
    /// Begins or goes on with the sweep in `dir`.
    ///
    /// `salt` is what all points depend on besides their configuration: where it differs, points have other names.
    /// The points of all grids come one after the other, equal ones once; within a grid the values of `seed` change
    /// last, those of the last key first.
    ///
    /// # Errors
    /// A grid without a value for a key; a folder that cannot be written or that holds something else.
    pub fn open(dir: &Path, grids: &[Axes], salt: &str, script: &str) -> Result<Self> {
        let mut points: Vec<Planned> = Vec::new();
        let mut seen = HashSet::new();
        let there = hashes(dir)?;
        let varying = varying(grids);
        for axes in grids {
            if let Some((key, _)) = axes.iter().find(|(_, values)| values.is_empty()) {
                return Err(Error::new(format!("`{key}` of the grid has no value"))
                    .help("give an array with at least one value, or leave the key out"));
            }
            for config in product(axes) {
                let mut name = name(&config, &varying, salt);
                // what varies may be other keys than when the point was made: its hash decides
                if let Some(known) = name.get(name.len() - HASH..).and_then(|hash| there.get(hash)) {
                    name.clone_from(known);
                }
                if seen.insert(name.clone()) {
                    points.push(Planned { name, config });
                }
            }
        }
        if points.is_empty() {
            return Err(Error::new("the grid has no point").help("give at least one grid with a value a key"));
        }
        if !dir.join(FACTS).is_file()
            && dir.is_dir()
            && fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some())
        {
            return Err(Error::new("the folder of the sweep holds something else")
                .in_file(dir)
                .help("give a new folder, or one that a sweep wrote: `--out runs/NAME`"));
        }
        create_dir(&dir.join(CLAIMS))?;
        let facts = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "script": script,
            "grid": grids,
            "points": points.iter().map(|p| &p.name).collect::<Vec<_>>(),
        });
        write_whole(&dir.join(FACTS), format!("{facts:#}\n").as_bytes())?;
        Ok(Self { dir: dir.to_owned(), points })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its points, in the order in which they are worked off.
    pub fn points(&self) -> &[Planned] {
        &self.points
    }

    /// The folder of a point.
    pub fn folder(&self, point: &Planned) -> PathBuf {
        self.dir.join(&point.name)
    }

    /// Finds a point finished or taken, or takes it.
    ///
    /// A point counts as finished while `is_current` holds for the name and BLAKE3 of each text that it was made with;
    /// else its folder is kept under the name `NAME.old-1`, and the point is run again, as is a failed one.
    ///
    /// # Errors
    /// A record that cannot be read, a folder that cannot be written.
    pub fn claim(&self, point: &Planned, is_current: impl Fn(&str, &str) -> bool) -> Result<Claim> {
        let path = self.dir.join(CLAIMS).join(&point.name);
        let failed = |error: std::io::Error| io_error(&error, "claim the point", &path);
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Claim::Taken),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let folder = self.folder(point);
        if let Some(record) = read_record(&folder)? {
            let current = record.sources.iter().all(|(name, hash)| is_current(name, hash));
            if current && record.status == Status::Done {
                return Ok(Claim::Done(Box::new(record)));
            }
            if !current {
                retire(&folder)?;
            }
        }
        Ok(Claim::Mine(file))
    }

    /// The record of a point, where it is finished.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn record(&self, point: &Planned) -> Result<Option<Record>> {
        read_record(&self.folder(point))
    }

    /// Removes the record of a point that is to be run again.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn forget(&self, point: &Planned) -> Result<()> {
        let path = self.folder(point).join(RECORD);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error(&error, "remove the old record", path))
            }
            _ => Ok(()),
        }
    }

    /// Writes how a point ended.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn finish(&self, record: &Record) -> Result<()> {
        let folder = self.dir.join(&record.name);
        create_dir(&folder)?;
        write_whole(&folder.join(RECORD), format!("{:#}\n", json!(record)).as_bytes())
    }
}

/// True where a sweep was begun in the folder.
pub fn is_sweep(dir: &Path) -> bool {
    dir.join(FACTS).is_file()
}

/// Names of the points of the sweep in the folder, in their order.
///
/// # Errors
/// A folder without a sweep, a file that is not as it was written.
pub fn sweep_points(dir: &Path) -> Result<Vec<String>> {
    let facts = read_json(&dir.join(FACTS))?;
    serde_json::from_value(facts["points"].clone()).map_err(|_| {
        Error::new("the sweep does not list its points")
            .in_file(dir.join(FACTS))
            .help("start the sweep again")
    })
}

/// The record of a point's folder, where the point is finished.
///
/// # Errors
/// A record that is not as it was written.
pub fn read_record(folder: &Path) -> Result<Option<Record>> {
    let path = folder.join(RECORD);
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_value(read_json(&path)?).map(Some).map_err(|error| {
        Error::new(format!("not the record of a point: {error}"))
            .in_file(&path)
            .help("remove the folder of the point: it is run again at the next start")
    })
}

/// Moves the folder of a point that was made with other texts out of the way.
fn retire(folder: &Path) -> Result<()> {
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut old = (1..).map(|n| folder.with_file_name(format!("{name}.old-{n}"))).filter(|p| !p.exists());
    let old = old.next().unwrap_or_else(|| folder.with_extension("old"));
    fs::rename(folder, old).map_err(|error| io_error(&error, "move the old point", folder))
}

/// Names of the points in a folder by their hash.
fn hashes(dir: &Path) -> Result<BTreeMap<String, String>> {
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let hash = name.get(name.len().checked_sub(HASH)?..)?.to_owned();
        hash.bytes().all(|b| b.is_ascii_hexdigit()).then_some((hash, name))
    };
    Ok(entries(dir)?.into_iter().filter_map(name).collect())
}

/// Keys with more than one value over all grids.
fn varying(grids: &[Axes]) -> HashSet<&str> {
    let mut values: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (key, given) in grids.iter().flatten() {
        values.entry(key).or_default().extend(given);
    }
    let varies = |(_, values): &(&str, Vec<&Value>)| values.iter().any(|v| *v != values[0]);
    values.into_iter().filter(varies).map(|(key, _)| key).collect()
}

/// All configurations of a grid.
fn product(axes: &Axes) -> Vec<Map<String, Value>> {
    let seeds = axes.get_key_value("seed");
    let others = axes.iter().filter(|(key, _)| *key != "seed");
    let mut configs = vec![Map::new()];
    for (key, values) in seeds.into_iter().chain(others) {
        let with = |config: &Map<String, Value>| -> Vec<Map<String, Value>> {
            let one = |value: &Value| {
                let mut config = config.clone();
                config.insert(key.clone(), value.clone());
                config
            };
            values.iter().map(one).collect()
        };
        configs = configs.iter().flat_map(with).collect();
    }
    // a configuration has its keys in one order, whatever the order of the axes
    for config in &mut configs {
        config.sort_keys();
    }
    configs
}

/// `cagrad_clip-c0.4-seed3-brevity0.2_quality0.8-0123456789abcdef`: what varies in short, and a hash of all.
fn name(config: &Map<String, Value>, varying: &HashSet<&str>, salt: &str) -> String {
    let mut parts = Vec::new();
    if let Some(Value::String(method)) = config.get("method") {
        parts.push(short(&Value::String(method.clone())));
    }
    for (key, value) in config {
        if key == "method" || !varying.contains(key.as_str()) {
            continue;
        }
        let plain = matches!(value, Value::Number(_) | Value::Bool(_));
        let part = if plain { format!("{key}{}", short(value)) } else { short(value) };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let mut readable = parts.join("-");
    readable.truncate(readable.char_indices().nth(READABLE).map_or(readable.len(), |(end, _)| end));
    let hash = blake3::hash(format!("{}\n{salt}", Value::Object(config.clone())).as_bytes()).to_hex();
    if readable.is_empty() { hash[..HASH].to_owned() } else { format!("{readable}-{}", &hash[..HASH]) }
}

/// A value in characters that a file name may have.
fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.trim_end_matches(".rhai").to_owned(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join("_"),
        Value::Object(items) => {
            items.iter().map(|(k, v)| format!("{k}{}", short(v))).collect::<Vec<_>>().join("_")
        }
        // digits that tell weights apart; the hash has the rest
        Value::Number(n) if n.is_f64() => {
            let x = n.as_f64().unwrap_or_default();
            if x != 0.0 && x.abs() < 1e-3 { format!("{x:e}") } else { format!("{}", (x * 1e4).round() / 1e4) }
        }
        other => other.to_string(),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._+".contains(c) { c } else { '_' };
    text.rsplit('/').next().unwrap_or_default().chars().map(plain).collect()
}
