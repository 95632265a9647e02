//! Sweeps: the points of a grid, worked off by this process or by several.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, Map, NativeCallContext, Position};
use serde_json::Value;

use crate::error::{Error, Kind, Result, io_error};
use crate::run::{Axes, Claim, Meter, Planned, Record, Status, Sweep, read_record, sweep_points};

use super::super::failure::{explain, panicked};
use super::super::session::Session;
use super::super::value::{Answer, Opts, from_json, to_json, type_of};

/// Tells a process which sweep it works for: it runs the points that nobody else has taken, then ends.
const WORKER: &str = "RACO_SWEEP_WORKER";
/// Time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    let shared = session.clone();
    engine.register_fn("sweep", move |context: NativeCallContext, grid: Dynamic, point: FnPtr| {
        sweep(&shared, &context, &grid, &point, Map::new())
    });
    let shared = session.clone();
    engine.register_fn(
        "sweep",
        move |context: NativeCallContext, grid: Dynamic, point: FnPtr, options: Map| {
            sweep(&shared, &context, &grid, &point, options)
        },
    );
    engine.register_fn("read_sweep", |dir: &str| -> Answer<Array> { Ok(read(Path::new(dir))?) });
}

fn sweep(
    session: &Rc<Session>,
    context: &NativeCallContext,
    grid: &Dynamic,
    point: &FnPtr,
    options: Map,
) -> Answer<Array> {
    let mut options = Opts::new("sweep", options);
    let out = PathBuf::from(options.text("out")?.unwrap_or_else(|| "runs/sweep".to_owned()));
    let jobs = options.count("jobs")?.unwrap_or(1);
    options.finish()?;
    if jobs == 0 {
        return Err(Error::new("option `jobs` of `sweep` is `0`").help("give 1 or more").into());
    }
    if session.resume.borrow().is_some() {
        let error = Error::with_kind(Kind::Usage, "a sweep goes on by itself, without `--resume`");
        return Err(error.help("start it again with the same `--out`: finished points are skipped").into());
    }
    session.sandbox.borrow().check_start(&out)?;
    let script = session.script.borrow().display().to_string();
    let salt = Value::Object(session.inputs.borrow().clone()).to_string();
    let sweep = Sweep::open(&out, &grids(grid)?, &salt, &script)?;
    session.sandbox.borrow_mut().allow(&out);
    let worker = std::env::var_os(WORKER).is_some_and(|dir| same(Path::new(&dir), &out));
    let work = Work { session, context, sweep, point };
    if worker {
        work.stop_with_parent()?;
        work.alone()?;
        return Err(EvalAltResult::Exit(Dynamic::UNIT, Position::NONE).into());
    }
    if jobs > 1 {
        work.shared(jobs)?
    } else {
        work.alone()?
    }
    Ok(work.results()?)
}

/// The grid, or several grids one after the other.
fn grids(grid: &Dynamic) -> Result<Vec<Axes>> {
    let one = |grid: &Dynamic| -> Result<Axes> {
        let map = grid.read_lock::<Map>().ok_or_else(|| {
            Error::new(format!("the grid of `sweep` is {}, expected a map", type_of(grid)))
                .help("give `#{ key: [value, …] }`, or an array of such maps")
        })?;
        let axis = |(key, values): (&rhai::Identifier, &Dynamic)| {
            if key.as_str() == "out" {
                return Err(Error::new("the grid of `sweep` has a key `out`")
                    .help("give the folder as an option: `sweep(grid, point, #{ out: … })`"));
            }
            let values = match values.read_lock::<Array>() {
                Some(values) => values.iter().map(to_json).collect::<Result<_>>()?,
                None => vec![to_json(values)?],
            };
            Ok((key.to_string(), values))
        };
        map.iter().map(axis).collect()
    };
    match grid.read_lock::<Array>() {
        Some(grids) => grids.iter().map(one).collect(),
        None => Ok(vec![one(grid)?]),
    }
}

/// True in a process that another one started to work off points of its sweep.
pub fn works_for_a_sweep() -> bool {
    std::env::var_os(WORKER).is_some()
}

/// True for two paths of one folder that exists.
fn same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

struct Work<'a> {
    session: &'a Rc<Session>,
    context: &'a NativeCallContext<'a>,
    sweep: Sweep,
    point: &'a FnPtr,
}

