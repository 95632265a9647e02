//! From Rhai's errors to ours: what went wrong, the call stack with its sources, and what mends it.

use std::fmt;

use rhai::{Dynamic, Engine, EvalAltResult, Map, ParseErrorType, Position};

use crate::error::{Error, Kind, panic_text};

use super::suggest;

/// A script that did not come to its end.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What went wrong and how to mend it.
    pub error: Error,
    /// Where, from the script's own line inwards.
    pub frames: Vec<Frame>,
}

/// A place in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Name of the source: the script's path, a module's path, `stdlib/…`.
    pub source: String,
    /// 1-based line.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
    /// The function or import that this place enters; empty where the error itself arose.
    pub enters: String,
    /// The whole text of the source.
    pub text: String,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(frame) = self.frames.last() {
            write!(f, "{frame}: ")?;
        }
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, frames: Vec::new() }
    }
}

/// Reads Rhai's error; `main` is the name of the source that was run.
pub(crate) fn explain(
    engine: &Engine,
    sources: &[(String, String)],
    main: &str,
    error: EvalAltResult,
) -> Failure {
    let mut frames = Vec::new();
    let mut source = main.to_owned();
    let mut error = error;
    let mut push = |source: &str, pos: Position, enters: String| {
        let text = sources.iter().find(|(name, _)| name == source).map(|(_, text)| text);
        if let (Some(line), Some(text)) = (pos.line(), text) {
            let column = pos.position().unwrap_or(1);
            frames.push(Frame { source: source.to_owned(), line, column, enters, text: text.clone() });
        }
    };
    loop {
        error = match error {
            EvalAltResult::ErrorInFunctionCall(name, inside, inner, pos) => {
                let anonymous = name.starts_with("anon$");
                push(&source, pos, if anonymous { "a closure".into() } else { format!("`{name}`") });
                if !inside.is_empty() {
                    source = inside;
                }
                *inner
            }
            EvalAltResult::ErrorInModule(name, inner, pos) => {
                push(&source, pos, format!("the import of `{name}`"));
                source = name;
                *inner
            }
            other => break error = other,
        };
    }
    push(&source, error.position(), String::new());
    let error = describe(engine, sources, error);
    Failure { error, frames }
}

fn describe(engine: &Engine, sources: &[(String, String)], mut error: EvalAltResult) -> Error {
    use EvalAltResult as E;
    error.set_position(Position::NONE);
    match error {
        E::ErrorRuntime(token, _) => thrown(token),
        E::ErrorTerminated(token, _) => {
            token.try_cast::<Error>().unwrap_or_else(|| Error::interrupted("the script was stopped"))
        }
        E::ErrorParsing(kind, _) => syntax(sources, &kind),
        E::ErrorFunctionNotFound(signature, _) => {
            let (what, help) = suggest::function(engine, sources, &signature);
            let error = Error::new(what);
            match help {
                Some(help) => error.help(help),
                None => error,
            }
        }
        E::ErrorVariableNotFound(name, _) => variable(sources, &name),
        E::ErrorPropertyNotFound(name, _) => near(
            Error::new(format!("the map has no key `{name}`")),
            sources,
            &name,
            "test for it with `\"key\" in map`",
        ),
        E::ErrorDotExpr(text, _) => property(&text),
        E::ErrorModuleNotFound(name, _) => {
            Error::new(format!("module `{name}` not found")).help("write `import \"path\" as name;` above")
        }
        E::ErrorStackOverflow(_) => Error::new(format!(
            "functions call each other more than {} levels deep",
            engine.max_call_levels()
        ))
        .help("let the recursion end, or use a loop"),
        E::ErrorDataTooLarge(what, _) => {
            Error::new(format!("{} is past the limit of a script", lower(&what)))
                .help("keep less in memory at once: write rows to a file, or let host types hold them")
        }
        E::ErrorTooManyVariables(_) => Error::new("too many variables").help("use an array or a map"),
        E::ErrorSystem(text, inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) if text.is_empty() => Error::new(lower(&inner.to_string())),
            Err(inner) => Error::new(format!("{}: {inner}", lower(&text))),
        },
        other => Error::new(lower(&other.to_string())),
    }
}

/// Rhai's text is `Unknown property 'x' - a getter is not registered for type 'T'`.
fn property(text: &str) -> Error {
    let parts: Vec<&str> = text.split('\'').collect();
    let error = match parts[..] {
        ["Unknown property ", name, _, kind, ..] => {
            Error::new(format!("{} has no property `{name}`", plain_type(kind)))
        }
        _ => Error::new(lower(text)),
    };
    error.help("see what the value is with `print(value)`; methods need brackets: `value.name()`")
}

fn plain_type(name: &str) -> &str {
    match name {
        "i64" => "int",
        "f64" => "float",
        name => name.rsplit("::").next().unwrap_or(name),
    }
}

fn thrown(token: Dynamic) -> Error {
    let token = match token.try_cast_result::<Error>() {
        Ok(error) => return error,
        Err(token) => token,
    };
    if let Some(map) = token.read_lock::<Map>()
        && let Some(what) = map.get("what")
    {
        let error = Error::new(what.to_string());
        return match map.get("help") {
            Some(help) => error.help(help.to_string()),
            None => error,
        };
    }
    if token.is_unit() {
        Error::new("the script threw an error without text")
    } else {
        Error::new(token.to_string())
    }
}

fn syntax(sources: &[(String, String)], kind: &ParseErrorType) -> Error {
    match kind {
        ParseErrorType::VariableUndefined(name) => variable(sources, name),
        ParseErrorType::ModuleUndefined(name) => near(
            Error::new(format!("module `{name}` is not imported")),
            sources,
            name,
            &format!("write `import \"path\" as {name};` above"),
        ),
        ParseErrorType::Reserved(name) => {
            Error::new(format!("`{name}` is a reserved word")).help("choose another name")
        }
        ParseErrorType::WrongDocComment => {
            Error::new("`///` stands before something that is no function").help("use `//` there")
        }
        ParseErrorType::ExprTooDeep => Error::new("the expression is nested too deeply")
            .help("split it with variables, functions or a loop"),
        kind => Error::new(lower(&kind.to_string())).help("look at the mark and just before it"),
    }
}

fn variable(sources: &[(String, String)], name: &str) -> Error {
    near(
        Error::new(format!("variable `{name}` not found")),
        sources,
        name,
        "functions see no outer variables: pass it as an argument, or use a `const` through `global::`",
    )
}

fn near(error: Error, sources: &[(String, String)], name: &str, otherwise: &str) -> Error {
    match suggest::word(sources, name) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(otherwise),
    }
}

/// Rhai's own texts begin with a capital letter.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// A panic of the host, caught.
pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Error {
    let text = panic_text(payload);
    Error::with_kind(Kind::Internal, format!("raco itself failed: {text}"))
        .help("please report it with the script; files already written are whole")
}
