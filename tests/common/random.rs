//! Small random models and batches.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use raco::data::{Batch, Example, Response};
use raco::model::{Config, Family, Model, Parameter, Weights, parameters};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// A generator of its own for each seed.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A standard normal number.
pub fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// Three layers, grouped queries, 61 words; `qwen3`, `llama`, or `gemma3_text` with two local layers and a cap.
pub fn config(family: &str, tied: bool) -> Config {
    let mut json = json!({
        "model_type": family, "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 40,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied,
        "max_position_embeddings": 256
    });
    if family == "gemma3_text" {
        let more = [
            ("sliding_window", json!(21)),
            ("sliding_window_pattern", json!(2)),
            ("rope_local_base_freq", json!(100.0)),
            ("query_pre_attn_scalar", json!(5)),
            ("final_logit_softcapping", json!(3.0)),
        ];
        more.into_iter().for_each(|(key, value)| json[key] = value);
    }
    Config::from_json(json).unwrap()
}

/// A model with random weights whose norms multiply by about 1.
pub fn model(config: &Config, seed: u64) -> Model {
    let mut rng = rng(seed);
    let list = parameters(config)
        .into_iter()
        .map(|(name, shape)| {
            let (center, scale) = match &shape[..] {
                [_] if config.family == Family::Gemma3 => (0.0, 0.2),
                [_] => (1.0, 0.2),
                [_, fan_in] if name.contains("layers") => (0.0, 1.0 / (*fan_in as f64).sqrt()),
                _ => (0.0, 0.3),
            };
            let n = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|_| (center + scale * normal(&mut rng)) as f32).collect();
            Parameter { name, tensor: Tensor::from_vec(values, shape, &Device::Cpu).unwrap() }
        })
        .collect();
    Model::new(config.clone(), Weights::new(list), Arc::new(tokenizer(config.vocab)))
}

/// A tokenizer of `vocab` words.
pub fn tokenizer(vocab: usize) -> raco::data::Tokenizer {
    let words: Vec<String> = (4..vocab).map(|i| format!("w{i}")).collect();
    raco::data::Tokenizer::word_level(&words).unwrap()
}

/// A preference pair of these lengths with random tokens; the responses share their first `common` tokens.
pub fn pair(rng: &mut impl Rng, vocab: usize, lengths: [usize; 3], common: usize) -> Example {
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.random_range(0..vocab as u32)).collect() };
    let (prompt_ids, chosen, mut rejected) = (ids(lengths[0]), ids(lengths[1]), ids(lengths[2]));
    rejected[..common].copy_from_slice(&chosen[..common]);
    let response = |ids| Response::new("", ids);
    Example {
        prompt: String::new(),
        prompt_tokens: prompt_ids.len(),
        prompt_ids,
        responses: vec![response(chosen), response(rejected)],
        labels: vec![],
        line: 0,
    }
}

/// Ragged pairs: long and short, one-token responses, a shared prefix, a prompt of one token.
pub fn ragged(vocab: usize, seed: u64, share_prompt: bool) -> Batch {
    let mut rng = rng(seed);
    let shapes = [([9, 70, 11], 0), ([3, 1, 5], 0), ([12, 8, 9], 4), ([1, 6, 1], 1), ([70, 3, 2], 0)];
    let examples = shapes.iter().map(|&(l, common)| Arc::new(pair(&mut rng, vocab, l, common))).collect();
    Batch { objectives: Arc::new(vec![]), examples, reference: None, index: 0, share_prompt }
}
