//! The ways in which a file of rows, a tokenizer or a template can be wrong: each is told with its place and its mend.
//! What a hub can get wrong is tried in `hub.rs`, broken Parquet pages in `parquet.rs`, rows one by one in `read.rs`.

use raco::data::{Preferences, ReadOptions, Template, Tokenizer};
use raco::error::Error;
use serde_json::{Value, json};

use super::{bytes, words};

/// What `error` tells must name `place`, say `what`, and mend it by `help`.
fn told(case: &str, error: &Error, [place, what, help]: [&str; 3]) {
    let text = error.to_string();
    assert!(text.contains(place), "{case}: no `{place}` in {text}");
    assert!(error.what().contains(what), "{case}: no `{what}` in {text}");
    let given = error.help_text().unwrap_or_else(|| panic!("{case}: no help in {text}"));
    assert!(given.contains(help), "{case}: no `{help}` in {text}");
    assert!(!given.is_empty() && !error.what().ends_with('.'), "{case}: {text}");
}

const OK: &str = r#"{"prompt":"how","chosen":"ten","rejected":"red","objectives":{"quality":1}}"#;

/// File name, content, and place, fault, mend.
type File = (&'static str, &'static [u8], [&'static str; 3]);

const FILES: &[File] = &[
    ("a.jsonl", b"", ["a.jsonl", "there are no rows", "one row a line"]),
    ("a.jsonl", b"\n\n \n", ["a.jsonl", "there are no rows", "one row a line"]),
    ("a.jsonl", b"{\"prompt\": ", ["a.jsonl:1:11", "malformed JSON", "one JSON object a line"]),
    ("a.jsonl", b"\xff\xfe{}", ["a.jsonl:1:1", "malformed JSON", "one JSON object a line"]),
    ("a.jsonl", b"[\n{\"prompt\": \"how\"}\n]", ["a.jsonl", "3 of 3 rows", "one JSON object a line"]),
    ("a.jsonl", b"7", ["a.jsonl:1", "a row must be a JSON object", "one JSON object a line"]),
    ("a.jsonl", b"{}", ["a.jsonl:1", "the row has no `objectives`", "label the row"]),
    (
        "a.jsonl",
        br#"{"prompt":"how","chosen":"ten","reject":"red","objectives":{"quality":1}}"#,
        ["a.jsonl:1", "the row has no `rejected`", "rename `reject` to `rejected`"],
    ),
    (
        "a.jsonl",
        br#"{"prompt":"how","chosen":"ten","rejected":"red","objectives":{"quality":"A"}}"#,
        ["a.jsonl:1", "label `quality` must be -1, 0, 1 or null, found `\"A\"`", "1: `chosen` is preferred"],
    ),
    (
        "a.jsonl",
        br#"{"Summary_A":"ten","Summary_B":"red","prompt":"how","Quality":"left"}"#,
        ["a.jsonl:1", "label `Quality` must be `A`, `B`, `tie` or null", "left alone once the objectives are named"],
    ),
    (
        "a.jsonl",
        br#"{"prompt":"how","chosen":"ten","rejected":"red","objectives":{"quality":null}}"#,
        ["a.jsonl", "objective `quality` is labelled by no row", "label some rows"],
    ),
    (
        "a.jsonl",
        br#"{"prompt":"how","chosen":"ten","rejected":" ","objectives":{"quality":1}}"#,
        ["a.jsonl:1", "`rejected` is empty", "leave the row out"],
    ),
    (
        "a.jsonl",
        br#"{"prompt":"how","chosen":"zebra","rejected":"red","objectives":{"quality":1}}"#,
        ["a.jsonl:1", "the vocabulary has no word `zebra`", "use words of the vocabulary"],
    ),
    (
        "a.jsonl",
        br#"{"messages":[{"role":"user","text":"how"}],"chosen":"ten","rejected":"red","objectives":{"quality":1}}"#,
        ["a.jsonl:1", "message 1 of `messages` must be {role, content}", "mend the row"],
    ),
    (
        "a.jsonl",
        br#"{"prompt_ids":[1],"chosen_ids":[4.5],"rejected_ids":[4],"objectives":{"quality":1}}"#,
        ["a.jsonl:1", "`chosen_ids` must be a list of token ids", "mend the row"],
    ),
    (
        "a.jsonl",
        br#"{"prompt_ids":[1],"chosen_ids":[4],"rejected_ids":[99],"objectives":{"quality":1}}"#,
        ["a.jsonl:1", "token id `99`, but the model has 30 token rows", "mend the row"],
    ),
    (
        "a.jsonl",
        br#"{"prompt":"how","response":"ten"}"#,
        ["a.jsonl:1", "a demonstration, not a pair", "load_demonstrations"],
    ),
    ("a.csv", b"", ["a.csv", "there are no rows", "one row a line"]),
    ("a.csv", b"prompt,chosen,rejected\nhow,ten,red\n", ["a.csv:2", "the row has no `objectives`", "label the row"]),
    ("a.csv", b"prompt,chosen\nhow\n", ["a.csv:2", "expected 2 columns, found 1", "one row a line"]),
    ("a.csv", b"prompt,prompt\nhow,to\n", ["a.csv:1", "column 2 repeats the name `prompt`", "rename the column"]),
    ("a.csv", b"prompt,chosen\nhow,\xff\n", ["a.csv:2", "the text is not UTF-8", "in UTF-8"]),
    (
        "a.csv",
        b"prompt,chosen,rejected,raco_s_quality\nhow,ten,red,nan\n",
        ["a.csv:2", "label `raco_s_quality` must be -1, 0, 1 or null, found `\"nan\"`", "a tie"],
    ),
    (
        "a.csv",
        b"messages,chosen,rejected,raco_s_quality\nhow,ten,red,1\n",
        ["a.csv:2", "column `messages` must hold JSON", "mend the row"],
    ),
    ("a.parquet", b"PAR1PAR1", ["a.parquet", "not a Parquet file", "fetch or write the file again"]),
    ("a.parquet", b"{}", ["a.parquet", "not a Parquet file", "fetch or write the file again"]),
    ("a.xlsx", b"PK", ["a.xlsx", "rows are read from `.jsonl`, `.csv` or `.parquet`, found `.xlsx`", "convert the file"]),
    ("rows", b"{}", ["rows", "found no extension", "convert the file"]),
];

#[test]
fn files_of_rows() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReadOptions { vocab: 30, ..ReadOptions::default() };
    for (name, content, expected) in FILES {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = Preferences::read(&path, &words(), &options).unwrap_err();
        told(&format!("{name} {}", String::from_utf8_lossy(content)), &error, *expected);
    }
    let absent = Preferences::read(&dir.path().join("b.jsonl"), &words(), &options).unwrap_err();
    told("absent", &absent, ["b.jsonl", "cannot read the rows", "check the path"]);
    let folder = dir.path().join("c.jsonl");
    std::fs::create_dir(&folder).unwrap();
    let error = Preferences::read(&folder, &words(), &options).unwrap_err();
    told("a folder", &error, ["c.jsonl", "cannot read the rows", "check the path"]);
    // the asked objectives
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, OK).unwrap();
    for (asked, what, help) in [
        (vec!["qualty"], "no row has an objective `qualty`", "did you mean `quality`?"),
        (vec!["tone"], "no row has an objective `tone`", "the rows label `quality`"),
        (vec!["quality", "quality"], "is named twice", "name each objective once"),
    ] {
        let objectives = Some(asked.into_iter().map(str::to_owned).collect());
        let error = Preferences::read(&path, &words(), &ReadOptions { objectives, ..ReadOptions::default() });
        told(what, &error.unwrap_err(), ["a.jsonl", what, help]);
    }
    let long = ReadOptions { context: 3, ..ReadOptions::default() };
    let error = Preferences::read(&path, &words(), &long).unwrap_err();
    told("too long", &error, ["a.jsonl:1", "the model's context is 3", "cut them with `max_length`"]);
}

