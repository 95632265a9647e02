use nalgebra::DMatrix;
use proptest::prelude::*;
use raco::math::{Matrix, eigh, pinv, pinv_cut, solve};

use super::{permuted, scaled, shuffle};
use crate::common::families::{FAMILIES, case, cases};

fn square(values: &[f64]) -> Matrix {
    let m = values.len().isqrt();
    Matrix::new(m, m, values.to_vec()).unwrap()
}

fn dense(a: &Matrix) -> DMatrix<f64> {
    DMatrix::from_row_slice(a.rows(), a.cols(), a.data())
}

#[test]
fn known_answers() {
    let eigen = eigh(&square(&[2.0, 1.0, 1.0, 2.0])).unwrap();
    assert!((eigen.values[0] - 1.0).abs() < 1e-15 && (eigen.values[1] - 3.0).abs() < 1e-15);
    assert!((eigen.vectors[(0, 1)] - 0.5_f64.sqrt()).abs() < 1e-15 && eigen.gap < 1e-15);
    let zero = eigh(&Matrix::zeros(3, 3)).unwrap();
    assert_eq!((zero.values, zero.gap), (vec![0.0; 3], 0.0));
    assert_eq!(pinv(&Matrix::zeros(3, 3)).unwrap().matrix, Matrix::zeros(3, 3));
    let h = pinv(&square(&[4.0, 0.0, 0.0, 0.0])).unwrap();
    assert_eq!(h.matrix, square(&[0.25, 0.0, 0.0, 0.0]));
    let twins = pinv(&square(&[1.0; 4])).unwrap();
    assert!(twins.matrix.data().iter().all(|x| (x - 0.25).abs() < 1e-15) && twins.gap < 1e-15);
    let cut = pinv_cut(&square(&[1.0, 0.0, 0.0, 1e-3]), 1e-2).unwrap();
    assert_eq!(cut, square(&[1.0, 0.0, 0.0, 0.0]));
    let x = solve(&square(&[0.0, 2.0, 1.0, 0.0]), &[4.0, 3.0]).unwrap();
    assert_eq!((x.x, x.gap), (vec![3.0, 2.0], 0.0));
}

#[test]
fn rows_of_unlike_scale() {
    let h = pinv(&square(&[1e300, 0.5, 0.5, 1e-300])).unwrap();
    let wanted = [1e-300 / 0.75, -0.5 / 0.75, -0.5 / 0.75, 1e300 / 0.75];
    assert!(h.matrix.data().iter().zip(wanted).all(|(a, b)| (a / b - 1.0).abs() < 1e-14), "{h:?}");
    // three rows in two dimensions, the third the sum of the others
    let (a, b) = (1e100, 1e-100);
    let h = pinv(&square(&[a * a, 0.0, a * a, 0.0, b * b, b * b, a * a, b * b, a * a + b * b])).unwrap();
    assert!(h.gap < 1e-14);
    let x = solve(&square(&[1e150, 1e-150, 1e-150, 1e150]), &[1e150, 2e150]).unwrap();
    assert_eq!(x.x, [1.0, 2.0]);
    let eigen = eigh(&square(&[0.0, 2e300, 2e300, 0.0])).unwrap();
    assert_eq!(eigen.values, [-2e300, 2e300]);
}

/// (D C D)⁺ = D⁻¹ C⁻¹ D⁻¹ for independent rows, however far apart their lengths.
#[test]
fn the_inverse_of_independent_rows_follows_their_scales() {
    for (seed, m) in (1..=8).flat_map(|m| (0..4).map(move |seed| (seed, m))) {
        let rows = case(FAMILIES[0], m, seed).rows;
        let plain = pinv(&Matrix::from_rows(&rows).unwrap().gram()).unwrap().matrix;
        for power in [3, 7, 40, 150] {
            let scale =
                |i: usize| 2.0_f64.powi(if (i + seed as usize).is_multiple_of(2) { power } else { -power });
            let rows: Vec<Vec<f64>> =
                rows.iter().enumerate().map(|(i, row)| row.iter().map(|x| x * scale(i)).collect()).collect();
            let found = pinv(&Matrix::from_rows(&rows).unwrap().gram()).unwrap();
            assert!(found.gap < 1e-12, "{m} rows, 2^±{power}: {}", found.gap);
            for (i, j) in (0..m).flat_map(|i| (0..m).map(move |j| (i, j))) {
                let back = found.matrix[(i, j)] * scale(i) * scale(j);
                let size = (plain[(i, i)] * plain[(j, j)]).sqrt();
                assert!((back - plain[(i, j)]).abs() < 1e-11 * size, "{m} rows, 2^±{power}: {back:e}");
            }
        }
    }
}

