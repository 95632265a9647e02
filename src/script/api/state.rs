//! The state of an aggregator in a checkpoint: JSON, and beside it the vectors over all parameters that it holds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, safetensors};
use rhai::{Array, Dynamic, Map};
use serde_json::{Value, json};

use crate::engine::Gradient;
use crate::error::{Error, Result, io_error};
use crate::model::ParameterSpace;
use crate::run::write_whole;

use super::super::value::{from_json, to_json};

/// Stands in the JSON for a vector, with its number.
const VECTOR: &str = "$gradient";

/// Writes `state.json` with the number of objectives and their state, and `vectors.safetensors` where it needs one.
pub(super) fn save(dir: &Path, state: Option<&(usize, Dynamic)>) -> Result<()> {
    let mut vectors = Vec::new();
    let mut stored = match state {
        Some((m, state)) => {
            json!({ "objectives": m, "state": to_json(&without_vectors(state, &mut vectors))? })
        }
        None => Value::Null,
    };
    if let Some(first) = vectors.first() {
        let space = first.space();
        if vectors.iter().any(|v| v.space() != space) {
            return Err(Error::new("the state of the aggregator holds gradients over different parameters")
                .help("keep gradients of one model only"));
        }
        stored["parameters"] = space.names.iter().zip(&space.shapes).map(|(n, s)| json!([n, s])).collect();
        let named = vectors.iter().enumerate().map(|(i, v)| (i.to_string(), v.tensor().clone()));
        safetensors::save(&named.collect::<HashMap<_, _>>(), dir.join("vectors.safetensors"))?;
    }
    write_whole(&dir.join("state.json"), format!("{stored:#}\n").as_bytes())
}

/// Reads what [`save`] wrote.
pub(super) fn load(dir: &Path) -> Result<Option<(usize, Dynamic)>> {
    let path = dir.join("state.json");
    let broken = || Error::new("not the state of an aggregator").in_file(&path);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| io_error(&e, "read the state of the aggregator", &path))?;
    let stored: Value = serde_json::from_str(&text).map_err(|_| broken())?;
    if stored.is_null() {
        return Ok(None);
    }
    let m = stored["objectives"].as_u64().ok_or_else(broken)? as usize;
    let vectors = match stored.get("parameters") {
        Some(parameters) => load_vectors(dir, parameters)?,
        None => HashMap::new(),
    };
    Ok(Some((m, with_vectors(from_json(&stored["state"])?, &vectors).ok_or_else(broken)?)))
}

fn load_vectors(dir: &Path, parameters: &Value) -> Result<HashMap<String, Gradient>> {
    let path = dir.join("vectors.safetensors");
    let broken = || Error::new("not the vectors of an aggregator's state").in_file(&path);
    let parameters: Vec<(String, Vec<usize>)> =
        serde_json::from_value(parameters.clone()).map_err(|_| broken())?;
    let space = Arc::new(ParameterSpace::new(parameters));
    let tensors = safetensors::load(&path, &Device::Cpu).map_err(|_| broken())?;
    let vector = |(name, values)| Ok((name, Gradient::new(space.clone(), values).map_err(|_| broken())?));
    tensors.into_iter().map(vector).collect()
}

/// A copy whose vectors are moved to `vectors`.
fn without_vectors(value: &Dynamic, vectors: &mut Vec<Gradient>) -> Dynamic {
    if let Some(vector) = value.read_lock::<Gradient>() {
        vectors.push(vector.clone());
        let number = Dynamic::from((vectors.len() - 1) as i64);
        return Map::from_iter([(VECTOR.into(), number)]).into();
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().map(|item| without_vectors(item, vectors)).collect::<Array>().into();
    }
    if let Some(items) = value.read_lock::<Map>() {
        let items = items.iter().map(|(key, item)| (key.clone(), without_vectors(item, vectors)));
        return items.collect::<Map>().into();
    }
    value.clone()
}

/// The value with its vectors in their places; none where one is missing.
fn with_vectors(value: Dynamic, vectors: &HashMap<String, Gradient>) -> Option<Dynamic> {
    if value.is_array() {
        let items = value.cast::<Array>().into_iter();
        return Some(items.map(|item| with_vectors(item, vectors)).collect::<Option<Array>>()?.into());
    }
    if !value.is_map() {
        return Some(value);
    }
    let items = value.cast::<Map>();
    if let Some(number) = items.get(VECTOR) {
        return vectors.get(&number.to_string()).cloned().map(Dynamic::from);
    }
    let items = items.into_iter().map(|(key, item)| Some((key, with_vectors(item, vectors)?)));
    Some(items.collect::<Option<Map>>()?.into())
}
