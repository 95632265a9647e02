//! Passes planned from a budget: what is chosen, and that the numbers do not depend on it.

use std::sync::Arc;

use raco::data::Batch;
use raco::engine::{Costs, LogProbs, Plan, Shape, TAPE_BYTES, shapes};
use raco::model::{Config, Keep, Model, Targets};
use rand::Rng;

use super::adapter::adapted;
use super::jacobian::{Kind, relative, rows};
use crate::common::random::{config, model, pair, ragged, rng};

/// Up to seven pairs of random lengths.
fn random_batch(seed: u64) -> Batch {
    let mut rng = rng(seed);
    let count = rng.random_range(2..8);
    let examples = (0..count)
        .map(|_| {
            let lengths = [(); 3].map(|()| rng.random_range(1..90));
            Arc::new(pair(&mut rng, 61, lengths, 0))
        })
        .collect();
    Batch { examples, share_prompt: rng.random(), ..ragged(61, 0, true) }
}

fn of_family(seed: u64) -> Model {
    match seed % 5 {
        0 => adapted("llama", Targets::AllLinear, false),
        1 => adapted("qwen3", Targets::pattern(r".*layers\.[12]\.(mlp|self_attn)\.[kd].*"), true),
        2 => model(&config("llama", false), seed),
        3 => model(&config("qwen3", true), seed),
        _ => model(&config("gemma3_text", true), seed),
    }
}

fn of_examples(model: &Model, batch: &Batch) -> (Vec<Shape>, Shape) {
    let shapes = shapes(model.config(), &batch.examples, batch.share_prompt).unwrap();
    let whole = shapes.iter().copied().sum();
    (shapes, whole)
}

fn tokens(model: &Model, batch: &Batch, bytes: usize) -> Vec<f64> {
    LogProbs::new(model, batch, bytes).unwrap().tokens().to_vec1().unwrap()
}

#[test]
fn no_plan_changes_log_probs_or_gradients() {
    for seed in 0..30 {
        let (model, batch) = (of_family(seed), random_batch(seed));
        let (shapes, whole) = of_examples(&model, &batch);
        let costs = Costs::of(&model);
        let (kind, m) = [(Kind::Difference, 1), (Kind::Difference, 3), (Kind::Apart, 2), (Kind::Tokens, 3)]
            [seed as usize / 5 % 4];
        let expected = (tokens(&model, &batch, TAPE_BYTES), rows(&model, &batch, kind, m, TAPE_BYTES));
        // a pass that keeps inputs computes the same products: the same bytes
        let inputs = costs.pass(whole, Keep::Inputs);
        let plan = Plan::new(&costs, &shapes, inputs).unwrap();
        assert_eq!((plan.keep, plan.passes.len()), (Keep::Inputs, 1), "seed {seed}");
        assert!(
            expected == (tokens(&model, &batch, inputs), rows(&model, &batch, kind, m, inputs)),
            "seed {seed}"
        );

        let least = Plan::least(&costs, &shapes);
        for budget in [least, least * 5 / 4, 2 * least, (least + inputs) / 2] {
            let found = tokens(&model, &batch, budget);
            assert!(relative(&found, &expected.0) < 1e-6, "seed {seed}: log-probs with {budget} bytes");
            let (found, terms) = rows(&model, &batch, kind, m, budget);
            assert!(terms <= expected.1.1);
            for (found, expected) in found.iter().zip(&expected.1.0) {
                let error = relative(found, expected);
                assert!(error < 1e-5, "seed {seed} {kind:?} m {m}: off by {error:.1e} with {budget} bytes");
            }
        }
    }
}

#[test]
fn logits_kept_or_computed_again_in_blocks_are_the_same_bytes() {
    for (family, tied) in [("llama", false), ("gemma3_text", true)] {
        // some 190 scored positions: blocks of 5,568 words or so
        let model = model(&Config { vocab: 9001, ..config(family, tied) }, 5);
        let batch = ragged(9001, 4, true);
        let (shapes, whole) = of_examples(&model, &batch);
        let costs = Costs::of(&model);
        let found = [Keep::Everything, Keep::Layers, Keep::Inputs].map(|keep| {
            let budget = costs.pass(whole, keep);
            assert_eq!(Plan::new(&costs, &shapes, budget).unwrap().keep, keep, "{family}");
            (tokens(&model, &batch, budget), rows(&model, &batch, Kind::Difference, 3, budget))
        });
        assert!(found[0] == found[1] && found[0] == found[2], "{family}");
    }
}

