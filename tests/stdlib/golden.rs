//! The aggregators against TorchJD 0.18 on well-conditioned rows, over several calls, with the same draws.

use raco::script::{Host, Options};
use rhai::{Array, Map};
use serde_json::Value;

use super::aggregators::length;

const ANSWERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/aggregators.json");

const SCRIPT: &str = "
    let golden = read_json(PATH);
    let found = [];
    for answer in golden.answers {
        let input = golden.inputs[answer.input];
        let method = aggregator(answer.method, answer.options);
        let directions = [];
        for rows in input.calls {
            let names = rows.map(|row, i| `row ${i}`);
            directions.push(method.update(gradients(rows, names), input.w).direction.to_array());
        }
        found.push(directions);
    }
    found";

/// How far TorchJD's answer may be from the exact one, relative to the longest row; 1e-9 where it is a formula.
fn tolerance(method: &str, options: &Value) -> f64 {
    match method {
        // a ridge of 1e-4 in the quadratic programs
        "upgrad" | "dual_proj" => 1e-3,
        "cr_mogm" if options["method"] == "upgrad" => 1e-3,
        // steps of Frank and Wolfe, which end early
        "mgda" => 1e-3,
        // a conic solver, and least squares with a tolerance of 1e-8
        "nash_mtl" | "fair_grad" => 1e-7,
        _ => 1e-9,
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn every_method_answers_as_torchjd_where_that_is_right() {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(ANSWERS).unwrap()).unwrap();
    let host = Host::new(Options::default()).unwrap();
    let script = SCRIPT.replace("PATH", &format!("{ANSWERS:?}"));
    let found = host.run(&script, "golden.rhai").unwrap_or_else(|f| panic!("{f}")).cast::<Array>();
    let answers = golden["answers"].as_array().unwrap();
    assert_eq!(found.len(), answers.len());
    for (answer, calls) in answers.iter().zip(found) {
        let (method, place) =
            (answer["method"].as_str().unwrap(), format!("{} on {}", answer["key"], answer["input"]));
        let rows = &golden["inputs"][answer["input"].as_str().unwrap()]["calls"];
        for (k, (d, theirs)) in
            calls.cast::<Array>().into_iter().zip(answer["directions"].as_array().unwrap()).enumerate()
        {
            let d: Vec<f64> = d.cast::<Array>().iter().map(|x| x.as_float().unwrap()).collect();
            let theirs = numbers(theirs);
            let difference: Vec<f64> = d.iter().zip(&theirs).map(|(a, b)| a - b).collect();
            let longest = rows[k].as_array().unwrap().iter().map(|r| length(&numbers(r))).fold(0.0, f64::max);
            let allowed = tolerance(method, &answer["options"]) * longest;
            let off = length(&difference);
            assert!(
                off <= allowed,
                "{place}, call {k}: {off:e} over {allowed:e}: {d:?}, expected {theirs:?}"
            );
            // of two answers to a minimisation the shorter one is right
            assert!(method != "mgda" || length(&d) <= length(&theirs) + 1e-12 * longest, "{place}");
        }
    }
}

/// A method's state is what carries over: the same handle on other numbers of objectives starts afresh.
#[test]
fn a_state_begins_again_where_the_number_of_objectives_changes() {
    let host = Host::new(Options::default()).unwrap();
    let script = "
        let two = gradients([[1.0, 0.5], [-0.5, 1.0]], [\"a\", \"b\"]);
        let three = gradients([[1.0, 0.5], [-0.5, 1.0], [0.1, -2.0]], [\"a\", \"b\", \"c\"]);
        let same = #{};
        for name in [\"pcgrad\", \"gradvac\", \"random\", \"graddrop\", \"excess_mtl\", \"sdmgrad\", \"modo\", \"cr_mogm\", \"pcd\"] {
            let used = aggregator(name);
            let moved = 0.0;
            let first = used.update(two, [0.5, 0.5]).direction;
            let second = used.update(two, [0.5, 0.5]).direction;
            let afresh = used.update(three, [0.5, 0.25, 0.25]).direction;
            let fresh = aggregator(name).update(three, [0.5, 0.25, 0.25]).direction;
            same[name] = (afresh - fresh).norm() == 0.0 && (used.update(two, [0.5, 0.5]).direction - first).norm() == 0.0;
        }
        same";
    let same = host.run(script, "afresh.rhai").unwrap_or_else(|f| panic!("{f}")).cast::<Map>();
    assert_eq!(same.len(), 9);
    for (name, same) in same {
        assert!(same.as_bool().unwrap(), "{name}");
    }
}
