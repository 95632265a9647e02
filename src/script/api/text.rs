//! Tables, numbers as text, progress of the script's own loops.

use std::rc::Rc;

use comfy_table::{ContentArrangement, Table, presets};
use rhai::{Array, Dynamic, Engine, Map};

use crate::error::{Error, Result};
use crate::run::four_digits;

use super::super::session::Session;
use super::super::value::{Answer, count, number, show};

/// Columns of a table where the output is no terminal.
pub(super) const PAPER: usize = 120;

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    let shared = session.clone();
    engine.register_fn("table", move |head: Array, rows: Array| -> Answer<String> {
        Ok(table(&shared, &head, &rows)?)
    });
    engine.register_fn("fixed", |value: Dynamic, digits: i64| -> Answer<String> {
        let x = number(&value).ok_or_else(|| {
            Error::new(format!("`fixed` of `{}`, expected a number", show(&value))).help("give it a number")
        })?;
        Ok(format!("{x:.*}", count(digits, "the number of digits")?.min(17)))
    });
    let shared = session.clone();
    engine.register_fn("progress", move |done: i64, total: i64, message: &str| -> Answer<()> {
        let total = count(total, "the total of a progress bar")?;
        shared.console().progress(count(done, "the progress")?.min(total), total, message);
        if done as usize >= total {
            shared.console().progress_end();
        }
        Ok(())
    });
    // values of one row by column name, in the order of the head
    engine.register_fn("row", |map: Map, keys: Array| -> Array {
        keys.iter().map(|key| map.get(show(key).as_str()).cloned().unwrap_or(Dynamic::UNIT)).collect()
    });
}

pub(super) fn table(session: &Session, head: &[Dynamic], rows: &[Dynamic]) -> Result<String> {
    let mut table = Table::new();
    let style = if session.console().width().is_some() {
        presets::UTF8_FULL_CONDENSED
    } else {
        presets::ASCII_MARKDOWN
    };
    let width = session.console().width().unwrap_or(PAPER);
    table
        .load_style(style)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width.try_into().unwrap_or(u16::MAX));
    table.set_header(head.iter().map(cell));
    for (i, row) in rows.iter().enumerate() {
        let Some(row) = row.read_lock::<Array>() else {
            return Err(Error::new(format!("row {i} of the table is `{}`, expected an array", show(row)))
                .help("give rows as arrays: `table([\"name\", \"score\"], [[\"a\", 1.0]])`"));
        };
        if row.len() != head.len() {
            return Err(Error::new(format!(
                "row {i} of the table has {} cells, its head {}",
                row.len(),
                head.len()
            ))
            .help("give every row one cell a column"));
        }
        table.add_row(row.iter().map(cell));
    }
    Ok(table.to_string())
}

/// Floats with four digits, all else as it prints.
pub(super) fn cell(value: &Dynamic) -> String {
    match value.as_float() {
        Ok(x) => four_digits(x),
        Err(_) if value.is_unit() => String::new(),
        Err(_) => show(value),
    }
}
