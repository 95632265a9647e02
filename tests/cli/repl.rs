//! The prompt: piped input is a script; in a pseudo-terminal it talks.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Runs the command with these lines; a terminal is typed at, one line after another.
fn with_input(mut command: Command, lines: &str, pause: Duration) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let mut child = command
        .env("RACO_CACHE", cache.path())
        .env("NO_COLOR", "1")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines.split_inclusive('\n') {
        std::thread::sleep(pause);
        input.write_all(line.as_bytes()).unwrap();
    }
    std::thread::sleep(pause);
    drop(input);
    child.wait_with_output().unwrap()
}

#[test]
fn piped_input_is_a_script() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raco"));
    command.arg("repl");
    let output = with_input(command, "let x = 3;\nprint(x + 1);\nx.boom()\n", Duration::ZERO);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("function `boom` with (int) not found"));
}

#[test]
fn a_terminal_has_a_prompt_that_goes_on_after_errors() {
    let mut command = Command::new("script");
    command.args(["-qec", concat!(env!("CARGO_BIN_EXE_raco"), " repl"), "/dev/null"]);
    let lines = "let x = 20\nx.boom()\nx + 1\n:who\n:help clip\n:hlp\n:quit\n".replace('\n', "\r\n");
    let output = with_input(command, &lines, Duration::from_millis(400));
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "function `boom` with (int) not found",
        "21",
        "x  int: 20",
        "min(p, w) elementwise, not renormalised.",
        "unknown command `:hlp`",
        "did you mean `:help`?",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in: {text}");
    }
    assert!(output.status.success(), "{text}");
}
