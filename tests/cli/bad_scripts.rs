//! Scripts that are wrong, eat memory, make numbers that are not finite, never end or write elsewhere: one clear
//! error, and the steps done are kept.

use std::path::Path;

use safetensors::SafeTensors;

use super::bad_input::job;
use crate::common::program::Program;

const JACOBIAN: &str =
    "jacobian(dpo::losses(policy.log_probs(batch, #{ memory: args.memory }), batch, #{ beta: args.beta }))";

/// The main job with parts of its text replaced.
fn edited(program: &Program, name: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = program.read("scripts/raco_clip.rhai");
    for (old, new) in replacements {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    program.write(&format!("scripts/{name}.rhai"), text);
    job("").replace("raco_clip", name).replace("runs/a", &format!("runs/{name}"))
}

#[test]
fn scripts() {
    let program = Program::new();
    let nested = format!("let x = {}1{};\n", "(".repeat(3000), ")".repeat(3000));
    let cases = [
        (
            "let policy = load_model(\"data/model\");\npolicy.generat([\"a\"]);\n",
            "a.rhai:2:8",
            "did you mean `generate(",
        ),
        ("let margin = 1.0;\nprint(margn);\n", "a.rhai:2:7", "did you mean `margin`?"),
        ("for i in 0..3 {\n    print(i;\n}\n", "a.rhai:2:12", "expecting ','"),
        ("import \"losses/dop\" as dpo;\n", "a.rhai:1:8", "did you mean `losses/dpo`?"),
        ("fn down(n) { down(n + 1) }\ndown(0);\n", "a.rhai:2:1", "more than 64 levels deep"),
        ("let a = [1.5];\nloop { a += a; }\n", "a.rhai:2:", "past the limit of a script"),
        ("let s = \"x\";\nloop { s += s; }\n", "a.rhai:2:", "past the limit of a script"),
        ("let a = [];\nloop { a = [a, a, a, a]; }\n", "a.rhai:2:", "past the limit of a script"),
        ("let s = \"\";\ns.pad(100000000000, \"x\");\n", "a.rhai:2:", "past the limit of a script"),
        ("rng(1).permutation(100000000000);\n", "a.rhai:1:", "past the limit of a script"),
        ("read_text(\"/dev/zero\");\n", "a.rhai:1:1", "more than 256 MiB"),
        (
            "write_text(\"/tmp/raco-elsewhere\", \"x\");\n",
            "a.rhai:1:1",
            "may not write `/tmp/raco-elsewhere`",
        ),
        (
            "adamw(load_model(\"data/model\"), #{ lr: 1e-3, betaz: 1 });\n",
            "a.rhai:1:1",
            "unknown option `betaz` of `adamw`",
        ),
        ("throw \"enough\";\n", "a.rhai:1:1", "enough"),
        (nested.as_str(), "a.rhai:1:", "nested too deeply"),
    ];
    for (text, place, expected) in cases {
        program.write("a.rhai", text);
        let mut command = program.command("script a.rhai");
        if text.starts_with("throw") {
            // an error of the script's own has no help
            let outcome = program.start(command).wait();
            assert!(
                outcome.code == Some(1) && outcome.err.starts_with("error: enough\n --> a.rhai:1:1"),
                "{}",
                outcome.all()
            );
            continue;
        }
        command.env("RUST_BACKTRACE", "1");
        let outcome = program.start(command).wait();
        outcome.fails(1, &[place, expected]);
        assert!(outcome.err.contains('^'), "{}", outcome.all());
    }
    assert!(!Path::new("/tmp/raco-elsewhere").exists());
    program.run("script nowhere.rhai").fails(1, &["nowhere.rhai: cannot read the script"]);
}

#[test]
fn memory_in_host_values() {
    let program = Program::new();
    program.write(
        "a.rhai",
        "let t = tensor(filled(100000, 1.0));\nlet all = [];\nloop { all.push(t + 1.0); }\n",
    );
    let mut command = program.command("script a.rhai");
    command.env("RACO_MEMORY_MIB", "200");
    let outcome = program.start(command).wait();
    if Path::new("/proc/self/status").exists() {
        outcome.fails(1, &["the script holds more than memory allows", "a.rhai:3:"]);
    }
}

#[test]
fn numbers_that_are_not_finite_stop_before_the_step() {
    let program = Program::new();
    let loss = |body: &str| format!("fn bad(l, b) {{ #{{ {body}, brevity: l.margin.mean() }} }}\nlet run =");
    let cases = [
        ("loss", r#"quality: b.mean("quality", (l.margin * 0.0).log())"#, "loss of `quality` is `-inf`"),
        (
            "slope",
            "quality: (l.margin * 0.0).sqrt().sum()",
            "the derivative of the loss of `quality` by log-prob 0 is `NaN`",
        ),
        ("huge", "quality: l.margin.sum() * 1e30", "the squared norm of the gradient of `quality` overflows"),
    ];
    for (name, body, expected) in cases {
        let job = edited(
            &program,
            name,
            &[("let run =", &loss(body)), (JACOBIAN, "jacobian(bad(policy.log_probs(batch), batch))")],
        );
        program.run(&job).fails(1, &[expected, &format!("scripts/{name}.rhai:")]);
        assert!(program.path(&format!("runs/{name}/run.json")).exists());
    }
    assert!(program.run(&job("").replace("raco_clip", "huge")).err.contains("tensor `model."));

    // alpha: of a file, of the script's own, and one that overflows
    program.write("scripts/nan.rhai", "fn weights(h, w, options) {\n    #{ alpha: [0.0 / 0.0, 1.0] }\n}\n");
    program.run(&job("--aggregator nan")).fails(1, &["row weight of `brevity` is `NaN`"]);
    program.write("scripts/few.rhai", "fn weights(h, w, options) {\n    #{ alpha: [1.0] }\n}\n");
    program.run(&job("--aggregator few")).fails(1, &["1 row weights for 2 objectives"]);
    program.write("scripts/cut.rhai", "fn weights(h, w, options) {\n    let alpha = \n}\n");
    program.run(&job("--aggregator cut")).fails(1, &["scripts/cut.rhai:3:1"]);
    program.write("scripts/not.rhai", "fn wights(h, w, options) {\n    w\n}\n");
    program
        .run(&job("--aggregator not"))
        .fails(1, &["scripts/not.rhai: the file defines neither `weights` nor"]);
    program.write("scripts/deep.rhai", "fn weights(h, w, options) {\n    h.rowz\n}\n");
    program
        .run(&job("--aggregator deep"))
        .fails(1, &["scripts/deep.rhai:2:7", "Matrix has no property `rowz`"]);
    let job_of = |alpha: &str| {
        edited(
            &program,
            "alpha",
            &[("optimizer.step(update.direction)", &format!("optimizer.step(gradients.combine({alpha}))"))],
        )
    };
    program.run(&job_of("[0.0 / 0.0, 1.0]")).fails(1, &["row weight of `brevity` is `NaN`"]);
    program
        .run(&job_of("[1e300, 1.0]"))
        .fails(1, &["tensor `model.embed_tokens.weight`: the update is not finite"]);
}

/// The weights of the newest checkpoint are finite, and its step is told.
fn newest_is_whole(program: &Program, run: &str, step: usize) {
    let path = program.path(&format!("{run}/checkpoints/step-{step}/model/weights.safetensors"));
    let bytes = std::fs::read(path).unwrap();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        assert!(view.data().chunks(4).map(value).all(f32::is_finite), "{name}");
    }
}

#[test]
fn an_exploding_learning_rate() {
    let program = Program::new();
    // finite weights whose squares overflow: stopped at the next step, or in the generations after the last one
    let outcome = program.run(&job("--steps 20 --lr 1e30"));
    outcome.fails(1, &["log-prob of token", "not finite", "scripts/raco_clip.rhai:28:", "tensor `model."]);
    program.run(&job("--steps 2 --lr 1e30 --out runs/short")).fails(1, &["not finite"]);
    let outcome = program.run(&job("--steps 20 --lr 1e38 --out runs/b"));
    outcome.fails(1, &["tensor `model.", "the step may overflow", "learning rate `5e37`"]);
    // good steps, then a bad one: they are saved, and the run goes on where the script is mended
    let words =
        edited(&program, "late", &[("run.log(", "if run.step == 4 { throw \"enough\"; }\n    run.log(")]);
    let outcome = program.run(&words.replace("--steps 3", "--steps 12"));
    assert!(outcome.code == Some(1) && outcome.err.contains("enough"), "{}", outcome.all());
    assert_eq!(program.read("runs/late/log.jsonl").lines().count(), 4);
    let words = edited(
        &program,
        "early",
        &[("let gradients", "if run.step == 4 { throw \"enough\"; }\n    let gradients")],
    );
    let outcome = program.run(&words.replace("--steps 3", "--steps 12"));
    let told =
        "note: stopped after step 4 of 12: resume with `raco script scripts/early.rhai --resume runs/early`";
    assert!(outcome.code == Some(1) && outcome.out.contains(told), "{}", outcome.all());
    newest_is_whole(&program, "runs/early", 4);
    edited(&program, "early", &[]);
    let resumed = program.run("script scripts/early.rhai --resume runs/early");
    assert!(resumed.success().out.contains("resumed after step 4"), "{}", resumed.all());
    assert_eq!(program.read("runs/early/log.jsonl").lines().count(), 12);
    // a loop that the script itself leaves
    let words = edited(
        &program,
        "leave",
        &[("run.log(gradients, update);", "run.log(gradients, update);\n    if run.step == 4 { break; }")],
    );
    let outcome = program.run(&words.replace("--steps 3", "--steps 12"));
    assert!(outcome.success().out.contains("note: stopped after step 5 of 12"), "{}", outcome.all());
    newest_is_whole(&program, "runs/leave", 5);
}

#[test]
fn scripts_that_write_outside_their_run() {
    let program = Program::new();
    for (name, call) in [
        ("above", "write_text(run.dir + \"/../evil\", \"x\")"),
        ("beside", "write_text(\"evil\", \"x\")"),
        ("path", "write_text(run.path(\"../evil\"), \"x\")"),
        ("model", "policy.save(\"evil\")"),
        ("folder", "make_folder(\"evil\")"),
        ("json", "write_jsonl(\"evil\", [])"),
    ] {
        let words = edited(
            &program,
            name,
            &[("run.log(gradients, update);", &format!("run.log(gradients, update);\n    {call};"))],
        );
        program.run(&words).fails(1, &["evil", &format!("scripts/{name}.rhai:")]);
        // the step was complete
        newest_is_whole(&program, &format!("runs/{name}"), 1);
    }
    assert!(!program.path("evil").exists() && !program.path("runs/evil").exists());
    let words = edited(
        &program,
        "elsewhere",
        &[("run.log(gradients, update);", ""), ("runs/raco_clip", "/tmp/raco-elsewhere")],
    );
    program
        .run(&words.replace("--out runs/elsewhere", ""))
        .fails(1, &["a script may not write `/tmp/raco-elsewhere`"]);
}

#[test]
fn options_by_a_wrong_name() {
    let program = Program::new();
    for (name, old, new, expected) in [
        ("loss", "beta: args.beta }", "betta: args.beta }", "unknown option `betta`"),
        (
            "type",
            "beta: args.beta }",
            "beta: \"much\" }",
            "option `beta` is `much` (string), expected a float",
        ),
        ("adamw", "warmup: 0.1", "warmupp: 0.1", "unknown option `warmupp` of `adamw`"),
        ("batches", "size: args.batch", "sizes: args.batch", "unknown option `sizes` of `batches`"),
        (
            "pairs",
            "reference: policy",
            "referense: policy",
            "unknown option `referense` of `load_preferences`",
        ),
        ("key", "update.direction", "update.directoin", "the map has no key `directoin`"),
    ] {
        let words = edited(&program, name, &[(old, new)]);
        let outcome = program.run(&words);
        outcome.fails(1, &[expected, &format!("scripts/{name}.rhai:")]);
        assert_eq!(outcome.err.contains("did you mean"), expected.contains("unknown"), "{}", outcome.all());
    }
}

#[test]
fn an_endless_loop_within_a_step_is_stopped_by_one_ctrl_c() {
    let program = Program::new();
    let words = edited(
        &program,
        "endless",
        &[(
            "run.log(gradients, update);",
            "run.log(gradients, update);\n    if run.step == 2 { print(\"for ever\"); loop {} }",
        )],
    );
    let mut running = program.start(program.command(&words));
    running.until(|running| running.printed().contains("for ever"));
    running.interrupt();
    let outcome = running.wait();
    outcome.fails(130, &["stopped by Ctrl-C"]);
    assert!(outcome.out.contains("note: stopped after step 3 of 3: resume with"), "{}", outcome.all());
    newest_is_whole(&program, "runs/endless", 3);
}
