//! Methods that solve a problem, against slow solvers that share nothing with `src/math`: every set of active rows by
//! elimination, one coordinate at a time by bisection, one pair of weights at a time by ternary search.

use super::aggregators::{Bench, dot, length};
use crate::common::families::{Case, Family, case, mix};

/// Cases that a solver which squares without care can be trusted on.
fn cases(most: usize) -> impl Iterator<Item = Case> {
    let tame =
        [Family::Generic, Family::Conflicting, Family::Duplicates, Family::Opposing, Family::Stationary];
    let more = [Family::ZeroRows, Family::Integers, Family::Agreeing, Family::LowRank];
    let cases = tame.into_iter().chain(more);
    cases.flat_map(move |f| (1..=most).flat_map(move |m| (0..4).map(move |seed| case(f, m, seed))))
}

/// Solves a x = b by elimination; `None` where a is singular.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|i, j| a[*i][k].abs().total_cmp(&a[*j][k].abs()))?;
        if a[pivot][k].abs() < 1e-10 {
            return None;
        }
        a.swap(k, pivot);
        b.swap(k, pivot);
        for i in k + 1..n {
            let share = a[i][k] / a[k][k];
            let row = a[k].clone();
            a[i].iter_mut().zip(&row).for_each(|(x, y)| *x -= share * y);
            b[i] -= share * b[k];
        }
    }
    for k in (0..n).rev() {
        let rest: f64 = (k + 1..n).map(|j| a[k][j] * b[j]).sum();
        b[k] = (b[k] - rest) / a[k][k];
    }
    Some(b)
}

fn subsets(m: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..1_usize << m).map(move |set| (0..m).filter(|i| set >> i & 1 == 1).collect())
}

/// The least-norm point of the hull: of every set of rows the least-norm point of its affine hull, where it lies inside.
fn least_norm(rows: &[Vec<f64>]) -> Vec<f64> {
    let points = subsets(rows.len()).filter(|set| !set.is_empty()).filter_map(|set| {
        let k = set.len();
        let entry = |i: usize, j: usize| match (i == k, j == k) {
            (true, true) => 0.0,
            (false, false) => dot(&rows[set[i]], &rows[set[j]]),
            _ => 1.0,
        };
        let system = (0..=k).map(|i| (0..=k).map(|j| entry(i, j)).collect()).collect();
        let p = solve(system, (0..=k).map(|i| f64::from(u8::from(i == k))).collect())?;
        let chosen: Vec<Vec<f64>> = set.iter().map(|i| rows[*i].clone()).collect();
        p[..k].iter().all(|p| *p >= -1e-9).then(|| mix(&p[..k], &chosen))
    });
    points.min_by(|a, b| length(a).total_cmp(&length(b))).unwrap()
}

/// The projection of g on {d : ⟨g_i, d⟩ ≥ 0}: of every set of rows the nearest point orthogonal to them, where it is
/// allowed.
fn on_the_cone(rows: &[Vec<f64>], g: &[f64]) -> Vec<f64> {
    let points = subsets(rows.len()).filter_map(|set| {
        let h = set.iter().map(|i| set.iter().map(|j| dot(&rows[*i], &rows[*j])).collect()).collect();
        let u = solve(h, set.iter().map(|i| -dot(&rows[*i], g)).collect())?;
        let chosen: Vec<Vec<f64>> = set.iter().map(|i| rows[*i].clone()).collect();
        let d: Vec<f64> = match set.is_empty() {
            true => g.to_vec(),
            false => g.iter().zip(mix(&u, &chosen)).map(|(g, u)| g + u).collect(),
        };
        rows.iter().all(|row| dot(row, &d) >= -1e-9 * length(row) * length(g)).then_some(d)
    });
    let far = |d: &[f64]| -> f64 { d.iter().zip(g).map(|(d, g)| (d - g) * (d - g)).sum() };
    points.min_by(|a, b| far(a).total_cmp(&far(b))).unwrap()
}

/// x > 0 with (Hx)_i = x_i^(-1/a), one coordinate after the other by bisection.
fn balanced(rows: &[Vec<f64>], a: f64) -> Vec<f64> {
    let m = rows.len();
    let h: Vec<Vec<f64>> =
        rows.iter().map(|row| rows.iter().map(|other| dot(row, other)).collect()).collect();
    let mut x = vec![1.0; m];
    for _ in 0..3000 {
        let before = x.clone();
        for i in 0..m {
            let others = dot(&h[i], &x) - h[i][i] * x[i];
            let excess = |t: f64| h[i][i] * t + others - t.powf(-1.0 / a);
            let (mut low, mut high) = (1e-6_f64, 1e6_f64);
            for _ in 0..60 {
                let middle = (low * high).sqrt();
                if excess(middle) > 0.0 { high = middle } else { low = middle }
            }
            x[i] = (low * high).sqrt();
        }
        if x.iter().zip(&before).all(|(x, y)| (x - y).abs() <= 1e-12 * x) {
            break;
        }
    }
    x
}

