//! The unit-seed Jacobian against m autograd backwards of composed operations in f64.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use raco::data::Batch;
use raco::engine::{Costs, LogProbs, Plan, TAPE_BYTES, jacobian, shapes};
use raco::model::Model;
use rand::Rng;

use crate::common::oracle::Oracle;
use crate::common::random::{config, model, pair, ragged, rng};

/// The shapes of loss that need one, two and m activation backwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// -mean log σ(β s Δ): of the difference of two responses.
    Difference,
    /// Chosen and rejected weighted apart, each objective in its own way.
    Apart,
    /// Every token weighted on its own.
    Tokens,
}

/// m losses of the token log-probs [N] whose responses end at `ends`.
pub fn losses(kind: Kind, tokens: &Tensor, lengths: &[usize], m: usize, seed: u64) -> Result<Vec<Tensor>> {
    let mut rng = rng(seed);
    let pairs = lengths.len() / 2;
    let slots: Vec<u32> = lengths.iter().enumerate().flat_map(|(r, &n)| vec![r as u32; n]).collect();
    let slots = Tensor::from_vec(slots, tokens.elem_count(), &Device::Cpu)?;
    let sums = Tensor::zeros(2 * pairs, DType::F64, &Device::Cpu)?.index_add(&slots, tokens, 0)?;
    let sums = sums.reshape((pairs, 2))?;
    let (chosen, rejected) = (sums.narrow(1, 0, 1)?.squeeze(1)?, sums.narrow(1, 1, 1)?.squeeze(1)?);
    (0..m)
        .map(|_| {
            let mut draw = |n: usize, f: fn(f64) -> f64| {
                Tensor::from_vec((0..n).map(|_| f(rng.random_range(-1.0..1.0))).collect(), n, &Device::Cpu)
            };
            match kind {
                Kind::Difference => {
                    let signs = draw(pairs, |x| if x > 0.4 { -1.0 } else { 1.0 })?;
                    let t = ((&chosen - &rejected)? * signs)?.affine(-0.02, 0.0)?;
                    (t.exp()? + 1.0)?.log()?.mean_all()
                }
                Kind::Apart => {
                    let (a, b) = ((&chosen * draw(pairs, |x| x)?)?, (&rejected * draw(pairs, |x| x)?)?);
                    ((a.sqr()? * 1e-3)? + b)?.mean_all()
                }
                Kind::Tokens => (tokens.sqr()? * draw(tokens.elem_count(), |x| x)?)?.mean_all(),
            }
        })
        .collect()
}

pub fn lengths(batch: &Batch) -> Vec<usize> {
    batch.examples.iter().flat_map(|e| e.responses.iter().map(|r| r.ids.len())).collect()
}

pub fn rows(model: &Model, batch: &Batch, kind: Kind, m: usize, tape: usize) -> (Vec<Vec<f64>>, usize) {
    let log_probs = LogProbs::new(model, batch, tape).unwrap();
    let losses = losses(kind, log_probs.tokens(), &lengths(batch), m, 5).unwrap();
    let names = Arc::new((0..m).map(|i| format!("o{i}")).collect());
    let gradients = jacobian(names, &losses, &log_probs).unwrap();
    let rows = gradients.tensor().unwrap().to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    (rows, gradients.terms())
}

/// The fewest bytes that passes over a batch can do with: the batch is split then.
pub fn least(model: &Model, batch: &Batch) -> usize {
    let shapes = shapes(model.config(), &batch.examples, batch.share_prompt).unwrap();
    Plan::least(&Costs::of(model), &shapes)
}

/// ‖a - b‖ / ‖b‖.
pub fn relative(a: &[f64], b: &[f64]) -> f64 {
    let (mut e, mut d) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        e += (a - b) * (a - b);
        d += b * b;
    }
    (e / d).sqrt()
}

#[test]
fn rows_equal_m_autograd_backwards() {
    for (family, tied) in
        [("llama", false), ("llama", true), ("qwen3", true), ("qwen3", false), ("gemma3_text", true)]
    {
        let model = model(&config(family, tied), 7);
        let oracle = Oracle::new(&model, DType::F64);
        let plain = oracle.batch(&ragged(61, 3, true)).unwrap();
        for share_prompt in [true, false] {
            let batch = ragged(61, 3, share_prompt);
            let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
            let error =
                relative(&log_probs.tokens().to_vec1::<f64>().unwrap(), &plain.to_vec1::<f64>().unwrap());
            assert!(error < 1e-6, "{family} tied {tied} shared {share_prompt}: log-probs off by {error:.1e}");
            for kind in [Kind::Difference, Kind::Apart, Kind::Tokens] {
                for m in [1, 2, 3, 8] {
                    let expected =
                        oracle.rows(&losses(kind, &plain, &lengths(&batch), m, 5).unwrap()).unwrap();
                    let (found, terms) = rows(&model, &batch, kind, m, TAPE_BYTES);
                    for (found, expected) in found.iter().zip(&expected) {
                        let error = relative(found, expected);
                        assert!(
                            error < 1e-5,
                            "{family} tied {tied} shared {share_prompt} {kind:?} m {m}: off by {error:.1e}"
                        );
                    }
                    let most = match (kind, share_prompt) {
                        (Kind::Difference, _) | (Kind::Apart, false) => 1,
                        (Kind::Apart, true) => m.min(2),
                        (Kind::Tokens, _) => m,
                    };
                    assert_eq!(terms, most, "{kind:?} m {m} shared {share_prompt}");
                }
            }
        }
    }
}

