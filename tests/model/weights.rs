//! Weights in and out: what fits is read whichever way it is stored, what does not is named.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, safetensors};
use raco::data::Tokenizer;
use raco::engine::{LogProbs, TAPE_BYTES, jacobian};
use raco::model::{
    Config, Load, Model, Precision, Sampling, Weights, parameters, parse_bytes, read_weights, show_bytes,
    weight_bytes,
};
use raco::optim::{AdamW, Optimizer, Options, Schedule};

use super::golden::relative;
use crate::common::random::{config, model as random, ragged};

pub const MODELS: [&str; 5] = ["llama_untied", "llama3_tied", "qwen3_tied", "gemma3_text", "gemma3_nested"];

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn load(name: &str) -> Model {
    Model::load(&golden(name)).unwrap()
}

/// A copy of a golden model whose tensors were changed.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(name: &str, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for entry in std::fs::read_dir(golden(name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let file = folder.path().join("model.safetensors");
        let mut tensors = safetensors::load(&file, &Device::Cpu).unwrap();
        change(&mut tensors);
        safetensors::save(&tensors, &file).unwrap();
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self) -> raco::Result<Weights> {
        read_weights(self.path(), &Config::read(self.path())?, Precision::F32)
    }

    fn refusal(&self) -> String {
        self.read().expect_err("refused").to_string()
    }
}

