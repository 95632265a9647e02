//! What transformers computes with tiny random models (golden/make.py), computed again.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, safetensors};
use raco::data::{Batch, Example, Packed, Response};
use raco::engine::{LogProbs, TAPE_BYTES, jacobian};
use raco::model::Sampling;
use serde_json::Value;

use super::weights::{MODELS, golden, load};

pub struct Sequence {
    pub prompt: Vec<u32>,
    pub responses: Vec<Vec<u32>>,
    pub log_probs: Vec<Vec<f64>>,
    pub last_prompt_logits: Vec<f64>,
}

fn read<T: serde::de::DeserializeOwned>(json: &Value, key: &str) -> T {
    serde_json::from_value(json[key].clone()).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(name).join("golden.json")).unwrap()).unwrap()
}

pub fn sequences(name: &str) -> Vec<Sequence> {
    let sequence = |s: &Value| Sequence {
        prompt: read(s, "prompt"),
        responses: read(s, "responses"),
        log_probs: read(s, "log_probs"),
        last_prompt_logits: read(s, "last_prompt_logits"),
    };
    json(name)["sequences"].as_array().unwrap().iter().map(sequence).collect()
}

pub fn generations(name: &str) -> Vec<(Vec<u32>, Vec<u32>)> {
    let pair = |g: &Value| (read(g, "prompt"), read(g, "response"));
    json(name)["generations"].as_array().unwrap().iter().map(pair).collect()
}

pub fn packed(sequences: &[Sequence], share_prompt: bool) -> Packed {
    let parts =
        sequences.iter().map(|s| (s.prompt.as_slice(), s.responses.iter().map(Vec::as_slice).collect()));
    Packed::new(parts, share_prompt).unwrap()
}

/// ‖a - b‖ / ‖b‖.
pub fn relative(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn log_probs_are_those_of_transformers() {
    for name in MODELS {
        let (model, sequences) = (load(name), sequences(name));
        let expected: Vec<f64> = sequences.iter().flat_map(|s| s.log_probs.concat()).collect();
        for share_prompt in [false, true] {
            let found = model.score(&packed(&sequences, share_prompt)).unwrap();
            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
            assert!(relative(&found, &expected) < 1e-5, "{name}: {}", relative(&found, &expected));
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-5 * e.abs().max(1.0), "{name}: {f}, expected {e}");
            }
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for name in MODELS {
        let model = load(name);
        for sequence in sequences(name) {
            // log π of every token after the prompt: the logits up to a constant
            let words = sequence.last_prompt_logits.len() as u32;
            let tokens: Vec<[u32; 1]> = (0..words).map(|t| [t]).collect();
            let responses = tokens.iter().map(|t| t.as_slice()).collect();
            let packed = Packed::new([(sequence.prompt.as_slice(), responses)], true).unwrap();
            let found: Vec<f64> = model.score(&packed).unwrap().into_iter().map(f64::from).collect();
            let log_sum = sequence.last_prompt_logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let expected: Vec<f64> = sequence.last_prompt_logits.iter().map(|x| x - log_sum).collect();
            assert!(relative(&found, &expected) < 1e-5, "{name}: {}", relative(&found, &expected));
        }
    }
}

#[test]
fn gradients_are_those_of_torch() {
    for name in MODELS {
        let model = load(name);
        let example = |s: Sequence| {
            let response = |ids| Response::new("", ids);
            Arc::new(Example {
                prompt: String::new(),
                prompt_tokens: s.prompt.len(),
                prompt_ids: s.prompt,
                responses: s.responses.into_iter().map(response).collect(),
                labels: vec![],
                line: 0,
            })
        };
        let expected = safetensors::load(golden(name).join("gradients.safetensors"), &Device::Cpu).unwrap();
        for share_prompt in [false, true] {
            let examples = sequences(name).into_iter().map(example).collect();
            let batch =
                Batch { objectives: Arc::default(), examples, reference: None, index: 0, share_prompt };
            let log_probs = LogProbs::new(&model, &batch, TAPE_BYTES).unwrap();
            let sum = log_probs.tokens().sum_all().unwrap();
            let row = jacobian(Arc::new(vec!["sum".into()]), &[sum], &log_probs).unwrap();
            let row = row.tensor().unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap();
            let space = model.weights().space().clone();
            assert_eq!(space.names.len(), expected.len());
            for (name_of, range) in space.names.iter().zip(space.offsets.windows(2)) {
                let found = row.narrow(0, range[0], range[1] - range[0]).unwrap().to_vec1::<f64>().unwrap();
                let of = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
                let error = relative(&found, &of(&expected[name_of]).unwrap());
                assert!(error < 1e-4, "{name} {name_of} shared {share_prompt}: off by {error:.1e}");
            }
        }
    }
}

#[test]
fn greedy_generations_are_those_of_transformers() {
    for name in MODELS {
        let model = load(name);
        let (prompts, expected): (Vec<_>, Vec<_>) = generations(name).into_iter().unzip();
        let sampling = Sampling { stop_tokens: Vec::new(), ..Sampling::greedy(&model, 64) };
        let found = model.generate(&prompts, &sampling, &|| false).unwrap();
        for (found, expected) in found.into_iter().zip(expected) {
            assert_eq!(found.tokens, expected, "{name}");
            assert!(!found.ended);
        }
    }
}
