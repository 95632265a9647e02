//! rhai 1.27 keeps one cache of resolved calls for all modules: an unqualified call to a function of a module's own runs
//! another module's function of the same name and number of arguments if that was called before. And a method call runs
//! the module's own function of that name. So neither may occur in the standard library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rhai::{ASTNode, Engine, Expr, Stmt};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rhai") {
            found.push(path);
        }
    }
}

type Names = BTreeSet<(String, usize)>;

/// Own functions that a file calls without a module's name, and those that share the name of a method it calls.
fn own_calls(engine: &Engine, text: &str) -> (Names, Names) {
    let ast = engine.compile(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let own: Names = ast
        .iter_functions()
        .filter(|f| !f.name.starts_with("anon$"))
        .map(|f| (f.name.to_owned(), f.params.len()))
        .collect();
    let (mut plain, mut methods) = (BTreeSet::new(), BTreeSet::new());
    ast.walk(&mut |path| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)))
                if !call.is_qualified() =>
            {
                plain.insert((call.name.to_string(), call.args.len()));
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, _))) => {
                methods.insert((call.name.to_string(), call.args.len()));
            }
            _ => {}
        }
        true
    });
    (plain.intersection(&own).cloned().collect(), methods.intersection(&own).cloned().collect())
}

#[test]
fn functions_that_modules_call_have_names_of_their_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = Engine::new();
    let mut paths = Vec::new();
    for folder in ["stdlib", "scripts/data"] {
        files(&root.join(folder), &mut paths);
    }
    let mut callers: BTreeMap<(String, usize), Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (plain, methods) = own_calls(&engine, &text);
        assert!(methods.is_empty(), "{}: also methods: {methods:?}", path.display());
        for name in plain {
            callers.entry(name).or_default().push(path.clone());
        }
    }
    assert!(callers.contains_key(&("mentions".to_owned(), 2)), "the walk finds calls");
    callers.retain(|_, paths| paths.len() > 1);
    assert!(callers.is_empty(), "called unqualified in several modules: {callers:#?}");
}

#[test]
fn the_check_sees_a_clash() {
    let engine = Engine::new();
    let text = "fn helper(a) { a } fn sample(a, b) { helper(a) } fn f(rng) { || rng.sample(1, 2) }";
    let (plain, methods) = own_calls(&engine, text);
    assert_eq!(plain.into_iter().collect::<Vec<_>>(), [("helper".to_owned(), 1)]);
    assert_eq!(methods.into_iter().collect::<Vec<_>>(), [("sample".to_owned(), 2)]);
}
