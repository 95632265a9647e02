//! Runs as the rows of a table: which columns, which runs, in which order.

use std::cmp::Ordering;

use serde_json::Value;

use super::StoredRun;
use crate::error::{Error, Kind, Result, nearest};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// A column to sort by, with `-` before it the largest first.
    pub sort: Option<String>,
    /// Conditions such as `method=cagrad_clip` or `seed>3`, all of which hold.
    pub filters: Vec<String>,
    /// Columns by their flat names; those that tell most without.
    pub columns: Option<Vec<String>>,
}

/// A table of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// A row each run; null where it has no such value.
    pub rows: Vec<Vec<Value>>,
}

type Flat = Vec<(String, Value)>;

/// Lists runs.
///
/// # Errors
/// A column that no run has, a condition that is none.
pub fn list_runs(runs: &[StoredRun], query: &Query) -> Result<Listing> {
    let mut flat: Vec<Flat> = runs.iter().map(StoredRun::flat).collect();
    let mut known: Vec<String> = Vec::new();
    for (name, _) in flat.iter().flatten() {
        if !known.contains(name) {
            known.push(name.clone());
        }
    }
    for filter in &query.filters {
        let condition = Condition::new(filter, &known)?;
        flat.retain(|run| condition.holds(run));
    }
    if let Some(sort) = &query.sort {
        let (name, descending) = sort.strip_prefix('-').map_or((sort.as_str(), false), |name| (name, true));
        check(name, &known)?;
        flat.sort_by(|a, b| compare(value(a, name), value(b, name), descending));
    }
    let columns = match &query.columns {
        Some(columns) => columns.clone(),
        None => usual(&known, &flat),
    };
    columns.iter().try_for_each(|name| check(name, &known))?;
    let row =
        |run: &Flat| columns.iter().map(|name| value(run, name).cloned().unwrap_or(Value::Null)).collect();
    let rows = flat.iter().map(row).collect();
    Ok(Listing { columns, rows })
}

/// Name, what it was started with, how far it is, how it ended.
fn usual(known: &[String], runs: &[Flat]) -> Vec<String> {
    let below = |key: &str| -> Vec<String> {
        known
            .iter()
            .filter(|name| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
            .cloned()
            .collect()
    };
    let mut columns: Vec<String> =
        ["name", "method", "weights", "c", "seed", "steps"].map(str::to_owned).into();
    columns.extend(below("losses"));
    columns.extend(below("scores"));
    columns.extend(["seconds", "date", "problem"].map(str::to_owned));
    columns.retain(|name| {
        name == "name" || runs.iter().any(|run| value(run, name).is_some_and(|value| !value.is_null()))
    });
    columns
}

fn value<'a>(run: &'a Flat, name: &str) -> Option<&'a Value> {
    run.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn check(name: &str, known: &[String]) -> Result<()> {
    if known.iter().any(|k| k == name) {
        return Ok(());
    }
    let near = nearest(name, known.iter().map(String::as_str));
    let help = match near.is_empty() {
        true => "`--format json` shows every column of the usual ones; arguments, evaluation and the last log row go by \
                 flat names such as `losses.quality`"
            .to_owned(),
        false => format!("did you mean {}?", near.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
    };
    Err(Error::with_kind(Kind::Usage, format!("no run has a column `{name}`")).help(help))
}

/// Numbers before texts, what is missing last in either direction.
fn compare(a: Option<&Value>, b: Option<&Value>, descending: bool) -> Ordering {
    let turned = |order: Ordering| if descending { order.reverse() } else { order };
    let there = |value: Option<&'_ Value>| value.is_some_and(|value| !value.is_null());
    match (there(a), there(b)) {
        (true, true) => turned(order(a, b)),
        (a, b) => b.cmp(&a),
    }
}

fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.map(plain).cmp(&b.map(plain)),
    }
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Which orders of a cell and the value of a condition meet it.
type Accepts = fn(Ordering) -> bool;

/// `COLUMN OPERATOR VALUE`.
struct Condition {
    column: String,
    accepts: Accepts,
    /// Compared as numbers where both sides are.
    value: Value,
}

impl Condition {
    fn new(text: &str, known: &[String]) -> Result<Self> {
        // those of two letters first: `>=` begins as `>` does
        let operators: [(&str, Accepts); 6] = [
            (">=", Ordering::is_ge),
            ("<=", Ordering::is_le),
            ("!=", Ordering::is_ne),
            (">", Ordering::is_gt),
            ("<", Ordering::is_lt),
            ("=", Ordering::is_eq),
        ];
        let at = text.find(['=', '<', '>', '!']).filter(|at| *at > 0);
        let found = at.and_then(|at| {
            operators
                .iter()
                .find_map(|(sign, accepts)| Some((&text[..at], text[at..].strip_prefix(sign)?, *accepts)))
        });
        let Some((column, given, accepts)) = found else {
            return Err(Error::with_kind(Kind::Usage, format!("`{text}` is no condition"))
                .help("write `COLUMN=VALUE`, or `!=`, `>`, `>=`, `<`, `<=` in place of `=`"));
        };
        let (column, given) = (column.trim(), given.trim());
        check(column, known)?;
        let value = given.parse::<f64>().map_or_else(|_| Value::from(given), Value::from);
        Ok(Self { column: column.to_owned(), accepts, value })
    }

    fn holds(&self, run: &Flat) -> bool {
        let Some(found) = value(run, &self.column).filter(|value| !value.is_null()) else { return false };
        let comparable = found.is_number() == self.value.is_number();
        match comparable {
            true => (self.accepts)(order(Some(found), Some(&self.value))),
            // a text is not a number, and neither above nor below it
            false => (self.accepts)(Ordering::Less) && (self.accepts)(Ordering::Greater),
        }
    }
}
