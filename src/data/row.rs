//! Rows as people write them: prompts, responses, labels; before any tokenising.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result, io_error};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, mostly.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Other keys, handed to the chat template as they are.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A turn with nothing but a role and its content.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), more: Map::new() }
    }
}

/// What a response answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Plain text: one user turn where a chat template is used.
    Text(String),
    /// A conversation that ends before the answer.
    Messages(Vec<Message>),
}

impl Prompt {
    /// The prompt as one text: a lone user turn is its content, a longer conversation is `role: content`
    /// paragraphs.
    pub fn text(&self) -> String {
        match self {
            Prompt::Text(text) => text.clone(),
            Prompt::Messages(turns) if turns.len() == 1 && turns[0].role == "user" => {
                turns[0].content.clone()
            }
            Prompt::Messages(turns) => {
                let lines: Vec<String> = turns.iter().map(|t| format!("{}: {}", t.role, t.content)).collect();
                lines.join("\n\n")
            }
        }
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

/// Token ids that a row brings; they are taken as they are, nothing is rendered or added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowIds {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// One list a response.
    pub responses: Vec<Vec<u32>>,
}

/// One row of a file of pairs or demonstrations.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What is answered.
    pub prompt: Prompt,
    /// The prompt as text, where the row has text beside messages: shown to judges, and used raw.
    pub prompt_text: Option<String>,
    /// `[chosen, rejected]`, or one demonstration.
    pub responses: Vec<String>,
    /// Label of each objective that the row names: +1 chosen, -1 rejected, 0 a tie, `None` unlabelled.
    pub objectives: Vec<(String, Option<i8>)>,
    /// Token ids, where the row brings them.
    pub ids: Option<RowIds>,
    /// 1-based line of the file (row, of a Parquet file), 0 for a row made in memory.
    pub line: usize,
}

impl Row {
    /// A preference pair.
    pub fn pair(
        prompt: impl Into<Prompt>,
        chosen: impl Into<String>,
        rejected: impl Into<String>,
        objectives: Vec<(String, Option<i8>)>,
    ) -> Self {
        let responses = vec![chosen.into(), rejected.into()];
        Self { prompt: prompt.into(), prompt_text: None, responses, objectives, ids: None, line: 0 }
    }

    /// A preference pair from a JSON object in any layout that files may have.
    ///
    /// # Errors
    /// An object that is no pair.
    pub fn pair_from_json(object: &Map<String, Value>) -> Result<Self> {
        super::layouts::pair(object, None)
    }

    /// A demonstration: one response.
    pub fn demonstration(prompt: impl Into<Prompt>, response: impl Into<String>) -> Self {
        let responses = vec![response.into()];
        Self {
            prompt: prompt.into(),
            prompt_text: None,
            responses,
            objectives: Vec::new(),
            ids: None,
            line: 0,
        }
    }

    /// The row in the canonical layout: `{prompt or messages, chosen, rejected, objectives}` or
    /// `{prompt or messages, response}`, and the ids where it has them.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        let text = match &self.prompt {
            Prompt::Text(text) => Some(text),
            Prompt::Messages(_) => self.prompt_text.as_ref(),
        };
        if let Some(text) = text {
            object.insert("prompt".into(), json!(text));
        }
        if let Prompt::Messages(messages) = &self.prompt {
            object.insert("messages".into(), json!(messages));
        }
        let names: &[&str] = if self.responses.len() == 1 { &["response"] } else { &["chosen", "rejected"] };
        for (name, response) in names.iter().zip(&self.responses) {
            object.insert((*name).into(), json!(response));
        }
        if let Some(ids) = &self.ids {
            object.insert("prompt_ids".into(), json!(ids.prompt));
            for (name, response) in names.iter().zip(&ids.responses) {
                object.insert(format!("{name}_ids"), json!(response));
            }
        }
        if self.responses.len() != 1 {
            let labels = self.objectives.iter().map(|(name, label)| (name.clone(), json!(label)));
            object.insert("objectives".into(), Value::Object(labels.collect()));
        }
        Value::Object(object)
    }
}

/// Writes rows as JSONL in the canonical layout; the file appears whole or not at all.
///
/// # Errors
/// What the operating system says.
pub fn write_preferences(path: &Path, rows: &[Row]) -> Result<()> {
    let failed = |e: std::io::Error| io_error(&e, "write the rows", path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut out = std::io::BufWriter::new(file);
    for row in rows {
        writeln!(out, "{}", row.to_json()).map_err(failed)?;
    }
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    // a temporary file is private to its owner; rows are files like any other
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// A text for a message: cut where it is long.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Several faults of one file or list, gathered: the first ten are told, all are counted.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(usize, Option<usize>, Error)>);

impl Faults {
    const SHOWN: usize = 10;

    /// Notes what is wrong with a row; `line` is its line in the file, or its 1-based number in memory.
    pub(super) fn push(&mut self, line: usize, column: Option<usize>, error: Error) {
        self.0.push((line, column, error));
    }

    /// One error for all of them; `path` is the file that the rows come from, if any, and `unit` what they are
    /// counted by: `line` or `row`.
    pub(super) fn finish(mut self, path: Option<&Path>, unit: &str, rows: usize) -> Result<()> {
        self.0.sort_by_key(|(line, ..)| *line);
        let Some((line, column, first)) = self.0.first().cloned() else { return Ok(()) };
        let help = first.help_text().unwrap_or("mend the row, or leave it out").to_owned();
        let with_help = |error: Error| error.help(help);
        let in_file = |error: Error| path.iter().fold(error, |error, path| error.in_file(path));
        if self.0.len() == 1 {
            return Err(with_help(match path {
                Some(path) if unit == "line" => Error::new(first.what()).at(crate::error::Place::File {
                    path: path.to_owned(),
                    line: Some(line),
                    column,
                }),
                _ => in_file(Error::new(format!("{unit} {line}: {}", first.what()))),
            }));
        }
        let shown: Vec<String> = (self.0.iter().take(Self::SHOWN))
            .map(|(line, column, error)| match column {
                Some(column) => format!("\n  {unit} {line}, column {column}: {}", error.what()),
                None => format!("\n  {unit} {line}: {}", error.what()),
            })
            .collect();
        let first_ten = if self.0.len() > Self::SHOWN { ", the first ten" } else { "" };
        let what = format!("{} of {rows} rows are unusable{first_ten}:{}", self.0.len(), shown.concat());
        Err(with_help(in_file(Error::new(what))))
    }
}
