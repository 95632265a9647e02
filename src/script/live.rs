//! A script that grows line by line: what a prompt evaluates.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

use rhai::{AST, ASTFlags, ASTNode, Array, Dynamic, Engine, EvalAltResult, Expr, Map, Scope, Stmt};

use crate::error::io_error;

use super::failure::{Failure, Frame, explain, panicked};
use super::host::Host;
use super::session::Session;
use super::value::type_of;
use super::{pause, resolver};

/// The source name of the document that all chunks make up together.
const DOCUMENT: &str = "the prompt";
/// The same at a pause: a prompt may be paused itself.
const PAUSE: &str = "the pause";

/// Variables, constants, functions and imports that survive from one chunk to the next.
///
/// All chunks are parts of one document, so that a position tells the chunk. A chunk is compiled as the document in
/// which everything before it is blank but for the imports and constants, which each evaluation needs anew.
pub struct Live<'e> {
    over: Over<'e>,
    /// Name of the document.
    name: &'static str,
    scope: Scope<'static>,
    document: Document,
    /// The paused script.
    around: Around,
}

/// What runs the chunks.
enum Over<'e> {
    Host(Box<Host>),
    Paused(&'e Engine, Rc<Session>),
}

/// What chunks have defined but for the variables of [`Live`].
pub(super) struct Document {
    /// Variables of earlier pauses.
    variables: Vec<(String, bool, Dynamic)>,
    functions: AST,
    chunks: Vec<Chunk>,
    /// Line of the document, 1-based, and what stands on it again for later chunks.
    kept: Vec<(usize, Vec<Kept>)>,
    lines: usize,
}

impl Default for Document {
    fn default() -> Self {
        let (variables, chunks, kept) = (Vec::new(), Vec::new(), Vec::new());
        Self { variables, functions: AST::empty(), chunks, kept, lines: 0 }
    }
}

/// What a place of a running script sees.
#[derive(Default)]
pub(super) struct Around {
    /// Name of the source.
    pub source: String,
    /// Variables and constants, what hides another behind it.
    pub variables: Vec<(String, bool, Dynamic)>,
    pub imports: Vec<Import>,
    pub functions: AST,
}

/// What each evaluation needs anew.
enum Kept {
    Import(Import),
    Constant(String),
}

/// An imported module.
#[derive(Debug, Clone)]
pub struct Import {
    /// Its path, as `import` takes it.
    pub path: String,
    /// Its name at the prompt.
    pub alias: String,
}

impl Kept {
    fn import(&self) -> Option<&Import> {
        match self {
            Self::Import(import) => Some(import),
            Self::Constant(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Import(Import { path, alias }) => format!("import {path:?} as {alias};"),
            Self::Constant(name) => format!("const {name} = kept({name:?});"),
        }
    }
}

#[derive(Clone)]
pub(super) struct Chunk {
    name: String,
    /// Lines of the document before it.
    pub after: usize,
    text: String,
    succeeded: bool,
}

impl Chunk {
    /// Turns a place of the document into one of the chunk.
    pub fn locate(&self, frame: &mut Frame) {
        frame.line -= self.after;
        frame.source = self.name.clone();
        frame.text = self.text.clone();
    }
}

/// A variable or constant at hand.
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is a constant.
    pub constant: bool,
    /// Its value.
    pub value: &'a Dynamic,
}

/// Registers what a document calls.
pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    let session = session.clone();
    engine.register_fn("kept", move |name: &str| {
        session.constants.borrow().get(name).cloned().unwrap_or_default()
    });
}

impl Live<'static> {
    /// An empty document over a host.
    pub fn new(mut host: Host) -> Self {
        let session = host.session().clone();
        register(host.engine_mut(), &session);
        Self {
            over: Over::Host(host.into()),
            name: DOCUMENT,
            scope: Scope::new(),
            document: Document::default(),
            around: Around::default(),
        }
    }
}

