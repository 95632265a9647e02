//! `raco repl`: a prompt over one growing script.

mod commands;
mod helper;
mod scan;

use std::cell::RefCell;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor};

use crate::error::{Error, Result, io_error};
use crate::script::{Failure, Live};

use super::{render, script, work};
use helper::Prompt;

/// What takes longer is told.
const SLOW: Duration = Duration::from_millis(100);

/// Runs the prompt and returns the exit code.
pub(super) fn run(lib: Vec<PathBuf>, file: Option<PathBuf>, args: Vec<String>) -> i32 {
    work::run(move |interrupt| {
        let live = Live::new(script::host(lib, args, interrupt.clone(), None)?);
        Repl { live: Rc::new(RefCell::new(live)), interrupt }.run(file).map(|()| 0)
    })
}

struct Repl {
    live: Rc<RefCell<Live>>,
    interrupt: Arc<AtomicBool>,
}

impl Repl {
    fn run(&self, file: Option<PathBuf>) -> std::result::Result<(), Failure> {
        let terminal = std::io::stdin().is_terminal();
        if let Some(file) = file {
            let outcome = self.live.borrow_mut().run_file(&file).map(drop);
            match outcome {
                Err(failure) if terminal => render::show(&failure),
                outcome => outcome?,
            }
        }
        if terminal { Ok(self.talk()?) } else { self.read() }
    }

    /// Without a terminal, what comes in is a script.
    fn read(&self) -> std::result::Result<(), Failure> {
        let mut text = String::new();
        let failed = |e: std::io::Error| Error::new(format!("cannot read the input: {e}"));
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        self.live.borrow_mut().run(&text).map(drop)
    }

    fn talk(&self) -> Result<()> {
        // what is typed here may write here
        self.live.borrow().host().session().sandbox.borrow_mut().allow(Path::new("."));
        let colour = render::colour_is_welcome();
        let config = Config::builder()
            .auto_add_history(true)
            .completion_type(CompletionType::List)
            .color_mode(if colour { ColorMode::Enabled } else { ColorMode::Disabled })
            .tab_stop(4)
            .indent_size(4)
            .build();
        let failed = |e: ReadlineError| Error::new(format!("cannot use the terminal: {e}"));
        let mut editor: Editor<Prompt, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Prompt::new(self.live.clone(), colour)));
        let history = history();
        if let Some(path) = history.as_ref().filter(|path| path.exists()) {
            editor.load_history(path).map_err(failed)?;
        }
        say(&format!(
            "raco {}   :help tells what there is, :quit or Ctrl-D leaves",
            env!("CARGO_PKG_VERSION")
        ));
        loop {
            match editor.readline("raco> ") {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    self.interrupt.store(false, Ordering::SeqCst);
                    if let Some(command) = line.trim().strip_prefix(':') {
                        match commands::run(&mut self.live.borrow_mut(), command) {
                            Ok(true) => {}
                            Ok(false) => break,
                            Err(failure) => render::show(&failure),
                        }
                    } else {
                        self.evaluate(&line);
                    }
                    if let Some(helper) = editor.helper() {
                        helper.refresh();
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(failed(error)),
            }
        }
        if let Some(path) = &history {
            editor.save_history(path).map_err(|e| {
                Error::new(format!("cannot write the history: {e}"))
                    .in_file(path)
                    .help("make its folder writable")
            })?;
        }
        Ok(())
    }

    fn evaluate(&self, line: &str) {
        let begun = Instant::now();
        let mut live = self.live.borrow_mut();
        match live.run(line) {
            Ok(value) if value.is_unit() => {}
            Ok(value) => say(&live.show(value)),
            Err(failure) => render::show(&failure),
        }
        let taken = begun.elapsed();
        if taken > SLOW {
            say(&format!("({:.2} s)", taken.as_secs_f64()));
        }
    }
}

/// The history file of the user; its folder is made.
fn history() -> Option<PathBuf> {
    let folder = match std::env::var_os("RACO_CACHE").filter(|v| !v.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => dirs::cache_dir()?.join("raco"),
    };
    std::fs::create_dir_all(&folder)
        .map_err(|e| io_error(&e, "make the folder of the history", &folder))
        .ok()?;
    Some(folder.join("history.txt"))
}

fn say(text: &str) {
    // a closed terminal has nobody left to tell
    let _ = writeln!(std::io::stdout(), "{text}");
}
