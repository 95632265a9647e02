//! The script guide tells the truth: its names exist and its example runs.

use std::collections::BTreeSet;
use std::path::Path;

use raco::script::{Host, Options};

fn guide() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scripts.md")).unwrap()
}

#[test]
fn every_name_of_the_reference_is_registered() {
    let mut host = Host::new(Options::default()).unwrap();
    let engine = host.engine_mut();
    let mut known: BTreeSet<String> = engine
        .gen_fn_signatures(true)
        .iter()
        .map(|s| s.split(['(', ' ']).next().unwrap().trim_start_matches("get$").to_owned())
        .collect();
    known.extend(["print".to_owned()]);
    let text = guide();
    let reference =
        text.split("## Reference").nth(1).unwrap().split("## Where Rhai surprises").next().unwrap();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut checked = 0;
    for code in reference.split('`').skip(1).step_by(2) {
        let bare = code.split(' ').all(|w| w.chars().all(word));
        let names: Vec<&str> = if bare {
            code.split(' ').collect()
        } else {
            let end = code
                .trim_start_matches('.')
                .find(|c| !word(c))
                .map_or(code.len(), |i| i + usize::from(code.starts_with('.')));
            vec![code[..end].trim_start_matches('.')]
        };
        for name in names.into_iter().filter(|n| n.len() > 1 && !n.chars().all(|c| c.is_ascii_digit())) {
            // variables of the table's own: a caught error, a map, results, options
            let free = ["map", "responses", "scores", "each", "warmup", "args", "rows"];
            if !free.contains(&name) {
                assert!(known.contains(name), "`{name}` of `{code}` is not registered");
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "only {checked} names were found");
}

#[test]
fn the_example_aggregator_runs() {
    let text = guide();
    let blocks: Vec<&str> = text.split("```rhai\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("half.rhai"), blocks[0]).unwrap();
    let script = folder.path().join("paper.rhai");
    std::fs::write(&script, blocks[1].replace("print(", "").replace(".alpha);", ".alpha")).unwrap();
    let alpha = Host::new(Options::default()).unwrap().run_file(&script).unwrap();
    let alpha: Vec<f64> = alpha.into_typed_array().unwrap();
    // the least-norm point of these two rows is at 1.75/3.25 of the first
    let p = 1.75 / 3.25;
    assert!(
        (alpha[0] - (0.25 + 0.5 * p)).abs() < 1e-12 && (alpha[0] + alpha[1] - 1.0).abs() < 1e-12,
        "{alpha:?}"
    );
}

#[test]
fn the_examples_of_the_data_guide_run() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/data.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = text.split("```rhai\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        if let Err(failure) = Host::new(Options::default()).unwrap().run(block, "data.md") {
            panic!("{failure}\n{block}");
        }
    }
}
