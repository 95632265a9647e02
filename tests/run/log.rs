use std::fs;

use proptest::prelude::*;
use raco::run::{Log, flatten, read_log};
use serde_json::{Value, json};

use super::map;

proptest! {
    #[test]
    fn numbers_read_back_to_the_same_bits(rows in prop::collection::vec(prop::array::uniform4(any::<f64>()), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), None).unwrap();
        let finite = |x: f64| if x.is_finite() { x } else { 0.5 };
        for r in &rows {
            let r = r.map(finite);
            log.append(&map(json!({ "losses": { "a": r[0] }, "h": [[r[1], r[2]], [r[2], r[3]]] }))).unwrap();
        }
        let lines = read_log(&folder.path().join("log.jsonl")).unwrap();
        let mut csv = csv::Reader::from_path(folder.path().join("log.csv")).unwrap();
        prop_assert_eq!(csv.headers().unwrap(), vec!["losses.a", "h.0.0", "h.0.1", "h.1.0", "h.1.1"]);
        let records: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
        prop_assert_eq!((lines.len(), records.len()), (rows.len(), rows.len()));
        for ((r, line), record) in rows.iter().zip(&lines).zip(&records) {
            let r = r.map(finite);
            let expected = [r[0], r[1], r[2], r[2], r[3]].map(f64::to_bits);
            let json: Vec<u64> = flatten(line).iter().map(|(_, v)| v.as_f64().unwrap().to_bits()).collect();
            let csv: Vec<u64> = record.iter().map(|cell| cell.parse::<f64>().unwrap().to_bits()).collect();
            prop_assert_eq!(&json[..], &expected[..]);
            prop_assert_eq!(&csv[..], &expected[..]);
        }
    }
}

#[test]
fn text_and_absent_values_keep_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::open(folder.path(), None).unwrap();
    log.append(&map(json!({ "note": "a, \"b\"\nc", "none": null, "yes": true, "nothing": [] }))).unwrap();
    let csv = fs::read_to_string(folder.path().join("log.csv")).unwrap();
    assert_eq!(csv, "note,none,yes\n\"a, \"\"b\"\"\nc\",,true\n");
}

#[test]
fn the_first_row_fixes_the_columns() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::open(folder.path(), None).unwrap();
    log.append(&map(json!({ "a": 1, "b": { "c": 2 } }))).unwrap();
    let mut refused = |row: Value| log.append(&map(row)).unwrap_err().to_string();
    assert!(
        refused(json!({ "a": 1, "b": { "c": 2, "d": 3 } })).contains("column `b.d` is not in the first row")
    );
    assert!(refused(json!({ "a": 1 })).contains("column `b.c` of the log is missing"));
    assert!(refused(json!({ "b": { "c": 2 }, "a": 1 })).contains("another order"));
    log.append(&map(json!({ "a": null, "b": { "c": 4 } }))).unwrap();
    assert_eq!(read_log(&folder.path().join("log.jsonl")).unwrap().len(), 2);
    // a log that goes on knows its columns
    let mark = log.mark().unwrap();
    let mut again = Log::open(folder.path(), Some(&mark)).unwrap();
    assert!(again.append(&map(json!({ "a": 1 }))).unwrap_err().to_string().contains("column `b.c`"));
    // and two names for one column are refused
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::open(folder.path(), None).unwrap();
    let error = log.append(&map(json!({ "a.b": 1, "a": { "b": 2 } }))).unwrap_err().to_string();
    assert!(error.contains("two columns of the log are named `a.b`"), "{error}");
}

#[test]
fn a_torn_last_line_is_passed_over_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (jsonl, csv) = (folder.path().join("log.jsonl"), folder.path().join("log.csv"));
    let mut log = Log::open(folder.path(), None).unwrap();
    for step in 0..3 {
        log.append(&map(json!({ "step": step }))).unwrap();
    }
    let mark = log.mark().unwrap();
    let whole = (fs::read(&jsonl).unwrap(), fs::read(&csv).unwrap());
    log.append(&map(json!({ "step": 3 }))).unwrap();
    drop(log);
    let longer = fs::read(&jsonl).unwrap();
    for length in whole.0.len()..longer.len() {
        fs::write(&jsonl, &longer[..length]).unwrap();
        assert_eq!(read_log(&jsonl).unwrap().len(), 3);
    }
    drop(Log::open(folder.path(), Some(&mark)).unwrap());
    assert_eq!((fs::read(&jsonl).unwrap(), fs::read(&csv).unwrap()), whole);

    fs::write(&jsonl, "{\"step\":0}\n{\"st\n{\"step\":2}\n").unwrap();
    assert!(read_log(&jsonl).unwrap_err().to_string().contains("log.jsonl:2"));
    let error = Log::open(folder.path(), Some(&json!({ "csv_bytes": 1000, "jsonl_bytes": 0 })));
    assert!(error.err().unwrap().to_string().contains("its checkpoint counted 1000"));
    let (before, mark) = (fs::read(&jsonl).unwrap(), json!({ "csv_bytes": 0 }));
    assert!(Log::open(folder.path(), Some(&mark)).err().unwrap().to_string().contains("`jsonl_bytes`"));
    assert_eq!(fs::read(&jsonl).unwrap(), before, "nothing is cut on a guess");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("log.csv")).unwrap();
    let mut log = Log::open(folder.path(), None).unwrap();
    let error = log.append(&map(json!({ "step": 0 }))).unwrap_err().to_string();
    assert!(error.contains("log.csv") && error.contains("free some space"), "{error}");
}
