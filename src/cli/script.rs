//! `raco script FILE`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;

use crate::error::{Error, Kind, Result};
use crate::script::{Host, Options, Pauses, works_for_a_sweep};

use super::repl::Paused;
use super::terminal::Terminal;
use super::work::{self, Signals};

/// What the program itself takes with a script; also from among the script's arguments.
#[derive(Args, Default)]
pub(super) struct Own {
    /// A folder with modules of your own, searched after the script's folder; may be repeated.
    #[arg(long, value_name = "DIR")]
    pub lib: Vec<PathBuf>,
    /// Ctrl-C pauses the script at its next statement and opens a prompt there; a second one stops it.
    #[arg(long)]
    pub pause: bool,
    /// Reads imported modules and aggregators of yours anew between two steps when their files change.
    #[arg(long)]
    pub watch: bool,
    /// Opens a prompt after each step whose row of the log meets a condition, such as "cosine < -0.3".
    #[arg(long, value_name = "CONDITION")]
    pub break_when: Option<String>,
}

/// Runs a script and returns the exit code.
pub(super) fn run(mut own: Own, file: PathBuf, args: Vec<String>) -> i32 {
    let args = own.take_from(args);
    let pause = own.pause;
    let program = std::env::current_exe().ok().map(OsString::from);
    let words = std::env::args_os().skip(1);
    let respawn = program.map(|program| std::iter::once(program).chain(words).collect());
    work::run(pause, move |signals| {
        let mut host = host(own, args?, &signals, respawn)?;
        if pause {
            host.pause_anywhere();
        } else {
            host.arm_for(&file);
        }
        host.run_file(&file).map(|_| 0)
    })
}

/// A host that shows on the terminal, and opens its prompt where a script pauses.
///
/// `respawn` is the command line that runs the same script again.
pub(super) fn host(
    own: Own,
    args: Vec<String>,
    signals: &Signals,
    respawn: Option<Vec<OsString>>,
) -> Result<Host> {
    let Own { lib, watch, break_when: when, .. } = own;
    check_lib(&lib)?;
    let paused = Paused::new(signals.interrupt.clone());
    let pauses =
        Pauses { prompt: Rc::new(move |pause| paused.talk(pause)), request: signals.pause.clone(), when };
    let interrupt = signals.interrupt.clone();
    // the input of a process that works for a sweep is not a user's
    let pauses = (!works_for_a_sweep()).then_some(pauses);
    Host::new(Options { lib, args, console: Rc::new(Terminal::new()), interrupt, watch, respawn, pauses })
}

impl Own {
    /// Takes what is meant for the program from among the script's arguments.
    ///
    /// # Errors
    /// An option without its value.
    pub fn take_from(&mut self, args: Vec<String>) -> Result<Vec<String>> {
        let mut rest = Vec::new();
        let mut words = args.into_iter();
        while let Some(word) = words.next() {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = |wanted: &str| {
                value.clone().or_else(|| words.next()).ok_or_else(|| {
                    usage(format!("`{key}` stands without a value")).help(format!("write `{key} {wanted}`"))
                })
            };
            match key {
                "--lib" => self.lib.push(value("DIR")?.into()),
                "--break-when" => self.break_when = Some(value("\"cosine < -0.3\"")?),
                "--pause" if word == key => self.pause = true,
                "--watch" if word == key => self.watch = true,
                _ => rest.push(word),
            }
        }
        Ok(rest)
    }
}

/// Fails where a `--lib` is no folder.
pub(super) fn check_lib(lib: &[PathBuf]) -> Result<()> {
    match lib.iter().find(|folder| !folder.is_dir()) {
        Some(folder) => Err(usage(format!("`--lib {}` is not a folder", folder.display()))
            .help("give the folder that holds the modules")),
        None => Ok(()),
    }
}

fn usage(what: impl Into<String>) -> Error {
    Error::with_kind(Kind::Usage, what)
}
