//! Logs as TensorBoard event files.
//!
//! A file is a row of TFRecords: length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little
//! endian. The data are protocol buffers: `Event { wall_time = 1, step = 2, file_version = 3, summary = 5 }`,
//! `Summary { value = 1 }`, `Value { tag = 1, simple_value = 2 }`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::files::create_dir;
use super::{StoredRun, flatten, write_whole};
use crate::error::Result;

/// Writes the log of a run and its evaluation into a folder of the run's name below `out`, as single-precision scalars: a
/// column `losses.quality` becomes the tag `losses/quality`. A file that was written before is replaced.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_events(run: &StoredRun, out: &Path) -> Result<PathBuf> {
    let session = run.facts.get("sessions").and_then(|sessions| sessions.get(0));
    let began = session.and_then(|session| session.get("unix_s")?.as_u64()).unwrap_or(0);
    let mut file = Vec::new();
    let mut time = began as f64;
    record(&mut file, &event(time, None, &[], Some("brain.Event:2")));
    let side = |side: &str| Some(run.evaluation.get(side)?.get("rows")?.as_object()?.clone());
    let evaluated =
        |rows: Map<String, Value>| scalars(&Map::from_iter([("evaluation".to_owned(), Value::Object(rows))]));
    if let Some(rows) = side("before") {
        record(&mut file, &event(time, Some(0), &evaluated(rows), None));
    }
    for (i, row) in run.rows.iter().enumerate() {
        time += row.get("time_ms").and_then(Value::as_f64).unwrap_or(0.0) / 1e3;
        let step = row.get("step").and_then(Value::as_u64).unwrap_or(i as u64);
        record(&mut file, &event(time, Some(step), &scalars(row), None));
    }
    if let Some(rows) = side("after") {
        record(&mut file, &event(time, Some(run.rows.len() as u64), &evaluated(rows), None));
    }
    let dir = out.join(&run.name);
    create_dir(&dir)?;
    let path = dir.join(format!("events.out.tfevents.{began}.raco"));
    write_whole(&path, &file)?;
    Ok(path)
}

/// The numbers of a row by tag; what is not finite is left out.
fn scalars(row: &Map<String, Value>) -> Vec<(String, f32)> {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(|b| f64::from(u8::from(b))));
    let scalar = |(name, value): (String, &Value)| {
        let x = number(value)? as f32;
        (name != "step" && x.is_finite()).then(|| (name.replace('.', "/"), x))
    };
    flatten(row).into_iter().filter_map(scalar).collect()
}

/// An `Event` in protocol buffers.
fn event(time: f64, step: Option<u64>, scalars: &[(String, f32)], version: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, 1, 1);
    out.extend(time.to_le_bytes());
    if let Some(step) = step {
        key(&mut out, 2, 0);
        varint(&mut out, step);
    }
    if let Some(version) = version {
        bytes(&mut out, 3, version.as_bytes());
    }
    if !scalars.is_empty() {
        let mut summary = Vec::new();
        for (tag, x) in scalars {
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            key(&mut value, 2, 5);
            value.extend(x.to_le_bytes());
            bytes(&mut summary, 1, &value);
        }
        bytes(&mut out, 5, &summary);
    }
    out
}

/// Number and wire type of a field: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    key(out, field, 2);
    varint(out, data.len() as u64);
    out.extend(data);
}

fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

fn record(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(data);
    out.extend(masked(crc32c(data)).to_le_bytes());
}

/// A CRC of data that hold CRCs is masked.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C of each byte (Castagnoli, reflected).
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, &byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}
