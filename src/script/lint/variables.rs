//! Variables: those that nothing reads, and those that nothing defines.

use std::collections::{BTreeMap, HashSet};

use rhai::{AST, ASTFlags, ASTNode, Expr, Position, Stmt};

use crate::error::{Error, nearest};

use super::File;

pub(super) fn check(file: &mut File, ast: &AST, undefined: bool) {
    let mut top = Body { top: true, ..Body::default() };
    for statement in ast.statements() {
        statement.walk(&mut Vec::new(), &mut |path| top.visit(path));
    }
    top.report(file, undefined);
    for function in ast.iter_functions() {
        let only = |_: rhai::FnNamespace, _: rhai::FnAccess, name: &str, params: usize| {
            name == function.name && params == function.params.len()
        };
        let mut body = Body::default();
        body.params.extend(function.params.iter().map(|name| (*name).to_owned()));
        let mut alone = ast.clone_functions_only();
        alone.retain_functions(only);
        alone.walk(&mut |path| body.visit(path));
        body.report(file, undefined);
    }
}

/// The names of the top level or of a function, taken together: a variable counts as read where any of its name is.
#[derive(Default)]
struct Body {
    top: bool,
    params: Vec<String>,
    defined: BTreeMap<String, Position>,
    read: HashSet<String>,
    unknown: Vec<(String, Position)>,
}

impl Body {
    fn visit(&mut self, path: &[ASTNode]) -> bool {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, flags, _))) => {
                // constants of a module are there for its importers and, as `global::NAME`, for its functions
                let constant = self.top && path.len() == 1 && flags.contains(ASTFlags::CONSTANT);
                if !constant && !flags.contains(ASTFlags::EXPORTED) {
                    self.defined.entry(var.0.name.to_string()).or_insert(var.0.pos);
                }
            }
            Some(ASTNode::Stmt(Stmt::Export(names, _))) => {
                self.read.insert(names.0.name.to_string());
            }
            Some(ASTNode::Expr(expr @ Expr::Variable(variable, short, at))) => {
                let assigned = matches!(path.iter().rev().nth(1), Some(ASTNode::Stmt(Stmt::Assignment(a)))
                    if std::ptr::eq(&a.1.lhs, *expr));
                if !assigned {
                    self.read.insert(variable.1.to_string());
                }
                if variable.0.is_none() && short.is_none() && variable.2.path.is_empty() {
                    self.unknown.push((variable.1.to_string(), *at));
                }
            }
            _ => {}
        }
        true
    }

    fn report(self, file: &mut File, undefined: bool) {
        for (name, at) in &self.defined {
            if !name.starts_with('_') && !self.read.contains(name) {
                let error = Error::new(format!("variable `{name}` is never read"))
                    .help(format!("remove it, or write `_{name}` where that is meant"));
                file.report(*at, error);
            }
        }
        for (name, at) in self.unknown.iter().filter(|_| undefined) {
            let error = Error::new(format!("variable `{name}` not found"));
            let known = self.defined.keys().chain(&self.params).map(String::as_str);
            file.report(
                *at,
                match nearest(name, known).first() {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help(
                        "functions see no outer variables: pass it as an argument, or use a `const` through `global::`",
                    ),
                },
            );
        }
    }
}
