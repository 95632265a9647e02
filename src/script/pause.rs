//! Pauses: from a running script to a prompt, at the place where it stands.
//!
//! Rhai's debugger calls back before each statement and expression of every script that runs on the engine. That costs
//! time, so it is registered where a pause can come only. What is typed at a pause is evaluated apart, over copies of
//! the variables in scope, which are written back when the script goes on: statements hold offsets into their scope,
//! and lines of a prompt must not shift them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rhai::debugger::{DebuggerCommand, DebuggerEvent};
use rhai::{AST, ASTNode, Dynamic, Engine, EvalAltResult, EvalContext, Expr, FnCallExpr, Map, Position};
use rhai::{ParseError, ParseErrorType, Scope, Stmt};

use crate::error::{Error, nearest};

use super::failure::{Failure, Frame, explain};
use super::live::{self, Around, Document, Import, Live};
use super::resolver;
use super::session::Session;
use super::value::{Answer, show, type_of};

/// The function that pauses.
pub(super) const BREAKPOINT: &str = "breakpoint";
/// Stands for the condition in messages.
pub(super) const CONDITION: &str = "--break-when";
/// Parts of expressions that pass before a request is met within the library, or in a loop without a statement.
const PATIENCE: u32 = 100_000;

/// Where a script may pause, and who talks then; see [`Options::pauses`](super::Options::pauses).
#[derive(Clone)]
pub struct Pauses {
    /// Talks with the user, and tells how the script goes on.
    pub prompt: Rc<dyn Fn(&Pause<'_>) -> Then>,
    /// Set from outside, it pauses the script at its next statement; it is set while the script is paused, too.
    pub request: Arc<AtomicBool>,
    /// An expression over the row that `run.log` writes: where it is true, the script pauses after the row. It
    /// sees `step`, the row's columns (`losses`, `cosines`, `norms`, `alpha` …), and `cosine`, the least of the cosines.
    pub when: Option<String>,
}

/// A script that is paused.
pub struct Pause<'e> {
    /// Why.
    pub reason: Reason,
    /// The statement that comes next; the call of `log` after a condition.
    pub place: Frame,
    /// Evaluates lines over the variables, functions and modules that the place sees. What is assigned to its
    /// variables goes back to the script; what is defined here is there at the next pause again.
    pub live: Rc<RefCell<Live<'e>>>,
}

/// Why a script is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A call of `breakpoint()`.
    Breakpoint,
    /// The condition holds for the row just logged.
    Condition,
    /// [`Pauses::request`] was set.
    Request,
    /// The step that the last pause asked for is done.
    Step,
}

/// How a paused script goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// To the next pause.
    Continue,
    /// To the next statement, into functions that are called.
    Step,
    /// To the next statement of this function, or of one that called it.
    Next,
    /// To the end of the step, where a checkpoint is saved and the run stops; outside a run it stops here.
    Quit,
}

/// Which statements pause.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    None,
    All,
    /// Those of a frame and of the frames that called it.
    Outer(Frames),
}

/// A function's frame: evaluations that started later have larger numbers, functions called a larger level.
#[derive(Clone, Copy, PartialEq)]
struct Frames {
    evaluation: i64,
    level: usize,
}

impl Frames {
    fn of(context: &EvalContext) -> Self {
        let evaluation = context.debugger().and_then(|debugger| debugger.state().as_int().ok());
        Self { evaluation: evaluation.unwrap_or(0), level: context.call_level() }
    }

    /// True of the same frame and of those that called it.
    fn reaches(self, now: Self) -> bool {
        now.evaluation < self.evaluation || now.evaluation == self.evaluation && now.level <= self.level
    }
}

/// A place of a script, and all that can be seen from it.
struct Here {
    source: String,
    pos: Position,
    frame: Frames,
    around: Around,
}

/// A frame, and values of its variables by name.
type Writes = (Frames, Vec<(String, Dynamic)>);

/// The pauses of a host that has some.
pub(super) struct Pauser {
    pauses: Pauses,
    mode: Cell<Mode>,
    open: Cell<bool>,
    evaluations: Cell<i64>,
    /// Parts of expressions since a request.
    waited: Cell<u32>,
    /// What earlier pauses defined.
    document: RefCell<Document>,
    /// The last call of `log`.
    at_log: RefCell<Option<Here>>,
    /// Variables changed at a pause inside `log`, for the next statement of its frame.
    writes: RefCell<Option<Writes>>,
    /// Positions of the statements that are expressions, by source: Rhai announces their expression only.
    statements: RefCell<HashMap<String, HashSet<Position>>>,
}

