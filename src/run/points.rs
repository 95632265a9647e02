//! The points of a sweep, from its folder or from what `sweep` returned.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::fronts::{Named, Point};
use super::sweep::{Record, read_record, sweep_points};
use crate::error::{Error, Result};

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

/// Reads a sweep's folder: the record of each point, in the order of the sweep.
///
/// # Errors
/// A folder without a sweep; a file that is not as a sweep writes it.
pub fn read_points(folder: &Path) -> Result<Outcomes> {
    let (mut entries, mut unfinished) = (vec![], vec![]);
    for name in sweep_points(folder)? {
        let dir = folder.join(&name);
        match read_record(&dir)? {
            None => unfinished.push(name),
            Some(Record { config, result, error, status, .. }) => {
                let dir = dir.to_string_lossy();
                entries.push(json!({
                    "name": name, "config": config, "result": result, "error": error, "status": status, "dir": dir,
                }));
            }
        }
    }
    let mut outcomes = points_of(&entries)?;
    outcomes.unfinished.extend(unfinished);
    Ok(outcomes)
}

/// The points of maps `{config: {method, weights, seed, …}, result: {scores, losses}, dir, error}`, as `sweep` returns
/// them and `point.json` holds them. The label of a variant is its method, and `key=value` for every other key of the
/// configuration that varies among the runs of the method.
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
    let mut outcomes = Outcomes::default();
    for (i, (entry, config)) in entries.iter().zip(&configs).enumerate() {
        let status = entry.get("status").and_then(Value::as_str);
        if status == Some("open") {
            outcomes.unfinished.push(name_of(entry, i));
            continue;
        }
        let error = entry.get("error").filter(|error| !error.is_null());
        if error.is_some() || status == Some("failed") {
            let error = error.map_or_else(|| "no reason is given".into(), shown);
            outcomes.failed.push(Failed { name: name_of(entry, i), error });
            continue;
        }
        outcomes.points.push(point(entry, config, i, &varying(config, &configs))?);
    }
    Ok(outcomes)
}

/// The keys that make variants of the method of `config`: those that differ among its runs.
fn varying<'a>(config: &'a Map<String, Value>, configs: &[&Map<String, Value>]) -> Vec<&'a str> {
    let same = || configs.iter().filter(|other| other.get("method") == config.get("method"));
    let varies = |key: &&String| same().any(|other| other.get(*key) != config.get(*key));
    let keys = config.keys().filter(|key| !NO_VARIANT.contains(&key.as_str()));
    keys.filter(varies).map(String::as_str).collect()
}

/// Label of the variant of `config` among all of them; `no method` where it has none.
pub(super) fn variant(config: &Map<String, Value>, configs: &[&Map<String, Value>]) -> String {
    let method = config.get("method").and_then(Value::as_str).unwrap_or("no method");
    label(method, config, &varying(config, configs))
}

fn label(method: &str, config: &Map<String, Value>, varying: &[&str]) -> String {
    let options = varying.iter().filter_map(|key| {
        let value = config.get(*key).filter(|value| !value.is_null())?;
        Some(format!(" {key}={}", shown(value)))
    });
    std::iter::once(method.to_owned()).chain(options).collect()
}

fn point(entry: &Value, config: &Map<String, Value>, i: usize, varying: &[&str]) -> Result<Point> {
    let method =
        config.get("method").and_then(Value::as_str).ok_or_else(|| missing(entry, i, "config.method"))?;
    let result = entry.get("result").ok_or_else(|| missing(entry, i, "result"))?;
    let numbers = |of: Option<&Value>, what: &str| named(of).ok_or_else(|| missing(entry, i, what));
    Ok(Point {
        variant: label(method, config, varying),
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
