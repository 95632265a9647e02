use proptest::prelude::*;
use raco::math::{Matrix, MinNorm, min_norm_point, norm};

use super::{nearest_by_trial, permuted, scaled, shuffle};
use crate::common::families::{FAMILIES, Family, case, cases, mix};

fn solve(rows: &[&[f64]]) -> MinNorm {
    let rows: Vec<Vec<f64>> = rows.iter().map(|r| r.to_vec()).collect();
    min_norm_point(&Matrix::from_rows(&rows).unwrap().gram()).unwrap()
}

#[test]
fn known_points() {
    let two = solve(&[&[1.0, 0.0], &[0.0, 1.0]]);
    assert_eq!((two.p, two.norm), (vec![0.5, 0.5], 0.5_f64.sqrt()));
    assert!(two.gap < 1e-15);
    let inside = solve(&[&[1.0, 1.0], &[3.0, 0.0]]);
    assert!((inside.p[0] - 1.0).abs() < 1e-15, "{inside:?}");
    let nearer = solve(&[&[1.0, 0.0], &[2.0, 0.0]]);
    assert_eq!((nearer.p, nearer.norm), (vec![1.0, 0.0], 1.0));
    let zero = solve(&[&[1.0, 0.0], &[0.0, 0.0], &[0.0, 0.0]]);
    assert!((zero.p[0], zero.norm) == (0.0, 0.0) && (zero.p[1] - 0.5).abs() < 1e-15);
    let opposing = solve(&[&[1.0, 0.0], &[-3.0, 0.0]]);
    assert!((opposing.p[0] - 0.75).abs() < 1e-15 && opposing.norm == 0.0);
    let twins = solve(&[&[1.0, 0.0], &[1.0, 0.0], &[0.0, 1.0]]);
    assert!(twins.p.iter().zip([0.25, 0.25, 0.5]).all(|(p, q)| (p - q).abs() < 1e-15));
    assert_eq!(solve(&[&[0.0], &[0.0]]).p, [0.5, 0.5]);
    assert_eq!(solve(&[&[-2.0]]), MinNorm { p: vec![1.0], norm: 2.0, gap: 0.0 });
}

#[test]
fn rows_of_unlike_scale_are_balanced() {
    let h = Matrix::new(2, 2, vec![1e300, 0.0, 0.0, 1e-300]).unwrap();
    let far = min_norm_point(&h).unwrap();
    assert_eq!(far.p, [0.0, 1.0]);
    assert!((far.norm / 1e-150 - 1.0).abs() < 1e-15);
    let h = Matrix::new(2, 2, vec![1e12, 0.0, 0.0, 1.0]).unwrap();
    assert!((min_norm_point(&h).unwrap().p[0] / (1.0 / (1.0 + 1e12)) - 1.0).abs() < 1e-9);
}

#[test]
fn bad_input_is_refused_by_name() {
    let error = min_norm_point(&Matrix::new(1, 1, vec![f64::NAN]).unwrap()).unwrap_err();
    assert_eq!(error.what(), "`h[0, 0]` is `NaN`, expected a finite number");
}

proptest! {
    /// `‖G_p‖² ≤ ⟨g_i, G_p⟩` for every row, checked on the rows and not on their Gramian.
    #[test]
    fn no_row_leads_below_the_point(case in cases(1..12_usize)) {
        let found = min_norm_point(&case.gramian()).unwrap();
        prop_assert!((found.p.iter().sum::<f64>() - 1.0).abs() < 1e-14 && found.p.iter().all(|p| *p >= 0.0));
        prop_assert!(found.gap <= 1e-11, "gap {:e}", found.gap);
        let g = mix(&found.p, &case.rows);
        let square: f64 = g.iter().map(|x| x * x).sum();
        let longest = case.rows.iter().flatten().fold(0.0_f64, |a, x| a.max(x.abs()));
        if found.norm == 0.0 {
            prop_assert!(square.sqrt() <= 1e-6 * longest);
            return Ok(());
        }
        prop_assert!((square.sqrt() / found.norm - 1.0).abs() < 1e-7);
        for row in &case.rows {
            let product: f64 = row.iter().zip(&g).map(|(r, g)| r * g).sum();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            prop_assert!(square - product <= 1e-9 * found.norm * (length + found.norm));
        }
    }

    #[test]
    fn no_point_of_a_grid_is_shorter(case in cases(2..4_usize)) {
        let h = case.gramian();
        let found = min_norm_point(&h).unwrap();
        for p in super::grid(case.m(), 100) {
            prop_assert!(norm(&h, &p).unwrap() >= found.norm * (1.0 - 1e-9));
        }
    }

    #[test]
    fn among_minimisers_it_is_the_nearest_to_uniform(case in cases(1..7_usize)) {
        let found = min_norm_point(&case.gramian()).unwrap();
        let uniform = vec![1.0 / case.m() as f64; case.m()];
        let Some(nearest) = nearest_by_trial(&case.rows, &found.p, &uniform) else { return Ok(()) };
        prop_assert!(
            found.p.iter().zip(&nearest).all(|(a, b)| (a - b).abs() < 1e-5), "{:?} {:?} {nearest:?}", case.family, found
        );
    }

    #[test]
    fn order_and_scale_of_the_rows_do_not_matter(case in cases(1..9_usize), seed in any::<u64>(), power in -150..151) {
        let found = min_norm_point(&case.gramian()).unwrap();
        let order = shuffle(case.m(), seed);
        let moved = min_norm_point(&permuted(&case.gramian(), &order)).unwrap();
        prop_assert!(order.iter().enumerate().all(|(k, i)| (moved.p[k] - found.p[*i]).abs() < 1e-7));
        let k = 10.0_f64.powi(power);
        let far = min_norm_point(&scaled(&case, k)).unwrap();
        prop_assert!(far.p.iter().zip(&found.p).all(|(a, b)| (a - b).abs() < 1e-7));
        prop_assert!((far.norm / k - found.norm).abs() <= 1e-7 * found.norm);
    }
}

#[test]
fn many_rows() {
    for family in FAMILIES {
        for (m, seed) in [(32, 1), (64, 2)] {
            let case = case(family, m, seed);
            let found = min_norm_point(&case.gramian()).unwrap();
            assert!(found.gap <= 1e-11, "{family:?} m {m} gap {:e}", found.gap);
            match family {
                Family::Stationary | Family::ZeroRows => assert_eq!(found.norm, 0.0),
                Family::Generic | Family::Conflicting | Family::MixedScales => assert!(found.norm > 0.0),
                _ => assert!(found.norm >= 0.0),
            }
        }
    }
}
