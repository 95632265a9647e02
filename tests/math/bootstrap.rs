//! The bootstrap over pairs: what it must give where the answer is known.

use proptest::prelude::*;
use raco::math::{Matrix, bootstrap, cosines};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// m objectives that weigh k vectors of d numbers, all labelled.
fn case(seed: u64, m: usize, k: usize, d: usize) -> (Matrix, Matrix, Vec<Vec<bool>>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
    let vectors = Matrix::new(k, d, draw(k * d)).unwrap();
    (vectors.gram(), Matrix::new(m, k, draw(m * k)).unwrap(), vec![vec![true; k]; m])
}

fn product(u: &Matrix, s: &Matrix) -> Matrix {
    u.mul(s).unwrap().mul(&u.transposed()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn equal_pairs_leave_no_doubt(k in 1usize..9, angle in 0.1f64..3.0) {
        // every pair has the same vector, each objective its own sign: the angle is 0 or π whatever is drawn
        let s = Matrix::new(k, k, vec![2.0; k * k]).unwrap();
        let sign = if angle < 1.5 { 1.0 } else { -1.0 };
        let u = Matrix::from_rows(&[vec![0.5; k], vec![sign * 0.25; k]]).unwrap();
        let found = bootstrap(&s, &u, &[vec![true; k], vec![true; k]], (50, 0.9), 1).unwrap();
        prop_assert!((found.low[(0, 1)] - sign).abs() < 1e-12 && (found.high[(0, 1)] - sign).abs() < 1e-12);
        prop_assert_eq!(found.negative[(0, 1)], f64::from(sign < 0.0));
        let length = product(&u, &s)[(0, 0)].sqrt();
        prop_assert!((found.norms[0].0 - length).abs() < 1e-9 && (found.norms[0].1 - length).abs() < 1e-9);
    }

    #[test]
    fn a_wider_level_holds_a_narrower_one(seed in any::<u64>()) {
        let (s, u, labelled) = case(seed, 3, 12, 5);
        let [narrow, wide] = [0.5, 0.95].map(|level| bootstrap(&s, &u, &labelled, (300, level), 4).unwrap());
        for i in 0..3 {
            prop_assert!((narrow.low[(i, i)] - 1.0).abs() < 1e-12);
            for j in 0..3 {
                prop_assert!(wide.low[(i, j)] <= narrow.low[(i, j)] && narrow.high[(i, j)] <= wide.high[(i, j)]);
                prop_assert_eq!(wide.low[(i, j)], wide.low[(j, i)]);
                prop_assert!((0.0..=1.0).contains(&wide.negative[(i, j)]));
            }
        }
    }
}

#[test]
fn many_pairs_agree_on_the_angle() {
    // vectors about two directions that lie at 120 degrees: objective a weighs the first half, b the second
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let k = 400;
    let rows: Vec<Vec<f64>> = (0..k)
        .map(|i| {
            let angle = if i % 2 == 0 { 0.0 } else { 2.0 * std::f64::consts::PI / 3.0 };
            let angle: f64 = angle + rng.random_range(-0.4..0.4);
            vec![angle.cos(), angle.sin()]
        })
        .collect();
    let s = Matrix::from_rows(&rows).unwrap().gram();
    let half = |odd: usize| (0..k).map(|i| f64::from(i % 2 == odd) / 200.0).collect::<Vec<f64>>();
    let u = Matrix::from_rows(&[half(0), half(1)]).unwrap();
    let labelled = [0, 1].map(|odd| (0..k).map(|i| i % 2 == odd).collect::<Vec<bool>>());
    let found = bootstrap(&s, &u, &labelled, (500, 0.95), 0).unwrap();
    let cosine = cosines(&product(&u, &s)).unwrap()[(0, 1)];
    let (low, high) = (found.low[(0, 1)], found.high[(0, 1)]);
    assert!(low < cosine && cosine < high && high - low < 0.1, "{low} {cosine} {high}");
    assert_eq!(found.negative[(0, 1)], 1.0);
    assert_eq!(found, bootstrap(&s, &u, &labelled, (500, 0.95), 0).unwrap());
    assert_ne!(found, bootstrap(&s, &u, &labelled, (500, 0.95), 1).unwrap());
}

#[test]
fn bad_levels_are_refused() {
    let (s, u, labelled) = case(1, 2, 4, 3);
    for (samples, level) in [(0, 0.9), (10, 0.0), (10, 1.0), (10, f64::NAN)] {
        assert!(bootstrap(&s, &u, &labelled, (samples, level), 0).is_err());
    }
}
