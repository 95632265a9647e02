//! Data: tokenizers, rows, batches, packing.

mod bad_input;
mod batch;
mod hub;
mod layouts;
mod packed;
mod parquet;
mod read;
mod real_tokenizers;
mod row;
mod schedule;
mod select;
mod summary;
mod template;
mod tokenizer;
mod truncation;

use std::path::{Path, PathBuf};

use raco::data::{Preferences, ReadOptions, Row, Tokenizer};
use raco::error::{Error, Place};
use serde_json::{Value, json};

/// A word-level tokenizer of a handful of words.
fn words() -> Tokenizer {
    let words = "sum up : Cleo sold ten red tents . gave blue drums how to ? user assistant and";
    Tokenizer::word_level(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
}

/// A tokenizer folder of this tokenizer.json and tokenizer_config.json.
fn folder(tokenizer: &Value, config: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

/// Every byte is a token, so that decoding shows what was rendered.
fn bytes(config: &Value) -> Tokenizer {
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let hidden = (0..256).filter(|b| !printable(b)).enumerate();
    let shown = (0..256).filter(printable).map(|b| (b, b));
    let alphabet = shown.chain(hidden.map(|(i, b)| (b, 256 + i as u32)));
    let vocab: serde_json::Map<String, Value> =
        alphabet.map(|(byte, code)| (char::from_u32(code).unwrap().to_string(), json!(byte))).collect();
    let level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": level, "post_processor": null,
        "decoder": level, "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    });
    Tokenizer::load(folder(&tokenizer, config).path()).unwrap()
}

/// Reads pairs from a file of this name and content.
fn read(name: &str, content: &str, options: &ReadOptions) -> Result<Preferences, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    Preferences::read(&path, &words(), options)
}

fn read_pairs(content: &str) -> Result<Preferences, Error> {
    read("pairs.jsonl", content, &ReadOptions::default())
}

/// Line and column of the file that an error names.
fn position(error: &Error) -> (Option<usize>, Option<usize>) {
    match error.places() {
        [Place::File { line, column, .. }] => (*line, *column),
        places => panic!("expected one file, found {places:?}"),
    }
}

fn labels(preferences: &Preferences) -> Vec<Vec<Option<i8>>> {
    preferences.examples.iter().map(|example| example.labels.clone()).collect()
}

fn pair(prompt: &str, chosen: &str, rejected: &str, objectives: &[(&str, Option<i8>)]) -> Row {
    Row::pair(
        prompt,
        chosen,
        rejected,
        objectives.iter().map(|(name, label)| ((*name).to_owned(), *label)).collect(),
    )
}

/// A file of the larger sample sets, which are not part of the repository: in `RACO_SHARED`, or in a folder
/// `shared` beside the checkout.
fn sample(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = std::env::var_os("RACO_SHARED").map_or_else(beside, PathBuf::from).join(name);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
    }
    path.exists().then_some(path)
}
