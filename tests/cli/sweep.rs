//! Sweeps by the program: processes, failures, Ctrl-C, kill, edits; nothing finished is lost or done twice.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::common::program::{Outcome, Program};

/// Each point waits for `nap` seconds.
const NAPS: &str = r#"
let args = args(#{ jobs: 1, out: "s", nap: 0.0, bad: -1 });
let points = sweep(#{ x: [0, 1, 2, 3, 4, 5], kind: "nap" }, |config| {
    sleep(args.nap);
    if config.x == args.bad { let none = []; return none[3]; }
    #{ twice: 2 * config.x }
}, #{ out: args.out, jobs: args.jobs });
for point in points { print(`${point.config.x} ${point.status} ${point.result}`); }
"#;

fn records(dir: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if let Ok(text) = std::fs::read_to_string(entry.path().join("point.json")) {
            found.insert(entry.file_name().into_string().unwrap(), serde_json::from_str(&text).unwrap());
        }
    }
    found
}

fn done(outcome: &Outcome) -> usize {
    outcome.success().out.lines().filter(|line| line.contains(" done #{")).count()
}

#[test]
fn a_failed_point_is_told_and_tried_again() {
    let program = Program::new();
    program.write("naps.rhai", NAPS);
    for jobs in [1, 3] {
        let line = format!("script naps.rhai --out s{jobs} --jobs {jobs}");
        let first = program.run(&format!("{line} --bad 2"));
        assert_eq!(done(&first), 5, "{}", first.all());
        assert!(first.out.contains("naps.rhai:5:58: array index 3 out of bounds"), "{}", first.all());
        assert!(first.out.contains("5 of 6 points are done, in s"), "{}", first.all());
        let before = records(&program.path(&format!("s{jobs}")));
        let second = program.run(&line);
        assert_eq!(done(&second), 6, "{}", second.all());
        let after = records(&program.path(&format!("s{jobs}")));
        for (name, record) in before {
            assert_eq!(record == after[&name], record["status"] == "done", "{name}");
        }
    }
}

#[test]
fn a_sweep_of_processes_goes_on_after_ctrl_c_and_after_a_kill() {
    let program = Program::new();
    program.write("naps.rhai", NAPS);
    let line = "script naps.rhai --jobs 2 --nap 0.3";
    let reached = |count: usize| {
        let dir = program.path("s");
        move |_: &_| dir.is_dir() && records(&dir).len() >= count
    };
    let mut running = program.start(program.command(line));
    running.until(reached(1));
    running.interrupt();
    running.wait().fails(130, &["of 6 points finished", "start the same command again"]);
    let stopped = records(&program.path("s"));
    assert!((1..6).contains(&stopped.len()), "{stopped:?}");

    let mut running = program.start(program.command(line));
    running.until(reached(stopped.len() + 1));
    running.kill();
    // the workers see that their parent is gone, and let go of their points
    let last = program.run(line);
    assert_eq!(done(&last) + last.out.matches(" open ").count(), 6, "{}", last.all());
    let whole = program.run(line);
    assert_eq!(done(&whole), 6, "{}", whole.all());
    let found = records(&program.path("s"));
    assert!(stopped.iter().all(|(name, record)| found[name] == *record));
}

