//! The engine that runs scripts.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rhai::{AST, Dynamic, Engine, EvalAltResult, FuncArgs, OptimizationLevel, Scope};

use crate::error::{Error, Result, io_error};

use super::args::Given;
use super::console::{Console, Silent};
use super::failure::{Failure, explain, panicked};
use super::pause::{self, Pauses};
use super::resolver::{self, Resolver};
use super::session::Session;
use super::suggest::{self, Known};
use super::value::{Answer, CONTAINER_SIZE};
use super::watch::Watch;
use super::{api, failure};

/// Levels of script functions that call each other; a level costs a few KiB of stack.
const CALL_LEVELS: usize = 64;
/// Bytes of all strings in one value.
pub(super) const STRING_BYTES: usize = 256 << 20;

/// What a host is built from.
#[derive(Clone)]
pub struct Options {
    /// Folders searched for modules after the script's own.
    pub lib: Vec<PathBuf>,
    /// Arguments of the script: `--key value` words.
    pub args: Vec<String>,
    /// Where output goes.
    pub console: Rc<dyn Console>,
    /// Stops the script when set: at the end of the step inside `run.steps`, at once elsewhere.
    pub interrupt: Arc<AtomicBool>,
    /// Program and words that run the script again in a process of its own, as the points of a sweep may.
    pub respawn: Option<Vec<OsString>>,
    /// Modules and aggregators of the user's that change on disk are read anew between two steps of `run.steps`; a run
    /// that began so is resumed so.
    pub watch: bool,
    /// Where scripts may pause, and who talks then; without, `breakpoint()` does nothing. A host that can pause runs
    /// the lines of scripts more slowly: [`Host::arm`] says when it does.
    pub pauses: Option<Pauses>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lib: Vec::new(),
            args: Vec::new(),
            console: Rc::new(Silent),
            interrupt: Arc::default(),
            respawn: None,
            watch: false,
            pauses: None,
        }
    }
}

/// Runs scripts with all of raco's types and functions.
///
/// ```
/// let mut host = raco::script::Host::new(Default::default())?;
/// host.engine_mut().register_fn("double", |x: f64| 2.0 * x);
/// let four = host.run("double(2)", "sums.rhai").unwrap();
/// assert_eq!(four.as_float(), Ok(4.0));
/// # Ok::<(), raco::Error>(())
/// ```
pub struct Host {
    engine: Engine,
    session: Rc<Session>,
    known: Known,
    /// Until the engine is armed.
    pauses: Option<Pauses>,
    /// Arguments of the command line.
    words: Vec<String>,
}

impl Host {
    /// A host with these options.
    ///
    /// # Errors
    /// Arguments that are no `--key value` words.
    pub fn new(options: Options) -> Result<Self> {
        let Options { lib, args, console, interrupt, watch: edits, respawn, pauses } = options;
        let given = Given::parse(&args)?;
        let session = Rc::new(Session::new(console, interrupt, lib, given, respawn));
        let known = Known::default();
        let mut engine = Engine::new();
        limit(&mut engine);
        suggest::register(&mut engine, &known, &session);
        engine.set_module_resolver(Resolver::new(session.clone()));
        let watch = Watch::new(session.clone());
        engine.on_progress(move |_| watch.stop().map(Dynamic::from));
        let shared = session.clone();
        engine.on_print(move |text| shared.console().print(text));
        let shared = session.clone();
        engine.on_debug(move |text, source, pos| {
            let place = source.map_or(String::new(), |s| format!("{s}:"));
            let line = pos.line().map_or(String::new(), |l| format!("{l}: "));
            shared.console().print(&format!("{place}{line}{text}"));
        });
        api::register(&mut engine, &session);
        let resumed = session.given.borrow().peek("resume").map(PathBuf::from);
        if edits || resumed.is_some_and(|dir| api::was_watched(&dir)) {
            session.edits.replace(Some(Rc::default()));
        }
        session.may_pause.set(pauses.is_some());
        Ok(Self { engine, session, known, pauses, words: args })
    }

    /// Makes the host able to pause where `source`, or a file of the user's that it or the arguments name, calls
    /// `breakpoint()`, or where a condition waits; scripts that cannot pause run at full speed.
    pub fn arm(&mut self, source: &str) {
        let Some(pauses) = &self.pauses else { return };
        let missed = self.session.missed_breakpoint.take().is_some();
        let wanted = || pause::mentioned(&self.session, source, &self.words);
        if missed || pauses.when.is_some() || wanted() {
            self.pause_anywhere();
        }
    }

