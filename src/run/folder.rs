//! A run: its folder, the count of its steps, its log and checkpoints.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::checkpoint::{Checkpoints, Stateful, publish};
use super::facts::{close_session, compare, describe, keep_edit, keep_module, last_edit, note_session};
use super::files::{create_dir, parent, remove_temporary, sync_dir, sync_tree, temporary_dir};
use super::{Log, Meter, memory, read_log, run_figure};
use crate::error::{Error, Result, io_error};

/// A text that the run is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path or module name; its folders are kept below the run folder.
    pub name: String,
    /// The text as it ran.
    pub text: String,
}

/// How a run begins.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Its folder. One that holds something is left alone: the run goes to `NAME-2`, `NAME-3` …
    pub dir: PathBuf,
    /// Continue the run in `dir` instead.
    pub resume: bool,
    /// The script.
    pub script: Option<Source>,
    /// The modules it used.
    pub modules: Vec<Source>,
    /// Its arguments by name; a resumed run must have the same.
    pub args: Map<String, Value>,
    /// Names of arguments that may differ when the run is resumed: where it lies, how it is shown.
    pub free_args: Vec<String>,
    /// What the run reads, by fingerprint; a resumed run must find the same.
    pub inputs: Map<String, Value>,
    /// The seed, where the script has one.
    pub seed: Option<u64>,
    /// Name of the optimiser, where there is one.
    pub optimizer: Option<String>,
    /// Steps between two checkpoints; 0 for none but the last.
    pub checkpoint_every: usize,
    /// Checkpoints kept, at least 1.
    pub keep: usize,
}

impl RunOptions {
    /// A new run in `dir`, with a checkpoint every ten steps of which two are kept.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            resume: false,
            script: None,
            modules: Vec::new(),
            args: Map::new(),
            free_args: Vec::new(),
            inputs: Map::new(),
            seed: None,
            optimizer: None,
            checkpoint_every: 10,
            keep: 2,
        }
    }
}

/// A run that is being written.
pub struct Run {
    dir: PathBuf,
    notes: Vec<String>,
    states: Vec<Rc<dyn Stateful>>,
    checkpoints: Checkpoints,
    checkpoint_every: usize,
    log: Log,
    step: usize,
    logged: bool,
    clock: Meter,
    _lock: File,
}

impl Run {
    /// Begins or continues a run; `states` is what its checkpoints hold, restored here when it continues.
    ///
    /// # Errors
    /// A folder that cannot be written or that another process writes; to continue, a folder without a run,
    /// arguments or inputs that differ, a checkpoint that does not fit.
    pub fn start(options: RunOptions, states: Vec<Rc<dyn Stateful>>) -> Result<Self> {
        let (dir, notes) = if options.resume {
            (options.dir.clone(), compare(&options.dir, &options)?)
        } else {
            create(&options)?
        };
        let lock = lock(&dir)?;
        remove_temporary(&dir)?;
        let checkpoints = Checkpoints::open(dir.join("checkpoints"), options.keep)?;
        let newest = checkpoints.newest()?;
        if let Some((_, path, manifest)) = &newest {
            Checkpoints::restore(path, manifest, &states)?;
        }
        let log = Log::open(&dir, newest.as_ref().map(|(_, _, manifest)| &manifest["record"]))?;
        let step = newest.map_or(0, |(step, ..)| step);
        if options.resume {
            note_session(&dir, step)?;
        }
        Ok(Self {
            dir,
            notes,
            states,
            checkpoints,
            checkpoint_every: options.checkpoint_every,
            log,
            step,
            logged: false,
            clock: Meter::start(),
            _lock: lock,
        })
    }

    /// Where it is written; not always where it was asked to be, see [`Run::notes`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the user should be told about the start.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of steps completed; the number of the step at work, counted from 0.
    pub fn step(&self) -> usize {
        self.step
    }

    /// True once the step at work has its row.
    pub fn is_logged(&self) -> bool {
        self.logged
    }

    /// Writes the row of the step at work: `step` before it, `time_ms` since the last step and `memory_mib`
    /// after it.
    ///
    /// # Errors
    /// A second row for the step, columns that differ from the first row, a full disk.
    pub fn log(&mut self, row: &Map<String, Value>) -> Result<()> {
        if self.logged {
            return Err(Error::new(format!("step {} is logged already", self.step))
                .help("log once a step; further values go into the map that `log` takes"));
        }
        let mut whole = Map::from_iter([("step".to_owned(), json!(self.step))]);
        for (name, value) in row {
            if ["step", "time_ms", "memory_mib"].contains(&name.as_str()) {
                return Err(Error::new(format!("the log writes `{name}` itself")).help("choose another name"));
            }
            whole.insert(name.clone(), value.clone());
        }
        whole.insert("time_ms".into(), json!((self.clock.wall_ms() * 1e3).round() / 1e3));
        let used = memory().map(|m| (m.current_mib * 10.0).round() / 10.0);
        whole.insert("memory_mib".into(), json!(used));
        self.log.append(&whole)?;
        self.logged = true;
        Ok(())
    }

