//! scripts/inspect_step.rhai against the same step in torch (golden/step/make.py), number by number.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use raco::script::{Host, Options};
use serde_json::{Map, Value};

/// The golden step with what raco found for it, for each case of a model.
fn steps(name: &str) -> Vec<(Value, Value)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read_to_string(golden.join(format!("step/{name}.json"))).unwrap();
    let steps: Value = serde_json::from_str(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let reference = folder.path().join("reference");
    fs::create_dir(&reference).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden.join(name).join(file), reference.join(file)).unwrap();
    }
    fs::copy(golden.join(format!("step/{name}.safetensors")), reference.join("model.safetensors")).unwrap();
    let rows = folder.path().join("rows.jsonl");
    let lines = steps["rows"].as_array().unwrap().iter().fold(String::new(), |mut text, row| {
        writeln!(text, "{row}").unwrap();
        text
    });
    fs::write(&rows, lines).unwrap();
    let cases = steps["cases"].as_array().unwrap().iter();
    let step = |case: &Value| {
        let out = folder.path().join("step.json");
        let mut args = vec![
            format!("--model={}", golden.join(name).display()),
            format!("--reference={}", reference.display()),
            format!("--pairs={}", rows.display()),
            format!("--out={}", out.display()),
        ];
        for (key, value) in case["arguments"].as_object().unwrap() {
            let words: Vec<String> = match value {
                Value::Array(items) => items.iter().map(word).collect(),
                item => vec![word(item)],
            };
            args.push(format!("--{key}={}", words.join(",")));
        }
        let host = Host::new(Options { args, ..Options::default() }).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/inspect_step.rhai");
        let _ = host.run_file(script).unwrap_or_else(|failure| panic!("{failure}"));
        let found = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
        (case.clone(), found)
    };
    cases.map(step).collect()
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every number of `expected` is in `found`: to 1e-4 of itself and 2e-6 of the largest beside it.
fn compare(found: &Value, expected: &Value, at: &str) {
    let numbers = |value: &Value| -> f64 {
        let values: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            item => vec![item],
        };
        values.iter().filter_map(|v| v.as_f64()).fold(0.0, |most: f64, x| most.max(x.abs()))
    };
    let scale = numbers(expected);
    let pairs: Vec<(String, &Value, &Value)> = match expected {
        Value::Object(map) => map.iter().map(|(k, e)| (k.clone(), &found[k], e)).collect(),
        Value::Array(items) => {
            assert_eq!(found.as_array().map(Vec::len), Some(items.len()), "{at}");
            items.iter().enumerate().map(|(i, e)| (i.to_string(), &found[i], e)).collect()
        }
        _ => unreachable!("{at}"),
    };
    for (key, found, expected) in pairs {
        let at = format!("{at}.{key}");
        match expected.as_f64() {
            Some(e) => {
                let f = found.as_f64().unwrap_or_else(|| panic!("{at}: {found}, expected {e}"));
                assert!((f - e).abs() <= 1e-4 * e.abs() + 2e-6 * scale, "{at}: {f}, torch has {e}");
            }
            None if expected.is_null() => assert!(found.is_null(), "{at}: {found}, expected null"),
            None => compare(found, expected, &at),
        }
    }
}

#[test]
fn one_step_is_that_of_torch() {
    for name in ["qwen3_tied", "llama_untied"] {
        for (case, found) in steps(name) {
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            for key in keys(&case["expected"]) {
                let part = |of: &Value| Value::Object(Map::from_iter([(key.clone(), of[&key].clone())]));
                compare(&part(&found), &part(&case["expected"]), &format!("{name}, {}: ", case["arguments"]));
            }
            assert_eq!(keys(&found["update_norms"]), keys(&case["expected"]["update_norms"]));
            for (key, given) in case["arguments"].as_object().unwrap() {
                if key != "weights" {
                    assert_eq!(found[key], *given, "{key}");
                }
            }
        }
    }
}

/// The parts belong together, whatever torch says.
#[test]
fn the_parts_of_a_step_fit() {
    let number = |v: &Value| v.as_f64().unwrap();
    for (case, found) in steps("qwen3_tied") {
        let squares: f64 =
            found["update_norms"].as_object().unwrap().values().map(|v| number(v).powi(2)).sum();
        let norm = number(&found["update_norm"]);
        assert!((squares.sqrt() - norm).abs() < 1e-6 * norm);
        for name in case["arguments"]["objectives"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            let each: Vec<f64> =
                found["losses_per_pair"][name].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
            let mean = each.iter().sum::<f64>() / each.len() as f64;
            assert!((mean - number(&found["losses"][name])).abs() < 1e-6 * mean, "{name}");
        }
    }
}
