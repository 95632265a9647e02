use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use raco::run::{read_log, write_report};
use serde_json::{Value, json};

/// The folder of a run of so many steps, as the program leaves it.
pub fn run_folder(dir: &Path, method: &str, seed: u64, steps: usize) {
    fs::create_dir_all(dir).unwrap();
    let write = |name: &str, value: &Value| fs::write(dir.join(name), format!("{value:#}\n")).unwrap();
    write(
        "args.json",
        &json!({ "aggregator": method, "weights": { "quality": 0.75, "brevity": 0.25 }, "c": 0.4, "seed": seed,
            "steps": steps, "pairs": "nowhere/pairs.jsonl", "model": "nowhere/model", "out": "runs/x" }),
    );
    write(
        "run.json",
        &json!({ "raco": "0.1.0", "versions": { "rhai": "1.27.0" }, "script": "scripts/x.rhai", "seed": seed,
            "optimizer": "sgd", "inputs": { "nowhere/model": "abc" },
            "sessions": [{ "from_step": 0, "unix_s": 1_700_000_000_u64, "os": "linux", "cpu": "a cpu", "threads": 2 }] }),
    );
    write(
        "evaluation.json",
        &json!({
            "before": { "rows": { "quality": 0.5 }, "prompts": ["first prompt"], "responses": ["an old answer"] },
            "after": { "rows": { "quality": 0.625 }, "prompts": ["first prompt"], "responses": [format!("answer of {method}")] },
        }),
    );
    let noise = |k: usize, salt: usize| {
        ((k * 7919 + salt * 104_729 + seed as usize * 31) % 1000) as f64 / 1000.0 - 0.5
    };
    let rows = (0..steps).map(|k| {
        let p = 0.5 + 0.4 * noise(k, 1);
        let cosine = -0.4 + 0.3 * noise(k, 2);
        let layer = |x: f64| json!({ "norms": { "quality": x, "brevity": 2.0 * x }, "cosines": { "quality": { "brevity": cosine * x } } });
        json!({
            "step": k, "losses": { "quality": 0.7 + noise(k, 3) / 3.0, "brevity": 0.6 + noise(k, 4) / 7.0 },
            "w": { "quality": 0.75, "brevity": 0.25 }, "alpha": { "quality": 0.9, "brevity": 0.4 },
            "p": { "quality": p, "brevity": 1.0 - p }, "p_clip": { "quality": p.min(0.75), "brevity": (1.0 - p).min(0.25) },
            "norms": { "quality": 2.0, "brevity": 1.0 }, "cosines": { "quality": { "brevity": cosine } },
            "h": [[4.0, 2.0 * cosine], [2.0 * cosine, 1.0]], "lr": 0.5,
            "layers": { "embed_tokens": layer(0.5), "layer 0": layer(1.0) },
            "chosen": -10.0 - k as f64, "rejected": -11.0, "margins": { "quality": noise(k, 5), "brevity": null },
            "accuracies": { "quality": 0.5, "brevity": null }, "time_ms": 10.0, "memory_mib": 50.0,
        })
        .to_string()
    });
    fs::write(dir.join("log.jsonl"), rows.map(|row| row + "\n").collect::<String>()).unwrap();
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let text = fs::read_to_string(path).unwrap();
    let lines = path.extension().is_some_and(|e| e == "jsonl");
    let parts: Vec<&str> = if lines { text.lines().collect() } else { vec![&text] };
    let changed = parts.iter().map(|part| {
        let mut value = serde_json::from_str(part).unwrap();
        change(&mut value);
        format!("{value}\n")
    });
    fs::write(path, changed.collect::<String>()).unwrap();
}

/// The report on folders, checked for what holds of every report.
fn report(dirs: &[&Path]) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| (*dir).to_owned()).collect();
    let notes = write_report(&dirs, &path).unwrap();
    let html = fs::read_to_string(path).unwrap();
    well_formed(&html);
    // as it is read
    let html = html.replace("&#x2f;", "/").replace("&#x27;", "'");
    for part in html.split("http").skip(1) {
        assert!(part.starts_with("://www.w3.org/2000/svg"), "http{}", &part[..part.len().min(60)]);
    }
    for alien in ["<script", "src=", "@import", "url(", "<link", "NaN", "inf\""] {
        assert!(!html.contains(alien), "`{alien}` in the report");
    }
    (html, notes)
}

