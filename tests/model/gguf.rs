//! GGUF files: those of `golden/make_gguf.py`, computed by transformers, and files written here that are wrong.

use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use raco::model::{Load, Model, Precision, Scaling};

use super::golden::{packed, relative, sequences};
use super::weights::{golden, load};

#[test]
fn log_probs_are_those_that_transformers_computes_from_the_file() {
    for name in ["gguf_llama", "gguf_qwen3", "gguf_gemma3"] {
        let file = golden(name).join("model.gguf");
        let (model, sequences) = (Model::load(&file).unwrap(), sequences(name));
        let found: Vec<f64> =
            model.score(&packed(&sequences, true)).unwrap().into_iter().map(f64::from).collect();
        let expected: Vec<f64> = sequences.iter().flat_map(|s| s.log_probs.concat()).collect();
        assert!(relative(&found, &expected) < 1e-5, "{name}: {}", relative(&found, &expected));
        // as a folder of its own it is the same model
        let dir = tempfile::tempdir().unwrap();
        model.save(&dir.path().join("saved"), Precision::F32).unwrap();
        let saved = Model::load(&dir.path().join("saved")).unwrap();
        assert_eq!(saved.fingerprint().unwrap(), model.fingerprint().unwrap(), "{name}");
        let half = Model::load_as(&file, Load { precision: Precision::Bf16 }).unwrap();
        assert_eq!(half.weights().parameters()[0].tensor.dtype(), DType::BF16);
    }
}

/// A file that is written by candle, with the tokenizer of a golden model beside it.
struct File {
    dir: tempfile::TempDir,
    keys: Vec<(String, Value)>,
    tensors: Vec<(String, Tensor)>,
}

impl File {
    /// The golden Qwen3, whose weights llama.cpp keeps as they are.
    fn qwen3() -> Self {
        let model = load("qwen3_tied");
        let config = model.config();
        let count = |n: usize| Value::U32(n as u32);
        let keys = [
            ("general.architecture", Value::String("qwen3".into())),
            ("qwen3.block_count", count(config.layers)),
            ("qwen3.context_length", count(config.context)),
            ("qwen3.embedding_length", count(config.hidden)),
            ("qwen3.feed_forward_length", count(config.intermediate)),
            ("qwen3.attention.head_count", count(config.heads)),
            ("qwen3.attention.head_count_kv", count(config.kv_heads)),
            ("qwen3.attention.key_length", count(config.head_dim)),
            ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps as f32)),
            ("qwen3.rope.freq_base", Value::F32(config.rope.theta as f32)),
            (
                "tokenizer.ggml.tokens",
                Value::Array(vec![Value::String("a".into()), Value::String("b".into())]),
            ),
            ("tokenizer.ggml.eos_token_id", Value::U32(3)),
        ];
        let parts = [
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("model.layers.", "blk."),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ];
        let name = |name: &str| parts.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
        let tensors =
            model.weights().parameters().iter().map(|p| (name(&p.name), p.tensor.clone())).collect();
        let dir = tempfile::tempdir().unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(golden("qwen3_tied").join(file), dir.path().join(file)).unwrap();
        }
        Self { dir, keys: keys.map(|(key, value)| (key.to_owned(), value)).into(), tensors }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }

    fn set(&mut self, key: &str, value: Value) {
        self.keys.retain(|(k, _)| k != key);
        self.keys.push((key.into(), value));
    }

    fn tensor(&mut self, name: &str) -> &mut Tensor {
        &mut self.tensors.iter_mut().find(|(n, _)| n == name).unwrap().1
    }

    fn write(&self) {
        let quantise = |t: &Tensor| QTensor::quantize(t, GgmlDType::F32).unwrap();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, t)| (name.as_str(), quantise(t))).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, t)| (*name, t)).collect();
        let keys: Vec<_> = self.keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
        gguf_file::write(&mut std::fs::File::create(self.path()).unwrap(), &keys, &tensors).unwrap();
    }

    fn refusal(&self) -> String {
        let message = Model::load(&self.path()).err().expect("refused").to_string();
        assert!(message.contains("model.gguf"), "{message}");
        assert!(message.contains("help: "), "{message}");
        message
    }
}

const K: &str = "blk.1.attn_k.weight";

#[test]
fn a_file_without_config_is_the_model_that_it_was_made_from() {
    let file = File::qwen3();
    file.write();
    let (model, original) = (Model::load(&file.path()).unwrap(), load("qwen3_tied"));
    assert_eq!(model.fingerprint().unwrap(), original.fingerprint().unwrap());
    assert_eq!(model.config().computation(), original.config().computation());
    assert!(model.config().stop_tokens.contains(&3));
    // a config.json beside the file goes before its keys
    let config = std::fs::read_to_string(golden("qwen3_tied").join("config.json")).unwrap();
    std::fs::write(file.dir.path().join("config.json"), config.replace("1e-06", "1e-03")).unwrap();
    assert_eq!(Model::load(&file.path()).unwrap().config().norm_eps, 1e-3);
    // a folder with nothing but a GGUF file says how to read it
    let message = Model::load(file.dir.path()).err().unwrap().to_string();
    assert!(message.contains("give its own path") && message.contains("model.gguf"), "{message}");
}