impl Work<'_> {
    /// Works off what nobody else has taken.
    fn alone(&self) -> Answer<()> {
        let mut pace = Pace::new(self.sweep.points().len(), 1);
        for planned in self.sweep.points() {
            if self.session.interrupted() {
                return Err(self.interrupted(pace.finished).into());
            }
            let _mine = match self.sweep.claim(planned, |name, hash| self.is_current(name, hash))? {
                Claim::Done(_) => {
                    pace.finished += 1;
                    continue;
                }
                Claim::Taken => continue,
                Claim::Mine(lock) => lock,
            };
            let Some(record) = self.run(planned)? else {
                return Err(self.interrupted(pace.finished).into());
            };
            self.sweep.finish(&record)?;
            self.session.console().print(&pace.finish(&record));
        }
        Ok(())
    }

    /// Runs a point; none where the user stopped it.
    fn run(&self, planned: &Planned) -> Answer<Option<Record>> {
        let session = self.session;
        let folder = self.sweep.folder(planned);
        let mut config = from_json(&Value::Object(planned.config.clone()))?.cast::<Map>();
        config.insert("out".into(), folder.display().to_string().into());
        // a point is made of what it read itself, whichever points this process ran before
        let (sources, inputs) = (session.sources.borrow().clone(), session.inputs.borrow().clone());
        let modules: Vec<String> = session.modules.borrow().keys().cloned().collect();
        session.resume.replace(folder.join("args.json").is_file().then_some(folder));
        session.in_point.set(true);
        session.told_terms.set(true);
        let meter = Meter::start();
        let call = || self.point.call_within_context::<Dynamic>(self.context, (config,));
        let outcome = catch_unwind(AssertUnwindSafe(call));
        let outcome = outcome.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
        let (wall, cpu) = (meter.wall_ms(), meter.cpu_ms());
        session.in_point.set(false);
        session.in_step.set(false);
        session.resume.take();
        session.console().progress_end();
        let used = std::mem::replace(&mut *session.sources.borrow_mut(), sources);
        session.inputs.replace(inputs);
        session.modules.borrow_mut().retain(|name, _| modules.contains(name));
        let result = match outcome {
            Ok(value) => to_json(&value).map_err(|e| format!("the result of the point: {e}")),
            Err(error) if matches!(*error, EvalAltResult::Exit(..)) => return Err(error),
            Err(error) => {
                let texts: Vec<(String, String)> = used.clone().into_iter().collect();
                let script = session.script.borrow().display().to_string();
                let failure = explain(self.context.engine(), &texts, &script, *error);
                if failure.error.kind() == Kind::Interrupted {
                    return Ok(None);
                }
                Err(failure.to_string())
            }
        };
        let round = |ms: f64| ms.round() / 1e3;
        let hash = |text: &String| blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(Some(Record {
            name: planned.name.clone(),
            config: planned.config.clone(),
            status: if result.is_ok() { Status::Done } else { Status::Failed },
            error: result.as_ref().err().cloned(),
            result: result.unwrap_or(Value::Null),
            seconds: round(wall),
            cpu_seconds: cpu.map(round),
            sources: used.iter().map(|(name, text)| (name.clone(), hash(text))).collect(),
        }))
    }

    /// Whether a text is still as a finished point read it.
    fn is_current(&self, name: &str, hash: &str) -> bool {
        let known = self.session.sources.borrow().get(name).cloned();
        let embedded = || {
            let file = super::super::STDLIB.get_file(name.strip_prefix("stdlib/")?)?;
            file.contents_utf8().map(str::to_owned)
        };
        let text = known.or_else(embedded).or_else(|| std::fs::read_to_string(name).ok());
        text.is_some_and(|text| blake3::hash(text.as_bytes()).to_hex().as_str() == hash)
    }

    /// Lets `jobs` processes work off the points and shows how far they are.
    fn shared(&self, jobs: usize) -> Answer<()> {
        let Some(command) = &self.session.respawn else {
            return Err(Error::new("only `raco script FILE` runs the points of a sweep as processes")
                .help("leave out `jobs`, or run the script by `raco script`")
                .into());
        };
        let mut open = Vec::new();
        let mut pace = Pace::new(self.sweep.points().len(), jobs);
        for planned in self.sweep.points() {
            // a look at each point retires what was made with other texts, and lets go of it again
            match self.sweep.claim(planned, |name, hash| self.is_current(name, hash))? {
                Claim::Done(_) => pace.finished += 1,
                Claim::Taken => open.push(planned),
                Claim::Mine(_) => {
                    // a failed point is tried again: its old record must not count
                    self.sweep.forget(planned)?;
                    open.push(planned);
                }
            }
        }
        let mut workers: Vec<Worker> = Vec::new();
        for number in 1..=jobs.min(open.len()) {
            workers.push(Worker::start(command, self.sweep.dir(), number, jobs)?);
        }
        let total = self.sweep.points().len();
        let mut stopped = false;
        loop {
            let mut still = Vec::new();
            for planned in open {
                match self.sweep.record(planned)? {
                    Some(record) => {
                        let line = pace.finish(&record);
                        if record.status == Status::Failed || self.session.console().width().is_none() {
                            self.session.console().print(&line);
                        }
                    }
                    None => still.push(planned),
                }
            }
            open = still;
            if self.session.interrupted() && !std::mem::replace(&mut stopped, true) {
                workers.iter_mut().for_each(Worker::stop);
            }
            let mut running = false;
            for worker in &mut workers {
                running |= worker.runs()?;
            }
            self.session.console().progress(pace.finished, total, &pace.left());
            if !running {
                break;
            }
            std::thread::sleep(LOOK);
        }
        self.session.console().progress_end();
        // the last records may have come after the last look
        open.retain(|planned| !self.sweep.record(planned).is_ok_and(|r| r.is_some()));
        if stopped {
            return Err(self.interrupted(total - open.len()).into());
        }
        for told in workers.iter().filter_map(Worker::trouble) {
            self.session.console().print(&format!("note: {told}"));
        }
        Ok(())
    }

    /// Stops at the next safe point once the process that started this one is gone or closes our input.
    fn stop_with_parent(&self) -> Result<()> {
        let interrupt = self.session.interrupt().clone();
        let listen = move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            interrupt.store(true, Ordering::SeqCst);
        };
        let thread = std::thread::Builder::new().name("parent".into()).spawn(listen);
        thread.map(drop).map_err(|e| Error::internal(format!("cannot start a thread: {e}")))
    }

    fn interrupted(&self, finished: usize) -> Error {
        let total = self.sweep.points().len();
        Error::interrupted(format!("stopped with {finished} of {total} points finished")).help(
            "start the same command again: finished points are skipped, one at work goes on where it stopped",
        )
    }

    /// All points in their order, finished or not.
    fn results(&self) -> Result<Array> {
        let (mut results, mut failed) = (Array::new(), Vec::new());
        let mut open = 0;
        for planned in self.sweep.points() {
            let record = self.sweep.record(planned)?;
            match &record {
                Some(record) if record.status == Status::Failed => failed.push(record.clone()),
                Some(_) => {}
                None => open += 1,
            }
            results.push(row(&self.sweep.folder(planned), &planned.name, &planned.config, record)?);
        }
        let done = results.len() - failed.len() - open;
        let mut told =
            format!("{done} of {} points are done, in {}", results.len(), self.sweep.dir().display());
        if open > 0 {
            told += &format!("; {open} have no result yet: start the same command again");
        }
        if !failed.is_empty() {
            told += &format!("; {} failed, the next start tries them again", failed.len());
        }
        self.session.console().print(&told);
        Ok(results)
    }
}

