//! The aggregators that read the Gramian, against their definition on the rows themselves.

use raco::math::{Matrix, min_norm_point};

use super::aggregators::{Bench, all_cases, dot, floats, length, same};
use crate::common::families::{Case, FAMILIES, Family, case, mix};

fn longest(case: &Case) -> f64 {
    case.rows.iter().map(|row| length(row)).fold(0.0, f64::max)
}

fn one_hot(case: &Case, i: usize) -> Case {
    Case { w: (0..case.m()).map(|k| f64::from(u8::from(k == i))).collect(), ..case.clone() }
}

/// The least norm of the hull of the rows that are not zero, made unit.
fn hull(rows: &[Vec<f64>]) -> f64 {
    let unit: Vec<Vec<f64>> = rows
        .iter()
        .filter(|row| length(row) > 0.0)
        .map(|row| row.iter().map(|x| x / length(row)).collect())
        .collect();
    if unit.is_empty() {
        0.0
    } else {
        min_norm_point(&Matrix::from_rows(&unit).unwrap().gram()).unwrap().norm
    }
}

/// Optimality: no row objects, and what is added is added for rows that would have.
#[test]
fn dual_proj_is_the_nearest_direction_that_raises_no_loss() {
    let bench = Bench::new();
    for case in all_cases(1..=6) {
        let update = bench.update(&case, "dual_proj", "");
        let (alpha, d) = (floats(&update, "alpha"), floats(&update, "direction"));
        let parts: f64 = case.w.iter().zip(&case.rows).map(|(w, row)| w * length(row)).sum();
        for (i, row) in case.rows.iter().enumerate() {
            let slope = dot(row, &d);
            assert!(alpha[i] >= case.w[i], "{case:?}");
            assert!(slope >= -1e-6 * length(row) * parts, "{slope:e} {case:?}");
            assert!((alpha[i] - case.w[i]) * slope <= 1e-6 * parts * parts, "{case:?}");
        }
    }
}

#[test]
fn upgrad_sums_the_projections_of_the_rows() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        let mut expected = vec![0.0; case.rows[0].len()];
        for i in 0..case.m() {
            let projected = bench.direction(&one_hot(&case, i), "dual_proj", "");
            expected.iter_mut().zip(projected).for_each(|(e, p)| *e += case.w[i] * p);
        }
        same(&bench.direction(&case, "upgrad", ""), &expected, &case);
    }
}

#[test]
fn nash_and_fair_weights_balance_the_gains() {
    let bench = Bench::new();
    let mut answers = 0;
    for case in all_cases(1..=6) {
        let solvable = hull(&case.rows);
        let zero_rows = case.rows.iter().filter(|row| length(row) == 0.0).count();
        for (name, options, a) in [
            ("nash_mtl", "", 1.0),
            ("fair_grad", "a: 0.5", 0.5),
            ("fair_grad", "a: 1", 1.0),
            ("fair_grad", "a: 2", 2.0),
        ] {
            match bench.updates(&case, name, options, 1) {
                Ok(found) => {
                    let all_zero = zero_rows == case.m();
                    assert!(solvable > 1e-8 || all_zero, "{case:?}");
                    assert!(name == "fair_grad" || zero_rows == 0 || all_zero);
                    let (alpha, d) = (floats(&found[0], "alpha"), floats(&found[0], "direction"));
                    for (x, row) in alpha.iter().zip(&case.rows).filter(|(_, row)| length(row) > 0.0) {
                        let sizes: f64 =
                            alpha.iter().zip(&case.rows).map(|(x, other)| x * dot(row, other).abs()).sum();
                        let gain = x.powf(-1.0 / a);
                        assert!(*x > 0.0 && (dot(row, &d) - gain).abs() <= 1e-6 * (sizes + gain), "{case:?}");
                    }
                    let norm = if all_zero { 0.0 } else { (case.m() as f64).sqrt() };
                    assert!(name == "fair_grad" || (length(&d) - norm).abs() < 1e-6, "{case:?}");
                    answers += 1;
                }
                Err(failure) => {
                    let what = failure.error.what();
                    assert!(what.contains("0 is in the convex hull") || what.contains("is zero"), "{what}");
                    assert!(solvable < 1e-6 || zero_rows > 0, "{what}: {case:?}");
                }
            }
        }
    }
    assert!(answers > 200, "{answers}");
    let case = case(Family::Conflicting, 4, 2);
    assert!((length(&bench.direction(&case, "nash_mtl", "max_norm: 1")) - 1.0).abs() < 1e-9);
    let free = bench.direction(&case, "nash_mtl", "");
    same(&bench.direction(&case, "nash_mtl", "max_norm: 3"), &free, &case);
}

