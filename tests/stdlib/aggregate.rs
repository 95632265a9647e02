//! `scripts/aggregate.rhai`, by which anybody compares the methods with another implementation.

use serde_json::{Value, json};

use crate::common::program::{Outcome, Program};

fn aggregate(cases: &Value, words: &str) -> (Program, Outcome) {
    let program = Program::new();
    program.copy("scripts/aggregate.rhai", "scripts/aggregate.rhai");
    program.write("in.json", cases.to_string());
    let outcome =
        program.run(&format!("script scripts/aggregate.rhai --cases in.json --out out/out.json {words}"));
    (program, outcome)
}

fn answers(cases: &Value, words: &str) -> Value {
    let (program, outcome) = aggregate(cases, words);
    outcome.success();
    serde_json::from_str(&program.read("out/out.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// All keys, on rows of usual size, tiny ones, a single one, opposed ones and zeros.
#[test]
fn every_method_answers_or_says_why_not() {
    let found = answers(
        &json!([
            {"name": "usual", "matrix": [[1, 0.5, 0], [-0.5, 1, 0.25], [0.1, -0.7, 1], [0.3, 0.3, -0.2]],
             "w": [0.4, 0.3, 0.2, 0.1], "c": 0.4},
            {"name": "tiny", "matrix": [[1e-150, 0.5e-150], [-0.5e-150, 1e-150]], "w": [0.3, 0.7], "c": 0.5},
            {"name": "one", "matrix": [[3, 4]], "w": [1], "c": 0.5},
            {"name": "opposed", "matrix": [[1, 2], [-1, -2]], "w": [0.5, 0.5], "c": 0.4},
            {"name": "zeros", "matrix": [[0, 0], [0, 0], [0, 0]], "w": [0.2, 0.3, 0.5], "c": 0.4},
        ]),
        "",
    );
    let failed = |name: &str| -> Vec<String> {
        let found = found[name].as_object().unwrap();
        assert_eq!(found.len(), 31, "{name}");
        found.iter().filter(|(_, v)| v.get("error").is_some()).map(|(key, _)| key.clone()).collect()
    };
    assert!(failed("usual").is_empty());
    assert_eq!(failed("tiny"), ["krum_0_1", "krum_1_2", "trimmed_mean_1"]);
    assert_eq!(failed("one"), ["krum_0_1", "krum_1_2", "trimmed_mean_1"]);
    assert_eq!(failed("zeros"), ["krum_1_2"]);
    let hull = ["fair_grad_a1", "fair_grad_a2", "krum_0_1", "krum_1_2", "nash_mtl", "trimmed_mean_1"];
    assert_eq!(failed("opposed"), hull);

    for (name, answers) in found.as_object().unwrap() {
        for (key, answer) in answers.as_object().unwrap().iter().filter(|(_, v)| v.get("error").is_none()) {
            let by_coordinate = ["graddrop_step", "trimmed_mean_1"].contains(&key.as_str());
            assert_eq!(answer["weights"].is_null(), by_coordinate, "{name} {key}");
            let with_p = key.starts_with("cagrad");
            assert_eq!(answer.get("p").is_some(), with_p, "{name} {key}");
            assert_eq!(answer.get("p_clip").is_some(), key == "cagrad_clip", "{name} {key}");
            let d = numbers(&answer["direction"]);
            assert!(name != "zeros" || d.iter().all(|x| *x == 0.0), "{key}: {d:?}");
        }
    }
    // scale free but for the constants that are absolute
    let (usual, tiny) = (&found["one"], &found["tiny"]);
    for (key, factor) in
        [("mgda", 1.0), ("pcgrad", 1.0), ("cagrad", 1.5), ("nash_mtl", 0.2), ("fair_grad_a1", 0.2)]
    {
        let d = numbers(&usual[key]["direction"]);
        assert!((d[0] - 3.0 * factor).abs() < 1e-12 && (d[1] - 4.0 * factor).abs() < 1e-12, "{key}: {d:?}");
    }
    let d = numbers(&tiny["upgrad"]["direction"]);
    assert!((d[0] - 0.25e-150).abs() < 1e-162 && (d[1] - 0.75e-150).abs() < 1e-162, "{d:?}");
    let d = numbers(&tiny["nash_mtl"]["direction"]);
    assert!((d[0].hypot(d[1]) - 1.0).abs() < 1e-9, "{d:?}");
    // weights of the case, or uniform
    assert_eq!(numbers(&found["usual"]["linear"]["weights"]), [0.4, 0.3, 0.2, 0.1]);
    assert_ne!(found["usual"]["upgrad"], found["usual"]["upgrad_w"]);
    assert_ne!(found["usual"]["config"], found["usual"]["config_w"]);
}

#[test]
fn only_takes_some_and_a_wrong_case_is_named() {
    let one = json!([{"name": "a", "matrix": [[1, 0.5], [-0.5, 1]], "w": [0.5, 0.5], "c": 0.4}]);
    let found = answers(&one, "--only mgda,linear");
    assert_eq!(found["a"].as_object().unwrap().keys().collect::<Vec<_>>(), ["linear", "mgda"]);
    aggregate(&one, "--only mgdb").1.fails(2, &["unknown method `mgdb`"]);
    for (key, value, expected) in [
        ("matrix", json!([[1, 2], [3]]), "case `a`: row 1 of `matrix` has 1 numbers, row 0 has 2"),
        ("matrix", json!([[1, "x"], [3, 4]]), "case `a`: row 0 of `matrix` holds `x`"),
        ("matrix", json!([]), "case `a`: `matrix` is `[]`"),
        ("w", json!([1.0]), "case `a`: `w` has 1 numbers for 2 rows"),
        ("w", json!(null), "case `a`: `w` is"),
        ("c", json!("much"), "case `a`: `c` holds `much`"),
        ("name", json!(3), "case 0 of in.json: `name` is `3`"),
    ] {
        let mut wrong = one.clone();
        wrong[0][key] = value;
        aggregate(&wrong, "").1.fails(1, &[expected]);
    }
    let mut short = one.clone();
    short[0].as_object_mut().unwrap().remove("w");
    aggregate(&short, "").1.fails(1, &["case 0 of in.json has no `w`"]);
    aggregate(&json!([one[0], one[0]]), "").1.fails(1, &["case 1 of in.json: `a` is there twice"]);
    aggregate(&json!({"a": 1}), "").1.fails(1, &["in.json holds no list"]);
}
