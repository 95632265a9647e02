use proptest::prelude::*;
use raco::data::{Message, Preferences, Prompt, ReadOptions, Row, RowIds, read_rows, write_preferences};

use super::{pair, words};

fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["Cleo", "sold", "ten", "red", "tents", ".", "blue"]);
    prop::collection::vec(word, 1..5).prop_map(|words| words.join(" "))
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let label = || prop::sample::select(vec![Some(1), Some(-1), Some(0), None]);
    let row =
        (text(), text(), text(), label(), label(), any::<bool>()).prop_map(|(prompt, a, b, q, v, chat)| {
            let mut row = pair(&prompt, &a, &b, &[("quality", q), ("verbosity", v)]);
            if chat {
                let turns = [("user", "how to ?"), ("assistant", "ten"), ("user", &prompt)];
                row.prompt = Prompt::Messages(turns.map(|(role, text)| Message::new(role, text)).to_vec());
            }
            row
        });
    prop::collection::vec(row, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read_back(rows in rows()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/pairs.jsonl");
        write_preferences(&path, &rows).unwrap();
        let back = read_rows(&path).unwrap();
        prop_assert_eq!(back.len(), rows.len());
        for (index, (row, back)) in rows.iter().zip(back).enumerate() {
            prop_assert_eq!(&back.prompt, &row.prompt);
            prop_assert_eq!(&back.responses, &row.responses);
            prop_assert_eq!(&back.objectives, &row.objectives);
            prop_assert_eq!(back.line, index + 1);
        }
    }
}

#[test]
fn demonstrations_and_ids_are_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demonstrations.jsonl");
    write_preferences(&path, &[Row::demonstration("sum up : Cleo", "Cleo sold tents .")]).unwrap();
    let set = Preferences::demonstrations(&path, &words(), &ReadOptions::default()).unwrap();
    assert!(set.objectives.is_empty());
    assert_eq!(set.examples[0].prompt, "sum up : Cleo");
    assert_eq!(set.examples[0].responses[0].text, "Cleo sold tents .");
    assert_eq!(set.examples[0].responses[0].ids, words().encode("Cleo sold tents . <|end|>").unwrap());

    let ids = RowIds { prompt: vec![1, 4], responses: vec![vec![7, 3], vec![8]] };
    let row = Row { ids: Some(ids.clone()), ..pair("sum", "Cleo", "sold", &[("quality", Some(1))]) };
    let path = dir.path().join("ids.jsonl");
    write_preferences(&path, &[row]).unwrap();
    assert_eq!(read_rows(&path).unwrap()[0].ids, Some(ids));
}

#[test]
fn an_unwritable_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = write_preferences(&file.join("pairs.jsonl"), &[]).unwrap_err();
    assert!(error.what().starts_with("cannot write the rows: "), "{}", error.what());
}
