//! The reference names every function of the host, and nothing else.

use std::collections::BTreeSet;

use raco::script::{Entry, Host, Options, definitions, entries};

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

/// Rhai reads no definition files itself: their lines have the form that it writes, and name what it writes.
#[test]
fn definitions_hold_every_function_with_its_text() {
    let host = Host::new(Options::default()).unwrap();
    let files = definitions(host.engine());
    let heads = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("fn "));
        let plain = |line: &str| {
            let (name, rest) = line.split_once('(').unwrap();
            let count = rest.split(')').next().unwrap().split(": ").count();
            format!("{name} {count}")
        };
        lines.map(plain).filter(|head| !head.starts_with("to_") && !head.contains('$')).collect()
    };
    let (name, own) = &files[0];
    assert_eq!(name, "raco.d.rhai");
    let rhai = host.engine().definitions().include_standard_packages(false).single_file();
    let rhai: BTreeSet<String> = heads(&rhai).into_iter().filter(|head| !head.starts_with("set ")).collect();
    assert_eq!(heads(own), rhai);
    for (path, text) in &files {
        let form = |line: &str| {
            line.is_empty()
                || line.starts_with("//")
                || line.starts_with("module ") && line.ends_with(';')
                || line.starts_with("fn ")
                    && line.ends_with(';')
                    && line.contains(") -> ")
                    && !line.replace("->", "").contains(['<', '>', '&', '/'])
        };
        let odd = text.lines().find(|line| !form(line));
        assert!(odd.is_none(), "{path}: {odd:?}");
        assert!(text.contains("module "), "{path}");
    }
    let clip = "fn clip(p: Array, w: Array) -> Array;";
    assert!(own.contains(clip), "{}", own.lines().find(|line| line.contains(" clip(")).unwrap());
    let told = own.lines().zip(own.lines().skip(1)).filter(|(_, line)| line.starts_with("fn "));
    for (before, line) in told {
        assert!(before.starts_with("///"), "without a text: {line}");
    }
    assert!(
        files
            .iter()
            .any(|(path, text)| path == "losses/dpo.d.rhai" && text.contains("fn losses(log_probs: ?"))
    );
}
