//! Parquet files give the rows that JSONL and CSV give; broken ones are told by row group, row and column.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use raco::data::{Message, Preferences, Prompt, ReadOptions, Row, Tokenizer, write_preferences};
use raco::error::Error;
use serde_json::json;

use super::{bytes, labels, pair};

const SCHEMA: &str = "message rows {
    optional binary prompt (UTF8);
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary role (UTF8); optional binary content (UTF8); } } }
    required binary chosen (UTF8);
    required binary rejected (UTF8);
    optional group objectives { optional double quality; optional double brevity; }
}";

fn tokenizer() -> Tokenizer {
    let template = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}assistant:{% endif %}";
    bytes(&json!({ "chat_template": template }))
}

fn texts(group: &mut SerializedRowGroupWriter<File>, values: &[Option<&str>]) {
    let mut column = group.next_column().unwrap().unwrap();
    let present: Vec<ByteArray> = values.iter().flatten().map(|text| ByteArray::from(*text)).collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    column.typed::<ByteArrayType>().write_batch(&present, Some(&levels), None).unwrap();
    column.close().unwrap();
}

fn required(group: &mut SerializedRowGroupWriter<File>, values: Vec<ByteArray>) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
}

fn turns(row: &Row) -> &[Message] {
    match &row.prompt {
        Prompt::Messages(turns) => turns,
        Prompt::Text(_) => &[],
    }
}

/// One key of the messages: levels say where a list begins and where there is none.
fn of_messages(group: &mut SerializedRowGroupWriter<File>, rows: &[Row], key: fn(&Message) -> &str) {
    let mut column = group.next_column().unwrap().unwrap();
    let (mut values, mut definition, mut repetition) = (vec![], vec![], vec![]);
    for row in rows {
        for (place, message) in turns(row).iter().enumerate() {
            values.push(ByteArray::from(key(message)));
            definition.push(4);
            repetition.push(i16::from(place > 0));
        }
        if turns(row).is_empty() {
            definition.push(0);
            repetition.push(0);
        }
    }
    column.typed::<ByteArrayType>().write_batch(&values, Some(&definition), Some(&repetition)).unwrap();
    column.close().unwrap();
}

fn numbers(group: &mut SerializedRowGroupWriter<File>, values: &[Option<f64>]) {
    let mut column = group.next_column().unwrap().unwrap();
    let present: Vec<f64> = values.iter().flatten().copied().collect();
    let levels: Vec<i16> = values.iter().map(|value| 1 + i16::from(value.is_some())).collect();
    column.typed::<DoubleType>().write_batch(&present, Some(&levels), None).unwrap();
    column.close().unwrap();
}

