//! Runs every case of `suite/*.rhai` in a fresh host.
//!
//! Cases of a file are parted by lines `// --- name`. A case says what it expects in comments:
//!
//! - `// args: --key value` are its arguments, `$TMP` an empty folder
//! - `// prints: text` each line it prints, in order
//! - `// error: LINE:COLUMN text` (lines count from the name of the case) the error, by a part of its text; without it the case must succeed
//! - `// help: text` a part of the error's help

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use raco::script::rhai::EvalAltResult;
use raco::script::{Console, Host, Options};

#[derive(Default)]
struct Record(RefCell<Vec<String>>);

impl Console for Record {
    fn print(&self, text: &str) {
        self.0.borrow_mut().extend(text.lines().map(str::to_owned));
    }

    fn progress(&self, _done: usize, _total: usize, _message: &str) {}

    fn progress_end(&self) {}

    fn width(&self) -> Option<usize> {
        None
    }
}

/// Cases by name; lines of a case count from 1 after its name.
fn cases(text: &str) -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("// --- "), cases.last_mut()) {
            (Some(name), _) => cases.push((name.to_owned(), String::new())),
            (None, Some((_, case))) => *case += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    cases
}

fn expected<'a>(case: &'a str, key: &str) -> Vec<&'a str> {
    case.lines().filter_map(|line| line.strip_prefix(&format!("// {key}: "))).collect()
}

fn run(path: &Path, case: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let args = expected(case, "args").join(" ").replace("$TMP", folder.path().to_str().unwrap());
    let console = Rc::new(Record::default());
    let mut host = Host::new(Options {
        lib: vec![path.parent().unwrap().join("lib")],
        args: args.split_whitespace().map(str::to_owned).collect(),
        console: console.clone(),
        ..Options::default()
    })
    .map_err(|e| e.to_string())?;
    host.engine_mut().register_fn("assert", |holds: bool| -> Result<(), Box<EvalAltResult>> {
        if holds { Ok(()) } else { Err("assertion failed".into()) }
    });
    let close = |a: f64, b: f64| -> Result<(), Box<EvalAltResult>> {
        let near = (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()));
        if near { Ok(()) } else { Err(format!("{a} is not close to {b}").into()) }
    };
    host.engine_mut().register_fn("assert_close", close);
    let outcome = host.run(case, "case.rhai");
    let printed = console.0.borrow().clone();
    let prints = expected(case, "prints");
    match (outcome, expected(case, "error").first()) {
        (Err(failure), None) => return Err(format!("failed: {failure}")),
        (Ok(_), Some(error)) => return Err(format!("succeeded, expected `{error}`")),
        (Err(failure), Some(error)) => {
            let (place, text) = error.split_once(' ').unwrap();
            let found = failure.frames.iter().find(|f| f.source == "case.rhai");
            let found = found.map_or("nowhere".to_owned(), |f| format!("{}:{}", f.line, f.column));
            if found != place || !failure.error.what().contains(text) {
                return Err(format!("error is {found} {}", failure.error));
            }
            let help = failure.error.help_text().unwrap_or_default();
            if let Some(missing) = expected(case, "help").iter().find(|h| !help.contains(**h)) {
                return Err(format!("help is `{help}`, without `{missing}`"));
            }
        }
        (Ok(_), None) => {}
    }
    if !prints.is_empty() && printed != prints {
        return Err(format!("printed {printed:?}"));
    }
    Ok(())
}

#[test]
fn every_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/script/suite");
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "rhai")) {
        let text = std::fs::read_to_string(path).unwrap();
        for (name, case) in cases(&text) {
            count += 1;
            if let Err(error) = run(path, &case) {
                let file = path.file_name().unwrap().to_str().unwrap();
                wrong.push(format!("{file}, {name}: {error}"));
            }
        }
    }
    assert!(count > 60, "only {count} cases were found");
    assert!(wrong.is_empty(), "{} of {count} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}