#[test]
fn the_cheapest_plan_that_fits_is_taken() {
    let model = model(&config("llama", true), 2);
    let batch = ragged(61, 3, true);
    let (shapes, whole) = of_examples(&model, &batch);
    let costs = Costs::of(&model);
    let plan = |budget| {
        let plan = Plan::new(&costs, &shapes, budget).unwrap();
        (plan.passes.len(), plan.keep)
    };
    let kinds = [Keep::Everything, Keep::Layers, Keep::Inputs];
    let [everything, layers, inputs] = kinds.map(|keep| costs.pass(whole, keep));
    let longest = shapes.iter().map(|&shape| costs.pass(shape, Keep::Everything)).max().unwrap();
    let longest_layers = shapes.iter().map(|&shape| costs.pass(shape, Keep::Layers)).max().unwrap();
    assert!(longest_layers < longest && longest < inputs && inputs < layers && layers < everything);
    assert_eq!(plan(everything), (1, Keep::Everything));
    assert_eq!(plan(everything - 1), (1, Keep::Layers));
    assert_eq!(plan(layers), (1, Keep::Layers));
    assert_eq!(plan(layers - 1), (1, Keep::Inputs));
    assert_eq!(plan(inputs), (1, Keep::Inputs));
    let (passes, keep) = plan(inputs - 1);
    assert!(passes > 1 && keep == Keep::Everything, "{passes} {keep:?}");
    assert_eq!(plan(longest).1, Keep::Everything);
    assert_eq!(plan(longest - 1).1, Keep::Layers);
    let (passes, keep) = plan(longest_layers - 1);
    assert!(passes > 1 && keep == Keep::Inputs, "{passes} {keep:?}");
    let least = Plan::least(&costs, &shapes);
    assert_eq!(plan(least).1, Keep::Inputs);
    assert!(Plan::new(&costs, &shapes, least - 1).is_err());
}

#[test]
fn passes_are_even_and_hold_every_example_once() {
    let model = model(&config("llama", true), 2);
    let costs = Costs::of(&model);
    let mut rng = rng(9);
    for count in [1, 7, 40] {
        let examples = (0..count)
            .map(|_| {
                let lengths = [(); 3].map(|()| rng.random_range(1..120));
                Arc::new(pair(&mut rng, 61, lengths, 0))
            })
            .collect::<Vec<_>>();
        let batch = Batch { examples, ..ragged(61, 3, true) };
        let (shapes, whole) = of_examples(&model, &batch);
        let largest = shapes.iter().map(|&shape| costs.pass(shape, Keep::Everything)).max().unwrap();
        for budget in [largest, 2 * largest, costs.pass(whole, Keep::Everything)] {
            let plan = Plan::keeping(&costs, &shapes, Keep::Everything, budget).unwrap();
            let mut all: Vec<usize> = plan.passes.concat();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            assert!(plan.passes.iter().all(|pass| pass.is_sorted()));
            let passes = plan.shapes(&shapes);
            assert!(passes.iter().all(|&pass| costs.pass(pass, Keep::Everything) <= budget));
            let rows = || passes.iter().map(|pass| pass.rows);
            let longest = shapes.iter().map(|shape| shape.rows).max().unwrap();
            assert!(rows().max().unwrap() - rows().min().unwrap() <= longest, "{passes:?}");
        }
    }
}

#[test]
fn results_are_in_the_order_of_the_batch() {
    let model = model(&config("qwen3", true), 4);
    let batch = ragged(61, 3, true);
    let (shapes, _) = of_examples(&model, &batch);
    let least = Plan::least(&Costs::of(&model), &shapes);
    let together = LogProbs::new(&model, &batch, least).unwrap();
    assert!(together.plan().passes.len() > 1);
    for which in 0..2 {
        let sums: Vec<f64> = together.sums(which).unwrap().to_vec1().unwrap();
        for (i, &sum) in sums.iter().enumerate() {
            let alone = Batch { examples: vec![batch.examples[i].clone()], ..batch.clone() };
            let alone: Vec<f64> =
                LogProbs::new(&model, &alone, TAPE_BYTES).unwrap().sums(which).unwrap().to_vec1().unwrap();
            assert!((sum - alone[0]).abs() < 1e-4 * alone[0].abs(), "example {i}: {sum}, alone {alone:?}");
        }
    }
}
