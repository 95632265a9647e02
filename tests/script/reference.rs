//! The reference names every function of the host, and nothing else.

use std::collections::BTreeSet;

use raco::script::{Entry, Host, Options, entries};

fn registered() -> BTreeSet<String> {
    let host = Host::new(Options::default()).unwrap();
    let name = |info: raco::script::rhai::FuncInfo<'_>| Some(info.metadata.name.to_string());
    let names = host.engine().collect_fn_metadata(None, name, false);
    let plain = |name: String| {
        let name = name.strip_prefix("get$").unwrap_or(&name).to_owned();
        let written = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (written && !["to_string", "to_debug"].contains(&name.as_str())).then_some(name)
    };
    names.into_iter().filter_map(plain).collect()
}

#[test]
fn names_every_function_and_no_other() {
    let told: BTreeSet<String> = entries().iter().flat_map(Entry::names).map(str::to_owned).collect();
    let registered = registered();
    let untold: Vec<_> = registered.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&registered).collect();
    assert!(untold.is_empty(), "not in docs/reference/functions: {untold:?}");
    assert!(unknown.is_empty(), "in docs/reference/functions, but not there: {unknown:?}");
}

#[test]
fn every_entry_says_something() {
    for entry in entries() {
        assert!(!entry.signatures.is_empty() && entry.text.len() > 8, "{entry:?}");
    }
}

#[test]
fn its_examples_run() {
    for entry in entries() {
        for example in entry.text.split("```rhai\n").skip(1) {
            let code = example.split("```").next().unwrap();
            let host = Host::new(Options::default()).unwrap();
            if let Err(failure) = host.run(code, "example.rhai") {
                panic!("{:?}: {failure}\n{code}", entry.signatures);
            }
        }
    }
}
