//! The whole chain, from a loss written in a script to the weights, against finite differences.

use serde_json::Value;

use crate::common::program::Program;

/// Of the gradient's norm. Sums of f32 log-probs are good to about 1e-6, and a step of 0.02 divides that by 0.04; the
/// extrapolation leaves less. What is found is below 1e-4.
const TOLERANCE: f64 = 1e-3;

#[test]
fn gradients_are_the_slopes_of_scripted_losses() {
    let program = Program::new();
    program.copy("tests/script/finite_difference.rhai", "a.rhai");
    program.run("script a.rhai --out differences.json").success();
    let rows: Vec<Value> = serde_json::from_str(&program.read("differences.json")).unwrap();
    // three losses, three objectives, along each gradient and a random mix
    assert_eq!(rows.len(), 3 * 3 * 4);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!((number("slope") - number("expected")).abs() < TOLERANCE * number("norm"), "{row}");
        assert!(number("norm") > 0.1, "{row}");
        let terms = match row["loss"].as_str().unwrap() {
            "dpo" => 1,
            "apart" => 2,
            _ => 3,
        };
        assert_eq!(row["terms"], terms, "{row}");
        if let Some(moved) = row.get("moved") {
            assert!(moved.as_f64().unwrap() < 1e-4, "the weights did not come back: {row}");
        }
    }
}
