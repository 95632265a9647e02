//! Eigenvalues of Gramians, the small ones as exact as the large.

use raco::math::{Matrix, eigh, gram_eigh};

use crate::common::families::{FAMILIES, case};

#[test]
fn it_takes_every_gramian_apart() {
    for family in FAMILIES {
        for (m, seed) in [1, 2, 3, 8, 32].into_iter().flat_map(|m| (0..3).map(move |seed| (m, seed))) {
            let h = case(family, m, seed).gramian();
            let (found, other) = (gram_eigh(&h).unwrap(), eigh(&h).unwrap());
            let (v, rank) = (&found.vectors, found.values.len());
            assert!(found.values.iter().all(|x| *x > 0.0) && found.values.is_sorted());
            let largest = other.values[m - 1].max(f64::MIN_POSITIVE);
            for k in 0..m {
                let value = if k < m - rank { 0.0 } else { found.values[k + rank - m] };
                assert!((value - other.values[k]).abs() <= 1e-13 * m as f64 * largest, "{family:?} {m}");
            }
            for i in 0..m {
                for j in 0..m {
                    let entry: f64 = (0..rank).map(|k| v[(i, k)] * found.values[k] * v[(j, k)]).sum();
                    let size = (h[(i, i)] * h[(j, j)]).sqrt();
                    assert!((entry - h[(i, j)]).abs() <= 1e-12 * m as f64 * size, "{family:?} {m}: {entry}");
                }
            }
            for (i, j) in (0..rank).flat_map(|i| (0..rank).map(move |j| (i, j))) {
                let unit: f64 = (0..m).map(|k| v[(k, i)] * v[(k, j)]).sum();
                assert!((unit - f64::from(u8::from(i == j))).abs() < 1e-12, "{family:?} {m}: {unit}");
            }
        }
    }
}

/// The eigenvalues multiply to the squared product of a triangular matrix's diagonal.
#[test]
fn small_eigenvalues_are_exact_where_the_rows_are_far_apart() {
    for m in 2..=6 {
        let rows: Vec<Vec<f64>> = (0..m)
            .map(|i| {
                let length = 10.0_f64.powi(3 * (i as i32) - 7);
                (0..m)
                    .map(|k| if k > i { 0.0 } else { length * (1.0 + ((i * 5 + k * 3) % 7) as f64) })
                    .collect()
            })
            .collect();
        let found = gram_eigh(&Matrix::from_rows(&rows).unwrap().gram()).unwrap();
        let expected: f64 = (0..m).map(|i| rows[i][i] * rows[i][i]).product();
        let product: f64 = found.values.iter().product();
        assert!((product / expected - 1.0).abs() < 1e-9, "{m}: {product:e} {expected:e}");
    }
}

#[test]
fn dependent_rows_add_none_at_any_scale() {
    for scale in [1e-140, 1.0, 1e140] {
        let rows = [[1.0, 2.0, -1.0], [-2.0, -4.0, 2.0], [0.5, 0.0, 3.0], [1.5, 2.0, 2.0]];
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|x| x * scale).collect()).collect();
        let values = gram_eigh(&Matrix::from_rows(&rows).unwrap().gram()).unwrap().values;
        assert_eq!(values.len(), 2, "{values:?}");
    }
    assert!(gram_eigh(&Matrix::zeros(3, 3)).unwrap().values.is_empty());
    assert!(gram_eigh(&Matrix::zeros(2, 3)).is_err());
}
