//! Renderings and ids of real tokenizers against transformers; `tests/golden/tokenizers` has the script.
//!
//! The tokenizers are fetched, not committed: `tests/golden/tokenizers/fetch.sh` puts them into target/tokenizers.
//! Where RACO_TOKENIZERS names their folder, as in `.ci/run`, they must be there.

use std::path::{Path, PathBuf};

use raco::data::{Message, Preferences, Prompt, ReadOptions, Row, Template, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    vocab: usize,
    bos: Option<u32>,
    chats: Vec<Chat>,
    raw: Vec<Raw>,
}

#[derive(Deserialize)]
struct Chat {
    name: String,
    messages: Vec<Message>,
    text: String,
    ids: Vec<u32>,
    answer: String,
    whole: Vec<u32>,
}

#[derive(Deserialize)]
struct Raw {
    prompt: String,
    answer: String,
    prompt_ids: Vec<u32>,
    answer_ids: Vec<u32>,
    whole: Vec<u32>,
}

/// Each family with the token that ends its turns, and what its template writes after a last answer unasked.
const FAMILIES: [(&str, &str, &str); 3] = [
    ("qwen3", "<|im_end|>", ""),
    ("llama3", "<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    ("gemma3", "<end_of_turn>", ""),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn load(family: &str) -> Option<(Tokenizer, Golden)> {
    let named = std::env::var_os("RACO_TOKENIZERS").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| root().join("target/tokenizers")).join(family);
    if !folder.exists() {
        assert!(named.is_none(), "{} is missing: run tests/golden/tokenizers/fetch.sh", folder.display());
        println!("skipped: tests/golden/tokenizers/fetch.sh has not fetched {}", folder.display());
        return None;
    }
    let golden =
        std::fs::read_to_string(root().join(format!("tests/golden/tokenizers/{family}.json"))).unwrap();
    Some((Tokenizer::load(&folder).unwrap(), serde_json::from_str(&golden).unwrap()))
}

#[test]
fn conversations_render_and_tokenise_as_in_transformers() {
    for (family, end, unasked) in FAMILIES {
        let Some((tokenizer, golden)) = load(family) else { continue };
        assert_eq!((tokenizer.vocab_size(), tokenizer.bos_token()), (golden.vocab, golden.bos), "{family}");
        let end = tokenizer.token_id(end).unwrap();
        assert!(tokenizer.end_tokens().contains(&end), "{family}");
        let unasked = tokenizer.encode(unasked).unwrap();
        assert!(golden.chats.len() > 8);
        for chat in &golden.chats {
            let prompt = Prompt::Messages(chat.messages.clone());
            let place = format!("{family}, {}", chat.name);
            assert_eq!(tokenizer.prompt_text(&prompt, Template::Auto).unwrap(), chat.text, "{place}");
            let prompt_ids = tokenizer.prompt_ids(&prompt, Template::Auto).unwrap();
            assert_eq!(prompt_ids, chat.ids, "{place}");
            let response = tokenizer.response_ids(&prompt, &chat.answer, Template::Auto).unwrap();
            // the prompt's ids begin the ids of the whole conversation, and the response's go on to its end
            assert_eq!([&prompt_ids[..], &response, &unasked].concat(), chat.whole, "{place}");
            assert!(response.contains(&end), "{place}");
            let shown = tokenizer.decode(&response).unwrap();
            assert!(shown.trim().ends_with(chat.answer.trim()), "{place}: {shown}");
        }
    }
}

#[test]
fn raw_texts_keep_the_prompt_as_it_is() {
    for (family, ..) in FAMILIES {
        let Some((tokenizer, golden)) = load(family) else { continue };
        let mut apart = 0;
        for raw in &golden.raw {
            let prompt = Prompt::Text(raw.prompt.clone());
            let place = format!("{family}, `{}` + `{}`", raw.prompt, raw.answer);
            assert_eq!(tokenizer.prompt_ids(&prompt, Template::None).unwrap(), raw.prompt_ids, "{place}");
            let mut response = tokenizer.response_ids(&prompt, &raw.answer, Template::None).unwrap();
            assert_eq!(response.pop(), tokenizer.end_token(), "{place}");
            match raw.whole.strip_prefix(&raw.prompt_ids[..]) {
                Some(rest) => assert_eq!(response, rest, "{place}"),
                // tokenised at once, a token would span both: they are tokenised apart
                None => {
                    apart += 1;
                    assert_eq!(response, raw.answer_ids, "{place}");
                }
            }
        }
        assert!(apart > 0 && apart < golden.raw.len(), "{family}: both kinds are tried");
    }
}

#[test]
fn pairs_of_a_real_tokenizer_end_as_its_turns_do() {
    for (family, end, _) in FAMILIES {
        let Some((tokenizer, _)) = load(family) else { continue };
        let row = Row::pair("Why?", "Because.", "So.", vec![("quality".to_owned(), Some(1))]);
        let set = Preferences::from_rows(vec![row], &tokenizer, &ReadOptions::default()).unwrap();
        let end = tokenizer.token_id(end).unwrap();
        for response in &set.examples[0].responses {
            let after: Vec<u32> = response.ids.iter().copied().skip_while(|id| *id != end).skip(1).collect();
            assert!(response.ids.contains(&end), "{family}");
            assert_eq!(
                tokenizer.decode(&after).unwrap().trim(),
                "",
                "{family}: white space after the end at most"
            );
        }
    }
}
