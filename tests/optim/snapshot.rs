//! States that are put back, and steps that are only looked at.

use proptest::prelude::*;
use raco::model::Model;
use raco::optim::{AdamW, Optimizer, Options, Schedule, Sgd, Shape, Warmup};

use super::{gradient, model_of, values};

/// Optimisers of every kind, on a schedule and clipped, that decay weights too.
fn optimizers(model: &Model) -> Vec<Optimizer> {
    let schedule = Schedule::new(Shape::Cosine, Warmup::Steps(2), Some(9)).unwrap();
    let options = Options { lr: 0.05, schedule, clip: Some(1.5) };
    let sgd = |momentum, nesterov| Sgd { momentum, decay: 0.1, nesterov };
    vec![
        Optimizer::adamw(model, AdamW { decay: 0.1, ..AdamW::default() }, options).unwrap(),
        Optimizer::sgd(model, sgd(0.9, true), options).unwrap(),
        Optimizer::sgd(model, sgd(0.0, false), options).unwrap(),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn steps_after_a_restore_give_the_same_bits(
        steps in prop::collection::vec(prop::array::uniform5(-3f32..3.0), 2..7),
        kept_at in 0usize..6,
    ) {
        for which in 0..3 {
            let model = model_of(&[0.5, -1.0, 2.0], &[0.1, 0.0]);
            let mut optimizer = optimizers(&model).swap_remove(which);
            let kept_at = kept_at.min(steps.len() - 1);
            for step in &steps[..kept_at] {
                optimizer.step(&gradient(&model, step)).unwrap();
            }
            let (weights, state) = (model.weights(), optimizer.snapshot());
            let (at, count) = (values(&model), optimizer.step_count());
            let mut ends = Vec::new();
            for _ in 0..3 {
                for step in &steps[kept_at..] {
                    optimizer.step(&gradient(&model, step)).unwrap();
                }
                ends.push(bits(&values(&model)));
                let version = model.version();
                model.restore(weights.clone()).unwrap();
                optimizer.put_back(&state).unwrap();
                prop_assert!(model.version() > version, "log-probs taken before are stale");
                prop_assert_eq!(bits(&values(&model)), bits(&at));
                prop_assert_eq!(optimizer.step_count(), count);
            }
            prop_assert!(ends[0] != bits(&at));
            prop_assert!(ends.iter().all(|end| *end == ends[0]));
        }
    }

    #[test]
    fn a_preview_is_what_the_step_does(
        steps in prop::collection::vec(prop::array::uniform5(-3f32..3.0), 1..5),
    ) {
        for which in 0..3 {
            let model = model_of(&[0.5, -1.0, 2.0], &[0.1, 0.0]);
            let mut optimizer = optimizers(&model).swap_remove(which);
            for step in &steps {
                let update = gradient(&model, step);
                let (before, version, count) = (values(&model), model.version(), optimizer.step_count());
                let seen = optimizer.preview(&update).unwrap().tensor().to_vec1::<f32>().unwrap();
                prop_assert_eq!(bits(&values(&model)), bits(&before));
                prop_assert_eq!((model.version(), optimizer.step_count()), (version, count));
                optimizer.step(&update).unwrap();
                let moved: Vec<f32> = values(&model).iter().zip(&before).map(|(a, b)| a - b).collect();
                prop_assert_eq!(bits(&seen), bits(&moved));
            }
        }
    }
}

#[test]
fn a_preview_that_fails_changes_nothing() {
    let model = model_of(&[0.5, -1.0, 2.0], &[0.1, 0.0]);
    for which in 0..3 {
        let mut optimizer = optimizers(&model).swap_remove(which);
        let good = gradient(&model, &[0.1, 0.2, 0.3, 0.4, 0.5]);
        let expected = optimizer.preview(&good).unwrap().tensor().to_vec1::<f32>().unwrap();
        let bad = gradient(&model, &[0.1, f32::NAN, 0.3, 0.4, 0.5]);
        assert!(optimizer.preview(&bad).is_err());
        let (found, count) = (optimizer.preview(&good).unwrap(), optimizer.step_count());
        assert_eq!((found.tensor().to_vec1::<f32>().unwrap(), count), (expected, 0));
    }
}

#[test]
fn states_of_others_are_refused() {
    let (model, other) = (model_of(&[0.5, -1.0, 2.0], &[0.1, 0.0]), model_of(&[1.0], &[2.0]));
    let before = values(&model);
    assert!(model.restore(other.weights()).unwrap_err().what().contains("other parameters"));
    assert_eq!(values(&model), before);
    let [adamw, sgd] = [0, 1].map(|which| optimizers(&model).swap_remove(which));
    let mut adamw = adamw;
    assert!(adamw.put_back(&sgd.snapshot()).unwrap_err().what().contains("another optimiser"));
}