#[test]
fn bad_input_is_refused() {
    let message = |r: raco::Result<f64>| r.unwrap_err().what().to_owned();
    let eigen = |h: &Matrix| message(eigh(h).map(|e| e.gap));
    assert_eq!(eigen(&Matrix::zeros(2, 3)), "`h` must be square, found 2 rows and 3 columns");
    assert_eq!(eigen(&Matrix::zeros(0, 0)), "`h` must be square, found 0 rows and 0 columns");
    assert_eq!(
        eigen(&square(&[1.0, 2.0, 3.0, 1.0])),
        "`h` must be symmetric, found `h[1, 0]` = `3` and `h[0, 1]` = `2`"
    );
    assert_eq!(eigen(&square(&[f64::NAN])), "`h[0][0]` is `NaN`, expected a finite number");
    assert_eq!(message(pinv_cut(&square(&[1.0]), 1.0).map(|_| 0.0)), "`rtol` must be in [0, 1), found `1`");
    assert!(message(pinv(&square(&[1.0, 2.0, 2.0, 1.0])).map(|p| p.gap)).contains("not a Gramian"));
    let linear = |a: &Matrix, b: &[f64]| message(solve(a, b).map(|s| s.gap));
    let singular = "`a` is singular, so that `a x = b` has no solution or many";
    assert_eq!(linear(&square(&[1.0, 2.0, 2.0, 4.0]), &[1.0, 1.0]), singular);
    assert_eq!(linear(&Matrix::zeros(2, 2), &[1.0, 1.0]), singular);
    assert_eq!(linear(&square(&[1.0]), &[1.0, 1.0]), "`b` must have 1 values, one a row of `a`, found 2");
    assert_eq!(linear(&square(&[1.0]), &[f64::INFINITY]), "`b[0]` is `inf`, expected a finite number");
}

/// H⁺ = J⁺ᵀ J⁺ by the eigenvalues of JᵀJ, a matrix of other size; `None` where the rank of the rows is lost in squares.
fn pinv_of_rows(rows: &[Vec<f64>]) -> Option<DMatrix<f64>> {
    let j = DMatrix::from_fn(rows.len(), rows[0].len(), |i, k| rows[i][k]);
    let eigen = (j.transpose() * &j).symmetric_eigen();
    let largest = eigen.eigenvalues.amax();
    if eigen.eigenvalues.iter().any(|l| (1e-13..1e-5).contains(&(l / largest))) {
        return None;
    }
    let inverse = eigen.eigenvalues.map(|l| if l > 1e-9 * largest && l > 0.0 { 1.0 / l } else { 0.0 });
    let v = &eigen.eigenvectors;
    let k = v * DMatrix::from_diagonal(&inverse) * v.transpose() * j.transpose(); // J⁺ [n, m]
    Some(k.transpose() * k)
}

