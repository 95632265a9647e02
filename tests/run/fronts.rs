//! The analysis of a sweep, on points whose answers are known.

use std::collections::BTreeSet;

use proptest::prelude::*;
use raco::math::hypervolume;
use raco::run::{FrontOptions, Fronts, Named, fronts, method_color, method_marker, points_of, read_points};
use serde_json::{Value, json};

fn entry(config: Value, scores: &[(&str, f64)], losses: Option<[f64; 2]>) -> Value {
    let scores: serde_json::Map<String, Value> =
        scores.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let losses = losses.map(|[a, b]| json!({ "quality": a, "brevity": b }));
    json!({ "config": config, "result": { "scores": scores, "losses": losses } })
}

/// A run of two objectives.
fn run(method: &str, w: f64, seed: i64, scores: [f64; 2], losses: [f64; 2]) -> Value {
    let config = json!({ "method": method, "weights": { "quality": w, "brevity": 1.0 - w }, "seed": seed });
    entry(config, &[("quality", scores[0]), ("brevity", scores[1])], Some(losses))
}

/// The weighted loss: at each weight on a straight curve, shifted a little by the seed.
fn linear(w: f64, seed: i64) -> Value {
    run("linear", w, seed, curve(w, seed), losses(w, seed))
}

fn curve(w: f64, seed: i64) -> [f64; 2] {
    let shift = 0.01 * seed as f64;
    [w + shift, 1.0 - w + shift]
}

fn losses(w: f64, seed: i64) -> [f64; 2] {
    let shift = 0.1 * seed as f64;
    [1.0 - w + shift, 0.5 + w + shift]
}

fn analysed(entries: &[Value]) -> Fronts {
    fronts(points_of(entries).unwrap(), &FrontOptions::default()).unwrap()
}

const SEEDS: std::ops::Range<i64> = 0..4;
const FINE: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];

#[test]
fn a_method_on_the_curve_of_the_weighted_loss_has_found_no_better_front() {
    // at weights v it does what the weighted loss does at 0.2 + 0.6 v
    let milder =
        |v: f64, seed: i64| run("milder", v, seed, curve(0.2 + 0.6 * v, seed), losses(0.2 + 0.6 * v, seed));
    let mut entries: Vec<Value> = SEEDS.flat_map(|seed| FINE.map(|w| linear(w, seed))).collect();
    entries.extend(SEEDS.flat_map(|seed| [0.25, 0.75].map(|v| milder(v, seed))));
    let found = analysed(&entries);
    let control = found.control.unwrap();
    assert!(control.interpolated && control.weights.len() == 5 && control.points.len() == 2);
    for point in &control.points {
        assert!(point.epsilon.mean.abs() < 1e-12 && point.epsilon_of_means.abs() < 1e-12, "{point:?}");
        let matched = point.matched.as_ref().unwrap();
        let expected = 0.2 + 0.6 * point.weights.get("quality").unwrap();
        assert!((matched.weights.get("quality").unwrap() - expected).abs() < 1e-12);
        assert!(matched.distance < 1e-12 && matched.at_an_end == 0);
        assert!(matched.difference.iter().all(|d| d.mean.abs() < 1e-12 && d.values.len() == 4));
    }
}

#[test]
fn a_method_beyond_the_curve_is_told_from_one_inside() {
    let moved = |name: &str, v: f64, seed: i64, by: f64| {
        run(name, v, seed, curve(v, seed).map(|x| x + by + 0.001 * seed as f64), losses(v, seed))
    };
    let mut entries: Vec<Value> = SEEDS.flat_map(|seed| FINE.map(|w| linear(w, seed))).collect();
    for seed in SEEDS {
        entries.extend([moved("better", 0.4, seed, 0.05), moved("worse", 0.4, seed, -0.05)]);
    }
    let control = analysed(&entries).control.unwrap();
    let [better, worse] = &control.points[..] else { panic!("{control:?}") };
    // seeds add 0.0015 in the mean
    assert!((better.epsilon.mean + 0.0515).abs() < 1e-12 && better.verdict == "beyond", "{better:?}");
    assert!((worse.epsilon.mean - 0.0485).abs() < 1e-12 && worse.verdict == "inside", "{worse:?}");
    for (point, by) in [(better, 0.0515), (worse, -0.0485)] {
        let matched = point.matched.as_ref().unwrap();
        assert!(matched.difference.iter().all(|d| (d.mean - by).abs() < 1e-12));
    }
}

