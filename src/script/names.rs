//! What can stand at a place of a line: functions, members of a value, modules.

use std::any::TypeId;
use std::collections::BTreeSet;

use rhai::{Dynamic, Engine, Map};

use super::live::Live;
use super::reference::{Entry, entries};
use super::{resolver, suggest};

/// Words of the language.
pub const KEYWORDS: [&str; 24] = [
    "let", "const", "fn", "private", "if", "else", "for", "in", "while", "loop", "do", "until", "break",
    "continue", "return", "throw", "try", "catch", "import", "export", "as", "switch", "true", "false",
];

/// Names and signatures of the functions that a host knows.
pub struct Names {
    functions: Vec<Function>,
}

struct Function {
    name: String,
    first: Option<TypeId>,
    signature: String,
}

impl Names {
    /// The functions of an engine.
    pub fn new(engine: &Engine) -> Self {
        let function = |info: rhai::FuncInfo<'_>| {
            let name = info.metadata.name.to_string();
            let written = name.starts_with(|c: char| c.is_ascii_alphabetic());
            written.then(|| Function {
                name,
                first: info.metadata.param_types.first().copied(),
                signature: suggest::tidy(
                    &info.metadata.gen_signature(|kind| engine.map_type_name(kind).into()),
                ),
            })
        };
        Self { functions: engine.collect_fn_metadata(None, function, true) }
    }

    /// How a function is written, as the reference or its definition has it; else its parameters' types.
    pub fn signatures(&self, live: &Live, name: &str) -> Vec<String> {
        let own = suggest::script_functions(&live.session().sources());
        let own = own.into_iter().filter(|signature| signature.split('(').next() == Some(name));
        let of = |entry: &Entry| -> Vec<String> {
            let named = entry.names().zip(&entry.signatures).filter(|(known, _)| *known == name);
            named.map(|(_, signature)| signature.clone()).collect()
        };
        let told: BTreeSet<String> = entries().iter().flat_map(of).chain(own).collect();
        if !told.is_empty() {
            return told.into_iter().collect();
        }
        let host = self.functions.iter().filter(|f| f.name == name).map(|f| f.signature.clone());
        host.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Variables, functions, modules and keywords that begin with `start`.
    pub fn words(&self, live: &Live, start: &str) -> Vec<String> {
        let mut found: BTreeSet<String> = self
            .functions
            .iter()
            .filter(|f| !f.name.contains('$') && f.name != "kept")
            .map(|f| format!("{}(", f.name))
            .collect();
        found.extend(live.variables().map(|variable| variable.name.to_owned()));
        found.extend(live.modules().into_iter().map(|module| format!("{}::", module.alias)));
        found.extend(live.functions().map(|name| format!("{name}(")));
        found.extend(KEYWORDS.map(str::to_owned));
        found.into_iter().filter(|word| word.starts_with(start)).collect()
    }

    /// Keys, fields and methods of the value that a path of names such as `lab.policy` leads to.
    pub fn members(&self, live: &Live, path: &str, start: &str) -> Vec<String> {
        let Some(value) = value(live, path) else { return Vec::new() };
        let mut found = BTreeSet::new();
        if let Some(map) = value.read_lock::<Map>() {
            found.extend(map.keys().map(ToString::to_string));
        }
        for function in self.functions.iter().filter(|f| f.first == Some(value.type_id())) {
            match function.name.split_once('$') {
                None => found.insert(format!("{}(", function.name)),
                Some(("get", field)) => found.insert(field.to_owned()),
                Some(_) => false,
            };
        }
        found.into_iter().filter(|word| word.starts_with(start)).collect()
    }

    /// Functions of an imported module.
    pub fn of_module(&self, live: &Live, alias: &str, start: &str) -> Vec<String> {
        let modules = live.modules();
        let Some(module) = modules.iter().rfind(|module| module.alias == alias) else { return Vec::new() };
        let Ok(source) = resolver::find(live.session(), &module.path) else { return Vec::new() };
        let open = source.text.lines().filter(|line| line.starts_with("fn ")).map(str::to_owned);
        let names = open.filter_map(|line| Some(format!("{}(", line[3..].split('(').next()?.trim())));
        names.filter(|name| name.starts_with(start)).collect()
    }

    /// Paths that `import` takes.
    pub fn modules(live: &Live, start: &str) -> Vec<String> {
        resolver::names(live.session(), start)
    }
}

/// The value at a path of names through maps.
fn value(live: &Live, path: &str) -> Option<Dynamic> {
    let mut parts = path.split('.');
    let first = parts.next()?;
    let mut value = live.variables().find(|variable| variable.name == first)?.value.clone();
    for part in parts {
        let next = value.read_lock::<Map>()?.get(part)?.clone();
        value = next;
    }
    Some(value)
}
