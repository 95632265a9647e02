//! Reasons to stop a script from outside: Ctrl-C, and memory that runs out.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::model::available_bytes;
use crate::run::memory;

use super::session::Session;

/// Operations that a step may take after Ctrl-C; the body of a loop takes thousands, an endless one all of them.
const LAST_STEP: u64 = 2_000_000;
/// Time between two looks at the memory.
const LOOK: Duration = Duration::from_millis(20);
/// Memory that a script leaves to the machine, in MiB.
const LEAVE_MIB: u64 = 256;
/// A process smaller than this is not what the memory went to, in MiB.
const SMALL_MIB: f64 = 1024.0;

/// Looks at each operation of a script whether it is to be the last.
pub(super) struct Watch {
    session: Rc<Session>,
    /// Most memory that the process may take, in MiB: `RACO_MEMORY_MIB`, or what the machine has.
    limit_mib: Option<f64>,
    operations: Cell<u64>,
    since_interrupt: Cell<u64>,
    looked: Cell<Instant>,
}

impl Watch {
    pub fn new(session: Rc<Session>) -> Self {
        let limit_mib = std::env::var("RACO_MEMORY_MIB").ok().and_then(|mib| mib.parse().ok());
        Self {
            session,
            limit_mib,
            operations: Cell::new(0),
            since_interrupt: Cell::new(0),
            looked: Cell::new(Instant::now()),
        }
    }

    /// Why the script stops here, if it does.
    pub fn stop(&self) -> Option<Error> {
        if self.session.interrupted() {
            self.since_interrupt.set(self.since_interrupt.get() + 1);
            let endless = self.since_interrupt.get() > LAST_STEP;
            if endless || !self.session.in_step.get() {
                return Some(Error::interrupted("stopped by Ctrl-C"));
            }
        }
        self.operations.set(self.operations.get() + 1);
        if self.operations.get().is_multiple_of(16) && self.looked.get().elapsed() >= LOOK {
            self.looked.set(Instant::now());
            return self.memory();
        }
        None
    }

    fn memory(&self) -> Option<Error> {
        let used = memory()?.current_mib;
        let past_limit = self.limit_mib.is_some_and(|limit| used > limit);
        let left = || available_bytes().is_some_and(|bytes| bytes >> 20 < LEAVE_MIB);
        (past_limit || used > SMALL_MIB && left()).then(|| {
            Error::new(format!("the script holds more than memory allows: {used:.0} MiB are in use"))
                .help("keep less at once: write rows to a file, drop models and tensors that are not needed")
        })
    }
}