impl<'e> Live<'e> {
    /// A document over a script that is paused, with what earlier pauses defined.
    pub(super) fn paused(
        engine: &'e Engine,
        session: Rc<Session>,
        mut document: Document,
        around: Around,
    ) -> Self {
        let mut scope = Scope::new();
        for (name, constant, value) in document.variables.drain(..).chain(around.variables.iter().cloned()) {
            let value = if constant { value.into_read_only() } else { value };
            scope.push_dynamic(name, value);
        }
        // the first line of the document is that of the place
        document.lines = document.lines.max(1);
        document.kept.retain(|(line, _)| *line > 1);
        let constants = around.variables.iter().filter(|(_, constant, _)| *constant);
        let constants = constants.map(|(name, ..)| Kept::Constant(name.clone()));
        let there = around.imports.iter().cloned().map(Kept::Import).chain(constants).collect();
        document.kept.insert(0, (1, there));
        let mut live = Self { over: Over::Paused(engine, session), name: PAUSE, scope, document, around };
        live.latest();
        live
    }

    /// Ends a pause: the variables of the script as they are now, and what stays for the next.
    pub(super) fn leave(&mut self) -> (Vec<(String, Dynamic)>, Document) {
        let session = self.session().clone();
        session.sources.borrow_mut().remove(self.name);
        let scope = std::mem::take(&mut self.scope);
        let all: Vec<_> =
            scope.iter_raw().map(|(n, constant, v)| (n.to_owned(), constant, v.clone())).collect();
        let theirs: HashSet<&str> = self.around.variables.iter().map(|(name, ..)| name.as_str()).collect();
        let (theirs, own): (Vec<_>, Vec<_>) =
            all.into_iter().rev().partition(|(name, ..)| theirs.contains(name.as_str()));
        let mut document = std::mem::take(&mut self.document);
        document.variables = own;
        (theirs.into_iter().map(|(name, _, value)| (name, value)).collect(), document)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        match &self.over {
            Over::Host(host) => host.engine(),
            Over::Paused(engine, _) => engine,
        }
    }

    /// What the functions share.
    pub fn session(&self) -> &Rc<Session> {
        match &self.over {
            Over::Host(host) => host.session(),
            Over::Paused(_, session) => session,
        }
    }

    /// Arms the host once a text or a module calls `breakpoint()`.
    fn arm(&mut self, text: &str) {
        if let Over::Host(host) = &mut self.over {
            host.arm(text);
        }
    }

    /// Evaluates a chunk; what it defined before it failed, if it fails, stays.
    ///
    /// # Errors
    /// All that can go wrong in a script; a panic of a host function is caught and told as an internal error.
    pub fn run(&mut self, text: &str) -> Result<Dynamic, Failure> {
        let name = format!("[{}]", self.document.chunks.len() + 1);
        self.evaluate(name, text)
    }

