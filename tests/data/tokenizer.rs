use raco::data::{Message, Prompt, Template, Tokenizer};
use serde_json::{Value, json};

use super::{bytes, folder, position, words};

fn ids(text: &str) -> Vec<u32> {
    words().encode(text).unwrap()
}

#[test]
fn words_follow_the_special_tokens_and_the_first_occurrence_wins() {
    let list = ["a", "b", "<|end|>", "a", "c"].map(str::to_owned);
    let tokenizer = Tokenizer::word_level(&list).unwrap();
    let expected = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "a", "b", "c"];
    for (id, word) in expected.iter().enumerate() {
        assert_eq!(tokenizer.token_id(word), Some(id as u32));
    }
    assert_eq!((tokenizer.vocab_size(), tokenizer.max_id()), (7, 6));
    assert_eq!(
        (tokenizer.end_tokens(), tokenizer.pad_token(), tokenizer.bos_token()),
        (&[3][..], Some(0), None)
    );
    assert_eq!(tokenizer.encode("b <|end|> c").unwrap(), [5, 3, 6]);
    assert_eq!(tokenizer.decode(&[1, 5, 6, 3]).unwrap(), "b c");
    assert_eq!(tokenizer.encode("b x").unwrap_err().what(), "the vocabulary has no word `x`");
    let error = Tokenizer::word_level(&["a b".to_owned()]).unwrap_err();
    assert_eq!(error.what(), "a word must not be empty or have white space, found `a b`");
}

#[test]
fn a_conversation_of_words() {
    let turns =
        [("user", "how to ?"), ("assistant", "ten"), ("user", "sum up")].map(|(r, c)| Message::new(r, c));
    let prompt = Prompt::Messages(turns.to_vec());
    let tokenizer = words();
    assert_eq!(
        tokenizer.prompt_ids(&prompt, Template::Auto).unwrap(),
        ids("<|user|> how to ? <|assistant|> ten <|end|> <|user|> sum up <|assistant|>")
    );
    assert_eq!(
        tokenizer.response_ids(&prompt, "red tents .", Template::Auto).unwrap(),
        ids("red tents . <|end|>")
    );
    assert_eq!(
        tokenizer.prompt_ids(&"sum up".into(), Template::Auto).unwrap(),
        ids("<|user|> sum up <|assistant|>")
    );
    assert_eq!(tokenizer.prompt_ids(&"sum up".into(), Template::None).unwrap(), ids("sum up"));
    assert_eq!(tokenizer.response_ids(&"sum up".into(), "ten", Template::None).unwrap(), ids("ten <|end|>"));
    let error = tokenizer.prompt_ids(&prompt, Template::None).unwrap_err();
    assert_eq!(error.what(), "a conversation needs a chat template");
}

#[test]
fn saving_and_loading_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let tokenizer = words();
    tokenizer.save(&path).unwrap();
    let back = Tokenizer::load(&path).unwrap();
    assert_eq!(back.fingerprint(), tokenizer.fingerprint());
    assert_eq!(back.end_tokens(), tokenizer.end_tokens());
    let prompt = Prompt::from("sum up : Cleo");
    for template in [Template::Auto, Template::None] {
        assert_eq!(
            back.prompt_ids(&prompt, template).unwrap(),
            tokenizer.prompt_ids(&prompt, template).unwrap()
        );
    }
    let other = Tokenizer::word_level(&["sum".to_owned()]).unwrap();
    assert_ne!(other.fingerprint(), tokenizer.fingerprint());
}

#[test]
fn a_tokenizer_fits_the_model_or_is_refused() {
    let tokenizer = words();
    tokenizer.check_fits(tokenizer.vocab_size()).unwrap();
    let error = tokenizer.check_fits(20).unwrap_err();
    let what = format!(
        "the tokenizer does not fit the model: token ids up to `{}`, but the model has 20 token rows",
        tokenizer.max_id()
    );
    assert_eq!(error.what(), what);
    assert_eq!(
        tokenizer.check_fits(3).unwrap_err().what(),
        "the tokenizer does not fit the model: end token `3`, but the model has 3 token rows"
    );
}

fn bpe(vocab: Value, merges: Value, more: Value) -> Value {
    let mut json = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "model": { "type": "BPE", "vocab": vocab, "merges": merges },
    });
    more.as_object().unwrap().iter().for_each(|(key, value)| json[key] = value.clone());
    json
}

#[test]
fn a_token_never_spans_the_prompt_and_the_response() {
    let json = bpe(json!({ "a": 0, "b": 1, "ab": 2, "x": 3 }), json!([["a", "b"]]), json!({}));
    let tokenizer = Tokenizer::load(folder(&json, &json!({ "eos_token": "x" })).path()).unwrap();
    assert_eq!(tokenizer.encode("aab").unwrap(), [0, 2]);
    assert_eq!(tokenizer.prompt_ids(&"aa".into(), Template::Auto).unwrap(), [0, 0]);
    assert_eq!(tokenizer.response_ids(&"aa".into(), "ba", Template::Auto).unwrap(), [1, 0, 3]);
    // an end token that the text brings is not doubled
    assert_eq!(tokenizer.response_ids(&"aa".into(), "bx", Template::Auto).unwrap(), [1, 3]);
}

