//! Live edit: files of the user's that a script imports, or names as aggregators, are read anew between two steps.
//!
//! A script binds what it imports when it starts, so a watched file is imported as a module of stand-ins: each calls
//! the function of its name in the newest text that works.

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FnAccess, FuncRegistration, Module, NativeCallContext, RhaiFunc,
    Shared,
};

use crate::error::{Error, Result};
use crate::run;

use super::call::call;
use super::failure::explain;
use super::resolver::{self, Source};
use super::session::Session;
use super::value::Answer;

/// Levels of functions of watched files that call each other; each has a stack of its own in Rhai.
const LEVELS: usize = 32;

/// The watched files, by the name of their source, which is their path.
#[derive(Default)]
pub(super) struct Edits {
    files: RefCell<BTreeMap<String, File>>,
    /// Files whose edited text works since the last row of the log.
    fresh: RefCell<Vec<String>>,
    level: Cell<usize>,
    /// A step has begun since the last look.
    due: Cell<bool>,
}

/// What a text has to fulfil to be taken.
type Check = Rc<dyn Fn(&AST) -> Result<()>>;

struct File {
    stamp: Option<Stamp>,
    now: Version,
    /// The version before an edit that has not run yet.
    before: Option<Version>,
    checks: Vec<Check>,
}

/// Time and length of a file, which tell most edits without a look into it.
type Stamp = (SystemTime, u64);

#[derive(Clone)]
struct Version {
    text: String,
    ast: Rc<AST>,
}

fn stamp(name: &str) -> Option<Stamp> {
    let data = std::fs::metadata(name).ok()?;
    Some((data.modified().ok()?, data.len()))
}

impl Edits {
    /// Watches a file from this text on; `check` says of another text whether it can take the place.
    pub fn watch(&self, source: &Source, ast: &AST, check: Option<Check>) {
        let mut files = self.files.borrow_mut();
        let file = files.entry(source.name.clone()).or_insert_with(|| {
            let now = Version { text: source.text.clone(), ast: Rc::new(ast.clone()) };
            File { stamp: stamp(&source.name), now, before: None, checks: Vec::new() }
        });
        file.checks.extend(check);
    }

    /// Counts as edited what differs from the text that a run kept of it.
    ///
    /// # Errors
    /// As `kept`.
    pub fn compare(&self, kept: impl Fn(&str) -> Result<Option<String>>) -> Result<()> {
        for (name, file) in &*self.files.borrow() {
            if kept(name)?.is_some_and(|text| text != file.now.text) {
                self.fresh.borrow_mut().push(name.clone());
            }
        }
        Ok(())
    }

    /// A step begins: what it calls first looks for edits, so that one text holds from there to its end.
    pub fn look_at_next_call(&self) {
        self.due.set(true);
    }

    /// True of a file that is watched.
    pub fn knows(&self, name: &str) -> bool {
        self.files.borrow().contains_key(name)
    }

    /// Takes over what was edited since the last look; a text that cannot be taken is told.
    fn look(&self, session: &Session, engine: &Engine) {
        let names: Vec<String> = self.files.borrow().keys().cloned().collect();
        for name in names {
            let (last, checks, old) = {
                let files = self.files.borrow();
                let Some(file) = files.get(&name) else { continue };
                (file.stamp, file.checks.clone(), file.now.clone())
            };
            let now = stamp(&name);
            // an editor may be about to write it again
            if now.is_none() || now == last {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&name) else { continue };
            let outcome = (text != old.text).then(|| read(session, engine, &name, &text, &checks));
            let mut files = self.files.borrow_mut();
            let Some(file) = files.get_mut(&name) else { continue };
            file.stamp = now;
            match outcome {
                None => {}
                Some(Ok(ast)) => {
                    session.sources.borrow_mut().insert(name.clone(), text.clone());
                    file.before = Some(old);
                    file.now = Version { text, ast: Rc::new(ast) };
                    let mut fresh = self.fresh.borrow_mut();
                    fresh.retain(|known| *known != name);
                    fresh.push(name.clone());
                }
                Some(Err(told)) => session.console().print(&told),
            }
        }
    }