#[test]
fn a_gap_of_the_curve_is_not_taken_for_a_better_front() {
    // the front is a quarter of a circle; the other method lies on it, between two weights
    let bent = |method: &str, w: f64, seed: i64| {
        let angle = w * std::f64::consts::FRAC_PI_2;
        run(method, w, seed, [angle.sin(), angle.cos()], [angle, -angle])
    };
    let at = |weights: &[f64]| -> Vec<Value> {
        let linear = SEEDS.flat_map(|seed| weights.iter().map(move |w| bent("linear", *w, seed)));
        linear.chain(SEEDS.map(|seed| bent("same", 0.4, seed))).collect()
    };
    let control = analysed(&at(&[0.1, 0.3, 0.5, 0.7, 0.9])).control.unwrap();
    let point = &control.points[0];
    // half a gap is an angle of 0.05 π: the chord misses 1 − cos of it, seen along the diagonal
    assert!(point.epsilon.mean < -0.008 && point.epsilon.mean > -0.0124, "{point:?}");
    assert!(control.slack.unwrap() > 0.0124 && point.verdict == "undecided", "{control:?}");
    // two weights are too few to tell
    let control = analysed(&at(&[0.1, 0.9])).control.unwrap();
    assert_eq!((control.slack, control.points[0].verdict), (None, "undecided"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_distance_to_a_curve_is_that_of_its_points_one_by_one(
        knots in proptest::collection::vec((0.0f64..1.0, 0.0f64..1.0), 2..6),
        point in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let at = |i: usize| i as f64 / (knots.len() - 1) as f64;
        let mut entries: Vec<Value> =
            knots.iter().enumerate().map(|(i, (x, y))| run("linear", at(i), 0, [*x, *y], [*x, *y])).collect();
        entries.push(run("other", 0.0, 0, [point.0, point.1], [point.0, point.1]));
        let found = analysed(&entries).control.unwrap().points.remove(0);
        let steps = 1000;
        let (mut most, mut least) = (f64::NEG_INFINITY, f64::INFINITY);
        for (a, b) in knots.iter().zip(&knots[1..]) {
            for t in (0..=steps).map(|k| f64::from(k) / f64::from(steps)) {
                let (x, y) = (a.0 + t * (b.0 - a.0) - point.0, a.1 + t * (b.1 - a.1) - point.1);
                most = most.max(x.min(y));
                least = least.min(x.hypot(y));
            }
        }
        let fine = 1.0 / f64::from(steps);
        prop_assert!(most <= found.epsilon.mean + 1e-12 && found.epsilon.mean <= most + fine);
        let distance = found.matched.unwrap().distance;
        prop_assert!(distance <= least + 1e-12 && least <= distance + 2.0 * fine);
    }
}

#[test]
fn hypervolumes_and_comparisons_are_over_shared_weights_and_seeds() {
    let scores = |method: &str, w: f64, seed: i64| -> [f64; 2] {
        let extra = if method == "mgda" { 0.02 + 0.01 * seed as f64 } else { 0.0 };
        let wave = 0.01 * (7.0 * w + seed as f64).sin();
        [0.2 + 0.7 * w + wave + extra, 0.9 - 0.6 * w - wave + extra]
    };
    let mut entries = Vec::new();
    for seed in SEEDS {
        for w in [0.2, 0.5, 0.8] {
            entries.extend(["linear", "mgda"].map(|m| run(m, w, seed, scores(m, w, seed), [0.0, 0.0])));
        }
        // a finer grid of the control adds nothing to its hypervolume
        entries.push(run("linear", 0.65, seed, scores("linear", 0.65, seed), [0.0, 0.0]));
    }
    entries.push(run("linear", 0.2, 9, [0.5, 0.5], [0.0, 0.0]));
    let found = analysed(&entries);
    assert_eq!(found.grid.len(), 3);
    let volume = |method: &str, seed: i64| {
        hypervolume(&[0.2, 0.5, 0.8].map(|w| scores(method, w, seed).to_vec()), &[0.0, 0.0]).unwrap()
    };
    for variant in &found.variants {
        let h = variant.hypervolume.as_ref().unwrap();
        assert_eq!(h.seeds, SEEDS.collect::<Vec<_>>());
        for (seed, value) in h.seeds.iter().zip(&h.over_seeds.values) {
            assert!((value - volume(&variant.label, *seed)).abs() < 1e-12);
        }
        let ends = [h.over_seeds.t.unwrap(), h.bootstrap_t.unwrap()];
        assert!(ends.iter().all(|e| e.low < h.over_seeds.mean && h.over_seeds.mean < e.high));
    }
    assert!(
        found.notes.iter().any(|note| note.contains("`linear` lacks weights of the grid at seed 9")),
        "{:?}",
        found.notes
    );
    let [comparison] = &found.comparisons[..] else { panic!("{:?}", found.comparisons) };
    // better at each of four seeds: 2 of 16 patterns reach the sum
    assert_eq!((comparison.p, comparison.smallest_p, comparison.exploratory), (0.125, 0.125, true));
    let mean = SEEDS.map(|seed| volume("mgda", seed) - volume("linear", seed)).sum::<f64>() / 4.0;
    assert!((comparison.difference.mean - mean).abs() < 1e-12);
    // the better one is the joint front
    assert!(found.joint_front.iter().all(|place| place.variant == "mgda"));
    let [linear, mgda] = &found.variants[..] else { panic!() };
    assert!(mgda.igd == 0.0 && mgda.additive_epsilon == 0.0 && linear.igd_plus > 0.0);
    assert!(linear.coverage.iter().all(|follows| follows.tau == Some(1.0) && follows.violations == 0));
}

#[test]
fn dominated_points_stay_and_are_flagged() {
    let entries = [
        run("a", 0.1, 0, [0.2, 0.9], [0.0; 2]),
        run("a", 0.5, 0, [0.1, 0.8], [0.0; 2]),
        run("a", 0.9, 0, [0.9, 0.1], [0.0; 2]),
    ];
    let found = analysed(&entries);
    let flags: Vec<bool> = found.variants[0].means.iter().map(|mean| mean.on_front).collect();
    assert_eq!(flags, [true, false, true]);
    assert_eq!(found.baseline, None);
    assert!(found.notes.iter().any(|note| note.contains("no variant is `linear`")));
    let coverage = &found.variants[0].coverage[0];
    assert_eq!((coverage.violations, coverage.pairs), (1, 3));
}

#[test]
fn a_folder_is_read_with_its_failed_and_unfinished_points() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let dir = folder.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut record = value.clone();
        record["name"] = json!(name);
        record["seconds"] = json!(1.5);
        record["cpu_seconds"] = json!(null);
        if record.get("status").is_none() {
            record["status"] = json!("done");
        }
        std::fs::write(dir.join("point.json"), record.to_string()).unwrap();
    };
    let point = |c: f64, seed: i64| {
        let config = json!({ "method": "cagrad", "weights": { "quality": 0.5, "brevity": 0.5 }, "c": c, "lr": 1e-3, "seed": seed, "out": format!("x{seed}") });
        entry(config, &[("quality", c), ("brevity", 0.5), ("words", 9.0)], None)
    };
    write("p1", &point(0.2, 0));
    write("p2", &point(0.4, 0));
    let mut failed = point(0.4, 1);
    failed["status"] = json!("failed");
    failed["error"] = json!("no memory");
    write("p3", &failed);
    std::fs::write(
        folder.path().join("sweep.json"),
        json!({ "points": ["p2", "p1", "p3", "p4"] }).to_string(),
    )
    .unwrap();
    let outcomes = read_points(folder.path()).unwrap();
    let labels: Vec<&str> = outcomes.points.iter().map(|point| point.variant.as_str()).collect();
    assert_eq!(labels, ["cagrad c=0.4", "cagrad c=0.2"]);
    assert_eq!((outcomes.failed[0].name.as_str(), outcomes.failed[0].error.as_str()), ("p3", "no memory"));
    assert_eq!(outcomes.unfinished, ["p4"]);
    assert!(outcomes.points[0].dir.as_ref().unwrap().ends_with("p2"));
    let found = fronts(outcomes, &FrontOptions::default()).unwrap();
    assert_eq!(found.objectives, ["quality", "brevity"]);
    assert!(found.notes.iter().any(|note| note.contains("1 runs failed: p3")));
    assert!(found.variants[0].hypervolume.as_ref().unwrap().bootstrap_t.is_none());
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let refused = |entries: &[Value], options: &FrontOptions| {
        fronts(points_of(entries).unwrap(), options).unwrap_err().to_string()
    };
    let usual = FrontOptions::default();
    let one = run("linear", 0.5, 0, [0.5, 0.5], [0.0; 2]);
    assert!(refused(&[], &usual).contains("no run of the sweep has a result"));
    assert!(
        refused(&[one.clone(), one.clone()], &usual)
            .contains("two runs of `linear` at weights 0.5/0.5, seed 0")
    );
    let other = FrontOptions { baseline: "cagrad".into(), ..usual.clone() };
    assert!(refused(std::slice::from_ref(&one), &other).contains("name as baseline one of: linear"));
    let absent = FrontOptions { objectives: Some(vec!["quality".into(), "helpful".into()]), ..usual.clone() };
    assert!(refused(std::slice::from_ref(&one), &absent).contains("has no score `helpful`"));
    let reference = FrontOptions { reference: Named(vec![("words".into(), 0.0)]), ..usual };
    assert!(refused(&[one], &reference).contains("the reference names `words`"));
    let error = points_of(&[json!({ "config": { "method": "a" } })]).unwrap_err().to_string();
    assert!(error.contains("point 0: `result` is missing"), "{error}");
    assert!(read_points(std::path::Path::new("/nowhere")).is_err());
}