fn write_parquet(path: &Path, rows: &[Row], codec: Compression, group_rows: usize) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let mut file = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in rows.chunks(group_rows) {
        let mut group = file.next_row_group().unwrap();
        let prompt = |row: &Row| match &row.prompt {
            Prompt::Text(text) => Some(text.clone()),
            Prompt::Messages(_) => None,
        };
        let prompts: Vec<Option<String>> = rows.iter().map(prompt).collect();
        texts(&mut group, &prompts.iter().map(Option::as_deref).collect::<Vec<_>>());
        of_messages(&mut group, rows, |message| &message.role);
        of_messages(&mut group, rows, |message| &message.content);
        for side in 0..2 {
            required(
                &mut group,
                rows.iter().map(|row| ByteArray::from(row.responses[side].as_str())).collect(),
            );
        }
        for objective in 0..2 {
            let label = |row: &Row| row.objectives[objective].1.map(f64::from);
            numbers(&mut group, &rows.iter().map(label).collect::<Vec<_>>());
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

fn write_csv(path: &Path, rows: &[Row]) {
    let mut file = csv::Writer::from_path(path).unwrap();
    file.write_record(["prompt", "messages", "chosen", "rejected", "objectives.quality", "raco_s_brevity"])
        .unwrap();
    for row in rows {
        let (prompt, messages) = match &row.prompt {
            Prompt::Text(text) => (text.clone(), String::new()),
            Prompt::Messages(turns) => (String::new(), json!(turns).to_string()),
        };
        let label = |objective: usize| row.objectives[objective].1.map_or(String::new(), |l| l.to_string());
        file.write_record([&prompt, &messages, &row.responses[0], &row.responses[1], &label(0), &label(1)])
            .unwrap();
    }
    file.flush().unwrap();
}

/// Text that is not blank, in any script, with what CSV has to quote.
fn text() -> impl Strategy<Value = String> {
    "[a-zé \"',\n{\\[]{0,8}[a-z🦀][ \n]?"
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let label = || prop::sample::select(vec![Some(1), Some(-1), Some(0), None]);
    let row =
        (text(), text(), text(), label(), label(), any::<bool>()).prop_map(|(ask, a, b, q, v, chat)| {
            let mut row = pair(&ask, &a, &b, &[("quality", q), ("brevity", v)]);
            if chat {
                let turns = [("user", "so?"), ("assistant", "yes"), ("user", &ask)];
                row.prompt = Prompt::Messages(turns.map(|(role, text)| Message::new(role, text)).to_vec());
            }
            row
        });
    // a first row with both labels: an objective without any is refused
    prop::collection::vec(row, 0..7).prop_map(|mut rows| {
        rows.insert(0, pair("how", "ten", "red", &[("quality", Some(1)), ("brevity", Some(-1))]));
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_rows_through_three_formats(
        rows in rows(),
        group_rows in 1usize..5,
        codec in prop::sample::select(vec![
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
        ]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_preferences(&path("rows.jsonl"), &rows).unwrap();
        write_csv(&path("rows.csv"), &rows);
        write_parquet(&path("rows.parquet"), &rows, codec, group_rows);
        let tokenizer = tokenizer();
        let read = |name: &str| Preferences::read(&path(name), &tokenizer, &ReadOptions::default()).unwrap();
        let json = read("rows.jsonl");
        for name in ["rows.csv", "rows.parquet"] {
            let other = read(name);
            prop_assert_eq!(&other.objectives, &json.objectives);
            prop_assert_eq!(labels(&other), labels(&json));
            for (a, b) in other.examples.iter().zip(json.examples.iter()) {
                prop_assert_eq!((&a.prompt, &a.prompt_ids, &a.responses), (&b.prompt, &b.prompt_ids, &b.responses));
            }
            prop_assert_eq!(other.fingerprint(), json.fingerprint());
        }
    }
}

fn file_of(rows: &[Row]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    write_parquet(&path, rows, Compression::UNCOMPRESSED, 2);
    (dir, path)
}

fn refused(path: &Path) -> Error {
    Preferences::read(path, &tokenizer(), &ReadOptions::default()).unwrap_err()
}

fn three() -> Vec<Row> {
    let row = |chosen: &str| pair("how", chosen, "red", &[("quality", Some(1)), ("brevity", Some(0))]);
    vec![row("ten"), row("two"), row("unmistakable")]
}

#[test]
fn bad_rows_are_told_by_their_number() {
    let mut rows = three();
    rows[2].responses[0] = " ".into();
    let (_dir, path) = file_of(&rows);
    let error = refused(&path);
    assert_eq!(error.what(), "row 3: `chosen` is empty");
    assert!(error.to_string().contains("rows.parquet"), "{error}");
    rows[1].objectives[1].1 = Some(7);
    let (_dir, path) = file_of(&rows);
    let what = "2 of 3 rows are unusable:\n  row 2: label `brevity` must be -1, 0, 1 or null, found `7.0`\n  \
                row 3: `chosen` is empty";
    assert_eq!(refused(&path).what(), what);
}

#[test]
fn a_broken_page_is_told_by_row_group_and_column() {
    let (_dir, path) = file_of(&three());
    let mut content = std::fs::read(&path).unwrap();
    let at = content.windows(12).position(|part| part == b"unmistakable").unwrap();
    content[at + 3] = 0xff;
    std::fs::write(&path, &content).unwrap();
    let error = refused(&path);
    let place = "row 1 of row group 1, column `chosen` cannot be read: ";
    assert!(error.what().starts_with(place), "{error}");
    assert!(error.help_text().is_some());
}

#[test]
fn no_file_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    for content in ["", "PAR1", "{\"prompt\": \"how\"}\n", "PAR1 cut off in the middle of a row group"] {
        std::fs::write(&path, content).unwrap();
        let error = refused(&path);
        assert!(error.what().starts_with("not a Parquet file: "), "{error}");
        assert_eq!(error.help_text(), Some("fetch or write the file again"));
    }
    let (_dir, path) = file_of(&[]);
    assert_eq!(refused(&path).what(), "there are no rows");
}

#[test]
fn a_type_that_rows_do_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    let write = |column: &str| {
        let schema = format!("message rows {{ required binary chosen (UTF8); {column} }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let file = File::create(&path).unwrap();
        SerializedFileWriter::new(file, schema, Arc::default()).unwrap().close().unwrap();
    };
    write("required int64 rejected (TIMESTAMP(MILLIS,true));");
    assert_eq!(refused(&path).what(), "column `rejected` is of a type that rows do not have");
    write("required int32 raco_s_quality (DATE);");
    assert_eq!(refused(&path).what(), "column `raco_s_quality` is of a type that rows do not have");
    // a column that no layout reads may be anything
    write("required int64 created (TIMESTAMP(MILLIS,true));");
    assert_eq!(refused(&path).what(), "there are no rows");
}

#[test]
fn files_of_pyarrow_give_the_rows_of_their_jsonl() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    let objectives = Some(vec!["quality".to_owned(), "verbosity".to_owned()]);
    let tokenizer = tokenizer();
    let read = |name: &str| {
        let options = ReadOptions { objectives: objectives.clone(), ..ReadOptions::default() };
        Preferences::read(&folder.join(name), &tokenizer, &options).unwrap()
    };
    let expected = read("raco.jsonl");
    assert_eq!(expected.len(), 4);
    assert_eq!(labels(&expected)[3], [None, Some(1)]);
    for name in ["raco", "moa", "struct", "map"] {
        assert_eq!(read(&format!("{name}.parquet")).examples, expected.examples, "{name}");
    }
    let ids = |name: &str| {
        Preferences::read(&folder.join(name), &tokenizer, &ReadOptions::default()).unwrap().fingerprint()
    };
    assert_eq!(ids("ids.parquet"), ids("ids.jsonl"));
}

#[test]
fn no_flipped_byte_stops_the_reader() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer();
    for name in ["raco", "moa", "struct", "map", "ids"] {
        let good = std::fs::read(folder.join(format!("{name}.parquet"))).unwrap();
        let path = dir.path().join("rows.parquet");
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            std::fs::write(&path, bad).unwrap();
            // rows or an error: either is an answer
            let _ = Preferences::read(&path, &tokenizer, &ReadOptions::default());
        }
    }
}