proptest! {
    #[test]
    fn eigenvectors_of_any_symmetric_matrix(
        n in 1..10_usize, seed in proptest::collection::vec(-1.0..1.0_f64, 100), power in -300..301,
    ) {
        let k = 10.0_f64.powi(power);
        let a = Matrix::new(n, n, (0..n * n).map(|x| k * (seed[x / n * 10 + x % n] + seed[x % n * 10 + x / n])).collect()).unwrap();
        let found = eigh(&a).unwrap();
        prop_assert!(found.gap < 1e-13, "gap {:e}", found.gap);
        prop_assert!(found.values.is_sorted());
        let v = dense(&found.vectors);
        let values = nalgebra::DVector::from_vec(found.values.iter().map(|x| x / k).collect());
        let again = &v * DMatrix::from_diagonal(&values) * v.transpose();
        prop_assert!((again - dense(&a) / k).amax() < 1e-13 * n as f64);
    }

    #[test]
    fn the_inverse_is_that_of_the_rows(case in cases(1..9_usize)) {
        let found = pinv(&case.gramian()).unwrap();
        prop_assert!(found.gap < 1e-9, "{:?} gap {:e}", case.family, found.gap);
        let Some(expected) = pinv_of_rows(&case.rows) else { return Ok(()) };
        let off = (dense(&found.matrix) - &expected).amax();
        prop_assert!(off <= 1e-7 * expected.amax(), "{:?} {found:?} {expected}", case.family);
        let cut = pinv_cut(&case.gramian(), 1e-10).unwrap();
        prop_assert!((dense(&cut) - &expected).amax() <= 1e-5 * expected.amax());
    }

    #[test]
    fn order_and_scale_of_the_rows_do_not_matter(case in cases(1..9_usize), seed in any::<u64>(), power in -150..151) {
        let found = pinv(&case.gramian()).unwrap();
        let largest = dense(&found.matrix).amax();
        if case.gramian().data().iter().fold(0.0_f64, |a, x| a.max(x.abs())) * largest > 1e9 {
            return Ok(());
        }
        let order = shuffle(case.m(), seed);
        let moved = pinv(&permuted(&case.gramian(), &order)).unwrap();
        prop_assert!((dense(&moved.matrix) - dense(&permuted(&found.matrix, &order))).amax() <= 1e-5 * largest);
        let k = 10.0_f64.powi(power);
        let far = dense(&pinv(&scaled(&case, k)).unwrap().matrix);
        prop_assert!((far * k * k - dense(&found.matrix)).amax() <= 1e-5 * largest);
    }

    #[test]
    fn systems_of_unlike_rows_and_columns(
        n in 1..10_usize, seed in proptest::collection::vec(-1.0..1.0_f64, 110),
        powers in proptest::collection::vec(-70..71, 20),
    ) {
        let power = |i: usize| 10.0_f64.powi(powers[i]);
        let a = Matrix::new(n, n, (0..n * n).map(|x| seed[x] * power(x / n) * power(10 + x % n)).collect()).unwrap();
        let b: Vec<f64> = (0..n).map(|i| seed[100 + i] * power(i)).collect();
        let plain = DMatrix::from_row_slice(n, n, &seed[..n * n]);
        let Ok(found) = solve(&a, &b) else {
            prop_assert!(plain.determinant().abs() < 1e-9);
            return Ok(());
        };
        prop_assert!(found.gap < 1e-12, "gap {:e}", found.gap);
        let Some(expected) = plain.clone().lu().solve(&nalgebra::DVector::from_row_slice(&seed[100..100 + n])) else { return Ok(()) };
        if plain.try_inverse().is_some_and(|i| i.amax() < 1e4) {
            for i in 0..n {
                prop_assert!((found.x[i] * power(10 + i) - expected[i]).abs() <= 1e-9 * expected.amax());
            }
        }
    }
}

/// Largest entries alone do not undo the scale of a column where others are sparse.
#[test]
fn a_sparse_system_with_one_long_column_is_solved() {
    for exponent in [-60, -38, 38, 60] {
        let long = 10f64.powi(exponent);
        let entry = |i: usize, j: usize| match (i, j) {
            _ if i == j => 1.0 + i as f64,
            (_, 3) => 0.5,
            _ if j == (i + 1) % 8 => -0.4,
            _ => 0.0,
        };
        let scale = |j: usize| if j == 3 { long } else { 1.0 };
        let a = Matrix::new(8, 8, (0..64).map(|x| entry(x / 8, x % 8) * scale(x % 8)).collect()).unwrap();
        let plain = DMatrix::from_fn(8, 8, entry);
        let b: Vec<f64> = (0..8).map(|i| (i as f64).cos()).collect();
        let expected = plain.lu().solve(&nalgebra::DVector::from_row_slice(&b)).unwrap();
        let found = solve(&a, &b).unwrap();
        for (j, x) in found.x.iter().enumerate() {
            assert!((x * scale(j) - expected[j]).abs() <= 1e-12 * expected.amax(), "10^{exponent}, x {j}");
        }
    }
}

#[test]
fn many_rows() {
    for family in FAMILIES {
        for m in [1, 2, 3, 8, 32, 64] {
            for seed in 0..3 {
                let h = case(family, m, seed).gramian();
                let inverse = pinv(&h).unwrap();
                assert!(inverse.gap <= 1e-9, "{family:?} m {m} seed {seed}: gap {:e}", inverse.gap);
                let eigen = eigh(&h).unwrap();
                assert!(eigen.gap <= 1e-13, "{family:?} m {m} seed {seed}: gap {:e}", eigen.gap);
            }
        }
    }
}

/// A zero row stays exactly out of the inverse, wherever it stands.
#[test]
fn the_pseudo_inverse_of_zero_rows_is_zero_there() {
    for zero in 0..3 {
        let mut h = Matrix::from_diagonal(&[4.0, 4.0, 4.0]);
        h[(zero, zero)] = 0.0;
        let inverse = pinv(&h).unwrap().matrix;
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let expected = if i == j && i != zero { 0.25 } else { 0.0 };
            assert!((inverse[(i, j)] - expected).abs() < 1e-15);
            assert!(i != zero && j != zero || inverse[(i, j)] == 0.0, "{zero}: {}", inverse[(i, j)]);
        }
    }
}
