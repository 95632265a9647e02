//! An adapter trained by a script: its run stops and resumes, its files are small, what it saves is loaded again.

use crate::common::program::Program;

const SCRIPT: &str = r#"
import "losses/dpo" as dpo;
let args = args(#{ out: "runs/a", steps: 6, stop: 0 });
let policy = load_model("data/model").lora(#{ rank: 4, targets: ["q_proj", "v_proj"], seed: 3 });
let reference = policy.frozen();
let pairs = load_preferences("data/summaries/train.jsonl", policy, #{ objectives: ["quality", "brevity"], reference: reference }).take(40);
let optimizer = adamw(policy, #{ lr: 5e-3 });
let method = aggregator("cagrad_clip");
let run = start_run(args, [policy, optimizer, method]);
for batch in run.steps(pairs.batches(#{ size: 4, steps: args.steps, seed: 0 })) {
    let gradients = jacobian(dpo::losses(policy.log_probs(batch), batch, #{ beta: 0.2 }));
    let update = method.update(gradients, #{ quality: 0.5, brevity: 0.5 });
    optimizer.step(update.direction);
    run.log(gradients, update);
    if batch.index + 1 == args.stop { break; }
}
if run.step >= args.steps {
    print(policy);
    print(`trained ${policy.parameters} in ${policy.tensors.len()}, the first ${policy.tensors[0]}`);
    print(`adapter ${policy.adapter.rank} ${policy.adapter.targets} of ${policy.adapter.modules}`);
    print(`reference is the base: ${reference.fingerprint() == load_model("data/model").fingerprint()}`);
    let texts = policy.generate(pairs.prompts.extract(0, 3), #{ max_tokens: 12 });
    policy.save(run.path("adapter"));
    policy.merged().save(run.path("merged"));
    let again = load_model("data/model", #{ adapter: run.path("adapter") });
    let merged = load_model(run.path("merged"));
    for model in [again, merged] {
        print(`same texts: ${model.generate(pairs.prompts.extract(0, 3), #{ max_tokens: 12 }) == texts}`);
    }
    print(`same adapter: ${again.fingerprint() == policy.fingerprint()}`);
}
"#;

#[test]
fn a_stopped_run_resumes_to_the_same_bytes_and_its_adapter_is_loaded_again() {
    let program = Program::new();
    program.write("lora.rhai", SCRIPT);
    let whole = program.run("script lora.rhai");
    let out = &whole.success().out;
    for line in [
        "0.30 M parameters frozen, 4608 trained: rank 4 on 6 modules",
        "trained 4608 in 12, the first model.layers.0.self_attn.q_proj.lora_A.weight",
        "adapter 4 [\"q_proj\", \"v_proj\"] of 6",
        "reference is the base: true",
        "same adapter: true",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert_eq!(out.matches("same texts: true").count(), 2, "{out}");

    program.run("script lora.rhai --out runs/b --stop 3").success();
    assert!(!program.path("runs/b/checkpoints/step-6").exists());
    program.run("script lora.rhai --resume runs/b").success();
    for file in
        ["checkpoints/step-6/model/weights.safetensors", "checkpoints/step-6/optimizer/state.safetensors"]
            .into_iter()
            .chain(["adapter/adapter_model.safetensors", "adapter/adapter_config.json"])
    {
        let [a, b] =
            ["a", "b"].map(|run| std::fs::read(program.path(&format!("runs/{run}/{file}"))).unwrap());
        assert!(a == b, "{file} differs");
        assert!(a.len() < 60_000, "{file} is as large as a model");
    }
}

#[test]
fn adapters_that_are_wrong_are_refused() {
    let program = Program::new();
    for (line, expected) in [
        (r#"load_model("data/model").lora(#{ targets: ["q_porj"] })"#, "named `q_porj`"),
        (r#"load_model("data/model").lora(#{ targets: 3 })"#, "`targets` is `3`"),
        (r#"load_model("data/model").lora(#{ ranks: 3 })"#, "did you mean `rank`?"),
        (r#"load_model("data/model").lora().lora()"#, "the model has an adapter already"),
        (r#"load_model("data/model", #{ adapter: "nowhere" })"#, "nowhere: there is no such folder"),
        (r#"load_model("data/model", #{ adapter: "data/model" })"#, "found no `adapter_config.json`"),
        (r#"load_model("data/model", #{ adaptor: "a" })"#, "did you mean `adapter`?"),
    ] {
        program.write("wrong.rhai", line);
        program.run("script wrong.rhai").fails(1, &[expected, "wrong.rhai:1:"]);
    }
}
