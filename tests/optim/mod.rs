mod optimizer;
mod schedule;
mod snapshot;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use raco::data::Tokenizer;
use raco::engine::Gradient;
use raco::model::{Config, Model, Parameter, Weights};
use serde_json::{Value, json};

pub fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/optim.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// A model of two parameters `a` and `b` that is never run.
pub fn model_of(a: &[f32], b: &[f32]) -> Model {
    let parameter = |name: &str, values: &[f32]| Parameter {
        name: name.to_owned(),
        tensor: Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap(),
    };
    let config = Config::from_json(json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-5
    }))
    .unwrap();
    let tokenizer = Arc::new(Tokenizer::word_level(&["a".to_owned(), "b".to_owned()]).unwrap());
    Model::new(config, Weights::new(vec![parameter("a", a), parameter("b", b)]), tokenizer)
}

pub fn values(model: &Model) -> Vec<f32> {
    model
        .weights()
        .parameters()
        .iter()
        .flat_map(|p| p.tensor.flatten_all().unwrap().to_vec1().unwrap())
        .collect()
}

pub fn gradient(model: &Model, values: &[f32]) -> Gradient {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
    Gradient::new(model.weights().space().clone(), tensor).unwrap()
}
