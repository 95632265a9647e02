use proptest::prelude::*;
use raco::math::{FairScaling, Matrix, fair_scaling, min_norm_point, nash_bargaining};

use super::{permuted, scaled, shuffle};
use crate::common::families::{Case, FAMILIES, Family, case, cases, mix};

fn diagonal(values: &[f64]) -> Matrix {
    let mut h = Matrix::zeros(values.len(), values.len());
    values.iter().enumerate().for_each(|(i, x)| h[(i, i)] = *x);
    h
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn known_solutions() {
    let orthogonal = nash_bargaining(&diagonal(&[4.0, 1.0])).unwrap();
    assert!((orthogonal.alpha[0] - 0.5).abs() < 1e-15 && (orthogonal.alpha[1] - 1.0).abs() < 1e-15);
    assert!(orthogonal.gap < 1e-15);
    // x^(1 + 1/a) = 1/H_ii
    for a in [0.1_f64, 0.5, 1.0, 2.0, 10.0] {
        let fair = fair_scaling(&diagonal(&[4.0, 1e-8]), a).unwrap();
        let expected = |h: f64| h.powf(-a / (1.0 + a));
        assert!((fair.alpha[0] / expected(4.0) - 1.0).abs() < 1e-13, "{a} {fair:?}");
        assert!((fair.alpha[1] / expected(1e-8) - 1.0).abs() < 1e-13, "{a} {fair:?}");
    }
    let twins = nash_bargaining(&Matrix::new(2, 2, vec![1.0; 4]).unwrap()).unwrap();
    assert!(twins.alpha.iter().all(|x| (x - 0.5_f64.sqrt()).abs() < 1e-15));
    assert_eq!(fair_scaling(&diagonal(&[4.0, 1.0, 0.0]), 0.0).unwrap().alpha, [1.0 / 3.0; 3]);
    assert_eq!(
        fair_scaling(&diagonal(&[0.0, 0.0]), 2.0).unwrap(),
        FairScaling { alpha: vec![0.0; 2], gap: 0.0 }
    );
    let left_out = fair_scaling(&diagonal(&[0.0, 16.0]), 1.0).unwrap();
    assert_eq!(left_out.alpha, [0.0, 0.25]);
}

#[test]
fn what_has_no_solution_is_refused() {
    let message = |h: &Matrix| nash_bargaining(h).unwrap_err().what().to_owned();
    let inside = "there is no fair solution: 0 is in the convex hull of the rows";
    let opposed = Matrix::new(2, 2, vec![1.0, -2.0, -2.0, 4.0]).unwrap();
    assert_eq!(message(&opposed), inside);
    assert_eq!(message(&diagonal(&[1.0, 0.0])), "there is no Nash bargaining solution: row 1 of `h` is zero");
    let error = fair_scaling(&opposed, 0.5).unwrap_err();
    assert_eq!(error.what(), inside);
    assert_eq!(
        error.help_text(),
        Some("stop, for no direction improves all objectives, or use a method such as `mgda`")
    );
    for (a, found) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let error = fair_scaling(&diagonal(&[1.0]), a).unwrap_err();
        assert_eq!(error.what(), format!("`a` must be finite and not negative, found `{found}`"));
    }
}

/// Cyclic descent in one weight at a time, each by its closed form: slow, and nothing like Newton.
fn by_coordinates(h: &Matrix) -> Vec<f64> {
    let m = h.rows();
    let mut alpha: Vec<f64> = (0..m).map(|i| 1.0 / h[(i, i)].sqrt()).collect();
    for _ in 0..20_000 {
        for i in 0..m {
            let own = h[(i, i)];
            let b = product(h.row(i), &alpha) - own * alpha[i];
            let root = (b * b + 4.0 * own).sqrt();
            alpha[i] = if b > 0.0 { 2.0 / (b + root) } else { (root - b) / (2.0 * own) };
        }
    }
    alpha
}

/// True if the unit rows have a direction that all of them share well.
fn shared(case: &Case, least: f64) -> bool {
    let length = |row: &[f64]| product(row, row).sqrt();
    let rows: Vec<Vec<f64>> = case.rows.iter().filter(|row| length(row) > 0.0).cloned().collect();
    let units: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|x| x / length(row)).collect()).collect();
    units.is_empty() || min_norm_point(&Matrix::from_rows(&units).unwrap().gram()).unwrap().norm > least
}

