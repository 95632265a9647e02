//! Calls: names, numbers of arguments, options.

use std::collections::{HashMap, HashSet};

use rhai::{AST, ASTNode, Expr, FnCallExpr, Map, Position, Stmt};

use crate::error::{Error, nearest};

use super::super::api::aggregator_options;
use super::super::options::options_of;
use super::super::suggest;
use super::super::value::unknown;
use super::{File, Module};

/// Functions that the language itself answers, whatever their arguments.
const LANGUAGE: [&str; 10] =
    ["call", "curry", "Fn", "type_of", "is_shared", "is_def_var", "is_def_fn", "print", "debug", "eval"];

/// Names and numbers of arguments that can be called.
struct Known {
    host: HashMap<String, HashSet<usize>>,
    own: HashSet<(String, usize)>,
    keys: HashSet<String>,
}

struct Call {
    name: String,
    /// The module before `::`, as the file calls it.
    module: Option<String>,
    args: usize,
    method: bool,
    at: Position,
    /// Keys of the last argument, where that is a map in the text.
    options: Vec<(String, Position)>,
    /// The first argument, where that is a string in the text.
    first: Option<String>,
}

pub(super) fn check(file: &mut File, ast: &AST, modules: &HashMap<String, Option<Module>>) {
    let mut calls = Vec::new();
    ast.walk(&mut |path| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at))) => {
                calls.extend(read(call, false, *at));
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => calls.extend(read(call, true, *at)),
            _ => {}
        }
        true
    });
    let mut known = Known {
        host: HashMap::new(),
        own: ast.iter_functions().map(|f| (f.name.to_owned(), f.params.len())).collect(),
        keys: file.keys(),
    };
    let functions =
        |info: rhai::FuncInfo<'_>| Some((info.metadata.name.to_string(), info.metadata.param_types.len()));
    for (name, count) in file.host.engine().collect_fn_metadata(None, functions, true) {
        known.host.entry(name).or_default().insert(count);
    }
    for call in calls {
        let error = match &call.module {
            Some(alias) => qualified(&call, alias, modules),
            None => plain(file, &known, &call),
        };
        match error {
            Some(error) => file.report(call.at, error),
            None => options(file, &known, &call),
        }
    }
}

fn read(call: &FnCallExpr, method: bool, at: Position) -> Option<Call> {
    let written = call.name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if call.op_token.is_some() || !written || call.name.starts_with("anon$") {
        return None;
    }
    let names: Vec<&str> = call.namespace.path.iter().map(|part| part.name.as_str()).collect();
    let module = match names[..] {
        [] => None,
        ["global"] => return None,
        [module] => Some(module.to_owned()),
        _ => return None,
    };
    let options = match call.args.last() {
        Some(Expr::Map(map, _)) => map.0.iter().map(|(key, _)| (key.name.to_string(), key.pos)).collect(),
        Some(Expr::DynamicConstant(value, _)) => {
            let map = value.read_lock::<Map>();
            map.iter().flat_map(|map| map.keys()).map(|key| (key.to_string(), at)).collect()
        }
        _ => Vec::new(),
    };
    let first = match call.args.first() {
        Some(Expr::StringConstant(text, _)) => Some(text.to_string()),
        _ => None,
    };
    let name = call.name.to_string();
    Some(Call { name, module, args: call.args.len(), method, at, options, first })
}

fn qualified(call: &Call, alias: &str, modules: &HashMap<String, Option<Module>>) -> Option<Error> {
    let Some(known) = modules.get(alias) else {
        let near = nearest(alias, modules.keys().map(String::as_str)).first().map(|near| (*near).to_owned());
        let error = Error::new(format!("module `{alias}` is not imported"));
        return Some(match near {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!("write `import \"path\" as {alias};` above")),
        });
    };
    let Module { path, functions } = known.as_ref()?;
    let counts: Vec<usize> = functions.iter().filter(|(name, _)| *name == call.name).map(|f| f.1).collect();
    if counts.contains(&call.args) {
        return None;
    }
    if !counts.is_empty() {
        return Some(arity(&format!("{alias}::{}", call.name), call.args, counts));
    }
    let error = unknown("function", &call.name, functions.iter().map(|(name, _)| name.as_str()));
    let help = error.help_text().map(str::to_owned);
    let error = Error::new(format!("module `{path}` has no function `{}`", call.name));
    Some(match help {
        Some(help) => error.help(help),
        None => error.help("define it there, without `private`"),
    })
}

fn plain(file: &File, known: &Known, call: &Call) -> Option<Error> {
    let name = call.name.as_str();
    if LANGUAGE.contains(&name) {
        return None;
    }
    // a method hands the value before its dot to a host function as the first argument, to a script's as `this`
    let given = call.args + usize::from(call.method);
    let host = known.host.get(name);
    if host.is_some_and(|counts| counts.contains(&given))
        || known.own.contains(&(call.name.clone(), call.args))
    {
        return None;
    }
    if call.method && known.keys.contains(name) {
        return None;
    }
    let own = known.own.iter().filter(|(own, _)| own == name).map(|(_, count)| *count);
    let shift = usize::from(call.method);
    let host = host.into_iter().flatten().filter_map(|count| count.checked_sub(shift));
    let counts: Vec<usize> = own.chain(host).collect();
    if !counts.is_empty() {
        return Some(arity(name, call.args, counts));
    }
    let what = if call.method { "method" } else { "function" };
    let error = Error::new(format!("{what} `{name}` not found"));
    let sources = file.host.session().sources();
    Some(match suggest::function(file.host.engine(), &sources, name).1 {
        Some(help) => error.help(help),
        None => {
            error.help("`raco doc` lists the functions; a closure in a variable is called by `name.call(…)`")
        }
    })
}

fn arity(name: &str, given: usize, mut counts: Vec<usize>) -> Error {
    counts.sort_unstable();
    counts.dedup();
    let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
    let given = match given {
        1 => "1 argument".to_owned(),
        n => format!("{n} arguments"),
    };
    let plain = name.rsplit("::").next().unwrap_or(name);
    Error::new(format!("`{name}` is given {given}, expected {}", counts.join(" or ")))
        .help(format!("`raco doc {plain}` or its definition tells what it takes"))
}

/// Keys that a function does not take.
fn options(file: &mut File, known: &Known, call: &Call) {
    if call.options.is_empty() || call.module.is_some() || known.own.contains(&(call.name.clone(), call.args))
    {
        return;
    }
    // with fewer arguments the map is another one, such as the losses of `jacobian(losses)`
    let most = known.host.get(&call.name).and_then(|counts| counts.iter().max());
    if most != Some(&(call.args + usize::from(call.method))) {
        return;
    }
    let declared = || -> Option<Vec<String>> {
        let name = call.first.as_deref().filter(|_| call.name == "aggregator" && call.args == 2)?;
        // a method that reads its options itself declares none
        aggregator_options(file.host.session(), file.host.engine(), name).filter(|keys| !keys.is_empty())
    };
    let keys: Vec<String> = match options_of(&call.name) {
        Some(keys) => keys.iter().map(|key| (*key).to_owned()).collect(),
        None => match declared() {
            Some(keys) => keys,
            None => return,
        },
    };
    for (key, at) in call.options.iter().filter(|(key, _)| !keys.contains(key)) {
        let error = unknown("option", key, keys.iter().map(String::as_str));
        let help = error.help_text().unwrap_or_default().to_owned();
        file.report(*at, Error::new(format!("{} of `{}`", error.what(), call.name)).help(help));
    }
}
