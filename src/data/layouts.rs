//! One JSON object → a row, whatever the layout.
//!
//! ```text
//!     canonical   {prompt | messages, chosen, rejected, objectives: {name: 1 | -1 | 0 | null}}
//!     raco        {chosen, rejected, raco_s_NAME: 1.0 | -1.0 | 0.0}       NAME is the objective
//!     MOA         {Summary_A, Summary_B, Name: "A" | "B" | "tie"}         name is the objective
//!     ids         {prompt_ids, chosen_ids, rejected_ids, objectives}
//!     SFT         {prompt | messages, response}
//! ```
//! Responses are text, or chat messages that end with the answer and share the turns before it.

use serde_json::{Map, Value};

use super::row::{Message, Prompt, Row, RowIds, excerpt};
use crate::error::{Error, Result, nearest};

type Object = Map<String, Value>;

/// A preference pair; `wanted` are the objectives asked for, where any were.
pub(super) fn pair(object: &Object, wanted: Option<&[String]>) -> Result<Row> {
    let moa = object.contains_key("Summary_A") || object.contains_key("Summary_B");
    let names = if moa { ["Summary_A", "Summary_B"] } else { ["chosen", "rejected"] };
    if object.contains_key("response") && !object.contains_key("chosen") {
        return Err(Error::new("the row has one `response`: a demonstration, not a pair")
            .help("read it with `load_demonstrations`"));
    }
    let objectives = labels(object, moa, wanted)?;
    Ok(Row { objectives, ..row(object, &names)? })
}

/// A demonstration: one response, or messages that end with it.
pub(super) fn demonstration(object: &Object) -> Result<Row> {
    if object.contains_key("chosen") {
        return Err(Error::new("the row has `chosen` and `rejected`: a pair, not a demonstration")
            .help("read it with `load_preferences`"));
    }
    let in_messages = !object.contains_key("response") && !object.contains_key("response_ids");
    if in_messages && object.contains_key("messages") {
        row(object, &["messages"])
    } else {
        row(object, &["response"])
    }
}

