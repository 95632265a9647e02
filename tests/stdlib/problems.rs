//! The analytic problems: gradients against finite differences and the authors' code, fronts against samples, and the
//! scripts that follow and replay paths.

use std::path::Path;

use raco::math::{Matrix, min_norm_point};
use raco::script::{Host, Options};
use rand::Rng;
use rhai::serde::from_dynamic;
use serde::Deserialize;
use serde_json::Value;

use crate::common::program::Program;
use crate::common::random::rng;

const PROBLEMS: [&str; 4] = ["quadratics", "fonseca_fleming", "cagrad_toy", "tabular"];

#[derive(Deserialize)]
struct Point {
    x: Vec<f64>,
    losses: Vec<f64>,
    jacobian: Vec<Vec<f64>>,
}

/// What the problem says at these points, in their order.
fn at(problem: &str, points: &[Vec<f64>]) -> Vec<Point> {
    let points = serde_json::to_string(points).unwrap();
    let each = "|x| #{ x: x, losses: p::losses(x), jacobian: p::jacobian(x) }";
    evaluate(problem, &format!("parse_json(\"{points}\").map({each})"))
}

fn evaluate<T: for<'a> Deserialize<'a>>(problem: &str, expression: &str) -> T {
    let host = Host::new(Options::default()).unwrap();
    let script = format!("import \"problems/{problem}\" as p; {expression}");
    let value = host.run(&script, "problem.rhai").unwrap_or_else(|f| panic!("{problem}: {f}"));
    from_dynamic(&value).unwrap()
}

/// Points of the domain, a tenth of its size away from its rim.
fn inside(problem: &str, count: usize, random: &mut impl Rng) -> Vec<Vec<f64>> {
    let domain: Vec<[f64; 2]> = evaluate(problem, "p::domain()");
    let mut draw = |[low, high]: &[f64; 2]| low + (high - low) * random.random_range(0.1..0.9);
    (0..count).map(|_| domain.iter().map(&mut draw).collect()).collect()
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    for problem in PROBLEMS {
        let mut random = rng(1);
        let points = inside(problem, 60, &mut random);
        let mut moved = points.clone();
        for x in &points {
            for (k, h) in [(0, STEP), (0, -STEP), (1, STEP), (1, -STEP)] {
                let mut x = x.clone();
                x[k] += h;
                moved.push(x);
            }
        }
        let all = at(problem, &moved);
        for (p, point) in all[..points.len()].iter().enumerate() {
            let near = &all[points.len() + 4 * p..points.len() + 4 * p + 4];
            for (i, row) in point.jacobian.iter().enumerate() {
                for k in 0..2 {
                    let slope = (near[2 * k].losses[i] - near[2 * k + 1].losses[i]) / (2.0 * STEP);
                    // next to a wall of cagrad_toy the third derivative is large
                    let tolerance = 1e-6 * (1.0 + row[k].abs().powi(3));
                    assert!(
                        (slope - row[k]).abs() < tolerance,
                        "{problem} at {:?}: {slope} {row:?}",
                        point.x
                    );
                }
            }
        }
    }
}

#[test]
fn the_toy_of_cagrad_is_the_authors_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cagrad_toy.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows: Vec<Point> = serde_json::from_value(golden["rows"].clone()).unwrap();
    let found = at("cagrad_toy", &rows.iter().map(|row| row.x.clone()).collect::<Vec<_>>());
    assert!(rows.iter().any(|row| row.x[1] == 0.0) && rows.len() > 40);
    for (found, expected) in found.iter().zip(&rows) {
        let close = |a: &[f64], b: &[f64]| norm(&minus(a, b)) <= 1e-10 * (1.0 + norm(b));
        assert!(close(&found.losses, &expected.losses), "{:?}", expected.x);
        for (found, expected) in found.jacobian.iter().zip(&expected.jacobian) {
            assert!(close(found, expected), "{found:?} {expected:?}");
        }
    }
}