fn values(weights: &Weights) -> Vec<Vec<u32>> {
    weights
        .parameters()
        .iter()
        .map(|p| p.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .map(|v| v.into_iter().map(f32::to_bits).collect())
        .collect()
}

const K: &str = "model.layers.1.self_attn.k_proj.weight";

#[test]
fn every_golden_model_is_read_in_the_order_of_its_family() {
    for name in MODELS {
        let model = load(name);
        let space = model.weights().space().clone();
        let expected: (Vec<_>, Vec<_>) = parameters(model.config()).into_iter().unzip();
        assert_eq!((space.names.clone(), space.shapes.clone()), expected);
        let size = space.size() as u64;
        assert_eq!(weight_bytes(model.config(), Precision::F32), 4 * size);
        assert_eq!(weight_bytes(model.config(), Precision::Bf16), 2 * size);
        assert_eq!(space.names.contains(&"lm_head.weight".to_owned()), !model.config().tied);
    }
}

#[test]
fn shards_and_half_precision_are_read() {
    let name = "llama_untied";
    let whole = Folder::new(name, |_| {}).read().unwrap();
    let folder = Folder::new(name, |_| {});
    let file = folder.path().join("model.safetensors");
    let tensors = safetensors::load(&file, &Device::Cpu).unwrap();
    std::fs::remove_file(&file).unwrap();
    let shard = |name: &str| if name.contains("layers.0") { "a.safetensors" } else { "b.safetensors" };
    for file in ["a.safetensors", "b.safetensors"] {
        let part = tensors.iter().filter(|(name, _)| shard(name) == file);
        let part: HashMap<_, _> = part.map(|(n, t)| (n.clone(), t.clone())).collect();
        safetensors::save(&part, folder.path().join(file)).unwrap();
    }
    let map: HashMap<_, _> = tensors.keys().map(|name| (name.as_str(), shard(name))).collect();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    assert_eq!(values(&folder.read().unwrap()), values(&whole));

    std::fs::remove_file(folder.path().join("b.safetensors")).unwrap();
    assert!(folder.refusal().contains("b.safetensors"));
    std::fs::write(&index, r#"{"weight_map": {"x": "../b.safetensors"}}"#).unwrap();
    assert!(folder.refusal().contains("../b.safetensors"));

    for dtype in [DType::F16, DType::BF16] {
        let round = |t: &Tensor| t.to_dtype(dtype).unwrap();
        let folder = Folder::new(name, |tensors| tensors.values_mut().for_each(|t| *t = round(t)));
        for (read, full) in folder.read().unwrap().parameters().iter().zip(whole.parameters()) {
            let expected = round(&full.tensor).to_dtype(DType::F32).unwrap();
            let difference = (&read.tensor - expected).unwrap().abs().unwrap().max_all().unwrap();
            assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0, "{dtype:?} {}", read.name);
        }
    }
}

#[test]
fn both_layouts_of_a_model_with_a_vision_tower_are_read() {
    let folder = Folder::new("gemma3_nested", |_| {});
    let stored = safetensors::load(folder.path().join("model.safetensors"), &Device::Cpu).unwrap();
    let whole = values(&folder.read().unwrap());
    let renamed = Folder::new("gemma3_nested", |tensors| {
        *tensors = tensors
            .drain()
            .map(|(name, tensor)| match name.strip_prefix("language_model.model.") {
                Some(rest) => (format!("model.language_model.{rest}"), tensor),
                None => (format!("model.{name}"), tensor),
            })
            .collect();
        tensors.insert("lm_head.weight".into(), tensors["model.language_model.embed_tokens.weight"].clone());
    });
    assert!(stored.keys().any(|name| name.starts_with("language_model.model.")));
    assert!(stored.keys().any(|name| name.starts_with("vision_tower.")));
    assert_eq!(values(&renamed.read().unwrap()), whole);
    // saved it is a text model
    let saved = renamed.path().join("saved");
    Model::load(renamed.path()).unwrap().save(&saved, Precision::F32).unwrap();
    let names: Vec<String> =
        safetensors::load(saved.join("model.safetensors"), &Device::Cpu).unwrap().into_keys().collect();
    assert!(
        names.iter().all(|name| name.starts_with("model.layers.")
            || name.starts_with("model.norm")
            || name == "model.embed_tokens.weight"),
        "{names:?}"
    );
    assert_eq!(values(&Model::load(&saved).unwrap().weights()), whole);
}

#[test]
fn tensors_that_do_not_fit_are_all_named() {
    let folder = Folder::new("qwen3_tied", |tensors| {
        tensors.remove(K);
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        *norm = norm.reshape((4, 6)).unwrap();
        tensors.insert("model.extra.bias".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        let up = tensors.get_mut("model.layers.0.mlp.up_proj.weight").unwrap();
        *up = up.to_dtype(DType::F64).unwrap();
    });
    let message = folder.refusal();
    for part in [
        "`model.layers.1.self_attn.k_proj.weight` [16, 24] is missing",
        "`model.norm.weight` is [4, 6] in `model.safetensors`, expected [24]",
        "`model.extra.bias` [3] in `model.safetensors` is not expected",
        "`model.layers.0.mlp.up_proj.weight` is F64",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let folder = Folder::new("qwen3_tied", |tensors| {
            let k = tensors.get_mut(K).unwrap();
            let mut values = k.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values[7] = bad;
            *k = Tensor::from_vec(values, k.shape(), &Device::Cpu).unwrap();
        });
        let message = folder.refusal();
        assert!(message.contains(&format!("tensor `{K}`")) && message.contains("at 7"), "{message}");
    }
}

#[test]
fn broken_files_are_refused() {
    let folder = Folder::new("qwen3_tied", |_| {});
    let file = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    for keep in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..keep]).unwrap();
        let message = folder.refusal();
        assert!(message.contains("model.safetensors") && message.contains("broken"), "{keep}: {message}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(folder.refusal().contains("neither `model.safetensors`"));
    let message = Model::load(Path::new("no/such/model")).err().unwrap().to_string();
    assert!(message.contains("no/such/model"), "{message}");
}

#[test]
fn known_extras_are_left_out() {
    let embed = |tensors: &HashMap<String, Tensor>| tensors["model.embed_tokens.weight"].clone();
    let folder = Folder::new("llama3_tied", |tensors| {
        tensors.insert("lm_head.weight".into(), embed(tensors));
        let frequencies = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), frequencies);
    });
    assert_eq!(values(&folder.read().unwrap()), values(&load("llama3_tied").weights()));
    let folder = Folder::new("llama3_tied", |tensors| {
        tensors.insert("lm_head.weight".into(), (embed(tensors) * 2.0).unwrap());
    });
    let message = folder.refusal();
    assert!(message.contains("`lm_head.weight`") && message.contains("tie_word_embeddings"), "{message}");
}

