//! `raco repl`: a prompt over one growing script.

mod commands;
mod helper;
mod pause;
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
use rustyline::{ColorMode, CompletionType, Config};

use crate::error::{Error, Result, io_error};
use crate::script::{Failure, Live};

use super::script::Own;
use super::{render, script, work};
use commands::{COMMANDS, Command, Outcome};
use helper::Prompt;
pub(super) use pause::Paused;

/// What takes longer is told.
const SLOW: Duration = Duration::from_millis(100);

/// Runs the prompt and returns the exit code.
pub(super) fn run(lib: Vec<PathBuf>, file: Option<PathBuf>, args: Vec<String>) -> i32 {
    work::run(false, move |signals| {
        let mut own = Own { lib, ..Own::default() };
        let args = own.take_from(args)?;
        let live = Live::new(script::host(own, args, &signals, None)?);
        let live = Rc::new(RefCell::new(live));
        Repl { live, interrupt: signals.interrupt }.run(file).map(|()| 0)
    })
}

struct Repl {
    live: Rc<RefCell<Live<'static>>>,
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
        self.live.borrow().session().sandbox.borrow_mut().allow(Path::new("."));
        say(&format!(
            "raco {}   :help tells what there is, :quit or Ctrl-D leaves",
            env!("CARGO_PKG_VERSION")
        ));
        let mut editor = Editor::new(self.live.clone(), &COMMANDS)?;
        while let Some(line) = editor.line("raco> ")? {
            self.interrupt.store(false, Ordering::SeqCst);
            if let Some(command) = line.trim().strip_prefix(':') {
                match commands::run(&mut self.live.borrow_mut(), command) {
                    Ok(Outcome::Stay) => {}
                    Ok(Outcome::Leave) => break,
                    Err(failure) => render::show(&failure),
                }
            } else {
                evaluate(&mut self.live.borrow_mut(), &line);
            }
        }
        editor.close()
    }
}

/// Evaluates a line and shows its value, or what is wrong with it.
fn evaluate(live: &mut Live, line: &str) {
    let begun = Instant::now();
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

/// Lines from a terminal, with a history that outlives the program.
struct Editor<'e> {
    editor: rustyline::Editor<Prompt<'e>, DefaultHistory>,
    history: Option<PathBuf>,
}

fn failed(error: ReadlineError) -> Error {
    Error::new(format!("cannot use the terminal: {error}"))
}

impl<'e> Editor<'e> {
    fn new(live: Rc<RefCell<Live<'e>>>, commands: &'static [Command]) -> Result<Self> {
        let colour = render::colour_is_welcome();
        let config = Config::builder()
            .auto_add_history(true)
            .completion_type(CompletionType::List)
            .color_mode(if colour { ColorMode::Enabled } else { ColorMode::Disabled })
            .tab_stop(4)
            .indent_size(4)
            .build();
        let mut editor = rustyline::Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Prompt::new(live, commands, colour)));
        let history = history();
        if let Some(path) = history.as_ref().filter(|path| path.exists()) {
            editor.load_history(path).map_err(failed)?;
        }
        Ok(Self { editor, history })
    }

    /// The next line that says something; `None` at the end of the input.
    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        if let Some(helper) = self.editor.helper() {
            helper.refresh();
        }
        loop {
            match self.editor.readline(prompt) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Ok(Some(line)),
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn close(mut self) -> Result<()> {
        let Some(path) = &self.history else { return Ok(()) };
        self.editor.save_history(path).map_err(|e| {
            Error::new(format!("cannot write the history: {e}"))
                .in_file(path)
                .help("make its folder writable")
        })
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