/// Every element is closed where it should be; every id stands once; every link and label leads to one.
fn well_formed(html: &str) {
    let (head, rest) = html.split_once("<style>").unwrap();
    let (_, body) = rest.split_once("</style>").unwrap();
    let text = format!("{head}{body}");
    let mut open: Vec<&str> = Vec::new();
    let (mut ids, mut wanted) = (HashSet::new(), Vec::new());
    for part in text.split('<').skip(1) {
        let (tag, after) = part.split_once('>').expect("a tag that ends");
        assert!(!after.contains('>') || after.contains("&gt;"), "a bare `>` after <{tag}>");
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another element");
        } else if !["!DOCTYPE", "meta"].contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
        for (i, value) in tag.split('"').enumerate().filter(|(i, _)| i % 2 == 1) {
            let key = tag.split('"').nth(i - 1).unwrap().trim().trim_end_matches('=');
            match key.rsplit(' ').next().unwrap() {
                "id" => assert!(ids.insert(value.to_owned()), "id {value} stands twice"),
                "aria-labelledby" => wanted.extend(value.split(' ').map(str::to_owned)),
                "href" if value.starts_with('#') => wanted.push(value[1..].to_owned()),
                _ => {}
            }
        }
        if name == "svg" && !tag.starts_with('/') {
            assert!(tag.contains("role=\"img\"") && tag.contains("aria-labelledby"), "<{tag}>");
        }
        if name == "th" && !tag.starts_with('/') {
            assert!(tag.contains("scope="), "<{tag}>");
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    wanted.iter().for_each(|id| assert!(ids.contains(id), "nothing has the id {id}"));
}

/// Cells of the table of a figure, row by row, as they are read.
fn cells(html: &str, figure: &str) -> Vec<Vec<String>> {
    let figure = html.split(&format!("<figure id=\"{figure}\">")).nth(1).expect(figure);
    let body = figure.split("<tbody>").nth(1).unwrap().split("</tbody>").next().unwrap();
    let text = |cell: &str| cell.split_once('>').unwrap().1.split('<').next().unwrap().replace('−', "-");
    let cells = |row: &str| row.replace("<th", "<td").split("<td").skip(1).map(text).collect();
    body.split("<tr>").skip(1).map(cells).collect()
}

/// Rows of the CSV that a figure offers.
fn csv_rows(html: &str, figure: &str) -> Vec<Vec<String>> {
    let figure = html.split(&format!("<figure id=\"{figure}\">")).nth(1).unwrap();
    let address =
        figure.split("href=\"data:text/csv;charset=utf-8,").nth(1).unwrap().split('"').next().unwrap();
    let mut bytes = Vec::new();
    let mut rest = address.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&bytes[..]);
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn tables_hold_the_numbers_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), "cagrad_clip", 0, 12);
    let (html, notes) = report(&[folder.path()]);
    assert!(notes.is_empty(), "{notes:?}");
    let log = read_log(&folder.path().join("log.jsonl")).unwrap();
    for (figure, key) in [("run-losses", "losses"), ("run-p_clip", "p_clip"), ("run-margins", "margins")] {
        let rows = cells(&html, figure);
        assert_eq!(rows.len(), log.len(), "{figure}");
        let csv = csv_rows(&html, figure);
        assert_eq!(csv[0], ["step", "quality", "brevity"], "{figure}");
        for ((row, cells), exact) in log.iter().zip(&rows).zip(&csv[1..]) {
            assert_eq!(cells[0], row["step"].to_string());
            for (i, name) in ["quality", "brevity"].iter().enumerate() {
                let logged = &row[key][*name];
                let (shown, saved) = if logged.is_null() {
                    ("–".into(), String::new())
                } else {
                    (logged.to_string(), logged.to_string())
                };
                assert_eq!((&cells[i + 1], &exact[i + 1]), (&shown, &saved), "{figure}");
            }
        }
    }
    // a plain step of size lr along the update changes loss i by −lr (H alpha)_i to first order
    let changes = cells(&html, "run-change");
    for (row, cells) in log.iter().zip(&changes) {
        let cosine = row["cosines"]["quality"]["brevity"].as_f64().unwrap();
        let expected = [-0.5 * (4.0 * 0.9 + 2.0 * cosine * 0.4), -0.5 * (2.0 * cosine * 0.9 + 0.4)];
        for (cell, expected) in cells[1..].iter().zip(expected) {
            assert!((cell.parse::<f64>().unwrap() - expected).abs() < 1e-12, "{cell}, expected {expected}");
        }
    }
    let clipped = log.iter().filter(|row| {
        let over = |name: &str, w: f64| row["p"][name].as_f64().unwrap() > w;
        over("quality", 0.75) || over("brevity", 0.25)
    });
    assert!(
        html.contains(&format!("The clip binds (some p above its w) at {} of 12 steps", clipped.count()))
    );
    for text in [
        "Cosine of quality · brevity by layer",
        "embed_tokens",
        "an old answer",
        "answer of cagrad_clip",
        "a cpu",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // the pairs are gone: told, and the rest is there
    assert!(html.contains("`nowhere/pairs.jsonl` could not be read again"));
}

