//! The prompt of a script that is paused.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, stdin};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::script::{Frame, KEYWORDS, Live, Pause, Reason, Then};

use super::commands::{self, AT_PAUSE};
use super::scan::scan;
use super::{Editor, evaluate, render, say};

/// Lines of the source before and after the place.
const AROUND: usize = 5;

/// Talks with the user where a script is paused.
pub(in crate::cli) struct Paused {
    interrupt: Arc<AtomicBool>,
    /// The input is at its end, where it is no terminal.
    ended: RefCell<bool>,
}

/// Where lines come from.
enum Input<'e> {
    Terminal(Box<Editor<'e>>),
    Pipe,
}

impl Paused {
    pub fn new(interrupt: Arc<AtomicBool>) -> Self {
        Self { interrupt, ended: RefCell::new(false) }
    }

    /// Opens the prompt; a terminal that cannot be used is told, and the script goes on.
    pub fn talk(&self, pause: &Pause<'_>) -> Then {
        if *self.ended.borrow() {
            return Then::Continue;
        }
        // what is typed here may write here, the script may not
        let session = pause.live.borrow().session().clone();
        let sandbox = session.sandbox.borrow().clone();
        session.sandbox.borrow_mut().allow(Path::new("."));
        let then = self.ask(pause);
        session.sandbox.replace(sandbox);
        then.unwrap_or_else(|error| {
            render::show(&error.into());
            Then::Continue
        })
    }

    fn ask(&self, pause: &Pause<'_>) -> Result<Then> {
        say(&format!("{}\n{}", told(pause), lines(&pause.place, 0)));
        let mut input = if stdin().is_terminal() {
            Input::Terminal(Box::new(Editor::new(pause.live.clone(), &AT_PAUSE)?))
        } else {
            Input::Pipe
        };
        let then = loop {
            let line = match &mut input {
                Input::Terminal(editor) => editor.line("paused> ")?,
                Input::Pipe => piped()?,
            };
            let Some(line) = line else {
                self.ended.replace(matches!(input, Input::Pipe));
                break Then::Continue;
            };
            self.interrupt.store(false, Ordering::SeqCst);
            let Some(command) = line.trim().strip_prefix(':') else {
                evaluate(&mut pause.live.borrow_mut(), &line);
                self.interrupt.store(false, Ordering::SeqCst);
                continue;
            };
            match commands::split(command).0 {
                "step" | "s" => break Then::Step,
                "next" | "n" => break Then::Next,
                "continue" | "c" => break Then::Continue,
                "quit" | "q" => break Then::Quit,
                "where" | "w" => say(&lines(&pause.place, AROUND)),
                _ => look(&pause.live.borrow(), command),
            }
        };
        if let Input::Terminal(editor) = input {
            editor.close()?;
        }
        Ok(then)
    }
}

fn look(live: &Live, command: &str) {
    if let Err(error) = commands::look(live, command, &AT_PAUSE) {
        render::show(&error.into());
    }
}

/// The next lines of a pipe that make up a whole; `None` at its end.
fn piped() -> Result<Option<String>> {
    let mut text = String::new();
    loop {
        let read = stdin().lock().read_line(&mut text);
        let read = read.map_err(|e| Error::new(format!("cannot read the input: {e}")))?;
        let unfinished = !text.trim_start().starts_with(':') && scan(&text, &KEYWORDS).unfinished;
        if read == 0 || !text.trim().is_empty() && !unfinished {
            return Ok(Some(text).filter(|text| !text.trim().is_empty()));
        }
    }
}

fn told(pause: &Pause<'_>) -> String {
    let why = match pause.reason {
        Reason::Breakpoint => "breakpoint",
        Reason::Condition => "the condition holds",
        Reason::Request => "paused",
        Reason::Step => return format!("at {}", pause.place),
    };
    format!("{why} at {}   :help tells more, :continue goes on", pause.place)
}

/// The line of a place, marked, with so many lines around it.
fn lines(place: &Frame, around: usize) -> String {
    let (first, last) = (place.line.saturating_sub(around).max(1), place.line + around);
    let shown = place.text.lines().enumerate().skip(first - 1).take(last + 1 - first);
    let line = |(i, text): (usize, &str)| {
        let mark = if i + 1 == place.line { '>' } else { ' ' };
        format!("{mark}{:5} | {text}", i + 1).trim_end().to_owned()
    };
    shown.map(line).collect::<Vec<_>>().join("\n")
}
