//! Intervals and the paired test against scipy and arch, and by what must hold.

use proptest::prelude::*;
use raco::math::{bootstrap_t, sign_flip, t_interval, t_quantile, wilson_interval};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{floats, golden_fronts as golden};

#[test]
fn quantiles_of_student_are_those_of_scipy() {
    for row in golden()["t_quantile"].as_array().unwrap() {
        let row = floats(row);
        let found = t_quantile(row[0], row[1]);
        assert!((found - row[2]).abs() <= 1e-11 * row[2].abs().max(1.0), "{found} is not scipy's {}", row[2]);
    }
    // one degree of freedom is Cauchy's distribution
    assert!((t_quantile(0.75, 1.0) - 1.0).abs() < 1e-12);
    assert!(t_quantile(1.0, 3.0).is_nan() && t_quantile(0.5, 0.0).is_nan());
}

#[test]
fn intervals_of_shares_are_those_of_scipy() {
    for row in golden()["wilson"].as_array().unwrap() {
        let row = floats(row);
        let found = wilson_interval(row[0], row[1] as usize).unwrap();
        assert!(
            (found.low - row[2]).abs() < 1e-12 && (found.high - row[3]).abs() < 1e-12,
            "{found:?} {row:?}"
        );
    }
    assert!(wilson_interval(0.0, 0).is_err() && wilson_interval(2.5, 2).is_err());
}

#[test]
fn intervals_and_tests_of_seeds_are_those_of_scipy() {
    for case in golden()["seeds"].as_array().unwrap() {
        let (a, b) = (floats(&case["a"]), floats(&case["b"]));
        let (found, expected) = (t_interval(&a, 0.9).unwrap(), floats(&case["t"]));
        assert!((found.low - expected[0]).abs() < 1e-12 && (found.high - expected[1]).abs() < 1e-12);
        let test = sign_flip(&a, &b).unwrap();
        assert!((test.p - case["p"].as_f64().unwrap()).abs() < 1e-12, "{} for {}", test.p, case["p"]);
        assert_eq!(test.smallest, 2.0 / f64::from(1u32 << a.len()));
    }
}

#[test]
fn the_bootstrap_t_interval_is_that_of_arch() {
    let golden = golden();
    let case = &golden["bootstrap_t"];
    let (values, expected) = (floats(&case["values"]), floats(&case["interval"]));
    let found = bootstrap_t(&values, 0.9, 200_000, 3).unwrap();
    // arch's outer standard error divides by n, that of the resamples by n - 1; here both divide by n - 1
    let n = values.len() as f64;
    let expected: Vec<f64> =
        expected.iter().map(|end| found.mean + (end - found.mean) * (n / (n - 1.0)).sqrt()).collect();
    // two quantiles of 200,000 resamples differ by about 0.3 % at the heavy end; 2 % is past doubt
    let width = expected[1] - expected[0];
    assert!(
        (found.low - expected[0]).abs() < 0.02 * width && (found.high - expected[1]).abs() < 0.02 * width
    );
    assert_eq!(bootstrap_t(&values, 0.9, 500, 3).unwrap(), bootstrap_t(&values, 0.9, 500, 3).unwrap());
    assert!(bootstrap_t(&values, 0.9, 500, 3).unwrap() != bootstrap_t(&values, 0.9, 500, 4).unwrap());
}

/// Every pattern, one after the other.
fn by_enumeration(d: &[f64]) -> f64 {
    let total: f64 = d.iter().sum();
    let sum = |signs: u32| -> f64 {
        d.iter().enumerate().map(|(i, x)| if signs >> i & 1 == 1 { -x } else { *x }).sum()
    };
    let count = (0..1u32 << d.len()).filter(|&signs| sum(signs).abs() >= total.abs() - 1e-9).count();
    count as f64 / f64::from(1u32 << d.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn patterns_are_counted_as_one_by_one(d in proptest::collection::vec((-4i32..5).prop_map(|x| 0.1 * f64::from(x)), 1..12)) {
        let zeros = vec![0.0; d.len()];
        let test = sign_flip(&d, &zeros).unwrap();
        prop_assert_eq!(test.p, by_enumeration(&d));
        prop_assert!(test.p >= test.smallest && test.p <= 1.0);
        // neither the order of the two nor that of the pairs matters
        prop_assert_eq!(sign_flip(&zeros, &d).unwrap().p, test.p);
        let turned: Vec<f64> = d.iter().rev().copied().collect();
        prop_assert_eq!(sign_flip(&turned, &zeros).unwrap().p, test.p);
    }
}

#[test]
fn many_pairs_are_counted_exactly() {
    // all differences equal: only the pattern itself and its mirror reach the sum
    let test = sign_flip(&[1.0; 40], &[0.5; 40]).unwrap();
    assert_eq!(test.p, 2.0 / 2f64.powi(40));
    assert_eq!(sign_flip(&[0.5; 3], &[0.5; 3]).unwrap().p, 1.0);
    assert!(sign_flip(&[1.0; 41], &[0.5; 41]).unwrap_err().what().contains("at most 40"));
}

#[test]
fn a_t_interval_holds_the_mean_as_often_as_it_says() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    let trials = 4000;
    let held = (0..trials).filter(|_| {
        let values: Vec<f64> = (0..4).map(|_| normal()).collect();
        let found = t_interval(&values, 0.8).unwrap();
        found.low <= 0.0 && 0.0 <= found.high
    });
    // the standard deviation of the share is 0.0063
    assert!((held.count() as f64 / f64::from(trials) - 0.8).abs() < 0.03);
}

#[test]
fn too_few_values_are_refused() {
    assert!(t_interval(&[0.5], 0.95).unwrap_err().what().contains("1 values, expected 2 or more"));
    assert!(bootstrap_t(&[0.5, 0.6], 0.95, 100, 0).unwrap_err().what().contains("expected 3 or more"));
    assert!(t_interval(&[0.5, 0.6], 1.0).is_err() && t_interval(&[0.5, f64::NAN], 0.9).is_err());
    assert!(bootstrap_t(&[0.5, 0.6, 0.7], 0.95, 0, 0).is_err());
    assert!(sign_flip(&[0.5], &[0.5, 0.6]).is_err() && sign_flip(&[], &[]).is_err());
    // equal values leave no doubt
    let same = bootstrap_t(&[0.5; 4], 0.95, 100, 0).unwrap();
    assert_eq!((same.low, same.high), (0.5, 0.5));
}
