//! The prompt: piped input is a script; in a pseudo-terminal it talks.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

#[test]
fn piped_input_is_a_script() {
    let cache = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_raco"))
        .arg("repl")
        .env("RACO_CACHE", cache.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"let x = 3;\nprint(x + 1);\nx.boom()\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("function `boom` with (int) not found"));
}

#[test]
fn a_terminal_has_a_prompt_that_goes_on_after_errors() {
    // of this terminal no size is known
    let mut talk = Talk::new("");
    talk.until("raco> ").say("let x = 20\r").until("\n").until("raco> ");
    talk.say("x.boom()\r").until("function `boom` with (int) not found").until("raco> ");
    talk.say("x + 1\r").until("\n21\r\n").until("raco> ");
    talk.say(":who\r").until("x  int: 20").until("raco> ");
    talk.say(":help clip\r").until("min(p, w) elementwise, not renormalised.").until("raco> ");
    talk.say(":hlp\r").until("unknown command `:hlp`").until("did you mean `:help`?").until("raco> ");
    talk.say(":quit\r").ends();
}

/// A prompt in a pseudo-terminal that is answered as it speaks.
struct Talk {
    child: Child,
    input: ChildStdin,
    heard: Receiver<Vec<u8>>,
    text: String,
    /// What was waited for lies before.
    at: usize,
    _cache: tempfile::TempDir,
}

impl Talk {
    /// `before` is a shell command.
    fn new(before: &str) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let program = format!("{before} exec {} repl", env!("CARGO_BIN_EXE_raco"));
        let mut child = Command::new("script")
            .args(["-qec", &program, "/dev/null"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("RACO_CACHE", cache.path())
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, heard) = channel();
        let mut output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take().unwrap();
        Self { child, input, heard, text: String::new(), at: 0, _cache: cache }
    }

    /// The program has come to a good end.
    fn ends(&mut self) {
        assert!(self.child.wait().unwrap().success(), "{}", self.text);
    }

    fn say(&mut self, keys: &str) -> &mut Self {
        self.input.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Waits for a text after the last one.
    fn until(&mut self, text: &str) -> &mut Self {
        loop {
            if let Some(found) = self.text[self.at..].find(text) {
                self.at += found + text.len();
                return self;
            }
            match self.heard.recv_timeout(Duration::from_secs(120)) {
                Ok(bytes) => self.text += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("`{text}` does not come ({error}):\n{}", &self.text),
            }
        }
    }
}

/// The session of `docs/guide/inspecting-conflicts.md` in short, by hand.
#[test]
fn the_session_of_the_guide_can_be_typed() {
    let mut talk = Talk::new("stty cols 100 rows 40;");
    talk.until("raco> ").say("let lab = lab(\"summaries\");\r").until(" s)").until("raco> ");
    // Tab completes a member, and a function
    talk.say("lab.grad\t").until("lab.gradients").say(".objectives\r");
    talk.until("[\"quality\", \"brevity\"]").until("raco> ");
    talk.say("conf\t").until("conflicts(").say("lab.gradients)\r");
    talk.until("│ quality · brevity ┆").until("raco> ");
    // a line that is not complete goes on
    talk.say("let half = aggregator(|h, w, options| {\r    let p = min_norm_point(h).p;\r");
    talk.say("    #{ alpha: added(scaled(w, 0.5), scaled(p, 0.5)), p: p }\r}, #{}); print(\"made\");\r");
    // what is typed while a line runs may be lost
    talk.until("made\r\n").until("raco> ").say("half.name\r").until("\nclosure\r\n").until("raco> ");
    // Ctrl-C ends what runs, and nothing else
    talk.say("print(\"begun\"); loop { let x = 1; }\r").until("begun\r\n").say("\x03");
    talk.until("note: stopped by Ctrl-C").until("raco> ");
    talk.say("compare([\"linear\", half], lab.gradients, lab.weights)\r");
    talk.until("│ linear ").until("│ closure ").until("raco> ");
    talk.say("lab.gradients.cosin(0, 1)\r").until("did you mean").until("raco> ");
    assert!(talk.text.contains("1 | lab.gradients.cosin(0, 1)\r\n  |               ^^^^^"), "{}", talk.text);
    talk.say(":help conflicts\r").until("conflicts(gradients, by)").until("raco> ");
    let help = talk.text.rsplit(":help conflicts").next().unwrap();
    assert!(help.lines().all(|line| line.trim_end().chars().count() <= 100), "{help}");
    // a function of the prompt pauses at a prompt within it
    talk.say("fn f(a) { breakpoint(); a + 1 }\r").until("raco> ");
    talk.say("f(3)\r").until("breakpoint at [").until("paused> ").say("a = 41\r").until("paused> ");
    talk.say(":continue\r").until("\n42\r\n").until("raco> ").say(":quit\r").ends();
}
