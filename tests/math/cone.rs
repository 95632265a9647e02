use nalgebra::{DMatrix, DVector};
use proptest::prelude::*;
use raco::math::{ConeProjection, Matrix, cone_project, cone_project_each};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{permuted, scaled, shuffle};
use crate::common::families::{FAMILIES, case, cases, mix};

fn gramian(rows: &[&[f64]]) -> Matrix {
    Matrix::from_rows(&rows.iter().map(|r| r.to_vec()).collect::<Vec<_>>()).unwrap().gram()
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Any weights, some 0, some negative.
fn targets(m: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |rng: &mut ChaCha8Rng| rng.random_range(-1.0..1.5_f64);
    (0..m).map(|_| if rng.random_bool(0.3) { 0.0 } else { draw(&mut rng) }).collect()
}

#[test]
fn known_projections() {
    let solve = |rows: &[&[f64]], u: &[f64]| cone_project(&gramian(rows), u).unwrap();
    // no conflict: nothing to do
    let free = solve(&[&[1.0, 0.0], &[1.0, 1.0]], &[0.3, 0.7]);
    assert_eq!(free, ConeProjection { alpha: vec![0.3, 0.7], gap: 0.0 });
    // (1, 0) loses its part on (-1, 1)
    let one = solve(&[&[1.0, 0.0], &[-1.0, 1.0]], &[1.0, 0.0]);
    assert!(one.alpha[0] == 1.0 && (one.alpha[1] - 0.5).abs() < 1e-15 && one.gap < 1e-15, "{one:?}");
    // opposed rows leave what is orthogonal to both
    let opposed = solve(&[&[1.0, 0.0], &[-2.0, 0.0], &[3.0, 1.0]], &[0.0, 0.0, 1.0]);
    let d = mix(&opposed.alpha, &[vec![1.0, 0.0], vec![-2.0, 0.0], vec![3.0, 1.0]]);
    assert!(length(&[d[0], d[1] - 1.0]) < 1e-15, "{opposed:?}");
    // a row twice: each takes half
    let twice = solve(&[&[1.0, 0.0], &[-1.0, 1.0], &[-1.0, 1.0]], &[1.0, 0.0, 0.0]);
    assert!((twice.alpha[1] - 0.25).abs() < 1e-15 && (twice.alpha[2] - 0.25).abs() < 1e-15);
    assert_eq!(solve(&[&[0.0], &[0.0]], &[0.4, 0.6]).alpha, [0.4, 0.6]);
    assert_eq!(solve(&[&[-3.0]], &[2.0]), ConeProjection { alpha: vec![2.0], gap: 0.0 });
    assert_eq!(solve(&[&[2.0]], &[-2.0]).alpha, [0.0]);
}

#[test]
fn rows_of_unlike_scale_are_projected() {
    let h = Matrix::new(2, 2, vec![1e300, -0.5, -0.5, 1e-300]).unwrap();
    let found = cone_project(&h, &[1.0, 0.0]).unwrap();
    assert!(found.alpha[0] == 1.0 && (found.alpha[1] / 0.5e300 - 1.0).abs() < 1e-15 && found.gap < 1e-15);
    let found = cone_project(&h, &[0.0, 1.0]).unwrap();
    assert!(found.alpha[1] == 1.0 && (found.alpha[0] / 0.5e-300 - 1.0).abs() < 1e-15 && found.gap < 1e-15);
    let found = cone_project(&h, &[1e-200, 1e100]).unwrap();
    assert!(found.gap < 1e-15, "{found:?}");
}

#[test]
fn bad_input_is_refused_by_name() {
    let h = gramian(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let message = |u: &[f64]| cone_project(&h, u).unwrap_err().what().to_owned();
    assert_eq!(message(&[1.0]), "`u` must have 2 values, one a row of `h`, found 1");
    assert_eq!(message(&[1.0, f64::NAN]), "`u[1]` is `NaN`, expected a finite number");
    let each = cone_project_each(&h, &Matrix::new(2, 1, vec![1.0, 1.0]).unwrap()).unwrap_err();
    assert_eq!(each.what(), "`u[0]` must have 2 values, one a row of `h`, found 1");
    let tall = Matrix::new(2, 2, vec![1e300, -0.5e-5, -0.5e-5, 1e-307]).unwrap();
    let error = cone_project(&tall, &[1e10, 0.0]).unwrap_err();
    assert_eq!(error.what(), "the projection needs a weight of row 1 beyond what a float holds");
}

/// The projection by trying every set of rows: slow, and nothing but pseudo-inverses of the rows.
fn by_trial(rows: &[Vec<f64>], u: &[f64]) -> Vec<f64> {
    let (m, n) = (rows.len(), rows[0].len());
    let start = DVector::from_vec(mix(u, rows));
    let lengths: Vec<f64> = rows.iter().map(|row| length(row).max(f64::MIN_POSITIVE)).collect();
    let trial = |set: u32| {
        if set == 0 {
            let holds =
                (0..m).all(|i| product(&rows[i], start.as_slice()) >= -1e-7 * lengths[i] * start.norm());
            return holds.then(|| (0.0, start.clone()));
        }
        let chosen: Vec<usize> = (0..m).filter(|i| set >> i & 1 == 1).collect();
        let a = DMatrix::from_fn(n, chosen.len(), |k, c| rows[chosen[c]][k] / lengths[chosen[c]]);
        let eigen = (a.transpose() * &a).symmetric_eigen();
        let largest = eigen.eigenvalues.iter().fold(0.0_f64, |a, x| a.max(*x));
        let inverse = eigen.eigenvalues.map(|l| if l > 1e-11 * largest { 1.0 / l } else { 0.0 });
        let x = -&eigen.eigenvectors
            * (eigen.eigenvectors.transpose() * (a.transpose() * &start)).component_mul(&inverse);
        let d = &start + &a * &x;
        let holds = x.iter().all(|x| *x >= -1e-9 * start.norm())
            && (0..m).all(|i| product(&rows[i], d.as_slice()) >= -1e-7 * lengths[i] * start.norm());
        holds.then(|| ((&d - &start).norm(), d))
    };
    let best = (0..1_u32 << m).filter_map(trial).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    best.1.as_slice().to_vec()
}

proptest! {
    /// d is the projection iff d is in the cone, and alpha - u ≥ 0 is 0 where ⟨g_i, d⟩ > 0: checked on the rows.
    #[test]
    fn it_is_optimal_on_the_rows(case in cases(1..12_usize), seed in any::<u64>()) {
        let u = targets(case.m(), seed);
        let found = cone_project(&case.gramian(), &u).unwrap();
        prop_assert!(found.gap <= 1e-10, "{:?} gap {:e}", case.family, found.gap);
        let size: f64 = u.iter().zip(&case.rows).map(|(u, row)| u.abs() * length(row)).sum();
        let d = mix(&found.alpha, &case.rows);
        for ((row, alpha), u) in case.rows.iter().zip(&found.alpha).zip(&u) {
            let slope = product(row, &d);
            prop_assert!(slope >= -1e-7 * length(row) * size, "{:?}", case.family);
            prop_assert!(alpha >= u && (alpha == u || slope <= 1e-7 * length(row) * size));
        }
    }

    #[test]
    fn it_is_what_trying_every_set_of_rows_finds(case in cases(1..7_usize), seed in any::<u64>()) {
        let u = targets(case.m(), seed);
        let d = mix(&cone_project(&case.gramian(), &u).unwrap().alpha, &case.rows);
        let expected = by_trial(&case.rows, &u);
        let size: f64 = u.iter().zip(&case.rows).map(|(u, row)| u.abs() * length(row)).sum();
        let off: Vec<f64> = d.iter().zip(&expected).map(|(a, b)| a - b).collect();
        prop_assert!(length(&off) <= 1e-6 * size, "{:?} {d:?} {expected:?}", case.family);
    }

    #[test]
    fn order_and_scale_of_the_rows_do_not_matter(
        case in cases(1..9_usize), seed in any::<u64>(), power in -150..151,
    ) {
        let u = targets(case.m(), seed);
        let found = cone_project(&case.gramian(), &u).unwrap();
        let lengths: Vec<f64> = case.rows.iter().map(|row| length(row)).collect();
        let size = u.iter().zip(&lengths).map(|(u, l)| u.abs() * l).sum::<f64>();
        let order = shuffle(case.m(), seed);
        let moved_u: Vec<f64> = order.iter().map(|i| u[*i]).collect();
        let moved = cone_project(&permuted(&case.gramian(), &order), &moved_u).unwrap();
        for (k, i) in order.iter().enumerate() {
            prop_assert!((moved.alpha[k] - found.alpha[*i]).abs() * lengths[*i] <= 1e-5 * size);
        }
        let far = cone_project(&scaled(&case, 10.0_f64.powi(power)), &u).unwrap();
        for (i, (a, b)) in far.alpha.iter().zip(&found.alpha).enumerate() {
            prop_assert!((a - b).abs() * lengths[i] <= 1e-5 * size);
        }
        let twice = cone_project(&case.gramian(), &u.iter().map(|u| 2.0 * u).collect::<Vec<_>>()).unwrap();
        prop_assert!(twice.alpha.iter().zip(&found.alpha).all(|(a, b)| *a == 2.0 * b));
    }
}

#[test]
fn many_rows_and_many_targets() {
    for family in FAMILIES {
        for m in [1, 2, 3, 8, 32, 64] {
            for seed in 0..3 {
                let case = case(family, m, seed);
                let h = case.gramian();
                let u = targets(m, seed);
                let found = cone_project(&h, &u).unwrap();
                assert!(found.gap <= 1e-10, "{family:?} m {m} seed {seed}: gap {:e}", found.gap);
                let both = Matrix::from_rows(&[u, case.w]).unwrap();
                assert_eq!(cone_project_each(&h, &both).unwrap()[0], found);
            }
        }
    }
}
