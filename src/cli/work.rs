//! Script work on a thread of its own, with Ctrl-C.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result, panic_is_contained};
use crate::script::Failure;

use super::render;

/// Stack of the script's thread: deep recursion in a script is an error long before this is used up.
const STACK_BYTES: usize = 512 << 20;

/// Does the work, tells a failure, and returns the exit code; the flag is set by Ctrl-C.
pub(super) fn run(
    work: impl FnOnce(Arc<AtomicBool>) -> std::result::Result<i32, Failure> + Send + 'static,
) -> i32 {
    let interrupt = Arc::new(AtomicBool::new(false));
    let outcome = listen(&interrupt).map_err(Failure::from).and_then(|()| {
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
            work(interrupt)
        });
        let thread = thread.map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the script's thread failed").into()))
    });
    outcome.unwrap_or_else(|failure| {
        render::show(&failure);
        failure.error.kind().exit_code()
    })
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
