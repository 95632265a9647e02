use proptest::prelude::*;
use raco::math::{Given, clip, preference_weights, simplex_project};

#[test]
fn the_projection_has_exact_zeros_at_any_scale() {
    assert_eq!(simplex_project(&[0.2, 0.3, 0.5]).unwrap(), [0.2, 0.3, 0.5]);
    assert_eq!(simplex_project(&[2.0, 0.0, -7.0]).unwrap(), [1.0, 0.0, 0.0]);
    assert_eq!(simplex_project(&[1e300, -1e300, 1e300]).unwrap(), [0.5, 0.0, 0.5]);
    assert_eq!(simplex_project(&[f64::MAX, f64::MIN]).unwrap(), [1.0, 0.0]);
    assert_eq!(simplex_project(&[1e-300, 0.0]).unwrap(), [0.5, 0.5]);
    let error = simplex_project(&[0.0, f64::NAN]).unwrap_err();
    assert_eq!(error.what(), "`v[1]` is `NaN`, expected a finite number");
    assert!(simplex_project(&[]).is_err());
}

#[test]
fn clipping_takes_the_smaller_weight() {
    assert_eq!(clip(&[0.7, 0.3, 0.0], &[0.5, 0.5, 0.0]).unwrap(), [0.5, 0.3, 0.0]);
    assert!(clip(&[1.0], &[0.5, 0.5]).is_err());
    let error = clip(&[1.0, 0.0], &[f64::NAN, 1.0]).unwrap_err();
    assert_eq!(error.what(), "`w[0]` is `NaN`, expected a finite number");
}

fn names() -> Vec<String> {
    ["quality", "brevity", "faithful"].map(String::from).to_vec()
}

fn named(pairs: &[(&str, f64)]) -> Given {
    Given::Named(pairs.iter().map(|(n, w)| ((*n).to_owned(), *w)).collect())
}

#[test]
fn weights_follow_the_order_of_the_objectives() {
    let given = named(&[("faithful", 0.1), ("quality", 0.7), ("brevity", 0.2)]);
    assert_eq!(preference_weights(&names(), &given).unwrap(), [0.7, 0.2, 0.1]);
    let thirds = preference_weights(&names(), &Given::Ordered(vec![0.3333333; 3])).unwrap();
    assert!(thirds.iter().all(|x| (x - 1.0 / 3.0).abs() < 1e-15));
}

#[test]
fn bad_weights_are_refused_with_the_act_that_mends_them() {
    let check = |given: Given, what: &str, help: &str| {
        let error = preference_weights(&names(), &given).unwrap_err();
        assert_eq!((error.what(), error.help_text().unwrap_or_default()), (what, help));
    };
    check(
        named(&[("quality", 0.8), ("brevity", 0.2), ("faithful", 0.6)]),
        "weights must sum to 1, found `1.6`",
        "divide by the sum: #{ quality: 0.5, brevity: 0.125, faithful: 0.375 }",
    );
    check(
        Given::Ordered(vec![1.0, 1.0, 1.0]),
        "weights must sum to 1, found `3`",
        "divide by the sum: #{ quality: 0.333333333333, brevity: 0.333333333333, faithful: 0.333333333333 }",
    );
    check(
        named(&[("quality", 0.5), ("brevty", 0.5)]),
        "weight of an unknown objective `brevty`",
        "did you mean `brevity`?",
    );
    check(
        named(&[("zzz", 1.0)]),
        "weight of an unknown objective `zzz`",
        "the objectives are `quality`, `brevity`, `faithful`",
    );
    check(
        named(&[("quality", 1.0)]),
        "no weight given for `brevity`, `faithful`",
        "give every objective a weight, 0 to leave it out",
    );
    check(
        Given::Ordered(vec![1.0]),
        "3 objectives (`quality`, `brevity`, `faithful`) need as many weights, found 1",
        "give one weight an objective",
    );
    check(
        Given::Ordered(vec![1.5, -0.5, 0.0]),
        "weight of `brevity` must not be negative, found `-0.5`",
        "give 0 to leave an objective out",
    );
    check(
        Given::Ordered(vec![f64::NAN, 0.5, 0.5]),
        "weight of `quality` must be a finite number, found `NaN`",
        "",
    );
    check(
        Given::Ordered(vec![0.0; 3]),
        "weights of `quality`, `brevity`, `faithful` are all zero",
        "give at least one objective a positive weight",
    );
}

proptest! {
    /// p is the projection iff ⟨v - p, q - p⟩ ≤ 0 for every vertex q.
    #[test]
    fn the_projection_is_the_nearest_point(
        v in proptest::collection::vec(-2.0..2.0_f64, 1..64), power in -3..4_i32, shift in -9.0..9.0_f64,
    ) {
        let v: Vec<f64> = v.iter().map(|x| x * 10.0_f64.powi(power)).collect();
        let p = simplex_project(&v).unwrap();
        prop_assert!(p.iter().all(|x| *x >= 0.0) && (p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let scale = v.iter().fold(1.0_f64, |a, x| a.max(x.abs()));
        let at_p: f64 = v.iter().zip(&p).map(|(v, p)| (v - p) * p).sum();
        for (v, p) in v.iter().zip(&p) {
            prop_assert!(v - p - at_p <= 1e-13 * scale);
        }
        let moved = simplex_project(&v.iter().map(|x| x + shift).collect::<Vec<_>>()).unwrap();
        prop_assert!(p.iter().zip(&moved).all(|(a, b)| (a - b).abs() < 1e-12 * scale));
    }

    #[test]
    fn weights_within_a_millionth_are_put_on_the_simplex(
        w in proptest::collection::vec(0.01..1.0_f64, 3), off in -9e-7..9e-7_f64,
    ) {
        let sum: f64 = w.iter().sum();
        let given = w.iter().map(|x| x / sum * (1.0 + off)).collect();
        let found = preference_weights(&names(), &Given::Ordered(given)).unwrap();
        prop_assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-15 * 4.0);
        prop_assert!(found.iter().zip(&w).all(|(f, x)| (f - x / sum).abs() < 1e-15));
    }
}
