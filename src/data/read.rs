//! Files → rows → tokenised examples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::row::Faults;
use super::{Example, Preferences, Response, Row, Template, Tokenizer, files, layouts};
use crate::error::{Error, Result, nearest};

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
    /// Prompt and response together are cut to this many tokens.
    pub max_length: usize,
    /// Prompts are cut to this many tokens.
    pub max_prompt_length: usize,
    /// Which part of a long prompt stays.
    pub keep: Keep,
}

/// Which part of a long prompt stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Its first tokens.
    Start,
    /// Its last tokens, the header of the answer among them.
    #[default]
    End,
}

impl std::str::FromStr for Keep {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "keep_start" => Ok(Keep::Start),
            "keep_end" => Ok(Keep::End),
            _ => Err(Error::new(format!("truncation must be `keep_start` or `keep_end`, found `{name}`"))
                .help("`keep_end` keeps the last tokens of a long prompt, `keep_start` the first")),
        }
    }
}

impl ReadOptions {
    fn check(&self) -> Result<()> {
        if self.max_prompt_length == 0 || self.max_length < 2 {
            return Err(Error::new("the length limits leave no room for a token of prompt and response")
                .help("give `max_prompt_length` at least 1 and `max_length` at least 2"));
        }
        if self.max_prompt_length != usize::MAX && self.max_prompt_length >= self.max_length {
            return Err(Error::new(format!(
                "`max_prompt_length` is {}, which leaves nothing of `max_length` {} for a response",
                self.max_prompt_length, self.max_length
            ))
            .help("give a `max_prompt_length` below `max_length`"));
        }
        Ok(())
    }

    /// Cuts the prompt to `max_prompt_length`, then each response to what `max_length` leaves.
    fn cut(&self, prompt: &mut Vec<u32>, responses: &mut [Vec<u32>]) -> Result<()> {
        let surplus = prompt.len().saturating_sub(self.max_prompt_length);
        match self.keep {
            Keep::End => drop(prompt.drain(..surplus)),
            Keep::Start => prompt.truncate(self.max_prompt_length),
        }
        if prompt.len() >= self.max_length {
            let (found, limit) = (prompt.len(), self.max_length);
            return Err(Error::new(format!("the prompt makes {found} tokens, `max_length` is {limit}"))
                .help("give `max_prompt_length`: longer prompts are cut to it"));
        }
        let room = self.max_length - prompt.len();
        responses.iter_mut().for_each(|response| response.truncate(room));
        Ok(())
    }
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            objectives: None,
            template: Template::Auto,
            context: usize::MAX,
            vocab: usize::MAX,
            max_length: usize::MAX,
            max_prompt_length: usize::MAX,
            keep: Keep::End,
        }
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
    /// Reads preference pairs from JSONL, CSV or Parquet in any of the layouts: canonical, raco, MOA, ids.
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
    source.faults.finish(Some(path), files::unit(path), source.count)?;
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
        files::each_row(path, &mut take)?;
        Ok(source)
    }

    fn tokenise(mut self, form: Form, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Preferences> {
        options.check()?;
        let path = self.path.as_deref();
        let in_file = |error: Error| path.iter().fold(error, |error, path| error.in_file(path));
        if self.count == 0 {
            return Err(in_file(Error::new("there are no rows").help("give a file with one row a line")));
        }
        let results: Vec<Result<Example>> =
            self.rows.par_iter().map(|row| tokenised(row, form, tokenizer, options)).collect();
        let mut examples = Vec::with_capacity(results.len());
        for (index, (row, result)) in self.rows.iter().zip(results).enumerate() {
            match result {
                Ok(example) => examples.push(example),
                Err(fault) => self.faults.push(if row.line > 0 { row.line } else { index + 1 }, None, fault),
            }
        }
        self.faults.finish(path, path.map_or("row", files::unit), self.count)?;

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
            Arc::new(Example { labels, line: row.line, ..tokenised })
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

/// A row in tokens, without its labels.
fn tokenised(row: &Row, form: Form, tokenizer: &Tokenizer, options: &ReadOptions) -> Result<Example> {
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
    let (mut prompt_ids, mut response_ids) = match (&row.ids, &row.prompt_text) {
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
        return Err(Error::new(format!("token id `{id}`, but the model has {} token rows", options.vocab)));
    }
    let text = |text: &str, ids: &[u32]| match row.ids {
        Some(_) if text.is_empty() => tokenizer.decode(ids),
        _ => Ok(text.to_owned()),
    };
    let prompt = match row.prompt_text.as_ref().filter(|text| !text.is_empty()) {
        Some(shown) => shown.clone(),
        None => text(&row.prompt.text(), &prompt_ids)?,
    };
    let mut responses = (row.responses.iter().zip(&response_ids))
        .map(|(shown, ids)| Ok(Response::new(text(shown, ids)?, ids.clone())))
        .collect::<Result<Vec<_>>>()?;
    let prompt_tokens = prompt_ids.len();
    options.cut(&mut prompt_ids, &mut response_ids)?;
    let longest = prompt_ids.len() + response_ids.iter().map(Vec::len).max().unwrap_or(0);
    if longest > options.context {
        return Err(Error::new(format!(
            "prompt and response make {longest} tokens, the model's context is {}",
            options.context
        ))
        .help("cut them with `max_length`, leave these rows out, or use a model with a longer context"));
    }
    responses.iter_mut().zip(response_ids).for_each(|(response, ids)| response.ids = ids);
    Ok(Example { prompt, prompt_ids, prompt_tokens, responses, labels: Vec::new(), line: row.line })
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
