//! The aggregators that read coordinates, and what the host brings for them, against plain loops.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use raco::engine::{Gradient, Gradients};
use raco::model::ParameterSpace;

use super::aggregators::{Bench, all_cases, floats, same};
use crate::common::families::{Case, FAMILIES, case};

fn column(rows: &[Vec<f64>], k: usize) -> Vec<f64> {
    rows.iter().map(|row| row[k]).collect()
}

#[test]
fn the_trimmed_mean_leaves_out_the_ends_of_each_coordinate() {
    let bench = Bench::new();
    for case in all_cases(3..=7) {
        for trim in [0, 1, (case.m() - 1) / 2] {
            let expected: Vec<f64> = (0..case.rows[0].len())
                .map(|k| {
                    let mut values = column(&case.rows, k);
                    values.sort_by(f64::total_cmp);
                    let kept = &values[trim..case.m() - trim];
                    kept.iter().sum::<f64>() / kept.len() as f64
                })
                .collect();
            same(&bench.direction(&case, "trimmed_mean", &format!("trim: {trim}")), &expected, &case);
        }
    }
    let few = bench.updates(&case(FAMILIES[0], 2, 0), "trimmed_mean", "", 1).unwrap_err();
    assert_eq!(few.error.what(), "the trimmed mean has no answer for 2 rows");
}

fn graddrop(rows: &[Vec<f64>], draws: &[f64], leak: &[f64]) -> Vec<f64> {
    (0..rows[0].len())
        .map(|k| {
            let values = column(rows, k);
            let total: f64 = values.iter().map(|x| x.abs()).sum();
            let purity = 0.5 * (1.0 + values.iter().sum::<f64>() / total);
            let keeps = |x: f64| (x > 0.0 && purity > draws[k]) || (x < 0.0 && purity < draws[k]);
            let part = |(x, l): (&f64, &f64)| x * (l + (1.0 - l) * f64::from(u8::from(keeps(*x))));
            values.iter().zip(leak).map(part).sum()
        })
        .collect()
}

#[test]
fn graddrop_keeps_one_sign_of_each_coordinate() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        let n = case.rows[0].len();
        let draws: Vec<f64> = (0..n).map(|k| (0.37 * k as f64 + 0.2) % 1.0).collect();
        let leak: Vec<f64> = (0..case.m()).map(|i| 0.4 / (i + 1) as f64).collect();
        let none = vec![0.0; case.m()];
        let d = bench.direction(&case, "graddrop", &format!("draws: {draws:?}"));
        same(&d, &graddrop(&case.rows, &draws, &none), &case);
        let d = bench.direction(&case, "graddrop", &format!("draws: {draws:?}, leak: {leak:?}"));
        same(&d, &graddrop(&case.rows, &draws, &leak), &case);
        let d = bench.direction(&case, "graddrop", "draws: 0.5");
        same(&d, &graddrop(&case.rows, &vec![0.5; n], &none), &case);
    }
}

#[test]
fn graddrop_draws_anew_at_each_call_and_by_its_seed() {
    let bench = Bench::new();
    let wide = Case { rows: vec![vec![1.0; 64], vec![-1.0; 64]], ..case(FAMILIES[0], 2, 0) };
    let directions = |seed: u64| -> Vec<Vec<f64>> {
        let found = bench.updates(&wide, "graddrop", &format!("seed: {seed}"), 2).unwrap();
        found.iter().map(|update| floats(update, "direction")).collect()
    };
    let found = directions(3);
    assert!(found.iter().flatten().all(|x| x.abs() == 1.0));
    assert_ne!(found[0], found[1]);
    assert_eq!(directions(3), found);
    assert_ne!(directions(4)[0], found[0]);
}

/// Two calls, the second divided by what the first measured.
#[test]
fn excess_mtl_measures_against_its_first_call() {
    let bench = Bench::new();
    for case in all_cases(1..=5) {
        let m = case.m();
        let mut logs = vec![0.0; m];
        let mut first = vec![0.0; m];
        for (call, update) in bench.updates(&case, "excess_mtl", "", 2).unwrap().iter().enumerate() {
            for i in 0..m {
                let excess: f64 =
                    case.rows[i].iter().map(|g| g * g / ((call + 1) as f64 * g * g + 1e-7).sqrt()).sum();
                if call == 0 {
                    first[i] = excess;
                }
                logs[i] += if call == 0 { excess } else { excess / (first[i] + 1e-7) };
            }
            let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let parts: Vec<f64> = logs.iter().map(|x| (x - largest).exp()).collect();
            let alpha: Vec<f64> = parts.iter().map(|x| x / parts.iter().sum::<f64>()).collect();
            let found = floats(update, "alpha");
            assert!(
                alpha.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-9),
                "{found:?} {alpha:?} {case:?}"
            );
        }
    }
}

/// Rows of single precision over several blocks.
fn wide(m: usize, width: usize) -> (Gradients, Vec<Vec<f32>>) {
    let rows: Vec<Vec<f32>> = (0..m)
        .map(|i| (0..width).map(|k| ((k * 7919 + i * 104_729) % 1009) as f32 - 504.0).collect())
        .collect();
    let space = Arc::new(ParameterSpace::new([("a".to_owned(), vec![width - 5]), ("b".to_owned(), vec![5])]));
    let tensor = Tensor::from_vec(rows.concat(), (m, width), &Device::Cpu).unwrap();
    let names = Arc::new((0..m).map(|i| i.to_string()).collect());
    (Gradients::new(names, space, tensor, vec![0.0; m], 1).unwrap(), rows)
}

fn values(gradient: &Gradient) -> Vec<f32> {
    gradient.tensor().to_vec1().unwrap()
}

#[test]
fn ranks_are_those_of_each_coordinate_over_all_blocks() {
    let (gradients, rows) = wide(4, 150_001);
    let middle = values(&gradients.rank_mean(1..3).unwrap());
    let least = values(&gradients.rank_mean(0..1).unwrap());
    for k in 0..middle.len() {
        let mut column: Vec<f32> = rows.iter().map(|row| row[k]).collect();
        column.sort_by(f32::total_cmp);
        assert_eq!((least[k], middle[k]), (column[0], (column[1] + column[2]) / 2.0), "coordinate {k}");
    }
    for ranks in [2..2, 3..5] {
        assert!(gradients.rank_mean(ranks).unwrap_err().to_string().contains("of 4 rows"));
    }
}

#[test]
fn uniform_draws_do_not_depend_on_the_number_of_threads() {
    let (gradients, _) = wide(1, 150_001);
    let row = gradients.row(0).unwrap();
    let draws = |seed: u64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| values(&row.uniform(seed).unwrap()))
    };
    let found = draws(5, 1);
    assert_eq!(found, draws(5, 3));
    assert_ne!(found, draws(6, 1));
    assert_ne!(found[..100], found[1 << 16..][..100], "blocks draw apart");
    assert!(found.iter().all(|u| (0.0..1.0).contains(u)));
    let mean = found.iter().map(|u| f64::from(*u)).sum::<f64>() / found.len() as f64;
    assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0_f64 / found.len() as f64).sqrt(), "{mean}");
    assert_eq!(row.uniform(5).unwrap().tensor().dtype(), DType::F32);
}