#[test]
fn weights_kept_as_bf16_compute_as_the_rounded_ones() {
    // up_proj has more numbers than are widened at once
    let mut wide = config("gemma3_text", true).json;
    wide["intermediate_size"] = 24_000.into();
    let wide = random(&Config::from_json(wide).unwrap(), 3);
    let models = MODELS.map(|name| (name, load(name)));
    for (name, model) in models.into_iter().chain([("wide", wide)]) {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str, precision| {
            let path = dir.path().join(name);
            model.save(&path, precision).unwrap();
            path
        };
        let kept = Load { precision: Precision::Bf16, ..Load::default() };
        let kept = Model::load_as(&folder("full", Precision::F32), kept).unwrap();
        let rounded = Model::load(&folder("half", Precision::Bf16)).unwrap();
        assert!(kept.weights().parameters().iter().all(|p| p.tensor.dtype() == DType::BF16));
        assert_eq!(kept.fingerprint().unwrap(), rounded.fingerprint().unwrap(), "{name}");
        let batch = ragged(model.config().vocab.min(61), 9, true);
        let run = |model: &Model| {
            let log_probs = LogProbs::new(model, &batch, TAPE_BYTES).unwrap();
            let sum = log_probs.tokens().sum_all().unwrap();
            let row = jacobian(Arc::new(vec!["sum".into()]), &[sum], &log_probs).unwrap();
            let row = row
                .tensor()
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f64>()
                .unwrap();
            (log_probs.tokens().to_vec1::<f64>().unwrap(), row)
        };
        let (found, expected) = (run(&kept), run(&rounded));
        assert!(relative(&found.0, &expected.0) < 1e-6, "{name}: {}", relative(&found.0, &expected.0));
        assert!(relative(&found.1, &expected.1) < 1e-5, "{name}: {}", relative(&found.1, &expected.1));
        let greedy = Sampling { stop_tokens: Vec::new(), ..Sampling::greedy(&kept, 12) };
        let prompts = [vec![5, 9, 20], vec![33; 17]];
        let generate = |model: &Model| model.generate(&prompts, &greedy, &|| false).unwrap();
        assert_eq!(generate(&kept), generate(&rounded), "{name}");

        let message = kept.update(|_, _| Ok(())).unwrap_err().to_string();
        assert!(message.contains("kept as bf16") && message.contains("help: "), "{message}");
        let options = Options { lr: 1e-3, schedule: Schedule::default(), clip: None };
        assert!(Optimizer::adamw(&kept, AdamW::default(), options).is_err());
        // what is saved as f32 is the rounded model
        let again = dir.path().join("again");
        kept.save(&again, Precision::F32).unwrap();
        assert_eq!(values(&Model::load(&again).unwrap().weights()), values(&rounded.weights()));
    }
}

#[test]
fn sizes_of_memory_are_read_and_shown() {
    let read = |text: &str| parse_bytes(text).unwrap();
    assert_eq!(read("8GiB"), 8 << 30);
    assert_eq!(read("1.5 MiB"), 3 << 19);
    assert_eq!(read("16KiB"), 1 << 14);
    assert_eq!((read("1_000"), read("7B")), (1000, 7));
    for text in ["", "8 gigs", "GiB", "-1GiB", "0", "nan", "1.5", "8GB", "1e300GiB"] {
        let error = parse_bytes(text).unwrap_err();
        assert_eq!(error.what(), format!("`{text}` is no size of memory"));
        assert!(error.help_text().unwrap().contains("\"8GiB\""), "{error}");
    }
    for (bytes, text) in [(1 << 30, "1GiB"), (3 << 29, "1.5GiB"), ((1 << 20) + 1, "1.1MiB"), (900, "900B")] {
        assert_eq!(show_bytes(bytes), text);
    }
    for bytes in (0..50).map(|power| (1usize << power) / 3 * 4 + 1) {
        let shown = read(&show_bytes(bytes));
        assert!(shown >= bytes && shown as f64 <= 1.1 * bytes as f64 + 1.0, "{bytes} shown as {shown}");
    }
}

#[test]
fn a_tokenizer_beyond_the_embedding_is_refused() {
    let folder = Folder::new("qwen3_tied", |tensors| {
        let embed = tensors.get_mut("model.embed_tokens.weight").unwrap();
        *embed = embed.narrow(0, 0, 60).unwrap().contiguous().unwrap();
    });
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"vocab_size\": 64", "\"vocab_size\": 60")).unwrap();
    let message = Model::load(folder.path()).err().unwrap().to_string();
    assert!(message.contains("token ids up to `63`") && message.contains("60 token rows"), "{message}");
}