    /// The same for a file that [`run_file`](Self::run_file) is to run.
    pub fn arm_for(&mut self, path: impl AsRef<Path>) {
        self.session.script.replace(path.as_ref().to_owned());
        // a file that cannot be read is told when it is run
        let source = std::fs::read_to_string(path).unwrap_or_default();
        self.arm(&source);
    }

    /// Makes the host able to pause at every statement, as [`Pauses::request`] needs it.
    pub fn pause_anywhere(&mut self) {
        if let Some(pauses) = self.pauses.take() {
            pause::register(&mut self.engine, &self.session, pauses);
        }
    }

    /// The engine, for functions and types of your own.
    pub fn engine_mut(&mut self) -> &mut Engine {
        self.known.replace(None);
        &mut self.engine
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the functions of the script share.
    pub fn session(&self) -> &Rc<Session> {
        &self.session
    }

    /// Runs a file.
    ///
    /// # Errors
    /// A file that cannot be read, and all that can go wrong in a script.
    pub fn run_file(&self, path: impl AsRef<Path>) -> std::result::Result<Dynamic, Failure> {
        let path = path.as_ref();
        let source = std::fs::read_to_string(path).map_err(|e| io_error(&e, "read the script", path))?;
        self.session.script.replace(path.to_owned());
        self.run(&source, &path.display().to_string())
    }

    /// Runs a source text; `name` stands for it in messages.
    ///
    /// # Errors
    /// All that can go wrong in a script; a panic of a host function is caught and told as an internal error.
    pub fn run(&self, source: &str, name: &str) -> std::result::Result<Dynamic, Failure> {
        if !source.contains("args(") {
            self.session.given.borrow().check_taken()?;
        }
        if let Some(pauser) = &*self.session.pauser.borrow() {
            pauser.check(&self.engine)?;
        }
        self.session.sources.borrow_mut().insert(name.to_owned(), source.to_owned());
        let run = || -> std::result::Result<Dynamic, Box<EvalAltResult>> {
            let mut ast: AST = self.engine.compile(source)?;
            ast.set_source(name);
            resolver::check_names(&self.session, name, &ast)?;
            resolver::keep_closures(&self.session, &ast, ast.shared_lib());
            pause::learn(&self.session, &ast);
            self.engine.eval_ast_with_scope(&mut Scope::new(), &ast)
        };
        let outcome = catch_unwind(AssertUnwindSafe(run));
        self.session.in_step.set(false);
        self.session.console().progress_end();
        match outcome {
            Ok(Ok(_)) if self.session.resume.take().is_some() => {
                Err(Error::new("the script starts no run, there is none to resume")
                    .help("leave out `--resume`")
                    .into())
            }
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(name, *error)),
            Err(panic) => Err(failure::Failure::from(panicked(&*panic))),
        }
    }

    /// Compiles functions for [`Host::call`].
    pub(super) fn compile(&self, source: &str, name: &str) -> std::result::Result<AST, Failure> {
        self.session.sources.borrow_mut().insert(name.to_owned(), source.to_owned());
        let mut ast = self.engine.compile(source).map_err(|e| self.explain(name, EvalAltResult::from(e)))?;
        ast.set_source(name);
        Ok(ast)
    }

    /// Calls a function of a compiled source; a panic of a host function is an internal error.
    pub(super) fn call(&self, ast: &AST, function: &str, args: impl FuncArgs) -> Answer<Dynamic> {
        let call = || self.engine.call_fn(&mut Scope::new(), ast, function, args);
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(&*panic).into()))
    }

    /// Reads Rhai's error; `name` is the source that was run.
    pub(super) fn explain(&self, name: &str, error: EvalAltResult) -> Failure {
        let mut sources = self.session.sources();
        sources.extend(self.session.pauser.borrow().as_ref().and_then(|pauser| pauser.condition()));
        explain(&self.engine, &sources, name, error)
    }
}

fn limit(engine: &mut Engine) {
    engine
        .set_optimization_level(OptimizationLevel::None)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .disable_symbol("eval")
        .set_max_call_levels(CALL_LEVELS)
        .set_max_expr_depths(128, 64)
        .set_max_array_size(CONTAINER_SIZE)
        .set_max_map_size(CONTAINER_SIZE)
        .set_max_string_size(STRING_BYTES);
}
