//! The house in order: imports point one way, every test file runs, the README tells the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Folder → (what it may import, what only it may name), from the table of ARCHITECTURE.md.
fn table() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut table: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    let mut above = BTreeSet::new();
    for line in text.lines().filter(|l| l.starts_with("| `src/")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').trim_start_matches("src/").to_owned();
        let list = |cell: &str| -> BTreeSet<String> {
            cell.split(',')
                .map(|s| s.trim().replace('-', "_"))
                .filter(|s| !s.is_empty() && s != "–")
                .collect()
        };
        let may = match cells[2] {
            "the above" | "all above" => above.clone(),
            cell => list(cell),
        };
        above.insert(name.clone());
        table.insert(name, (may, list(cells[3])));
    }
    assert_eq!(table.len(), 8, "the table of ARCHITECTURE.md has a row a folder: {table:?}");
    table
}

/// Names that follow `marker` in code (comments left out).
fn names_after(text: &str, marker: &str) -> BTreeSet<String> {
    let code = text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let ends = |c: char| !(c.is_alphanumeric() || c == '_');
    code.match_indices(marker)
        .map(|(at, _)| code[at + marker.len()..].split(ends).next().unwrap().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_follow_the_table() {
    let table = table();
    let mut wrong = Vec::new();
    for (folder, (may, _)) in &table {
        for file in rust_files(&root().join("src").join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("use crate::{"), "{}: one `use` a module, please", file.display());
            for name in names_after(&text, "crate::") {
                let known = table.contains_key(&name);
                if known && name != *folder && !may.contains(&name) {
                    wrong.push(format!("{}: {folder} may not import {name}", file.display()));
                }
            }
            for (owner, (_, alone)) in &table {
                for name in alone.iter().filter(|_| owner != folder) {
                    if text.contains(&format!("{name}::")) {
                        wrong.push(format!("{}: only {owner} may name {name}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_file_runs() {
    let tests = root().join("tests");
    for file in rust_files(&tests) {
        let (name, parent) = (file.file_stem().unwrap().to_str().unwrap(), file.parent().unwrap());
        let (parent, name) = match name {
            "main" => continue,
            "mod" => (parent.parent().unwrap(), parent.file_name().unwrap().to_str().unwrap()),
            name => (parent, name),
        };
        let owner = if parent == tests { tests.join("main.rs") } else { parent.join("mod.rs") };
        let text = std::fs::read_to_string(&owner).unwrap();
        let declared = [format!("mod {name};"), format!("pub mod {name};")];
        assert!(
            text.lines().any(|l| declared.iter().any(|d| l.trim() == d)),
            "{} is not declared in {}",
            file.display(),
            owner.display()
        );
    }
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands: Vec<&str> = readme.lines().filter(|l| l.starts_with("cargo ")).take(2).collect();
    assert_eq!(
        commands,
        ["cargo run --release -- script scripts/raco_clip.rhai", "cargo test --release"],
        "the first two commands of the README"
    );
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.lines().any(|l| l == commands[1]), ".ci/run calls the README's test command");
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut documents =
        vec!["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"]
            .into_iter()
            .map(|f| root().join(f))
            .collect::<Vec<_>>();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { documents.push(path) }
        }
    }
    for document in documents.into_iter().filter(|d| d.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(&document).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{}: `{target}` is not there", document.display());
        }
    }
}