#[test]
fn the_scaling_of_llama_3_is_found_from_its_factors() {
    let mut file = File::qwen3();
    file.set("qwen3.rope.freq_base", Value::F32(500_000.0));
    // as llama.cpp's conversion writes them, for a head of 8
    let factors: Vec<f32> = (0..4)
        .map(|i| {
            let wavelength = 2.0 * std::f64::consts::PI * 500_000f64.powf(2.0 * f64::from(i) / 8.0);
            let smooth = (8192.0 / wavelength - 1.0) / 3.0;
            if wavelength < 2048.0 {
                1.0
            } else if wavelength > 8192.0 {
                32.0
            } else {
                (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
            }
        })
        .collect();
    assert!(factors[0] == 1.0 && factors[3] == 32.0 && factors.iter().any(|f| *f > 1.0 && *f < 32.0));
    file.tensors.push(("rope_freqs.weight".into(), Tensor::new(factors, &Device::Cpu).unwrap()));
    file.write();
    let model = Model::load(&file.path()).unwrap();
    let Some(Scaling::Llama3(found)) = &model.config().rope.scaling else { panic!("no scaling") };
    let four =
        (found.factor, found.low_freq_factor, found.high_freq_factor, found.original_max_position_embeddings);
    assert_eq!(four, (32.0, 1.0, 4.0, 8192));

    *file.tensor("rope_freqs.weight") = Tensor::new(&[1f32, 2.0, 8.0, 8.0], &Device::Cpu).unwrap();
    file.write();
    assert!(file.refusal().contains("tensor `rope_freqs.weight`"));
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    let text = |s: &str| Value::String(s.into());
    type Change = Box<dyn Fn(&mut File)>;
    let set = |key: &'static str, value: Value| -> Change { Box::new(move |f| f.set(key, value.clone())) };
    let without = |key: &'static str| -> Change { Box::new(move |f| f.keys.retain(|(k, _)| k != key)) };
    let cases: [(&str, Change); 14] = [
        ("`mamba`", set("general.architecture", text("mamba"))),
        ("`general.architecture` is missing", without("general.architecture")),
        ("`qwen3.block_count` is missing", without("qwen3.block_count")),
        ("`qwen3.block_count` must be a whole number", set("qwen3.block_count", text("2"))),
        ("`qwen3.attention.layer_norm_rms_epsilon`", without("qwen3.attention.layer_norm_rms_epsilon")),
        (
            "`qwen3.attention.head_count_kv` must be a whole number",
            set("qwen3.attention.head_count_kv", Value::Array(vec![Value::U32(2), Value::U32(2)])),
        ),
        ("mixture of experts", set("qwen3.expert_count", Value::U32(8))),
        ("`rope_scaling.rope_type`", set("qwen3.rope.scaling.type", text("yarn"))),
        ("general.alignment", set("general.alignment", Value::U32(0))),
        ("`blk.1.attn_k.weight` [16, 24] is missing", Box::new(|f| f.tensors.retain(|(name, _)| name != K))),
        ("token_embd.weight", Box::new(|f| f.tensors.retain(|(name, _)| name != "token_embd.weight"))),
        (
            "`blk.1.attn_k.weight` is [24, 16], expected [16, 24]",
            Box::new(|f| *f.tensor(K) = f.tensor(K).reshape((24, 16)).unwrap()),
        ),
        (
            "`blk.7.attn_k.weight` [16, 24] is not expected",
            Box::new(|f| {
                let k = f.tensor(K).clone();
                f.tensors.push(("blk.7.attn_k.weight".into(), k));
            }),
        ),
        ("tensor `blk.1.attn_k.weight`", Box::new(|f| *f.tensor(K) = (f.tensor(K).clone() / 0.0).unwrap())),
    ];
    for (expected, change) in cases {
        let mut file = File::qwen3();
        change(&mut file);
        file.write();
        let message = file.refusal();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let file = File::qwen3();
    file.write();
    std::fs::remove_file(file.dir.path().join("tokenizer.json")).unwrap();
    assert!(file.refusal().contains("no `tokenizer.json` beside"));
    let message = Model::load(Path::new("no/such/model.gguf")).err().unwrap().to_string();
    assert!(message.contains("no/such/model.gguf"), "{message}");
}

#[test]
fn broken_bytes_are_refused() {
    let file = File::qwen3();
    file.write();
    let bytes = std::fs::read(file.path()).unwrap();
    let refusal = |bytes: &[u8]| {
        std::fs::write(file.path(), bytes).unwrap();
        file.refusal()
    };
    let cut = bytes.len() - 40;
    for keep in [0, 3, 8, 20, 40, 200, 700, 1500, bytes.len() / 2, cut] {
        let message = refusal(&bytes[..keep]);
        assert!(message.contains("broken or truncated"), "{keep}: {message}");
    }
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        refusal(&bytes)
    };
    assert!(patched(0, b"GGML").contains("not a GGUF file"));
    assert!(patched(4, &[1]).contains("GGUF version `1`"));
    for count in [8, 16] {
        assert!(patched(count, &u64::MAX.to_le_bytes()).contains("broken"));
    }
    // after a tensor's name: its number of dimensions, the dimensions, its type, its offset
    let name = bytes.windows(K.len()).position(|window| window == K.as_bytes()).unwrap() + K.len();
    let message = patched(name + 4 + 16, &16u32.to_le_bytes());
    assert!(message.contains("quantisation type `16`") && message.contains(K), "{message}");
    assert!(patched(name, &9u32.to_le_bytes()).contains("9 dimensions"));
    assert!(patched(name + 4, &u64::MAX.to_le_bytes()).contains(K));
    assert!(patched(name + 4 + 20, &(1u64 << 40).to_le_bytes()).contains("broken or truncated"));
    // a row of 24 numbers does not go into blocks of 32
    assert!(patched(name + 4 + 16, &8u32.to_le_bytes()).contains("blocks"));
}