#[test]
fn means_over_steps_have_the_interval_of_student() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), "mgda", 0, 9);
    let (html, _) = report(&[folder.path()]);
    let rows: Vec<Vec<f64>> = cells(&html, "run-cosine0")
        .iter()
        .map(|row| row.iter().map(|cell| cell.parse().unwrap()).collect())
        .collect();
    // the window of the middle row: five steps about it
    let window: Vec<f64> = rows[2..7].iter().map(|row| row[1]).collect();
    let mean = window.iter().sum::<f64>() / 5.0;
    let deviation = (window.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
    let half = 2.776_445_105_197_793 * deviation / 5_f64.sqrt();
    for (found, expected) in rows[4][2..].iter().zip([mean, mean - half, mean + half]) {
        assert!((found - expected).abs() < 1e-9, "{:?}", rows[4]);
    }
}

#[test]
fn what_a_run_holds_is_text_and_never_markup() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), "<i>cagrad", 0, 4);
    let attack = "<script>alert('x')</script> & \"quoted\" </dd></main>";
    edit(&folder.path().join("evaluation.json"), |value| {
        value["after"]["responses"] = json!([attack]);
        value["after"]["prompts"] = json!([[{ "role": "user", "content": attack }]]);
        value["after"]["rows"] = json!({ attack: 1.0 });
    });
    // names of objectives stand in pictures, tables, captions
    for file in ["args.json", "log.jsonl"] {
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap().replace("brevity", "<b onload=x>&amp;");
        fs::write(&path, text).unwrap();
    }
    let (html, _) = report(&[folder.path()]);
    assert!(html.contains("&lt;script&gt;alert("), "the text itself is shown");
    assert!(!html.contains("<b onload") && !html.contains("<i>cagrad"));
    assert!(html.contains("&lt;b onload=x&gt;&amp;amp;"));
}

#[test]
fn runs_without_margins_layers_or_clip_say_so() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), "linear", 0, 5);
    edit(&folder.path().join("log.jsonl"), |row| {
        let row = row.as_object_mut().unwrap();
        for key in ["margins", "accuracies", "rejected", "p", "p_clip", "layers"] {
            row.remove(key);
        }
    });
    let (html, _) = report(&[folder.path()]);
    assert!(html.contains("demonstrations have one response"));
    assert!(html.contains("This method has no clip"));
    assert!(!html.contains("run-layers\"") && !html.contains("id=\"run-margins\""));
    assert!(html.contains("Realised changes are not in this log"));
    // plain numbers: one objective, no log-probs, no evaluation
    edit(&folder.path().join("log.jsonl"), |row| {
        *row = json!({ "step": row["step"], "losses": { "x": row["losses"]["quality"] }, "w": { "x": 1.0 } });
    });
    fs::remove_file(folder.path().join("evaluation.json")).unwrap();
    let (html, _) = report(&[folder.path()]);
    assert!(html.contains("of plain numbers, not of a model") && !html.contains("Conflict of gradients"));
}