/// Makes an engine able to pause.
pub(super) fn register(engine: &mut Engine, session: &Rc<Session>, pauses: Pauses) {
    let pauser = Rc::new(Pauser {
        pauses,
        mode: Cell::new(Mode::None),
        open: Cell::default(),
        evaluations: Cell::default(),
        waited: Cell::default(),
        document: RefCell::default(),
        at_log: RefCell::default(),
        writes: RefCell::default(),
        statements: RefCell::default(),
    });
    session.pauser.replace(Some(pauser.clone()));
    live::register(engine, session);
    let (session, counter) = (session.clone(), pauser.clone());
    #[allow(deprecated)] // not deprecated, but subject to change: rhai is pinned
    engine.register_debugger(
        move |_, mut debugger| {
            counter.evaluations.set(counter.evaluations.get() + 1);
            debugger.set_state(counter.evaluations.get());
            debugger
        },
        move |mut context, event, node, source, pos| {
            pauser.event(&session, &mut context, event, node, source, pos)
        },
    );
}

/// Notes the statements of a source; a host that cannot pause yet hears of a call of `breakpoint()`.
pub(super) fn learn(session: &Session, ast: &AST) {
    let name = ast.source().unwrap_or_default();
    match &*session.pauser.borrow() {
        Some(pauser) => pauser.learn(name, ast),
        None if session.may_pause.get() && calls_breakpoint(session.sources.borrow().get(name)) => {
            session.missed_breakpoint.replace(Some(name.to_owned()));
            session.console().print(&format!(
                "note: `{name}` calls `breakpoint()`, which is passed over: nothing named the file before it ran; \
                 `raco script --pause` stops there"
            ));
        }
        None => {}
    }
}

fn calls_breakpoint(text: Option<&String>) -> bool {
    text.is_some_and(|text| mentions(text))
}

/// Whether a text may call `breakpoint()`.
pub(super) fn mentions(text: &str) -> bool {
    text.contains("breakpoint(")
}

/// Whether a script, or a file of the user's that its texts or the words of the command line name, may call
/// `breakpoint()`.
pub(super) fn mentioned(session: &Session, text: &str, words: &[String]) -> bool {
    let mut texts = vec![text.to_owned(), words.iter().flat_map(|word| ["\"", word, "\""]).collect()];
    let mut seen = HashSet::new();
    while let Some(text) = texts.pop() {
        if mentions(&text) {
            return true;
        }
        let names = text.split(['"', '=', '`']).filter(|name| {
            (1..200).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        });
        for name in names.flat_map(|name| [name.to_owned(), format!("aggregators/{name}")]) {
            if seen.insert(name.clone()) {
                let own = resolver::locate(session, &name);
                texts.extend(own.and_then(|path| std::fs::read_to_string(path).ok()));
            }
        }
    }
    false
}

