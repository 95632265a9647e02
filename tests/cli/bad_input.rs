//! Broken data, models, arguments and folders: one clear error, the right exit code, nothing begun or nothing lost.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::common::program::Program;

/// The main job with few steps on few rows; more arguments follow.
const JOB: &str = "script scripts/raco_clip.rhai --evaluate 1 --steps 3 --batch 2 --out runs/a";
const TENSOR: &str = "model.layers.1.mlp.up_proj.weight";

pub fn job(more: &str) -> String {
    // an argument that is given anew takes the place of the short one
    let mut words: Vec<&str> = JOB.split(' ').collect();
    let given = more.split(' ').filter(|word| word.starts_with("--"));
    for key in given.filter_map(|word| word.split('=').next()) {
        if let Some(at) = words.iter().position(|word| *word == key) {
            words.drain(at..at + 2);
        }
    }
    format!("{} {more}", words.join(" "))
}

fn nothing_begun(program: &Program) {
    assert!(!program.path("runs").exists(), "a run was begun");
}

#[test]
fn rows() {
    let program = Program::new();
    let good: Vec<String> =
        program.read("data/summaries/train.jsonl").lines().take(3).map(str::to_owned).collect();
    let row = |prompt: &str, chosen: &str, labels: &str| {
        format!(r#"{{"prompt":"{prompt}","chosen":"{chosen}","rejected":"Eva .","objectives":{{{labels}}}}}"#)
    };
    let labels = r#""quality":1,"brevity":-1"#;
    let long = "Eva showed two pink pens . ".repeat(100);
    let unlabelled = r#""quality":1,"brevity":null"#;
    let cases = [
        ("malformed", r#"{"prompt": "sum up", "#.to_owned(), "bad.jsonl:4:21: malformed JSON"),
        ("no object", "[1, 2]".into(), "bad.jsonl:4: a row must be a JSON object"),
        (
            "label",
            row("sum up : Eva .", "Eva .", r#""quality":1,"brevity":2"#),
            "bad.jsonl:4: label `brevity` must be -1, 0, 1",
        ),
        (
            "label text",
            row("sum up : Eva .", "Eva .", r#""quality":"good","brevity":1"#),
            "bad.jsonl:4: label `quality`",
        ),
        (
            "label half",
            row("sum up : Eva .", "Eva .", r#""quality":0.5,"brevity":1"#),
            "bad.jsonl:4: label `quality`",
        ),
        ("empty", row("sum up : Eva .", "", labels), "bad.jsonl:4: `chosen` is empty"),
        ("blank", row("sum up : Eva .", "  ", labels), "bad.jsonl:4: "),
        ("long", row(&long, "Eva .", labels), "bad.jsonl:4: prompt and response make 6"),
        (
            "word",
            row("sum up : zebras .", "Eva .", labels),
            "bad.jsonl:4: the vocabulary has no word `zebras`",
        ),
        ("key", row("sum up : Eva .", "Eva .", labels).replace("rejected", "rejcted"), "bad.jsonl:4: "),
    ];
    for (name, bad, expected) in &cases {
        program.write("bad.jsonl", format!("{}\n{bad}\n", good.join("\n")));
        let outcome = program.run(&job("--pairs bad.jsonl"));
        outcome.fails(1, &[expected, "scripts/raco_clip.rhai:19:17"]);
        assert!(!outcome.err.contains(&long), "{name}: the whole row is told");
    }
    // all broken rows at once, the first ten by line
    let many = vec![cases[2].1.clone(); 12].join("\n");
    program.write("bad.jsonl", format!("{}\n{many}\n", good.join("\n")));
    program
        .run(&job("--pairs bad.jsonl"))
        .fails(1, &["12 of 15 rows are unusable", "line 13: label `brevity`"]);

    program.write("bad.jsonl", row("sum up : Eva .", "Eva sold .", unlabelled));
    program
        .run(&job("--pairs bad.jsonl"))
        .fails(1, &["bad.jsonl: objective `brevity` is labelled by no row"]);
    program.write("bad.jsonl", "\n\n");
    program.run(&job("--pairs bad.jsonl")).fails(1, &["bad.jsonl"]);
    program.write("bad.jsonl", [0x7b, 0xff, 0xfe, 0x0a]);
    program.run(&job("--pairs bad.jsonl")).fails(1, &["bad.jsonl:1"]);
    program.run(&job("--pairs nowhere.jsonl")).fails(1, &["nowhere.jsonl: cannot read the rows"]);
    program.run(&job("--pairs data")).fails(1, &["data"]);
    nothing_begun(&program);
}

#[test]
fn weights_and_numbers() {
    let program = Program::new();
    for (more, code, expected) in [
        ("--weights quality=-0.5,brevity=1.5", 1, "weight of `quality` must not be negative, found `-0.5`"),
        ("--weights quality=nan,brevity=1", 2, "`--weights` expects `name=number` pairs"),
        ("--weights quality=inf,brevity=1", 2, "`--weights` expects `name=number` pairs"),
        ("--weights quality=0,brevity=0", 1, "weights of `brevity`, `quality` are all zero"),
        ("--weights quality=0.5,brevity=0.1", 1, "weights must sum to 1, found `0.6"),
        ("--weights quality=0.5,brevty=0.5", 1, "no row has an objective `brevty`"),
        ("--weights quality=0.5,quality=0.5", 2, "`--weights` expects"),
        ("--weights quality", 2, "`--weights` expects `name=number` pairs"),
        ("--lr -1", 1, "`lr` must be a positive number, found `-1`"),
        ("--lr nan", 2, "`--lr` expects a number, found `nan`"),
        ("--beta inf", 2, "`--beta` expects a number, found `inf`"),
        ("--steps two", 2, "`--steps` expects a whole number, found `two`"),
        ("--steps -3", 1, "option `steps` of `adamw` is `-3`"),
        ("--steps", 2, "`--steps` expects a whole number, found nothing"),
        ("--agregator linear", 2, "did you mean `--aggregator`?"),
        ("--aggregator cagard", 1, "did you mean `cagrad`?"),
        ("stray", 2, "`stray` stands where a `--key` is expected"),
        ("--resume runs/none", 1, "there is no run to resume"),
        ("--lib nowhere", 2, "`--lib nowhere` is not a folder"),
    ] {
        program.run(&job(more)).fails(code, &[expected]);
        nothing_begun(&program);
    }
    // found when they are first used
    for (more, expected) in [
        ("--c 1", "`c` must be in [0, 1), found `1"),
        ("--c -0.1", "`c` must be in [0, 1), found `-0.1`"),
        ("--batch 0", "the batch size must be at least 1"),
        ("--steps 0", "the number of steps must be at least 1"),
        ("--batch 5000", "a batch of 5000 examples"),
    ] {
        program.run(&job(more)).fails(1, &[expected]);
    }
}

/// Copies the embedded model with one change to each tensor's type, shape and bytes; `None` leaves it out.
fn broken_model(
    program: &Program,
    change: impl Fn(&str, &mut Vec<usize>, &mut Dtype, &mut Vec<u8>) -> Option<()>,
) {
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        program.copy(&format!("data/model/{file}"), &format!("broken/{file}"));
    }
    let bytes = std::fs::read(program.path("data/model/model.safetensors")).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let (mut shape, mut dtype, mut data) = (view.shape().to_vec(), view.dtype(), view.data().to_vec());
        if change(&name, &mut shape, &mut dtype, &mut data).is_some() {
            tensors.push((name, shape, dtype, data));
        }
    }
    let views = tensors.iter().map(|(n, s, t, d)| (n.clone(), TensorView::new(*t, s.clone(), d).unwrap()));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(views, Some(metadata), &program.path("broken/model.safetensors")).unwrap();
}

#[test]
fn models() {
    let program = Program::new();
    let fails = |expected: &[&str]| {
        let outcome = program.run(&job("--model broken"));
        outcome.fails(1, expected);
        assert!(outcome.err.contains("broken"), "{}", outcome.all());
    };
    broken_model(&program, |name, _, _, _| (name != TENSOR).then_some(()));
    fails(&[TENSOR, "[192, 96] is missing"]);
    broken_model(&program, |name, shape, _, _| {
        if name == TENSOR {
            shape.reverse();
        }
        Some(())
    });
    fails(&[TENSOR, "is [96, 192] in `model.safetensors`, expected [192, 96]"]);
    broken_model(&program, |name, _, _, data| {
        if name == TENSOR {
            data[10..12].copy_from_slice(&0x7fc0u16.to_le_bytes());
        }
        Some(())
    });
    fails(&[TENSOR, "not finite, the first is `NaN` at 5"]);
    broken_model(&program, |name, _, dtype, _| {
        if name == TENSOR {
            *dtype = Dtype::I16;
        }
        Some(())
    });
    fails(&[TENSOR, "expected F32, F16 or BF16"]);

    broken_model(&program, |_, _, _, _| Some(()));
    let weights = std::fs::read(program.path("broken/model.safetensors")).unwrap();
    program.write("broken/model.safetensors", &weights[..weights.len() / 2]);
    fails(&["model.safetensors: broken or truncated"]);
    program.write("broken/model.safetensors", "");
    fails(&["model.safetensors"]);
    program.write("broken/model.safetensors", &weights);

    let tokenizer = program.read("broken/tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    json["model"]["vocab"]["zebra"] = 325.into();
    program.write("broken/tokenizer.json", json.to_string());
    fails(&["the tokenizer does not fit the model: token ids up to `325`, but the model has 225"]);
    program.write("broken/tokenizer.json", "{");
    fails(&["tokenizer.json: cannot read the tokenizer"]);
    program.write("broken/tokenizer.json", tokenizer);

    let config = program.read("broken/config.json");
    program.write(
        "broken/config.json",
        config.replace("\"head_dim\"", "\"use_sliding_window\": true, \"head_dim\""),
    );
    fails(&["config.json: `use_sliding_window` is `true`"]);
    program.write("broken/config.json", config.replace("qwen3", "mamba"));
    fails(&["config.json", "mamba"]);
    program.write("broken/config.json", "{}");
    fails(&["config.json"]);
    program.run(&job("--model nowhere")).fails(1, &["nowhere: there is no such model folder"]);
    nothing_begun(&program);
}

#[test]
fn models_that_do_not_fit_into_memory() {
    let program = Program::new();
    program.write(
        "fit.rhai",
        r#"
        let held = estimate("data/model", #{ objectives: 200 }).memory;
        print(held.weights < 3000000 && held.gradients > 200000000 && held.available < 200 * 1048576);
        load_model("data/model", #{ dtype: "bf16" });
        load_model("data/model", #{ objectives: 200 });
        "#,
    );
    let mut command = program.command("script fit.rhai");
    command.env("RACO_MEMORY_MIB", "200");
    let outcome = program.start(command).wait();
    outcome.fails(
        1,
        &["data/model: the weights take", "gradients of the objectives", "fit.rhai:5", "train an adapter"],
    );
    assert!(outcome.out.contains("true"), "{}", outcome.all());
    program.write("kind.rhai", r#"load_model("data/model", #{ dtype: "int8" });"#);
    program.run("script kind.rhai").fails(1, &["int8", "bf16"]);
    program.write("train.rhai", r#"adamw(load_model("data/model", #{ dtype: "bf16" }), #{ lr: 1e-3 });"#);
    program.run("script train.rhai").fails(1, &["the weights are kept as bf16", "train.rhai:1"]);
}

#[test]
fn run_folders_that_cannot_be_written() {
    let program = Program::new();
    program.write("taken", "mine");
    program.run(&job("--out taken")).fails(1, &["taken: cannot make the run folder: a file is in the way"]);
    program.run(&job("--out taken/a")).fails(1, &["a file is in the way"]);
    assert_eq!(program.read("taken"), "mine");
    program.run(&job("--out=")).fails(2, &["`out`, the folder of the run, is empty"]);
    program.run(&job("--out .")).fails(1, &["`.` does not name a folder"]);
    if Path::new("/proc/self").exists() {
        program.run(&job("--out /proc/raco")).fails(1, &["/proc/raco: cannot make the run folder"]);
    }
    // a folder in use is left alone
    program.write("runs/a/mine.txt", "mine");
    let outcome = program.run(&job(""));
    assert!(outcome.success().out.contains("this run goes to `runs/a-2`"), "{}", outcome.all());
    assert_eq!(program.read("runs/a/mine.txt"), "mine");
}

#[test]
fn a_full_disk() {
    let program = Program::new();
    let disk = program.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |size: &str| {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&disk);
        mount.output().is_ok_and(|done| done.status.success())
    };
    if !mount("size=6m") {
        eprintln!("skipped: a small disk can be mounted by root only");
        return;
    }
    // room for one checkpoint, not for two
    let words = job("--steps 30 --out disk/a");
    let outcome = program.run(&words);
    let rows = std::fs::read_to_string(disk.join("a/log.jsonl"));
    let grown = mount("remount,size=40m");
    let resumed = program.run("script scripts/raco_clip.rhai --resume disk/a");
    let steps = std::fs::read_to_string(disk.join("a/log.jsonl")).map(|log| log.lines().count());
    assert!(std::process::Command::new("umount").arg(&disk).status().unwrap().success());

    outcome.fails(1, &["disk/a/checkpoints", "No space left on device", "free some space"]);
    assert!(rows.unwrap().lines().count() >= 10);
    assert!(grown);
    assert!(resumed.success().out.contains("resumed after step 10"), "{}", resumed.all());
    assert_eq!(steps.unwrap(), 30);
}
