//! The hub as the program uses it: by the environment.

use std::collections::BTreeMap;

use crate::common::hub::{Hub, Manner, model_files};
use crate::common::program::{Outcome, Program};

const SECRET: &str = "hf_secretSECRETsecret";
const SCRIPT: &str = r#"
    let policy = load_model("hf:tiny/model");
    let pairs = load_preferences("hf:datasets/tiny/pairs@v1/train.jsonl", policy);
    print(`${policy}, ${pairs.size} rows, ${load_tokenizer("hf:tiny/model").vocab} tokens`);
"#;

#[test]
fn settings_come_from_the_environment() {
    let program = Program::new();
    let rows = program.read("data/summaries/train.jsonl");
    let data = BTreeMap::from([("train.jsonl".to_owned(), rows.into_bytes())]);
    let token = Some(SECRET.to_owned());
    let hub = Hub::new(Manner { files: model_files(), data, token, ..Manner::default() });
    program.write("fetch.rhai", SCRIPT);
    let run = |settings: &[(&str, &str)]| -> Outcome {
        let mut command = program.command("script fetch.rhai");
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", program.path("hf")).env("HF_ENDPOINT", format!("{}/", hub.endpoint));
        command.envs(settings.iter().copied());
        program.start(command).wait()
    };
    run(&[]).fails(1, &["hf:tiny/model", "HTTP 401", "set HF_TOKEN", "fetch.rhai:2:18"]);
    run(&[("HF_HUB_OFFLINE", "1")]).fails(1, &["is not in the cache", "unset HF_HUB_OFFLINE"]);
    let outcome = run(&[("HF_TOKEN", SECRET)]);
    assert!(outcome.success().out.contains("Model(qwen3"), "{}", outcome.all());
    assert!(outcome.err.contains("model.safetensors"), "{}", outcome.all());
    let first = outcome.out.clone();
    // the token of a login
    program.write("hf/token", format!("{SECRET}\n"));
    assert_eq!(run(&[]).success().out, first);
    assert_eq!(
        run(&[("HF_HUB_OFFLINE", "true"), ("HF_ENDPOINT", "http://127.0.0.1:1")]).success().out,
        first
    );
    assert!(!outcome.all().contains(SECRET));
    assert!(hub.seen().iter().any(|request| request.authorization.is_some()));
}
