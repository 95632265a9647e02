//! Modules: the script's folder, each `--lib DIR`, then the embedded stdlib.

use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;

use include_dir::{Dir, include_dir};
use rhai::{AST, ASTNode, Engine, EvalAltResult, Expr, Module, Position, Scope, Shared, Stmt};

use crate::error::{Error, nearest};

use super::session::Session;
use super::{edits, pause};

/// The embedded standard library; a file of the same name in the script's folder or a `--lib` folder wins.
pub static STDLIB: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/stdlib");

/// A module's name for positions, and its text.
pub(crate) struct Source {
    pub name: String,
    pub text: String,
}

impl Source {
    /// True of a file that raco brings.
    pub fn is_stdlib(&self) -> bool {
        self.name.starts_with("stdlib/")
    }
}

/// Finds the source of a module.
///
/// # Errors
/// A file that cannot be read, a module that does not exist (with the nearest names).
pub(crate) fn find(session: &Session, path: &str) -> crate::Result<Source> {
    if let Some(own) = locate(session, path) {
        let text =
            std::fs::read_to_string(&own).map_err(|e| crate::error::io_error(&e, "read the module", &own))?;
        return Ok(Source { name: own.display().to_string(), text });
    }
    let file = file_name(path);
    if let Some(text) = STDLIB.get_file(&file).and_then(|f| f.contents_utf8()) {
        return Ok(Source { name: format!("stdlib/{file}"), text: text.to_owned() });
    }
    let known = names(session, "");
    let near = nearest(path, known.iter().map(String::as_str));
    let help = match near.first() {
        Some(name) => format!("did you mean `{name}`?"),
        None => "modules are looked for in the script's folder, each `--lib DIR`, then stdlib".to_owned(),
    };
    Err(Error::new(format!("module `{path}` not found")).help(help))
}

fn file_name(path: &str) -> String {
    if path.ends_with(".rhai") { path.to_owned() } else { format!("{path}.rhai") }
}

/// The user's own file of a module, if there is one.
pub(crate) fn locate(session: &Session, path: &str) -> Option<PathBuf> {
    let file = file_name(path);
    let folders = std::iter::once(session.folder()).chain(session.lib.iter().cloned());
    // a path with its ending, as the command line gives it, also counts from the working directory
    let direct = path.ends_with(".rhai").then(|| PathBuf::from(path));
    folders.map(|folder| folder.join(&file)).chain(direct).find(|candidate| candidate.is_file())
}

/// What `import` takes for a module whose source has this name.
pub(crate) fn path_of(name: &str) -> &str {
    match name.strip_prefix("stdlib/") {
        Some(own) => own.strip_suffix(".rhai").unwrap_or(own),
        None => name,
    }
}

/// Names of all modules that begin with `prefix`, sorted.
pub(crate) fn names(session: &Session, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<&Dir> = vec![&STDLIB];
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs());
        found.extend(folder.files().map(|f| f.path().to_owned()));
    }
    for root in std::iter::once(session.folder()).chain(session.lib.iter().cloned()) {
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        let mut folders = vec![(root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() && depth < 2 {
                    folders.push((path, depth + 1));
                } else if let Ok(path) = path.strip_prefix(&root) {
                    found.push(path.to_owned());
                }
            }
        }
    }
    let mut names: Vec<String> = found
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rhai"))
        .map(|p| p.with_extension("").display().to_string().replace('\\', "/"))
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Resolves, compiles and keeps modules.
pub(crate) struct Resolver {
    session: Rc<Session>,
}

impl Resolver {
    pub fn new(session: Rc<Session>) -> Self {
        Self { session }
    }
}

impl rhai::ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        path: &str,
        pos: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let located = |error: Error| {
            let mut error: Box<EvalAltResult> = error.into();
            error.set_position(pos);
            error
        };
        let source = find(&self.session, path).map_err(located)?;
        match self.session.modules.borrow().get(&source.name) {
            Some(Some(module)) => return Ok(module.clone()),
            Some(None) => {
                return Err(located(
                    Error::new(format!("module `{path}` imports itself, directly or through others"))
                        .help("move what both need into a third module"),
                ));
            }
            None => {}
        }
        let name = source.name.clone();
        self.session.sources.borrow_mut().insert(name.clone(), source.text.clone());
        self.session.modules.borrow_mut().insert(name.clone(), None);
        let compiled = || {
            let (ast, module) = module(&self.session, engine, &source)?;
            Ok::<_, Box<EvalAltResult>>(match &*self.session.edits.borrow() {
                Some(edits) if !source.is_stdlib() => {
                    edits.watch(&source, &ast, None);
                    edits::stand_in(&self.session, edits, &source, &ast, &module).into()
                }
                _ => module,
            })
        };
        match compiled() {
            Ok(module) => {
                self.session.modules.borrow_mut().insert(name, Some(module.clone()));
                Ok(module)
            }
            Err(error) => {
                self.session.modules.borrow_mut().remove(&name);
                Err(EvalAltResult::ErrorInModule(name, error, pos).into())
            }
        }
    }
}

/// Compiles a source and evaluates what stands outside its functions.
///
/// # Errors
/// Whatever is wrong with it.
pub(crate) fn module(
    session: &Session,
    engine: &Engine,
    source: &Source,
) -> Result<(AST, Shared<Module>), Box<EvalAltResult>> {
    let mut ast = engine.compile(&source.text)?;
    ast.set_source(&source.name);
    check_names(session, &source.name, &ast)?;
    pause::learn(session, &ast);
    let module = Shared::new(Module::eval_ast_as_new(Scope::new(), &ast, engine)?);
    keep_closures(session, &ast, &module);
    Ok((ast, module))
}

/// Notes the closures of a source, so that they can be called from others; `module` has its functions.
pub(crate) fn keep_closures(session: &Session, ast: &AST, module: &Shared<Module>) {
    let closures = ast.iter_functions().filter(|f| f.name.starts_with("anon$"));
    session.closures.borrow_mut().extend(closures.map(|f| (f.name.to_owned(), module.clone())));
}

/// Refuses two sources that each call a function of their own by the same name.
///
/// Rhai keeps one table of resolved calls for all modules, by name and number of arguments: the function that was
/// called first would run in place of the other.
///
/// # Errors
/// The name and both sources.
pub(crate) fn check_names(session: &Session, source: &str, ast: &AST) -> crate::Result<()> {
    let own: HashSet<(&str, usize)> = ast.iter_functions().map(|f| (f.name, f.params.len())).collect();
    let mut called = Vec::new();
    ast.walk(&mut |path| {
        if let Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) = path.last()
            && !call.is_qualified()
            && own.contains(&(call.name.as_str(), call.args.len()))
        {
            called.push((call.name.to_string(), call.args.len()));
        }
        true
    });
    let mut known = session.own_calls.borrow_mut();
    for (name, count) in called {
        let first = known.entry((name.clone(), count)).or_insert_with(|| source.to_owned());
        if first != source {
            return Err(Error::new(format!(
                "`{first}` and `{source}` both call a function `{name}` of their own"
            ))
            .help("rename one of them: Rhai would run the first in place of the second"));
        }
    }
    Ok(())
}