/// Segments of a few rows: weights' gradients come from products of weighed rows, in the head or everywhere, by their number.
#[test]
fn rows_of_short_segments_equal_m_autograd_backwards() {
    for (family, tied) in [("llama", false), ("gemma3_text", true)] {
        let model = model(&config(family, tied), 7);
        let oracle = Oracle::new(&model, DType::F64);
        for lengths_of_all in [[[1, 1, 1], [2, 1, 1], [1, 2, 1]], [[20, 1, 1], [30, 1, 1], [25, 2, 1]]] {
            let mut rng = rng(4);
            let examples = lengths_of_all.iter().map(|&l| Arc::new(pair(&mut rng, 61, l, 0))).collect();
            let batch =
                Batch { objectives: Arc::default(), examples, reference: None, index: 0, share_prompt: true };
            let plain = oracle.batch(&batch).unwrap();
            for kind in [Kind::Difference, Kind::Apart] {
                for m in [2, 3, 8] {
                    let losses = losses(kind, &plain, &lengths(&batch), m, 5).unwrap();
                    let expected = oracle.rows(&losses).unwrap();
                    let (found, _) = rows(&model, &batch, kind, m, TAPE_BYTES);
                    for (found, expected) in found.iter().zip(&expected) {
                        let error = relative(found, expected);
                        assert!(
                            error < 1e-5,
                            "{family} {lengths_of_all:?} {kind:?} m {m}: off by {error:.1e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn micro_batches_equal_one_batch() {
    let model = model(&config("qwen3", true), 11);
    let batch = ragged(61, 5, true);
    for kind in [Kind::Difference, Kind::Apart, Kind::Tokens] {
        let (whole, _) = rows(&model, &batch, kind, 3, TAPE_BYTES);
        let least = least(&model, &batch);
        for tape in [least, least * 3 / 2, 2 * least] {
            let (parts, _) = rows(&model, &batch, kind, 3, tape);
            for (part, whole) in parts.iter().zip(&whole) {
                assert!(relative(part, whole) < 1e-5, "{kind:?} with a tape of {tape} bytes");
            }
        }
    }
}

#[test]
fn a_small_objective_keeps_its_digits() {
    let model = model(&config("llama", true), 2);
    let batch = ragged(61, 6, true);
    let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
    let of = |scale: f64| {
        let losses = losses(Kind::Tokens, log_probs.tokens(), &lengths(&batch), 2, 9).unwrap();
        let losses = [losses[0].clone(), (&losses[1] * scale).unwrap()];
        let names = Arc::new(vec!["large".to_owned(), "small".to_owned()]);
        let gradients = jacobian(names, &losses, &log_probs).unwrap();
        gradients.row(1).unwrap().tensor().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()
    };
    let small: Vec<f64> = of(1e-9).iter().map(|x| x * 1e9).collect();
    assert!(relative(&small, &of(1.0)) < 1e-5);
}

#[test]
fn stale_log_probs_are_refused() {
    let model = model(&config("llama", true), 2);
    let batch = ragged(61, 6, true);
    let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
    let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), 1, 9).unwrap();
    model.update(|_, _| Ok(())).unwrap();
    let error = jacobian(Arc::new(vec!["a".into()]), &losses, &log_probs).unwrap_err();
    assert!(error.what().contains("older than the weights"), "{error}");
}

#[test]
fn a_frozen_copy_stays_as_it_was() {
    let model = model(&config("qwen3", true), 4);
    let frozen = model.frozen();
    let before = frozen.weights().parameters()[0].tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    model
        .update(|_, values| {
            values.iter_mut().for_each(|v| *v += 1.0);
            Ok(())
        })
        .unwrap();
    let after = frozen.weights().parameters()[0].tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let trained = model.weights().parameters()[0].tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(before, after);
    assert!(before.iter().zip(&trained).all(|(b, t)| b + 1.0 == *t));
}

#[test]
fn a_dead_tensor_is_named() {
    let model = model(&config("llama", true), 2);
    let dead = model.weights().space().names.iter().position(|n| n.contains("layers.1.self_attn.o")).unwrap();
    model
        .update(|i, values| {
            if i == dead {
                values.fill(0.0);
            }
            Ok(())
        })
        .unwrap();
    let batch = ragged(61, 6, true);
    let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
    let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), 2, 9).unwrap();
    let error = jacobian(Arc::new(vec!["a".into(), "b".into()]), &losses, &log_probs).unwrap_err();
    assert!(error.to_string().contains("model.layers.1."), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_is_named() {
    let model = model(&config("llama", true), 2);
    let batch = ragged(61, 6, true);
    let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
    let loss = log_probs.tokens().mean_all().unwrap();
    let names = Arc::new(vec!["good".to_owned(), "bad".to_owned()]);
    let infinite = (loss.exp().unwrap() * f64::INFINITY).unwrap();
    let error = jacobian(names.clone(), &[loss.clone(), infinite], &log_probs).unwrap_err();
    assert_eq!(error.what(), "loss of `bad` is `inf`");
    // finite, but with an infinite slope
    let root = ((&loss - &loss).unwrap().sqrt()).unwrap();
    let error = jacobian(names, &[loss, root], &log_probs).unwrap_err();
    assert!(error.what().starts_with("the derivative of the loss of `bad`"), "{error}");
}