/// tokenizer.json, other files, and place, fault, mend.
type Folder = (String, &'static [(&'static str, &'static str)], [&'static str; 3]);

#[test]
fn tokenizer_folders() {
    let good = || {
        json!({ "version": "1.0", "added_tokens": [], "model": { "type": "BPE", "vocab": { "a": 0 }, "merges": [] } })
            .to_string()
    };
    let none: &[(&str, &str)] = &[];
    let again = "fetch the file again";
    let cases: [Folder; 12] = [
        (String::new(), none, ["tokenizer.json", "cannot read the tokenizer", again]),
        ("{".into(), none, ["tokenizer.json", "cannot read the tokenizer", again]),
        ("[]".into(), none, ["tokenizer.json", "cannot read the tokenizer", again]),
        (good().replace("BPE", "PBE"), none, ["tokenizer.json", "cannot read the tokenizer", again]),
        (
            good().replace("[]}", "[[\"a\",\"b\"]]}"),
            none,
            ["tokenizer.json", "cannot read the tokenizer", again],
        ),
        (
            good(),
            &[("tokenizer_config.json", "{\"eos\"")],
            ["tokenizer_config.json", "malformed JSON", again],
        ),
        (good(), &[("special_tokens_map.json", "[]")], ["special_tokens_map.json", "malformed JSON", again]),
        (good(), &[("generation_config.json", "")], ["generation_config.json", "malformed JSON", again]),
        (
            good(),
            &[("tokenizer_config.json", "{\"eos_token\":\"</s>\"}")],
            ["tokenizer_config.json", "eos_token `</s>` is not in the vocabulary", "from the same model"],
        ),
        (
            good(),
            &[("tokenizer_config.json", "{\"chat_template\":\"{% for %}\"}")],
            ["tokenizer_config.json", "the chat template is malformed", "mend the template"],
        ),
        (
            good(),
            &[("chat_template.jinja", "{{ messages[0]\n")],
            ["chat_template.jinja", "the chat template is malformed", "mend the template"],
        ),
        (
            good(),
            &[("tokenizer_config.json", "{}"), ("chat_template.jinja", "{% if a %}\n{{ b }}")],
            ["chat_template.jinja", "the chat template is malformed", "mend the template"],
        ),
    ];
    for (tokenizer, others, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), &tokenizer).unwrap();
        for (name, content) in others {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        told(&format!("{tokenizer} {others:?}"), &Tokenizer::load(dir.path()).unwrap_err(), expected);
    }
    let dir = tempfile::tempdir().unwrap();
    let missing = Tokenizer::load(dir.path()).unwrap_err();
    told("no file", &missing, ["tokenizer.json", "cannot read the tokenizer", "check the path"]);
    std::fs::write(dir.path().join("tokenizer.model"), "").unwrap();
    let old = Tokenizer::load(dir.path()).unwrap_err();
    told("sentencepiece", &old, ["", "tokenizer.model but no tokenizer.json", "save_pretrained"]);
    std::fs::write(dir.path().join("tokenizer.json"), good()).unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), [0xff, 0xfe]).unwrap();
    told("bytes", &Tokenizer::load(dir.path()).unwrap_err(), ["chat_template.jinja", "not UTF-8", again]);
    let misfit = words().check_fits(5).unwrap_err();
    told("misfit", &misfit, ["", "the tokenizer does not fit the model", "that the model was trained with"]);
}

