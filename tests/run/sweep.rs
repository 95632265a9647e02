//! Points of a grid: order, names, claims.

use std::collections::HashSet;

use raco::run::{Axes, Claim, Record, Status, Sweep, read_record, sweep_points};
use serde_json::{Value, json};

use super::map;

fn grid(value: Value) -> Axes {
    let axis = |(key, values): (String, Value)| (key, values.as_array().unwrap().clone());
    map(value).into_iter().map(axis).collect()
}

fn open(dir: &std::path::Path, grids: &[Value]) -> raco::Result<Sweep> {
    let grids: Vec<Axes> = grids.iter().cloned().map(grid).collect();
    Sweep::open(dir, &grids, "", "a.rhai")
}

fn record(sweep: &Sweep, point: usize, status: Status) -> Record {
    let planned = &sweep.points()[point];
    Record {
        name: planned.name.clone(),
        config: planned.config.clone(),
        status,
        result: json!({ "x": 0.1 }),
        error: None,
        seconds: 1.5,
        cpu_seconds: None,
        sources: [("a.rhai".to_owned(), "before".to_owned())].into(),
    }
}

#[test]
fn seeds_change_last_and_equal_points_come_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = json!({ "method": ["linear"], "w": [0.2, 0.8], "seed": [0, 1] });
    let second = json!({ "method": ["linear", "half.rhai"], "w": [0.8], "seed": [0, 1] });
    let sweep = open(&folder.path().join("s"), &[first, second]).unwrap();
    let short: Vec<String> =
        sweep.points().iter().map(|p| p.name.rsplit_once('-').unwrap().0.to_owned()).collect();
    assert_eq!(
        short,
        [
            "linear-seed0-w0.2",
            "linear-seed0-w0.8",
            "linear-seed1-w0.2",
            "linear-seed1-w0.8",
            "half-seed0-w0.8",
            "half-seed1-w0.8"
        ]
    );
    assert_eq!(sweep_points(sweep.dir()).unwrap().len(), 6);
}

#[test]
fn names_depend_on_all_values_and_on_the_salt() {
    let folder = tempfile::tempdir().unwrap();
    let axes = |lr: f64| grid(json!({ "method": ["linear"], "lr": [lr], "seed": [0, 1] }));
    let names = |lr, salt| -> Vec<String> {
        let sweep = Sweep::open(&folder.path().join("s"), &[axes(lr)], salt, "").unwrap();
        sweep.points().iter().map(|p| p.name.clone()).collect()
    };
    let all: HashSet<String> =
        [names(1e-3, ""), names(2e-3, ""), names(1e-3, "other pairs")].into_iter().flatten().collect();
    assert_eq!(all.len(), 6);
    assert_eq!(names(1e-3, ""), names(1e-3, ""));
    assert!(all.iter().all(|name| name.starts_with("linear-seed")), "{all:?}");
}

#[test]
fn a_point_is_claimed_by_one_and_finished_once() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = open(&folder.path().join("s"), &[json!({ "seed": [0, 1] })]).unwrap();
    let current = |_: &str, _: &str| true;
    let [one, two] = sweep.points() else { panic!("two points") };
    let mine = sweep.claim(one, current).unwrap();
    assert!(matches!(mine, Claim::Mine(_)));
    assert!(matches!(sweep.claim(one, current).unwrap(), Claim::Taken));
    assert!(matches!(sweep.claim(two, current).unwrap(), Claim::Mine(_)));
    drop(mine);
    assert!(matches!(sweep.claim(one, current).unwrap(), Claim::Mine(_)));

    sweep.finish(&record(&sweep, 0, Status::Failed)).unwrap();
    assert!(matches!(sweep.claim(one, current).unwrap(), Claim::Mine(_)), "a failed point is tried again");
    let done = record(&sweep, 0, Status::Done);
    sweep.finish(&done).unwrap();
    match sweep.claim(one, current).unwrap() {
        Claim::Done(found) => assert_eq!(*found, done),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_point_made_with_another_text_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = open(&folder.path().join("s"), &[json!({ "seed": [0] })]).unwrap();
    let point = &sweep.points()[0];
    for round in 1..3 {
        sweep.finish(&record(&sweep, 0, Status::Done)).unwrap();
        let claim = sweep.claim(point, |name, hash| (name, hash) != ("a.rhai", "before")).unwrap();
        assert!(matches!(claim, Claim::Mine(_)));
        assert_eq!(read_record(&sweep.folder(point)).unwrap(), None);
        let old = sweep.dir().join(format!("{}.old-{round}", point.name));
        assert!(read_record(&old).unwrap().is_some());
    }
}

#[test]
fn a_point_keeps_its_folder_when_the_grid_grows() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("s");
    let small = open(&dir, &[json!({ "method": ["linear"], "c": [0.4], "seed": [0] })]).unwrap();
    small.finish(&record(&small, 0, Status::Done)).unwrap();
    let large = open(&dir, &[json!({ "method": ["linear"], "c": [0.4, 0.8], "seed": [0, 1] })]).unwrap();
    assert_eq!(large.points().len(), 4);
    let same = large.points().iter().filter(|point| point.name == small.points()[0].name).count();
    assert_eq!(same, 1);
    assert!(large.record(&large.points()[0]).unwrap().is_some());
}

#[test]
fn bad_grids_and_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("s");
    let error = open(&dir, &[json!({ "method": [], "seed": [0] })]).unwrap_err();
    assert!(error.what().contains("`method` of the grid has no value"), "{error}");
    assert!(open(&dir, &[]).unwrap_err().what().contains("no point"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("thesis.txt"), "mine").unwrap();
    let error = open(&dir, &[json!({ "seed": [0] })]).unwrap_err();
    assert!(error.to_string().contains("holds something else"), "{error}");
    assert!(dir.join("thesis.txt").is_file());
}
