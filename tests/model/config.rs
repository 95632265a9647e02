//! config.json: both transformers layouts, and every refusal by name.

use raco::model::{Config, Family, Llama3Scaling, Scaling};
use serde_json::{Value, json};

/// Llama 3.2 1B as transformers 4 wrote it.
fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256
    })
}

/// Qwen3 0.6B as transformers 4 wrote it.
fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936
    })
}

/// Gemma 3 1B as transformers 4 wrote it.
fn gemma3() -> Value {
    json!({
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": true,
        "vocab_size": 262144
    })
}

/// Gemma 3 27B as transformers 4 wrote it: what the text part has in common with all sizes is left out.
fn gemma3_nested() -> Value {
    json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
        "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144,
        "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
        "text_config": {
            "head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text",
            "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16,
            "query_pre_attn_scalar": 168, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024
        },
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152, "image_size": 896, "model_type": "siglip_vision_model"}
    })
}

fn with(mut json: Value, key: &str, value: Value) -> Value {
    json[key] = value;
    json
}

fn without(mut json: Value, keys: &[&str]) -> Value {
    keys.iter().for_each(|key| drop(json.as_object_mut().unwrap().remove(*key)));
    json
}

fn refusal(json: Value) -> String {
    Config::from_json(json).expect_err("refused").to_string()
}

#[test]
fn transformers_4_and_5_describe_the_same_model() {
    let old = Config::from_json(llama()).unwrap();
    let nested = json!({"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_theta": 500000.0,
                        "original_max_position_embeddings": 8192, "rope_type": "llama3"});
    let new = with(without(llama(), &["rope_theta", "rope_scaling"]), "rope_parameters", nested);
    let new = Config::from_json(new).unwrap();
    assert_eq!(old.computation(), new.computation());
    assert_eq!(old.family, Family::Llama);
    assert_eq!((old.layers, old.heads, old.kv_heads, old.head_dim), (16, 32, 8, 64));
    assert_eq!(old.stop_tokens, [128001, 128008, 128009]);
    assert_eq!(old.rope.theta, 5e5);
    let scaling = Scaling::Llama3(Llama3Scaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    });
    assert_eq!(old.rope.scaling, Some(scaling));

    let old = Config::from_json(qwen3()).unwrap();
    let nested = json!({"rope_theta": 1000000, "rope_type": "default"});
    let new = with(without(qwen3(), &["rope_theta", "rope_scaling"]), "rope_parameters", nested);
    let new = with(new, "layer_types", json!(vec!["full_attention"; 28]));
    assert_eq!(old.computation(), Config::from_json(new).unwrap().computation());
    assert_eq!((old.head_dim, old.rope.theta, old.tied), (128, 1e6, true));
    assert_eq!(old.context, 40960);
}

