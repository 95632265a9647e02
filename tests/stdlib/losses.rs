//! Each loss and its gradient by the log-probs against torch (golden/losses.py), on the same numbers.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use raco::script::{Host, Options};
use rhai::serde::{from_dynamic, to_dynamic};
use serde::Deserialize;
use serde_json::{Value, json};

/// The loss of the case on paper, where everything but the labels and lengths is given.
const SCRIPT: &str = r#"
    import "losses/" + golden().loss as loss;
    let policy = load_model(model());
    let pairs = load_preferences(rows(), policy, #{ objectives: ["a", "b", "c"] });
    let given = golden().values;
    let results = #{};
    for name in ["a", "b", "c", "d"] {
        let real = pairs.batch();
        let none = name == "d";
        let chosen = variable(given.chosen);
        let rejected = variable(given.rejected);
        let log_probs = #{ chosen: chosen, rejected: rejected, margin: chosen - rejected };
        let batch = #{
            objectives: [name],
            sign: |name| if none { tensor([0, 0, 0, 0, 0, 0, 0, 0]) } else { real.sign(name) },
            mean: |name, values| if none { values.sum() * 0.0 } else { real.mean(name, values) },
            chosen_lengths: real.chosen_lengths, rejected_lengths: real.rejected_lengths,
            reference_chosen: tensor(given.reference_chosen), reference_rejected: tensor(given.reference_rejected),
            reference_margin: tensor(given.reference_chosen) - tensor(given.reference_rejected),
        };
        let found = loss::losses(log_probs, batch, golden().options)[name];
        results[name] = #{ loss: found.value, chosen: found.derivative(chosen), rejected: found.derivative(rejected) };
    }
    results
"#;

#[derive(Deserialize)]
struct Found {
    loss: f64,
    chosen: Vec<f64>,
    rejected: Vec<f64>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("tests/golden/losses.json")).unwrap()).unwrap()
}

/// Rows of token ids with the labels and lengths of the golden file.
fn write_rows(golden: &Value, path: &Path) {
    let mut text = String::new();
    for i in 0..8 {
        let ids = |side: &str| vec![5; golden["lengths"][side][i].as_u64().unwrap() as usize];
        let label = |name: &str| golden["labels"][name][i].clone();
        let row = json!({
            "prompt_ids": [4], "chosen_ids": ids("chosen"), "rejected_ids": ids("rejected"),
            "objectives": { "a": label("a"), "b": label("b"), "c": label("c") },
        });
        writeln!(text, "{row}").unwrap();
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn losses_and_gradients_are_those_of_torch() {
    let golden = golden();
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    write_rows(&golden, &rows);
    let mut tried = BTreeSet::new();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["loss"].as_str().unwrap();
        let given = json!({
            "loss": name, "options": case["options"], "values": golden["sets"][case["set"].as_str().unwrap()],
        });
        let mut host = Host::new(Options::default()).unwrap();
        let given = to_dynamic(given).unwrap();
        let (rows, model) = (path(&rows), path(&root().join("tests/golden/qwen3_tied")));
        host.engine_mut()
            .register_fn("golden", move || given.clone())
            .register_fn("rows", move || rows.clone())
            .register_fn("model", move || model.clone());
        let found = host.run(SCRIPT, "case.rhai").unwrap_or_else(|f| panic!("{f} in {case}"));
        let found = found.cast::<rhai::Map>();
        for (objective, found) in found {
            let found: Found = from_dynamic(&found).unwrap();
            let expected: Found =
                serde_json::from_value(case["expected"][objective.as_str()].clone()).unwrap();
            let at = format!("{name} {} of `{objective}` in the set {}", case["options"], case["set"]);
            close(&[found.loss], &[expected.loss], &format!("loss of {at}"));
            close(&found.chosen, &expected.chosen, &format!("gradient by chosen of {at}"));
            close(&found.rejected, &expected.rejected, &format!("gradient by rejected of {at}"));
        }
        tried.insert(name.to_owned());
    }
    let files = std::fs::read_dir(root().join("stdlib/losses")).unwrap();
    let all: BTreeSet<String> =
        files.map(|f| f.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(tried, all, "each loss of the library has a golden value");
}

fn path(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let far = (found - expected).abs();
        assert!(far <= 1e-10 * expected.abs() + 1e-13 * scale, "{what}: {found}, torch has {expected}");
    }
}

/// Options that a loss cannot use, and what it says.
#[test]
fn bad_options_are_refused() {
    for (name, options, expected) in [
        ("dpo_smoothed", "smoothing: 0.5", "`smoothing` must be in [0, 1/2), found `0.5`"),
        ("dpo_robust", "smoothing: -0.1", "`smoothing` must be in [0, 1/2), found `-0.1`"),
        ("ipo", "beta: 0", "`beta` must be positive, found `0.0`"),
        ("dpo", "betta: 0.2", "unknown option `betta`"),
        ("orpo", "lambda: 0.2", "unknown option `lambda`"),
    ] {
        let script = format!("import \"losses/{name}\" as loss; loss::losses((), (), #{{ {options} }})");
        let failure = Host::new(Options::default()).unwrap().run(&script, "case.rhai").unwrap_err();
        assert!(failure.error.what().starts_with(expected), "{name}: {failure}");
    }
}
