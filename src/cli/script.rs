//! `raco script FILE`.

use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result};
use crate::script::{Failure, Host, Options};

use super::render;
use super::terminal::Terminal;

/// Stack of the script's thread: deep recursion in a script is an error long before this is used up.
const STACK_BYTES: usize = 512 << 20;

/// Runs a script and returns the exit code.
pub(super) fn run(lib: Vec<PathBuf>, file: PathBuf, args: Vec<String>) -> i32 {
    let interrupt = Arc::new(AtomicBool::new(false));
    let outcome = listen(&interrupt).map_err(Failure::from).and_then(|()| {
        let work = move || script(lib, file, args, interrupt);
        let thread = std::thread::Builder::new().name("script".into()).stack_size(STACK_BYTES).spawn(work);
        let thread = thread.map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the script's thread failed").into()))
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            render::show(&failure);
            failure.error.kind().exit_code()
        }
    }
}

fn script(
    mut lib: Vec<PathBuf>,
    file: PathBuf,
    args: Vec<String>,
    interrupt: Arc<AtomicBool>,
) -> std::result::Result<(), Failure> {
    // the message itself is reported by `render`, with what a user can do about it
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), ToString::to_string);
        let _ = writeln!(std::io::stderr(), "panic at {place}");
    }));
    let args = split_lib(args, &mut lib)?;
    if let Some(folder) = lib.iter().find(|folder| !folder.is_dir()) {
        return Err(usage(format!("`--lib {}` is not a folder", folder.display()))
            .help("give the folder that holds the modules")
            .into());
    }
    let host = Host::new(Options { lib, args, console: Rc::new(Terminal::new()), interrupt })?;
    host.run_file(&file).map(drop)
}

/// Takes `--lib DIR` from among the script's arguments.
fn split_lib(args: Vec<String>, lib: &mut Vec<PathBuf>) -> Result<Vec<String>> {
    let mut rest = Vec::new();
    let mut words = args.into_iter();
    while let Some(word) = words.next() {
        match word.strip_prefix("--lib") {
            Some("") => match words.next() {
                Some(folder) => lib.push(folder.into()),
                None => return Err(usage("`--lib` stands without a folder").help("write `--lib DIR`")),
            },
            Some(folder) if folder.starts_with('=') => lib.push(folder[1..].into()),
            _ => rest.push(word),
        }
    }
    Ok(rest)
}

fn usage(what: impl Into<String>) -> Error {
    Error::with_kind(Kind::Usage, what)
}

/// The first Ctrl-C asks the script to stop, the second stops the program.
fn listen(interrupt: &Arc<AtomicBool>) -> Result<()> {
    let flag = interrupt.clone();
    let handler = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(Kind::Interrupted.exit_code());
        }
        // the bar may be half drawn: begin on a line of its own
        let _ = writeln!(std::io::stderr(), "\nstopping at the next safe point; Ctrl-C again stops at once");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::internal(format!("cannot listen for Ctrl-C: {e}")))
}