impl Pauser {
    fn learn(&self, source: &str, ast: &AST) {
        let mut found = HashSet::new();
        ast.walk(&mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Expr(expr))) = path.last() {
                found.insert(expr.position());
            }
            true
        });
        self.statements.borrow_mut().insert(source.to_owned(), found);
    }

    fn event(
        &self,
        session: &Rc<Session>,
        context: &mut EvalContext,
        event: DebuggerEvent,
        node: ASTNode,
        source: Option<&str>,
        pos: Position,
    ) -> Answer<DebuggerCommand> {
        if self.open.get() {
            return Ok(DebuggerCommand::Continue);
        }
        // every node: `Next` of Rhai would pass over whole loops, and its offsets end with a function
        let go_on = Ok(DebuggerCommand::StepInto);
        if !matches!(event, DebuggerEvent::Start | DebuggerEvent::Step) {
            return go_on;
        }
        if self.pauses.when.is_some() && calls_log(node) {
            self.at_log.replace(Some(Here::of(context, source, pos)));
        }
        let reason = if calls(node, |call| call.name == BREAKPOINT && call.args.is_empty()) {
            Some(Reason::Breakpoint)
        } else if self.mode.get() != Mode::None || self.requested() || self.writes.borrow().is_some() {
            self.reason(context, node, source)
        } else {
            None
        };
        if let Some(reason) = reason.filter(|_| !session.interrupted()) {
            // that of a chain of methods is its first point
            let pos = if let ASTNode::Expr(expr) = node { expr.start_position() } else { pos };
            let here = Here::of(context, source, pos);
            let writes = self.talk(session, context.engine(), reason, here);
            write(context, writes);
        }
        go_on
    }

    fn requested(&self) -> bool {
        self.pauses.request.load(Ordering::Relaxed)
    }

    /// Why a statement pauses, if it does; what waits for a statement is done.
    fn reason(&self, context: &mut EvalContext, node: ASTNode, source: Option<&str>) -> Option<Reason> {
        let statement = match node {
            ASTNode::Stmt(statement) => !matches!(statement, Stmt::Noop(_) | Stmt::Block(_)),
            ASTNode::Expr(expr) => {
                let known = self.statements.borrow();
                known.get(source.unwrap_or_default()).is_some_and(|known| known.contains(&expr.position()))
            }
            _ => false,
        };
        let library = source.is_some_and(|source| source.starts_with("stdlib/"));
        if (!statement || library && self.mode.get() == Mode::None) && self.requested() {
            self.waited.set(self.waited.get() + 1);
            // the scope within a chain of methods is empty
            let late = self.waited.get() > PATIENCE && !context.scope().is_empty();
            return late.then_some(Reason::Request);
        }
        if !statement {
            return None;
        }
        let now = Frames::of(context);
        let due = self.writes.borrow_mut().take_if(|(frame, _)| frame.reaches(now));
        if let Some((_, writes)) = due.filter(|(frame, _)| *frame == now) {
            write(context, writes);
        }
        match self.mode.get() {
            Mode::All => Some(Reason::Step),
            Mode::Outer(frame) if frame.reaches(now) => Some(Reason::Step),
            _ => self.requested().then_some(Reason::Request),
        }
    }

    /// Opens the prompt: the variables as it left them.
    fn talk(
        &self,
        session: &Rc<Session>,
        engine: &Engine,
        reason: Reason,
        here: Here,
    ) -> Vec<(String, Dynamic)> {
        session.console().progress_end();
        let Here { source, pos, frame, around } = here;
        let pause = Pause {
            reason,
            place: place(session, &source, pos),
            live: Rc::new(RefCell::new(Live::paused(engine, session.clone(), self.document.take(), around))),
        };
        let constants = session.constants.take();
        let (in_step, depth) = (session.in_step.replace(false), session.depth.replace(0));
        self.open.set(true);
        // a Ctrl-C from now on stops what is typed
        self.pauses.request.store(true, Ordering::SeqCst);
        let then = (self.pauses.prompt)(&pause);
        let (writes, document) = pause.live.borrow_mut().leave();
        self.document.replace(document);
        self.pauses.request.store(false, Ordering::SeqCst);
        self.open.set(false);
        self.waited.set(0);
        session.constants.replace(constants);
        session.in_step.set(in_step);
        session.depth.set(depth);
        self.mode.set(match then {
            Then::Continue | Then::Quit => Mode::None,
            Then::Step => Mode::All,
            Then::Next => Mode::Outer(frame),
        });
        if then == Then::Quit {
            session.interrupt().store(true, Ordering::SeqCst);
        }
        writes
    }

    /// The condition, as the source of a message.
    pub fn condition(&self) -> Option<(String, String)> {
        self.pauses.when.clone().map(|text| (CONDITION.to_owned(), text))
    }

    /// Fails where the condition is no expression; its names are known with the first row.
    pub fn check(&self, engine: &Engine) -> Result<(), Failure> {
        let Some(source) = self.condition() else { return Ok(()) };
        let mut any_name = Scope::new();
        for word in source.1.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
        {
            any_name.push_constant(word, ());
        }
        match engine.compile_expression_with_scope(&any_name, &source.1) {
            Err(error) => Err(explain(engine, &[source], CONDITION, error.into())),
            Ok(_) => Ok(()),
        }
    }

    /// Pauses after a row that meets the condition.
    pub fn logged(
        &self,
        session: &Rc<Session>,
        engine: &Engine,
        row: impl FnOnce() -> crate::Result<Map>,
    ) -> Answer<()> {
        let Some(when) = &self.pauses.when else { return Ok(()) };
        let here = self.at_log.take();
        if self.open.get() || session.interrupted() {
            return Ok(());
        }
        if !holds(engine, when, row()?).map_err(|error| inside(CONDITION, error))? {
            return Ok(());
        }
        let here = here.unwrap_or_else(Here::nowhere);
        let frame = here.frame;
        let writes = self.talk(session, engine, Reason::Condition, here);
        self.writes.replace(Some((frame, writes)));
        Ok(())
    }
}