#[test]
fn realised_changes_are_drawn_where_the_log_has_them() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), "linear", 0, 5);
    edit(&folder.path().join("log.jsonl"), |row| {
        row["predicted"] = json!({ "quality": -0.25, "brevity": 0.125 });
        row["realised"] = json!({ "quality": -0.2, "brevity": 0.15 });
    });
    let (html, _) = report(&[folder.path()]);
    assert_eq!(cells(&html, "run-change")[3], ["3", "-0.25", "-0.2", "0.125", "0.15"]);
    assert!(!html.contains("Realised changes are not in this log"));
}

#[test]
fn broken_folders_are_told_and_do_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = |name: &str| folder.path().join(name);
    run_folder(&dir("whole"), "cagrad", 0, 6);
    // killed within a line, and a line that is no JSON
    run_folder(&dir("half"), "cagrad", 1, 6);
    let text = fs::read_to_string(dir("half/log.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(
        dir("half/log.jsonl"),
        format!("{}\n{}\n{{\"step\": oops}}\n{}", lines[0], lines[1], &lines[2][..40]),
    )
    .unwrap();
    // stopped before the first row
    run_folder(&dir("empty"), "cagrad", 2, 6);
    fs::write(dir("empty/log.jsonl"), "").unwrap();
    fs::write(dir("empty/args.json"), "{ not json").unwrap();
    fs::create_dir(dir("stub")).unwrap();
    fs::write(
        dir("stub/point.json"),
        json!({ "name": "stub", "status": "failed", "error": "out of <luck>" }).to_string(),
    )
    .unwrap();
    let (html, notes) = report(&[folder.path()]);
    assert!(html.contains("Folders that are broken, half written or failed"));
    let told = |name: &str, what: &str| {
        assert!(
            notes.iter().any(|note| note.starts_with(name) && note.contains(what)),
            "{name} {what}: {notes:?}"
        );
    };
    told("half", "log.jsonl:3");
    told("empty", "not JSON");
    told("stub", "the run failed: out of <luck>");
    told("stub", "`args.json` is missing");
    assert!(notes.iter().all(|note| !note.starts_with("whole")), "{notes:?}");
    assert!(html.contains("out of &lt;luck&gt;"));
    // each of the four is shown with what it has
    for (i, title) in ["empty", "half", "stub", "whole"].iter().enumerate() {
        assert!(html.contains(&format!("id=\"run{}\">Run {title}</h2>", i + 1)), "{title}");
    }
    assert_eq!(cells(&html, "run2-losses").len(), 2);
    assert_eq!(cells(&html, "run4-losses").len(), 6);
}

#[test]
fn seeds_of_a_method_become_one_line_with_its_interval() {
    let folder = tempfile::tempdir().unwrap();
    for (method, seeds) in [("cagrad_clip", 4), ("mgda", 1)] {
        for seed in 0..seeds {
            run_folder(&folder.path().join(format!("{method}-{seed}")), method, seed, 8);
        }
    }
    let (html, _) = report(&[folder.path()]);
    assert!(!html.contains("id=\"run1\""), "five runs are not shown each");
    let rows = cells(&html, "all-0-0");
    assert_eq!(rows.len(), 16, "two methods by eight steps");
    let losses: Vec<f64> = (0..4)
        .map(|seed| {
            let log = read_log(&folder.path().join(format!("cagrad_clip-{seed}/log.jsonl"))).unwrap();
            log[3]["losses"]["quality"].as_f64().unwrap()
        })
        .collect();
    let mean = losses.iter().sum::<f64>() / 4.0;
    let deviation = (losses.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
    let half = 3.182_446_305_283_708 * deviation / 2.0;
    assert_eq!(rows[3][..3], ["cagrad_clip", "3", "4"]);
    for (found, expected) in rows[3][3..].iter().zip([mean, mean - half, mean + half]) {
        assert!((found.parse::<f64>().unwrap() - expected).abs() < 1e-9, "{:?}", rows[3]);
    }
    assert_eq!(rows[8 + 3][4..], ["–", "–"], "one seed has no interval");
    for text in
        ["answer of cagrad_clip", "answer of mgda", "before training", "an old answer", "score: quality"]
    {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn a_folder_without_a_run_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.html");
    let error = |dir: PathBuf| write_report(&[dir], &out).unwrap_err().to_string();
    assert!(error(folder.path().to_owned()).contains("there is no run in this folder or below it"));
    assert!(error(folder.path().join("gone")).contains("there is no such folder"));
    assert!(!out.exists());
}
