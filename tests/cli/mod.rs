//! The program as a user starts it: exact messages, exit codes, Ctrl-C and kill.

mod adapter;
mod bad_input;
mod bad_scripts;
mod check_script;
mod errors;
mod hub;
mod own_method;
mod pause;
mod repl;
mod report;
mod resume;
mod sweep;
mod watch;

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `raco script FILE …` in `folder`, with a cache of its own.
fn raco(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raco"));
    command
        .current_dir(folder)
        .env("RACO_CACHE", folder.join("cache"))
        .env("RAYON_NUM_THREADS", "2")
        .stdin(Stdio::null())
        .arg("script")
        .args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes a script and runs it with more arguments.
fn run(source: &str, args: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), source).unwrap();
    let args: Vec<&str> = std::iter::once("a.rhai").chain(args.iter().copied()).collect();
    (raco(folder.path(), &args).output().unwrap(), folder)
}

/// Sends SIGINT, as Ctrl-C does.
fn interrupt(child: &std::process::Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}
