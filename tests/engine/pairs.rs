//! The Gramian of pairs against the gradients themselves; blocks and joins.

use std::sync::Arc;

use candle_core::Tensor;
use raco::data::Batch;
use raco::engine::{By, Forming, Gradient, Gradients, LogProbs, TAPE_BYTES, jacobian, jacobian_with};
use raco::math::Matrix;
use raco::model::{Model, Targets};

use super::adapter::adapted;
use super::jacobian::{Kind, least, lengths, losses};
use crate::common::random::{config, model, ragged};

fn models() -> Vec<(String, Model)> {
    let mut all = Vec::new();
    for family in ["llama", "qwen3", "gemma3_text"] {
        for tied in [false, true] {
            all.push((format!("{family}, tied {tied}"), model(&config(family, tied), 7)));
        }
    }
    all.push(("adapter".to_owned(), adapted("qwen3", Targets::AllLinear, true)));
    all
}

fn names(m: usize) -> Arc<Vec<String>> {
    Arc::new((0..m).map(|i| format!("o{i}")).collect())
}

/// ½ the margin's square of each pair alone: one objective a pair.
fn each(log_probs: &LogProbs, batch: &Batch) -> Vec<Tensor> {
    let margin = (log_probs.sums(0).unwrap() - log_probs.sums(1).unwrap()).unwrap();
    (0..batch.len())
        .map(|k| (margin.narrow(0, k, 1).unwrap() * (0.3 + k as f64)).unwrap().sum_all().unwrap())
        .collect()
}

fn assert_near(found: &Matrix, expected: &Matrix, what: &str) {
    for i in 0..expected.rows() {
        for j in 0..expected.cols() {
            let scale = (expected[(i, i)] * expected[(j, j)]).sqrt();
            let off = (found[(i, j)] - expected[(i, j)]).abs();
            assert!(off <= 2e-5 * scale + 1e-12, "{what}: [{i}, {j}] {found:?} {expected:?}");
        }
    }
}

fn product(u: &Matrix, s: &Matrix) -> Matrix {
    u.mul(s).unwrap().mul(&u.transposed()).unwrap()
}

#[test]
fn the_gramian_of_pairs_makes_up_the_gramian() {
    for (name, model) in models() {
        let batch = ragged(61, 3, true);
        for m in [1, 3] {
            let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
            let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), m, 5).unwrap();
            let with = jacobian_with(names(m), &losses, &log_probs, Forming::Pairs).unwrap();
            let s = with.pair_gramian(&log_probs).unwrap();
            let h = product(with.pair_weights().unwrap(), s);
            assert_near(&h, &with.gramian().unwrap(), &name);
            // the second way: forward and backward once more
            let plain = jacobian(names(m), &losses, &log_probs).unwrap();
            assert_near(&plain.gramian().unwrap(), &with.gramian().unwrap(), &name);
            assert_near(plain.pair_gramian(&log_probs).unwrap(), s, &name);
        }
    }
}

#[test]
fn each_entry_is_the_product_of_two_pairs_gradients() {
    for (name, model) in models() {
        let batch = ragged(61, 4, true);
        let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
        let m = batch.len();
        let rows = jacobian(names(m), &each(&log_probs, &batch), &log_probs).unwrap();
        let u = rows.pair_weights().unwrap();
        // with one objective a pair U is diagonal, so that every entry of S is seen alone
        for i in 0..m {
            assert!((0..m).all(|k| (i == k) == (u[(i, k)] != 0.0)), "{u:?}");
        }
        let h = product(u, rows.pair_gramian(&log_probs).unwrap());
        assert_near(&h, &rows.gramian().unwrap(), &name);
    }
}

#[test]
fn there_are_no_pairs_without_one_backward_for_all() {
    let model = model(&config("qwen3", true), 7);
    let batch = ragged(61, 3, true);
    let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
    let several = losses(Kind::Tokens, log_probs.tokens(), &lengths(&batch), 3, 5).unwrap();
    let error = jacobian_with(names(3), &several, &log_probs, Forming::Pairs).unwrap_err();
    assert!(error.what().contains("backwards (Q = "), "{error}");
    let rows = jacobian(names(3), &several, &log_probs).unwrap();
    assert!(rows.pair_gramian(&log_probs).unwrap_err().what().contains("backwards (Q = "));
    let least = least(&model, &batch);
    for (batch, tape, expected) in
        [(ragged(61, 3, true), least, "was split"), (ragged(61, 3, false), TAPE_BYTES, "encoded apart")]
    {
        let log_probs = LogProbs::new(&model, &batch, tape).unwrap();
        let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), 2, 5).unwrap();
        let error = jacobian_with(names(2), &losses, &log_probs, Forming::Pairs).unwrap_err();
        assert!(error.what().contains(expected), "{error}");
        assert!(jacobian(names(2), &losses, &log_probs).unwrap().pair_weights().is_err());
    }
    let old = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), 2, 5).unwrap();
    let old = jacobian(names(2), &old, &log_probs).unwrap();
    model
        .update(|_, values| {
            values[0] += 0.1;
            Ok(())
        })
        .unwrap();
    assert!(old.pair_gramian(&log_probs).unwrap_err().what().contains("older than the weights"));
}

fn rows_of(name: &str) -> (String, Gradients) {
    let model = match name {
        "adapter" => adapted("qwen3", Targets::AllLinear, false),
        family => model(&config(family, false), 7),
    };
    let batch = ragged(61, 3, true);
    let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
    let losses = losses(Kind::Difference, log_probs.tokens(), &lengths(&batch), 2, 5).unwrap();
    (name.to_owned(), jacobian(names(2), &losses, &log_probs).unwrap())
}

fn numbers(gradient: &Gradient) -> Vec<f32> {
    gradient.tensor().to_vec1().unwrap()
}

#[test]
fn blocks_add_up_and_join_to_the_whole() {
    for (name, g) in [rows_of("qwen3"), rows_of("gemma3_text"), rows_of("adapter")] {
        let factor = if name == "adapter" { Some("factor") } else { None };
        for by in ["layer", "kind", "parameter"].into_iter().chain(factor) {
            let by = By::named(by).unwrap();
            let parts = g.gramians(by).unwrap();
            let mut sum = Matrix::zeros(2, 2);
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                sum[(i, j)] = parts.iter().map(|(_, h)| h[(i, j)]).sum();
            }
            assert_near(&sum, &g.gramian().unwrap(), &name);
            let blocks = g.blocks(by).unwrap();
            for ((a, block), (b, h)) in blocks.iter().zip(&parts) {
                assert_eq!(a, b);
                assert_near(&block.gramian().unwrap(), h, a);
            }
            let rows: Vec<Gradient> = blocks.iter().map(|(_, block)| block.row(1).unwrap()).collect();
            assert_eq!(numbers(&g.join(&rows).unwrap()), numbers(&g.row(1).unwrap()));
            if let [_, rest @ ..] = &rows[..] {
                assert!(g.join(rest).unwrap_err().what().contains("is in none of the blocks"));
            }
            let twice = [rows[0].clone(), rows[0].clone()];
            assert!(g.join(&twice).unwrap_err().what().contains("is in two of the blocks"));
        }
    }
    let (_, g) = rows_of("qwen3");
    assert!(g.blocks(By::Factor).unwrap_err().what().contains("is no factor of an adapter"));
    assert!(By::named("layr").unwrap_err().help_text().unwrap().contains("did you mean `layer`?"));
    let layers: Vec<String> = g.gramians(By::Layer).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(layers[..2], ["embed_tokens", "layer 0"]);
}
