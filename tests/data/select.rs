//! Choosing, splitting, shuffling and labelling.

use std::collections::BTreeSet;

use proptest::prelude::*;
use raco::data::{Preferences, ReadOptions};

use super::{labels, pair, words};

/// Examples whose prompts are these, by number; each row has its own chosen response.
fn set(prompts: &[u8]) -> Preferences {
    let ask = ["how", "sum up", "Cleo", "ten red", "tents", "blue drums"];
    let answer = |i: usize| vec!["sold"; i + 1].join(" ");
    let row = |(i, p): (usize, &u8)| {
        pair(ask[usize::from(*p) % ask.len()], &answer(i), "gave", &[("quality", Some([1, -1][i % 2]))])
    };
    let rows = prompts.iter().enumerate().map(row).collect();
    Preferences::from_rows(rows, &words(), &ReadOptions::default()).unwrap()
}

/// The rows of a set by the length of their chosen response, which is 1 + their first place, and the end token.
fn places(set: &Preferences) -> Vec<usize> {
    set.examples.iter().map(|e| e.responses[0].ids.len() - 2).collect()
}

fn prompts(set: &Preferences) -> BTreeSet<&str> {
    set.examples.iter().map(|e| e.prompt.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_split_parts_the_rows_and_no_prompt_straddles(
        of_rows in prop::collection::vec(0u8..6, 1..40),
        fraction in 0.05f64..0.95,
        seed in any::<u64>(),
    ) {
        let set = set(&of_rows);
        match set.split(fraction, seed) {
            Err(error) => {
                prop_assert_eq!(prompts(&set).len(), 1);
                prop_assert!(error.what().contains("cannot be split"));
            }
            Ok((train, test)) => {
                prop_assert!(prompts(&train).is_disjoint(&prompts(&test)));
                prop_assert!(!train.is_empty() && !test.is_empty());
                let (a, b) = (places(&train), places(&test));
                prop_assert!(a.is_sorted() && b.is_sorted());
                let mut all = [a, b].concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..set.len()).collect::<Vec<_>>());
                // as near as whole groups allow: within the largest group
                let largest = (0..6).map(|p| of_rows.iter().filter(|q| **q == p).count()).max().unwrap();
                let off = (train.len() as f64 - fraction * set.len() as f64).abs();
                prop_assert!(off <= largest as f64, "{} of {}", train.len(), set.len());
                let (again, _) = set.split(fraction, seed).unwrap();
                prop_assert_eq!(places(&again), places(&train));
            }
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation_of_its_seed(count in 1usize..40, seed in any::<u64>()) {
        let set = set(&vec![0; count]);
        let shuffled = set.shuffle(seed);
        let mut sorted = places(&shuffled);
        prop_assert_eq!(places(&set.shuffle(seed)), sorted.clone());
        sorted.sort_unstable();
        prop_assert_eq!(sorted, places(&set));
        // labels and reference scores go with their row
        let labels = |set: &Preferences| -> BTreeSet<(usize, Option<i8>)> {
            places(set).into_iter().zip(set.examples.iter().map(|e| e.labels[0])).collect()
        };
        prop_assert_eq!(labels(&shuffled), labels(&set));
    }
}

#[test]
fn seeds_differ() {
    let set = set(&[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    assert_ne!(places(&set.shuffle(1)), places(&set.shuffle(2)));
    let parts: BTreeSet<Vec<usize>> = (0..8).map(|seed| places(&set.split(0.5, seed).unwrap().0)).collect();
    assert!(parts.len() > 4, "{parts:?}");
}

#[test]
fn taking_and_skipping_stop_at_the_ends() {
    let set = set(&[0, 1, 2]);
    assert_eq!(places(&set.take(2)), [0, 1]);
    assert_eq!(places(&set.skip(2)), [2]);
    assert_eq!((set.take(9).len(), set.skip(9).len()), (3, 0));
    assert_eq!(places(&set.pick(&[2, 0, 2])), [2, 0, 2]);
}

#[test]
fn a_reference_goes_with_its_rows() {
    let mut set = set(&[0, 1, 2]);
    set.reference = Some(std::sync::Arc::new((0..3).map(|i| vec![f64::from(i), 0.0]).collect()));
    assert_eq!(*set.pick(&[2, 1]).reference.unwrap(), [[2.0, 0.0], [1.0, 0.0]]);
}

#[test]
fn an_objective_is_added_or_refused() {
    let set = set(&[0, 1, 2]);
    let more = set.with_objective("brevity", &[Some(0), None, Some(-1)]).unwrap();
    assert_eq!(*more.objectives, ["quality", "brevity"]);
    assert_eq!(labels(&more), [[Some(1), Some(0)], [Some(-1), None], [Some(1), Some(-1)]]);
    // the set itself is as it was
    assert_eq!(*set.objectives, ["quality"]);
    let refused =
        |name: &str, labels: &[Option<i8>]| set.with_objective(name, labels).unwrap_err().what().to_owned();
    assert_eq!(refused("quality", &[Some(1); 3]), "the pairs have an objective `quality` already");
    assert_eq!(refused("", &[Some(1); 3]), "the name of an objective is empty");
    assert_eq!(refused("brevity", &[Some(1); 2]), "2 labels for 3 examples");
    assert_eq!(refused("brevity", &[None; 3]), "objective `brevity` is labelled by no row");
    assert_eq!(refused("brevity", &[Some(2); 3]), "label `brevity` must be -1, 0, 1 or null, found `2`");
}

#[test]
fn fractions_out_of_range_are_refused() {
    for fraction in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
        let error = set(&[0, 1]).split(fraction, 1).unwrap_err();
        assert!(error.what().starts_with("the fraction of a split must be in (0, 1)"), "{error}");
    }
}
