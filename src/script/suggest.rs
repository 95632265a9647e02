//! Calls that Rhai finds no function for: closures of other modules, ints where floats are meant, and otherwise
//! the nearest name.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use rhai::{Dynamic, Engine, EvalContext, NativeCallContext, Position};

use crate::error::nearest;

use super::session::Session;
use super::value::{Answer, number};

type Signatures = HashMap<String, Vec<Vec<TypeId>>>;

/// Parameter types of all host functions by name; filled when first needed.
pub(crate) type Known = Rc<RefCell<Option<Signatures>>>;

/// Answers calls that Rhai finds no function for.
///
/// A closure made in one module and called in another is found among the modules. And `sqrt(2)` and other host
/// functions of floats take ints: Rhai calls back after every failed host function, so the call is tried again
/// only where no function takes the given types and one takes floats in place of ints.
pub(crate) fn register(engine: &mut Engine, known: &Known, session: &Rc<Session>) {
    let (known, session) = (known.clone(), session.clone());
    #[allow(deprecated)] // not deprecated, but subject to change: rhai is pinned
    engine.on_missing_function(move |name, args, method, mut context| {
        let Some(module) = session.closures.borrow().get(name).cloned() else {
            return retry(&known, name, args, &context);
        };
        // with another number of arguments the frame below would only call back here
        if module.get_script_fn(name, args.len() - usize::from(method)).is_none() {
            return Ok(None);
        }
        let mut frame = context.new_frame().with_new_caching_layer().with_namespace(module);
        frame.call_fn_raw(name, method, method, args).map(Some)
    });
}

fn retry(
    known: &Known,
    name: &str,
    args: &mut [&mut Dynamic],
    context: &EvalContext,
) -> Answer<Option<Dynamic>> {
    if !args.iter().any(|a| a.is_int()) {
        return Ok(None);
    }
    let floats: Vec<bool> = {
        let mut known = known.borrow_mut();
        let known = known.get_or_insert_with(|| signatures(context.engine()));
        let Some(overloads) = known.get(name) else { return Ok(None) };
        let fits = |types: &&Vec<TypeId>, int_as_float: bool| {
            types.len() == args.len()
                && types.iter().zip(args.iter()).all(|(&wanted, given)| {
                    wanted == TypeId::of::<Dynamic>()
                        || wanted == given.type_id()
                        || int_as_float && given.is_int() && wanted == TypeId::of::<f64>()
                })
        };
        if overloads.iter().any(|types| fits(&types, false)) {
            return Ok(None);
        }
        let Some(types) = overloads.iter().find(|types| fits(types, true)) else { return Ok(None) };
        types.iter().zip(args.iter()).map(|(&t, a)| a.is_int() && t == TypeId::of::<f64>()).collect()
    };
    let mut values: Vec<Dynamic> = Vec::with_capacity(args.len());
    for (arg, &float) in args.iter().zip(&floats) {
        let value = (**arg).clone();
        values.push(if float { number(&value).map_or(value, Dynamic::from) } else { value });
    }
    let mut values: Vec<&mut Dynamic> = values.iter_mut().collect();
    if let (Some(first), Some(this)) = (values.first_mut(), args.first_mut())
        && !this.is_int()
    {
        *first = this;
    }
    let global = context.global_runtime_state();
    let call: NativeCallContext = (context.engine(), name, global.source(), global, Position::NONE).into();
    call.call_native_fn_raw(name, true, &mut values).map(Some)
}

fn signatures(engine: &Engine) -> Signatures {
    let all = engine.collect_fn_metadata(
        None,
        |info| Some((info.metadata.name.to_string(), info.metadata.param_types.to_vec())),
        true,
    );
    let mut known = Signatures::new();
    all.into_iter().for_each(|(name, types)| known.entry(name).or_default().push(types));
    known
}

