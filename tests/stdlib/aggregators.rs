//! Each aggregator file, run by the host, against its definition on the rows and what its header claims to hold.

use std::cell::RefCell;
use std::rc::Rc;

use raco::script::{Failure, Host, Options};
use rhai::{Array, Dynamic, Map};

use crate::common::families::{Case, FAMILIES, case, mix};

/// A host whose scripts see `h()`, `w()` and `rows()` of the case at hand.
pub(super) struct Bench {
    host: Host,
    case: Rc<RefCell<Case>>,
}

impl Bench {
    pub fn new() -> Self {
        let mut host = Host::new(Options::default()).unwrap();
        let held = Rc::new(RefCell::new(case(FAMILIES[0], 2, 0)));
        let engine = host.engine_mut();
        let at = held.clone();
        engine.register_fn("h", move || at.borrow().gramian());
        let at = held.clone();
        engine.register_fn("w", move || array(&at.borrow().w));
        let at = held.clone();
        engine.register_fn("rows", move || {
            at.borrow().rows.iter().map(|row| Dynamic::from(array(row))).collect::<Array>()
        });
        Self { host, case: held }
    }

    pub fn run(&self, case: &Case, script: &str) -> Map {
        self.case.replace(case.clone());
        self.host.run(script, "bench.rhai").unwrap_or_else(|f| panic!("{f} on {case:?}")).cast()
    }

    /// What each of `calls` updates through a handle returns, with `direction` as an array.
    pub fn updates(&self, case: &Case, name: &str, options: &str, calls: usize) -> Result<Vec<Map>, Failure> {
        self.case.replace(case.clone());
        let script = format!(
            "let names = rows().map(|row, i| `row ${{i}}`);
             let method = aggregator(\"{name}\", #{{ {options} }});
             let found = [];
             for k in 0..{calls} {{
                 let update = method.update(gradients(rows(), names), w());
                 update.direction = update.direction.to_array();
                 found.push(update);
             }}
             found"
        );
        let found = self.host.run(&script, "bench.rhai")?.cast::<Array>();
        Ok(found.into_iter().map(|update| update.cast::<Map>()).collect())
    }

    pub fn update(&self, case: &Case, name: &str, options: &str) -> Map {
        let found =
            self.updates(case, name, options, 1).unwrap_or_else(|f| panic!("{name}: {f} on {case:?}"));
        found.into_iter().next().unwrap()
    }

    pub fn direction(&self, case: &Case, name: &str, options: &str) -> Vec<f64> {
        floats(&self.update(case, name, options), "direction")
    }

    /// What `weights` of the file returns.
    pub fn weights(&self, case: &Case, name: &str, options: &str) -> Map {
        let state = if name == "pcgrad" { ", method::init(h().rows)" } else { "" };
        let script = format!(
            "import \"aggregators/{name}\" as method; method::weights(h(), w(), #{{ {options} }}{state})"
        );
        self.run(case, &script)
    }

    pub fn alpha(&self, case: &Case, name: &str, options: &str) -> Vec<f64> {
        floats(&self.weights(case, name, options), "alpha")
    }
}

pub(super) fn array(values: &[f64]) -> Array {
    values.iter().map(|x| Dynamic::from(*x)).collect()
}

pub(super) fn floats(map: &Map, key: &str) -> Vec<f64> {
    let array = map[key].read_lock::<Array>().unwrap();
    array.iter().map(|x| x.as_float().unwrap()).collect()
}

pub(super) fn all_cases(m: std::ops::RangeInclusive<usize>) -> impl Iterator<Item = Case> {
    FAMILIES
        .into_iter()
        .flat_map(move |f| m.clone().flat_map(move |m| (0..3).map(move |seed| case(f, m, seed))))
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) fn length(v: &[f64]) -> f64 {
    dot(v, v).sqrt()
}

/// Up to what the Gramian loses by squaring, relative to the longest row.
pub(super) fn same(a: &[f64], b: &[f64], case: &Case) {
    let scale = case.rows.iter().map(|r| length(r)).fold(0.0, f64::max);
    let difference = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
    assert!(a.len() == b.len() && difference <= 1e-6 * scale, "{difference:e} of {scale:e}: {case:?}");
}

#[test]
fn linear_is_the_preferred_combination() {
    let bench = Bench::new();
    for case in all_cases(1..=4) {
        assert_eq!(bench.alpha(&case, "linear", ""), case.w);
    }
}

#[test]
fn cagrad_is_the_best_of_the_ball() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        for c in [0.1, 0.4, 0.9] {
            let found = bench.weights(&case, "cagrad", &format!("c: {c}"));
            let (p, d) = (floats(&found, "p"), mix(&floats(&found, "alpha"), &case.rows));
            let (g0, g) = (mix(&case.w, &case.rows), mix(&p, &case.rows));
            let s = c * length(&g0);
            let step: Vec<f64> = d.iter().zip(&g0).map(|(d, g)| d - g).collect();
            assert!(length(&step) <= s * (1.0 + 1e-6));
            assert!(found["gap"].as_float().unwrap() < 1e-9);
            let parts: f64 = p.iter().zip(&case.rows).map(|(p, r)| p * length(r)).sum();
            if length(&g) > 1e-5 * parts && length(&g0) > 1e-5 * parts {
                let expected: Vec<f64> = g0.iter().zip(&g).map(|(a, b)| a + s * b / length(&g)).collect();
                same(&d, &expected, &case);
                // Neither the centre nor any other point of the ball is better for the worst row.
                let worst = |d: &[f64]| case.rows.iter().map(|r| dot(r, d)).fold(f64::INFINITY, f64::min);
                let longest = case.rows.iter().map(|r| length(r)).fold(0.0, f64::max);
                for row in &case.rows {
                    let toward: Vec<f64> =
                        g0.iter().zip(row).map(|(g, r)| g + s * r / (length(row) + 1e-300)).collect();
                    assert!(worst(&toward).max(worst(&g0)) <= worst(&d) + 1e-7 * longest * length(&g0));
                }
            }
        }
        same(&bench.alpha(&case, "cagrad", "c: 0"), &case.w, &case);
    }
}