#[test]
fn a_response_is_tokenised_as_the_continuation_that_it_is() {
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false });
    let vocab = json!({ "a": 0, "b": 1, "▁": 2, "▁a": 3, "▁b": 4 });
    let json = bpe(vocab, json!([["▁", "a"], ["▁", "b"]]), json!({ "pre_tokenizer": metaspace }));
    let tokenizer = Tokenizer::load(folder(&json, &json!({})).path()).unwrap();
    assert_eq!(tokenizer.encode("b").unwrap(), [4]);
    assert_eq!(tokenizer.prompt_ids(&"a".into(), Template::Auto).unwrap(), [3]);
    assert_eq!(tokenizer.response_ids(&"a".into(), "b", Template::Auto).unwrap(), [1]);
    assert_eq!(tokenizer.response_ids(&"a".into(), " b", Template::Auto).unwrap(), [4]);
}

#[test]
fn a_raw_prompt_begins_as_every_text_of_the_tokenizer() {
    let piece = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let special = |token: &str, id: u32| json!({ "id": token, "ids": [id], "tokens": [token] });
    let processor = json!({
        "type": "TemplateProcessing", "single": [piece("<s>"), sequence, piece("</s>")], "pair": [sequence],
        "special_tokens": { "<s>": special("<s>", 1), "</s>": special("</s>", 2) },
    });
    let json = bpe(
        json!({ "a": 0, "<s>": 1, "</s>": 2, "b": 3 }),
        json!([]),
        json!({ "post_processor": processor }),
    );
    let config = json!({ "bos_token": { "content": "<s>" }, "eos_token": { "content": "</s>" } });
    let tokenizer = Tokenizer::load(folder(&json, &config).path()).unwrap();
    assert_eq!((tokenizer.bos_token(), tokenizer.end_token()), (Some(1), Some(2)));
    assert_eq!(tokenizer.encode("ab").unwrap(), [0, 3]);
    assert_eq!(tokenizer.prompt_ids(&"ab".into(), Template::Auto).unwrap(), [1, 0, 3]);
    assert_eq!(tokenizer.response_ids(&"ab".into(), "b", Template::Auto).unwrap(), [3, 2]);
}

#[test]
fn a_length_limit_of_the_file_cuts_nothing() {
    let limit = json!({ "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
                        "padding": { "strategy": { "Fixed": 9 }, "direction": "Right", "pad_to_multiple_of": null,
                                     "pad_id": 0, "pad_type_id": 0, "pad_token": "a" } });
    let json = bpe(json!({ "a": 0, "b": 1 }), json!([]), limit);
    let tokenizer = Tokenizer::load(folder(&json, &json!({})).path()).unwrap();
    assert_eq!(tokenizer.encode("abab").unwrap(), [0, 1, 0, 1]);
}

#[test]
fn end_tokens_are_gathered_from_all_files_and_the_template() {
    let added = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let json = bpe(
        json!({ "y": 0, "e": 1, "s": 2, "o": 3 }),
        json!([]),
        json!({ "added_tokens": [added(4, "<eos>"), added(5, "<eot>"), added(6, "<eom>")] }),
    );
    let config = json!({ "eos_token": "<eos>",
        "chat_template": "{% for m in messages %}{{ m.content + '<eot>' }}{% endfor %}" });
    let dir = folder(&json, &config);
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [4, 6]}"#).unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().end_tokens(), [4, 6, 5]);
}

#[test]
fn broken_folders_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err();
    assert!(error.what().starts_with("cannot read the tokenizer: "), "{error}");
    std::fs::write(dir.path().join("tokenizer.model"), "").unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err();
    assert_eq!(error.what(), "the folder has tokenizer.model but no tokenizer.json");
    std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err();
    assert!(error.what().starts_with("cannot read the tokenizer: "), "{error}");
    assert_eq!(position(&error), (None, None));

    let json = bpe(json!({ "a": 0 }), json!([]), json!({}));
    let load = |config: Value| Tokenizer::load(folder(&json, &config).path()).map(|_| ()).unwrap_err();
    let error = load(json!({ "eos_token": "<eos>" }));
    assert_eq!(error.what(), "eos_token `<eos>` is not in the vocabulary");
    let error = load(json!({ "chat_template": "{% for %}" }));
    assert!(error.what().starts_with("the chat template is malformed: "), "{error}");
}

#[test]
fn the_special_tokens_map_fills_what_the_config_leaves_open() {
    let dir = folder(
        &bpe(json!({ "a": 0, "b": 1 }), json!([]), json!({})),
        &json!({ "bos_token": null, "eos_token": "a" }),
    );
    std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"bos_token": "b", "eos_token": "b"}"#)
        .unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((tokenizer.bos_token(), tokenizer.end_token()), (Some(1), Some(0)));
}

#[test]
fn every_byte_is_encoded_and_decoded() {
    let tokenizer = bytes(&json!({}));
    let text = "Ünïcode \u{1f600}\r\n\ttab";
    assert_eq!(tokenizer.encode(text).unwrap().len(), text.len());
    assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
}