/// The value of the condition.
fn holds(engine: &Engine, when: &str, row: Map) -> Answer<bool> {
    let mut scope = Scope::new();
    let names: Vec<String> = row.keys().map(ToString::to_string).collect();
    for (name, value) in row {
        scope.push_constant_dynamic(name.as_str(), value);
    }
    let ast =
        engine.compile_expression_with_scope(&scope, when).map_err(
            |ParseError(kind, position)| match *kind {
                ParseErrorType::VariableUndefined(name) => {
                    let near = nearest(&name, names.iter().map(String::as_str));
                    let hint =
                        near.first().map_or_else(String::new, |near| format!("did you mean `{near}`? "));
                    let error = Error::new(format!("the row has no `{name}`"));
                    let mut error: Box<EvalAltResult> =
                        error.help(format!("{hint}there are {}", names.join(", "))).into();
                    error.set_position(position);
                    error
                }
                kind => EvalAltResult::ErrorParsing(kind, position).into(),
            },
        )?;
    let value: Dynamic = engine.eval_ast_with_scope(&mut scope, &ast)?;
    value.as_bool().map_err(|_| {
        let text = format!("the condition is {} `{}`, expected true or false", type_of(&value), show(&value));
        Error::new(text).help("compare: `cosine < -0.3`").into()
    })
}

/// An error that arose in another source than the call that led to it.
fn inside(source: &str, error: Box<EvalAltResult>) -> Box<EvalAltResult> {
    EvalAltResult::ErrorInFunctionCall(source.into(), source.into(), error, Position::NONE).into()
}

impl Here {
    fn of(context: &EvalContext, source: Option<&str>, pos: Position) -> Self {
        let mut around = Around::default();
        let state = context.global_runtime_state();
        // constants of the script, then what hides them
        for (name, value) in state.constants.iter().flat_map(|all| all.borrow().clone()) {
            around.variables.push((name.to_string(), true, value));
        }
        let scope: Vec<_> = context.scope().iter_raw().collect();
        let copies = scope.into_iter().rev();
        around
            .variables
            .extend(copies.map(|(name, constant, value)| (name.to_owned(), constant, value.clone())));
        for (alias, module) in context.iter_imports() {
            let import =
                |id: &str| Import { path: resolver::path_of(id).to_owned(), alias: alias.to_owned() };
            around.imports.extend(module.id().map(import));
        }
        around.imports.reverse();
        for module in context.namespaces() {
            around.functions = around.functions.merge(&AST::new_from_module(module.clone()));
        }
        around.source = source.unwrap_or_default().to_owned();
        Self { source: around.source.clone(), pos, frame: Frames::of(context), around }
    }

    /// Of a call that the debugger did not see: nothing is in sight.
    fn nowhere() -> Self {
        let frame = Frames { evaluation: i64::MAX, level: 0 };
        Self { source: String::new(), pos: Position::NONE, frame, around: Around::default() }
    }
}

/// Gives variables of the scope their new values.
fn write(context: &mut EvalContext, values: Vec<(String, Dynamic)>) {
    for (name, value) in values {
        let Some(there) = context.scope_mut().get_mut(&name) else { continue };
        // a variable that a closure has caught is one cell for both
        match there.is_shared() {
            true => {
                let value = value.flatten();
                if let Some(mut there) = there.write_lock::<Dynamic>() {
                    *there = value;
                }
            }
            false => *there = value,
        }
    }
}

fn place(session: &Session, source: &str, pos: Position) -> Frame {
    let (line, column) = (pos.line().unwrap_or(1), pos.position().unwrap_or(1));
    let text = session.sources.borrow().get(source).cloned().unwrap_or_default();
    let mut frame = Frame { source: source.to_owned(), line, column, enters: String::new(), text };
    // lines of a prompt are parts of one document
    if let Some((document, chunks)) = &*session.chunks.borrow()
        && *document == source
        && let Some(chunk) = chunks.iter().rev().find(|chunk| chunk.after < line)
    {
        chunk.locate(&mut frame);
    }
    frame
}

fn calls(node: ASTNode, wanted: impl Fn(&FnCallExpr) -> bool) -> bool {
    match node {
        ASTNode::Stmt(Stmt::FnCall(call, _)) | ASTNode::Expr(Expr::FnCall(call, _)) => {
            !call.is_qualified() && wanted(call)
        }
        _ => false,
    }
}

/// `run.log(gradients, update)`: a logarithm has one argument.
fn calls_log(node: ASTNode) -> bool {
    let log = |call: &FnCallExpr, least: usize| call.name == "log" && call.args.len() >= least;
    let mut expr = match node {
        ASTNode::Expr(expr) => expr,
        _ => return calls(node, |call| log(call, 3)),
    };
    while let Expr::Dot(chain, ..) = expr {
        expr = &chain.rhs;
        if let Expr::MethodCall(call, _) = expr {
            return log(call, 2);
        }
        if let Expr::Dot(inner, ..) = expr
            && let Expr::MethodCall(call, _) = &inner.lhs
            && log(call, 2)
        {
            return true;
        }
    }
    calls(ASTNode::Expr(expr), |call| log(call, 3))
}