/// Two runs of the embedded task by one aggregator of the user's.
const RUNS: &str = r#"
import "losses/dpo" as dpo;
import "half.rhai" as half;
let args = args(#{ jobs: 1, out: "s", steps: 8 });
let base  = load_model("data/model");
let pairs = load_preferences("data/summaries/train.jsonl", base, #{ objectives: ["quality", "brevity"], reference: base.frozen() });
sweep(#{ seed: [0, 1], steps: args.steps }, |config| {
    let policy = load_model("data/model");
    let optimizer = sgd(policy, #{ lr: 0.1 });
    let method = aggregator("half.rhai");
    let run = start_run(config, [policy, optimizer, method], #{ checkpoint_every: 2 });
    for batch in run.steps(pairs.batches(#{ size: 4, steps: config.steps, seed: config.seed })) {
        let gradients = jacobian(dpo::losses(policy.log_probs(batch), batch, #{ beta: 0.2 }));
        let update = method.update(gradients, #{ quality: 0.5, brevity: 0.5 });
        optimizer.step(update.direction);
        run.log(gradients, update);
    }
    run.rows().len()
}, #{ out: args.out, jobs: args.jobs });
"#;

/// The logs of all points, without time and memory.
fn logs(dir: &Path) -> BTreeMap<String, String> {
    let cut = |line: &str| line.split(",\"time_ms\"").next().unwrap().to_owned();
    let log = |name: String| {
        let text = std::fs::read_to_string(dir.join(&name).join("log.jsonl")).unwrap();
        (name, text.lines().map(cut).collect::<Vec<_>>().join("\n"))
    };
    records(dir).into_keys().filter(|name| !name.contains(".old-")).map(log).collect()
}

#[test]
fn a_point_at_work_goes_on_to_the_same_bytes_and_an_edited_method_is_run_again() {
    let program = Program::new();
    program.write("runs.rhai", RUNS);
    program.write("half.rhai", "fn weights(h, w, options) { #{ alpha: w } }");
    program.run("script runs.rhai --out whole").success();
    let whole = logs(&program.path("whole"));
    assert_eq!(whole.len(), 2);
    assert!(whole.values().all(|log| log.lines().count() == 8));

    let mut running = program.start(program.command("script runs.rhai"));
    let begun = |count: usize| {
        let dir = program.path("s");
        move |_: &_| {
            let logs = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            let rows = |e: std::fs::DirEntry| std::fs::read_to_string(e.path().join("log.jsonl")).ok();
            logs.filter_map(rows).map(|text| text.lines().count()).sum::<usize>() >= count
        }
    };
    running.until(begun(3));
    running.interrupt();
    running.wait().fails(130, &["0 of 2 points finished"]);
    program.run("script runs.rhai").success();
    assert_eq!(logs(&program.path("s")), whole);

    program.write("half.rhai", "fn weights(h, w, options) { #{ alpha: w.scaled(0.5) } }");
    let again = program.run("script runs.rhai");
    assert!(again.success().out.contains("2 of 2 points are done"), "{}", again.all());
    let edited = logs(&program.path("s"));
    assert!(edited.keys().eq(whole.keys()));
    assert!(whole.iter().all(|(name, log)| edited[name] != *log));
    let kept = records(&program.path("s")).into_keys().filter(|name| name.ends_with(".old-1")).count();
    assert_eq!(kept, 2);
}

#[test]
fn wrong_use_is_told() {
    let program = Program::new();
    program.write("a.rhai", "args(#{ out: \"\" });\nsweep(#{ out: [1] }, |config| 0)");
    program.run("script a.rhai").fails(1, &["a.rhai:2:1", "has a key `out`"]);
    program.write("a.rhai", "sweep([1, 2], |config| 0)");
    program.run("script a.rhai").fails(1, &["the grid of `sweep` is int, expected a map"]);
    program.write("a.rhai", "sweep(#{ x: [1] }, |config| 0, #{ job: 2 })");
    program.run("script a.rhai").fails(1, &["unknown option `job` of `sweep`", "did you mean `jobs`"]);
    program.write("a.rhai", "sweep(#{ x: [1] }, |config| 0, #{ out: \"/elsewhere\" })");
    program.run("script a.rhai").fails(1, &["a script may not write `/elsewhere`"]);
}

#[test]
fn the_grid_of_the_paper_runs_in_small() {
    let program = Program::new();
    program.copy("scripts/pareto.rhai", "scripts/pareto.rhai");
    program.copy("data/summaries/heldout.jsonl", "data/summaries/heldout.jsonl");
    let line = "script scripts/pareto.rhai --methods linear,amopo,ipo+mgda,cagrad_clip --weights 0.5 --control 0.3 --seeds 1 \
                --steps 2 --batch 4 --evaluate 6 --jobs 2 --out p";
    let outcome = program.run(line);
    assert!(outcome.success().out.contains("up to 5 points of about"), "{}", outcome.all());
    let found = records(&program.path("p"));
    assert_eq!(found.len(), 5, "{}", outcome.all());
    for (name, record) in &found {
        assert_eq!(record["status"], "done", "{name}: {record}");
        for key in ["scores", "losses", "margins", "accuracies"] {
            for objective in ["quality", "brevity"] {
                assert!(record["result"][key][objective].is_number(), "{name}: {key} {objective}");
            }
        }
        let evaluation = program.read(&format!("p/{name}/evaluation.json"));
        assert!(evaluation.contains("\"before\""));
    }
}
