//! Definition files for editors: what the registrations know of types, and what the reference says.

use std::collections::BTreeSet;

use rhai::{Engine, FnAccess};

use super::doc::modules;
use super::header::Header;
use super::reference::{Entry, entries};
use super::suggest::tidy;

/// A function as it is registered: `get$` begins the name of a property.
struct Function {
    name: String,
    types: Vec<String>,
    result: String,
}

/// The definition files: their paths, and their texts in Rhai's format.
///
/// `raco.d.rhai` holds the functions of the host, the others one module of the library each.
pub fn definitions(engine: &Engine) -> Vec<(String, String)> {
    let mut files = vec![("raco.d.rhai".to_owned(), host(engine))];
    files.extend(modules(&[]).into_iter().map(|(path, text)| {
        let definition = module(engine, &path, text);
        (format!("{path}.d.rhai"), definition)
    }));
    files
}

fn host(engine: &Engine) -> String {
    let entries = entries();
    let function = |info: rhai::FuncInfo<'_>| {
        let name = info.metadata.name.to_string();
        let plain = name.strip_prefix("get$").unwrap_or(&name);
        let written = plain.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (written && !["to_string", "to_debug"].contains(&plain)).then(|| {
            let signature = tidy(&info.metadata.gen_signature(|kind| engine.map_type_name(kind).into()));
            let call = signature.split(" -> ").next().unwrap_or_default();
            let types = call.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
            let types = types.split(", ").filter(|kind| !kind.is_empty()).map(kind).collect();
            Function { name, types, result: result(engine, &info.metadata.return_type) }
        })
    };
    let functions = engine.collect_fn_metadata(None, function, false);
    let lines: BTreeSet<(String, String)> = functions
        .iter()
        .map(|function| (function.name.trim_start_matches("get$").to_owned(), written(function, &entries)))
        .collect();
    let texts: Vec<String> = lines.into_iter().map(|(_, text)| text).collect();
    format!("module static;\n\n{}", texts.join("\n"))
}

/// The definition with what the reference says of it.
fn written(function: &Function, entries: &[Entry]) -> String {
    let (name, property) = match function.name.strip_prefix("get$") {
        Some(name) => (name, true),
        None => (function.name.as_str(), false),
    };
    // overloads are told in one entry: the signature with as many parameters names them
    let named = entries.iter().filter(|entry| entry.names().any(|known| known == name));
    let signatures = named.clone().flat_map(|entry| &entry.signatures);
    let names = signatures
        .filter(|signature| signature.contains('(') != property)
        .map(|signature| parameters(signature))
        .find(|(known, names)| known == name && names.len() == function.types.len())
        .map(|(_, names)| names);
    let parameter = |(i, kind): (usize, &String)| {
        let name = names.as_ref().map_or("_", |names| names[i].as_str());
        format!("{name}: {kind}")
    };
    let parameters: Vec<String> = function.types.iter().enumerate().map(parameter).collect();
    let text = named.map(|entry| comment(&entry.text)).collect::<Vec<_>>().join("///\n");
    let get = if property { "get " } else { "" };
    format!("{text}fn {get}{name}({}) -> {};\n", parameters.join(", "), function.result)
}

/// The name and parameters of `value.name(a, b)` or `name(a, b)`; the value counts as a parameter.
fn parameters(signature: &str) -> (String, Vec<String>) {
    let (call, rest) = signature.split_once('(').unwrap_or((signature, ""));
    let (value, name) = call.rsplit_once('.').map_or((None, call), |(value, name)| (Some(value), name));
    let rest = rest.trim_end_matches(')').split(',').map(str::trim).filter(|name| !name.is_empty());
    let word = |name: &str| {
        let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if plain.starts_with(|c: char| c.is_ascii_alphabetic()) { plain } else { "_".to_owned() }
    };
    (name.to_owned(), value.into_iter().chain(rest).map(word).collect())
}

fn module(engine: &Engine, path: &str, text: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let header = Header::parse(text);
    let summary =
        if header.name.is_empty() { header.summary } else { format!("{}: {}", header.name, header.summary) };
    let mut file = format!("// {summary}\nmodule {name};\n");
    let Ok(ast) = engine.compile(text) else { return file };
    let mut functions: Vec<_> = ast.iter_functions().collect();
    functions.retain(|f| f.access == FnAccess::Public && !f.name.contains('$'));
    functions.sort_by_key(|f| (f.name, f.params.len()));
    for function in functions {
        let parameters: Vec<String> = function.params.iter().map(|name| format!("{name}: ?")).collect();
        let comments: String = function.comments.iter().map(|line| format!("{line}\n")).collect();
        file += &format!("\n{comments}fn {}({}) -> ?;\n", function.name, parameters.join(", "));
    }
    file
}

/// What a function gives: of one that can fail, `core::result::Result<TYPE, alloc::boxed::Box<…>>`, the type.
fn result(engine: &Engine, written: &str) -> String {
    let whole = written.split_once("Result<").map_or(written, |(_, rest)| rest);
    let mut depth = 0;
    let end = whole.find(|c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth < 0 || depth == 0 && c == ','
    });
    let named = engine.map_type_name(whole[..end.unwrap_or(whole.len())].trim());
    let plain = named.split('<').next().unwrap_or(named);
    match plain.rsplit("::").next().unwrap_or(plain) {
        "" => "()".to_owned(),
        "i64" => "int".to_owned(),
        "f64" => "float".to_owned(),
        "str" | "ImmutableString" => "String".to_owned(),
        "Dynamic" | "Option" => "?".to_owned(),
        "Vec" => "Array".to_owned(),
        "BTreeMap" => "Map".to_owned(),
        other => kind(other),
    }
}

/// A type as definition files write it.
fn kind(tidy: &str) -> String {
    match tidy.rsplit("::").next().unwrap_or(tidy) {
        "string" => "String".to_owned(),
        "array" => "Array".to_owned(),
        "map" => "Map".to_owned(),
        "Fn" => "FnPtr".to_owned(),
        other => other.to_owned(),
    }
}

fn comment(text: &str) -> String {
    text.lines().map(|line| format!("/// {line}").trim_end().to_owned() + "\n").collect()
}
