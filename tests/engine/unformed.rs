//! Gradients whose rows were not formed, against the same rows formed.

use std::sync::Arc;

use candle_core::Tensor;
use proptest::prelude::*;
use raco::engine::{By, Forming, Gradients, LogProbs, TAPE_BYTES, jacobian_with};
use raco::model::{Model, Targets};

use super::adapter::adapted;
use super::jacobian::{Kind, least, lengths, losses};
use crate::common::random::{config, model, ragged};

fn models() -> Vec<Model> {
    let mut all = Vec::new();
    for family in ["llama", "qwen3", "gemma3_text"] {
        all.extend([false, true].map(|tied| model(&config(family, tied), 7)));
    }
    all.push(adapted("qwen3", Targets::AllLinear, true));
    all
}

fn names(m: usize) -> Arc<Vec<String>> {
    Arc::new((0..m).map(|i| format!("o{i}")).collect())
}

/// Both ways, for m losses of the margins.
fn both(model: &Model, seed: u64, m: usize) -> (Gradients, Gradients) {
    let batch = ragged(61, seed, true);
    let found = [Forming::Formed, Forming::Unformed].map(|keep| {
        let log_probs = LogProbs::new(model, &batch, TAPE_BYTES).unwrap();
        let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), m, seed).unwrap();
        jacobian_with(names(m), &losses, &log_probs, keep).unwrap()
    });
    found.into()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖a - b‖ / ‖b‖.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let (a, b) = (numbers(a), numbers(b));
    let rest = norm(&mut a.iter().zip(&b).map(|(a, b)| f64::from(a - b)));
    rest / norm(&mut b.iter().map(|&b| f64::from(b))).max(1e-30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn all_numbers_agree(seed in 0u64..1000, m in 1usize..5, which in 0usize..7) {
        let model = &models()[which];
        let (rows, unformed) = both(model, seed, m);
        prop_assert!(unformed.is_unformed() && !rows.is_unformed());
        for by in [By::Layer, By::Kind, By::Parameter] {
            let found = unformed.gramians(by).unwrap();
            for ((name, h), (other, expected)) in found.iter().zip(&rows.gramians(by).unwrap()) {
                prop_assert_eq!(name, other);
                for i in 0..m {
                    for j in 0..m {
                        let scale = (expected[(i, i)] * expected[(j, j)]).sqrt();
                        let off = (h[(i, j)] - expected[(i, j)]).abs();
                        prop_assert!(off <= 1e-5 * scale + 1e-12, "{name} {i} {j}: {h:?} {expected:?}");
                    }
                }
            }
        }
        let alpha: Vec<f64> = (0..m).map(|i| 0.4 + 0.3 * i as f64).collect();
        // the second combination records the forward pass again
        for _ in 0..2 {
            let found = unformed.combine(&alpha).unwrap();
            prop_assert!(off(found.tensor(), rows.combine(&alpha).unwrap().tensor()) < 1e-5);
        }
        prop_assert!(off(unformed.row(m - 1).unwrap().tensor(), rows.row(m - 1).unwrap().tensor()) < 1e-5);
        prop_assert!(unformed.is_unformed(), "nothing so far needed the rows");
        prop_assert!(off(unformed.tensor().unwrap(), rows.tensor().unwrap()) < 1e-5);
        prop_assert!(!unformed.is_unformed());
    }
}

#[test]
fn rows_cannot_be_formed_after_a_step() {
    let model = model(&config("qwen3", true), 7);
    let (_, gradients) = both(&model, 3, 2);
    let known = gradients.gramian().unwrap();
    model
        .update(|_, values| {
            values[0] += 0.1;
            Ok(())
        })
        .unwrap();
    let error = gradients.combine(&[0.5, 0.5]).unwrap_err();
    assert!(error.what().contains("older than the weights"), "{error}");
    assert!(gradients.tensor().is_err());
    assert_eq!(gradients.gramian().unwrap(), known);
}

#[test]
fn the_gramian_alone_needs_one_backward_for_all() {
    let model = model(&config("qwen3", true), 7);
    for (kind, share, tape, expected) in [
        (Kind::Tokens, true, TAPE_BYTES, "backwards (Q = "),
        (Kind::Difference, true, 0, "was split"),
        (Kind::Difference, false, TAPE_BYTES, "encoded apart"),
    ] {
        let batch = ragged(61, 3, share);
        let tape = if tape == 0 { least(&model, &batch) } else { tape };
        let log_probs = LogProbs::new(&model, &batch, tape).unwrap();
        let losses = losses(kind, log_probs.tokens(), &lengths(&batch), 3, 5).unwrap();
        let error = jacobian_with(names(3), &losses, &log_probs, Forming::Unformed).unwrap_err();
        assert!(error.what().contains(expected), "{error}");
        assert!(!jacobian_with(names(3), &losses, &log_probs, Forming::Auto).unwrap().is_unformed());
    }
}
