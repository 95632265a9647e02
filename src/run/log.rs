//! The log: one row a step, as CSV for spreadsheets and as JSON lines for programs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::files::sync_dir;
use crate::error::{Error, Result, io_error};

/// `log.csv` and `log.jsonl` of a run; each row is written before the next step begins.
///
/// The first row fixes the columns. Numbers are written so that they read back to the same f64.
pub struct Log {
    csv: Table,
    jsonl: Table,
    columns: Option<Vec<String>>,
}

struct Table {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Table {
    /// Opens for appending after the first `length` bytes; what comes after them is cut off.
    fn open(path: PathBuf, length: u64) -> Result<Self> {
        let failed = |error: std::io::Error| io_error(&error, "write the log", &path);
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found < length {
            return Err(Error::new(format!("the log has {found} bytes, its checkpoint counted {length}"))
                .in_file(&path)
                .help("restore the log, or start a new run"));
        }
        if found > length {
            file.set_len(length).map_err(failed)?;
        }
        Ok(Self { path, file, length })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        // one call a row: a process killed between two rows leaves whole lines
        self.file.write_all(bytes).map_err(|error| io_error(&error, "write the log", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Log {
    /// The log in the folder `dir`, cut to `mark`, a value of [`Log::mark`]; an empty one for none.
    ///
    /// # Errors
    /// A file that cannot be written, or that is shorter than the mark.
    pub fn open(dir: &Path, mark: Option<&Value>) -> Result<Self> {
        let length = |key: &str| match mark {
            None => Ok(0),
            Some(mark) => mark[key].as_u64().ok_or_else(|| {
                Error::new(format!("the checkpoint does not tell the log's `{key}`"))
                    .in_file(dir)
                    .help("remove the newest checkpoint")
            }),
        };
        let csv = Table::open(dir.join("log.csv"), length("csv_bytes")?)?;
        let jsonl = Table::open(dir.join("log.jsonl"), length("jsonl_bytes")?)?;
        let columns = if csv.length == 0 {
            None
        } else {
            let mut reader = csv::Reader::from_path(&csv.path).map_err(|e| csv_error(&e, &csv.path))?;
            let header = reader.headers().map_err(|e| csv_error(&e, &csv.path))?;
            Some(header.iter().map(str::to_owned).collect())
        };
        sync_dir(dir)?;
        Ok(Self { csv, jsonl, columns })
    }

    /// Where the log ends now, for a checkpoint.
    ///
    /// # Errors
    /// A disk that does not take what was written.
    pub fn mark(&self) -> Result<Value> {
        for table in [&self.csv, &self.jsonl] {
            match table.file.sync_data() {
                Ok(()) => {}
                // a pipe or device has nothing to sync
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
                Err(error) => return Err(io_error(&error, "write the log", &table.path)),
            }
        }
        Ok(json!({ "csv_bytes": self.csv.length, "jsonl_bytes": self.jsonl.length }))
    }

    /// Appends a row; nested values become the columns `losses.quality`, `h.0.1`.
    ///
    /// # Errors
    /// A column that the first row lacks, or that is missing now; a full disk.
    pub fn append(&mut self, row: &Map<String, Value>) -> Result<()> {
        let cells = flatten(row);
        match &self.columns {
            Some(columns) => self.check_columns(columns, &cells)?,
            None => {
                let columns: Vec<String> = cells.iter().map(|(name, _)| name.clone()).collect();
                let mut sorted = columns.clone();
                sorted.sort();
                if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(Error::new(format!("two columns of the log are named `{}`", pair[0]))
                        .help("rename one of them"));
                }
                self.csv.append(&csv_line(&columns)?)?;
                self.columns = Some(columns);
            }
        }
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.csv.append(&csv_line(cells.iter().map(|(_, value)| text(value)))?)?;
        let mut line = Value::Object(row.clone()).to_string();
        line.push('\n');
        self.jsonl.append(line.as_bytes())
    }

    fn check_columns(&self, columns: &[String], cells: &[(String, &Value)]) -> Result<()> {
        if columns.len() == cells.len() && columns.iter().zip(cells).all(|(a, (b, _))| a == b) {
            return Ok(());
        }
        let new = cells.iter().map(|(name, _)| name).find(|name| !columns.contains(name));
        let gone = columns.iter().find(|name| !cells.iter().any(|(b, _)| b == *name));
        let what = match (new, gone) {
            (Some(name), _) => format!("column `{name}` is not in the first row of the log"),
            (_, Some(name)) => format!("column `{name}` of the log is missing in this row"),
            _ => "the columns of this row come in another order than in the log".to_owned(),
        };
        Err(Error::new(what).in_file(&self.csv.path).help("log the same keys and list lengths at every step"))
    }
}

/// The columns of the log in the folder of a run; none where it has no row.
pub fn columns(dir: &Path) -> Vec<String> {
    let reader = csv::Reader::from_path(dir.join("log.csv"));
    let head = reader.and_then(|mut reader| reader.headers().cloned());
    head.map_or_else(|_| Vec::new(), |head| head.iter().map(str::to_owned).collect())
}

/// The leaves of a row, named by their path; an empty list or map has none.
pub fn flatten(row: &Map<String, Value>) -> Vec<(String, &Value)> {
    fn walk<'a>(name: String, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, v)| walk(format!("{name}.{key}"), v, out)),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, v)| walk(format!("{name}.{i}"), v, out))
            }
            leaf => out.push((name, leaf)),
        }
    }
    let mut out = Vec::new();
    row.iter().for_each(|(key, value)| walk(key.clone(), value, &mut out));
    out
}

/// The rows of a `log.jsonl`; a last line without its end, left by a killed process, is passed over.
///
/// # Errors
/// A file that cannot be read, a whole line that is no row.
pub fn read_log(path: &Path) -> Result<Vec<Map<String, Value>>> {
    match read_log_part(path)? {
        (rows, None) => Ok(rows),
        (_, Some(error)) => Err(error),
    }
}

type Rows = Vec<Map<String, Value>>;

/// The rows before the first line that is no row, and what is wrong with that one.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn read_log_part(path: &Path) -> Result<(Rows, Option<Error>)> {
    let text = fs::read_to_string(path).map_err(|error| io_error(&error, "read the log", path))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let row = |(i, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => {
            Err(Error::new("a row of the log is a JSON object").at_line(path, i + 1).help("remove the line"))
        }
        Err(error) => {
            Err(Error::new(format!("not JSON: {error}")).at_line(path, i + 1).help("remove the line"))
        }
    };
    let mut rows = Vec::new();
    for row in whole.lines().enumerate().map(row) {
        match row {
            Ok(row) => rows.push(row),
            Err(error) => return Ok((rows, Some(error))),
        }
    }
    Ok((rows, None))
}

fn csv_line<T: AsRef<[u8]>>(fields: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: String| Error::internal(format!("cannot format a row: {error}"));
    writer.write_record(fields).map_err(|e| failed(e.to_string()))?;
    writer.into_inner().map_err(|e| failed(e.to_string()))
}

fn csv_error(error: &csv::Error, path: &Path) -> Error {
    Error::new(format!("cannot read the log: {error}"))
        .in_file(path)
        .help("restore the log, or start a new run")
}