/// What to do about a call that no function takes: `signature` is `name (type, type)`.
pub(crate) fn function(
    engine: &Engine,
    sources: &[(String, String)],
    signature: &str,
) -> (String, Option<String>) {
    let (name, types) = signature.split_once(" (").unwrap_or((signature, ""));
    let types = types.strip_suffix(')').unwrap_or(types);
    let plain = name.rsplit("::").next().unwrap_or(name).trim();
    let types = types
        .replace("&str | ImmutableString | String", "string")
        .replace("i64", "int")
        .replace("f64", "float");
    if !plain.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return (format!("`{plain}` does not work for ({types})"), None);
    }
    let what = if types.is_empty() {
        format!("function `{name}` without arguments not found")
    } else {
        format!("function `{name}` with ({types}) not found")
    };
    let scripted = script_functions(sources);
    let signatures: Vec<String> = engine
        .gen_fn_signatures(true)
        .into_iter()
        .chain(scripted.iter().cloned())
        .filter(|s| !s.contains('$'))
        .collect();
    let name_of = |s: &str| s.split(['(', ' ']).next().unwrap_or_default().to_owned();
    let same: BTreeSet<&str> =
        signatures.iter().filter(|s| name_of(s) == plain).map(String::as_str).collect();
    if !same.is_empty() {
        let list: Vec<String> = same.into_iter().take(4).map(|s| format!("`{}`", tidy(s))).collect();
        return (what, Some(format!("there is {}", list.join(", "))));
    }
    let names: BTreeSet<String> = signatures.iter().map(|s| name_of(s)).collect();
    let near = nearest(plain, names.iter().map(String::as_str));
    let help = near.first().map(|near| {
        let same: BTreeSet<String> =
            signatures.iter().filter(|s| name_of(s) == *near).map(|s| format!("`{}`", tidy(s))).collect();
        format!("did you mean {}?", same.into_iter().take(4).collect::<Vec<_>>().join(", "))
    });
    (what, help)
}

/// A signature as a user reads it.
pub(crate) fn tidy(signature: &str) -> String {
    let (call, result) = match signature.split_once(" -> ") {
        Some((call, result)) => (call, Some(result)),
        None => (signature, None),
    };
    let plain = |text: &str| {
        text.replace("&mut ", "")
            .replace("&str", "string")
            .replace("ImmutableString", "string")
            .replace("i64", "int")
            .replace("f64", "float")
            .replace("Dynamic", "?")
            .replace("_: ", "")
    };
    // a function that can fail returns `core::result::TYPE,alloc::boxed::Box<…>`, in Rhai's spelling
    let result =
        result.map(|r| r.strip_prefix("core::result::").and_then(|r| r.split(',').next()).unwrap_or(r));
    let result = result.map(|r| plain(r.rsplit("::").next().unwrap_or(r)));
    match result {
        Some(result) if result != "()" => format!("{} -> {result}", plain(call)),
        _ => plain(call),
    }
}

/// `name(parameters)` of the functions that the sources define.
pub(crate) fn script_functions(sources: &[(String, String)]) -> Vec<String> {
    let define = |line: &str| {
        let rest = line.trim_start();
        let rest = rest.strip_prefix("private ").unwrap_or(rest).strip_prefix("fn ")?;
        let end = rest.find(')')?;
        Some(rest[..=end].trim().to_owned())
    };
    sources.iter().flat_map(|(_, text)| text.lines().filter_map(define)).collect()
}

/// The nearest word that the sources use as a map key or a variable.
pub(crate) fn word(sources: &[(String, String)], wanted: &str) -> Option<String> {
    let mut words = BTreeSet::new();
    for (_, text) in sources {
        let (mut rest, mut previous) = (text.as_str(), "");
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let tail = &rest[start..];
            let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
            let next = tail[end..].trim_start();
            let declared = previous == "let" || previous == "const";
            if tail[..end] != *wanted && (declared || next.starts_with(':') && !next.starts_with("::")) {
                words.insert(tail[..end].to_owned());
            }
            (previous, rest) = (&tail[..end], &tail[end..]);
        }
    }
    nearest(wanted, words.iter().map(String::as_str)).first().map(|near| (*near).to_owned())
}
