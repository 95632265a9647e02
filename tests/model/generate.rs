//! Generation: what is drawn, when it ends, what is refused.

use std::cell::Cell;

use proptest::prelude::*;
use raco::data::Packed;
use raco::error::Kind;
use raco::model::{Config, Generation, Model, Sampling};

use super::golden::generations;
use super::weights::load;
use crate::common::random::{config, model};

fn sampling(model: &Model, temperature: f64, top_p: f64, max_new_tokens: usize) -> Sampling {
    Sampling { temperature, top_p, stop_tokens: Vec::new(), ..Sampling::greedy(model, max_new_tokens) }
}

fn generate(model: &Model, prompts: &[Vec<u32>], sampling: &Sampling) -> Vec<Generation> {
    model.generate(prompts, sampling, &|| false).unwrap()
}

/// π(token | prompt) of every token.
fn probabilities(model: &Model, prompt: &[u32]) -> Vec<f64> {
    let tokens: Vec<[u32; 1]> = (0..model.config().vocab as u32).map(|t| [t]).collect();
    let packed = Packed::new([(prompt, tokens.iter().map(|t| t.as_slice()).collect())], true).unwrap();
    model.score(&packed).unwrap().into_iter().map(|x| f64::from(x).exp()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_response_does_not_depend_on_its_batch(
        prompts in prop::collection::vec(prop::collection::vec(4u32..64, 1..30), 1..9),
        seed in any::<u64>(),
        (temperature, top_p) in prop_oneof![Just((0.0, 1.0)), Just((1.0, 1.0)), Just((0.7, 0.9))],
        model in prop_oneof![Just("llama3_tied"), Just("qwen3_tied"), Just("gemma3_text")],
    ) {
        let model = load(model);
        let all = Sampling { seed, stop_tokens: vec![5, 9, 17], ..sampling(&model, temperature, top_p, 24) };
        let together = generate(&model, &prompts, &all);
        for (i, (prompt, expected)) in prompts.iter().zip(&together).enumerate() {
            let alone = Sampling { first_index: i as u64, ..all.clone() };
            prop_assert_eq!(&generate(&model, std::slice::from_ref(prompt), &alone)[0], expected);
        }
    }
}

/// A head wider than a block of the cache, and a sequence longer than a block of the attention.
#[test]
fn the_cache_gives_what_the_whole_sequence_gives() {
    for family in ["llama", "qwen3", "gemma3_text"] {
        let mut json = config(family, true).json;
        json["head_dim"] = 40.into();
        let model = model(&Config::from_json(json).unwrap(), 11);
        let prompts = [vec![5; 3], (0..60).collect()];
        for (prompt, found) in prompts.iter().zip(generate(&model, &prompts, &sampling(&model, 0.0, 1.0, 40)))
        {
            let mut sequence = prompt.clone();
            for token in found.tokens {
                let p = probabilities(&model, &sequence);
                let top = p.iter().copied().fold(0.0, f64::max);
                assert!(p[token as usize] > (1.0 - 1e-4) * top, "{family}: {} of {top}", p[token as usize]);
                sequence.push(token);
            }
        }
    }
}

#[test]
fn tokens_are_drawn_with_their_probabilities() {
    let model = load("llama_untied");
    let prompt = vec![7, 20, 33];
    let (n, temperature, top_p) = (20_000, 1.5, 0.8);
    let tempered: Vec<f64> =
        probabilities(&model, &prompt).iter().map(|p| p.powf(1.0 / temperature)).collect();
    let total: f64 = tempered.iter().sum();
    let full: Vec<f64> = tempered.iter().map(|p| p / total).collect();
    // as transformers: ascending, drop while the mass so far, the token's own included, is at most 1 - top_p
    let mut order: Vec<usize> = (0..full.len()).collect();
    order.sort_by(|&a, &b| full[a].total_cmp(&full[b]));
    let (mut nucleus, mut mass) = (full.clone(), 0.0);
    for &token in &order {
        mass += full[token];
        if mass <= 1.0 - top_p {
            nucleus[token] = 0.0;
        }
    }
    let kept: f64 = nucleus.iter().sum();
    nucleus.iter_mut().for_each(|p| *p /= kept);
    assert!(nucleus.iter().filter(|p| **p > 0.0).count() > 3 && nucleus.contains(&0.0));
    for (top_p, expected) in [(1.0, full), (top_p, nucleus)] {
        let sampling = Sampling { seed: 3, ..sampling(&model, temperature, top_p, 1) };
        let mut counts = vec![0usize; expected.len()];
        for generation in generate(&model, &vec![prompt.clone(); n], &sampling) {
            counts[generation.tokens[0] as usize] += 1;
        }
        for (token, (&count, &p)) in counts.iter().zip(&expected).enumerate() {
            // five standard errors, and a count of rounding for the rare ones
            let bound = 5.0 * (n as f64 * p * (1.0 - p)).sqrt() + if p > 0.0 { 3.0 } else { 0.0 };
            let error = (count as f64 - n as f64 * p).abs();
            assert!(error <= bound, "top_p {top_p}, token {token}: {count}, expected {}", n as f64 * p);
        }
    }
}

#[test]
fn the_seed_decides() {
    let model = load("qwen3_tied");
    let prompts = vec![vec![8, 9, 10]; 6];
    let one = sampling(&model, 1.0, 1.0, 20);
    let first = generate(&model, &prompts, &one);
    assert_eq!(first, generate(&model, &prompts, &one));
    assert_ne!(first, generate(&model, &prompts, &Sampling { seed: 1, ..one }));
    assert_ne!(first[0], first[1], "each sequence has a stream of its own");
}

#[test]
fn a_response_ends_with_a_stop_token_or_the_room() {
    let model = load("llama3_tied");
    let (prompt, greedy) = generations("llama3_tied").swap_remove(1);
    let stop = greedy[9];
    let first = greedy.iter().position(|&t| t == stop).unwrap();
    let stopping = Sampling { stop_tokens: vec![stop], ..Sampling::greedy(&model, 64) };
    let found = &generate(&model, std::slice::from_ref(&prompt), &stopping)[0];
    assert_eq!(*found, Generation { tokens: greedy[..=first].to_vec(), ended: true });

    let context = model.config().context;
    let long: Vec<u32> = (0..context as u32 - 3).map(|i| 4 + i % 60).collect();
    let found = &generate(&model, &[prompt, long], &sampling(&model, 0.0, 1.0, 10));
    assert_eq!(found[0].tokens, greedy[..10]);
    assert_eq!((found[1].tokens.len(), found[1].ended), (3, false));
    assert!(generate(&model, &[], &sampling(&model, 0.0, 1.0, 10)).is_empty());
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let model = load("qwen3_tied");
    let plain = sampling(&model, 1.0, 1.0, 8);
    let context = model.config().context;
    let cases: [(Sampling, Vec<u32>, &str); 8] = [
        (plain.clone(), vec![], "prompt 1: has no tokens"),
        (plain.clone(), vec![5; context], "prompt 1: has 128 tokens"),
        (plain.clone(), vec![64], "prompt 1: token 64"),
        (Sampling { temperature: -1.0, ..plain.clone() }, vec![5], "temperature"),
        (Sampling { temperature: f64::NAN, ..plain.clone() }, vec![5], "temperature"),
        (Sampling { top_p: 0.0, ..plain.clone() }, vec![5], "top_p"),
        (Sampling { top_p: 1.5, ..plain.clone() }, vec![5], "top_p"),
        (Sampling { max_new_tokens: 0, ..plain.clone() }, vec![5], "max_new_tokens"),
    ];
    for (sampling, prompt, expected) in cases {
        let error = model.generate(&[vec![4], prompt], &sampling, &|| false).unwrap_err();
        assert!(error.what().contains(expected), "{expected}: {error}");
        assert!(error.help_text().is_some(), "{error}");
    }
    model
        .update(|i, values| {
            if i == 4 {
                values[0] = f32::NAN;
            }
            Ok(())
        })
        .unwrap();
    let error = model.generate(&[vec![4]], &plain, &|| false).unwrap_err().to_string();
    assert!(error.contains(&format!("tensor `{}`", model.weights().space().names[4])), "{error}");
}

#[test]
fn an_interruption_stops_before_the_next_token() {
    let model = load("qwen3_tied");
    let asked = Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let error = model.generate(&[vec![4]], &sampling(&model, 0.0, 1.0, 64), &interrupted).unwrap_err();
    assert_eq!((error.kind(), asked.get()), (Kind::Interrupted, 4));
}