fn row(object: &Object, names: &[&str]) -> Result<Row> {
    let ids = row_ids(object, names)?;
    let answers = match &ids {
        Some(_) => {
            names.iter().map(|name| Ok(Answer { turns: None, text: optional_text(object, name)? })).collect()
        }
        None => names.iter().map(|name| answer(object, name)).collect::<Result<Vec<_>>>(),
    }?;
    let prompt_text = match object.get("prompt") {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let prompt = match &ids {
        Some(_) => Prompt::Text(prompt_text.clone().unwrap_or_default()),
        None => prompt(object, names, &answers, prompt_text.as_deref())?,
    };
    let mut responses: Vec<String> = answers.into_iter().map(|answer| answer.text).collect();
    let split = match (&prompt, &prompt_text, &ids) {
        // texts that carried their prompt
        (Prompt::Text(text), None, None) => text.len(),
        _ => 0,
    };
    responses.iter_mut().for_each(|response| *response = response.split_off(split));
    if let (None, Some(empty)) = (&ids, responses.iter().position(|response| response.trim().is_empty())) {
        return Err(Error::new(format!("`{}` is empty", names[empty])).help("leave the row out"));
    }
    Ok(Row { prompt, prompt_text, responses, objectives: Vec::new(), ids, line: 0 })
}

struct Answer {
    /// The turns before the answer, where the row gives chat messages.
    turns: Option<Vec<Message>>,
    text: String,
}

fn answer(object: &Object, name: &str) -> Result<Answer> {
    match object.get(name) {
        None | Some(Value::Null) => Err(missing(object, name)),
        Some(Value::String(text)) => Ok(Answer { turns: None, text: text.clone() }),
        Some(value @ Value::Array(_)) => {
            let mut turns = messages(value, name)?;
            match turns.pop() {
                Some(last) if last.role == "assistant" => {
                    match last.more.iter().find(|(_, value)| !value.is_null()) {
                        Some((key, _)) => Err(Error::new(format!(
                            "the answer in `{name}` has a key `{key}`"
                        ))
                        .help("an answer is trained on as `role` and `content`; leave other keys out")),
                        None => Ok(Answer { turns: Some(turns), text: last.content }),
                    }
                }
                Some(last) => Err(Error::new(format!(
                    "the last message of `{name}` must be the assistant's, found role `{}`",
                    last.role
                ))),
                None => Err(Error::new(format!("`{name}` is empty")).help("leave the row out")),
            }
        }
        Some(other) => Err(wrong_type(name, "text or chat messages", other)),
    }
}

fn prompt(object: &Object, names: &[&str], answers: &[Answer], text: Option<&str>) -> Result<Prompt> {
    if let [first, second] = answers
        && first.turns != second.turns
    {
        let [a, b] = [names[0], names[1]];
        return Err(Error::new(match (&first.turns, &second.turns) {
            (Some(_), Some(_)) => format!("`{a}` and `{b}` must share every message but the last"),
            _ => format!("`{a}` and `{b}` must both be text or both be chat messages"),
        }));
    }
    let shared = answers.iter().find_map(|a| a.turns.as_ref()).filter(|turns| !turns.is_empty());
    let given = ["messages", "prompt"].into_iter().filter(|key| !names.contains(key)).find_map(|key| {
        let value = object.get(key).filter(|value| !value.is_null() && !value.is_string())?;
        Some(messages(value, key).map(|turns| (key, turns)))
    });
    let (key, turns) = match (given.transpose()?, shared) {
        (Some((key, given)), Some(shared)) if given != *shared => {
            return Err(Error::new(format!(
                "`{key}` differs from the messages before the answer in `{}`",
                names[0]
            )));
        }
        (Some(given), _) => given,
        (None, Some(shared)) => (names[0], shared.clone()),
        (None, None) => match text {
            Some(text) if text.trim().is_empty() => return Err(Error::new("`prompt` is empty")),
            Some(text) => return Ok(Prompt::Text(text.to_owned())),
            None => return shared_text(object, answers).ok_or_else(|| missing(object, "prompt")),
        },
    };
    match turns.last() {
        None => Err(Error::new(format!("`{key}` has no message before the answer"))),
        Some(last) if last.role == "assistant" => Err(Error::new(format!(
            "`{key}` must end before the answer, found a last message of role `assistant`"
        ))),
        Some(_) => Ok(Prompt::Messages(turns)),
    }
}

/// The prompt that two texts of the raco layout carry themselves: what they share, up to the last answer's
/// mark of Anthropic's dialogues, else (as in TRL) before the space where they part.
fn shared_text(object: &Object, answers: &[Answer]) -> Option<Prompt> {
    const MARK: &str = "\n\nAssistant:";
    let [Answer { turns: None, text: a }, Answer { turns: None, text: b }] = answers else { return None };
    object.keys().find(|key| key.starts_with("raco_s_"))?;
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    let shared = &a[..same];
    let shared = match shared.rfind(MARK) {
        Some(at) => &shared[..at + MARK.len()],
        None => shared.strip_suffix(' ').unwrap_or(shared),
    };
    (!shared.trim().is_empty()).then(|| Prompt::Text(shared.to_owned()))
}

fn messages(value: &Value, key: &str) -> Result<Vec<Message>> {
    let Value::Array(list) = value else { return Err(wrong_type(key, "text or chat messages", value)) };
    let turn = |(index, turn): (usize, &Value)| {
        serde_json::from_value::<Message>(turn.clone()).map_err(|_| {
            Error::new(format!("message {} of `{key}` must be {{role, content}}, both text", index + 1))
        })
    };
    list.iter().enumerate().map(turn).collect()
}

fn row_ids(object: &Object, names: &[&str]) -> Result<Option<RowIds>> {
    let keys: Vec<String> =
        std::iter::once("prompt").chain(names.iter().copied()).map(|name| format!("{name}_ids")).collect();
    if !keys.iter().any(|key| object.contains_key(key)) {
        return Ok(None);
    }
    let mut lists = keys.iter().map(|key| match object.get(key) {
        None | Some(Value::Null) => {
            Err(missing(object, key).help(format!("a row of ids has `{}`", keys.join("`, `"))))
        }
        Some(value) => {
            let ids: Vec<u32> = serde_json::from_value(value.clone())
                .map_err(|_| Error::new(format!("`{key}` must be a list of token ids")))?;
            if ids.is_empty() {
                Err(Error::new(format!("`{key}` is empty")).help("leave the row out"))
            } else {
                Ok(ids)
            }
        }
    });
    let prompt = lists.next().transpose()?.unwrap_or_default();
    Ok(Some(RowIds { prompt, responses: lists.collect::<Result<_>>()? }))
}

fn labels(object: &Object, moa: bool, wanted: Option<&[String]>) -> Result<Vec<(String, Option<i8>)>> {
    let mut labels: Vec<(String, Option<i8>)> = Vec::new();
    let mut add = |name: String, label: Option<i8>| match labels.iter().any(|(known, _)| *known == name) {
        true => Err(Error::new(format!("objective `{name}` is labelled twice"))),
        false => {
            labels.push((name, label));
            Ok(())
        }
    };
    match object.get("objectives") {
        None => {}
        Some(Value::Object(map)) => {
            map.iter().try_for_each(|(name, value)| add(name.clone(), sign(name, value)?))?
        }
        Some(other) => return Err(wrong_type("objectives", "a map of names to labels", other)),
    }
    for (key, value) in object {
        if let Some(name) = label_of(key) {
            add(name.to_owned(), sign(key, value)?)?;
        } else if moa && key.starts_with(char::is_uppercase) && !key.starts_with("Summary_") {
            let name = key.to_lowercase();
            if wanted.is_none_or(|wanted| wanted.contains(&name)) {
                add(name, side(key, value)?)?;
            }
        }
    }
    if labels.is_empty() && !object.contains_key("objectives") {
        return Err(missing(object, "objectives").help(
            "label the row: `\"objectives\": {\"quality\": 1}`, 1 where `chosen` is preferred, -1 `rejected`",
        ));
    }
    Ok(labels)
}

/// The objective that a column of its own labels by 1, -1, 0: `raco_s_NAME` or, in flat files, `objectives.NAME`.
fn label_of(key: &str) -> Option<&str> {
    key.strip_prefix("raco_s_").or_else(|| key.strip_prefix("objectives."))
}

/// True for a column that is a label.
pub(super) fn is_label(key: &str) -> bool {
    label_of(key).is_some()
}

/// True for a key that holds the text or the ids of a row, where null means absent.
pub(super) fn is_content(key: &str) -> bool {
    KNOWN.contains(&key)
}

fn sign(name: &str, value: &Value) -> Result<Option<i8>> {
    match value.as_f64() {
        _ if value.is_null() => Ok(None),
        Some(1.0) => Ok(Some(1)),
        Some(-1.0) => Ok(Some(-1)),
        Some(0.0) => Ok(Some(0)),
        _ => Err(bad_label(name, "-1, 0, 1 or null", value)
            .help("1: `chosen` is preferred, -1: `rejected` is, 0: a tie, null: unlabelled")),
    }
}

fn side(name: &str, value: &Value) -> Result<Option<i8>> {
    match value.as_str().map(|side| side.trim().to_lowercase()).as_deref() {
        _ if value.is_null() => Ok(None),
        Some("a") => Ok(Some(1)),
        Some("b") => Ok(Some(-1)),
        Some("tie") => Ok(Some(0)),
        _ => Err(bad_label(name, "`A`, `B`, `tie` or null", value)
            .help("a column that is no label is left alone once the objectives are named")),
    }
}

fn bad_label(name: &str, expected: &str, found: &Value) -> Error {
    Error::new(format!("label `{name}` must be {expected}, found `{}`", excerpt(&found.to_string())))
}

fn optional_text(object: &Object, name: &str) -> Result<String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong_type(name, "text", other)),
    }
}

fn missing(object: &Object, name: &str) -> Error {
    let error = Error::new(format!("the row has no `{name}`"));
    match nearest(name, object.keys().map(String::as_str).filter(|key| !KNOWN.contains(key))).first() {
        Some(similar) => error.help(format!("rename `{similar}` to `{name}`")),
        None => {
            error.help("a pair is {prompt, chosen, rejected, objectives}, a demonstration {prompt, response}")
        }
    }
}

const KNOWN: [&str; 12] = [
    "prompt",
    "messages",
    "chosen",
    "rejected",
    "response",
    "objectives",
    "Summary_A",
    "Summary_B",
    "prompt_ids",
    "chosen_ids",
    "rejected_ids",
    "response_ids",
];

fn wrong_type(name: &str, expected: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    Error::new(format!("`{name}` must be {expected}, found {found}"))
}
