use proptest::prelude::*;
use raco::data::{Preferences, ReadOptions, Template, Tokenizer};
use serde_json::{Value, json};

use super::{labels, read, read_pairs, sample, words};

fn chat(turns: &[(&str, &str)]) -> Value {
    json!(turns.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect::<Vec<_>>())
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn all_layouts_of_the_same_pairs_read_the_same(
        signs in prop::collection::vec((-1i8..=1, -1i8..=1), 1..6),
    ) {
        let full = |answer: &str| chat(&[("user", "sum up : Cleo"), ("assistant", answer)]);
        let side = |s: i8| ["B", "tie", "A"][(s + 1) as usize];
        let moa = signs.iter().map(|(q, v)| json!({
            "Summary_A": full("Cleo sold tents ."), "Summary_B": full("Cleo ."),
            "Quality": side(*q), "Verbosity": side(*v) }));
        let raco = signs.iter().map(|(q, v)| json!({
            "chosen": full("Cleo sold tents ."), "rejected": full("Cleo ."),
            "raco_s_quality": f64::from(*q), "raco_s_verbosity": f64::from(*v) }));
        let canonical = signs.iter().map(|(q, v)| json!({
            "prompt": "sum up : Cleo", "chosen": "Cleo sold tents .", "rejected": "Cleo .",
            "objectives": { "quality": q, "verbosity": v } }));
        let csv = signs.iter().fold(
            "prompt,chosen,rejected,objectives.quality,objectives.verbosity\n".to_owned(),
            |csv, (q, v)| format!("{csv}sum up : Cleo,Cleo sold tents .,\"Cleo .\",{q},{v}\n"),
        );
        let sets = [
            read_pairs(&lines(canonical)).unwrap(),
            read_pairs(&lines(moa)).unwrap(),
            read_pairs(&lines(raco)).unwrap(),
            read("pairs.csv", &csv, &ReadOptions::default()).unwrap(),
        ];
        let expected: Vec<_> = signs.iter().map(|(q, v)| vec![Some(*q), Some(*v)]).collect();
        for set in &sets {
            prop_assert_eq!(&labels(set), &expected);
            prop_assert_eq!(set.fingerprint(), sets[0].fingerprint());
            prop_assert_eq!(&set.examples[0].prompt, "sum up : Cleo");
            prop_assert_eq!(&set.examples[0].responses[1].text, "Cleo .");
        }
    }
}

fn same_files(raco: &str, moa: &str) {
    let (Some(raco), Some(moa)) = (sample(raco), sample(moa)) else { return };
    // every character of these files is a token here
    let tokenizer =
        super::bytes(&json!({ "chat_template": "{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}\
        {% if add_generation_prompt %}assistant{% endif %}" }));
    let read = |path| Preferences::read(path, &tokenizer, &ReadOptions::default()).unwrap();
    let (raco, moa) = (read(&raco), read(&moa));
    assert_eq!(*raco.objectives, ["quality", "verbosity"]);
    assert_eq!(raco.objectives, moa.objectives);
    assert_eq!(raco.examples, moa.examples);
    assert_eq!(raco.len(), 50);
    // the sides of these files were shuffled
    assert!(raco.label_counts().iter().all(|count| count.chosen > 5 && count.rejected > 5));
}

#[test]
fn the_authors_two_layouts_agree_on_their_files() {
    same_files("data/raco_layout_50.jsonl", "data/moa_layout_50.jsonl");
    same_files("data/qa_raco_layout_50.jsonl", "data/qa_moa_layout_50.jsonl");
}

#[test]
fn messages_win_over_the_prompt_text() {
    let turns = chat(&[("user", "how"), ("assistant", "ten"), ("user", "sum up")]);
    let row = json!({ "prompt": "how to", "messages": turns, "chosen": "red", "rejected": "blue",
                      "objectives": { "quality": 1 } });
    let set = read_pairs(&lines([row.clone()])).unwrap();
    let rendered =
        words().encode("<|user|> how <|assistant|> ten <|end|> <|user|> sum up <|assistant|>").unwrap();
    assert_eq!(set.examples[0].prompt_ids, rendered);
    assert_eq!(set.examples[0].prompt, "how to");

    let raw = ReadOptions { template: Template::None, ..ReadOptions::default() };
    let set = read("pairs.jsonl", &lines([row]), &raw).unwrap();
    assert_eq!(set.examples[0].prompt_ids, words().encode("how to").unwrap());
    assert_eq!(set.examples[0].responses[0].ids, words().encode("red <|end|>").unwrap());
}

