//! scripts/real.rhai on the embedded pairs: both runs, what they leave, and that they go on where they stopped.

use std::fs;
use std::path::Path;

use raco::script::{Host, Options};
use serde_json::Value;

fn run(words: &[&str]) {
    let args = words.iter().map(|word| (*word).to_owned()).collect();
    let host = Host::new(Options { args, ..Options::default() }).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/real.rhai");
    let _ = host.run_file(script).unwrap_or_else(|failure| panic!("{failure}"));
}

fn comparison(folder: &Path) -> (Value, String) {
    let text = fs::read_to_string(folder.join("cagrad_clip/comparison.json")).unwrap();
    (serde_json::from_str(&text).unwrap(), text)
}

/// Radius 0 makes RACO the weighted loss: the same numbers from the same budget.
#[test]
fn the_methods_share_weights_batches_and_budget() {
    for rank in ["--rank=4", "--rank=0"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("real");
        let given = format!("--out={}", out.display());
        run(&[
            &given,
            rank,
            "--c=0",
            "--steps=3",
            "--lr=2e-3",
            "--batch=4",
            "--held_out=0.02",
            "--answers=2",
            "--max_tokens=4",
        ]);
        let (found, text) = comparison(&out);
        let [linear, raco] = ["linear", "cagrad_clip"].map(|name| found["methods"][name].clone());
        assert_eq!(linear, raco, "{rank}");
        assert_eq!(linear["losses"]["quality"].as_array().unwrap().len(), 3);
        assert_eq!(linear["cosines"]["brevity and quality"].as_array().unwrap().len(), 3);
        for name in ["quality", "brevity"] {
            let row = |of: &Value, what: &str| of["rows"][format!("{name} {what}")].as_f64();
            assert!(row(&found["before"], "margin").unwrap().abs() < 1e-4);
            assert_eq!(row(&found["before"], "accuracy"), None);
            assert!(row(&linear["after"], "margin").unwrap().abs() > 1e-3);
            assert!((0.0..=1.0).contains(&row(&linear["after"], "accuracy").unwrap()));
        }
        assert!(out.join("cagrad_clip/losses.svg").exists() && out.join("cagrad_clip/cosines.svg").exists());
        let again = format!("--resume={}", out.join("cagrad_clip").display());
        run(&[&again]);
        assert_eq!(comparison(&out).1, text);
    }
}