#[test]
fn cagrad_clip_follows_the_clipped_dual() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        let found = bench.weights(&case, "cagrad_clip", "c: 0.6");
        let (p, p_clip, alpha) = (floats(&found, "p"), floats(&found, "p_clip"), floats(&found, "alpha"));
        assert!((0..case.m()).all(|i| p_clip[i] == p[i].min(case.w[i])));
        assert!((0..case.m()).all(|i| case.w[i] > 0.0 || alpha[i] == 0.0), "{case:?}");
        assert_eq!(p, floats(&bench.weights(&case, "cagrad", "c: 0.6"), "p"));
        let (g0, g) = (mix(&case.w, &case.rows), mix(&p_clip, &case.rows));
        let parts: f64 = p_clip.iter().zip(&case.rows).map(|(p, r)| p * length(r)).sum();
        let expected = match length(&g) > 1e-5 * parts {
            true => g0.iter().zip(&g).map(|(a, b)| a + 0.6 * length(&g0) * b / length(&g)).collect(),
            false if parts == 0.0 => g0,
            false => continue,
        };
        same(&mix(&alpha, &case.rows), &expected, &case);
    }
}

/// Rows e₁ and 2e₂, w one-hot on e₁: p₁ is 0 up to c = ½ and the step is g₁; beyond it is (1 + c)g₁.
#[test]
fn clipping_jumps_where_the_dual_leaves_the_preference() {
    let bench = Bench::new();
    let case =
        Case { rows: vec![vec![1.0, 0.0], vec![0.0, 2.0]], w: vec![1.0, 0.0], ..case(FAMILIES[0], 2, 0) };
    assert_eq!(bench.alpha(&case, "cagrad_clip", "c: 0.5"), [1.0, 0.0]);
    assert_eq!(bench.alpha(&case, "cagrad_clip", "c: 0.75"), [1.75, 0.0]);
}

#[test]
fn mgda_lowers_every_loss_alike() {
    let bench = Bench::new();
    for case in all_cases(1..=6) {
        let found = bench.weights(&case, "mgda", "");
        let d = mix(&floats(&found, "alpha"), &case.rows);
        let longest = case.rows.iter().map(|r| length(r)).fold(0.0, f64::max);
        assert!((length(&d) - found["norm"].as_float().unwrap()).abs() <= 1e-6 * longest);
        for row in &case.rows {
            assert!(dot(row, &d) >= dot(&d, &d) - 1e-6 * longest * longest, "{case:?}");
        }
    }
}

/// PCGrad by coordinates.
fn pcgrad(rows: &[Vec<f64>], orders: &[Vec<usize>]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    for (i, order) in orders.iter().enumerate() {
        let mut g = rows[i].clone();
        for j in order.iter().filter(|j| **j != i) {
            let product = dot(&g, &rows[*j]);
            if product < 0.0 {
                let share = product / dot(&rows[*j], &rows[*j]);
                g.iter_mut().zip(&rows[*j]).for_each(|(g, r)| *g -= share * r);
            }
        }
        sum.iter_mut().zip(&g).for_each(|(s, g)| *s += g);
    }
    sum
}

#[test]
fn pcgrad_is_that_of_the_coordinates_for_the_same_orders() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        let m = case.m();
        let orders: Vec<Vec<usize>> =
            (0..m).map(|i| (0..m).map(|k| (k * (m - 1) + i) % m).collect()).collect();
        let orders = if m > 1 { orders } else { vec![vec![0]] };
        let d = mix(&bench.alpha(&case, "pcgrad", &format!("order: {orders:?}")), &case.rows);
        same(&d, &pcgrad(&case.rows, &orders), &case);
        let ascending = vec![(0..m).collect(); m];
        let d = mix(&bench.alpha(&case, "pcgrad", "order: \"ascending\""), &case.rows);
        same(&d, &pcgrad(&case.rows, &ascending), &case);
    }
}