#[test]
fn templates_that_cannot_render() {
    let turns = "{% for m in messages %}{{ m.content }}{% endfor %}";
    for (template, what, help) in [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate", "template: \"none\""),
        ("{{ messages | sort_by_mood }}", "filter sort_by_mood is unknown", "template: \"none\""),
        ("{{ messages[0].content.shout() }}", "no method named shout", "template: \"none\""),
        ("{{ strftime_now('%Q') }}", "strftime_now does not know `%Q`", "template: \"none\""),
        ("{{ messages | tojson(ensure_ascii=true) }}", "ensure_ascii", "template: \"none\""),
        ("{% for i in range(100000000) %}a{% endfor %}", "", "template: \"none\""),
        (
            &format!("{turns}{{% if add_generation_prompt %}}<think>{{% endif %}}") as &str,
            "renders the prompt differently once it is answered",
            "template: \"none\"",
        ),
    ] {
        let tokenizer = bytes(&json!({ "chat_template": template }));
        let error = tokenizer.response_ids(&"hi".into(), "ho", Template::Auto).unwrap_err();
        told(template, &error, ["", what, help]);
    }
    let wrong = "jinja".parse::<Template>().unwrap_err();
    told("option", &wrong, ["", "template must be `auto` or `none`, found `jinja`", "the raw text"]);
    let chat: Value = json!([{ "role": "user", "content": "how" }, { "role": "assistant", "content": "ten" },
                             { "role": "user", "content": "to" }]);
    let row = json!({ "messages": chat, "chosen": "ten", "rejected": "red", "objectives": { "quality": 1 } });
    let raw = ReadOptions { template: Template::None, ..ReadOptions::default() };
    let error = super::read("a.jsonl", &row.to_string(), &raw).unwrap_err();
    told(
        "raw chat",
        &error,
        ["a.jsonl:1", "a conversation needs a chat template", "give the prompt as text"],
    );
}
