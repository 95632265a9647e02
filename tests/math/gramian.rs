use proptest::prelude::*;
use raco::math::{Matrix, cosines, norm, row_norms};

use crate::common::families::{cases, mix};

fn square(values: &[f64]) -> Matrix {
    let m = values.len().isqrt();
    Matrix::new(m, m, values.to_vec()).unwrap()
}

#[test]
fn what_is_no_gramian_is_refused_by_entry() {
    let message = |values: &[f64]| norm(&square(values), &[0.5, 0.5]).unwrap_err().what().to_owned();
    assert_eq!(message(&[1.0, f64::NAN, 0.0, 1.0]), "`h[0, 1]` is `NaN`, expected a finite number");
    assert_eq!(message(&[1.0, 0.0, 0.0, f64::INFINITY]), "`h[1, 1]` is `inf`, expected a finite number");
    assert_eq!(
        message(&[1.0, 0.0, 0.0, -1.0]),
        "`h[1, 1]` is a squared norm and must not be negative, found `-1`"
    );
    assert_eq!(
        message(&[1.0, 0.5, 0.25, 1.0]),
        "`h` must be symmetric, found `h[1, 0]` = `0.25` and `h[0, 1]` = `0.5`"
    );
    assert_eq!(
        message(&[1.0, 2.0, 2.0, 1.0]),
        "`h` is not a Gramian: `h[1, 0]` = `2` is larger than the norms of rows 1 and 0 allow"
    );
    let indefinite = square(&[1.0, 0.9, -0.9, 0.9, 1.0, 0.9, -0.9, 0.9, 1.0]);
    let error = norm(&indefinite, &[1.0, 0.0, 0.0]).unwrap_err();
    assert!(error.what().contains("make it indefinite"), "{error}");
    let flat = Matrix::new(1, 2, vec![1.0, 1.0]).unwrap();
    let error = norm(&flat, &[1.0]).unwrap_err();
    assert_eq!(error.what(), "`h` must be square with one row an objective, found 1 rows and 2 columns");
    assert!(norm(&Matrix::zeros(0, 0), &[]).is_err());
}

#[test]
fn row_weights_are_refused_by_entry() {
    let h = square(&[1.0, 0.0, 0.0, 1.0]);
    let message = |p: &[f64]| norm(&h, p).unwrap_err().what().to_owned();
    assert_eq!(message(&[1.0, f64::NEG_INFINITY]), "`p[1]` is `-inf`, expected a finite number");
    assert_eq!(message(&[1.0]), "`p` must have 2 values, one a row of `h`, found 1");
}

#[test]
fn what_cancels_up_to_rounding_has_norm_zero() {
    let rows = [vec![0.1, 0.7], vec![0.3, -0.2], vec![-0.4, -0.5]];
    for scale in [1e-150, 1.0, 1e150] {
        let rows: Vec<Vec<f64>> = rows.iter().map(|r| r.iter().map(|x| x * scale).collect()).collect();
        let h = Matrix::from_rows(&rows).unwrap().gram();
        assert_eq!(norm(&h, &[1.0, 1.0, 1.0]).unwrap(), 0.0);
        let one = norm(&h, &[1.0, 0.0, 0.0]).unwrap();
        assert!((one / scale - 0.5_f64.sqrt()).abs() < 1e-15);
    }
}

proptest! {
    #[test]
    fn norms_and_cosines_are_those_of_the_rows(case in cases(1..10_usize)) {
        let h = case.gramian();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let norms = row_norms(&h).unwrap();
        for (row, found) in case.rows.iter().zip(&norms) {
            prop_assert!((length(row) - found).abs() <= 1e-15 * length(row));
        }
        let c = cosines(&h).unwrap();
        for i in 0..case.m() {
            for j in 0..case.m() {
                let expected = if norms[i] * norms[j] == 0.0 { 0.0 } else { h[(i, j)] / norms[i] / norms[j] };
                prop_assert!((c[(i, j)] - expected).abs() < 1e-14 && c[(i, j)].abs() <= 1.0);
            }
        }
        let expected = length(&mix(&case.w, &case.rows));
        let parts: f64 = case.w.iter().zip(&norms).map(|(w, d)| w * w * d * d).sum::<f64>().sqrt();
        // Squaring halves the digits of what cancels.
        prop_assert!((norm(&h, &case.w).unwrap() - expected).abs() <= 4.0 * case.m() as f64 * 1.5e-8 * parts);
    }
}