#[test]
fn stop_tokens_come_from_the_whole_folder() {
    let folder = Folder::new("qwen3_tied", |_| {});
    let write = |name: &str, key: &str, value: serde_json::Value| {
        let path = folder.path().join(name);
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json[key] = value;
        std::fs::write(&path, json.to_string()).unwrap();
    };
    write("config.json", "eos_token_id", 3.into());
    write("generation_config.json", "eos_token_id", serde_json::json!([3, 9]));
    write("tokenizer_config.json", "eos_token", "w0".into());
    let saved = folder.path().join("saved");
    Model::load(folder.path()).unwrap().save(&saved, Precision::F32).unwrap();
    for dir in [folder.path(), &saved] {
        let mut stop = Model::load(dir).unwrap().config().stop_tokens.clone();
        stop.sort_unstable();
        assert_eq!(stop, [3, 4, 9]);
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    for name in MODELS {
        let model = load(name);
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("out/model");
        model.save(&saved, Precision::F32).unwrap();
        let again = Model::load(&saved).unwrap();
        assert_eq!(values(&again.weights()), values(&model.weights()));
        assert_eq!(again.config().computation(), model.config().computation());
        assert_eq!(again.fingerprint().unwrap(), model.fingerprint().unwrap());
        assert_eq!(again.tokenizer().fingerprint(), model.tokenizer().fingerprint());

        // into the same folder, beside a file of the user's
        std::fs::write(saved.join("README.md"), "mine").unwrap();
        model.save(&saved, Precision::Bf16).unwrap();
        let half = Model::load(&saved).unwrap();
        for (half, full) in half.weights().parameters().iter().zip(model.weights().parameters()) {
            let error = (&half.tensor - &full.tensor).unwrap().abs().unwrap().max_all().unwrap();
            let largest = full.tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(error.to_scalar::<f32>().unwrap() <= largest / 256.0, "{name} {}", full.name);
        }
        assert_eq!(std::fs::read_to_string(saved.join("README.md")).unwrap(), "mine");
        let left: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary folder stays");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = load("qwen3_tied").save(&file.join("model"), Precision::F32).unwrap_err().to_string();
    assert!(message.contains("file"), "{message}");
}

#[test]
fn training_leaves_frozen_copies_and_the_fingerprint_follows_the_weights() {
    let model = load("qwen3_tied");
    let (frozen, before) = (model.frozen(), model.fingerprint().unwrap());
    let held = model.weights();
    model
        .update(|i, values| {
            if i == 3 {
                values[5] += 1e-3;
            }
            Ok(())
        })
        .unwrap();
    assert_ne!(model.fingerprint().unwrap(), before);
    assert_eq!(frozen.fingerprint().unwrap(), before);
    assert_eq!(values(&held), values(&frozen.weights()));
    assert_eq!(model.version(), 1);
}

#[test]
fn fresh_weights_have_the_stated_deviations_and_follow_the_seed() {
    let tokenizer = || Tokenizer::load(&golden("qwen3_tied")).unwrap();
    let mut json = load("llama_untied").config().json.clone();
    for (key, value) in [("hidden_size", 96), ("intermediate_size", 192), ("head_dim", 24)] {
        json[key] = value.into();
    }
    let init = |seed| Model::init(json.clone(), tokenizer(), seed).unwrap();
    let model = init(1);
    for p in model.weights().parameters() {
        let values = p.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let deviation = (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let expected = match p.tensor.dims() {
            [_] => {
                assert!(values.iter().all(|&v| v == 1.0));
                continue;
            }
            _ if p.name.contains("embed") => 0.02,
            [_, fan_in] => 0.7 / (*fan_in as f64).sqrt(),
            other => panic!("{other:?}"),
        };
        // five standard errors
        assert!(mean.abs() < 5.0 * expected / n.sqrt(), "{}: mean {mean}", p.name);
        let error = (deviation / expected - 1.0).abs();
        assert!(error < 5.0 / (2.0 * n).sqrt(), "{}: {deviation}, expected {expected}", p.name);
    }
    assert_eq!(values(&init(1).weights()), values(&model.weights()));
    assert_ne!(values(&init(2).weights()), values(&model.weights()));
    json["vocab_size"] = 10.into();
    let message = Model::init(json, tokenizer(), 1).err().unwrap().to_string();
    assert!(message.contains("token ids up to `63`"), "{message}");
}