#[test]
fn the_picture_has_a_panel_for_each_two_objectives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fronts.svg");
    let mut entries: Vec<Value> = SEEDS.flat_map(|seed| FINE.map(|w| linear(w, seed))).collect();
    entries.extend(
        SEEDS.flat_map(|seed| [0.25, 0.75].map(|w| run("cagrad_clip", w, seed, [w, 0.9 - w], [0.0; 2]))),
    );
    analysed(&entries).save_picture(&path).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    for text in ["curve of linear", "cagrad_clip", "quality", "brevity"] {
        assert!(svg.contains(text), "{text}");
    }
    let three = |method: &str, a: f64, b: f64| {
        let config = json!({ "method": method, "weights": { "quality": a, "brevity": b, "faithful": 1.0 - a - b }, "seed": 0 });
        entry(config, &[("quality", a), ("brevity", b), ("faithful", 1.0 - a - b)], None)
    };
    let found = analysed(&[three("linear", 0.2, 0.2), three("linear", 0.6, 0.2), three("mgda", 0.2, 0.6)]);
    assert!(found.control.as_ref().is_some_and(|control| !control.interpolated));
    found.save_picture(&path).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    // three names on six axes
    assert_eq!(svg.matches("faithful").count(), 2);
    for table in found.tables() {
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{}", table.title);
    }
}

#[test]
fn each_method_of_the_library_has_a_look_of_its_own() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("stdlib/aggregators");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.push("amopo".into());
    let looks: BTreeSet<String> =
        names.iter().map(|name| format!("{} {:?}", method_color(name), method_marker(name))).collect();
    assert_eq!(looks.len(), names.len());
    let colors: BTreeSet<usize> =
        ["linear", "amopo", "cagrad", "cagrad_clip"].iter().map(|name| method_color(name)).collect();
    assert_eq!(colors.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(
        method_color("a file of a user") > 3 && method_color("my_heuristic") == method_color("my_heuristic")
    );
}