    /// Completes the step at work and writes a checkpoint where one is due.
    ///
    /// # Errors
    /// As [`Run::checkpoint`].
    pub fn advance(&mut self) -> Result<()> {
        self.step += 1;
        self.logged = false;
        if self.checkpoint_every > 0 && self.step.is_multiple_of(self.checkpoint_every) {
            self.checkpoint()?;
        }
        self.clock = Meter::start();
        Ok(())
    }

    /// Writes a checkpoint of the steps completed; only between two steps.
    ///
    /// # Errors
    /// A full disk or a state that cannot be saved: the older checkpoints stay.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        self.checkpoints.write(self.step, self.log.mark()?, &self.states)
    }

    /// Draws losses, cosines and weights over the steps; `None` before the second row of the log.
    ///
    /// # Errors
    /// A log that cannot be read, a picture that cannot be written.
    pub fn plot(&self) -> Result<Option<PathBuf>> {
        let rows = read_log(&self.dir.join("log.jsonl"))?;
        if rows.len() < 2 {
            return Ok(None);
        }
        let path = self.dir.join("run.svg");
        run_figure(&rows, &path)?;
        Ok(Some(path))
    }

    /// The rows logged so far.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn rows(&self) -> Result<Vec<Map<String, Value>>> {
        read_log(&self.dir.join("log.jsonl"))
    }

    /// The place of a file of the script's own in the run folder; its folders are made.
    ///
    /// # Errors
    /// A path that leaves the run folder.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let inside =
            Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if name.is_empty() || !inside {
            return Err(Error::new(format!("`{name}` is not a path within the run folder"))
                .help("give a relative path without `..`"));
        }
        let path = self.dir.join(name);
        create_dir(parent(&path))?;
        Ok(path)
    }

    /// Notes what this session took, such as seconds by phase, beside where and when it ran.
    ///
    /// # Errors
    /// Facts that cannot be read or written.
    pub fn close(&self, took: Map<String, Value>) -> Result<()> {
        close_session(&self.dir, took)
    }

    /// Keeps the text of a module that was loaded after the start.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add_module(&self, module: &Source) -> Result<()> {
        keep_module(&self.dir, module)
    }

    /// Keeps the text of a module as it was edited for the step at work, beside the text that the run began with:
    /// `NAME@STEP.rhai`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add_edit(&self, module: &Source) -> Result<()> {
        keep_edit(&self.dir, module, self.step)
    }

    /// The text of a module that the last completed step ran with, where the run keeps it. Edits for later steps, of a
    /// run that was killed after them, are removed.
    ///
    /// # Errors
    /// Files that cannot be read or removed.
    pub fn last_edit(&self, name: &str) -> Result<Option<String>> {
        last_edit(&self.dir, name, self.step)
    }
}

/// Makes the folder of a new run under a temporary name, then gives it the first free name.
fn create(options: &RunOptions) -> Result<(PathBuf, Vec<String>)> {
    let name = options.dir.file_name().ok_or_else(|| {
        Error::new(format!("`{}` does not name a folder", options.dir.display()))
            .help("give the run folder a name, such as `runs/first`")
    })?;
    let name = name.to_string_lossy();
    let above = parent(&options.dir);
    if options.dir.is_file() {
        return Err(Error::new("cannot make the run folder: a file is in the way")
            .in_file(&options.dir)
            .help("choose another folder, or move the file"));
    }
    create_dir(above)?;
    let temporary =
        temporary_dir(above).map_err(|error| io_error(&error, "make the run folder", &options.dir))?;
    describe(temporary.path(), options)?;
    sync_tree(temporary.path())?;
    let mut dir = options.dir.clone();
    for number in 2.. {
        // takes away an empty folder only
        let free = match fs::remove_dir(&dir) {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if free {
            match publish(&temporary, &dir) {
                Ok(()) => break,
                // another process was faster
                Err(_) if dir.exists() => {}
                Err(error) => return Err(io_error(&error, "make the run folder", &dir)),
            }
        }
        dir = above.join(format!("{name}-{number}"));
    }
    sync_dir(above)?;
    let mut notes = Vec::new();
    if dir != options.dir {
        notes.push(format!("`{}` is in use: this run goes to `{}`", options.dir.display(), dir.display()));
    }
    Ok((dir, notes))
}

/// Holds the folder for this process; the system lets go when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(".lock");
    let failed = |error: std::io::Error| io_error(&error, "lock the run folder", &path);
    let file = File::create(&path).map_err(failed)?;
    // a process that was just killed may hold the lock for a moment
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            // some network disks know no locks
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Err(Error::new("another process is writing this run")
        .in_file(dir)
        .help("wait until it ends, or start a new run in another folder"))
}
