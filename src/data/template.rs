//! Chat templates: messages → text, as `apply_chat_template` of transformers renders them.

use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value, syntax::SyntaxConfig};
use serde::Serialize;
use serde_json::json;

use super::row::Message;
use crate::error::{Error, Result};

const NAME: &str = "chat_template";

/// A compiled chat template with the special tokens that it may write.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    special: Vec<(String, String)>,
    /// What the template writes for no conversation at all: a header that it appends unasked.
    unasked: String,
}

impl ChatTemplate {
    /// Compiles a template; `special` are variables like (`bos_token`, `<s>`).
    pub(super) fn new(source: &str, special: Vec<(String, String)>) -> Result<Self> {
        let compile = || -> std::result::Result<Environment<'static>, minijinja::Error> {
            let mut environment = Environment::new();
            environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
            environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
            environment.add_function("raise_exception", raise_exception);
            environment.add_function("strftime_now", strftime_now);
            environment.add_filter("tojson", to_json);
            environment.add_template_owned(NAME, without_generation_blocks(source))?;
            Ok(environment)
        };
        let environment = compile().map_err(|e| {
            Error::new(format!("the chat template is malformed: {}", describe(&e)))
                .help("fetch the file again, or mend the template")
        })?;
        let mut template = Self { environment, special, unasked: String::new() };
        // most templates refuse an empty conversation; those append nothing unasked
        if let Ok(text) = template.evaluate(&[], false) {
            let bos = template.special.iter().find(|(name, _)| name == "bos_token");
            let text = bos.and_then(|(_, bos)| text.strip_prefix(bos.as_str())).unwrap_or(&text);
            template.unasked = text.to_owned();
        }
        Ok(template)
    }

    /// The conversation as text. With `add_generation_prompt` it ends with the header of the answer to come;
    /// without, it ends with its last turn, also where the template appends that header unasked.
    pub(super) fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut text = self.evaluate(messages, add_generation_prompt).map_err(|e| {
            Error::new(format!("the chat template cannot render the conversation: {}", describe(&e)))
                .help("give the conversation the form that the template takes, or use `template: \"none\"`")
        })?;
        if !add_generation_prompt && text.ends_with(&self.unasked) {
            text.truncate(text.len() - self.unasked.len());
        }
        Ok(text)
    }

    fn evaluate(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> std::result::Result<String, minijinja::Error> {
        let mut context = json!({
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "tools": null,
            "documents": null,
        });
        for (name, token) in &self.special {
            context[name] = json!(token);
        }
        self.environment.get_template(NAME)?.render(Serde(context))
    }
}

fn describe(error: &minijinja::Error) -> String {
    let what = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The clock of templates stands still, so that a run gives the same bytes on every day: 26 July 2024, the
/// date that the Llama 3 templates fall back on.
fn strftime_now(format: String) -> std::result::Result<String, minijinja::Error> {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        text.push_str(match letters.next() {
            Some('d') => "26",
            Some('b') => "Jul",
            Some('B') => "July",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('H' | 'M' | 'S') => "00",
            Some('%') => "%",
            other => {
                let code = other.map_or_else(|| "%".to_owned(), |c| format!("%{c}"));
                let what = format!("strftime_now does not know `{code}`");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, what));
            }
        });
    }
    Ok(text)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: nothing is escaped for HTML.
fn to_json(
    value: Serde<serde_json::Value>,
    options: Kwargs,
) -> std::result::Result<String, minijinja::Error> {
    let fault = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false) {
        return Err(fault("tojson(ensure_ascii=true) is not supported".to_owned()));
    }
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let layout = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.0.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, layout))
        }
        None => value.0.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, OneLine)),
    };
    written.map_err(|e| fault(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| fault(e.to_string()))
}

/// Python's separators: `, ` and `: `.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// Turns `{% generation %}` … `{% endgeneration %}`, which only mark a span, into `{% if true %}` …
/// `{% endif %}`: the text and its white space stay the same.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|end| start + end) else { break };
        out.push_str(&rest[..start + 2]);
        let tag = &rest[start + 2..end];
        match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[end..];
    }
    out + rest
}
