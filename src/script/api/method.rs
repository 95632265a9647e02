//! `aggregator(name, options)`: a handle over an aggregator file or function, with its state.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use rhai::{
    AST, ASTNode, Array, Dynamic, Engine, EvalAltResult, Expr, FnPtr, Map, NativeCallContext, Position,
};

use crate::engine::Gradient;
use crate::error::{Error, Result, nearest};
use crate::math::Matrix;
use crate::run::Stateful;

use super::super::call::{Arguments, call};
use super::super::pause;
use super::super::resolver::{self, Source};
use super::super::session::Session;
use super::super::value::{Answer, array, floats, show, type_of};
use super::gradients::{Gradients, preference_weights};
use super::state;

/// A way to combine gradients; copies share its state.
#[derive(Clone)]
pub(super) struct Method(pub Rc<Inner>);

pub(super) struct Inner {
    name: String,
    form: Form,
    code: Code,
    options: Map,
    /// Objectives and state, from the first update on.
    state: RefCell<Option<(usize, Dynamic)>>,
    /// Number of updates that changed the state.
    pub updates: Cell<u64>,
    session: Rc<Session>,
}

/// What the aggregator reads.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `weights(h, w, options[, state])`.
    Weights { stateful: bool },
    /// `direction(gradients, w, options[, state])`.
    Direction { stateful: bool },
}

#[derive(Clone)]
enum Code {
    File(Rc<AST>),
    Closure(FnPtr),
}

impl Form {
    fn stateful(self) -> bool {
        matches!(self, Self::Weights { stateful: true } | Self::Direction { stateful: true })
    }

    fn function(self) -> &'static str {
        match self {
            Self::Weights { .. } => "weights",
            Self::Direction { .. } => "direction",
        }
    }
}

impl Inner {
    pub fn is_stateful(&self) -> bool {
        self.form.stateful()
    }
}

impl Stateful for Inner {
    fn name(&self) -> &str {
        "method"
    }

    fn save(&self, dir: &Path) -> Result<()> {
        state::save(dir, self.state.borrow().as_ref())
    }

    fn restore(&self, dir: &Path) -> Result<()> {
        self.state.replace(state::load(dir)?);
        Ok(())
    }
}

impl Method {
    /// The same method before its first update.
    fn fresh(&self) -> Self {
        let Inner { name, form, code, options, session, .. } = &*self.0;
        Self(Rc::new(Inner {
            name: name.clone(),
            form: *form,
            code: code.clone(),
            options: options.clone(),
            state: RefCell::default(),
            updates: Cell::default(),
            session: session.clone(),
        }))
    }

    fn call(&self, context: &NativeCallContext, function: &str, args: Vec<Dynamic>) -> Answer<Dynamic> {
        const NESTED: usize = 16;
        let depth = &self.0.session.depth;
        if depth.get() >= NESTED {
            return Err(Error::new("aggregators call each other without end")
                .help("let an aggregator call another one only, not itself")
                .into());
        }
        depth.set(depth.get() + 1);
        let result = match &self.0.code {
            Code::File(ast) => {
                let (session, engine) = (&*self.0.session, context.engine());
                let name = ast.source().unwrap_or_default();
                match session.edits.borrow().clone().filter(|edits| edits.knows(name)) {
                    Some(edits) => edits.call(session, engine, name, function, args),
                    None => call(engine, ast, function, args),
                }
            }
            Code::Closure(closure) => closure.call_within_context(context, Arguments(args)),
        };
        depth.set(depth.get() - 1);
        result
    }

    fn update(&self, context: &NativeCallContext, gradients: &Gradients, weights: &Dynamic) -> Answer<Map> {
        let rows = gradients.rows();
        let w = preference_weights(rows.names(), weights)?;
        let reads = match self.0.form {
            Form::Weights { .. } => Dynamic::from(gradients.gramian()?.clone()),
            Form::Direction { .. } => Dynamic::from(gradients.clone()),
        };
        let (mut update, state) = self.apply(context, reads, &w, self.kept(w.len()))?;
        let name = &self.0.name;
        let direction = match self.0.form {
            Form::Weights { .. } => rows.combine(&self.alpha(&update)?)?,
            Form::Direction { .. } => {
                let direction = update.get("direction").and_then(|d| d.clone().try_cast::<Gradient>());
                direction.ok_or_else(|| {
                    Error::new(format!("`{name}` returned no gradient `direction`"))
                        .help("return `#{ direction: ... }`, a vector over all parameters")
                })?
            }
        };
        direction.check_finite(&format!("update of `{name}`"))?;
        update.insert("direction".into(), Dynamic::from(direction));
        self.keep(w.len(), state);
        Ok(update)
    }

