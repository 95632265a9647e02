use proptest::prelude::*;
use raco::math::{CagradDual, Matrix, cagrad_dual, clip, min_norm_point, norm};

use super::{grid, nearest_by_trial, permuted, scaled, shuffle};
use crate::common::families::{Case, FAMILIES, case, cases, mix};

fn gramian(rows: &[&[f64]]) -> Matrix {
    Matrix::from_rows(&rows.iter().map(|r| r.to_vec()).collect::<Vec<_>>()).unwrap().gram()
}

fn radii() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(0.99), Just(0.4), Just(1e-4), 0.0..1.0_f64]
}

/// φ on the rows themselves.
fn phi(rows: &[Vec<f64>], w: &[f64], c: f64, p: &[f64]) -> f64 {
    let (g0, g) = (mix(w, rows), mix(p, rows));
    let product: f64 = g0.iter().zip(&g).map(|(a, b)| a * b).sum();
    product + c * length(&g0) * length(&g)
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn stationary_rows_are_certified_by_the_cone() {
    let h = gramian(&[&[1.0, 0.0], &[-1.0, 0.0], &[0.0, 1.0]]);
    let found = cagrad_dual(&h, &[0.4, 0.2, 0.4], 0.9).unwrap();
    assert!(close(&found.p, &[0.5, 0.5, 0.0], 1e-15) && found.p[2] == 0.0);
    assert_eq!((found.value, found.gap, found.gp_norm), (0.0, 0.0, 0.0));
    // With a radius that does not reach {d : Jd ≥ 0} the dual is negative.
    let short = cagrad_dual(&h, &[0.4, 0.2, 0.4], 0.2).unwrap();
    assert!(short.value < 0.0 && short.gap < 1e-14 && short.gp_norm > 0.0);
}

#[test]
fn a_zero_combined_gradient_keeps_the_preference() {
    let h = gramian(&[&[1.0, 2.0], &[-1.0, -2.0]]);
    let found = cagrad_dual(&h, &[0.5, 0.5], 0.7).unwrap();
    assert_eq!(
        found,
        CagradDual { p: vec![0.5; 2], value: 0.0, gap: 0.0, g0_norm: 0.0, gp_norm: 0.0, radius: 0.0 }
    );
    let zero = cagrad_dual(&Matrix::zeros(3, 3), &[0.2, 0.3, 0.5], 0.4).unwrap();
    assert_eq!((zero.p, zero.g0_norm), (vec![0.2, 0.3, 0.5], 0.0));
}

/// Rows e₁ and 2e₂ with one-hot w: at c = ½ the slope towards row 0 is exactly 0 and p₀ must be too, since the
/// clipped direction jumps there.
#[test]
fn a_weight_that_is_zero_is_exactly_zero() {
    let h = gramian(&[&[1.0, 0.0], &[0.0, 2.0]]);
    assert_eq!(cagrad_dual(&h, &[1.0, 0.0], 0.5).unwrap().p, [0.0, 1.0]);
    let inside = cagrad_dual(&h, &[1.0, 0.0], 0.6).unwrap();
    assert!(inside.p[0] > 0.01 && inside.gap < 1e-15);
    for c in [0.1, 0.4, 0.7, 0.99] {
        let h = gramian(&[&[1.0, 0.0], &[-0.5, 1.0]]);
        let found = cagrad_dual(&h, &[1.0, 0.0], c).unwrap();
        let clipped = clip(&found.p, &[1.0, 0.0]).unwrap();
        assert_eq!(clipped[0] == 0.0, norm(&h, &clipped).unwrap() == 0.0);
    }
}

#[test]
fn ties_go_to_the_preference() {
    // Twins share the weight as w does.
    let twins = gramian(&[&[1.0, 0.0], &[1.0, 0.0], &[-0.5, 1.0]]);
    let found = cagrad_dual(&twins, &[0.5, 0.3, 0.2], 0.4).unwrap();
    assert!((found.p[0] - found.p[1] - 0.2).abs() < 1e-14 || found.p[1] == 0.0, "{found:?}");
    // c = 0: the face of the least ⟨g_i, g₀⟩.
    let flat = gramian(&[&[1.0, 1.0], &[1.0, -1.0], &[3.0, 0.0]]);
    let found = cagrad_dual(&flat, &[0.1, 0.1, 0.8], 0.0).unwrap();
    assert_eq!(found.p, [0.5, 0.5, 0.0]);
    // φ is 0 along a ray: rows at 120° of g₀, c = ½.
    let half = [-0.5, 0.75_f64.sqrt()];
    let ray = gramian(&[&[1.0, 0.0], &half, &[2.0 * half[0], 2.0 * half[1]]]);
    let found = cagrad_dual(&ray, &[1.0, 0.0, 0.0], 0.5).unwrap();
    assert!(close(&found.p, &[0.0, 0.5, 0.5], 1e-12), "{found:?}");
}

#[test]
fn bad_input_is_refused_by_name() {
    let h = gramian(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let message = |w: &[f64], c: f64| cagrad_dual(&h, w, c).unwrap_err().what().to_owned();
    assert_eq!(message(&[0.5, f64::NAN], 0.4), "`w[1]` is `NaN`, expected a finite number");
    assert_eq!(message(&[0.8, 0.4], 0.4), format!("`w` must sum to 1, found `{}`", 0.8 + 0.4));
    assert_eq!(message(&[1.5, -0.5], 0.4), "`w[1]` must not be negative, found `-0.5`");
    assert_eq!(message(&[1.0], 0.4), "`w` must have 2 values, one a row of `h`, found 1");
    for c in [1.0, -0.1, f64::NAN, f64::INFINITY] {
        assert_eq!(message(&[0.5, 0.5], c), format!("`c` must be in [0, 1), found `{c}`"));
    }
    let h = Matrix::new(2, 2, vec![1.0, 0.0, f64::NAN, 1.0]).unwrap();
    let error = cagrad_dual(&h, &[0.5, 0.5], 0.4).unwrap_err();
    assert_eq!(error.what(), "`h[1, 0]` is `NaN`, expected a finite number");
}

fn check(case: &Case, c: f64) -> Result<(), TestCaseError> {
    let found = cagrad_dual(&case.gramian(), &case.w, c).unwrap();
    let (g0, g) = (mix(&case.w, &case.rows), mix(&found.p, &case.rows));
    let parts: f64 = case.w.iter().zip(&case.rows).map(|(w, r)| w * length(r)).fold(0.0, f64::max);
    prop_assert!(found.p.iter().all(|p| *p >= 0.0) && (found.p.iter().sum::<f64>() - 1.0).abs() < 2e-6);
    // ⟨g_i, G_p⟩ is known to ε times the rows that make G_p.
    let rows: f64 = found.p.iter().zip(&case.rows).map(|(p, r)| p * length(r)).sum();
    let cancelled = if found.gp_norm > 0.0 { rows / found.gp_norm } else { 0.0 };
    let rounding = 256.0 * case.m() as f64 * f64::EPSILON * (1.0 + cancelled);
    prop_assert!(found.gap <= rounding, "gap {:e}, rounding {rounding:e}", found.gap);
    prop_assert!((found.radius - c * found.g0_norm).abs() <= 1e-15 * found.radius);
    if length(&g0) < 1e-5 * parts {
        return Ok(());
    }
    // On the rows: the primal value of d is at most that of the dual, and reaches it.
    if found.gp_norm > 0.0 {
        let s = c * length(&g0) / length(&g);
        let d: Vec<f64> = g0.iter().zip(&g).map(|(a, b)| a + s * b).collect();
        let value = phi(&case.rows, &case.w, c, &found.p);
        for row in &case.rows {
            let product: f64 = row.iter().zip(&d).map(|(a, b)| a * b).sum();
            let scale = length(&g0) * (length(row) + length(&g));
            prop_assert!(value - product <= 1e-7 * scale, "{:e}", (value - product) / scale);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_primal_reaches_the_dual(case in cases(1..12_usize), c in radii()) {
        check(&case, c)?;
    }

    #[test]
    fn no_point_of_a_grid_is_lower(case in cases(2..4_usize), c in radii()) {
        let h = case.gramian();
        let found = cagrad_dual(&h, &case.w, c).unwrap();
        let longest = case.rows.iter().map(|r| length(r)).fold(0.0, f64::max);
        let scale = length(&mix(&case.w, &case.rows)) * longest;
        let value = phi(&case.rows, &case.w, c, &found.p);
        for p in grid(case.m(), if case.m() == 2 { 1000 } else { 60 }) {
            prop_assert!(phi(&case.rows, &case.w, c, &p) >= value - 1e-7 * scale);
        }
    }

    #[test]
    fn among_minimisers_it_is_the_nearest_to_w(case in cases(1..7_usize), c in 0.05..0.99_f64) {
        let found = cagrad_dual(&case.gramian(), &case.w, c).unwrap();
        prop_assume!(found.g0_norm > 0.0);
        let Some(nearest) = nearest_by_trial(&case.rows, &found.p, &case.w) else { return Ok(()) };
        prop_assert!(close(&found.p, &nearest, 1e-5), "{:?} {:?} {nearest:?}", case.family, found);
    }

    #[test]
    fn order_and_scale_of_the_rows_do_not_matter(
        case in cases(1..9_usize), c in radii(), seed in any::<u64>(), power in -150..151,
    ) {
        let found = cagrad_dual(&case.gramian(), &case.w, c).unwrap();
        let order = shuffle(case.m(), seed);
        let w: Vec<f64> = order.iter().map(|i| case.w[*i]).collect();
        let moved = cagrad_dual(&permuted(&case.gramian(), &order), &w, c).unwrap();
        prop_assert!(order.iter().enumerate().all(|(k, i)| (moved.p[k] - found.p[*i]).abs() < 1e-6));
        let zeros = |p: &[f64]| p.iter().map(|x| *x == 0.0).collect::<Vec<_>>();
        prop_assert!(order.iter().enumerate().all(|(k, i)| (moved.p[k] == 0.0) == (found.p[*i] == 0.0)));
        let k = 10.0_f64.powi(power);
        let far = cagrad_dual(&scaled(&case, k), &case.w, c).unwrap();
        prop_assert!(close(&far.p, &found.p, 1e-6));
        prop_assert_eq!(zeros(&far.p), zeros(&found.p));
        prop_assert!((far.g0_norm / k - found.g0_norm).abs() <= 1e-7 * found.g0_norm);
    }

    /// Row scales far apart: still a certificate relative to each row.
    #[test]
    fn every_row_may_have_its_own_scale(case in cases(2..8_usize), c in radii(), seed in any::<u64>()) {
        let mut rows = case.rows.clone();
        for (k, row) in rows.iter_mut().enumerate() {
            let power = (seed.rotate_left(7 * k as u32) % 301) as i32 - 150;
            row.iter_mut().for_each(|x| *x *= 10.0_f64.powi(power));
        }
        let h = Matrix::from_rows(&rows).unwrap().gram();
        let found = cagrad_dual(&h, &case.w, c).unwrap();
        prop_assert!(found.gap <= 1e-9, "gap {:e}", found.gap);
        prop_assert!(found.p.iter().all(|p| p.is_finite()) && found.value.is_finite());
    }
}

#[test]
fn many_rows() {
    for family in FAMILIES {
        for (m, seed) in [(16, 3), (32, 4), (64, 5), (64, 6)] {
            for c in [0.0, 0.1, 0.4, 0.99] {
                check(&case(family, m, seed), c).unwrap_or_else(|e| panic!("{family:?} m {m} c {c}: {e}"));
            }
        }
    }
}

/// A Gramian of single-precision sums is indefinite by 1e-7: the answer is then certified to about that.
#[test]
fn a_noisy_gramian_is_taken_for_what_it_is() {
    for family in FAMILIES {
        for (m, seed) in [2, 3, 4, 6, 8, 12].into_iter().flat_map(|m| (0..20).map(move |seed| (m, seed))) {
            let case = case(family, m, seed);
            let mut h = case.gramian();
            for (i, j) in (0..m).flat_map(|i| (0..i).map(move |j| (i, j))) {
                let sign = if (seed as usize + i * 7 + j * 3) % 5 < 2 { 1e-7 } else { -0.6e-7 };
                h[(i, j)] += sign * (h[(i, i)] * h[(j, j)]).sqrt();
                h[(j, i)] = h[(i, j)];
            }
            for c in [0.0, 0.4, 0.99] {
                let found = cagrad_dual(&h, &case.w, c).unwrap();
                assert!(found.gap < 1e-6 && (found.p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
            assert!(min_norm_point(&h).unwrap().gap < 1e-6);
        }
    }
}
