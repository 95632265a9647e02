//! What the functions of one script share: console, interrupt flag, arguments, permissions, sources.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhai::{AST, Dynamic, Module, Shared};

use crate::data::hub::{self, Hub, Wanted};
use crate::error::{Error, Result};

use super::args::Given;
use super::console::Console;
use super::edits::Edits;
use super::live::Chunk;
use super::pause::Pauser;
use super::sandbox::Sandbox;

/// The state behind a [`Host`](super::Host); functions registered by an embedding program may hold it too.
pub struct Session {
    console: Rc<dyn Console>,
    interrupt: Arc<AtomicBool>,
    pub(crate) lib: Vec<PathBuf>,
    pub(crate) given: RefCell<Given>,
    pub(crate) sandbox: RefCell<Sandbox>,
    /// File of the running script, as the user wrote it.
    pub(crate) script: RefCell<PathBuf>,
    /// Every source read so far, by the name that positions refer to.
    pub(crate) sources: RefCell<BTreeMap<String, String>>,
    /// Modules by the name of their source; `None` while one is being read.
    pub(crate) modules: RefCell<HashMap<String, Option<Shared<Module>>>>,
    /// Modules by the name of each closure that they define; Rhai's names tell closures apart.
    pub(crate) closures: RefCell<HashMap<String, Shared<Module>>>,
    /// Functions that a source defines and calls itself, by name and number of parameters: the source.
    pub(crate) own_calls: RefCell<HashMap<(String, usize), String>>,
    /// True inside `run.steps`: an interrupt waits for the end of the step.
    pub(crate) in_step: Cell<bool>,
    /// Folder of the run that `--resume` continues, until `start_run` takes it.
    pub(crate) resume: RefCell<Option<PathBuf>>,
    /// Fingerprints of what the script read, by path.
    pub(crate) inputs: RefCell<serde_json::Map<String, serde_json::Value>>,
    /// When the script began, and how long it has evaluated since.
    pub(crate) begun: Instant,
    pub(crate) evaluated: Cell<Duration>,
    /// The number of backward passes was told.
    pub(crate) told_terms: Cell<bool>,
    /// Constants of earlier lines at a prompt.
    pub(crate) constants: RefCell<HashMap<String, Dynamic>>,
    /// Program and words that run this script again, in another process.
    pub(crate) respawn: Option<Vec<OsString>>,
    /// True inside a point of a sweep.
    pub(crate) in_point: Cell<bool>,
    /// Aggregators that call each other.
    pub(crate) depth: Cell<usize>,
    /// The looking functions, once one was called.
    pub(crate) inspect: RefCell<Option<Shared<AST>>>,
    /// Files that are read anew when they change, where that was asked for.
    pub(super) edits: RefCell<Option<Rc<Edits>>>,
    /// Pauses the script, where the debugger is registered.
    pub(super) pauser: RefCell<Option<Rc<Pauser>>>,
    /// Where pauses were offered; the debugger may not be registered yet.
    pub(crate) may_pause: Cell<bool>,
    /// A source that calls `breakpoint()`, read while nothing could pause.
    pub(crate) missed_breakpoint: RefCell<Option<String>>,
    /// The document of the prompt that runs a line, and its chunks.
    pub(super) chunks: RefCell<Option<(&'static str, Vec<Chunk>)>>,
}

impl Session {
    pub(crate) fn new(
        console: Rc<dyn Console>,
        interrupt: Arc<AtomicBool>,
        lib: Vec<PathBuf>,
        given: Given,
        respawn: Option<Vec<OsString>>,
    ) -> Self {
        let sandbox = Sandbox::new(given.paths());
        Self {
            console,
            interrupt,
            lib,
            given: RefCell::new(given),
            sandbox: RefCell::new(sandbox),
            script: RefCell::default(),
            sources: RefCell::default(),
            modules: RefCell::default(),
            closures: RefCell::default(),
            own_calls: RefCell::default(),
            in_step: Cell::default(),
            resume: RefCell::default(),
            inputs: RefCell::default(),
            begun: Instant::now(),
            evaluated: Cell::default(),
            told_terms: Cell::default(),
            constants: RefCell::default(),
            respawn,
            in_point: Cell::default(),
            depth: Cell::default(),
            inspect: RefCell::default(),
            edits: RefCell::default(),
            pauser: RefCell::default(),
            may_pause: Cell::default(),
            missed_breakpoint: RefCell::default(),
            chunks: RefCell::default(),
        }
    }

    /// Where output goes.
    pub fn console(&self) -> &dyn Console {
        &*self.console
    }

    /// The flag that Ctrl-C sets; long host calls poll it.
    pub fn interrupt(&self) -> &Arc<AtomicBool> {
        &self.interrupt
    }

    /// True once the user asked to stop.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// Fails once the user asked to stop.
    ///
    /// # Errors
    /// [`Kind::Interrupted`](crate::error::Kind::Interrupted).
    pub fn check_interrupt(&self) -> Result<()> {
        if self.interrupted() { Err(Error::interrupted("stopped by Ctrl-C")) } else { Ok(()) }
    }

    /// Notes what the script read: a run goes on only with the same.
    pub(crate) fn note_input(&self, path: &str, fingerprint: String) {
        self.inputs.borrow_mut().insert(path.to_owned(), fingerprint.into());
    }

    /// The local path of a path or of an address of the hub, `hf:…`, fetched if need be.
    ///
    /// # Errors
    /// As [`Hub::fetch`].
    pub(crate) fn local(&self, path: &str, wanted: Wanted) -> Result<PathBuf> {
        if !hub::is_address(path) {
            return Ok(path.into());
        }
        let mut progress = |done: usize, total: usize, name: &str| {
            self.console().progress(done, total, &format!("MiB of {name}"));
        };
        let fetched = Hub::from_env()?.fetch(path, wanted, &mut progress);
        self.console().progress_end();
        self.check_interrupt()?;
        fetched
    }

    /// The folder of the running script.
    pub fn folder(&self) -> PathBuf {
        self.script.borrow().parent().map(PathBuf::from).unwrap_or_default()
    }

    /// The sources read so far: name and text, the script itself among them.
    pub fn sources(&self) -> Vec<(String, String)> {
        self.sources.borrow().iter().map(|(name, text)| (name.clone(), text.clone())).collect()
    }
}
