//! The main job, stopped by Ctrl-C and killed at odd moments, resumes to the same bytes.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{interrupt, raco, stderr};

const STEPS: usize = 24;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn job<'a>(steps: &'a str, more: &[&'a str]) -> Vec<String> {
    let script = root().join("scripts/raco_clip.rhai").display().to_string();
    let model = root().join("data/model").display().to_string();
    let pairs = root().join("data/summaries/train.jsonl").display().to_string();
    let mut args = vec![script, "--model".into(), model, "--pairs".into(), pairs];
    args.extend(["--steps", steps, "--evaluate", "4", "--out", "run"].map(str::to_owned));
    args.extend(more.iter().map(|&s| s.to_owned()));
    args
}

fn start(folder: &Path, args: &[String]) -> Child {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    raco(folder, &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(folder: &Path, args: &[String]) -> String {
    let output = start(folder, args).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn resume() -> Vec<String> {
    vec![root().join("scripts/raco_clip.rhai").display().to_string(), "--resume".into(), "run".into()]
}

fn rows(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("run/log.jsonl")).map_or(0, |text| text.lines().count())
}

/// Waits until the log has this many rows, or the process has ended.
fn wait_for(folder: &Path, child: &mut Child, count: usize) {
    let begun = Instant::now();
    while rows(folder) < count && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no row {count}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// All that must not depend on how often the run was stopped: log without time and memory, final state, results.
fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let run = folder.join("run");
    let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let cut = |line: &str| line.split(",\"time_ms\"").next().unwrap().to_owned();
    let log = log.lines().map(cut).collect::<Vec<_>>().join("\n");
    let last = format!("checkpoints/step-{STEPS}");
    let files = ["model/weights.safetensors", "optimizer/state.safetensors", "method/state.json"];
    let mut all = vec![("log".to_owned(), log.into_bytes())];
    for file in files.map(|f| format!("{last}/{f}")).into_iter().chain(["evaluation.json".to_owned()]) {
        all.push((file.clone(), std::fs::read(run.join(&file)).unwrap()));
    }
    all
}

fn assert_same(found: &Path, expected: &Path) {
    for ((name, found), (_, expected)) in results(found).iter().zip(results(expected)) {
        assert!(*found == expected, "{name} differs");
    }
}

#[test]
fn stopped_and_killed_runs_resume_to_the_same_bytes() {
    let steps = STEPS.to_string();
    let whole = tempfile::tempdir().unwrap();
    finish(whole.path(), &job(&steps, &[]));
    assert_eq!(rows(whole.path()), STEPS);

    // Ctrl-C in the middle of a step: stopped after it, with the command that goes on
    let stopped = tempfile::tempdir().unwrap();
    let mut child = start(stopped.path(), &job(&steps, &[]));
    wait_for(stopped.path(), &mut child, 5);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains(&format!("of {STEPS}")) && text.contains("note: stopped after step"), "{text}");
    assert!(text.contains("raco_clip.rhai --resume run`"), "{text}");
    finish(stopped.path(), &resume());
    assert_same(stopped.path(), whole.path());

    // killed again and again, at moments that no one chose
    let killed = tempfile::tempdir().unwrap();
    let mut child = start(killed.path(), &job(&steps, &[]));
    for (round, count) in [3, 12, 21].into_iter().enumerate() {
        wait_for(killed.path(), &mut child, count);
        std::thread::sleep(Duration::from_millis(u64::from(std::process::id()) * (round as u64 + 7) % 40));
        child.kill().unwrap();
        child.wait().unwrap();
        child = start(killed.path(), &resume());
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_same(killed.path(), whole.path());
}

#[test]
fn a_method_with_a_memory_resumes_and_other_arguments_are_refused() {
    let steps = STEPS.to_string();
    let whole = tempfile::tempdir().unwrap();
    finish(whole.path(), &job(&steps, &["--aggregator", "pcgrad"]));

    let killed = tempfile::tempdir().unwrap();
    let mut child = start(killed.path(), &job(&steps, &["--aggregator", "pcgrad"]));
    wait_for(killed.path(), &mut child, 14);
    child.kill().unwrap();
    child.wait().unwrap();

    let mut other = resume();
    other.extend(["--c", "0.7", "--batch", "8"].map(str::to_owned));
    let output = start(killed.path(), &other).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("the run began with other arguments"), "{text}");
    assert!(text.contains("`c` is `0.7`, was `0.4`") && text.contains("`batch` is `8`, was `16`"), "{text}");

    finish(killed.path(), &resume());
    assert_same(killed.path(), whole.path());
    let state =
        std::fs::read_to_string(whole.path().join(format!("run/checkpoints/step-{STEPS}/method/state.json")));
    assert!(state.unwrap().contains(&format!("\"calls\": {STEPS}")));
}

/// A state that holds a vector over all parameters for each objective.
#[test]
fn a_method_with_vectors_in_its_memory_resumes() {
    let args = |steps: &str| job(steps, &["--aggregator", "excess_mtl", "--batch", "4"]);
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    finish(whole.path(), &args("4"));
    let mut child = start(stopped.path(), &args("4"));
    wait_for(stopped.path(), &mut child, 2);
    interrupt(&child);
    child.wait().unwrap();
    finish(stopped.path(), &resume());
    let last = |folder: &Path, file: &str| {
        std::fs::read(folder.join("run/checkpoints/step-4").join(file))
            .unwrap_or_else(|e| panic!("{file}: {e}"))
    };
    for file in ["model/weights.safetensors", "method/state.json", "method/vectors.safetensors"] {
        assert!(last(whole.path(), file) == last(stopped.path(), file), "{file} differs");
    }
    let state: serde_json::Value = serde_json::from_slice(&last(whole.path(), "method/state.json")).unwrap();
    assert_eq!(state["state"]["squares"][1]["$gradient"], 1);
    let vectors = last(whole.path(), "method/vectors.safetensors").len();
    let model = last(whole.path(), "model/weights.safetensors").len();
    assert!(vectors > 19 * model / 10, "{vectors} bytes for two vectors, {model} for the weights");
}

#[test]
fn bad_input_is_refused_before_the_first_step() {
    for (more, expected) in [
        (&["--weights", "quality=0.8,brevity=0.4"][..], "weights must sum to 1"),
        (&["--weights", "quality=1.2,brevity=-0.2"], "weight of `brevity` must not be negative"),
        (&["--weights", "quality=0,brevity=0"], "weights of `brevity`, `quality` are all zero"),
        (&["--weights", "quality=0.5,brevty=0.5"], "no row has an objective `brevty`"),
        (&["--c", "1"], "`c` must be in [0, 1), found `1"),
        (&["--c", "-0.1"], "`c` must be in [0, 1), found `-0.1`"),
        (&["--lr", "-1"], "lr"),
        (&["--batch", "5000"], "a batch of 5000 examples"),
        (&["--aggregator", "cagrad_klip"], "unknown aggregator `cagrad_klip`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = start(folder.path(), &job("3", more)).wait_with_output().unwrap();
        assert!(stderr(&output).contains(expected), "{more:?}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(stderr(&output).lines().count() < 24, "{more:?}: more than a screen");
        assert_eq!(rows(folder.path()), 0, "{more:?}");
    }
}

#[test]
fn a_run_in_the_way_of_a_file_or_in_a_folder_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run"), "mine").unwrap();
    let output = start(folder.path(), &job("3", &[])).wait_with_output().unwrap();
    assert!(stderr(&output).contains("a file is in the way"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(folder.path().join("run")).unwrap(), "mine");
}

#[test]
fn every_aggregator_runs_the_main_job_and_so_does_a_file_of_the_users() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("half.rhai"),
        "fn weights(h, w, options) { let o = options(options, #{ c: 0.4 }); #{ alpha: w.scaled(1.0 - o.c) } }",
    )
    .unwrap();
    let library = std::fs::read_dir(root().join("stdlib/aggregators")).unwrap();
    let name = |file: std::fs::DirEntry| file.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let names = library.map(|file| name(file.unwrap())).chain(["half.rhai".to_owned()]);
    // these need three objectives
    for name in names.filter(|name| !["krum", "trimmed_mean"].contains(&name.as_str())) {
        let name = name.as_str();
        let out = format!("runs/{name}");
        let mut args = job("2", &["--aggregator", name]);
        args.iter_mut().filter(|a| *a == "run").for_each(|a| *a = out.clone());
        finish(folder.path(), &args);
        let log = std::fs::read_to_string(folder.path().join(&out).join("log.jsonl")).unwrap();
        assert_eq!(log.lines().count(), 2, "{name}");
        if name == "half.rhai" {
            assert!(log.contains("\"alpha\":{\"brevity\":0.3,\"quality\":0.3}"), "{log}");
        }
    }
}

#[test]
fn other_pairs_end_in_held_out_accuracy_and_margin() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = std::fs::read_to_string(root().join("data/requests/train.jsonl")).unwrap();
    let rows: Vec<&str> = pairs.lines().take(80).collect();
    std::fs::write(folder.path().join("mine.jsonl"), rows.join("\n")).unwrap();
    let mut args = job("4", &["--weights", "helpful=0.5,harmless=0.5", "--batch", "8"]);
    let at = args.iter().position(|a| a == "--pairs").unwrap();
    args[at + 1] = "mine.jsonl".into();
    let at = args.iter().position(|a| a == "--evaluate").unwrap();
    args[at + 1] = "16".into();
    finish(folder.path(), &args);
    let text = std::fs::read_to_string(folder.path().join("run/evaluation.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&text).unwrap();
    for name in ["helpful", "harmless"] {
        assert_eq!(results["before"]["rows"][format!("{name} margin")], 0.0, "{text}");
        assert!(results["before"]["rows"][format!("{name} accuracy")].is_null(), "{text}");
        assert!(results["after"]["rows"][format!("{name} margin")].as_f64().unwrap() != 0.0, "{text}");
        let accuracy = results["after"]["rows"][format!("{name} accuracy")].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy), "{text}");
    }
    assert!(results["after"]["rows"]["words"].as_f64().unwrap() > 0.0, "{text}");
}
