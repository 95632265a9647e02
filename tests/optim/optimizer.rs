use proptest::prelude::*;
use raco::model::Model;
use raco::optim::{AdamW, Optimizer, Options, Schedule, Sgd, Shape, Warmup};

use super::{floats, golden, gradient, model_of, values};

fn options(lr: f64) -> Options {
    Options { lr, schedule: Schedule::default(), clip: None }
}

/// The gradient of tests/golden/optim.py at step `k`.
fn golden_gradient(k: usize) -> Vec<f32> {
    (0..7).map(|i| ((k as f64 + 3.0 * i as f64).sin() * (1.0 + i as f64 / 2.0)) as f32).collect()
}

#[test]
fn twenty_steps_equal_pytorch() {
    let golden = golden();
    let start: Vec<f32> = floats(&golden["start"]).iter().map(|&x| x as f32).collect();
    let with = |clip| Options { clip, ..options(0.05) };
    let adamw = |of: AdamW, clip| move |m: &Model| Optimizer::adamw(m, of, with(clip)).unwrap();
    let sgd = |momentum, decay, nesterov, clip| {
        move |m: &Model| Optimizer::sgd(m, Sgd { momentum, decay, nesterov }, with(clip)).unwrap()
    };
    let decayed = AdamW { beta1: 0.8, beta2: 0.95, eps: 1e-6, decay: 0.1 };
    type Make = Box<dyn Fn(&Model) -> Optimizer>;
    let cases: [(&str, Make); 7] = [
        ("adamw", Box::new(adamw(AdamW::default(), None))),
        ("adamw_decay", Box::new(adamw(decayed, None))),
        ("adamw_clip", Box::new(adamw(AdamW::default(), Some(5.0)))),
        ("sgd", Box::new(sgd(0.0, 0.0, false, None))),
        ("sgd_momentum", Box::new(sgd(0.9, 0.0, false, None))),
        ("sgd_nesterov", Box::new(sgd(0.9, 0.1, true, None))),
        ("sgd_clip", Box::new(sgd(0.9, 0.0, false, Some(3.0)))),
    ];
    for (name, make) in cases {
        let model = model_of(&start[..3], &start[3..]);
        let mut optimizer = make(&model);
        for (k, expected) in golden[name]["weights"].as_array().unwrap().iter().enumerate() {
            let report = optimizer.step(&gradient(&model, &golden_gradient(k))).unwrap();
            for (x, y) in values(&model).iter().zip(floats(expected)) {
                // a few roundings of f32 a step
                assert!((f64::from(*x) - y).abs() < 4e-7 * (k + 1) as f64, "{name}, step {k}: {x} and {y}");
            }
            if let Some(norm) = golden[name]["norms"].get(k) {
                let norm = norm.as_f64().unwrap();
                assert!((report.norm - norm).abs() < 1e-6 * norm, "{name}, step {k}");
                assert_eq!(
                    report.clipped,
                    norm > if name == "sgd_clip" { 3.0 } else { 5.0 },
                    "{name}, step {k}"
                );
            }
        }
    }
}

#[test]
fn nothing_that_is_not_finite_reaches_the_weights() {
    let finite = [1.0, -2.0, 0.5];
    let rules: [fn(&Model) -> Optimizer; 2] = [
        |m| Optimizer::adamw(m, AdamW::default(), options(0.1)).unwrap(),
        |m| Optimizer::sgd(m, Sgd { momentum: 0.9, ..Sgd::default() }, options(0.1)).unwrap(),
    ];
    for (adam, make) in [true, false].into_iter().zip(rules) {
        let model = model_of(&finite, &finite);
        let mut optimizer = make(&model);
        optimizer.step(&gradient(&model, &[1.0; 6])).unwrap();
        let (before, version) = (values(&model), model.version());
        let mut bad = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
        if adam {
            bad.push(3e19); // its square is no f32
        }
        for bad in bad {
            let mut update = [1.0; 6];
            update[4] = bad;
            let error = optimizer.step(&gradient(&model, &update)).unwrap_err().to_string();
            assert!(error.contains("tensor `b`"), "{error}");
            assert_eq!(
                (values(&model), model.version(), optimizer.step_count()),
                (before.clone(), version, 1)
            );
        }
        // the refused steps left no trace in the state either
        let twin = model_of(&finite, &finite);
        let mut other = make(&twin);
        other.step(&gradient(&twin, &[1.0; 6])).unwrap();
        other.step(&gradient(&twin, &[0.5; 6])).unwrap();
        optimizer.step(&gradient(&model, &[0.5; 6])).unwrap();
        assert_eq!(values(&model), values(&twin));

        let model = model_of(&finite, &[1.0, f32::NAN]);
        let error = make(&model).step(&gradient(&model, &[1.0; 5])).unwrap_err().to_string();
        assert!(error.contains("tensor `b`") && error.contains("weight is not finite"), "{error}");

        let model = model_of(&[3.3e38], &[1.0]);
        let huge = Options { lr: 1e38, ..options(1.0) };
        let mut optimizer = Optimizer::sgd(&model, Sgd::default(), huge).unwrap();
        let error = optimizer.step(&gradient(&model, &[-1.0, 0.0])).unwrap_err().to_string();
        assert!(error.contains("tensor `a`") && error.contains("overflow"), "{error}");
    }
}