#[test]
fn gemma_is_read_in_every_layout() {
    let old = Config::from_json(gemma3()).unwrap();
    assert_eq!((old.family, old.tied, old.context), (Family::Gemma3, true, 32768));
    assert_eq!((old.rope.theta, old.query_scalar, old.logit_cap), (1e6, 256.0, None));
    let local = old.local.clone().unwrap();
    assert_eq!((local.window, local.rope.theta), (512, 1e4));
    let global: Vec<usize> = (0..26).filter(|&i| !local.layers[i]).collect();
    assert_eq!(global, [5, 11, 17, 23]);

    let types: Vec<&str> =
        (1..=26).map(|i| if i % 6 == 0 { "full_attention" } else { "sliding_attention" }).collect();
    let both = json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                      "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}});
    let gone = [
        "rope_theta",
        "rope_local_base_freq",
        "rope_scaling",
        "sliding_window_pattern",
        "cache_implementation",
    ];
    let new = with(without(gemma3(), &gone), "layer_types", json!(types));
    let new = with(with(new, "rope_parameters", both), "_sliding_window_pattern", json!(6));
    assert_eq!(old.computation(), Config::from_json(new.clone()).unwrap().computation());
    // in every layout the defaults are those of transformers' configuration
    let defaults =
        ["rope_parameters", "query_pre_attn_scalar", "head_dim", "rms_norm_eps", "_sliding_window_pattern"];
    assert_eq!(old.computation(), Config::from_json(without(new, &defaults)).unwrap().computation());
    let capped = Config::from_json(with(gemma3(), "final_logit_softcapping", json!(30.0))).unwrap();
    assert_eq!(capped.logit_cap, Some(30.0));
    assert_ne!(capped.computation(), old.computation());

    let nested = Config::from_json(gemma3_nested()).unwrap();
    assert_eq!((nested.vocab, nested.heads, nested.kv_heads, nested.head_dim), (262_208, 32, 16, 128));
    assert_eq!((nested.query_scalar, nested.context, nested.tied), (168.0, 131_072, true));
    assert_eq!((nested.rope.theta, nested.rope.scaling), (1e6, Some(Scaling::Linear(8.0))));
    let local = nested.local.unwrap();
    assert_eq!((local.window, local.rope.theta, local.rope.scaling), (1024, 1e4, None));
    assert_eq!(nested.stop_tokens, [1, 106]);
    // what is written on saving is a text model
    assert_eq!(nested.json["model_type"], "gemma3_text");
    assert_eq!(nested.json["architectures"], json!(["Gemma3ForCausalLM"]));
    assert_eq!(nested.json["vocab_size"], 262_208);
}

#[test]
fn what_gemma_does_not_compute_is_refused_by_name() {
    let inner = |key: &str, value: Value| {
        let mut json = gemma3_nested();
        json["text_config"][key] = value;
        json
    };
    let rope = |kind: &str| json!({"full_attention": {"rope_type": kind, "factor": 2.0}});
    for (name, json) in [
        ("hidden_activation", with(gemma3(), "hidden_activation", json!("silu"))),
        ("use_bidirectional_attention", with(gemma3(), "use_bidirectional_attention", json!(true))),
        ("attention_bias", with(gemma3(), "attention_bias", json!(true))),
        ("layer_types", with(gemma3(), "layer_types", json!(["full_attention"]))),
        ("chunked_attention", with(gemma3(), "layer_types", json!(vec!["chunked_attention"; 26]))),
        ("layer_types", with(gemma3(), "layer_types", json!("full_attention"))),
        ("sliding_window", with(gemma3(), "sliding_window", Value::Null)),
        ("sliding_window_pattern", with(gemma3(), "sliding_window_pattern", json!(0))),
        ("final_logit_softcapping", with(gemma3(), "final_logit_softcapping", json!(-1))),
        ("hidden_size", without(gemma3(), &["hidden_size"])),
        ("rope_parameters.full_attention.rope_type", with(gemma3(), "rope_parameters", rope("yarn"))),
        ("rope_parameters.rope_theta", with(gemma3(), "rope_parameters", json!({"rope_theta": 1e4}))),
        ("architectures", with(gemma3(), "architectures", json!(["Gemma3ForSequenceClassification"]))),
        ("text_config", without(gemma3_nested(), &["text_config"])),
        ("vision_confg", with(gemma3_nested(), "vision_confg", json!({}))),
        ("quantization_config", with(gemma3_nested(), "quantization_config", json!({"bits": 4}))),
        ("num_hidden_layers", inner("num_hidden_layers", json!("62"))),
        ("sliding_windw", inner("sliding_windw", json!(3))),
    ] {
        let message = refusal(json);
        assert!(message.contains(&format!("`{name}`")), "{name}: {message}");
        assert!(message.contains("help: "), "{name}: {message}");
    }
}

