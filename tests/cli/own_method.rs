//! `raco new`, `raco check`, `raco doc`, and the guide that leads through them.

use std::path::{Path, PathBuf};

use raco::script::doc;

use crate::common::program::{Outcome, Program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A short run of the main job.
const SHORT: &str = "--steps 2 --evaluate 2 --batch 4";

#[test]
fn every_template_keeps_its_promises_and_trains() {
    for (name, flags) in [
        ("plain", ""),
        ("kept", "--stateful"),
        ("all", "--coordinates"),
        ("both", "--stateful --coordinates"),
    ] {
        let program = Program::new();
        let made = program.run(&format!("new aggregator {name} {flags}"));
        assert!(made.success().out.contains(&format!("raco check --method {name}.rhai")), "{}", made.all());
        let checked = program.run(&format!("check --method {name}.rhai --seeds 2"));
        let out = &checked.success().out;
        assert!(out.contains("without an answer") && !out.contains("lacks"), "{out}");
        assert!(!out.contains("not claimed"), "{out}");
        program.run(&format!("script scripts/raco_clip.rhai --aggregator {name} {SHORT}")).success();
    }
}

#[test]
fn new_overwrites_nothing_and_takes_sane_names() {
    let program = Program::new();
    program.write("mine.rhai", "kept");
    program.run("new aggregator mine").fails(1, &["`mine.rhai` is there already"]);
    assert_eq!(program.read("mine.rhai"), "kept");
    for name in ["Mine", "../mine", "mine.rhai", "2nd", "a-b"] {
        program.run(&format!("new aggregator {name}")).fails(2, &["is no name of an aggregator"]);
    }
}

#[test]
fn a_broken_promise_ends_with_a_counterexample() {
    let program = Program::new();
    let holds = "//! Holds   non-conflicting, follows-weights\n";
    program.write(
        "half.rhai",
        format!("//! Half: half of it.\n//!\n{holds}fn weights(h, w, options) {{ w }}\n"),
    );
    let outcome = program.run("check --method half.rhai --m 1,2 --seeds 2");
    assert_eq!(outcome.code, Some(1), "{}", outcome.all());
    for line in [
        "| non-conflicting | FAILS  |",
        "| follows-weights | holds  |",
        "`non-conflicting` fails; smallest matrix, from one of the family",
        "expected  ⟨row ",
        "let g = gradients([[",
        "holds on all cases, not claimed: scale-equivariant",
        "the header lacks Reads",
    ] {
        assert!(outcome.out.contains(line), "no `{line}` in {}", outcome.all());
    }
    // the lines to try it in a script do
    let lines: Vec<&str> = outcome.out.lines().filter_map(|l| l.strip_prefix("    ")).collect();
    let start = lines.iter().position(|l| l.starts_with("let g")).unwrap();
    program.write("try.rhai", lines[start..start + 2].join("\n"));
    assert!(program.run("script try.rhai").success().out.starts_with('['));
}

#[test]
fn what_cannot_be_checked_is_told_with_what_mends_it() {
    let program = Program::new();
    program.write(
        "half.rhai",
        "//! Half: x.\n//!\n//! Holds   single, descnt\nfn weights(h, w, options) { w }\n",
    );
    program
        .run("check --method half.rhai")
        .fails(1, &["half.rhai:3: unknown property `descnt`", "`descent`"]);
    program
        .run("check --method haf.rhai")
        .fails(1, &["unknown aggregator `haf.rhai`", "did you mean `half`?"]);
    program.run("check --method cagrad_clp").fails(1, &["did you mean `cagrad_clip`?"]);
    program.run("check --method half.rhai --lib nowhere").fails(2, &["`--lib nowhere` is not a folder"]);
    program.write("half.rhai", "//! Half: x.\nfn weights(h, w, options) { nrom(w) }\n");
    program
        .run("check --method half.rhai")
        .fails(1, &["function `nrom` with (array) not found", "half.rhai:2:29"]);
    let range = program.run("check --method half.rhai --m 0");
    assert!(range.code == Some(2) && range.err.contains("from 1 to 64"), "{}", range.all());
}

#[test]
fn a_method_of_the_library_is_checked_by_name_and_printed() {
    let program = Program::new();
    let checked = program.run("check --method mgda --m 1,2 --seeds 1");
    assert!(checked.success().out.starts_with("stdlib/aggregators/mgda.rhai: 26 cases, 0 without an answer"));
    let printed = program.run("doc mgda");
    let out = &printed.success().out;
    assert!(
        out.starts_with("mgda — MGDA: the least-norm point") && out.contains("\nHolds   scale-equiv"),
        "{out}"
    );
    let listed = program.run("doc");
    assert!(
        listed.success().out.lines().any(|l| l.starts_with("  dpo ")) && listed.out.contains("\n  mgda ")
    );
    program.run("doc mgdaa").fails(1, &["the reference has no `mgdaa`", "did you mean `mgda`?"]);
}

#[test]
fn the_reference_is_up_to_date() {
    let made = "run `raco doc --markdown docs/reference`";
    let pages = doc::pages();
    for (path, page) in &pages {
        let committed = std::fs::read_to_string(root().join("docs/reference").join(path)).unwrap_or_default();
        assert!(committed == *page, "docs/reference/{path} differs from the header: {made}");
    }
    for folder in ["aggregators", "losses"] {
        for entry in std::fs::read_dir(root().join("docs/reference").join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(
                pages.iter().any(|(path, _)| *path == name),
                "docs/reference/{name} has no file: remove it"
            );
        }
    }
    let promises = doc::promises();
    assert!(promises.contains("| mgda | ✓ |"), "{promises}");
    let choosing = text("docs/guide/choosing.md");
    let table = "paste the tables under `Promises` of docs/reference/aggregators/README.md";
    assert!(choosing.ends_with(&promises), "docs/guide/choosing.md differs from the headers: {table}");
    let program = Program::new();
    program.run("doc --markdown made").success();
    for (path, page) in &pages {
        assert_eq!(program.read(&format!("made/{path}")), *page);
    }
}

/// A fenced block: its language, its lines, and the text between it and the one before.
struct Block {
    language: String,
    lines: String,
    before: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let parts: Vec<&str> = markdown.split("```").collect();
    let block = |pair: &[&str]| {
        let (language, lines) = pair[1].split_once('\n').unwrap();
        Block { language: language.to_owned(), lines: lines.to_owned(), before: pair[0].to_owned() }
    };
    parts.chunks_exact(2).map(block).collect()
}

/// Every command of the guide runs in its order, every file is written as it stands there, and what is shown was printed.
#[test]
fn the_guide_to_an_own_method_does_what_it_says() {
    let program = Program::new();
    for script in ["aggregate", "toy", "replay"] {
        program.copy(&format!("scripts/{script}.rhai"), &format!("scripts/{script}.rhai"));
    }
    let guide = text("docs/guide/your-own-aggregator.md");
    let (mut file, mut last): (Option<PathBuf>, Option<Outcome>) = (None, None);
    let mut commands = 0;
    let blocks = blocks(&guide);
    for (i, block) in blocks.iter().enumerate() {
        let named = block
            .before
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| [".rhai", ".json"].iter().any(|end| code.ends_with(end)));
        file = named.filter(|code| !code.contains([' ', '/'])).last().map(PathBuf::from).or(file);
        match block.language.as_str() {
            "rhai" | "json" => program.write(file.as_ref().unwrap().to_str().unwrap(), &block.lines),
            "sh" => {
                let fails = blocks.get(i + 1).is_some_and(|next| next.language == "text");
                for line in block.lines.lines() {
                    let words = line.strip_prefix("raco ").unwrap_or_else(|| panic!("no command: {line}"));
                    let short = if words.contains("raco_clip.rhai") { SHORT } else { "" };
                    let outcome = program.run(&format!("{words} {short}"));
                    assert_eq!(outcome.code, Some(i32::from(fails)), "{line}: {}", outcome.all());
                    assert!(fails || !outcome.out.contains("FAILS"), "{line}: {}", outcome.all());
                    last = Some(outcome);
                    commands += 1;
                }
            }
            "text" => {
                let shown = last.as_ref().unwrap();
                assert!(shown.out.contains(block.lines.trim()), "{}", shown.all());
            }
            other => panic!("a block of `{other}`"),
        }
    }
    assert!(commands >= 7, "{commands} commands");
    let even: serde_json::Value = serde_json::from_str(&program.read("out.json")).unwrap();
    assert!(even["opposed"]["even"]["direction"][0].as_f64().unwrap().abs() < 1e-12, "{even}");
    assert!(program.path("runs/toy/paths.svg").is_file() && program.path("runs/even/replay").is_dir());
}
