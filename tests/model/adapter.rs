//! PEFT folders: what PEFT computes with them (golden/adapters.py) computed again, written back, and refused where
//! they are wrong.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, safetensors};
use raco::data::{Batch, Example, Response};
use raco::engine::{LogProbs, TAPE_BYTES, jacobian};
use raco::model::{Load, Lora, Model, Precision, Sampling, Targets};
use serde_json::{Value, json};

use super::golden::{relative, sequences};
use super::weights::{golden, load};

const ADAPTERS: [&str; 3] = ["llama", "qwen3", "gemma3"];

fn folder(name: &str) -> PathBuf {
    golden("adapters").join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn adapted(name: &str) -> (Model, String, Value) {
    let json = read(&folder(name).join("golden.json"));
    let base = json["base"].as_str().unwrap().to_owned();
    (load(&base).load_adapter(&folder(name)).unwrap(), base, json)
}

fn batch(base: &str) -> Batch {
    let response = |ids| Response::new("", ids);
    let examples = sequences(base).into_iter().map(|s| {
        Arc::new(Example {
            prompt: String::new(),
            prompt_tokens: s.prompt.len(),
            prompt_ids: s.prompt,
            responses: s.responses.into_iter().map(response).collect(),
            labels: vec![],
            line: 0,
        })
    });
    let examples = examples.collect();
    Batch { objectives: Arc::default(), examples, reference: None, index: 0, share_prompt: true }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn log_probs_gradients_and_generations_are_those_of_peft() {
    for name in ADAPTERS {
        let (model, base, json) = adapted(name);
        let expected: Vec<Vec<Vec<f64>>> = serde_json::from_value(json["log_probs"].clone()).unwrap();
        let log_probs = LogProbs::new(&model, &batch(&base), TAPE_BYTES).unwrap();
        let found = numbers(log_probs.tokens());
        assert!(relative(&found, &expected.concat().concat()) < 1e-5, "{name}");

        let sum = log_probs.tokens().sum_all().unwrap();
        let row = jacobian(Arc::new(vec!["sum".into()]), &[sum], &log_probs).unwrap();
        let row = numbers(row.tensor());
        let expected = safetensors::load(folder(name).join("gradients.safetensors"), &Device::Cpu).unwrap();
        let space = model.weights().space().clone();
        assert_eq!(space.names.len(), expected.len(), "{name}: nothing but the adapter is trained");
        for (tensor, range) in space.names.iter().zip(space.offsets.windows(2)) {
            let error = relative(&row[range[0]..range[1]], &numbers(&expected[tensor]));
            assert!(error < 1e-4, "{name} {tensor}: off by {error:.1e}");
        }

        let prompt: Vec<u32> = serde_json::from_value(json["prompt"].clone()).unwrap();
        let response: Vec<u32> = serde_json::from_value(json["response"].clone()).unwrap();
        let sampling = Sampling { stop_tokens: Vec::new(), ..Sampling::greedy(&model, response.len()) };
        for model in [&model, &model.merged().unwrap()] {
            let found = model.generate(std::slice::from_ref(&prompt), &sampling, &|| false).unwrap();
            assert_eq!(found[0].tokens, response, "{name}");
        }
    }
}

/// A base kept as bf16 under an adapter in f32 is the rounded base under the same adapter.
#[test]
fn an_adapter_trains_on_a_base_kept_as_bf16() {
    for name in ADAPTERS {
        let base = read(&folder(name).join("golden.json"))["base"].as_str().unwrap().to_owned();
        let dir = tempfile::tempdir().unwrap();
        load(&base).save(dir.path(), Precision::Bf16).unwrap();
        let kept = Load { precision: Precision::Bf16 };
        let [kept, rounded] = [Model::load_as(dir.path(), kept), Model::load(dir.path())]
            .map(|model| model.unwrap().load_adapter(&folder(name)).unwrap());
        assert_eq!(kept.base().weights().parameters()[0].tensor.dtype(), DType::BF16);
        let run = |model: &Model| {
            let log_probs = LogProbs::new(model, &batch(&base), TAPE_BYTES).unwrap();
            let sum = log_probs.tokens().sum_all().unwrap();
            let row = jacobian(Arc::new(vec!["sum".into()]), &[sum], &log_probs).unwrap();
            (numbers(log_probs.tokens()), numbers(row.tensor()))
        };
        let (found, expected) = (run(&kept), run(&rounded));
        assert!(relative(&found.0, &expected.0) < 1e-6, "{name}: {}", relative(&found.0, &expected.0));
        assert!(relative(&found.1, &expected.1) < 1e-5, "{name}: {}", relative(&found.1, &expected.1));
        kept.update(|_, values| {
            values.iter_mut().for_each(|x| *x += 0.01);
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_saved_adapter_is_the_same_adapter() {
    for name in ADAPTERS {
        let (model, base, _) = adapted(name);
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("adapter");
        model.save(&saved, Precision::F32).unwrap();
        let of = |dir: &Path| {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let file = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensor = |(name, view): (String, ::safetensors::tensor::TensorView)| {
                (name, (view.shape().to_vec(), view.data().to_vec()))
            };
            file.tensors().into_iter().map(tensor).collect::<HashMap<_, _>>()
        };
        assert!(of(&saved) == of(&folder(name)), "{name}: the tensors PEFT wrote, by its names");
        let [ours, theirs] = [&saved, &folder(name)].map(|dir| read(&dir.join("adapter_config.json")));
        for key in ["peft_type", "task_type", "r", "lora_alpha", "use_rslora", "target_modules", "bias"] {
            assert_eq!(ours[key], theirs[key], "{name} {key}");
        }
        assert!(Path::new(ours["base_model_name_or_path"].as_str().unwrap()).ends_with(&base));
        let again = load(&base).load_adapter(&saved).unwrap();
        assert_eq!(again.fingerprint().unwrap(), model.fingerprint().unwrap());

        // merged, it is a folder of its own
        let merged = dir.path().join("merged");
        model.merged().unwrap().save(&merged, Precision::F32).unwrap();
        let tokens =
            |model: &Model| numbers(LogProbs::new(model, &batch(&base), TAPE_BYTES).unwrap().tokens());
        let merged = Model::load(&merged).unwrap();
        assert!(merged.adapter().is_none());
        assert!(relative(&tokens(&merged), &tokens(&model)) < 1e-5, "{name}");
        let message = Model::load(&saved).err().unwrap().to_string();
        assert!(message.contains("holds an adapter, not a model"), "{message}");
    }
}

#[test]
fn modules_are_chosen_as_peft_does() {
    let base = load("llama_untied");
    let count = |targets: Targets| {
        let lora = Lora { targets, ..Lora::default() };
        base.with_adapter(lora, 0).map(|model| model.adapter().unwrap().module_count())
    };
    let names = |names: &[&str]| Targets::Names(names.iter().map(|&name| name.into()).collect());
    for (targets, expected) in [
        (Targets::pattern("all-linear"), 14),
        (Targets::pattern("All-Linear"), 14),
        (names(&["q_proj"]), 2),
        (names(&["q_proj", "mlp.up_proj"]), 4),
        (names(&["model.layers.1.self_attn.q_proj", "v_proj"]), 3),
        (Targets::pattern(r".*\.(q|k)_proj"), 4),
        (Targets::pattern(r"model\.layers\.1\..*"), 7),
        (Targets::pattern("model.layers.0.mlp.up_proj|model.layers.1.mlp.up_proj"), 2),
    ] {
        assert_eq!(count(targets.clone()).unwrap(), expected, "{targets:?}");
    }
    for (targets, expected) in [
        (names(&["q_proj", "k_porj"]), "no linear module of a layer is named `k_porj`"),
        (names(&["proj"]), "named `proj`"), // no whole part of a name
        (names(&["lm_head"]), "named `lm_head`"),
        (names(&[]), "no module is chosen"),
        (Targets::pattern("q_proj"), "matches `q_proj` as a whole"), // a pattern matches whole names
        (Targets::pattern("("), "`(` is no regular expression: unclosed group"),
    ] {
        let error = count(targets).unwrap_err();
        assert!(error.what().contains(expected), "{error}");
        assert!(error.help_text().unwrap().contains("q_proj"), "{error}");
    }
}

/// Copies an adapter's folder with some keys and tensors changed, and returns the refusal.
fn refusal(
    base: &str,
    keys: &[(&str, Value)],
    change: impl FnOnce(&mut HashMap<String, Tensor>),
) -> raco::Error {
    let dir = tempfile::tempdir().unwrap();
    let mut config = read(&folder("llama").join("adapter_config.json"));
    for (key, value) in keys {
        config[key] = value.clone();
    }
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let mut tensors =
        safetensors::load(folder("llama").join("adapter_model.safetensors"), &Device::Cpu).unwrap();
    change(&mut tensors);
    safetensors::save(&tensors, dir.path().join("adapter_model.safetensors")).unwrap();
    let error = load(base).load_adapter(dir.path()).err().expect("refused");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "names no file: {error}");
    error
}

#[test]
fn options_that_are_not_computed_are_refused_by_name() {
    for (key, value, help) in [
        ("peft_type", json!("LOHA"), "take a LoRA adapter"),
        ("peft_type", Value::Null, "take a LoRA adapter"),
        ("task_type", json!("SEQ_CLS"), "adapter of a decoder"),
        ("r", json!(0), "save the adapter again"),
        ("r", json!("four"), "save the adapter again"),
        ("lora_alpha", Value::Null, "save the adapter again"),
        ("use_rslora", json!("yes"), "save the adapter again"),
        ("target_modules", json!(["w_pack"]), "`q_proj`"),
        ("target_modules", json!(7), "save the adapter again"),
        ("use_dora", json!(true), "merge it in PEFT"),
        ("bias", json!("all"), "bias=\"none\""),
        ("lora_bias", json!(true), "merge it in PEFT"),
        ("modules_to_save", json!(["lm_head"]), "merge it in PEFT"),
        ("rank_pattern", json!({"q_proj": 8}), "one rank"),
        ("alpha_pattern", json!({"q_proj": 8}), "one alpha"),
        ("layers_to_transform", json!([0, 1]), "a pattern in `target_modules`"),
        ("layers_to_transform", json!(0), "a pattern in `target_modules`"),
        ("exclude_modules", json!("k_proj"), "`target_modules` alone"),
        ("fan_in_fan_out", json!(true), "merge it in PEFT"),
        ("init_lora_weights", json!("pissa"), "path_initial_model_for_weight_conversion"),
        ("trainable_token_indices", json!([3]), "merge it in PEFT"),
        ("an_option_of_tomorrow", json!(0.5), "merge it in PEFT"),
    ] {
        let error = refusal("llama_untied", &[(key, value.clone())], |_| {});
        let text = error.to_string();
        let named = text.contains(&format!("key `{key}`")) || text.contains("w_pack");
        assert!(named, "{key} {value}: {text}");
        assert!(error.help_text().unwrap().contains(help), "{key} {value}: {:?}", error.help_text());
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let small = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let fails = |base: &str, change: &dyn Fn(&mut HashMap<String, Tensor>), expected: &[&str]| {
        let error = refusal(base, &[], |tensors| change(tensors));
        let text = format!("{error} {}", error.help_text().unwrap());
        assert!(expected.iter().all(|part| text.contains(part)), "{expected:?}: {text}");
    };
    let none: &dyn Fn(&mut HashMap<String, Tensor>) = &|_| {};
    fails(
        "llama3_tied",
        none,
        &["lora_A.weight` is [3, 24]", "expected [3, 32]", "its base, `llama_untied`"],
    );
    fails("llama_untied", &|t| drop(t.remove(A)), &["q_proj.lora_A.weight` [3, 24] is missing"]);
    fails("llama_untied", &|t| drop(t.insert(A.into(), small((4, 24)))), &["is [4, 24]", "expected [3, 24]"]);
    let extra = A.replace("q_proj", "k_proj");
    fails("llama_untied", &|t| drop(t.insert(extra.clone(), small((3, 24)))), &["k_proj", "is not expected"]);
    let bad = (small((3, 24)) + f64::NAN).unwrap();
    fails("llama_untied", &|t| drop(t.insert(A.into(), bad.clone())), &["72 of 72 weights are not finite"]);
    let ids = small((3, 24)).to_dtype(DType::I64).unwrap();
    fails("llama_untied", &|t| drop(t.insert(A.into(), ids.clone())), &["is I64", "expected F32"]);
}

#[test]
fn broken_folders_are_refused() {
    let base = load("llama_untied");
    let refused = |dir: &Path| {
        let error = base.load_adapter(dir).err().expect("refused");
        format!("{error} {}", error.help_text().unwrap_or_default())
    };
    assert!(refused(Path::new("no/such/adapter")).contains("there is no such folder"));
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(dir.path()).contains("found no `adapter_config.json`"));
    let config = dir.path().join("adapter_config.json");
    std::fs::write(&config, "{").unwrap();
    assert!(refused(dir.path()).contains("adapter_config.json:1:1"));
    std::fs::write(&config, "[]").unwrap();
    assert!(refused(dir.path()).contains("expected a JSON object"));
    std::fs::copy(folder("llama").join("adapter_config.json"), &config).unwrap();
    assert!(refused(dir.path()).contains("adapter_model.safetensors"));
    std::fs::write(dir.path().join("adapter_model.bin"), "x").unwrap();
    assert!(refused(dir.path()).contains("adapter_model.bin"));
    let bytes = std::fs::read(folder("llama").join("adapter_model.safetensors")).unwrap();
    std::fs::write(dir.path().join("adapter_model.safetensors"), &bytes[..bytes.len() - 9]).unwrap();
    assert!(refused(dir.path()).contains("broken or truncated"));
    std::fs::write(dir.path().join("adapter_model.safetensors"), bytes).unwrap();
    let model = base.load_adapter(dir.path()).unwrap();
    let error = model.load_adapter(dir.path()).err().unwrap().to_string();
    assert!(error.contains("has an adapter already"), "{error}");
    for lora in [Lora { rank: 0, ..Lora::default() }, Lora { alpha: f64::NAN, ..Lora::default() }] {
        assert!(base.with_adapter(lora, 0).is_err());
    }
}
