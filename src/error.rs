//! One error for the whole program: what went wrong, where, and the one act that mends it.
//!
//! An error is built low, as data; each layer above adds the place it knows; it is rendered once, by the
//! command line.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// `std::result::Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Data, a model, a script or an argument is wrong.
    User,
    /// The command line is wrong.
    Usage,
    /// The user stopped the run.
    Interrupted,
    /// raco itself is wrong.
    Internal,
}

impl Kind {
    /// The process exit code of this kind of error.
    pub fn exit_code(self) -> i32 {
        match self {
            Kind::User => 1,
            Kind::Usage => 2,
            Kind::Interrupted => 130,
            Kind::Internal => 70,
        }
    }
}

/// Where it went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, with the 1-based line and column where they are known.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: Option<usize>,
        /// Column, from 1.
        column: Option<usize>,
    },
    /// A tensor of a model, by its name in the weights file.
    Tensor(String),
    /// A key of a configuration or options map.
    Key(String),
    /// An optimiser step, counted from 0.
    Step(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line, column } => {
                write!(f, "{}", path.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if let Some(column) = column {
                    write!(f, ":{column}")?;
                }
                Ok(())
            }
            Place::Tensor(name) => write!(f, "tensor `{name}`"),
            Place::Key(name) => write!(f, "key `{name}`"),
            Place::Step(step) => write!(f, "step {step}"),
        }
    }
}

/// What, where, and how to mend it.
///
/// `what` is lower case, quotes values in backticks, says what was expected and what was found, and has no
/// full stop. `help` is one act that mends it.
#[derive(Debug, Clone)]
pub struct Error(Box<Report>);

#[derive(Debug, Clone)]
struct Report {
    kind: Kind,
    what: String,
    places: Vec<Place>,
    help: Option<String>,
}

impl Error {
    /// An error that the user can mend.
    pub fn new(what: impl Into<String>) -> Self {
        Self::with_kind(Kind::User, what)
    }

    /// A fault of raco itself.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::with_kind(Kind::Internal, what)
    }

    /// The user stopped the run.
    pub fn interrupted(what: impl Into<String>) -> Self {
        Self::with_kind(Kind::Interrupted, what)
    }

    /// An error of the given kind.
    pub fn with_kind(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Report { kind, what: what.into(), places: Vec::new(), help: None }))
    }

    /// Adds a place; the innermost place comes first.
    pub fn at(mut self, place: Place) -> Self {
        self.0.places.push(place);
        self
    }

    /// Adds a file as the place.
    pub fn in_file(self, path: impl AsRef<Path>) -> Self {
        self.at(Place::File { path: path.as_ref().to_owned(), line: None, column: None })
    }

    /// Adds a line of a file as the place; `line` counts from 1.
    pub fn at_line(self, path: impl AsRef<Path>, line: usize) -> Self {
        self.at(Place::File { path: path.as_ref().to_owned(), line: Some(line), column: None })
    }

    /// Sets the one act that mends it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What went wrong.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Where, innermost first.
    pub fn places(&self) -> &[Place] {
        &self.0.places
    }

    /// The act that mends it.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.0.what)?;
        if let Some(help) = &self.0.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Names the file in what the operating system said.
pub fn io_error(error: &std::io::Error, doing: &str, path: impl AsRef<Path>) -> Error {
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => "check the path",
        std::io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
        std::io::ErrorKind::StorageFull => "free some space, or choose a folder on another disk",
        _ => "check the path, its permissions and the free space on its disk",
    };
    Error::new(format!("cannot {doing}: {error}")).in_file(path).help(help)
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a reader of another crate, which may panic on broken input: its panic is an `Err` with the message.
pub(crate) fn contained<T>(read: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let before = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    CONTAINED.set(before);
    outcome.map_err(|payload| panic_text(&*payload).to_owned())
}

/// True inside a reader whose panic is expected: a panic hook has nothing to say then.
pub fn panic_is_contained() -> bool {
    CONTAINED.get()
}

/// The message of a caught panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// The valid names nearest to a mistyped one, nearest first; for `did you mean` and for listing.
pub fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(f64, &str)> = valid
        .into_iter()
        .map(|v| (strsim::jaro_winkler(&name.to_lowercase(), &v.to_lowercase()), v))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, v)| v).collect()
}
