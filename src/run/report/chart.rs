//! Figures: a plot or a heat map as SVG that says what it is, with its numbers.

use serde_json::{Map, Value, json};

use super::super::flatten;
use super::super::heat::Heat;
use super::super::plot::Plot;
use super::page::{Block, Figure, Table};
use crate::error::Result;
use crate::math::t_interval;

/// Size of a picture: about as wide as a phone, so that its letters are read there too; a wide page enlarges it.
const SIZE: (u32, u32) = (390, 225);

const LEVEL: f64 = 0.95;

/// The words of a figure; `id` stands once in the page.
pub(super) struct Words<'a> {
    pub id: String,
    pub title: &'a str,
    pub caption: String,
}

/// A plot with its numbers; a note where there is nothing to draw.
pub(super) fn plotted(words: Words<'_>, plot: &Plot, table: Table) -> Result<Block> {
    Ok(figure(words, plot.svg(SIZE)?, table))
}

/// A heat map with its numbers; a note where there is nothing to draw.
pub(super) fn heated(words: Words<'_>, heat: &Heat, table: Table) -> Result<Block> {
    Ok(figure(words, heat.svg(SIZE.0)?, table))
}

fn figure(words: Words<'_>, svg: Option<String>, table: Table) -> Block {
    let Words { id, title, caption } = words;
    let Some(svg) = svg else { return Block::note(format!("{title}: the log has no finite number of it.")) };
    let svg = described(&svg, &id, title, &caption);
    Block::Figure(Box::new(Figure { svg, id, title: title.to_owned(), caption, table: table.finished(true) }))
}

/// The picture with its role, its name and its description for those who cannot see it.
fn described(svg: &str, id: &str, title: &str, text: &str) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (title, text) = (escaped(title), escaped(text));
    let head = format!("<svg role=\"img\" aria-labelledby=\"{id}-t {id}-d\" ");
    let words = format!("<title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{text}</desc>");
    match svg.replacen("<svg ", &head, 1).split_once('>') {
        Some((open, rest)) => format!("{open}>{words}{rest}"),
        None => String::new(),
    }
}

/// The number at a path such as `["losses", "quality"]`; not a number where there is none.
pub(super) fn number(row: &Map<String, Value>, path: &[&str]) -> f64 {
    let found = path.split_first().and_then(|(first, rest)| {
        rest.iter().try_fold(row.get(*first)?, |value, key| value.get(key)).and_then(Value::as_f64)
    });
    found.unwrap_or(f64::NAN)
}

/// The step of a row.
pub(super) fn step(row: &Map<String, Value>) -> f64 {
    number(row, &["step"])
}

/// Names of the numbers below a key of the first row that has it, nested ones with ` · ` between.
pub(super) fn names(rows: &[Map<String, Value>], key: &str) -> Vec<String> {
    let below = rows.iter().find_map(|row| row.get(key)?.as_object());
    below.map(|map| flatten(map).into_iter().map(|(name, _)| spoken(&name)).collect()).unwrap_or_default()
}

fn spoken(name: &str) -> String {
    name.replace('.', " · ")
}

/// Step and the numbers below keys, as the log has them; a column is named by its key where there are several.
pub(super) fn logged(caption: &str, rows: &[Map<String, Value>], keys: &[&str]) -> Table {
    let mut columns: Vec<(&str, Option<String>)> = Vec::new();
    for key in keys {
        match rows.iter().find_map(|row| row.get(*key)) {
            Some(Value::Object(map)) => {
                columns.extend(flatten(map).into_iter().map(|(name, _)| (*key, Some(name))));
            }
            Some(_) => columns.push((key, None)),
            None => {}
        }
    }
    let named = |(key, name): &(&str, Option<String>)| match name {
        Some(name) if keys.len() > 1 => format!("{key}: {}", spoken(name)),
        Some(name) => spoken(name),
        None => (*key).to_owned(),
    };
    let head: Vec<String> = std::iter::once("step".to_owned()).chain(columns.iter().map(named)).collect();
    let mut table = Table::new(caption, &head);
    for row in rows {
        let cell = |(key, name): &(&str, Option<String>)| {
            let value = row.get(*key)?;
            let Some(name) = name else { return Some(value.clone()) };
            let cells = flatten(value.as_object()?);
            cells.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let cells = columns.iter().map(|column| cell(column).unwrap_or(Value::Null));
        table.push(std::iter::once(row.get("step").cloned().unwrap_or(Value::Null)).chain(cells));
    }
    table
}

/// A number of a table; none where it is not finite.
pub(super) fn value(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

/// A count or a step, without a point.
pub(super) fn whole(x: f64) -> Value {
    if x.is_finite() { json!(x as i64) } else { Value::Null }
}

/// A mean with its 95 % t interval, whose ends are not numbers where there are fewer than two values.
pub(super) struct Mean {
    pub count: usize,
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

impl Mean {
    /// Of the values that are finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().filter(|x| x.is_finite()).collect();
        let (low, high) = t_interval(&values, LEVEL).map_or((f64::NAN, f64::NAN), |i| (i.low, i.high));
        // 0/0 of none is no number, as it should be
        Self { count: values.len(), mean: values.iter().sum::<f64>() / values.len() as f64, low, high }
    }
}
