use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use raco::error::{Error, Result};
use raco::optim::{AdamW, Optimizer, Options, Schedule};
use raco::run::{Run, RunOptions, Stateful};
use serde_json::json;

use super::map;
use crate::optim::{gradient, model_of, values};

/// A method with a memory; refuses to save a value of 13.
struct Counter(RefCell<u64>);

impl Stateful for Counter {
    fn name(&self) -> &str {
        "method"
    }

    fn save(&self, dir: &Path) -> Result<()> {
        fs::write(dir.join("count"), self.0.borrow().to_string()).unwrap();
        if *self.0.borrow() == 13 { Err(Error::new("no space left").in_file(dir)) } else { Ok(()) }
    }

    fn restore(&self, dir: &Path) -> Result<()> {
        *self.0.borrow_mut() = fs::read_to_string(dir.join("count")).unwrap().parse().unwrap();
        Ok(())
    }
}

fn step_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn counted(dir: &Path, resume: bool) -> (Run, Rc<Counter>) {
    let counter = Rc::new(Counter(RefCell::new(0)));
    let options = RunOptions { resume, checkpoint_every: 1, ..RunOptions::new(dir) };
    (Run::start(options, vec![counter.clone()]).unwrap(), counter)
}

#[test]
fn the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let (mut run, counter) = counted(&dir, false);
    for step in 0..12 {
        *counter.0.borrow_mut() += 1;
        run.log(&map(json!({ "x": step }))).unwrap();
        run.advance().unwrap();
    }
    assert_eq!(step_names(&dir), ["step-11", "step-12"]);
    // a checkpoint that is there already is not written again
    assert_eq!(run.checkpoint().unwrap(), dir.join("checkpoints/step-12"));
    drop(run);
    let (run, counter) = counted(&dir, true);
    assert_eq!((run.step(), *counter.0.borrow()), (12, 12));
}

#[test]
fn a_checkpoint_that_fails_or_breaks_off_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let (mut run, counter) = counted(&dir, false);
    *counter.0.borrow_mut() = 7;
    run.log(&map(json!({ "x": 0 }))).unwrap();
    run.advance().unwrap();
    *counter.0.borrow_mut() = 13;
    run.log(&map(json!({ "x": 1 }))).unwrap();
    assert!(run.advance().unwrap_err().to_string().contains("no space left"));
    assert_eq!(step_names(&dir), ["step-1"]);
    drop(run);

    // what a killed process may leave: one half written, one half removed
    for half in [".writing-x/method", "step-5/method"] {
        fs::create_dir_all(dir.join("checkpoints").join(half)).unwrap();
        fs::write(dir.join("checkpoints").join(half).join("count"), "99").unwrap();
    }
    let (run, counter) = counted(&dir, true);
    assert_eq!((run.step(), *counter.0.borrow()), (1, 7));
    assert_eq!(run.rows().unwrap().len(), 1, "the row of the lost step is cut");
    assert_eq!(step_names(&dir), ["step-1"]);
}

#[test]
fn a_half_checkpoint_in_the_way_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let (mut run, counter) = counted(&dir, false);
    fs::create_dir_all(dir.join("checkpoints/step-1/method")).unwrap();
    *counter.0.borrow_mut() = 3;
    run.advance().unwrap();
    drop(run);
    let (run, counter) = counted(&dir, true);
    assert_eq!((run.step(), *counter.0.borrow()), (1, 3));
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let (mut run, _) = counted(&dir, false);
    run.advance().unwrap();
    drop(run);
    let options = RunOptions { resume: true, ..RunOptions::new(&dir) };
    let states: Vec<Rc<dyn Stateful>> = vec![Rc::new(model_of(&[1.0], &[2.0]))];
    let error = Run::start(options, states).err().unwrap().to_string();
    assert!(error.contains(r#"the checkpoint holds ["method"], the script gives ["model"]"#), "{error}");
}

/// Trains a toy for `steps` steps, each gradient a function of step and weights.
fn train(dir: &Path, resume: bool, steps: usize, stop: usize) -> (Vec<f32>, Vec<u8>) {
    let model = model_of(&[1.0, -2.0, 0.3], &[0.7, 0.1]);
    let options = Options { lr: 0.05, schedule: Schedule::default(), clip: None };
    let optimizer = Rc::new(RefCell::new(Optimizer::adamw(&model, AdamW::default(), options).unwrap()));
    let states: Vec<Rc<dyn Stateful>> = vec![Rc::new(model.clone()), optimizer.clone()];
    let options = RunOptions { resume, checkpoint_every: 3, ..RunOptions::new(dir) };
    let mut run = Run::start(options, states).unwrap();
    while run.step() < steps.min(stop) {
        let g: Vec<f32> = values(&model).iter().map(|w| 2.0 * w + (run.step() as f32).sin()).collect();
        let report = optimizer.borrow_mut().step(&gradient(&model, &g)).unwrap();
        run.log(&map(json!({ "norm": report.norm, "w0": values(&model)[0] }))).unwrap();
        run.advance().unwrap();
    }
    if stop >= steps {
        run.checkpoint().unwrap();
    }
    let state = fs::read(dir.join(format!("checkpoints/step-{steps}/optimizer/state.safetensors")));
    (values(&model), state.unwrap_or_default())
}

/// The log without time and memory.
fn columns(dir: &Path) -> Vec<Vec<String>> {
    let mut csv = csv::Reader::from_path(dir.join("log.csv")).unwrap();
    let keep = csv.headers().unwrap().iter().position(|h| h == "time_ms").unwrap();
    csv.records().map(|r| r.unwrap().iter().take(keep).map(str::to_owned).collect()).collect()
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = train(&folder.path().join("whole"), false, 10, 10);
    for stop in 0..10 {
        let dir = folder.path().join(format!("stopped-{stop}"));
        train(&dir, false, 10, stop);
        assert_eq!(train(&dir, true, 10, 10), whole, "stopped at {stop}");
        assert_eq!(columns(&dir), columns(&folder.path().join("whole")), "stopped at {stop}");
    }
}

const LONG: usize = 60;

#[test]
#[ignore = "the process that `a_killed_run_resumes_to_the_same_bytes` kills"]
fn killed() {
    let dir = std::path::PathBuf::from(std::env::var("RACO_KILLED_DIR").unwrap());
    train(&dir, dir.exists(), LONG, LONG);
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, whole) = (folder.path().join("killed"), folder.path().join("whole"));
    let begun = std::time::Instant::now();
    let expected = train(&whole, false, LONG, LONG);
    let once = begun.elapsed();
    let mut process = std::process::Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "run::checkpoint::killed", "--ignored"]).env("RACO_KILLED_DIR", &killed);
    process.stdout(std::process::Stdio::null());
    let mut kills = 0;
    for k in 0..24u32 {
        let mut child = process.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3) + once * (k * 7 % 24) / 48);
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
    }
    assert!(kills > 0, "every process was faster than its killer");
    assert_eq!(train(&killed, killed.exists(), LONG, LONG), expected, "after {kills} kills");
    assert_eq!(columns(&killed), columns(&whole));
    assert!(step_names(&killed).iter().all(|name| name.starts_with("step-")), "{:?}", step_names(&killed));
}