#[test]
fn pcgrad_draws_anew_at_each_call_and_again_from_its_state() {
    let bench = Bench::new();
    let script = "
        import \"aggregators/pcgrad\" as method;
        let state = method::init(6);
        let found = [];
        for k in 0..4 {
            let update = method::weights(h(), w(), #{ seed: 3 }, state);
            found.push(update.alpha);
            state = update.state;
        }
        let again = method::weights(h(), w(), #{ seed: 3 }, #{ calls: 2 }).alpha;
        let other = method::weights(h(), w(), #{ seed: 4 }, #{ calls: 2 }).alpha;
        #{ anew: found[0] != found[1] || found[1] != found[3], again: again == found[2], seeded: other != again }";
    let found = bench.run(&case(FAMILIES[3], 6, 1), script);
    for key in ["anew", "again", "seeded"] {
        assert!(found[key].as_bool().unwrap(), "{key}");
    }
}

/// The claims that all share: scale and order of the rows do not matter.
#[test]
fn every_method_is_equivariant() {
    let bench = Bench::new();
    for name in ["linear", "cagrad", "cagrad_clip", "mgda", "pcgrad"] {
        for case in all_cases(2..=4) {
            let m = if name == "pcgrad" { 2 } else { case.m() };
            let case = Case { rows: case.rows[..m].to_vec(), w: first(&case.w, m), ..case };
            let d = mix(&bench.alpha(&case, name, ""), &case.rows);
            for k in [1e-150, 1e150] {
                let rows = case.rows.iter().map(|r| r.iter().map(|x| x * k).collect()).collect();
                let far = Case { rows, ..case.clone() };
                let found: Vec<f64> =
                    mix(&bench.alpha(&far, name, ""), &far.rows).iter().map(|x| x / k).collect();
                same(&found, &d, &case);
            }
            let turned = Case {
                rows: case.rows.iter().cycle().skip(1).take(m).cloned().collect(),
                w: case.w.iter().cycle().skip(1).take(m).copied().collect(),
                ..case.clone()
            };
            same(&mix(&bench.alpha(&turned, name, ""), &turned.rows), &d, &case);
        }
    }
}

/// The first weights, in the simplex again.
fn first(w: &[f64], m: usize) -> Vec<f64> {
    let sum: f64 = w[..m].iter().sum();
    w[..m].iter().map(|x| if sum > 0.0 { x / sum } else { 1.0 / m as f64 }).collect()
}

#[test]
fn every_method_updates_through_a_handle() {
    let bench = Bench::new();
    let case = case(FAMILIES[3], 3, 7);
    for name in ["linear", "cagrad", "cagrad_clip", "mgda", "pcgrad"] {
        let script = format!(
            "let rows = gradients(rows(), [\"a\", \"b\", \"c\"]);
             let method = aggregator(\"{name}\");
             let update = method.update(rows, #{{ a: 0.5, b: 0.25, c: 0.25 }});
             #{{ alpha: update.alpha, near: (update.direction - rows.combine(update.alpha)).norm() }}"
        );
        let found = bench.run(&case, &script);
        assert_eq!(floats(&found, "alpha").len(), 3);
        assert_eq!(found["near"].as_float().unwrap(), 0.0);
    }
}

#[test]
fn bad_options_and_weights_are_refused() {
    let bench = Bench::new();
    let failure = |name: &str, call: &str| {
        let script = format!("import \"aggregators/{name}\" as m; m::weights({call})");
        bench.host.run(&script, "bench.rhai").unwrap_err()
    };
    let eye = "matrix([[1.0, 0.0], [0.0, 1.0]])";
    for name in ["linear", "cagrad", "cagrad_clip", "mgda"] {
        let error = failure(name, &format!("{eye}, [0.5, 0.5], #{{ cc: 0.4 }}")).error;
        assert!(error.what().contains("unknown option `cc`"), "{error}");
    }
    let failure = |name: &str, call: &str| failure(name, call).error.what().to_owned();
    for name in ["cagrad", "cagrad_clip"] {
        let refused = |w: &str, c: &str| failure(name, &format!("{eye}, {w}, #{{ c: {c} }}"));
        assert_eq!(refused("[0.5, 0.5]", "1.0"), "`c` must be in [0, 1), found `1`");
        assert_eq!(refused("[0.5, -0.5]", "0.1"), "`w[1]` must not be negative, found `-0.5`");
        assert_eq!(refused("[1.0]", "0.1"), "`w` must have 2 values, one a row of `h`, found 1");
    }
    let orders =
        failure("pcgrad", &format!("{eye}, [0.5, 0.5], #{{ order: [[0, 0], [0, 1]] }}, #{{ calls: 0 }}"));
    assert_eq!(orders, "option `order` is `[[0, 0], [0, 1]]`");
}