/// A result as scripts see it: `#{ name, config, dir, status, result, error, seconds }`.
fn row(
    dir: &Path,
    name: &str,
    config: &serde_json::Map<String, Value>,
    record: Option<Record>,
) -> Result<Dynamic> {
    let status = record.as_ref().map_or("open", |r| match r.status {
        Status::Done => "done",
        Status::Failed => "failed",
    });
    let (result, error, seconds) = match record {
        Some(r) => (from_json(&r.result)?, r.error.map_or(Dynamic::UNIT, Into::into), r.seconds.into()),
        None => (Dynamic::UNIT, Dynamic::UNIT, Dynamic::UNIT),
    };
    let parts: [(&str, Dynamic); 7] = [
        ("name", name.into()),
        ("config", from_json(&Value::Object(config.clone()))?),
        ("dir", dir.display().to_string().into()),
        ("status", status.into()),
        ("result", result),
        ("error", error),
        ("seconds", seconds),
    ];
    Ok(parts.map(|(key, value)| (key.into(), value)).into_iter().collect::<Map>().into())
}

/// The finished points of a sweep's folder.
fn read(dir: &Path) -> Result<Array> {
    if !crate::run::is_sweep(dir) {
        return Err(Error::new("this is not the folder of a sweep")
            .in_file(dir)
            .help("give a folder that `sweep` wrote, such as `runs/pareto`"));
    }
    let mut results = Array::new();
    for name in sweep_points(dir)? {
        let folder = dir.join(&name);
        if let Some(record) = read_record(&folder)? {
            let config = record.config.clone();
            results.push(row(&folder, &name, &config, Some(record))?);
        }
    }
    Ok(results)
}

