//! Files → rows → tokenised examples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::row::Faults;
use super::{Example, Preferences, Response, Row, Template, Tokenizer, layouts};
use crate::error::{Error, Place, Result, io_error, nearest};

/// What the reader needs to know beside the rows.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// The objectives to read, in this order; all, in order of first appearance, without.
    pub objectives: Option<Vec<String>>,
    /// How prompts become text.
    pub template: Template,
    /// Longest sequence of the model, prompt and response together, in tokens.
    pub context: usize,
    /// Token rows of the model; ids at or beyond are refused.
    pub vocab: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { objectives: None, template: Template::Auto, context: usize::MAX, vocab: usize::MAX }
    }
}

/// Preference pairs or demonstrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pairs,
    Demonstrations,
}

/// Rows with what was wrong with those that could not be read.
struct Source {
    rows: Vec<Row>,
    faults: Faults,
    count: usize,
    path: Option<PathBuf>,
}

impl Preferences {
    /// Reads preference pairs from JSONL or CSV in any of the layouts: canonical, raco, MOA, ids.
    ///
    /// # Errors
    /// Unreadable or malformed rows, labels other than -1, 0, 1, null, empty responses, rows longer than the
    /// context (the first ten and the count); an unknown objective, one that no row labels, no rows at all.
    pub fn read(path: &Path, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Self> {
        let source = Source::read(path, Form::Pairs, options.objectives.as_deref())?;
        source.tokenise(Form::Pairs, tokenizer, options)
    }

    /// Reads demonstrations, `{prompt, response}`: examples with one response and no objectives.
    ///
    /// # Errors
    /// As [`Preferences::read`].
    pub fn demonstrations(path: &Path, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Self> {
        Source::read(path, Form::Demonstrations, None)?.tokenise(Form::Demonstrations, tokenizer, options)
    }

    /// Tokenises rows made in memory: pairs, or demonstrations if the first has one response.
    ///
    /// # Errors
    /// As [`Preferences::read`], naming rows by their number from 1.
    pub fn from_rows(rows: Vec<Row>, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Self> {
        let form = match rows.first() {
            Some(row) if row.responses.len() == 1 => Form::Demonstrations,
            _ => Form::Pairs,
        };
        let count = rows.len();
        Source { rows, faults: Faults::default(), count, path: None }.tokenise(form, tokenizer, options)
    }
}

/// Reads preference pairs without tokenising them.
///
/// # Errors
/// As [`Preferences::read`], but for what concerns tokens.
pub fn read_rows(path: &Path) -> Result<Vec<Row>> {
    let source = Source::read(path, Form::Pairs, None)?;
    source.faults.finish(Some(path), source.count)?;
    Ok(source.rows)
}

impl Source {
    fn read(path: &Path, form: Form, wanted: Option<&[String]>) -> Result<Self> {
        let mut source =
            Self { rows: Vec::new(), faults: Faults::default(), count: 0, path: Some(path.to_owned()) };
        let mut take = |line: usize, column: Option<usize>, object: Result<Map<String, Value>>| {
            source.count += 1;
            let row = object.and_then(|object| match form {
                Form::Pairs => layouts::pair(&object, wanted),
                Form::Demonstrations => layouts::demonstration(&object),
            });
            match row {
                Ok(row) => source.rows.push(Row { line, ..row }),
                Err(fault) => source.faults.push(line, column, fault),
            }
        };
        match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
            Some("jsonl" | "ndjson" | "json") => json_lines(path, &mut take)?,
            Some("csv") => csv_records(path, &mut take)?,
            other => {
                let found = other.map_or_else(|| "no extension".to_owned(), |e| format!("`.{e}`"));
                return Err(Error::new(format!("rows are read from `.jsonl` or `.csv`, found {found}"))
                    .in_file(path)
                    .help("convert the file to JSONL: one JSON object a line"));
            }
        }
        Ok(source)
    }

    fn tokenise(mut self, form: Form, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Preferences> {
        let path = self.path.as_deref();
        let in_file = |error: Error| path.iter().fold(error, |error, path| error.in_file(path));
        if self.count == 0 {
            return Err(in_file(Error::new("there are no rows").help("give a file with one row a line")));
        }
        let tokenised: Vec<Result<Tokenised>> =
            self.rows.par_iter().map(|row| Tokenised::new(row, form, tokenizer, options)).collect();
        let mut examples = Vec::with_capacity(tokenised.len());
        for (index, (row, result)) in self.rows.iter().zip(tokenised).enumerate() {
            match result {
                Ok(example) => examples.push(example),
                Err(fault) => self.faults.push(if row.line > 0 { row.line } else { index + 1 }, None, fault),
            }
        }
        self.faults.finish(path, self.count)?;

        let objectives = match form {
            Form::Demonstrations => Vec::new(),
            Form::Pairs => objectives(&self.rows, options.objectives.as_deref()).map_err(in_file)?,
        };
        let rendering = match self.rows.iter().all(|row| row.ids.is_some()) {
            true => "token ids as the rows give them".to_owned(),
            false => tokenizer.rendering(options.template).to_owned(),
        };
        let examples = self.rows.into_iter().zip(examples).map(|(row, tokenised)| {
            let label =
                |name: &String| row.objectives.iter().find(|(n, _)| n == name).and_then(|(_, label)| *label);
            let labels = objectives.iter().map(label).collect();
            let Tokenised { prompt, prompt_ids, responses } = tokenised;
            Arc::new(Example { prompt, prompt_ids, responses, labels, line: row.line })
        });
        Ok(Preferences {
            examples: Arc::new(examples.collect()),
            objectives: Arc::new(objectives.clone()),
            origin: path.map_or_else(|| "rows made in memory".to_owned(), |path| path.display().to_string()),
            rendering,
            reference: None,
        })
    }
}

struct Tokenised {
    prompt: String,
    prompt_ids: Vec<u32>,
    responses: Vec<Response>,
}

impl Tokenised {
    fn new(row: &Row, form: Form, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Self> {
        let expected = if form == Form::Pairs { 2 } else { 1 };
        if row.responses.len() != expected {
            let found = row.responses.len();
            return Err(Error::new(format!("expected {expected} responses a row, found {found}")));
        }
        if row.ids.is_none() && row.responses.iter().any(|response| response.trim().is_empty()) {
            return Err(Error::new("a response is empty").help("leave the row out"));
        }
        if let Some((name, label)) =
            row.objectives.iter().find(|(_, l)| l.is_some_and(|l| !(-1..=1).contains(&l)))
        {
            let found = label.map_or(0, i64::from);
            return Err(Error::new(format!("label `{name}` must be -1, 0, 1 or null, found `{found}`")));
        }
        let (prompt_ids, response_ids) = match (&row.ids, &row.prompt_text) {
            (Some(ids), _) => (ids.prompt.clone(), ids.responses.clone()),
            (None, Some(text)) if options.template == Template::None || !tokenizer.has_template() => {
                tokenizer.example_ids(&text.as_str().into(), &row.responses, Template::None)?
            }
            (None, _) => tokenizer.example_ids(&row.prompt, &row.responses, options.template)?,
        };
        if prompt_ids.is_empty() {
            return Err(Error::new("the prompt has no token").help("leave the row out"));
        }
        if response_ids.iter().any(Vec::is_empty) {
            return Err(Error::new("a response has no token").help("leave the row out"));
        }
        let all = prompt_ids.iter().chain(response_ids.iter().flatten());
        if let Some(id) = all.copied().find(|id| *id as usize >= options.vocab) {
            return Err(Error::new(format!(
                "token id `{id}`, but the model has {} token rows",
                options.vocab
            )));
        }
        let longest = prompt_ids.len() + response_ids.iter().map(Vec::len).max().unwrap_or(0);
        if longest > options.context {
            return Err(Error::new(format!(
                "prompt and response make {longest} tokens, the model's context is {}",
                options.context
            ))
            .help("leave these rows out, or use a model with a longer context"));
        }
        let text = |text: &str, ids: &[u32]| match row.ids {
            Some(_) if text.is_empty() => tokenizer.decode(ids),
            _ => Ok(text.to_owned()),
        };
        let prompt = match row.prompt_text.as_ref().filter(|text| !text.is_empty()) {
            Some(shown) => shown.clone(),
            None => text(&row.prompt.text(), &prompt_ids)?,
        };
        let responses = (row.responses.iter().zip(response_ids))
            .map(|(shown, ids)| Ok(Response { text: text(shown, &ids)?, ids }))
            .collect::<Result<_>>()?;
        Ok(Self { prompt, prompt_ids, responses })
    }
}

/// The objectives as given, or in order of first appearance; each must be labelled by some row.
fn objectives(rows: &[Row], given: Option<&[String]>) -> Result<Vec<String>> {
    let mut found: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.objectives) {
        if !found.contains(&name.as_str()) {
            found.push(name);
        }
    }
    let names: Vec<String> = match given {
        Some(given) => given.to_vec(),
        None => found.iter().map(|name| (*name).to_owned()).collect(),
    };
    for (index, name) in names.iter().enumerate() {
        if !found.contains(&name.as_str()) {
            let near = nearest(name, found.iter().copied());
            let valid = if near.is_empty() { &found } else { &near };
            let help = format!("the rows label `{}`", valid.join("`, `"));
            return Err(Error::new(format!("no row has an objective `{name}`")).help(match near.first() {
                Some(near) => format!("did you mean `{near}`?"),
                None => help,
            }));
        }
        if names[..index].contains(name) {
            return Err(
                Error::new(format!("objective `{name}` is named twice")).help("name each objective once")
            );
        }
        let labels = rows.iter().flat_map(|row| &row.objectives).filter(|(n, _)| n == name);
        if labels.clone().all(|(_, label)| label.is_none()) {
            return Err(Error::new(format!("objective `{name}` is labelled by no row"))
                .help("leave the objective out, or label some rows"));
        }
    }
    if names.is_empty() {
        return Err(Error::new("no row has an objective")
            .help("label the rows: `\"objectives\": {\"quality\": 1}`, 1 where `chosen` is preferred"));
    }
    Ok(names)
}

type Take<'a> = dyn FnMut(usize, Option<usize>, Result<Map<String, Value>>) + 'a;

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
        (line, Error::new(what))
    };
    let header = reader.headers().map_err(|e| broken(&e).1.at_line(path, 1))?.clone();
    let names: Vec<&str> = header.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
    if let Some((at, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::new(format!("column {} repeats the name `{name}`", at + 1)).at_line(path, 1));
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
    let mut objectives = Map::new();
    let json = |name: &str, cell: &str| {
        serde_json::from_str::<Value>(cell)
            .map_err(|e| Error::new(format!("column `{name}` must hold JSON: {e}")))
    };
    for (name, cell) in names.iter().zip(record) {
        if let Some(objective) = name.strip_prefix("objectives.") {
            objectives.insert(objective.to_owned(), csv_label(cell));
        } else if name.starts_with("raco_s_") {
            object.insert((*name).to_owned(), csv_label(cell));
        } else if cell.is_empty() && !matches!(*name, "prompt" | "chosen" | "rejected" | "response") {
            continue;
        } else if name.ends_with("_ids") || matches!(*name, "messages" | "objectives") {
            object.insert((*name).to_owned(), json(name, cell)?);
        } else {
            // text unless it is a conversation written as JSON
            let conversation = cell.trim_start().starts_with("[{").then(|| serde_json::from_str(cell).ok());
            object.insert((*name).to_owned(), conversation.flatten().unwrap_or_else(|| cell.into()));
        }
    }
    if !objectives.is_empty() {
        if object.contains_key("objectives") {
            return Err(Error::new("columns `objectives` and `objectives.NAME` exclude each other"));
        }
        object.insert("objectives".to_owned(), Value::Object(objectives));
    }
    Ok(object)
}

fn csv_label(cell: &str) -> Value {
    let cell = cell.trim();
    if cell.is_empty() || cell == "null" {
        return Value::Null;
    }
    cell.trim_start_matches('+').parse::<f64>().map_or_else(|_| cell.into(), Value::from)
}
