//! What is wrong in a script, found without running it.

mod calls;
mod variables;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use rhai::{AST, ASTNode, Expr, ParseErrorType, Position, Stmt};

use crate::error::{Error, Result, io_error};

use super::failure::{Failure, Frame, explain};
use super::host::{Host, Options};
use super::resolver;

/// What is wrong in a file, in the order of its lines; empty where nothing is.
///
/// What only a run can tell is left out: closures in variables, functions in maps, the types of arguments.
///
/// # Errors
/// A file that cannot be read.
pub fn lint(path: impl AsRef<Path>, options: Options) -> Result<Vec<Failure>> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| io_error(&e, "read the script", path))?;
    let mut host = Host::new(options)?;
    host.session().script.replace(path.to_owned());
    let name = path.display().to_string();
    host.session().sources.borrow_mut().insert(name.clone(), text.clone());
    let (ast, undefined) = match host.engine().compile(&text) {
        Ok(ast) => (ast, false),
        Err(error) => {
            // names that are not defined leave the rest readable
            let readable =
                matches!(*error.0, ParseErrorType::VariableUndefined(_) | ParseErrorType::ModuleUndefined(_));
            host.engine_mut().set_strict_variables(false);
            match host.engine().compile(&text) {
                Ok(ast) if readable => (ast, true),
                _ => return Ok(vec![explain(host.engine(), &host.session().sources(), &name, error.into())]),
            }
        }
    };
    let mut file = File { host, name, text, found: BTreeMap::new() };
    let modules = file.modules(&ast);
    calls::check(&mut file, &ast, &modules);
    variables::check(&mut file, &ast, undefined);
    Ok(file.found.into_values().flatten().collect())
}

/// A file that is read, and what was found in it.
struct File {
    host: Host,
    name: String,
    text: String,
    found: BTreeMap<(usize, usize), Vec<Failure>>,
}

/// The functions of an imported module that importers can call.
struct Module {
    path: String,
    functions: Vec<(String, usize)>,
}

impl File {
    fn report(&mut self, at: Position, error: Error) {
        let (line, column) = (at.line().unwrap_or(1), at.position().unwrap_or(1));
        let frame =
            Frame { source: self.name.clone(), line, column, enters: String::new(), text: self.text.clone() };
        self.found.entry((line, column)).or_default().push(Failure { error, frames: vec![frame] });
    }

    /// The modules that the file imports, by their name in it; `None` where the functions cannot be known.
    fn modules(&mut self, ast: &AST) -> HashMap<String, Option<Module>> {
        let mut imports = Vec::new();
        ast.walk(&mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, pos))) = path.last() {
                let constant = match &import.0 {
                    Expr::StringConstant(path, at) => Some((path.to_string(), *at)),
                    _ => None,
                };
                imports.push((import.1.name.to_string(), constant, *pos));
            }
            true
        });
        let mut modules: HashMap<String, Option<Module>> = HashMap::new();
        for (alias, constant, pos) in imports {
            let module =
                constant.and_then(|(path, at)| self.module(&path, if at.is_none() { pos } else { at }));
            // two imports by one name: which of them a call means is not looked into
            let module = if modules.contains_key(&alias) { None } else { module };
            modules.insert(alias, module);
        }
        modules
    }

    fn module(&mut self, path: &str, at: Position) -> Option<Module> {
        let source = match resolver::find(self.host.session(), path) {
            Ok(source) => source,
            Err(error) => {
                self.report(at, error);
                return None;
            }
        };
        self.host.session().sources.borrow_mut().insert(source.name.clone(), source.text.clone());
        match self.host.engine().compile(&source.text) {
            Ok(ast) => {
                let open = ast
                    .iter_functions()
                    .filter(|f| f.access == rhai::FnAccess::Public && !f.name.contains('$'));
                let functions = open.map(|f| (f.name.to_owned(), f.params.len())).collect();
                Some(Module { path: path.to_owned(), functions })
            }
            Err(error) => {
                let inner =
                    explain(self.host.engine(), &self.host.session().sources(), &source.name, error.into());
                self.report(
                    at,
                    Error::new(format!("module `{path}` cannot be read: {inner}"))
                        .help(format!("`raco check {}` shows the place", source.name)),
                );
                None
            }
        }
    }

    /// All keys of maps in the sources read: what such a name calls may be a function in a map.
    fn keys(&self) -> HashSet<String> {
        let mut keys = HashSet::new();
        for (_, text) in self.host.session().sources() {
            for (i, _) in text.match_indices(':') {
                let before = text[..i].trim_end().trim_end_matches('"');
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let start = before.trim_end_matches(word).len();
                keys.insert(before[start..].to_owned());
            }
            for (i, _) in text.match_indices('=') {
                let before = text[..i].trim_end();
                if let Some((_, last)) = before.rsplit_once('.') {
                    keys.insert(last.to_owned());
                }
            }
        }
        keys
    }
}