#[test]
fn absent_keys_are_as_in_transformers() {
    let optional = [
        "head_dim",
        "num_key_value_heads",
        "rms_norm_eps",
        "tie_word_embeddings",
        "eos_token_id",
        "max_position_embeddings",
        "rope_theta",
        "rope_scaling",
        "attention_bias",
        "hidden_act",
    ];
    let llama = Config::from_json(without(llama(), &optional)).unwrap();
    assert_eq!((llama.kv_heads, llama.head_dim, llama.context), (32, 64, 2048));
    assert_eq!((llama.norm_eps, llama.rope.theta, llama.tied), (1e-6, 1e4, false));
    assert!(llama.stop_tokens.is_empty());
    let wide = with(without(qwen3(), &optional), "num_attention_heads", json!(64));
    let qwen3 = Config::from_json(wide.clone()).unwrap();
    assert_eq!((qwen3.kv_heads, qwen3.head_dim, qwen3.context), (32, 128, 32768));
    let null = Config::from_json(with(wide, "num_key_value_heads", Value::Null)).unwrap();
    assert_eq!(null.kv_heads, 64);
}

#[test]
fn what_changes_the_computation_is_refused_by_name() {
    let rope = |kind: &str| json!({"rope_type": kind, "factor": 2.0});
    let cases = [
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("pretraining_tp", json!(2)),
        ("rope_interleaved", json!(true)),
        ("hidden_act", json!("gelu")),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"bits": 4})),
        ("auto_map", json!({"AutoModel": "modeling.py"})),
        ("architectures", json!(["LlamaForSequenceClassification"])),
        ("final_logit_softcapping", json!(30.0)),
        ("rope_scaling.rope_type", rope("yarn")),
        ("rope_scaling.rope_type", rope("dynamic")),
        ("rope_scaling.mscale", json!({"rope_type": "default", "mscale": 0.7})),
        ("rope_scaling.low_freq_factor", json!({"rope_type": "llama3", "factor": 8, "high_freq_factor": 4})),
        ("rope_parameters", json!({"rope_type": "default"})),
        ("hidden_size", json!("2048")),
        ("num_key_value_heads", json!(5)),
        ("rms_norm_eps", json!(-1e-5)),
        ("tie_word_embeddings", json!("yes")),
        ("head_dim", json!(63)),
        ("eos_token_id", json!("</s>")),
        ("rope_theta", json!(0)),
    ];
    for (name, value) in cases {
        let message = refusal(with(llama(), name.split('.').next().unwrap(), value.clone()));
        assert!(message.contains(&format!("`{name}`")), "{name}: {message}");
        assert!(message.contains("help: "), "{name}: {message}");
        // null is how transformers writes a feature that is off
        let off = with(llama(), name.split('.').next().unwrap(), Value::Null);
        if !["hidden_size"].contains(&name) {
            Config::from_json(off).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
    for (name, value) in [
        ("use_sliding_window", json!(true)),
        ("layer_types", json!([vec!["full_attention"; 27], vec!["sliding_attention"]].concat())),
        ("mlp_bias", json!(false)),
    ] {
        assert!(refusal(with(qwen3(), name, value)).contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_problem_is_named_at_once() {
    let json = without(llama(), &["hidden_size", "vocab_size"]);
    let message = refusal(with(with(json, "rope_tehta", json!(1e4)), "mlp_bias", json!(true)));
    for part in [
        "`hidden_size` is missing",
        "`vocab_size` is missing",
        "`mlp_bias` is `true`",
        "did you mean `rope_theta`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn unknown_families_are_refused_with_the_known_ones() {
    let message = refusal(with(llama(), "model_type", json!("mixtral")));
    assert!(
        message.contains("`mixtral`") && message.contains("`llama`, `qwen3`, `gemma3_text`"),
        "{message}"
    );
    assert!(refusal(without(llama(), &["model_type"])).contains("`model_type` is missing"));
    assert!(refusal(json!([1])).contains("expected a JSON object"));
}

#[test]
fn a_folder_without_a_readable_config_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Config::read(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("config.json"), "{missing}");
    std::fs::write(dir.path().join("config.json"), "{\n \"model_type\": \"llama\",\n oops}").unwrap();
    let broken = Config::read(dir.path()).unwrap_err().to_string();
    assert!(broken.contains("config.json:3"), "{broken}");
}
