//! Live edit: a file that changes while the script runs.

use std::fs::File;

use serde_json::Value;

use crate::common::program::Program;

const COUNTS: &str = "fn init(m) { #{ n: 0 } }
fn weights(h, w, options, state) {
    #{ alpha: w, n: state.n + 1, state: #{ n: state.n + 1 } }
}
";

/// The main job with an aggregator and a loss of the user's, whose files the script itself rewrites after some steps.
fn edited(edits: &Value) -> Program {
    let program = Program::new();
    program.write("scripts/counts.rhai", COUNTS);
    program.copy("stdlib/losses/dpo.rhai", "scripts/own_loss.rhai");
    program.write("edits.json", edits.to_string());
    let script = program.read("scripts/raco_clip.rhai");
    let log = "    run.log(gradients, update);\n";
    let after = "    let edits = read_json(\"edits.json\");
    let now = `${run.step}`;
    if now in edits { write_text(edits[now][0], edits[now][1]); }
    if run.step == 3 { breakpoint(); }
";
    let script = script.replace(log, &format!("{log}{after}")).replace("\"losses/dpo\"", "\"own_loss\"");
    program.write("scripts/job.rhai", script.replace("seed: 0,", "seed: 0, first: \"\", second: \"\","));
    program
}

const WRITES: &str = "--first scripts/counts.rhai --second scripts/own_loss.rhai";

fn words() -> String {
    format!(
        "script scripts/job.rhai --watch --aggregator counts --steps 7 --evaluate 2 --batch 4 --out run {WRITES}"
    )
}

fn edits() -> Value {
    let (counts, loss) = ("scripts/counts.rhai", "scripts/own_loss.rhai");
    let dpo = include_str!("../../stdlib/losses/dpo.rhai");
    serde_json::json!({
        "0": [counts, COUNTS.replace("alpha: w,", "alpha: w;")],
        "1": [counts, COUNTS.replace("alpha: w,", "alpha: w.nope(),")],
        "2": [counts, COUNTS.replace("alpha: w,", "alpha: [0.25, 0.75],")],
        "4": [loss, dpo.replace("losses[name] = batch.mean(", "losses[name] = 2.0 * batch.mean(")],
        "5": [counts, "fn weights(h, w, options) { w }"],
    })
}

fn rows(program: &Program) -> Vec<Value> {
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        for measured in ["time_ms", "memory_mib"] {
            row.as_object_mut().unwrap().remove(measured);
        }
        row
    };
    program.read("run/log.jsonl").lines().map(row).collect()
}

fn weights(program: &Program) -> Vec<u8> {
    std::fs::read(program.path("run/checkpoints/step-7/model/weights.safetensors")).unwrap()
}

#[test]
fn edits_take_effect_at_the_next_step_and_broken_ones_are_told() {
    let program = edited(&edits());
    let outcome = program.run(&words());
    let (out, all) = (&outcome.success().out, outcome.all());
    let notes: Vec<&str> =
        out.lines().filter(|line| line.starts_with("note: an edit is not taken")).collect();
    assert_eq!(notes.len(), 3, "{all}");
    for (note, expected) in notes.iter().zip([
        "scripts/counts.rhai:3:",
        "scripts/counts.rhai:3:17: function `nope` with (array) not found",
        "scripts/counts.rhai: the parameters of `weights` are others",
    ]) {
        assert!(note.contains(expected), "no `{expected}` in {note}");
    }
    let rows = rows(&program);
    let column = |key: &str| -> Vec<&Value> { rows.iter().map(|row| &row[key]).collect() };
    assert_eq!(column("edited"), ["", "", "", "scripts/counts.rhai", "", "scripts/own_loss.rhai", ""]);
    assert_eq!(column("n"), [1, 2, 3, 4, 5, 6, 7], "the state stays");
    let alpha: Vec<f64> = rows.iter().map(|row| row["alpha"]["brevity"].as_f64().unwrap()).collect();
    assert_eq!(alpha, [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
    let loss = |step: usize| rows[step]["losses"]["brevity"].as_f64().unwrap();
    assert!((0..5).all(|step| loss(step) < 1.0) && loss(5) > 1.0 && loss(6) > 1.0, "{rows:?}");
    assert!(program.read("run/source/modules/scripts/counts@3.rhai").contains("[0.25, 0.75]"));
    assert!(program.read("run/source/modules/scripts/own_loss@5.rhai").contains("2.0 * batch"));
    assert_eq!(program.read("run/source/modules/scripts/counts.rhai"), COUNTS);

    // a run that is stopped in between goes on to the same, without being told to watch again
    let stopped = edited(&edits());
    stopped.write("typed", ":quit\n");
    let mut command = stopped.command(&words());
    command.stdin(File::open(stopped.path("typed")).unwrap());
    let outcome = stopped.start(command).wait();
    assert_eq!(outcome.code, Some(130), "{}", outcome.all());
    assert!(outcome.err.contains("scripts/job.rhai --watch --resume run`"), "{}", outcome.all());
    // the script may write where the command line says
    let resume = format!("script scripts/job.rhai {WRITES} --resume run");
    stopped.run(&resume).success();
    assert_eq!(self::rows(&stopped), rows);
    assert!(weights(&stopped) == weights(&program), "the weights differ");
}

#[test]
fn an_edit_while_a_run_was_stopped_counts_as_one_of_its_first_step() {
    let program = edited(&serde_json::json!({}));
    program.write("typed", ":quit\n");
    let mut command = program.command(&words());
    command.stdin(File::open(program.path("typed")).unwrap());
    assert_eq!(program.start(command).wait().code, Some(130));
    program.write("scripts/counts.rhai", COUNTS.replace("alpha: w,", "alpha: [0.25, 0.75],"));
    program.run("script scripts/job.rhai --resume run").success();
    let edited: Vec<Value> = rows(&program).into_iter().map(|row| row["edited"].clone()).collect();
    assert_eq!(edited, ["", "", "", "", "scripts/counts.rhai", "", ""]);
}

#[test]
fn without_watch_files_are_read_once_and_the_log_has_no_column_for_edits() {
    let program = edited(&edits());
    program.run(&words().replace("--watch ", "")).success();
    let rows = rows(&program);
    assert!(rows.iter().all(|row| row.get("edited").is_none() && row["alpha"]["brevity"] == 0.5), "{rows:?}");
}
