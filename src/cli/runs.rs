//! `raco runs DIR…`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::run::{Listing, Query, find_runs, list_runs, write_events};
use crate::script::Console;

use super::terminal::Terminal;
use super::work;

/// Columns of a table where the output is no terminal.
const PAPER: usize = 120;
const BORDER: usize = 3;

/// Arguments of `raco runs`.
#[derive(Args)]
pub(super) struct Runs {
    /// Folders that hold runs.
    #[arg(value_name = "DIR", default_value = "runs")]
    dirs: Vec<PathBuf>,
    /// Sort by a column; `-COLUMN` puts the largest first.
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Only runs of which this holds: `method=cagrad_clip`, `seed>3`, `weights.quality<=0.5`; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    /// Columns, with commas between: arguments, evaluation and the last row of the log by flat names such as
    /// `lr`, `after.quality`, `losses.quality`.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// How they are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the logs as TensorBoard event files below this folder instead.
    #[arg(long, value_name = "OUT", conflicts_with_all = ["sort", "columns", "format"])]
    tensorboard: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For reading; numbers to four digits.
    Table,
    /// For spreadsheets, in full precision.
    Csv,
    /// For programs, in full precision.
    Json,
}

/// Lists runs and returns the exit code.
pub(super) fn run(runs: Runs) -> i32 {
    work::run(false, move |_| {
        let terminal = Terminal::new();
        let found = find_runs(&runs.dirs)?;
        let query = Query { sort: runs.sort, filters: runs.filter, columns: runs.columns };
        if let Some(out) = runs.tensorboard {
            let chosen = list_runs(&found, &Query { columns: Some(vec!["name".into()]), ..query })?;
            let is_chosen = |name: &str| chosen.rows.iter().any(|row| row[0] == name);
            let mut written = 0;
            for run in found.iter().filter(|run| is_chosen(&run.name)) {
                if run.rows.is_empty() {
                    terminal.print(&format!("note: {}: there is no row to write", run.name));
                    continue;
                }
                write_events(run, &out)?;
                written += 1;
            }
            terminal.print(&format!(
                "{written} runs are written; look at them with `tensorboard --logdir {}`",
                out.display()
            ));
            return Ok(0);
        }
        let listing = list_runs(&found, &query)?;
        let chosen = query.columns.is_some();
        terminal.print(&match runs.format {
            Format::Table => table(&listing, terminal.width(), chosen),
            Format::Csv => csv(&listing)?,
            Format::Json => json(&listing),
        });
        Ok(0)
    })
}

fn table(listing: &Listing, width: Option<usize>, chosen: bool) -> String {
    let room = width.unwrap_or(PAPER);
    let columns = if chosen { (0..listing.columns.len()).collect() } else { fitting(listing, room) };
    let mut table = Table::new();
    table
        .load_style(if width.is_some() { presets::UTF8_FULL_CONDENSED } else { presets::ASCII_MARKDOWN })
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(room.try_into().unwrap_or(u16::MAX))
        .set_header(columns.iter().map(|&column| spoken(&listing.columns[column])));
    if columns.iter().map(|&column| least(listing, column) + BORDER).sum::<usize>() < room {
        for (&column, drawn) in columns.iter().zip(table.column_iter_mut()) {
            // the width counts a space on either side
            let least = Width::Fixed((least(listing, column) + 2).try_into().unwrap_or(u16::MAX));
            drawn.set_constraint(ColumnConstraint::LowerBoundary(least));
        }
    }
    for row in &listing.rows {
        table.add_row(columns.iter().map(|&column| {
            let value = &row[column];
            let cell = Cell::new(shown(value));
            if value.is_number() { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
    }
    table.to_string()
}

/// Columns that fit: those that tell least go first.
fn fitting(listing: &Listing, room: usize) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..listing.columns.len()).collect();
    let needed = |columns: &[usize]| columns.iter().map(|&c| least(listing, c) + BORDER).sum::<usize>() + 1;
    for name in ["date", "seconds", "c", "losses."] {
        while needed(&columns) > room {
            match columns.iter().rposition(|&c| listing.columns[c].starts_with(name)) {
                Some(place) => drop(columns.remove(place)),
                None => break,
            }
        }
    }
    columns
}

/// Letters that a column needs in a line: whole numbers and words, short texts.
fn least(listing: &Listing, column: usize) -> usize {
    /// Text wider than this may wrap.
    const WRAPS: usize = 16;
    let cells = listing.rows.iter().map(|row| {
        let letters = shown(&row[column]).chars().count();
        if row[column].is_number() { letters } else { letters.min(WRAPS) }
    });
    let head = spoken(&listing.columns[column]);
    head.split(' ').map(|word| word.chars().count()).chain(cells).max().unwrap_or(0)
}

/// A name that may be broken between its parts.
fn spoken(column: &str) -> String {
    column.replace('.', " ")
}

/// Whole numbers as they are, others to four digits.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(x) if x.is_f64() => match x.as_f64().unwrap_or(f64::NAN) {
            x if x != 0.0 && !(1e-3..1e6).contains(&x.abs()) => format!("{x:.3e}"),
            x => {
                let text = format!("{x:.4}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        },
        other => other.to_string(),
    }
}

fn csv(listing: &Listing) -> Result<String> {
    let failed = |error: String| Error::internal(format!("cannot write CSV: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let exact = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    writer.write_record(&listing.columns).map_err(|e| failed(e.to_string()))?;
    for row in &listing.rows {
        writer.write_record(row.iter().map(exact)).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn json(listing: &Listing) -> String {
    let row = |row: &Vec<Value>| -> Value {
        Value::Object(listing.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>())
    };
    format!("{:#}", Value::Array(listing.rows.iter().map(row).collect()))
}