    /// What the method makes of a Gramian alone, its rows unknown.
    fn weights(&self, context: &NativeCallContext, h: Matrix, weights: &Array) -> Answer<Map> {
        let m = h.rows();
        let (update, state) = self.weigh(context, h, weights, self.kept(m))?;
        self.keep(m, state);
        Ok(update)
    }

    /// The same from a state given, `()` for the first one, and with the new state: the handle's own takes no part.
    fn weights_from(
        &self,
        context: &NativeCallContext,
        h: Matrix,
        weights: &Array,
        state: Dynamic,
    ) -> Answer<Map> {
        let (mut update, state) = self.weigh(context, h, weights, state)?;
        update.insert("state".into(), state.unwrap_or_default());
        Ok(update)
    }

    fn weigh(
        &self,
        context: &NativeCallContext,
        h: Matrix,
        weights: &Array,
        state: Dynamic,
    ) -> Answer<(Map, Option<Dynamic>)> {
        let name = &self.0.name;
        if !matches!(self.0.form, Form::Weights { .. }) {
            return Err(Error::new(format!(
                "`{name}` reads the gradients by coordinate, a Gramian is not enough"
            ))
            .help("use `method.update(gradients, weights)`, or a method with `weights(h, w, options)`")
            .into());
        }
        let names: Vec<String> = (0..h.rows()).map(|i| i.to_string()).collect();
        let w = preference_weights(&names, &Dynamic::from(weights.clone()))?;
        let (update, state) = self.apply(context, Dynamic::from(h), &w, state)?;
        let alpha = self.alpha(&update)?;
        if alpha.len() != w.len() || alpha.iter().any(|a| !a.is_finite()) {
            return Err(Error::new(format!("`{name}` returned alpha {alpha:?} for {} objectives", w.len()))
                .help("return one finite number an objective")
                .into());
        }
        Ok((update, state))
    }

    /// Calls the file with a state, `()` for the first one: what it returned, with w, and the new state.
    fn apply(
        &self,
        context: &NativeCallContext,
        reads: Dynamic,
        w: &[f64],
        state: Dynamic,
    ) -> Answer<(Map, Option<Dynamic>)> {
        let (name, stateful) = (&self.0.name, self.0.form.stateful());
        let mut args = vec![reads, array(w).into(), self.0.options.clone().into()];
        if stateful {
            let first = || self.call(context, "init", vec![(w.len() as i64).into()]);
            args.push(if state.is_unit() { first()? } else { state });
        }
        let mut update = match self.call(context, self.0.form.function(), args)?.try_cast_result::<Map>() {
            Ok(map) => map,
            Err(value) if value.is_array() => Map::from_iter([("alpha".into(), value)]),
            Err(value) => {
                return Err(Error::new(format!("`{name}` returned {}, expected a map", type_of(&value)))
                    .help("return `#{ alpha: [...] }` from `weights`, `#{ direction: ... }` from `direction`")
                    .into());
            }
        };
        let state = update.remove("state").filter(|_| stateful);
        if stateful && state.is_none() {
            return Err(Error::new(format!("`{name}` returned no `state`"))
                .help("return the new state with the result")
                .into());
        }
        update.insert("w".into(), array(w).into());
        Ok((update, state))
    }

    fn alpha(&self, update: &Map) -> Result<Vec<f64>> {
        let alpha = update.get("alpha").and_then(|a| a.read_lock::<Array>()).ok_or_else(|| {
            Error::new(format!("`{}` returned no array `alpha`", self.0.name))
                .help("return `#{ alpha: [...] }`, one number an objective")
        })?;
        floats(&alpha, "alpha")
    }

    /// State and number of updates.
    pub fn snapshot(&self) -> (Option<(usize, Dynamic)>, u64) {
        (self.0.state.borrow().clone(), self.0.updates.get())
    }

    pub fn put_back(&self, (state, updates): (Option<(usize, Dynamic)>, u64)) {
        self.0.state.replace(state);
        self.0.updates.set(updates);
    }

