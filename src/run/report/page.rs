//! What a report is made of: parts of sections of figures, tables, texts.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

/// Rows that a table shows; its CSV holds all of them.
const SHOWN: usize = 200;

#[derive(Serialize)]
pub(super) struct Page {
    pub title: String,
    pub version: &'static str,
    /// When, UTC.
    pub made: String,
    /// CSS of the pictures' colours.
    pub theme: String,
    pub parts: Vec<Part>,
}

/// One run, or what runs have in common.
#[derive(Serialize)]
pub(super) struct Part {
    pub id: String,
    /// None for an empty one.
    pub title: String,
    pub sections: Vec<Section>,
}

#[derive(Serialize)]
pub(super) struct Section {
    pub id: String,
    pub title: String,
    pub text: Vec<String>,
    pub blocks: Vec<Block>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Block {
    Figure(Box<Figure>),
    Table {
        table: Table,
    },
    Note {
        text: String,
    },
    Code {
        caption: String,
        code: String,
    },
    /// Answers to one prompt, side by side.
    Answers {
        prompt: String,
        answers: Vec<Answer>,
    },
}

#[derive(Serialize)]
pub(super) struct Answer {
    pub by: String,
    pub text: String,
}

/// A picture with the numbers that it shows.
#[derive(Serialize)]
pub(super) struct Figure {
    pub id: String,
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// A whole `<svg>` element.
    pub svg: String,
    pub table: Table,
}

#[derive(Clone, Serialize)]
pub(super) struct Table {
    pub caption: String,
    pub head: Vec<String>,
    /// As shown.
    pub rows: Vec<Vec<String>>,
    /// Columns of numbers.
    pub numeric: Vec<bool>,
    /// Rows that are not shown.
    pub left_out: usize,
    /// All rows, in full precision, as a `data:` address.
    pub csv: String,
    #[serde(skip)]
    all: Vec<Vec<Value>>,
}

impl Section {
    pub fn new(id: &str, title: &str, text: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let text = text.into_iter().map(Into::into).collect();
        Self { id: id.to_owned(), title: title.to_owned(), text, blocks: Vec::new() }
    }

    pub fn with(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }
}

impl Block {
    pub fn table(table: Table) -> Self {
        Self::Table { table: table.finished(false) }
    }

    pub fn note(text: impl Into<String>) -> Self {
        Self::Note { text: text.into() }
    }
}

impl Table {
    pub fn new<T: AsRef<str>>(caption: &str, head: &[T]) -> Self {
        let head = head.iter().map(|name| name.as_ref().to_owned()).collect();
        let (rows, numeric, all) = (Vec::new(), Vec::new(), Vec::new());
        Self { caption: caption.to_owned(), head, rows, numeric, left_out: 0, csv: String::new(), all }
    }

    pub fn push(&mut self, row: impl IntoIterator<Item = Value>) {
        self.all.push(row.into_iter().collect());
    }

    /// With its cells, to six digits unless `exact`, and its CSV.
    pub fn finished(mut self, exact: bool) -> Self {
        let count = self.all.len();
        // evenly spaced, the first and the last among them
        let at = |i: usize| if count <= SHOWN { i } else { i * (count - 1) / (SHOWN - 1) };
        let column =
            |i: usize| self.all.iter().filter_map(move |row| row.get(i)).filter(|value| !value.is_null());
        self.numeric = (0..self.head.len())
            .map(|i| column(i).next().is_some() && column(i).all(Value::is_number))
            .collect();
        let row = |i: usize| self.all[at(i)].iter().map(|value| text(value, exact)).collect();
        self.rows = (0..count.min(SHOWN)).map(row).collect();
        self.left_out = count - self.rows.len();
        self.csv = data_address(&self.head, &self.all);
        self
    }
}

fn text(value: &Value, exact: bool) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(x) => match x.as_f64().filter(|_| x.is_f64() && !exact) {
            Some(x) => rounded(x),
            None => x.to_string(),
        }
        .replace('-', "−"),
        other => other.to_string(),
    }
}

/// Six digits.
fn rounded(x: f64) -> String {
    // the shortest text of the number nearest to it with six digits
    format!("{x:.5e}").parse::<f64>().map_or_else(|_| x.to_string(), |x| json!(x).to_string())
}

fn data_address(head: &[String], rows: &[Vec<Value>]) -> String {
    let mut csv = String::new();
    let quoted = |text: &str| match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let exact = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    let mut line = |cells: Vec<String>| {
        csv += &cells.join(",");
        csv.push('\n');
    };
    line(head.iter().map(|name| quoted(name)).collect());
    rows.iter().for_each(|row| line(row.iter().map(exact).collect()));
    let mut address = "data:text/csv;charset=utf-8,".to_owned();
    for byte in csv.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b',' => address.push(byte as char),
            // writing to a string does not fail
            _ => drop(write!(address, "%{byte:02X}")),
        }
    }
    address
}
