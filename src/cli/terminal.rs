//! The console of a terminal, or of a pipe: a progress bar, or plain lines now and then.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::script::Console;

/// Without a terminal, a progress line is written at most this often.
const QUIET: Duration = Duration::from_secs(5);

/// Of a terminal that does not tell.
const COLUMNS: u16 = 80;

/// Text goes to stdout, progress to stderr.
pub(super) struct Terminal {
    interactive: bool,
    columns: Option<usize>,
    bar: RefCell<Option<ProgressBar>>,
    spoken: Cell<Option<Instant>>,
}

impl Terminal {
    pub fn new() -> Self {
        // a terminal may not know its size, or say 0
        let known = || comfy_table::Table::new().width().filter(|columns| *columns > 0);
        let columns = std::io::stdout().is_terminal().then(|| known().unwrap_or(COLUMNS));
        Self {
            interactive: std::io::stderr().is_terminal(),
            columns: columns.map(usize::from),
            bar: RefCell::new(None),
            spoken: Cell::new(None),
        }
    }

    fn draw(&self, done: usize, total: usize, message: &str) {
        let mut bar = self.bar.borrow_mut();
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:12.cyan} {pos}/{len} {eta} {wide_msg}");
            let bar = ProgressBar::new(total as u64);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(message.to_owned());
    }
}

impl Console for Terminal {
    fn print(&self, text: &str) {
        let write = || {
            // a closed pipe ends the output, not the run
            let _ = writeln!(std::io::stdout(), "{text}");
        };
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn progress(&self, done: usize, total: usize, message: &str) {
        if self.interactive {
            return self.draw(done, total, message);
        }
        let due = self.spoken.get().is_none_or(|last| last.elapsed() >= QUIET);
        if due || done == total {
            self.spoken.set(Some(Instant::now()));
            let _ = writeln!(std::io::stderr(), "{done}/{total} {message}");
        }
    }

    fn progress_end(&self) {
        self.spoken.set(None);
        let Some(bar) = self.bar.borrow_mut().take() else { return };
        if bar.length() == Some(bar.position()) {
            bar.abandon();
            let _ = writeln!(std::io::stderr());
        } else {
            bar.finish_and_clear();
        }
    }

    fn width(&self) -> Option<usize> {
        self.columns
    }

    fn colour(&self) -> bool {
        self.columns.is_some() && super::render::colour_is_welcome()
    }
}
