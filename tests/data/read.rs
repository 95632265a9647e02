use proptest::prelude::*;
use raco::data::{Preferences, ReadOptions};
use serde_json::{Value, json};

use super::{labels, position, read, read_pairs, words};

const GOOD: &str =
    r#"{"prompt": "how to", "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#;

/// Rows that cannot be used, and what is said of each.
const BAD: &[(&str, &str)] = &[
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": {"quality": 2}}"#,
        "label `quality` must be -1, 0, 1 or null, found `2`",
    ),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": {"quality": 0.5}}"#,
        "label `quality` must be -1, 0, 1 or null, found `0.5`",
    ),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": {"quality": true}}"#,
        "label `quality` must be -1, 0, 1 or null, found `true`",
    ),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "raco_s_quality": "A"}"#,
        "label `raco_s_quality` must be -1, 0, 1 or null, found `\"A\"`",
    ),
    (
        r#"{"Summary_A": "ten", "Summary_B": "red", "prompt": "how", "Quality": "C"}"#,
        "label `Quality` must be `A`, `B`, `tie` or null, found `\"C\"`",
    ),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": [1]}"#,
        "`objectives` must be a map of names to labels, found a list",
    ),
    (r#"{"prompt": "how", "chosen": "ten", "rejected": "red"}"#, "the row has no `objectives`"),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "raco_s_quality": 1, "objectives": {"quality": 1}}"#,
        "objective `quality` is labelled twice",
    ),
    (r#"{"prompt": "how", "rejected": "red", "objectives": {"quality": 1}}"#, "the row has no `chosen`"),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": null, "objectives": {"quality": 1}}"#,
        "the row has no `rejected`",
    ),
    (r#"{"chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#, "the row has no `prompt`"),
    (
        r#"{"prompt": "how", "chosen": "", "rejected": "red", "objectives": {"quality": 1}}"#,
        "`chosen` is empty",
    ),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": " \n", "objectives": {"quality": 1}}"#,
        "`rejected` is empty",
    ),
    (
        r#"{"prompt": "", "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#,
        "`prompt` is empty",
    ),
    (
        r#"{"prompt": 7, "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#,
        "`prompt` must be text or chat messages, found a number",
    ),
    (
        r#"{"prompt": "how", "chosen": 7, "rejected": "red", "objectives": {"quality": 1}}"#,
        "`chosen` must be text or chat messages, found a number",
    ),
    (
        r#"{"prompt": "how", "chosen": "ten", "rejected": "hund", "objectives": {"quality": 1}}"#,
        "the vocabulary has no word `hund`",
    ),
    (
        r#"{"messages": [{"role": "user"}], "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#,
        "message 1 of `messages` must be {role, content}, both text",
    ),
    (
        r#"{"messages": [{"role": "assistant", "content": "ten"}], "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#,
        "`messages` must end before the answer, found a last message of role `assistant`",
    ),
    (
        r#"{"messages": [], "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#,
        "`messages` has no message before the answer",
    ),
    (
        r#"{"chosen": [{"role": "user", "content": "how"}], "rejected": "red", "objectives": {"quality": 1}}"#,
        "the last message of `chosen` must be the assistant's, found role `user`",
    ),
    (
        r#"{"prompt": "how", "chosen": [{"role": "assistant", "content": "ten", "thinking": "red"}],
            "rejected": [{"role": "assistant", "content": "red"}], "objectives": {"quality": 1}}"#,
        "the answer in `chosen` has a key `thinking`",
    ),
    (
        r#"{"chosen": [{"role": "user", "content": "how"}, {"role": "assistant", "content": "ten"}],
            "rejected": [{"role": "user", "content": "to"}, {"role": "assistant", "content": "ten"}], "objectives": {"quality": 1}}"#,
        "`chosen` and `rejected` must share every message but the last",
    ),
    (
        r#"{"chosen": [{"role": "user", "content": "how"}, {"role": "assistant", "content": "ten"}], "rejected": "ten", "objectives": {"quality": 1}}"#,
        "`chosen` and `rejected` must both be text or both be chat messages",
    ),
    (
        r#"{"messages": [{"role": "user", "content": "to"}], "chosen": [{"role": "user", "content": "how"}, {"role": "assistant", "content": "ten"}],
            "rejected": [{"role": "user", "content": "how"}, {"role": "assistant", "content": "red"}], "objectives": {"quality": 1}}"#,
        "`messages` differs from the messages before the answer in `chosen`",
    ),
    (
        r#"{"prompt_ids": [1], "chosen_ids": [4], "objectives": {"quality": 1}}"#,
        "the row has no `rejected_ids`",
    ),
    (
        r#"{"prompt_ids": [1], "chosen_ids": [], "rejected_ids": [4], "objectives": {"quality": 1}}"#,
        "`chosen_ids` is empty",
    ),
    (
        r#"{"prompt_ids": [1], "chosen_ids": [-4], "rejected_ids": [4], "objectives": {"quality": 1}}"#,
        "`chosen_ids` must be a list of token ids",
    ),
    (r#"{"prompt": "how", "response": "ten"}"#, "the row has one `response`: a demonstration, not a pair"),
    (r#"["how", "ten", "red"]"#, "a row must be a JSON object"),
];

#[test]
fn each_bad_row_is_told_with_its_line() {
    for (row, what) in BAD {
        let row = row.replace('\n', " ");
        let error = read_pairs(&format!("{GOOD}\n\n{row}\n{GOOD}\n")).unwrap_err();
        assert_eq!(error.what(), *what, "{row}");
        assert_eq!(position(&error), (Some(3), None), "{row}");
    }
}

#[test]
fn malformed_json_is_told_with_its_column() {
    let error = read_pairs(&format!("{GOOD}\n{{\"prompt\": \"how\" \"chosen\": 1}}\n")).unwrap_err();
    assert_eq!(error.what(), "malformed JSON: expected `,` or `}`");
    assert_eq!(position(&error), (Some(2), Some(18)));
    assert_eq!(error.help_text(), Some("write one JSON object a line"));
    let error = read_pairs("{\"prompt\": \"how\n").unwrap_err();
    assert_eq!(error.what(), "malformed JSON: EOF while parsing a string");
}

#[test]
fn a_mistyped_key_is_told() {
    let error = read_pairs(&GOOD.replace("prompt", "promt")).unwrap_err();
    assert_eq!(error.what(), "the row has no `prompt`");
    assert_eq!(error.help_text(), Some("rename `promt` to `prompt`"));
}

#[test]
fn the_first_ten_bad_rows_are_told_and_all_are_counted() {
    let bad = GOOD.replace("ten", "");
    let broken = GOOD.replace("{\"prompt\"", "{prompt");
    let long = GOOD.replace("ten", &"ten ".repeat(90));
    let mut content = format!("{GOOD}\n{long}\n{broken}\n");
    (0..10).for_each(|_| content.push_str(&format!("{bad}\n")));
    let options = ReadOptions { context: 50, ..ReadOptions::default() };
    let error = read("pairs.jsonl", &content, &options).unwrap_err();
    let mut expected = "12 of 13 rows are unusable, the first ten:\
         \n  line 2: prompt and response make 95 tokens, the model's context is 50\
         \n  line 3, column 2: malformed JSON: key must be a string"
        .to_owned();
    (4..12).for_each(|line| expected.push_str(&format!("\n  line {line}: `chosen` is empty")));
    assert_eq!(error.what(), expected);
    assert_eq!(position(&error), (None, None));
}

#[test]
fn the_context_is_a_limit_that_may_be_reached() {
    // <|user|> how to <|assistant|>, then ten <|end|>
    let fits = |context| read("pairs.jsonl", GOOD, &ReadOptions { context, ..ReadOptions::default() });
    assert!(fits(6).is_ok());
    let error = fits(5).unwrap_err();
    assert_eq!(error.what(), "prompt and response make 6 tokens, the model's context is 5");
    assert_eq!(
        error.help_text(),
        Some("cut them with `max_length`, leave these rows out, or use a model with a longer context")
    );
}

#[test]
fn ids_that_the_model_does_not_have_are_refused() {
    let row = r#"{"prompt_ids": [1], "chosen_ids": [4], "rejected_ids": [99], "objectives": {"quality": 1}}"#;
    let error = read("pairs.jsonl", row, &ReadOptions { vocab: 21, ..ReadOptions::default() }).unwrap_err();
    assert_eq!(error.what(), "token id `99`, but the model has 21 token rows");
}

#[test]
fn objectives_keep_their_first_appearance_or_the_order_given() {
    let rows = r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": {"brevity": 1}}
                  {"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": {"quality": -1, "brevity": null}}"#;
    let set = read_pairs(rows).unwrap();
    assert_eq!(*set.objectives, ["brevity", "quality"]);
    assert_eq!(labels(&set), [[Some(1), None], [None, Some(-1)]]);
    let given = |names: &[&str]| {
        let objectives = Some(names.iter().map(|name| (*name).to_owned()).collect());
        read("pairs.jsonl", rows, &ReadOptions { objectives, ..ReadOptions::default() })
    };
    assert_eq!(labels(&given(&["quality", "brevity"]).unwrap()), [[None, Some(1)], [Some(-1), None]]);
    assert_eq!(labels(&given(&["quality"]).unwrap()), [[None], [Some(-1)]]);

    let error = given(&["qualty"]).unwrap_err();
    assert_eq!(error.what(), "no row has an objective `qualty`");
    assert_eq!(error.help_text(), Some("did you mean `quality`?"));
    let error = given(&["faithful"]).unwrap_err();
    assert_eq!(error.help_text(), Some("the rows label `brevity`, `quality`"));
    let error = given(&["quality", "quality"]).unwrap_err();
    assert_eq!(error.what(), "objective `quality` is named twice");
}

#[test]
fn an_objective_that_no_row_labels_is_refused() {
    let error = read_pairs(&GOOD.replace("\"quality\": 1", "\"quality\": 1, \"brevity\": null")).unwrap_err();
    assert_eq!(error.what(), "objective `brevity` is labelled by no row");
    let error = read_pairs(&GOOD.replace("\"quality\": 1", "")).unwrap_err();
    assert_eq!(error.what(), "no row has an objective");
}

#[test]
fn a_column_that_is_no_label_is_left_alone_once_the_objectives_are_named() {
    let row = r#"{"prompt": "how", "Summary_A": "ten", "Summary_B": "red", "Quality": "B", "Topic": "news"}"#;
    assert_eq!(
        read_pairs(row).unwrap_err().what(),
        "label `Topic` must be `A`, `B`, `tie` or null, found `\"news\"`"
    );
    let objectives = Some(vec!["quality".to_owned()]);
    let set = read("pairs.jsonl", row, &ReadOptions { objectives, ..ReadOptions::default() }).unwrap();
    assert_eq!(labels(&set), [[Some(-1)]]);
}

#[test]
fn files_without_rows_or_of_another_kind_are_refused() {
    let refused = |name: &str, content: &str| {
        read(name, content, &ReadOptions::default()).unwrap_err().what().to_owned()
    };
    assert_eq!(refused("pairs.jsonl", "\n \n"), "there are no rows");
    assert_eq!(refused("pairs.csv", "prompt,chosen,rejected,raco_s_quality\n"), "there are no rows");
    assert_eq!(refused("pairs.txt", ""), "rows are read from `.jsonl`, `.csv` or `.parquet`, found `.txt`");
    let absent = Preferences::read("absent.jsonl".as_ref(), &words(), &ReadOptions::default()).unwrap_err();
    assert!(absent.what().starts_with("cannot read the rows: "), "{absent}");
    assert_eq!(position(&absent), (None, None));
}

#[test]
fn csv_faults_are_told_with_their_line() {
    let fault = |content: &str| {
        let error = read("pairs.csv", content, &ReadOptions::default()).unwrap_err();
        (error.what().to_owned(), position(&error).0)
    };
    let header = "prompt,chosen,rejected,raco_s_quality\n";
    let told = |what: &str, line| (what.to_owned(), Some(line));
    assert_eq!(
        fault(&format!("{header}how,ten,red,1\nhow,ten,red\n")),
        told("expected 4 columns, found 3", 3)
    );
    assert_eq!(
        fault(&format!("{header}\"how\nto\",ten,red,1\nhow,ten,red,3\n")),
        told("label `raco_s_quality` must be -1, 0, 1 or null, found `3.0`", 4)
    );
    assert_eq!(fault(&format!("{header}how,,red,1\n")), told("`chosen` is empty", 2));
    assert_eq!(fault("prompt,prompt\nhow,to\n"), told("column 2 repeats the name `prompt`", 1));
}

#[test]
fn csv_cells_may_hold_messages_ids_and_missing_labels() {
    let csv = "messages,chosen,rejected,raco_s_quality,raco_s_brevity\n\
               \"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"how\"\"}]\",ten,red,+1,\n\
               \"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"to\"\"}]\",ten,red,-1.0,0\n";
    let set = read("pairs.csv", csv, &ReadOptions::default()).unwrap();
    assert_eq!(labels(&set), [[Some(1), None], [Some(-1), Some(0)]]);
    assert_eq!(set.examples[1].prompt_ids, words().encode("<|user|> to <|assistant|>").unwrap());
    let csv = "prompt_ids,chosen_ids,rejected_ids,objectives\n[1],[4],\"[5, 6]\",\"{\"\"quality\"\": 1}\"\n";
    assert_eq!(read("pairs.csv", csv, &ReadOptions::default()).unwrap().examples[0].responses[1].ids, [5, 6]);
}

#[test]
fn rows_in_memory_are_named_by_number() {
    let rows =
        vec![super::pair("how", "ten", "red", &[("quality", Some(1))]), super::pair("how", "ten", " ", &[])];
    let error = Preferences::from_rows(rows, &words(), &ReadOptions::default()).unwrap_err();
    assert_eq!(error.what(), "row 2: a response is empty");
    let rows = vec![super::pair("how", "ten", "red", &[("quality", Some(3))])];
    let error = Preferences::from_rows(rows, &words(), &ReadOptions::default()).unwrap_err();
    assert_eq!(error.what(), "row 1: label `quality` must be -1, 0, 1 or null, found `3`");
}

/// Rows of the right keys with values of any kind.
fn strange_row() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "prompt",
        "messages",
        "chosen",
        "rejected",
        "response",
        "objectives",
        "raco_s_quality",
        "Summary_A",
        "Summary_B",
        "Quality",
        "prompt_ids",
        "chosen_ids",
        "rejected_ids",
    ]);
    let values = prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(1),
        json!(-1.0),
        json!(2),
        json!(""),
        json!("ten"),
        json!("ten red"),
        json!("A"),
        json!([]),
        json!([1, 2]),
        json!([1.5]),
        json!({}),
        json!({ "quality": 1 }),
        json!({ "quality": "1" }),
        json!([{ "role": "user", "content": "how" }]),
        json!([{ "role": "assistant", "content": "ten" }]),
        json!([{ "role": "user", "content": "how" }, { "role": "assistant", "content": "é" }]),
        json!([{ "role": 1 }]),
    ]);
    prop::collection::btree_map(keys, values, 0..9).prop_map(|row| json!(row))
}

proptest! {
    #[test]
    fn strange_rows_are_read_or_told_with_their_line(row in strange_row()) {
        if let Err(error) = read_pairs(&format!("\n{row}\n")) {
            let of_the_file = error.what().contains("objective");
            prop_assert!(of_the_file || position(&error).0 == Some(2), "{}", error);
        }
    }

    #[test]
    fn no_bytes_stop_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..80), csv: bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(if csv { "pairs.csv" } else { "pairs.jsonl" });
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(Preferences::read(&path, &words(), &ReadOptions::default()).is_err());
    }
}