/// The least ⟨G_p, g₀⟩ + s‖G_p‖ over the simplex, moving weight between two rows at a time.
fn dual_value(rows: &[Vec<f64>], w: &[f64], c: f64) -> f64 {
    let m = rows.len();
    let g0 = mix(w, rows);
    let s = c * length(&g0);
    let value = |p: &[f64]| {
        let g = mix(p, rows);
        dot(&g, &g0) + s * length(&g)
    };
    // the kink at G_p = 0 stops descent by pairs: begin at the best of several points and at the least-norm point
    let mut starts: Vec<Vec<f64>> =
        (0..m).map(|k| (0..m).map(|i| f64::from(u8::from(i == k))).collect()).collect();
    starts.push(vec![1.0 / m as f64; m]);
    let descend = |mut p: Vec<f64>| {
        for _ in 0..200 {
            for (i, j) in (0..m).flat_map(|i| (0..i).map(move |j| (i, j))) {
                let moved = |t: f64| {
                    let mut q = p.clone();
                    (q[i], q[j]) = (p[i] + t, p[j] - t);
                    q
                };
                let (mut low, mut high) = (-p[i], p[j]);
                for _ in 0..60 {
                    let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                    if value(&moved(a)) < value(&moved(b)) { high = b } else { low = a }
                }
                p = moved((low + high) / 2.0);
            }
        }
        value(&p)
    };
    let least = starts.into_iter().map(descend).fold(f64::INFINITY, f64::min);
    if length(&least_norm(rows)) < 1e-9 { least.min(0.0) } else { least }
}

fn longest(case: &Case) -> f64 {
    case.rows.iter().map(|row| length(row)).fold(f64::MIN_POSITIVE, f64::max)
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], size: f64, case: &Case) {
    let off = found.iter().zip(expected).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
    assert!(found.len() == expected.len() && off <= 1e-6 * size, "{found:?} for {expected:?}: {case:?}");
}

#[test]
fn mgda_is_the_shortest_of_all_faces() {
    let bench = Bench::new();
    for case in cases(6) {
        near(&bench.direction(&case, "mgda", ""), &least_norm(&case.rows), longest(&case), &case);
    }
}

#[test]
fn projections_are_the_nearest_of_all_faces() {
    let bench = Bench::new();
    for case in cases(5) {
        let size = longest(&case);
        let nearest = on_the_cone(&case.rows, &mix(&case.w, &case.rows));
        near(&bench.direction(&case, "dual_proj", ""), &nearest, size, &case);
        let projected: Vec<Vec<f64>> = case.rows.iter().map(|row| on_the_cone(&case.rows, row)).collect();
        near(&bench.direction(&case, "upgrad", ""), &mix(&case.w, &projected), size, &case);
    }
}

#[test]
fn nash_and_fair_weights_are_those_of_bisection() {
    let bench = Bench::new();
    let mut tested = 0;
    for case in cases(5).filter(|case| length(&least_norm(&case.rows)) > 0.05 * longest(case)) {
        for (name, options, a) in
            [("nash_mtl", "", 1.0), ("fair_grad", "a: 1", 1.0), ("fair_grad", "a: 2", 2.0)]
        {
            let expected = mix(&balanced(&case.rows, a), &case.rows);
            near(&bench.direction(&case, name, options), &expected, 10.0 * length(&expected), &case);
            tested += 1;
        }
    }
    assert!(tested > 100, "{tested}");
}

/// What the primal reaches, the dual bounds: min_i ⟨g_i, d⟩ of the update is the least value of the dual.
#[test]
fn no_dual_weights_are_better_than_those_of_cagrad() {
    let bench = Bench::new();
    for case in cases(4) {
        for c in [0.3, 0.8] {
            let found = bench.update(&case, "cagrad", &format!("c: {c}"));
            let p = super::aggregators::floats(&found, "p");
            let (g0, g) = (mix(&case.w, &case.rows), mix(&p, &case.rows));
            let value = dot(&g, &g0) + c * length(&g0) * length(&g);
            let least = dual_value(&case.rows, &case.w, c);
            let size = longest(&case) * longest(&case);
            assert!(value <= least + 1e-7 * size, "{value:e} for {least:e}: {case:?}");
        }
    }
}
