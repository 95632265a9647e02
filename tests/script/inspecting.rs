//! The session of the guide to conflicts is replayed, line by line, at one prompt.

use std::path::Path;

use raco::script::{Host, Live, Options};

#[test]
fn the_session_of_the_guide_runs_and_shows_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/inspecting-conflicts.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let mut live = Live::new(Host::new(Options::default()).unwrap());
    let mut shown = String::new();
    for block in guide.split("```").skip(1).step_by(2) {
        if let Some(lines) = block.strip_prefix("rhai\n") {
            shown.clear();
            for line in lines.lines() {
                let value = live.run(line).unwrap_or_else(|failure| panic!("{line}: {failure}"));
                shown += &live.show(value);
            }
            assert!(!shown.contains("has no answer"), "{shown}");
        } else {
            // on paper the same cells stand between other lines
            let words = |text: &str| -> Vec<String> {
                let cells = text.split(['│', '┆', '|', '\n']).map(str::trim);
                cells.filter(|cell| !cell.is_empty()).map(|cell| cell.replace('▒', "-")).collect()
            };
            let there = words(&shown);
            for cell in words(block.strip_prefix("text\n").unwrap()) {
                // numbers may differ in their last digits from machine to machine
                let number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
                assert!(number || there.contains(&cell), "`{cell}` is not shown in\n{shown}");
            }
        }
    }
}
