//! A run: its folder, the count of its steps, its log and checkpoints.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::checkpoint::{Checkpoints, Stateful, publish};
use super::files::{
    create_dir, parent, read_json, remove_temporary, sync_dir, sync_tree, temporary_dir, write_whole,
};
use super::{Log, Meter, memory, read_log, run_figure};
use crate::error::{Error, Result, io_error};

const FACTS: &str = "run.json";
const ARGUMENTS: &str = "args.json";

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
        let (dir, notes) = if options.resume { reopen(&options)? } else { create(&options)? };
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

    /// Keeps the text of a module that was loaded after the start.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add_module(&self, module: &Source) -> Result<()> {
        let path = module_path(&self.dir, &module.name);
        create_dir(parent(&path))?;
        write_whole(&path, module.text.as_bytes())
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

/// Writes what the run is made of.
fn describe(dir: &Path, options: &RunOptions) -> Result<()> {
    if let Some(script) = &options.script {
        let path = script_path(dir, &script.name);
        create_dir(parent(&path))?;
        write_whole(&path, script.text.as_bytes())?;
    }
    for module in &options.modules {
        let path = module_path(dir, &module.name);
        create_dir(parent(&path))?;
        write_whole(&path, module.text.as_bytes())?;
    }
    write_json(&dir.join(ARGUMENTS), &Value::Object(options.args.clone()))?;
    let facts = json!({
        "raco": env!("CARGO_PKG_VERSION"),
        "versions": versions(&["candle-core", "rhai", "safetensors", "tokenizers"]),
        "script": options.script.as_ref().map(|s| &s.name),
        "modules": options.modules.iter().map(|m| &m.name).collect::<Vec<_>>(),
        "seed": options.seed,
        "inputs": options.inputs,
        "sessions": [session(0)],
    });
    write_json(&dir.join(FACTS), &facts)
}

/// Checks that the run in the folder is the one that is to be continued.
fn reopen(options: &RunOptions) -> Result<(PathBuf, Vec<String>)> {
    let dir = options.dir.clone();
    if !dir.join(FACTS).is_file() {
        return Err(Error::new("no run to resume here").in_file(&dir).help("start it without `--resume`"));
    }
    let facts = read_json(&dir.join(FACTS))?;
    let stored = read_json(&dir.join(ARGUMENTS))?;
    let empty = Map::new();
    let bound = |key: &String| !options.free_args.contains(key);
    let changed = differences(stored.as_object().unwrap_or(&empty), &options.args, bound);
    if !changed.is_empty() {
        return Err(Error::new(format!("the run began with other arguments: {}", changed.join(", ")))
            .in_file(dir.join(ARGUMENTS))
            .help("give the arguments of the run, or start a new one without `--resume`"));
    }
    let changed = differences(facts["inputs"].as_object().unwrap_or(&empty), &options.inputs, |_| true);
    if !changed.is_empty() {
        return Err(Error::new(format!("what the run reads has changed: {}", changed.join(", ")))
            .in_file(dir.join(FACTS))
            .help("bring back the files that the run began with, or start a new run"));
    }
    let mut notes = Vec::new();
    let script = options.script.iter().map(|s| (script_path(&dir, &s.name), s));
    let modules = options.modules.iter().map(|m| (module_path(&dir, &m.name), m));
    for (path, source) in script.chain(modules) {
        if fs::read_to_string(&path).is_ok_and(|text| text != source.text) {
            notes.push(format!("`{}` is not as it was when the run began", source.name));
        }
    }
    let began = &facts["sessions"][0];
    if facts["raco"] != env!("CARGO_PKG_VERSION") {
        notes.push(format!("the run began with raco {}", facts["raco"]));
    }
    if began["threads"] != json!(rayon::current_num_threads()) || began["cpu"] != json!(cpu()) {
        notes.push(format!(
            "the run began on {} with {} threads: results may differ in the last bits",
            began["cpu"], began["threads"]
        ));
    }
    Ok((dir, notes))
}

/// `KEY is NEW, was OLD` for each value that differs.
fn differences(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    counts: impl Fn(&String) -> bool,
) -> Vec<String> {
    let shown = |value: Option<&Value>| value.map_or("not given".to_owned(), |v| format!("`{v}`"));
    old.keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)))
        .filter(|key| counts(key) && old.get(*key) != new.get(*key))
        .map(|key| format!("`{key}` is {}, was {}", shown(new.get(key)), shown(old.get(key))))
        .collect()
}

/// Adds a session to the facts of a continued run.
fn note_session(dir: &Path, step: usize) -> Result<()> {
    let mut facts = read_json(&dir.join(FACTS))?;
    if let Some(sessions) = facts["sessions"].as_array_mut() {
        sessions.push(session(step));
    }
    write_json(&dir.join(FACTS), &facts)
}

fn session(step: usize) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    json!({
        "from_step": step,
        "unix_s": now.as_secs(),
        "os": std::env::consts::OS,
        "cpu": cpu(),
        "threads": rayon::current_num_threads(),
    })
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or(std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Versions of the libraries that results depend on, from the lock file of the build.
fn versions(names: &[&str]) -> Value {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Value::Object(names.iter().map(|name| ((*name).to_owned(), json!(version(name)))).collect())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, format!("{value:#}\n").as_bytes())
}

fn script_path(dir: &Path, name: &str) -> PathBuf {
    let file = Path::new(name).file_name().map_or(Path::new("script.rhai"), Path::new);
    dir.join("source").join(file)
}

fn module_path(dir: &Path, name: &str) -> PathBuf {
    let parts = Path::new(name).components().filter(|c| matches!(c, Component::Normal(_)));
    let path = dir.join("source/modules").join(parts.collect::<PathBuf>());
    if path.extension().is_some() { path } else { path.with_extension("rhai") }
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