/// How fast points are finished.
struct Pace {
    total: usize,
    jobs: usize,
    finished: usize,
    failed: usize,
    /// Seconds of the points finished in this session.
    seconds: Vec<f64>,
}

impl Pace {
    fn new(total: usize, jobs: usize) -> Self {
        Self { total, jobs, finished: 0, failed: 0, seconds: Vec::new() }
    }

    /// Counts a point and says so in a line.
    fn finish(&mut self, record: &Record) -> String {
        self.finished += 1;
        self.seconds.push(record.seconds);
        let (finished, total) = (self.finished, self.total);
        match &record.error {
            None => format!("{finished}/{total} {} {:.1} s · {}", record.name, record.seconds, self.left()),
            Some(error) => {
                self.failed += 1;
                format!("{finished}/{total} {} failed: {error}", record.name)
            }
        }
    }

    /// The time left, from the mean of the points so far.
    fn left(&self) -> String {
        let failed = if self.failed > 0 { format!("{} failed · ", self.failed) } else { String::new() };
        if self.seconds.is_empty() {
            return format!("{failed}the first points tell how long it takes");
        }
        let mean = self.seconds.iter().sum::<f64>() / self.seconds.len() as f64;
        let seconds = mean * (self.total - self.finished) as f64 / self.jobs as f64;
        format!("{failed}about {} left", duration(seconds))
    }
}

/// `40 s`, `12 min`, `3.5 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A process that works for the sweep.
struct Worker {
    child: Child,
    output: PathBuf,
    status: Option<ExitStatus>,
}

impl Worker {
    fn start(command: &[OsString], dir: &Path, number: usize, jobs: usize) -> Result<Self> {
        let folder = dir.join(".jobs");
        std::fs::create_dir_all(&folder).map_err(|e| io_error(&e, "make the folder", &folder))?;
        let output = folder.join(format!("{number}.txt"));
        let failed = |error: std::io::Error| io_error(&error, "start a process of the sweep", &output);
        let file = File::create(&output).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let [program, words @ ..] = command else { return Err(Error::internal("no command to repeat")) };
        let mut command = Command::new(program);
        command.args(words).env(WORKER, dir);
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            let threads = std::thread::available_parallelism().map_or(1, usize::from) / jobs;
            command.env("RAYON_NUM_THREADS", threads.max(1).to_string());
        }
        // Ctrl-C in the terminal reaches this process alone, which then closes the workers' input
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(file.try_clone().map_err(failed)?).stderr(file);
        Ok(Self { child: command.spawn().map_err(failed)?, output, status: None })
    }

    fn stop(&mut self) {
        self.child.stdin.take();
    }

    fn runs(&mut self) -> Result<bool> {
        if self.status.is_none() {
            let failed = |e: std::io::Error| io_error(&e, "wait for a process of the sweep", &self.output);
            self.status = self.child.try_wait().map_err(failed)?;
        }
        Ok(self.status.is_none())
    }

    /// What to tell of a process that did not end well.
    fn trouble(&self) -> Option<String> {
        let status = self.status.filter(|status| !status.success())?;
        let output = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(6)..].join("\n  ");
        Some(format!("a process of the sweep ended with {status} ({}):\n  {last}", self.output.display()))
    }
}