#[test]
fn fronts_are_critical_and_nothing_dominates_them() {
    for problem in PROBLEMS {
        let mut random = rng(2);
        let front: Vec<Vec<f64>> = evaluate(problem, "p::front(41)");
        let points = at(problem, &front);
        let samples = at(problem, &inside(problem, 2000, &mut random));
        for (k, point) in points.iter().enumerate() {
            let rows = Matrix::from_rows(&point.jacobian).unwrap();
            let least = min_norm_point(&rows.gram()).unwrap().norm;
            assert!(least < 1e-7, "{problem}: ‖G_p‖ = {least} at {:?}", point.x);
            let better = |s: &&Point| s.losses.iter().zip(&point.losses).all(|(a, b)| *a < b - 1e-9);
            assert!(samples.iter().find(better).is_none(), "{problem}: {:?} is dominated", point.x);
            if k > 0 {
                let before = &points[k - 1].losses;
                assert!(
                    point.losses[0] > before[0] && point.losses[1] < before[1],
                    "{problem}: no trade at {k}"
                );
            }
        }
        // the ends are the best that each objective can be
        for (i, end) in [(0, &points[0]), (1, &points[40])] {
            assert!(samples.iter().all(|s| s.losses[i] >= end.losses[i]), "{problem}: objective {i}");
            assert!(norm(&end.jacobian[i]) < 1e-7, "{problem}: {:?}", end.jacobian);
        }
    }
}

#[test]
fn smoothness_bounds_the_gradients_and_is_reached() {
    for problem in ["quadratics", "fonseca_fleming", "tabular"] {
        let mut random = rng(3);
        let mut points = inside(problem, 100, &mut random);
        points.extend(evaluate::<Vec<Vec<f64>>>(problem, "p::front(11) + p::starts()"));
        let count = points.len();
        for k in 0..count {
            for far in [1e-3, 1.0] {
                let turn = std::f64::consts::TAU * random.random::<f64>();
                points.push(vec![points[k][0] + far * turn.cos(), points[k][1] + far * turn.sin()]);
            }
        }
        let all = at(problem, &points);
        let smoothness: Vec<f64> = evaluate(problem, "p::smoothness()");
        for (i, bound) in smoothness.iter().enumerate() {
            let ratio = |k: usize| {
                let (a, b) = (&all[k], &all[count + 2 * k]);
                let (c, d) = (&all[count + 2 * k + 1], &all[k]);
                let one = |a: &Point, b: &Point| {
                    norm(&minus(&a.jacobian[i], &b.jacobian[i])) / norm(&minus(&a.x, &b.x))
                };
                one(a, b).max(one(c, d))
            };
            let most = (0..count).map(ratio).fold(0.0, f64::max);
            assert!((0.8 * bound..bound * (1.0 + 1e-9)).contains(&most), "{problem}: {most} of {bound}");
        }
    }
}

#[test]
fn the_tabular_losses_are_dpo_on_twenty_labelled_rows() {
    let script = r#"
        import "losses/dpo" as dpo;
        import "problems/tabular" as tabular;
        let row = |first, second| {
            let signs = filled(20, 1.0);
            for k in first..10 { signs[k] = -1.0; }
            for k in second..10 { signs[10 + k] = -1.0; }
            signs
        };
        let signs = #{ quality: row.call(8, 9), brevity: row.call(1, 6) };
        let worst = 0.0;
        for x in [[0.0, 0.0], [1.5, -2.0], [-30.0, 45.0]] {
            let margins = tensor(filled(10, x[0] - x[1]) + filled(10, x[1]));
            let batch = #{
                objectives: ["quality", "brevity"], sign: |name| tensor(signs[name]), mean: |name, values| values.mean(),
                reference_margin: tensor(filled(20, 0.0)),
            };
            let found = dpo::losses(#{ margin: margins }, batch, #{ beta: 1.0 });
            let expected = tabular::losses(x);
            for (name, i) in batch.objectives { worst = max(worst, abs(found[name].value - expected[i])); }
        }
        worst
    "#;
    let worst = Host::new(Options::default()).unwrap().run(script, "tabular.rhai").unwrap();
    assert!(worst.as_float().unwrap() < 1e-12, "{worst}");
}

