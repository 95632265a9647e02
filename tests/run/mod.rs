mod checkpoint;
mod events;
mod figure;
mod folder;
mod fronts;
mod judge;
mod listing;
mod log;
mod meter;
mod report;
mod row;
mod sweep;

use serde_json::{Map, Value};

/// The map of an object literal.
pub fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}
