use std::fs;
use std::path::Path;

use raco::run::{Run, RunOptions, Source};
use serde_json::{Value, json};

use super::map;

fn options(dir: &Path) -> RunOptions {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    RunOptions {
        script: Some(source("/somewhere/raco_clip.rhai", "let x = 1;")),
        modules: vec![source("losses/dpo", "fn losses() {}"), source("../mine.rhai", "fn weights() {}")],
        args: map(json!({ "c": 0.4, "steps": 60, "out": "runs/x" })),
        free_args: vec!["out".into()],
        inputs: map(json!({ "pairs": "abc" })),
        seed: Some(7),
        ..RunOptions::new(dir)
    }
}

fn start(options: RunOptions) -> Result<Run, String> {
    Run::start(options, vec![]).map_err(|error| error.to_string())
}

#[test]
fn a_run_tells_what_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("deep/er/run");
    let run = start(options(&dir)).unwrap();
    assert_eq!((run.dir(), run.step(), run.notes().len()), (dir.as_path(), 0, 0));
    assert_eq!(fs::read_to_string(dir.join("source/raco_clip.rhai")).unwrap(), "let x = 1;");
    assert_eq!(fs::read_to_string(dir.join("source/modules/losses/dpo.rhai")).unwrap(), "fn losses() {}");
    assert_eq!(fs::read_to_string(dir.join("source/modules/mine.rhai")).unwrap(), "fn weights() {}");
    let json =
        |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(dir.join(name)).unwrap()).unwrap() };
    assert_eq!(json("args.json"), json!({ "c": 0.4, "steps": 60, "out": "runs/x" }));
    let facts = json("run.json");
    assert_eq!((&facts["raco"], &facts["seed"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(7)));
    assert_eq!(facts["versions"]["rhai"], json!("1.27.0"));
    assert!(facts["sessions"][0]["threads"].as_u64().unwrap() > 0);
    let left: Vec<_> = fs::read_dir(dir.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary folder stays");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("args.json"))), (0o755, 0o644));
    }
}

#[test]
fn nothing_computed_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    fs::create_dir(&dir).unwrap(); // an empty folder is taken
    let first = start(options(&dir)).unwrap();
    assert_eq!(first.dir(), dir);
    fs::write(folder.path().join("run-3"), "a file of the user").unwrap();
    let second = start(options(&dir)).unwrap();
    assert_eq!(second.dir(), folder.path().join("run-2"));
    assert!(second.notes()[0].contains("run` is in use: this run goes to"), "{:?}", second.notes());
    assert_eq!(start(options(&dir)).unwrap().dir(), folder.path().join("run-4"));
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let resume = || RunOptions { resume: true, ..options(&dir) };
    assert!(start(resume()).err().unwrap().contains("no run to resume here"));
    let mut run = start(options(&dir)).unwrap();
    run.log(&map(json!({ "x": 1 }))).unwrap();
    assert!(start(resume()).err().unwrap().contains("another process is writing this run"));
    drop(run);

    let mut other = resume();
    other.args = map(json!({ "c": 0.5, "steps": 60, "out": "elsewhere", "beta": 0.2 }));
    let error = start(other).err().unwrap();
    assert!(error.contains("`c` is `0.5`, was `0.4`, `beta` is `0.2`, was not given"), "{error}");
    assert!(!error.contains("`out`") && !error.contains("`steps`"), "{error}");
    let mut other = resume();
    other.inputs = map(json!({ "pairs": "abd" }));
    assert!(start(other).err().unwrap().contains("what the run reads has changed: `pairs`"));
    let mut other = resume();
    other.script = Some(Source { name: "raco_clip.rhai".into(), text: "let x = 2;".into() });
    assert!(start(other).unwrap().notes()[0].contains("`raco_clip.rhai` is not as it was"));

    // without a checkpoint it begins again, with an empty log
    let mut run = start(resume()).unwrap();
    assert_eq!((run.step(), run.rows().unwrap().len(), run.notes().len()), (0, 0, 0));
    run.log(&map(json!({ "y": 1 }))).unwrap();
    let facts: Value = serde_json::from_str(&fs::read_to_string(dir.join("run.json")).unwrap()).unwrap();
    assert_eq!(facts["sessions"].as_array().unwrap().len(), 3);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for dir in [file.clone(), file.join("below"), file.join("far/below")] {
        let error = start(options(&dir)).err().unwrap();
        assert!(error.contains("a file is in the way") && error.contains("choose another folder"), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    assert!(start(options(Path::new("/"))).err().unwrap().contains("does not name a folder"));
    if cfg!(target_os = "linux") {
        let error = start(options(Path::new("/proc/raco/run"))).err().unwrap();
        assert!(error.contains("cannot make the folder") && error.contains("/proc/raco"), "{error}");
    }
}

#[test]
fn each_step_has_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = start(options(&folder.path().join("run"))).unwrap();
    assert!(run.plot().unwrap().is_none());
    let row = map(json!({ "losses": { "a": 0.5 } }));
    run.log(&row).unwrap();
    assert!(run.log(&row).unwrap_err().to_string().contains("step 0 is logged already"));
    run.advance().unwrap();
    assert!(run.log(&map(json!({ "step": 1 }))).unwrap_err().to_string().contains("writes `step` itself"));
    run.log(&row).unwrap();
    let rows = run.rows().unwrap();
    let keys: Vec<&String> = rows[1].keys().collect();
    assert_eq!(keys, ["step", "losses", "time_ms", "memory_mib"]);
    assert_eq!(rows[1]["step"], 1);
    assert!(run.plot().unwrap().unwrap().is_file());
}

#[test]
fn scripts_write_inside_the_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = start(options(&folder.path().join("run"))).unwrap();
    assert!(run.path("figures/front.svg").unwrap().parent().unwrap().is_dir());
    for outside in ["../x", "/tmp/x", "a/../../x", ""] {
        assert!(run.path(outside).unwrap_err().to_string().contains("not a path within the run folder"));
    }
}