#[test]
fn paths_end_where_the_weights_ask() {
    let program = Program::new();
    program.copy("scripts/toy.rhai", "scripts/toy.rhai");
    let own = "fn weights(h, w, options) { let o = options(options, #{ c: 0.0 }); #{ alpha: w.scaled(1.0 + o.c) } }";
    program.write("longer.rhai", own);
    let words = "script scripts/toy.rhai --methods linear,cagrad_clip,longer.rhai --c 0.5";
    let told = program.run(words);
    told.success();
    assert!(told.out.contains("runs/toy/paths.svg") && told.out.contains("to the front"), "{}", told.all());
    let found: Value = serde_json::from_str(&program.read("runs/toy/paths.json")).unwrap();
    // 201 points of the front; the 41st is the best of 0.8 L_1 + 0.2 L_2
    let best: Vec<f64> = serde_json::from_value(found["front"][40].clone()).unwrap();
    let paths = found["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 9, "three methods from three starts");
    for path in paths {
        let points: Vec<Vec<f64>> = serde_json::from_value(path["points"].clone()).unwrap();
        assert_eq!(points.len(), 301);
        assert!(norm(&minus(&points[300], &best)) < 1e-4, "{}: {:?}", path["method"], points[300]);
    }
    let method = |k: usize| paths[k]["points"][1].clone();
    assert_ne!(method(0), method(6), "`longer` takes longer steps");
    let svg = program.read("runs/toy/paths.svg");
    let shown = ["linear", "cagrad_clip", "longer", "Pareto set", "start", "loss of steep", "loss of flat"];
    assert!(shown.iter().all(|text| svg.contains(text)));
    program.run("script scripts/toy.rhai --problem nowhere").fails(1, &["problems/nowhere"]);
    program.run("script scripts/toy.rhai --weights steep=1.5,flat=0.5").fails(1, &["sum to 1"]);
}

fn log(program: &Program) -> Vec<Value> {
    program.read("runs/raco_clip/log.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn by_name(row: &Value, key: &str, names: &[String]) -> Vec<f64> {
    names.iter().map(|name| row[key][name].as_f64().unwrap()).collect()
}

#[test]
fn a_replay_of_the_runs_own_method_is_the_run() {
    let program = Program::new();
    program.copy("scripts/replay.rhai", "scripts/replay.rhai");
    let train = "script scripts/raco_clip.rhai --steps 4 --batch 4 --evaluate 0 --weights quality=0.7,brevity=0.3 --c 0.6";
    program.run(train).success();
    let counts = "fn init(m) { #{ calls: 1.0 } }\n\
                  fn weights(h, w, options, state) { #{ alpha: w.scaled(state.calls), state: #{ calls: state.calls + 1.0 } } }";
    program.write("counts.rhai", counts);
    let told = program
        .run("script scripts/replay.rhai --run runs/raco_clip --methods cagrad_clip,linear,counts.rhai");
    told.success();
    assert!(told.out.contains("path stays the logged one"), "{}", told.all());
    let rows = log(&program);
    let found: Value = serde_json::from_str(&program.read("runs/raco_clip/replay/replay.json")).unwrap();
    let names: Vec<String> = serde_json::from_value(found["objectives"].clone()).unwrap();
    let methods = found["methods"].as_array().unwrap();
    assert_eq!((rows.len(), methods.len()), (4, 3));
    for (k, row) in rows.iter().enumerate() {
        let step = |method: usize, key: &str| -> Vec<f64> {
            serde_json::from_value(methods[method]["steps"][k][key].clone()).unwrap()
        };
        let w = by_name(row, "w", &names);
        assert_eq!(step(0, "alpha"), by_name(row, "alpha", &names), "bit by bit");
        assert_eq!(step(1, "alpha"), w);
        assert_eq!(
            step(2, "alpha"),
            w.iter().map(|w| w * (k as f64 + 1.0)).collect::<Vec<_>>(),
            "state is carried"
        );
        let h: Vec<Vec<f64>> = serde_json::from_value(row["h"].clone()).unwrap();
        let products: Vec<f64> = h.iter().map(|row| row[0] * w[0] + row[1] * w[1]).collect();
        let length = (w[0] * products[0] + w[1] * products[1]).sqrt();
        for i in 0..2 {
            let cosine = products[i] / length / h[i][i].sqrt();
            assert!((step(1, "cosines")[i] - cosine).abs() < 1e-12);
            let change = -row["lr"].as_f64().unwrap() * products[i];
            assert!((step(1, "change")[i] - change).abs() <= 1e-12 * change.abs());
        }
        let least = methods[1]["steps"][k]["least"].as_f64().unwrap();
        assert_eq!(least, step(1, "cosines").into_iter().fold(f64::INFINITY, f64::min));
    }
    let csv = program.read("runs/raco_clip/replay/replay.csv");
    assert_eq!(csv.lines().count(), 1 + 3 * 4);
    assert!(program.read("runs/raco_clip/replay/replay.svg").contains("replay: the path is the logged one"));
    let many = "script scripts/replay.rhai --run runs/raco_clip --methods cagrad,linear --c 0.2,0.8 \
                --w quality=1,brevity=0;quality=0.5,brevity=0.5 --lr 1";
    program.run(many).success();
    let found: Value = serde_json::from_str(&program.read("runs/raco_clip/replay/replay.json")).unwrap();
    assert_eq!(
        found["methods"].as_array().unwrap().len(),
        2 * 2 + 2,
        "a method without a radius is asked once"
    );
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let program = Program::new();
    program.copy("scripts/replay.rhai", "scripts/replay.rhai");
    let row =
        r#"{"step":0,"losses":{"b":1.0,"a":2.0},"w":{"b":0.5,"a":0.5},"h":[[1.0,-0.5],[-0.5,2.0]],"lr":0.1}"#;
    program.write("runs/x/args.json", "{}");
    program.write("runs/x/log.jsonl", format!("{row}\n"));
    program.write("signs.rhai", "fn direction(gradients, w, options) { #{ direction: gradients[0] } }");
    let replay = |words: &str| program.run(&format!("script scripts/replay.rhai {words}"));
    replay("--run runs/x --methods linear").success();
    replay("--run runs/x --methods signs.rhai").fails(1, &["`signs` reads the gradients by coordinate"]);
    replay("--run runs/x --methods lineer").fails(1, &["unknown aggregator", "did you mean `linear`"]);
    replay("--run runs/x --w a=0.5,c=0.5").fails(1, &["unknown objective `c`"]);
    replay("--run runs/x --w a=half").fails(2, &["expected `name=number`"]);
    replay("--run runs/x --c wide").fails(2, &["expected numbers"]);
    replay("--run runs").fails(1, &["not the folder of a run"]);
    replay("").fails(2, &["no run to replay"]);
    program.write("runs/x/log.jsonl", row.replace("\"h\"", "\"k\"") + "\n");
    replay("--run runs/x").fails(1, &["no Gramians"]);
    program.write("runs/x/log.jsonl", "");
    replay("--run runs/x").fails(1, &["no row yet"]);
}

#[test]
fn the_theorems_hold_and_theory_tells_so() {
    let program = Program::new();
    program.copy("scripts/theory.rhai", "scripts/theory.rhai");
    let told = program.run("script scripts/theory.rhai --cases 1200 --steps 25 --seed 5");
    told.success();
    assert!(told.out.contains("no statement failed"), "{}", told.all());
    let found: Value = serde_json::from_str(&program.read("runs/theory/theory.json")).unwrap();
    assert_eq!(found["failed"].as_array().unwrap().len(), 0);
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let descent = found["descent"].as_array().unwrap();
    assert_eq!(descent.len(), 5 * 4);
    for row in descent {
        assert!((1e-6..=1.0).contains(&number(row, "ratio")), "M² against its bound: {row}");
        assert!(
            (0.1..=1.0).contains(&number(row, "promised")),
            "the guaranteed fall against the real one: {row}"
        );
    }
    let pairs = found["pairs"].as_array().unwrap();
    let total = |key: &str| pairs.iter().map(|row| number(row, key)).sum::<f64>();
    assert_eq!(total("cases"), 1200.0);
    assert_eq!([total("positive"), total("equal")], [total("defined"); 2]);
    assert!(total("strict") > 50.0 && total("above") == total("strict"));
    // one-hot weights leave no direction now and then: the case outside of the theorem
    assert_eq!(total("defined") + total("none"), 1200.0);
    assert!(total("none") > 0.0);
    assert!(program.read("runs/theory/theory.svg").contains("gain of the clip"));
}
