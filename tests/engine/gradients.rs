//! The algebra on gradient rows against plain sums in f64.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use raco::engine::Gradients;
use raco::model::ParameterSpace;
use rand::Rng;

use crate::common::random::rng;

/// Numbers that fill no lane, run or block of the kernels exactly.
const WIDTHS: [usize; 5] = [1, 17, 1_000, 66_003, 140_001];

fn rows(m: usize, width: usize) -> (Gradients, Vec<Vec<f64>>) {
    let mut rng = rng((m * width) as u64);
    let values: Vec<f32> = (0..m * width).map(|_| rng.random_range(-1.0..1.0)).collect();
    let plain = values.chunks(width).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
    let tensor = Tensor::from_vec(values, (m, width), &Device::Cpu).unwrap();
    let space = Arc::new(ParameterSpace::new([("x".to_owned(), vec![width])]));
    let names = Arc::new((0..m).map(|i| format!("o{i}")).collect());
    (Gradients::new(names, space, tensor, vec![0.0; m], 1).unwrap(), plain)
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn the_gramian_holds_the_products_of_rows() {
    for m in [1, 2, 3, 4, 5, 8] {
        for width in WIDTHS {
            let (gradients, plain) = rows(m, width);
            let h = gradients.gramian().unwrap();
            for i in 0..m {
                for j in 0..m {
                    let size = (product(&plain[i], &plain[i]) * product(&plain[j], &plain[j])).sqrt();
                    let off = (h[(i, j)] - product(&plain[i], &plain[j])).abs();
                    assert!(off <= 1e-6 * size, "m {m} width {width} entry {i}, {j}: off by {off:e}");
                    // the same bits, wherever the pair of rows stands
                    let alone = gradients.row(i).unwrap().dot(&gradients.row(j).unwrap()).unwrap();
                    assert_eq!(h[(i, j)], alone, "m {m} width {width} entry {i}, {j}");
                }
            }
        }
    }
}

#[test]
fn gramians_of_parts_add_up() {
    let (gradients, _) = rows(3, 140_001);
    let whole = gradients.gramian().unwrap();
    let parts = [
        gradients.gramian_over([0..30_000, 30_000..70_000]),
        gradients.gramian_over([70_000..100_007, 100_007..140_001]),
    ];
    let [a, b] = parts.map(|h| h.unwrap());
    for (i, h) in whole.data().iter().enumerate() {
        assert!((a.data()[i] + b.data()[i] - h).abs() <= 1e-6 * whole[(0, 0)]);
    }
}

#[test]
fn a_combination_is_the_sum_of_weighted_rows() {
    for m in [1, 2, 3, 4, 5, 8] {
        for width in WIDTHS {
            let (gradients, plain) = rows(m, width);
            let alpha: Vec<f64> = (0..m).map(|i| 0.7 * i as f64 - 1.0).collect();
            let found = gradients.combine(&alpha).unwrap().tensor().to_vec1::<f32>().unwrap();
            assert_eq!(found.len(), width);
            for (k, found) in found.iter().enumerate() {
                let wanted: f64 = alpha.iter().zip(&plain).map(|(a, row)| a * row[k]).sum();
                assert!((f64::from(*found) - wanted).abs() < 1e-5, "m {m} width {width} at {k}");
            }
        }
    }
}
