//! `raco check FILE`: what a script does wrong, told without running it.

use std::path::{Path, PathBuf};

use raco::script::{Options, lint};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
}

/// `line: what` of all that is found.
fn found(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rhai");
    std::fs::write(&path, text).unwrap();
    let findings = lint(&path, Options::default()).unwrap();
    findings.iter().map(|f| format!("{}: {}", f.frames[0].line, f.error.what())).collect()
}

#[test]
fn nothing_is_found_in_the_library_and_the_scripts() {
    let mut all = Vec::new();
    ["stdlib", "scripts"].iter().for_each(|folder| files(&root().join(folder), "rhai", &mut all));
    assert!(all.len() > 40);
    for file in all {
        let findings = lint(&file, Options::default()).unwrap();
        assert!(findings.is_empty(), "{}: {}", file.display(), findings[0]);
    }
}

#[test]
fn every_mistake_is_told_at_its_line() {
    let text = r#"import "tasks/sumaries" as t;
import "tasks/summaries" as s;
let unused = 3;
let opt = adamw(load_model("x", #{ dtpe: "bf16" }), #{ lr: 1e-3, bettas: [0.9, 0.99] });
let h = matrx([[1.0]]);
print(clip(1.0));
s::nothing(3);
s::quality(1, 2, 3, 4, 5, 6);
print(h.layerz());
let m = aggregator("cagrad_clip", #{ cc: 0.4 });
fn g(a) { let q = 1; a }
g(1, 2);
print(opt.lr + m.name);
"#;
    let mut told = found(text);
    told.retain(|line| !line.starts_with("8: `s::quality` is given 6 arguments, expected "));
    assert_eq!(
        told,
        [
            "1: module `tasks/sumaries` not found",
            "3: variable `unused` is never read",
            "4: unknown option `dtpe` of `load_model`",
            "4: unknown option `bettas` of `adamw`",
            "5: function `matrx` not found",
            "6: `clip` is given 1 argument, expected 2",
            "7: module `tasks/summaries` has no function `nothing`",
            "9: method `layerz` not found",
            "10: unknown option `cc` of `aggregator`",
            "11: variable `q` is never read",
            "12: `g` is given 2 arguments, expected 1",
        ]
    );
    assert_eq!(
        found("let x = 1;\nprint(y + x);\nprint(z);"),
        ["2: variable `y` not found", "3: variable `z` not found"]
    );
    assert_eq!(found("let x = 1;\nlet = 3;\n").len(), 1);
}

#[test]
fn what_only_a_run_can_tell_is_left_alone() {
    let text = r#"
const EXPORTED = 1;
let k = #{ fun: |x| x, "other": |x| 2 * x };
k.late = |a, b| a + b;
let scale = 2;
let f = |x| scale * x;
let _meant = 3;
fn doubled() { this * 2 }
fn later(x) { global::EXPORTED + x }
print(k.fun(1) + k.other(2) + k.late(1, 2) + f.call(3) + 4.doubled() + later(1));
let options = #{ anything: 1 };
print(options);
let text = "a";
print(`${text}`);
let log_probs = ();
if false { jacobian(#{ anything: log_probs }); }
fn weights(h, w, options) { #{ alpha: w } }
"#;
    assert_eq!(found(text), Vec::<String>::new());
}

/// A function with options that the table lacks would go unchecked.
#[test]
fn the_table_of_options_knows_every_function_with_options() {
    let table = std::fs::read_to_string(root().join("src/script/options.rs")).unwrap();
    let mut sources = Vec::new();
    files(&root().join("src/script/api"), "rs", &mut sources);
    let mut seen = 0;
    for source in sources {
        for part in std::fs::read_to_string(&source).unwrap().split("Opts::new(\"").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(table.contains(&format!("\"{name}\",")), "`{name}` is missing in src/script/options.rs");
            seen += 1;
        }
    }
    assert!(seen > 10);
}
