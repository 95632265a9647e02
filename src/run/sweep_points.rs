//! The points of a sweep, from its folder or from what `sweep` returned.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::fronts::{Named, Point};
use crate::error::{Error, Result, io_error};

/// Keys of a configuration that make no variant.
const NO_VARIANT: [&str; 4] = ["method", "weights", "seed", "out"];

/// A run without a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failed {
    /// Name of the point.
    pub name: String,
    /// Why.
    pub error: String,
}

/// What became of the points of a sweep.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcomes {
    /// Those with a result.
    pub points: Vec<Point>,
    /// Those that failed.
    pub failed: Vec<Failed>,
    /// Those that are still to come.
    pub unfinished: Vec<String>,
}

/// Reads a sweep's folder: `point.json` of each point, in the order of `sweep.json` where that is there.
///
/// # Errors
/// A folder without a point; a file that is not as a sweep writes it.
pub fn read_points(folder: &Path) -> Result<Outcomes> {
    let listed = folder.join("sweep.json");
    let names: Vec<String> = if listed.is_file() {
        let sweep = read_json(&listed)?;
        let names = sweep.get("points").and_then(Value::as_array).ok_or_else(|| {
            Error::new("`points` is missing or no list").in_file(&listed).help("give the folder of a sweep")
        })?;
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    } else {
        let entries = std::fs::read_dir(folder).map_err(|e| io_error(&e, "read", folder))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.path().join("point.json").is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let (mut entries, mut unfinished) = (vec![], vec![]);
    for name in names {
        let dir = folder.join(&name);
        let file = dir.join("point.json");
        if !file.is_file() {
            unfinished.push(name);
            continue;
        }
        let Value::Object(mut entry) = read_json(&file)? else {
            return Err(Error::new("a point is a map").in_file(&file).help("run the point again"));
        };
        entry.insert("dir".into(), dir.to_string_lossy().into());
        entry.insert("name".into(), name.into());
        entries.push(Value::Object(entry));
    }
    if entries.is_empty() && unfinished.is_empty() {
        return Err(Error::new("no point of a sweep is here")
            .in_file(folder)
            .help("give the folder of a sweep"));
    }
    Ok(Outcomes { unfinished, ..points_of(&entries)? })
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| io_error(&e, "read", path))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::new(format!("no JSON: {e}")).in_file(path).help("write the file again"))
}

/// The points of maps `{config: {method, weights, seed, …}, result: {scores, losses}, dir, error}`, as `sweep` returns
/// them and `point.json` holds them. The label of a variant is its method, and `key=value` for every other key of the
/// configuration that varies among the points.
///
/// # Errors
/// An entry without configuration or result, without method, weights or scores.
pub fn points_of(entries: &[Value]) -> Result<Outcomes> {
    let configs = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| {
            entry.get("config").and_then(Value::as_object).ok_or_else(|| missing(entry, i, "config"))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut values: BTreeMap<&str, Vec<Option<&Value>>> = BTreeMap::new();
    for key in configs.iter().flat_map(|config| config.keys()) {
        values.entry(key).or_insert_with(|| configs.iter().map(|config| config.get(key)).collect());
    }
    // in the order of the configurations, whichever comes first
    let mut varying: Vec<&str> = Vec::new();
    for key in configs.iter().flat_map(|config| config.keys()) {
        let varies = values[key.as_str()].windows(2).any(|two| two[0] != two[1]);
        if varies && !NO_VARIANT.contains(&key.as_str()) && !varying.contains(&key.as_str()) {
            varying.push(key);
        }
    }
    let mut outcomes = Outcomes::default();
    for (i, (entry, config)) in entries.iter().zip(&configs).enumerate() {
        let error = entry.get("error").filter(|error| !error.is_null());
        if error.is_some() || entry.get("status").and_then(Value::as_str) == Some("failed") {
            let error = error.map_or_else(|| "no reason is given".into(), shown);
            outcomes.failed.push(Failed { name: name_of(entry, i), error });
            continue;
        }
        outcomes.points.push(point(entry, config, i, &varying)?);
    }
    Ok(outcomes)
}

fn point(entry: &Value, config: &Map<String, Value>, i: usize, varying: &[&str]) -> Result<Point> {
    let method =
        config.get("method").and_then(Value::as_str).ok_or_else(|| missing(entry, i, "config.method"))?;
    let label = varying.iter().filter_map(|key| {
        let value = config.get(*key).filter(|value| !value.is_null())?;
        Some(format!(" {key}={}", shown(value)))
    });
    let result = entry.get("result").ok_or_else(|| missing(entry, i, "result"))?;
    let numbers = |of: Option<&Value>, what: &str| named(of).ok_or_else(|| missing(entry, i, what));
    Ok(Point {
        variant: std::iter::once(method.to_owned()).chain(label).collect(),
        method: method.to_owned(),
        weights: numbers(config.get("weights"), "config.weights")?,
        seed: config
            .get("seed")
            .map_or(Some(0), Value::as_i64)
            .ok_or_else(|| missing(entry, i, "config.seed"))?,
        scores: numbers(result.get("scores"), "result.scores")?,
        losses: match result.get("losses").filter(|losses| !losses.is_null()) {
            Some(losses) => Some(numbers(Some(losses), "result.losses")?),
            None => None,
        },
        dir: entry.get("dir").and_then(Value::as_str).map(str::to_owned),
    })
}

fn named(value: Option<&Value>) -> Option<Named> {
    let map = value?.as_object()?;
    let numbers: Option<Vec<(String, f64)>> =
        map.iter().map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    numbers.filter(|numbers| !numbers.is_empty()).map(Named)
}

/// Strings without their quotes, numbers and lists as JSON.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn name_of(entry: &Value, i: usize) -> String {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    text("name").or_else(|| text("dir")).unwrap_or_else(|| format!("point {i}"))
}

fn missing(entry: &Value, i: usize, what: &str) -> Error {
    let expected = match what {
        "config" | "result" => "a map",
        "config.method" => "a name",
        "config.seed" => "a whole number",
        _ => "a map of finite numbers by objective",
    };
    Error::new(format!("{}: `{what}` is missing or not {expected}", name_of(entry, i))).help(
        "give points as `sweep` returns them: `#{ config: #{ method, weights, seed }, result: #{ scores } }`",
    )
}
