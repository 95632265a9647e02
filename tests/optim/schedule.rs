use raco::optim::{Schedule, Shape, Warmup};

use super::{floats, golden};

#[test]
fn rates_equal_those_of_transformers() {
    let golden = golden();
    let cases = [
        ("constant", Shape::Constant, Warmup::Steps(4), None),
        ("linear", Shape::Linear, Warmup::Steps(4), Some(24)),
        ("cosine", Shape::Cosine, Warmup::Steps(4), Some(24)),
        ("cosine_cold", Shape::Cosine, Warmup::Steps(0), Some(25)),
        // ceil(0.15 · 24) = 4
        ("cosine", Shape::Cosine, Warmup::Fraction(0.15), Some(24)),
    ];
    for (name, shape, warmup, total) in cases {
        let schedule = Schedule::new(shape, warmup, total).unwrap();
        for (t, expected) in floats(&golden[name]).into_iter().enumerate() {
            assert!((schedule.factor(t) - expected).abs() < 1e-14, "{name} at {t}: {expected}");
        }
    }
}

#[test]
fn past_the_end_the_rate_stays_zero() {
    for shape in [Shape::Linear, Shape::Cosine] {
        let schedule = Schedule::new(shape, Warmup::Steps(0), Some(10)).unwrap();
        assert!((10..40).all(|t| schedule.factor(t) == 0.0));
    }
}

#[test]
fn what_cannot_be_a_schedule_is_refused() {
    let refused = |shape, warmup, total| Schedule::new(shape, warmup, total).unwrap_err().to_string();
    assert!(refused(Shape::Cosine, Warmup::Steps(0), None).contains("needs the number of steps"));
    assert!(refused(Shape::Constant, Warmup::Fraction(0.1), None).contains("needs the number of steps"));
    assert!(refused(Shape::Linear, Warmup::Fraction(1.5), Some(9)).contains("found `1.5`"));
    assert!(refused(Shape::Linear, Warmup::Fraction(f64::NAN), Some(9)).contains("found `NaN`"));
    assert!(refused(Shape::Linear, Warmup::Steps(10), Some(9)).contains("10 steps in a run of 9"));
    assert!("cosin".parse::<Shape>().unwrap_err().to_string().contains("`cosin`"));
}
