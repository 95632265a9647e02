//! Script work on a thread of its own, with Ctrl-C.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result, panic_is_contained};
use crate::script::Failure;

use super::render;

/// Stack of the script's thread: deep recursion in a script is an error long before this is used up.
const STACK_BYTES: usize = 512 << 20;

/// What Ctrl-C sets.
#[derive(Clone, Default)]
pub(super) struct Signals {
    /// Stop at the next safe point.
    pub interrupt: Arc<AtomicBool>,
    /// Pause at the next statement.
    pub pause: Arc<AtomicBool>,
}

/// Does the work, tells a failure, and returns the exit code; where it can pause, the first Ctrl-C asks for that.
pub(super) fn run(
    pauses: bool,
    work: impl FnOnce(Signals) -> std::result::Result<i32, Failure> + Send + 'static,
) -> i32 {
    let signals = Signals::default();
    let outcome = listen(&signals, pauses).map_err(Failure::from).and_then(|()| {
        let thread = std::thread::Builder::new().name("script".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || {
            // the message itself is reported by `render`, with what a user can do about it
            std::panic::set_hook(Box::new(|info| {
                if panic_is_contained() {
                    return;
                }
                let place = info.location().map_or(String::new(), ToString::to_string);
                let _ = writeln!(std::io::stderr(), "panic at {place}");
            }));
            // the script's thread is one of those that compute: a loop begins at once instead of waking another thread.
            // If something has computed before, the usual threads are there and serve as well.
            rayon::ThreadPoolBuilder::new().use_current_thread().build_global().unwrap_or_default();
            work(signals)
        });
        let thread = thread.map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the script's thread failed").into()))
    });
    outcome.unwrap_or_else(|failure| {
        render::show(&failure);
        failure.error.kind().exit_code()
    })
}

/// The first Ctrl-C asks the script to pause, if it can, and otherwise to stop; one more stops the program.
fn listen(signals: &Signals, pauses: bool) -> Result<()> {
    let Signals { interrupt, pause } = signals.clone();
    let handler = move || {
        // the bar may be half drawn: begin on a line of its own
        let tell = |text: &str| drop(writeln!(std::io::stderr(), "\n{text}"));
        if pauses && !pause.swap(true, Ordering::SeqCst) {
            return tell("pausing at the next statement; Ctrl-C again stops at the next safe point");
        }
        if interrupt.swap(true, Ordering::SeqCst) {
            std::process::exit(Kind::Interrupted.exit_code());
        }
        tell("stopping at the next safe point; Ctrl-C again stops at once");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::internal(format!("cannot listen for Ctrl-C: {e}")))
}
