//! `raco report` and `raco runs` on runs that the program itself made.

use crate::common::program::Program;

#[test]
fn a_run_is_reported_listed_and_written_for_tensorboard() {
    let program = Program::new();
    for seed in [0, 1] {
        let words = format!(
            "script scripts/raco_clip.rhai --steps 3 --evaluate 4 --batch 8 --seed {seed} --out runs/s{seed}"
        );
        program.run(&words).success();
    }
    let outcome = program.run("report runs --out runs.html");
    assert_eq!(outcome.success().out, "the report is runs.html\n");
    let html = program.read("runs.html");
    for text in [
        "All 2 runs",
        "Run s0",
        "Run s1",
        "two objectives",
        "their fingerprints agree",
        "Cosine of brevity · quality by layer",
        "layer 2",
        "The optimiser of this run is adamw",
        "evaluation, s",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let listed = program.run("runs runs --sort -seed --columns name,seed,steps,optimizer");
    listed.fails(2, &["no run has a column `optimizer`"]);
    let listed = program.run("runs runs --sort -seed --columns name,seed,steps --format csv");
    assert_eq!(listed.success().out, "name,seed,steps\ns1,1,3\ns0,0,3\n");
    let listed = program.run("runs runs --filter seed=1 --format json");
    let json: serde_json::Value = serde_json::from_str(&listed.success().out).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["method"], "cagrad_clip");
    assert!(json[0]["losses.quality"].is_f64() && json[0]["scores.brevity"].is_f64());
    let table = program.run("runs runs");
    assert!(table.success().out.lines().all(|line| line.chars().count() <= 120), "{}", table.out);
    let written = program.run("runs runs --filter seed=0 --tensorboard tb");
    assert!(written.success().out.contains("1 runs are written"), "{}", written.out);
    assert!(program.path("tb/s0").is_dir() && !program.path("tb/s1").exists());
    program.run("report data").fails(1, &["there is no run in this folder or below it"]);
    program.run("runs nowhere").fails(1, &["there is no such folder"]);
}

/// The loop that the report and the guide advise.
#[test]
fn the_loop_of_the_guide_logs_realised_changes() {
    let program = Program::new();
    let guide = include_str!("../../docs/guide/report.md");
    let advised = guide.split("```rhai\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(advised, include_str!("../../src/run/report/realised.rhai"));
    let script = program.read("scripts/raco_clip.rhai");
    let script =
        script.replace("    optimizer.step(update.direction);\n    run.log(gradients, update);\n", advised);
    assert!(script.contains("run.log(gradients, update, more)"), "{script}");
    program.write("scripts/mine.rhai", script);
    program
        .run("script scripts/mine.rhai --steps 4 --evaluate 0 --batch 8 --lr 1e-5 --out runs/mine")
        .success();
    for line in program.read("runs/mine/log.jsonl").lines().skip(1) {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        for name in ["quality", "brevity"] {
            let [predicted, realised] = ["predicted", "realised"].map(|key| row[key][name].as_f64().unwrap());
            // a step this small is nearly linear; losses are computed in single precision
            assert!(
                (predicted - realised).abs() < 0.2 * predicted.abs() + 1e-5,
                "{name}: {predicted} {realised}"
            );
        }
    }
    program.run("report runs/mine").success();
    let html = program.read("report.html");
    assert!(html.contains("quality, realised") && !html.contains("Realised changes are not in this log"));
}
