//! Files of rows → JSON objects: JSONL and CSV here, Parquet in its own file.

use std::path::Path;

use serde_json::{Map, Value};

use super::{layouts, parquet};
use crate::error::{Error, Place, Result, io_error};

/// Takes the number of a row (its line, where a file has lines), the column if one is at fault, and the row.
pub(super) type Take<'a> = dyn FnMut(usize, Option<usize>, Result<Map<String, Value>>) + 'a;

/// What the rows of a file are counted by.
pub(super) fn unit(path: &Path) -> &'static str {
    if extension(path).as_deref() == Some("parquet") { "row" } else { "line" }
}

/// Goes through the rows of a file.
///
/// # Errors
/// A file that cannot be read at all; a row that cannot is handed on.
pub(super) fn each_row(path: &Path, take: &mut Take) -> Result<()> {
    match extension(path).as_deref() {
        Some("jsonl" | "ndjson" | "json") => json_lines(path, take),
        Some("csv") => csv_records(path, take),
        Some("parquet") => parquet::records(path, take),
        other => {
            let found = other.map_or_else(|| "no extension".to_owned(), |e| format!("`.{e}`"));
            let what = format!("rows are read from `.jsonl`, `.csv` or `.parquet`, found {found}");
            Err(Error::new(what).in_file(path).help("convert the file to JSONL: one JSON object a line"))
        }
    }
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|e| e.to_str()).map(str::to_lowercase)
}

fn json_lines(path: &Path, take: &mut Take) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| io_error(&e, "read the rows", path))?;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (column, object) = match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(object)) => (None, Ok(object)),
            Ok(_) => {
                (None, Err(Error::new("a row must be a JSON object").help("write one JSON object a line")))
            }
            Err(e) => {
                let what = e.to_string();
                let what = what.split(" at line ").next().unwrap_or(&what);
                let fault =
                    Error::new(format!("malformed JSON: {what}")).help("write one JSON object a line");
                (Some(e.column()), Err(fault))
            }
        };
        take(index + 1, column, object);
    }
    Ok(())
}

/// Columns as the keys of the JSON layouts; `objectives.NAME` is a label, an empty label unlabelled. A column
/// of ids or messages holds JSON.
fn csv_records(path: &Path, take: &mut Take) -> Result<()> {
    let file = std::fs::File::open(path).map_err(|e| io_error(&e, "read the rows", path))?;
    let mut reader = csv::ReaderBuilder::new().from_reader(std::io::BufReader::new(file));
    let broken = |e: &csv::Error| {
        let line = e.position().map(|position| position.line() as usize);
        let what = match e.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("expected {expected_len} columns, found {len}")
            }
            csv::ErrorKind::Utf8 { .. } => "the text is not UTF-8".to_owned(),
            csv::ErrorKind::Io(e) => format!("cannot read the rows: {e}"),
            _ => e.to_string(),
        };
        (line, Error::new(what).help("write one row a line, quoted as RFC 4180 has it, in UTF-8"))
    };
    let header = reader.headers().map_err(|e| broken(&e).1.at_line(path, 1))?.clone();
    let names: Vec<&str> = header.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
    if let Some((at, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::new(format!("column {} repeats the name `{name}`", at + 1))
            .at_line(path, 1)
            .help("rename the column, or leave it out"));
    }
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let line = record.position().map_or(0, |position| position.line() as usize);
                take(line, None, csv_row(&names, &record));
            }
            Err(e) => match broken(&e) {
                (Some(line), fault) => take(line, None, Err(fault)),
                (None, fault) => {
                    return Err(fault.at(Place::File { path: path.to_owned(), line: None, column: None }));
                }
            },
        }
    }
}

fn csv_row(names: &[&str], record: &csv::StringRecord) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    for (name, cell) in names.iter().zip(record) {
        let value = if layouts::is_label(name) {
            csv_label(cell)
        } else if cell.is_empty() && !matches!(*name, "prompt" | "chosen" | "rejected" | "response") {
            continue;
        } else if name.ends_with("_ids") || matches!(*name, "messages" | "objectives") {
            serde_json::from_str(cell)
                .map_err(|e| Error::new(format!("column `{name}` must hold JSON: {e}")))?
        } else {
            text(cell)
        };
        object.insert((*name).to_owned(), value);
    }
    Ok(object)
}

/// A text, unless it is a conversation written as JSON.
pub(super) fn text(cell: &str) -> Value {
    let conversation = cell.trim_start().starts_with("[{").then(|| serde_json::from_str(cell).ok());
    conversation.flatten().unwrap_or_else(|| cell.into())
}

fn csv_label(cell: &str) -> Value {
    let cell = cell.trim();
    if cell.is_empty() || cell == "null" {
        return Value::Null;
    }
    let number = cell.trim_start_matches('+').parse::<f64>().ok().filter(|x| x.is_finite());
    number.map_or_else(|| cell.into(), Value::from)
}
