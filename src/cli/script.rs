//! `raco script FILE`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Kind, Result};
use crate::script::{Host, Options};

use super::terminal::Terminal;
use super::work;

/// Runs a script and returns the exit code.
pub(super) fn run(lib: Vec<PathBuf>, file: PathBuf, args: Vec<String>) -> i32 {
    let program = std::env::current_exe().ok().map(OsString::from);
    let words = std::env::args_os().skip(1);
    let respawn = program.map(|program| std::iter::once(program).chain(words).collect());
    work::run(move |interrupt| host(lib, args, interrupt, respawn)?.run_file(&file).map(|_| 0))
}

/// A host that shows on the terminal.
///
/// `respawn` is the command line that runs the same script again.
pub(super) fn host(
    mut lib: Vec<PathBuf>,
    args: Vec<String>,
    interrupt: Arc<AtomicBool>,
    respawn: Option<Vec<OsString>>,
) -> Result<Host> {
    let args = split_lib(args, &mut lib)?;
    check_lib(&lib)?;
    Host::new(Options { lib, args, console: Rc::new(Terminal::new()), interrupt, respawn })
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