#[test]
fn imtl_g_projects_alike_on_independent_rows() {
    let bench = Bench::new();
    for family in [Family::Generic, Family::Conflicting, Family::MixedScales] {
        for (m, seed) in (1..=6).flat_map(|m| (0..4).map(move |seed| (m, seed))) {
            let case = case(family, m, seed);
            let update = bench.update(&case, "imtl_g", "");
            let (alpha, d) = (floats(&update, "alpha"), floats(&update, "direction"));
            assert!((alpha.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let each: Vec<f64> = case.rows.iter().map(|row| dot(row, &d) / length(row)).collect();
            let parts: f64 = alpha.iter().zip(&case.rows).map(|(a, row)| a.abs() * length(row)).sum();
            assert!(each.iter().all(|x| (x - each[0]).abs() <= 1e-6 * parts), "{each:?} {case:?}");
        }
    }
}

/// B = √σ H^(-½) is the symmetric matrix with B H B = σ I; its rows are the answers to one-hot weights.
#[test]
fn aligned_mtl_makes_the_rows_orthogonal_and_of_one_length() {
    let bench = Bench::new();
    for family in [Family::Generic, Family::Conflicting] {
        for (m, seed) in (1..=5).flat_map(|m| (0..3).map(move |seed| (m, seed))) {
            let case = case(family, m, seed);
            let trace: f64 = case.rows.iter().map(|row| dot(row, row)).sum();
            for mode in ["min", "median", "rmse"] {
                let options = format!("scale_mode: \"{mode}\"");
                let found: Vec<_> =
                    (0..m).map(|i| bench.update(&one_hot(&case, i), "aligned_mtl", &options)).collect();
                let b: Vec<Vec<f64>> = found.iter().map(|update| floats(update, "alpha")).collect();
                let rows: Vec<Vec<f64>> = found.iter().map(|update| floats(update, "direction")).collect();
                let sigma = dot(&rows[0], &rows[0]);
                for i in 0..m {
                    for j in 0..m {
                        assert!((b[i][j] - b[j][i]).abs() < 1e-8);
                        let expected = if i == j { sigma } else { 0.0 };
                        assert!((dot(&rows[i], &rows[j]) - expected).abs() < 1e-7 * trace, "{case:?}");
                    }
                }
                // the least eigenvalue stretches by 1, the mean one is tr H/m
                let stretch = |v: &[f64]| length(&mix(v, &b)) / length(v);
                let v = (0..2000).fold(vec![1.0, 0.9, 1.2, 0.7, 1.4][..m].to_vec(), |v, _| {
                    let v = mix(&v, &b);
                    v.iter().map(|x| x / length(&v)).collect()
                });
                match mode {
                    "min" => assert!((stretch(&v) - 1.0).abs() < 1e-5, "{}: {case:?}", stretch(&v)),
                    "rmse" => assert!((sigma - trace / m as f64).abs() < 1e-8 * trace, "{case:?}"),
                    _ => assert!(stretch(&v) > 1.0 - 1e-6),
                }
            }
        }
    }
}

#[test]
fn config_has_cosines_as_the_weights_and_the_length_of_the_projections() {
    let bench = Bench::new();
    for family in [Family::Generic, Family::Conflicting, Family::MixedScales] {
        for (m, seed) in (1..=6).flat_map(|m| (0..4).map(move |seed| (m, seed))) {
            let case = case(family, m, seed);
            let d = bench.direction(&case, "config", "");
            let (norm, longest) = (length(&d), longest(&case));
            if norm < 1e-6 * longest {
                continue;
            }
            let cosines: Vec<f64> = case.rows.iter().map(|row| dot(row, &d) / length(row) / norm).collect();
            let ratio = dot(&cosines, &case.w) / dot(&case.w, &case.w);
            assert!(
                cosines.iter().zip(&case.w).all(|(c, w)| (c - ratio * w).abs() < 1e-6),
                "{cosines:?} {case:?}"
            );
            let sum: f64 = case.rows.iter().map(|row| dot(row, &d) / norm).sum();
            assert!((sum - norm).abs() < 1e-6 * longest, "{case:?}");
        }
    }
    let opposed =
        Case { rows: vec![vec![1.0, 2.0], vec![-3.0, -6.0]], w: vec![0.5, 0.5], ..case(FAMILIES[0], 2, 0) };
    assert_eq!(bench.direction(&opposed, "config", ""), [0.0, 0.0]);
}

#[test]
fn krum_selects_the_rows_nearest_to_their_neighbours() {
    let bench = Bench::new();
    for family in [Family::Generic, Family::MixedScales, Family::Conflicting] {
        for (m, seed) in (4..=7).flat_map(|m| (0..4).map(move |seed| (m, seed))) {
            for (b, q) in [(0, 1), (1, 1), (1, 2), (m - 3, 3)] {
                let case = case(family, m, seed);
                let score = |i: usize| -> f64 {
                    let apart = |j: usize| {
                        let difference: Vec<f64> =
                            case.rows[i].iter().zip(&case.rows[j]).map(|(a, b)| a - b).collect();
                        length(&difference)
                    };
                    let mut all: Vec<f64> = (0..m).filter(|j| *j != i).map(apart).collect();
                    all.sort_by(f64::total_cmp);
                    all[..m - b - 2].iter().sum()
                };
                let scores: Vec<f64> = (0..m).map(score).collect();
                let update = bench.update(&case, "krum", &format!("byzantine: {b}, selected: {q}"));
                let alpha = floats(&update, "alpha");
                let chosen: Vec<usize> = (0..m).filter(|i| alpha[*i] > 0.0).collect();
                assert_eq!(chosen.len(), q);
                assert!(chosen.iter().all(|i| alpha[*i] == 1.0 / q as f64));
                let worst = chosen.iter().map(|i| scores[*i]).fold(0.0, f64::max);
                let left = (0..m).filter(|i| alpha[*i] == 0.0).map(|i| scores[i]);
                assert!(left.fold(f64::INFINITY, f64::min) >= worst * (1.0 - 1e-6), "{scores:?} {alpha:?}");
            }
        }
    }
    // the first two tie
    let rows = vec![vec![0.0, 1.0], vec![0.0, 2.0], vec![5.0, 0.0]];
    let tied = Case { rows, w: vec![1.0 / 3.0; 3], ..case(FAMILIES[0], 3, 0) };
    assert_eq!(floats(&bench.update(&tied, "krum", ""), "alpha"), [1.0, 0.0, 0.0]);
    let few = bench.updates(&tied, "krum", "byzantine: 1", 1).unwrap_err();
    assert_eq!(few.error.what(), "krum has no answer for 3 rows");
}

/// Gradient Vaccine by coordinates, the others visited in ascending order.
fn gradvac(rows: &[Vec<f64>], targets: &mut [Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    for i in 0..rows.len() {
        let mut g = rows[i].clone();
        for j in (0..rows.len()).filter(|j| *j != i) {
            let cosine = dot(&g, &rows[j]) / (length(&g) * length(&rows[j]) + 1e-8);
            let target = targets[i][j];
            if cosine < target {
                let (sine, target_sine) =
                    ((1.0 - cosine * cosine).max(0.0).sqrt(), (1.0 - target * target).sqrt());
                let share = length(&g) * (target * sine - cosine * target_sine)
                    / (length(&rows[j]) * target_sine + 1e-8);
                g.iter_mut().zip(&rows[j]).for_each(|(g, r)| *g += share * r);
            }
            targets[i][j] = 0.5 * target + 0.5 * cosine;
        }
        sum.iter_mut().zip(&g).for_each(|(s, g)| *s += g);
    }
    sum
}

#[test]
fn gradvac_is_that_of_the_coordinates() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        let m = case.m();
        let mut targets = vec![vec![0.0; m]; m];
        // where rows are dependent a later call divides by √(1 - φ̂²) = 0, which is rounding
        let independent = matches!(case.family, Family::Generic | Family::Conflicting | Family::MixedScales);
        let calls = if independent { 3 } else { 1 };
        for update in bench.updates(&case, "gradvac", "order: \"ascending\"", calls).unwrap() {
            same(&floats(&update, "direction"), &gradvac(&case.rows, &mut targets), &case);
        }
    }
}

/// Rounding is all that is left of a row that others cancel; its cosines must stay cosines.
#[test]
fn gradvac_keeps_its_targets_in_bounds() {
    let bench = Bench::new();
    let script = "
        let names = rows().map(|row, i| `row ${i}`);
        let method = aggregator(\"gradvac\", #{ order: \"ascending\" });
        for k in 0..4 { method.update(gradients(rows(), names), w()); }
        let largest = 0.0;
        for row in method.state.phi {
            for target in row { largest = max(largest, abs(target)); }
        }
        #{ largest: largest }";
    for case in all_cases(1..=5) {
        let largest = bench.run(&case, script)["largest"].as_float().unwrap();
        assert!(largest <= 1.0, "{largest}: {case:?}");
    }
}

/// Optimality of the quadratic program, in the normalised rows.
#[test]
fn pcd_gives_every_other_objective_its_share() {
    let bench = Bench::new();
    let (mut feasible, mut infeasible) = (0, 0);
    for case in all_cases(1..=6) {
        for tau in [0.02, 0.5] {
            let update = bench.update(&case, "pcd", &format!("tau: {tau}"));
            let (alpha, d) = (floats(&update, "alpha"), floats(&update, "direction"));
            let scales: Vec<f64> = case.rows.iter().map(|r| 1.0 / (dot(r, r) + 1e-8).sqrt()).collect();
            let unit: Vec<Vec<f64>> =
                case.rows.iter().zip(&scales).map(|(r, s)| r.iter().map(|x| x * s).collect()).collect();
            if length(&case.rows[0]) == 0.0 {
                assert!(d.iter().all(|x| *x == 0.0));
                continue;
            }
            if !update["feasible"].as_bool().unwrap() {
                assert!(hull(&case.rows[1..]) < 1e-3, "{case:?}");
                same(&d, &case.rows[0], &case);
                infeasible += 1;
                continue;
            }
            feasible += 1;
            if length(&d) == 0.0 {
                continue;
            }
            assert!((length(&d) - length(&case.rows[0])).abs() < 1e-6 * longest(&case), "{case:?}");
            // y = g̃₀ + Σ μ_j g̃_j
            let to_y = scales[0] / alpha[0];
            let mu: Vec<f64> = alpha.iter().zip(&scales).map(|(a, s)| a * to_y / s).collect();
            let y = mix(&mu, &unit);
            let size: f64 = mu.iter().map(|x| x.abs()).sum();
            for j in 1..case.m() {
                let slack = dot(&unit[j], &y) - tau * dot(&unit[j], &unit[j]);
                assert!(mu[j] >= 0.0 && slack >= -1e-6 * size, "{slack:e} {case:?}");
                assert!(mu[j] * slack <= 1e-6 * size * size, "{slack:e} {case:?}");
            }
        }
    }
    assert!(feasible > 100 && infeasible > 10, "{feasible} {infeasible}");
}

#[test]
fn cr_mogm_smooths_another_method_and_keeps_its_state() {
    let bench = Bench::new();
    let case = case(Family::Generic, 4, 5);
    let smoothed = bench.updates(&case, "cr_mogm", "method: \"modo\", a: 0.75", 4).unwrap();
    let raw = bench.updates(&case, "modo", "", 4).unwrap();
    let mut expected = floats(&raw[0], "alpha");
    for (found, raw) in smoothed.iter().zip(&raw) {
        let alpha = floats(raw, "alpha");
        assert_eq!(floats(found, "raw"), alpha);
        expected = expected.iter().zip(&alpha).map(|(e, a)| 0.75 * e + 0.25 * a).collect();
        assert!(floats(found, "alpha").iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-15));
    }
    let of_coordinates = bench.updates(&case, "cr_mogm", "method: \"graddrop\"", 1).unwrap_err();
    assert_eq!(
        of_coordinates.error.what(),
        "`graddrop` reads the gradients by coordinate, a Gramian is not enough"
    );
}

#[test]
fn options_out_of_bounds_are_refused() {
    let bench = Bench::new();
    let case = case(FAMILIES[0], 4, 0);
    for (name, options) in [
        ("aligned_mtl", "scale_mode: \"max\""),
        ("constant", "alpha: [1.0]"),
        ("cr_mogm", "a: 1.5"),
        ("cr_mogm", "initial: [1.0]"),
        ("excess_mtl", "eta: 0"),
        ("excess_mtl", "warmup_calls: -1"),
        ("fair_grad", "a: -1"),
        ("graddrop", "leak: [0.5]"),
        ("graddrop", "draws: [0.5]"),
        ("gradvac", "ema: 1.5"),
        ("gradvac", "e: -1"),
        ("gradvac", "order: [[0]]"),
        ("krum", "byzantine: -1"),
        ("krum", "selected: 0"),
        ("krum", "selected: 5"),
        ("modo", "x_lr: 0"),
        ("modo", "rho: -1"),
        ("nash_mtl", "max_norm: 0.0"),
        ("pcd", "tau: [0.1]"),
        ("pcd", "tau: 1.5"),
        ("pcd", "ema: 1"),
        ("pcd", "e: -1"),
        ("random", "draws: [0.5]"),
        ("sdmgrad", "x_momentum: 1"),
        ("trimmed_mean", "trim: -1"),
        ("trimmed_mean", "trim: 2"),
    ] {
        let failure = bench.updates(&case, name, options, 1).unwrap_err();
        assert!(!failure.error.help_text().unwrap_or_default().is_empty(), "{name}, {options}: {failure}");
    }
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/stdlib/aggregators")).unwrap();
    let mut count = 0;
    for file in files {
        let name = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let failure = bench.updates(&case, &name, "nonsense: 1", 1).unwrap_err();
        assert!(failure.error.what().contains("unknown option `nonsense`"), "{name}: {failure}");
        count += 1;
    }
    assert!(count >= 25, "{count}");
}