    /// The state kept for m objectives, `()` before the first update.
    fn kept(&self, m: usize) -> Dynamic {
        let state = self.0.state.borrow();
        state.as_ref().filter(|(len, _)| *len == m).map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn keep(&self, m: usize, state: Option<Dynamic>) {
        if let Some(state) = state {
            self.0.state.replace(Some((m, state)));
            self.0.updates.set(self.0.updates.get() + 1);
        }
    }

    fn show(&self) -> String {
        let options: Vec<String> = self.0.options.iter().map(|(k, v)| format!("{k}: {}", show(v))).collect();
        format!("Method({}{}{})", self.0.name, if options.is_empty() { "" } else { "; " }, options.join(", "))
    }
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<Method>("Method");
    let shared = session.clone();
    engine.register_fn("aggregator", move |context: NativeCallContext, name: &str, options: Map| {
        by_name(&shared, context.engine(), name, options)
    });
    let shared = session.clone();
    engine.register_fn("aggregator", move |context: NativeCallContext, name: &str| {
        by_name(&shared, context.engine(), name, Map::new())
    });
    let shared = session.clone();
    engine.register_fn("aggregator", move |closure: FnPtr, options: Map| {
        Method(Rc::new(Inner {
            name: "closure".into(),
            form: Form::Weights { stateful: false },
            code: Code::Closure(closure),
            options,
            state: RefCell::default(),
            updates: Cell::default(),
            session: shared.clone(),
        }))
    });
    let shared = session.clone();
    engine.register_fn(
        "aggregator_options",
        move |context: NativeCallContext, name: &str| -> Answer<Array> {
            let ast = compile(&shared, context.engine(), &find(&shared, name)?)?;
            Ok(declared_options(&ast).into_iter().map(Dynamic::from).collect())
        },
    );
    let shared = session.clone();
    engine.register_fn("module_options", move |context: NativeCallContext, name: &str| -> Answer<Array> {
        let ast = compile(&shared, context.engine(), &resolver::find(&shared, name)?)?;
        Ok(declared_options(&ast).into_iter().map(Dynamic::from).collect())
    });
    engine.register_fn(
        "update",
        |context: NativeCallContext, method: &mut Method, gradients: Gradients, weights: Dynamic| {
            method.update(&context, &gradients, &weights)
        },
    );
    engine.register_fn("fresh", |method: &mut Method| method.fresh());
    engine.register_fn("weights", |context: NativeCallContext, method: &mut Method, h: Matrix, w: Array| {
        method.weights(&context, h, &w)
    });
    engine.register_fn(
        "weights",
        |context: NativeCallContext, method: &mut Method, h: Matrix, w: Array, state: Dynamic| {
            method.weights_from(&context, h, &w, state)
        },
    );
    engine.register_get("name", |method: &mut Method| method.0.name.clone());
    engine.register_get("options", |method: &mut Method| method.0.options.clone());
    engine.register_get("state", |method: &mut Method| {
        method.0.state.borrow().as_ref().map_or(Dynamic::UNIT, |(_, state)| state.clone())
    });
    engine.register_fn("to_string", |method: &mut Method| method.show());
    engine.register_fn("to_debug", |method: &mut Method| method.show());
}

fn by_name(session: &Rc<Session>, engine: &Engine, name: &str, options: Map) -> Answer<Method> {
    let source = find(session, name)?;
    let ast = compile(session, engine, &source)?;
    let form = form(&ast).map_err(|e| e.in_file(&source.name))?;
    if let Some(edits) = session.edits.borrow().as_ref().filter(|_| !source.is_stdlib()) {
        edits.watch(&source, &ast, Some(Rc::new(move |ast| keeps(form, ast))));
    }
    Ok(Method(Rc::new(Inner {
        name: Path::new(name).file_stem().map_or(name.into(), |stem| stem.to_string_lossy().into_owned()),
        form,
        code: Code::File(Rc::new(ast)),
        options,
        state: RefCell::default(),
        updates: Cell::default(),
        session: session.clone(),
    })))
}

pub(super) fn compile(session: &Session, engine: &Engine, source: &Source) -> Answer<AST> {
    session.sources.borrow_mut().insert(source.name.clone(), source.text.clone());
    let in_file = |error| EvalAltResult::ErrorInModule(source.name.clone(), error, Position::NONE);
    let mut ast = engine.compile(&source.text).map_err(|e| in_file(e.into()))?;
    ast.set_source(&source.name);
    pause::learn(session, &ast);
    Ok(ast)
}

/// The names of the options that an aggregator declares; `None` where there is no such aggregator.
pub(in crate::script) fn options_of(session: &Session, engine: &Engine, name: &str) -> Option<Vec<String>> {
    let ast = compile(session, engine, &find(session, name).ok()?).ok()?;
    Some(declared_options(&ast))
}

/// The keys of the defaults in the file's calls of `options(options, #{ key: default })`.
fn declared_options(ast: &AST) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    ast.walk(&mut |path| {
        if let Some(ASTNode::Expr(Expr::FnCall(call, _))) = path.last()
            && call.name == "options"
        {
            match call.args.get(1) {
                Some(Expr::Map(map, _)) => keys.extend(map.0.iter().map(|(key, _)| key.name.to_string())),
                Some(Expr::DynamicConstant(value, _)) => {
                    keys.extend(
                        value.read_lock::<Map>().iter().flat_map(|m| m.keys()).map(|k| k.to_string()),
                    );
                }
                _ => {}
            }
        }
        true
    });
    keys
}

