//! What length limits cut, and what they leave.

use proptest::prelude::*;
use raco::data::{Keep, Preferences, ReadOptions, Truncated};
use raco::error::Error;
use serde_json::json;

use super::{pair, words};

fn read(prompt: usize, chosen: usize, rejected: usize, options: &ReadOptions) -> Result<Preferences, Error> {
    let ids = |first: u32, count: usize| (0..count as u32).map(|i| first + i).collect::<Vec<_>>();
    let row = json!({ "prompt_ids": ids(0, prompt), "chosen_ids": ids(100, chosen), "rejected_ids": ids(200, rejected),
                      "prompt": "how", "chosen": "ten", "rejected": "red", "objectives": { "quality": 1 } });
    super::read("pairs.jsonl", &row.to_string(), options)
}

proptest! {
    #[test]
    fn the_rule(
        prompt in 1usize..30,
        chosen in 1usize..30,
        rejected in 1usize..30,
        max_length in 2usize..60,
        max_prompt in prop::option::of(1usize..30),
        start in any::<bool>(),
    ) {
        let keep = if start { Keep::Start } else { Keep::End };
        let max_prompt_length = max_prompt.unwrap_or(usize::MAX);
        let options = ReadOptions { max_length, max_prompt_length, keep, ..ReadOptions::default() };
        let left = prompt.min(max_prompt_length);
        let set = match read(prompt, chosen, rejected, &options) {
            Ok(set) => set,
            Err(error) => {
                let (no_room, no_limit) = (error.what().contains("`max_length`"), max_prompt.is_none_or(|p| p >= max_length));
                prop_assert!(no_room && no_limit, "{}", error);
                prop_assert!(left >= max_length || max_prompt.is_some_and(|p| p >= max_length));
                return Ok(());
            }
        };
        let example = &set.examples[0];
        // the prompt keeps one end, the responses their beginning
        let first = if start { 0 } else { (prompt - left) as u32 };
        prop_assert_eq!(&example.prompt_ids, &(first..first + left as u32).collect::<Vec<_>>());
        prop_assert_eq!(example.prompt_tokens, prompt);
        for (response, (base, whole)) in example.responses.iter().zip([(100, chosen), (200, rejected)]) {
            let kept = whole.min(max_length - left) as u32;
            prop_assert!(kept > 0);
            prop_assert_eq!(&response.ids, &(base..base + kept).collect::<Vec<_>>());
            prop_assert_eq!(response.tokens, whole);
        }
        let cut = [prompt > left, chosen > max_length - left, rejected > max_length - left];
        let responses = usize::from(cut[1]) + usize::from(cut[2]);
        let expected = Truncated { rows: usize::from(cut.contains(&true)), prompts: usize::from(cut[0]), responses };
        prop_assert_eq!(set.truncated(), expected);
        prop_assert_eq!(set.summary().truncated, expected);
        // losses that divide by lengths see those before the cut
        let batch = set.select(&[0]);
        prop_assert_eq!((batch.lengths(0).unwrap(), batch.lengths(1).unwrap()), (vec![chosen], vec![rejected]));
        prop_assert_eq!(batch.scored_tokens(), example.responses.iter().map(|r| r.ids.len()).sum::<usize>());
    }
}

#[test]
fn a_cut_response_has_no_end_token_and_its_text_is_whole() {
    let options = ReadOptions { max_length: 6, ..ReadOptions::default() };
    let rows = vec![pair("how to", "ten red tents", "blue", &[("quality", Some(1))])];
    let set = Preferences::from_rows(rows, &words(), &options).unwrap();
    let ids = |text| words().encode(text).unwrap();
    let [chosen, rejected] = &set.examples[0].responses[..] else { panic!() };
    assert_eq!(set.examples[0].prompt_ids, ids("<|user|> how to <|assistant|>"));
    assert_eq!(
        (chosen.ids.clone(), chosen.text.as_str(), chosen.tokens),
        (ids("ten red"), "ten red tents", 4)
    );
    assert_eq!((rejected.ids.clone(), rejected.is_cut()), (ids("blue <|end|>"), false));
}

#[test]
fn a_cut_changes_the_fingerprint_even_where_the_ids_are_equal() {
    let options = ReadOptions { max_length: 6, ..ReadOptions::default() };
    let (long, short) = (read(3, 9, 9, &options).unwrap(), read(3, 3, 3, &options).unwrap());
    assert_eq!(long.examples[0].responses[0].ids, short.examples[0].responses[0].ids);
    assert_ne!(long.fingerprint(), short.fingerprint());
}

#[test]
fn limits_that_leave_nothing_are_refused() {
    let refused = |max_length, max_prompt_length| {
        let error = read(9, 3, 3, &ReadOptions { max_length, max_prompt_length, ..ReadOptions::default() });
        let error = error.unwrap_err();
        (error.what().to_owned(), error.help_text().unwrap().to_owned())
    };
    let none = usize::MAX;
    for (length, prompt) in [(1, none), (0, none), (none, 0)] {
        assert!(refused(length, prompt).0.contains("leave no room"), "{length} {prompt}");
    }
    assert_eq!(
        refused(4, 4).0,
        "`max_prompt_length` is 4, which leaves nothing of `max_length` 4 for a response"
    );
    assert_eq!(
        refused(9, none),
        (
            "the prompt makes 9 tokens, `max_length` is 9".to_owned(),
            "give `max_prompt_length`: longer prompts are cut to it".to_owned()
        )
    );
    let error = "keep_middle".parse::<Keep>().unwrap_err();
    assert_eq!(error.what(), "truncation must be `keep_start` or `keep_end`, found `keep_middle`");
}