proptest! {
    /// `α_i ⟨g_i, Jᵀα⟩ = 1`, on the rows and not on their Gramian; none where the hull holds 0, and only there.
    #[test]
    fn every_row_gains_as_much(case in cases(1..12_usize)) {
        let Ok(found) = nash_bargaining(&case.gramian()) else {
            let zero = case.rows.iter().any(|row| row.iter().all(|x| *x == 0.0));
            prop_assert!(zero || !shared(&case, 0.0), "{:?}", case.family);
            return Ok(());
        };
        prop_assert!(found.gap <= 1e-12, "{:?} gap {:e}", case.family, found.gap);
        prop_assert!(found.alpha.iter().all(|x| *x > 0.0));
        if !shared(&case, 1e-3) {
            return Ok(());
        }
        let d = mix(&found.alpha, &case.rows);
        for (row, alpha) in case.rows.iter().zip(&found.alpha) {
            prop_assert!((alpha * product(row, &d) - 1.0).abs() < 1e-8, "{:?}", case.family);
        }
        prop_assert!((product(&d, &d).sqrt() - (case.m() as f64).sqrt()).abs() < 1e-8);
    }

    #[test]
    fn the_fair_equation_holds(case in cases(1..12_usize), log_a in -2.0..1.7_f64) {
        let (a, h) = (10.0_f64.powf(log_a), case.gramian());
        let found = match fair_scaling(&h, a) {
            Ok(found) => found,
            // (10^5)^-50 and the like
            Err(error) if error.what().contains("further apart") => {
                prop_assert!(case.family == Family::MixedScales && a > 10.0, "{:?} a {a}", case.family);
                return Ok(());
            }
            Err(_) => {
                prop_assert!(!shared(&case, 0.0), "{:?}", case.family);
                return Ok(());
            }
        };
        prop_assert!(found.gap <= 1e-12, "{:?} a {a} gap {:e}", case.family, found.gap);
        for (i, alpha) in found.alpha.iter().enumerate() {
            if h[(i, i)] == 0.0 {
                prop_assert_eq!(*alpha, 0.0);
                continue;
            }
            let terms: f64 = h.row(i).iter().zip(&found.alpha).map(|(h, x)| h.abs() * x).sum();
            let wanted = alpha.powf(-1.0 / a);
            let off = product(h.row(i), &found.alpha) - wanted;
            prop_assert!(off.abs() < 1e-11 * (terms + wanted), "{:?} a {a}", case.family);
        }
    }

    #[test]
    fn it_is_what_slow_descent_finds(case in cases(1..6_usize)) {
        let Ok(found) = nash_bargaining(&case.gramian()) else { return Ok(()) };
        if !shared(&case, 0.05) {
            return Ok(());
        }
        let slow = by_coordinates(&case.gramian());
        prop_assert!(
            found.alpha.iter().zip(&slow).all(|(a, b)| (a / b - 1.0).abs() < 1e-7), "{:?} {found:?} {slow:?}", case.family
        );
    }

    #[test]
    fn order_and_scale_of_the_rows_do_not_matter(
        case in cases(1..9_usize), seed in any::<u64>(), power in -150..151, a in 0.1..5.0_f64,
    ) {
        let Ok(found) = fair_scaling(&case.gramian(), a) else { return Ok(()) };
        if !shared(&case, 1e-3) {
            return Ok(());
        }
        let order = shuffle(case.m(), seed);
        let moved = fair_scaling(&permuted(&case.gramian(), &order), a).unwrap();
        for (k, i) in order.iter().enumerate() {
            prop_assert!((moved.alpha[k] - found.alpha[*i]).abs() <= 1e-7 * found.alpha[*i]);
        }
        let k = 10.0_f64.powi(power);
        let far = fair_scaling(&scaled(&case, k), a).unwrap();
        let factor = k.powf(-2.0 * a / (1.0 + a));
        for (far, near) in far.alpha.iter().zip(&found.alpha) {
            prop_assert!((far - near * factor).abs() <= 1e-7 * near * factor);
        }
    }

    /// The weights of the unit rows are those of any others, each over its length.
    #[test]
    fn nash_does_not_feel_the_length_of_a_row(case in cases(1..9_usize), powers in proptest::collection::vec(-140..141, 9)) {
        let Ok(found) = nash_bargaining(&case.gramian()) else { return Ok(()) };
        if !shared(&case, 1e-3) {
            return Ok(());
        }
        let factor = |i: usize| 10.0_f64.powi(powers[i]);
        let mut h = case.gramian();
        for i in 0..case.m() {
            (0..case.m()).for_each(|j| h[(i, j)] = h[(i, j)] * factor(i) * factor(j));
        }
        let far = nash_bargaining(&h).unwrap();
        for i in 0..case.m() {
            prop_assert!((far.alpha[i] * factor(i) / found.alpha[i] - 1.0).abs() < 1e-7);
        }
    }
}

/// Lengths many powers of ten apart, where small weights must follow large ones.
#[test]
fn fair_rows_of_unlike_scale() {
    for cosine in [-0.9, -1e-3, 0.0, 0.5, 0.99] {
        for power in [-140, -20, -3, 3, 20, 140] {
            let length = 10.0_f64.powi(power);
            let c = cosine * length;
            let h = Matrix::new(3, 3, vec![1.0, c, 0.1, c, length * length, 0.0, 0.1, 0.0, 1.0]).unwrap();
            for a in [0.05, 0.3, 0.9, 1.0, 1.1, 3.0, 20.0] {
                match fair_scaling(&h, a) {
                    Ok(found) => {
                        assert!(
                            found.gap <= 1e-11,
                            "cosine {cosine} power {power} a {a}: gap {:e}",
                            found.gap
                        );
                        assert!(found.alpha.iter().all(|x| *x > 0.0 && x.is_finite()));
                    }
                    // (½ 10^70)^-20 and the like
                    Err(error) => {
                        assert!(
                            a >= 3.0 && power.abs() >= 20,
                            "cosine {cosine} power {power} a {a}: {error}"
                        );
                        let what = "the fair weights of `h` are further apart than floats can hold";
                        assert_eq!(error.what(), what);
                    }
                }
            }
        }
    }
}

#[test]
fn many_rows() {
    for family in FAMILIES {
        for m in [1, 2, 3, 8, 32, 64] {
            for seed in 0..3 {
                let h = case(family, m, seed).gramian();
                let nash = nash_bargaining(&h);
                if matches!(family, Family::Stationary | Family::ZeroRows) {
                    assert!(nash.is_err());
                } else if matches!(family, Family::Generic | Family::Conflicting | Family::MixedScales) {
                    assert!(nash.is_ok(), "{family:?} m {m} seed {seed}: {nash:?}");
                }
                for a in [0.02, 0.5, 1.0, 2.0, 50.0] {
                    if let Ok(fair) = fair_scaling(&h, a) {
                        assert!(fair.gap <= 1e-12, "{family:?} m {m} a {a} seed {seed}: gap {:e}", fair.gap);
                    }
                }
            }
        }
    }
}