/// A file of the user's by path or name (also in the working directory), then one of the folder `aggregators`.
pub(in crate::script) fn find(session: &Session, name: &str) -> Result<Source> {
    let is_aggregator =
        |source: &Source| source.text.contains("fn weights(") || source.text.contains("fn direction(");
    let stem = name.strip_suffix(".rhai").unwrap_or(name);
    let own = resolver::find(session, &format!("{stem}.rhai"));
    if let Ok(source) = &own
        && is_aggregator(source)
    {
        return own;
    }
    if let Ok(source) = resolver::find(session, &format!("aggregators/{stem}")) {
        return Ok(source);
    }
    if let Ok(source) = own {
        return Err(Error::new("the file defines neither `weights` nor `direction`")
            .in_file(&source.name)
            .help("define `fn weights(h, w, options)` that returns `#{ alpha: [...] }`"));
    }
    let known = known(session);
    let file = Path::new(stem).file_name().map_or(stem.into(), |file| file.to_string_lossy());
    let near = nearest(&file, known.iter().map(String::as_str));
    let hint = near.first().map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Err(Error::new(format!("unknown aggregator `{name}`"))
        .help(format!("{hint}there are {}; or give the path of a file", known.join(", "))))
}

/// Names of all aggregators: those of the folder `aggregators`, and files of the script's folder that define one.
fn known(session: &Session) -> Vec<String> {
    let mut known: Vec<String> = resolver::names(session, "aggregators/")
        .iter()
        .map(|name| name.trim_start_matches("aggregators/").to_owned())
        .collect();
    let own = resolver::names(session, "").into_iter().filter(|name| !name.contains('/'));
    known.extend(own.filter(|name| {
        resolver::find(session, name).is_ok_and(|s| {
            s.text.contains("fn weights(h, w, options") || s.text.contains("fn direction(gradients")
        })
    }));
    known.sort();
    known.dedup();
    known
}

/// Fails where an edited text has another form than the method in use.
fn keeps(old: Form, ast: &AST) -> Result<()> {
    if form(ast)? == old {
        return Ok(());
    }
    Err(Error::new(format!(
        "the parameters of `{}` are others than when the method was made",
        old.function()
    ))
    .help("stop, and start anew with this file"))
}

fn form(ast: &AST) -> Result<Form> {
    let has =
        |name: &str, params: usize| ast.iter_functions().any(|f| f.name == name && f.params.len() == params);
    let form = match (has("weights", 3), has("weights", 4), has("direction", 3), has("direction", 4)) {
        (true, ..) => Form::Weights { stateful: false },
        (_, true, ..) => Form::Weights { stateful: true },
        (_, _, true, _) => Form::Direction { stateful: false },
        (_, _, _, true) => Form::Direction { stateful: true },
        _ => {
            return Err(Error::new("`weights` or `direction` has not the parameters of an aggregator").help(
                "define `fn weights(h, w, options)`, with a fourth parameter `state` where it keeps one",
            ));
        }
    };
    if form.stateful() && !has("init", 1) {
        return Err(
            Error::new("a stateful aggregator needs `init`").help("define `fn init(m)`: the first state")
        );
    }
    Ok(form)
}