    /// Calls a function of a watched file; an edit whose first call fails is told and undone.
    pub fn call(
        &self,
        session: &Session,
        engine: &Engine,
        name: &str,
        function: &str,
        args: Vec<Dynamic>,
    ) -> Answer<Dynamic> {
        if self.level.get() >= LEVELS {
            return Err(Error::new(format!("watched files call each other more than {LEVELS} levels deep"))
                .help("let the recursion end, or use a loop")
                .into());
        }
        if self.due.replace(false) {
            self.look(session, engine);
        }
        self.level.set(self.level.get() + 1);
        let result = self.call_newest(session, engine, name, function, args);
        self.level.set(self.level.get() - 1);
        result
    }

    fn call_newest(
        &self,
        session: &Session,
        engine: &Engine,
        name: &str,
        function: &str,
        args: Vec<Dynamic>,
    ) -> Answer<Dynamic> {
        let (now, before) = {
            let files = self.files.borrow();
            let file = files
                .get(name)
                .ok_or_else(|| Error::internal(format!("`{name}` is called, but not watched")))?;
            (file.now.clone(), file.before.clone())
        };
        let Some(before) = before else { return call(engine, &now.ast, function, args) };
        let outcome = call(engine, &now.ast, function, args.clone());
        if matches!(&outcome, Err(error) if matches!(**error, EvalAltResult::ErrorTerminated(..))) {
            return outcome;
        }
        let Err(error) = outcome else {
            if let Some(file) = self.files.borrow_mut().get_mut(name) {
                file.before = None;
            }
            return outcome;
        };
        session.console().print(&told(session, engine, name, *error));
        session.sources.borrow_mut().insert(name.to_owned(), before.text.clone());
        if let Some(file) = self.files.borrow_mut().get_mut(name) {
            file.before = None;
            file.now = before.clone();
        }
        self.fresh.borrow_mut().retain(|known| known != name);
        call(engine, &before.ast, function, args)
    }

    /// The files edited since the last row, with their texts.
    pub fn take(&self) -> Vec<run::Source> {
        let files = self.files.borrow();
        let names = self.fresh.take().into_iter();
        names
            .filter_map(|name| Some(run::Source { text: files.get(&name)?.now.text.clone(), name }))
            .collect()
    }
}

/// Reads an edited text, or says why it is not taken.
fn read(
    session: &Session,
    engine: &Engine,
    name: &str,
    text: &str,
    checks: &[Check],
) -> std::result::Result<AST, String> {
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    let (ast, _) = resolver::module(session, engine, &source).map_err(|error| {
        let mut sources = session.sources();
        sources.retain(|(known, _)| known != name);
        sources.push((name.to_owned(), text.to_owned()));
        refused(&explain(engine, &sources, name, *error).to_string())
    })?;
    checks.iter().try_for_each(|check| check(&ast)).map_err(|error| refused(&format!("{name}: {error}")))?;
    Ok(ast)
}

fn told(session: &Session, engine: &Engine, name: &str, error: EvalAltResult) -> String {
    refused(&explain(engine, &session.sources(), name, error).to_string())
}

fn refused(why: &str) -> String {
    format!("note: an edit is not taken, the text before it goes on: {why}")
}

/// A module whose functions call the newest text of a watched file; what else it exports is as it was imported.
pub(super) fn stand_in(
    session: &Rc<Session>,
    edits: &Rc<Edits>,
    source: &Source,
    ast: &AST,
    module: &Module,
) -> Module {
    let name = &source.name;
    let mut stand_in = Module::new();
    stand_in.set_id(name.as_str());
    for (variable, value) in module.iter_var() {
        stand_in.set_var(variable, value.clone());
    }
    let open = ast.iter_functions().filter(|f| f.access == FnAccess::Public && !f.name.starts_with("anon$"));
    for function in open {
        let (session, edits) = (session.clone(), edits.clone());
        let (name, called) = (name.clone(), function.name.to_owned());
        let run = move |context: Option<NativeCallContext>, args: &mut [&mut Dynamic]| -> Answer<Dynamic> {
            let context = context.ok_or_else(|| Error::internal("a call without a context"))?;
            let args = args.iter().map(|value| (**value).clone()).collect();
            edits.call(&session, context.engine(), &name, &called, args)
        };
        let func =
            RhaiFunc::Method { func: Shared::new(run), has_context: true, is_pure: true, is_volatile: true };
        let types = vec![TypeId::of::<Dynamic>(); function.params.len()];
        FuncRegistration::new(function.name).set_into_module_raw(&mut stand_in, types, func);
    }
    stand_in.build_index();
    stand_in
}
