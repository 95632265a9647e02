use proptest::prelude::*;
use raco::data::{Preferences, ReadOptions};

use super::{pair, words};

fn set(count: usize) -> Preferences {
    let rows = (0..count).map(|i| pair("sum up", &"ten ".repeat(i + 1), "red", &[("quality", Some(1))]));
    Preferences::from_rows(rows.collect(), &words(), &ReadOptions::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_batch_depends_on_seed_and_number_only(
        count in 1usize..20, size in 1usize..20, k in 0usize..40, seed: u64, steps in 1usize..50,
    ) {
        let size = size.min(count);
        let set = set(count);
        let batches = set.batches(size, steps, seed).unwrap();
        let again = set.batches(size, steps + 7, seed).unwrap();
        again.indices(k + 1);
        prop_assert_eq!(batches.indices(k), again.indices(k));
        let batch = batches.batch(k);
        prop_assert_eq!((batch.index, batch.len()), (k, size));
        for (place, example) in batches.indices(k).into_iter().zip(&batch.examples) {
            prop_assert_eq!(example, &set.examples[place]);
        }
    }

    #[test]
    fn epochs_are_permutations(count in 1usize..20, size in 1usize..20, seed: u64) {
        let size = size.min(count);
        let batches = set(count).batches(size, 1, seed).unwrap();
        let drawn: Vec<usize> = (0..count * 3).flat_map(|k| batches.indices(k)).collect();
        for epoch in drawn.chunks_exact(count) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn visited_are_the_distinct_examples_of_the_batches(
        count in 1usize..20, size in 1usize..20, start in 0usize..9, more in 0usize..9, seed: u64,
    ) {
        let batches = set(count).batches(size.min(count), 1, seed).unwrap();
        let mut expected: Vec<usize> = (start..start + more).flat_map(|k| batches.indices(k)).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(batches.visited(start..start + more), expected);
    }

    #[test]
    fn in_order_goes_through_the_set_once(count in 1usize..20, size in 1usize..25) {
        let batches = set(count).in_order(size).unwrap();
        let drawn: Vec<usize> = (0..batches.len()).flat_map(|k| batches.indices(k)).collect();
        prop_assert_eq!(drawn, (0..count).collect::<Vec<_>>());
        prop_assert_eq!(batches.visited(0..batches.len()), (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn seeds_and_epochs_differ() {
    let set = set(30);
    let order = |seed, epoch| set.batches(30, 1, seed).unwrap().indices(epoch);
    assert_ne!(order(0, 0), order(1, 0));
    assert_ne!(order(0, 0), order(0, 1));
    assert_ne!(order(1, 0), order(0, 1));
}

#[test]
fn impossible_sizes_are_refused() {
    let set = set(3);
    let refused = |size, steps| {
        let error = set.batches(size, steps, 0).unwrap_err();
        (error.what().to_owned(), error.help_text().map(str::to_owned))
    };
    let help = "choose a batch size of at most 3".to_owned();
    assert_eq!(refused(4, 1), ("a batch of 4 examples from a set of 3".to_owned(), Some(help)));
    for (size, steps, what, key) in [(0, 1, "the batch size", "size"), (2, 0, "the number of steps", "steps")]
    {
        let expected = format!("{what} must be at least 1, found `0`");
        assert_eq!(refused(size, steps), (expected, Some(format!("give `{key}` a positive number"))));
    }
    assert_eq!(set.in_order(0).unwrap_err().what(), "the batch size must be at least 1, found `0`");
}
