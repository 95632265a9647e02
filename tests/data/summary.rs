//! Counts of a summary against counting by hand, and its rates against the shares of the definition.

use proptest::prelude::*;
use raco::data::{Agreement, Lengths, Preferences, ReadOptions, Truncated};

use super::{pair, sample, words};

type Labels = [Option<i8>; 3];

fn set(rows: &[(&str, &str, &str, Labels)]) -> Preferences {
    let row = |(prompt, a, b, l): &(&str, &str, &str, Labels)| {
        pair(prompt, a, b, &[("quality", l[0]), ("brevity", l[1]), ("tone", l[2])])
    };
    Preferences::from_rows(rows.iter().map(row).collect(), &words(), &ReadOptions::default()).unwrap()
}

#[test]
fn counts() {
    let set = set(&[
        ("how", "ten", "red tents", [Some(1), Some(1), None]),
        ("how", "red tents", "ten", [Some(1), Some(-1), Some(0)]),
        ("how", "ten", "blue", [Some(-1), Some(1), Some(1)]),
        ("sum up", "ten", "red tents", [Some(0), Some(-1), None]),
        ("how", "ten", "red tents", [None, Some(1), None]),
    ]);
    let summary = set.summary();
    assert_eq!((summary.rows, summary.prompts), (5, 2));
    // the second row is the first with its sides turned, the fifth is the first again
    assert_eq!(summary.duplicates, 2);
    assert_eq!(summary.truncated, Truncated::default());
    let counts = |i: usize| {
        let c = &summary.labels[i];
        (c.objective.as_str(), c.chosen, c.rejected, c.ties, c.unlabelled)
    };
    assert_eq!(counts(0), ("quality", 2, 1, 1, 1));
    assert_eq!(counts(1), ("brevity", 3, 2, 0, 0));
    assert_eq!(counts(2), ("tone", 1, 0, 1, 3));
    let agreement = |a: &str, b: &str, agree, conflict, ties| Agreement {
        objectives: [a.to_owned(), b.to_owned()],
        agree,
        conflict,
        ties,
    };
    assert_eq!(
        summary.agreements,
        [
            agreement("quality", "brevity", 1, 2, 1),
            agreement("quality", "tone", 0, 1, 1),
            agreement("brevity", "tone", 1, 0, 1),
        ]
    );
    assert_eq!(summary.agreements[0].conflict_rate(), Some(2.0 / 3.0));
    assert_eq!(summary.agreements[0].correlation(), Some(1.0 - 4.0 / 3.0));
    // <|user|> how <|assistant|>; ten <|end|>
    let chosen = Lengths { median: 2, p95: 3, max: 3 };
    assert_eq!(summary.lengths[0], ("prompt", Lengths { median: 3, p95: 4, max: 4 }));
    assert_eq!(summary.lengths[1], ("chosen", chosen));
    assert_eq!(set.take(0).summary().lengths[1].1, Lengths::default());
    assert_eq!(set.take(0).summary().agreements[0].conflict_rate(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn quantiles_are_those_of_the_definition(lengths in prop::collection::vec(1usize..30, 1..40)) {
        let rows = lengths.iter().map(|n| pair("how", &vec!["ten"; *n].join(" "), "red", &[("quality", Some(1))]));
        let set = Preferences::from_rows(rows.collect(), &words(), &ReadOptions::default()).unwrap();
        let (_, found) = set.summary().lengths[1];
        // the least length that this part of the rows does not pass; one more token is the end
        let quantile = |part: f64| (1..).find(|n| {
            lengths.iter().filter(|l| *l <= n).count() as f64 >= part * lengths.len() as f64
        }).unwrap() + 1;
        prop_assert_eq!(found.median, quantile(0.5));
        prop_assert_eq!(found.p95, quantile(0.95));
        prop_assert_eq!(found.max, quantile(1.0));
    }
}

#[test]
fn the_counts_of_the_sample_files_are_those_of_their_readme() {
    let tokenizer = super::bytes(&serde_json::json!({}));
    for (name, conflicts) in [("hh_pairs", [531, 591, 608]), ("dpo_demo", [67, 75, 77])] {
        let Some(path) = sample(&format!("data/{name}.jsonl")) else { return };
        let set = Preferences::read(&path, &tokenizer, &ReadOptions::default()).unwrap();
        let found: Vec<usize> = set.summary().agreements.iter().map(|a| a.conflict).collect();
        assert_eq!(found, conflicts, "{name}");
    }
    let Some(path) = sample("data/qa_feedback.jsonl") else { return };
    let summary = Preferences::read(&path, &tokenizer, &ReadOptions::default()).unwrap().summary();
    assert_eq!((summary.rows, summary.prompts), (1326, 221));
    assert_eq!(summary.labels[0].ties, 183);
    assert_eq!((summary.agreements[0].agree, summary.agreements[0].conflict), (546, 578));
}