#[test]
fn constants_outside_their_range_are_refused() {
    let model = model_of(&[1.0], &[1.0]);
    let adamw = |of, options| Optimizer::adamw(&model, of, options).err().unwrap().to_string();
    for lr in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(adamw(AdamW::default(), options(lr)).contains("key `lr`"));
    }
    assert!(adamw(AdamW { beta2: 1.0, ..AdamW::default() }, options(1.0)).contains("key `beta2`"));
    assert!(adamw(AdamW { eps: 0.0, ..AdamW::default() }, options(1.0)).contains("key `eps`"));
    assert!(adamw(AdamW::default(), Options { clip: Some(0.0), ..options(1.0) }).contains("key `clip`"));
    let other = model_of(&[1.0, 2.0], &[1.0]);
    let error =
        Optimizer::sgd(&model, Sgd::default(), options(0.1)).unwrap().step(&gradient(&other, &[0.0; 3]));
    assert!(error.unwrap_err().to_string().contains("different parameters"));
}

#[test]
fn a_frozen_copy_stays_as_it_was() {
    let model = model_of(&[1.0, 2.0], &[3.0]);
    let reference = model.frozen();
    let mut optimizer = Optimizer::sgd(&model, Sgd::default(), options(1.0)).unwrap();
    optimizer.step(&gradient(&model, &[1.0, 1.0, 1.0])).unwrap();
    assert_eq!(values(&reference), [1.0, 2.0, 3.0]);
    assert_eq!(values(&model), [0.0, 1.0, 2.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Long parameters are cut into blocks: no result may depend on where.
    #[test]
    fn blocks_and_scalars_agree(n in 1usize..70_000, seed in 0u64..1000) {
        let noise = |i: usize| (((i as u64).wrapping_mul(seed * 2 + 1) % 1009) as f32 / 504.5) - 1.0;
        let start: Vec<f32> = (0..n).map(noise).collect();
        let update: Vec<f32> = (0..n + 1).map(|i| noise(i + 7)).collect();
        let model = model_of(&start, &[0.5]);
        let mut optimizer = Optimizer::adamw(&model, AdamW::default(), options(0.1)).unwrap();
        let report = optimizer.step(&gradient(&model, &update)).unwrap();
        let norm = update.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        prop_assert!((report.norm - norm).abs() <= 1e-12 * norm);
        for probe in [0, n / 3, n - 1] {
            let single = model_of(&start[probe..=probe], &[0.5]);
            let mut optimizer = Optimizer::adamw(&single, AdamW::default(), options(0.1)).unwrap();
            optimizer.step(&gradient(&single, &[update[probe], update[n]])).unwrap();
            prop_assert_eq!(values(&single)[0], values(&model)[probe]);
        }
    }

    #[test]
    fn a_restored_state_continues_to_the_same_bytes(steps in 1usize..6, adam: bool) {
        let schedule = Schedule::new(Shape::Cosine, Warmup::Steps(2), Some(12)).unwrap();
        let options = Options { lr: 0.05, schedule, clip: Some(2.0) };
        let make = |m: &Model| if adam {
            Optimizer::adamw(m, AdamW::default(), options).unwrap()
        } else {
            Optimizer::sgd(m, Sgd { momentum: 0.9, ..Sgd::default() }, options).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let model = model_of(&[0.1, -0.2, 0.3], &[0.4, 0.5, 0.6, -0.7]);
        let mut optimizer = make(&model);
        for k in 0..steps {
            optimizer.step(&gradient(&model, &golden_gradient(k))).unwrap();
        }
        optimizer.save(&path).unwrap();
        let now = values(&model);
        let twin = model_of(&now[..3], &now[3..]);
        let mut resumed = make(&twin);
        resumed.restore(&path).unwrap();
        for k in steps..12 {
            let report = optimizer.step(&gradient(&model, &golden_gradient(k))).unwrap();
            prop_assert_eq!(report, resumed.step(&gradient(&twin, &golden_gradient(k))).unwrap());
        }
        prop_assert_eq!(values(&model), values(&twin));
        let other = folder.path().join("other.safetensors");
        optimizer.save(&path).unwrap();
        resumed.save(&other).unwrap();
        prop_assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap());
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let model = model_of(&[1.0, 2.0], &[3.0]);
    let mut adamw = Optimizer::adamw(&model, AdamW::default(), options(0.1)).unwrap();
    adamw.step(&gradient(&model, &[1.0; 3])).unwrap();
    adamw.save(&path).unwrap();

    let mut sgd = Optimizer::sgd(&model, Sgd::default(), options(0.1)).unwrap();
    assert!(sgd.restore(&path).unwrap_err().to_string().contains("this optimiser is `sgd`"));
    let other = model_of(&[1.0], &[2.0, 3.0]);
    let mut wide = Optimizer::adamw(&other, AdamW::default(), options(0.1)).unwrap();
    let error = wide.restore(&path).unwrap_err().to_string();
    assert!(
        error.contains("tensor `first_moment.a`") && error.contains("expected F32 [1], found F32 [2]"),
        "{error}"
    );

    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(adamw.restore(&path).unwrap_err().to_string().contains("damaged tensor file"));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(adamw.restore(&path).unwrap_err().to_string().contains("cannot read"));
}