    /// Evaluates a file as a chunk: its variables, functions and imports stay.
    ///
    /// # Errors
    /// A file that cannot be read; otherwise as [`run`](Self::run).
    pub fn run_file(&mut self, path: &Path) -> Result<Dynamic, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| io_error(&e, "read the script", path))?;
        self.session().script.replace(path.to_owned());
        self.evaluate(path.display().to_string(), &text)
    }

    fn evaluate(&mut self, name: String, text: &str) -> Result<Dynamic, Failure> {
        self.arm(text);
        let document = self.text(text);
        let session = self.session().clone();
        session.sources.borrow_mut().insert(self.name.to_owned(), document.clone());
        let after = self.document.lines;
        self.document.lines += text.lines().count().max(1);
        let chunk = Chunk { name, after, text: text.to_owned(), succeeded: false };
        self.document.chunks.push(chunk);
        let outer = session.chunks.replace(Some((self.name, self.document.chunks.clone())));
        let constants = self.scope.iter_raw().filter(|(_, constant, _)| *constant);
        session
            .constants
            .replace(constants.map(|(name, _, value)| (name.to_owned(), value.clone())).collect());
        let mut statements = None;
        let run = || -> Result<Dynamic, Box<EvalAltResult>> {
            let mut ast = self.engine().compile_with_scope(&self.scope, &document)?;
            ast.set_source(self.name);
            resolver::check_names(&session, self.name, &ast)?;
            pause::learn(&session, &ast);
            let functions = &mut self.document.functions;
            *functions = functions.merge(&ast);
            functions.clear_statements();
            functions.set_source(self.name);
            let mut whole = self.around.functions.merge(functions);
            whole.set_source(self.name);
            whole.combine(ast.clone());
            resolver::keep_closures(&session, &ast, whole.shared_lib());
            statements = Some(ast);
            let engine = match &self.over {
                Over::Host(host) => host.engine(),
                Over::Paused(engine, _) => engine,
            };
            engine.eval_ast_with_scope(&mut self.scope, &whole)
        };
        let outcome = catch_unwind(AssertUnwindSafe(run));
        session.in_step.set(false);
        session.chunks.replace(outer);
        session.console().progress_end();
        self.latest();
        if let Some(ast) = statements {
            self.keep(&ast, after, matches!(outcome, Ok(Ok(_))));
        }
        match outcome {
            Ok(Ok(value)) => {
                if let Some(chunk) = self.document.chunks.last_mut() {
                    chunk.succeeded = true;
                }
                Ok(value)
            }
            Ok(Err(error)) => Err(self.explain(*error)),
            Err(panic) => Err(panicked(&*panic).into()),
        }
    }

    /// The document with the new chunk as its last lines.
    fn text(&self, text: &str) -> String {
        let mut lines = vec![String::new(); self.document.lines];
        // a variable may have taken the name of a constant since
        let is_constant = |name: &str| self.scope.iter_raw().any(|(n, constant, _)| n == name && constant);
        let stands = |kept: &&Kept| match kept {
            Kept::Import(_) => true,
            Kept::Constant(name) => is_constant(name),
        };
        for (line, kept) in &self.document.kept {
            lines[line - 1] = kept.iter().filter(stands).map(Kept::text).collect();
        }
        lines.push(text.to_owned());
        lines.join("\n")
    }

    /// Drops what a later definition of the same name hides.
    fn latest(&mut self) {
        let mut seen = HashSet::new();
        let mut latest: Vec<(String, bool, Dynamic)> = Vec::new();
        for (name, constant, value) in self.scope.iter_raw() {
            if seen.insert(name) {
                latest.push((name.to_owned(), constant, value.clone()));
            }
        }
        self.scope = Scope::new();
        for (name, constant, value) in latest.into_iter().rev() {
            if constant {
                self.scope.push_constant_dynamic(name, value);
            } else {
                self.scope.push_dynamic(name, value);
            }
        }
    }

    /// Notes the imports and constants of a chunk; those of a chunk that failed may not have come to pass.
    fn keep(&mut self, ast: &AST, after: usize, succeeded: bool) {
        let alive: HashSet<&str> = self.scope.iter_raw().map(|(name, ..)| name).collect();
        let mut found: Vec<(usize, Kept)> = Vec::new();
        ast.walk(&mut |path| {
            let [ASTNode::Stmt(statement)] = path else { return true };
            let kept = match statement {
                Stmt::Import(import, _) if succeeded => match &**import {
                    (Expr::StringConstant(path, _), alias) => {
                        Kept::Import(Import { path: path.to_string(), alias: alias.name.to_string() })
                    }
                    _ => return true,
                },
                Stmt::Var(var, flags, _) if flags.contains(ASTFlags::CONSTANT) => {
                    let name = var.0.name.as_str();
                    if !alive.contains(name) {
                        return true;
                    }
                    Kept::Constant(name.to_owned())
                }
                _ => return true,
            };
            // lines of earlier chunks hold what is kept already
            if let Some(line) = statement.position().line().filter(|line| *line > after) {
                found.push((line, kept));
            }
            true
        });
        for (line, kept) in found {
            match self.document.kept.last_mut().filter(|(at, _)| *at == line) {
                Some((_, there)) => there.push(kept),
                None => self.document.kept.push((line, vec![kept])),
            }
        }
    }

    fn explain(&self, error: EvalAltResult) -> Failure {
        let session = self.session();
        let mut failure = explain(self.engine(), &session.sources(), self.name, error);
        // functions of the paused script are called as if they stood here
        let mut theirs = false;
        for frame in failure.frames.iter_mut().filter(|frame| frame.source == self.name) {
            let chunks = self.document.chunks.iter().rev();
            if theirs {
                frame.source = self.around.source.clone();
                frame.text = session.sources.borrow().get(&frame.source).cloned().unwrap_or_default();
            } else if let Some(chunk) = chunks.into_iter().find(|chunk| chunk.after < frame.line) {
                chunk.locate(frame);
            }
            let defined = |ast: &AST| ast.iter_functions().any(|f| frame.enters == format!("`{}`", f.name));
            theirs = theirs || defined(&self.around.functions) && !defined(&self.document.functions);
        }
        failure
    }

    /// A value as the prompt shows it.
    pub fn show(&self, value: Dynamic) -> String {
        if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
            return text.to_string();
        }
        let mut scope = Scope::new();
        scope.push_dynamic("value", value);
        self.engine().eval_with_scope::<String>(&mut scope, "value.to_string()").unwrap_or_default()
    }

    /// What a value is, on one line of at most `columns`.
    pub fn describe(&self, value: &Dynamic, columns: usize) -> String {
        let kind = type_of(value);
        let count = value.read_lock::<Map>().map(|map| map.len());
        let count = count.or_else(|| value.read_lock::<Array>().map(|array| array.len()));
        let kind = count.map_or(kind.to_owned(), |count| format!("{kind} of {count}"));
        let text = self.show(value.clone());
        let line = text.lines().next().unwrap_or_default();
        // a host type's text begins with its name
        let text = if line.starts_with(&kind) { line.to_owned() } else { format!("{kind}: {line}") };
        match text.char_indices().nth(columns.saturating_sub(1)) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    /// Variables and constants, the latest first.
    pub fn variables(&self) -> impl Iterator<Item = Variable<'_>> {
        self.scope.iter_raw().map(|(name, constant, value)| Variable { name, constant, value })
    }

    /// The imported modules; of two under one name the later.
    pub fn modules(&self) -> Vec<Import> {
        let all = self.document.kept.iter().flat_map(|(_, kept)| kept).filter_map(Kept::import);
        let mut seen = HashSet::new();
        let mut modules: Vec<Import> =
            all.rev().filter(|import| seen.insert(import.alias.clone())).cloned().collect();
        modules.reverse();
        modules
    }

    /// Names of the functions that chunks defined.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        let all = self.document.functions.iter_functions().chain(self.around.functions.iter_functions());
        all.map(|f| f.name).filter(|name| !name.starts_with("anon$"))
    }

    /// Head and doc comment of the functions of that name in all sources read so far.
    pub fn comments(&self, name: &str) -> Vec<String> {
        let sources = self.session().sources();
        let in_source = |text: &str| -> Vec<String> {
            let lines: Vec<&str> = text.lines().collect();
            let head = |(i, line): (usize, &&str)| {
                let rest = line.trim_start().trim_start_matches("private ").strip_prefix("fn ")?;
                (rest.split('(').next()?.trim() == name).then(|| {
                    let comment =
                        lines[..i].iter().rev().map_while(|line| line.trim_start().strip_prefix("///"));
                    let mut comment: Vec<String> =
                        comment.map(|line| format!("    {}\n", line.trim())).collect();
                    comment.reverse();
                    format!("{}\n{}", rest.trim_end_matches(['{', ' ']), comment.concat())
                        .trim_end()
                        .to_owned()
                })
            };
            lines.iter().enumerate().filter_map(head).collect()
        };
        sources
            .iter()
            .filter(|(source, _)| source != self.name)
            .flat_map(|(_, text)| in_source(text))
            .chain(self.document.chunks.iter().flat_map(|chunk| in_source(&chunk.text)))
            .collect()
    }

    /// The chunks that came to their end, as a script.
    pub fn script(&self) -> String {
        let chunks = self.document.chunks.iter().filter(|chunk| chunk.succeeded);
        chunks.map(|chunk| format!("{}\n", chunk.text.trim_end())).map(|text| closed(&text)).collect()
    }

    /// Forgets the modules, so that the next evaluation reads their files anew.
    pub fn reload(&self) {
        self.session().modules.borrow_mut().clear();
    }
}

/// A chunk may leave out its last semicolon, a script may not; on a line of its own no comment hides it.
fn closed(text: &str) -> String {
    match text.trim_end() {
        whole if whole.is_empty() || whole.ends_with(';') => format!("{whole}\n"),
        whole => format!("{whole}\n;\n"),
    }
}