#[test]
fn the_prompt_may_be_a_list_and_stand_beside_answers_of_one_message() {
    let row = json!({ "prompt": chat(&[("user", "sum up")]), "chosen": chat(&[("assistant", "ten")]),
                      "rejected": chat(&[("assistant", "red")]), "raco_s_quality": -1.0 });
    let set = read_pairs(&lines([row])).unwrap();
    assert_eq!(set.examples[0].prompt_ids, words().encode("<|user|> sum up <|assistant|>").unwrap());
    assert_eq!(set.examples[0].responses[1].ids, words().encode("red <|end|>").unwrap());
    assert_eq!(labels(&set), [[Some(-1)]]);
}

#[test]
fn texts_of_the_raco_layout_may_carry_their_prompt() {
    let tokenizer = super::bytes(&json!({}));
    let read = |chosen: &str, rejected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        let row = json!({ "chosen": chosen, "rejected": rejected, "raco_s_quality": 1 });
        std::fs::write(&path, row.to_string()).unwrap();
        let set = Preferences::read(&path, &tokenizer, &ReadOptions::default())?;
        let example = &set.examples[0];
        Ok::<_, raco::Error>((
            example.prompt.clone(),
            example.responses.iter().map(|r| r.text.clone()).collect::<Vec<_>>(),
        ))
    };
    let (prompt, responses) =
        read("\n\nHuman: hi\n\nAssistant: I am A", "\n\nHuman: hi\n\nAssistant: I am B").unwrap();
    assert_eq!(
        (prompt.as_str(), responses),
        ("\n\nHuman: hi\n\nAssistant:", vec![" I am A".into(), " I am B".into()])
    );
    let (prompt, responses) = read("The sky is blue.", "The sky is green.").unwrap();
    assert_eq!((prompt.as_str(), responses), ("The sky is", vec![" blue.".into(), " green.".into()]));
    assert_eq!(read("yes", "no").unwrap_err().what(), "the row has no `prompt`");
}

#[test]
fn ids_are_taken_as_they_are() {
    let row = json!({ "prompt_ids": [9, 1], "chosen_ids": [4], "rejected_ids": [5, 6, 3], "objectives": { "quality": 1 } });
    let set = read_pairs(&lines([row])).unwrap();
    let example = &set.examples[0];
    assert_eq!(example.prompt_ids, [9, 1]);
    assert_eq!((&example.responses[0].ids[..], &example.responses[1].ids[..]), (&[4][..], &[5, 6, 3][..]));
    assert_eq!(example.responses[1].text, words().decode(&[5, 6]).unwrap());
}

#[test]
fn demonstrations_may_be_whole_conversations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demonstrations.jsonl");
    let row = json!({ "messages": chat(&[("user", "sum up"), ("assistant", "ten"), ("user", "how"), ("assistant", "red")]) });
    std::fs::write(&path, lines([row, json!({ "prompt": "sum", "response": "up" })])).unwrap();
    let set = Preferences::demonstrations(&path, &words(), &ReadOptions::default()).unwrap();
    let ids = |text| words().encode(text).unwrap();
    assert_eq!(
        set.examples[0].prompt_ids,
        ids("<|user|> sum up <|assistant|> ten <|end|> <|user|> how <|assistant|>")
    );
    assert_eq!(set.examples[0].responses[0].ids, ids("red <|end|>"));
    assert_eq!(set.examples[1].responses[0].ids, ids("up <|end|>"));
}

#[test]
fn real_pairs_are_read() {
    let (Some(model), Some(_)) = (sample("task/model"), sample("data/qa_feedback.jsonl")) else { return };
    Tokenizer::load(&model).unwrap().check_fits(225).unwrap();
    let tokenizer = super::bytes(&json!({}));
    for (name, rows, objectives) in [
        ("data/qa_feedback.jsonl", 1326, &["quality", "brevity"][..]),
        ("data/hh_pairs.jsonl", 1184, &["harmless", "brevity", "positive"]),
        ("data/dpo_demo.jsonl", 151, &["quality", "brevity", "positive"]),
    ] {
        let Some(path) = sample(name) else { return };
        let set = Preferences::read(&path, &tokenizer, &ReadOptions::default()).unwrap();
        assert_eq!(
            (set.len(), set.objectives.as_slice()),
            (rows, objectives.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>().as_slice())
        );
    }
}
