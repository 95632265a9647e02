use std::sync::Arc;

use raco::data::{Preferences, ReadOptions, Row};

use super::{pair, words};

fn rows() -> Vec<Row> {
    vec![
        pair(
            "sum up : Cleo",
            "Cleo sold ten tents .",
            "Cleo",
            &[("quality", Some(1)), ("brevity", Some(-1))],
        ),
        pair("how to", "ten", "red tents", &[("quality", Some(0)), ("brevity", Some(1))]),
        pair("how", "gave drums", "gave", &[("quality", Some(-1))]),
    ]
}

fn set(rows: Vec<Row>) -> Preferences {
    Preferences::from_rows(rows, &words(), &ReadOptions::default()).unwrap()
}

#[test]
fn signs_labels_and_lengths() {
    let batch = set(rows()).select(&[2, 0, 1]);
    assert_eq!(batch.signs("quality").unwrap(), [-1.0, 1.0, 0.0]);
    assert_eq!(batch.signs("brevity").unwrap(), [0.0, -1.0, 1.0]);
    assert_eq!(batch.labelled("quality").unwrap(), [true, true, true]);
    assert_eq!(batch.labelled("brevity").unwrap(), [false, true, true]);
    // the end token is a token of the response
    assert_eq!(batch.lengths(0).unwrap(), [3, 6, 2]);
    assert_eq!(batch.lengths(1).unwrap(), [2, 2, 3]);
    assert_eq!(batch.scored_tokens(), 18);
    let error = batch.signs("qualty").unwrap_err();
    assert_eq!(error.what(), "no objective `qualty` in the batch");
    assert_eq!(error.help_text(), Some("did you mean `quality`?"));
}

#[test]
fn packs_chosen_before_rejected() {
    let mut batch = set(rows()).select(&[1, 2]);
    let packed = batch.packed().unwrap();
    assert_eq!(packed.segments.len(), 2);
    let ids: Vec<u32> =
        batch.examples.iter().flat_map(|e| &e.responses).flat_map(|r| r.ids.clone()).collect();
    assert_eq!(packed.targets, ids);
    batch.share_prompt = false;
    assert_eq!(batch.packed().unwrap().segments.len(), 4);
}

#[test]
fn counts_labels() {
    let counts = set(rows()).label_counts();
    let numbers = |i: usize| (counts[i].chosen, counts[i].rejected, counts[i].ties, counts[i].unlabelled);
    assert_eq!((counts[0].objective.as_str(), numbers(0)), ("quality", (1, 1, 1, 0)));
    assert_eq!((counts[1].objective.as_str(), numbers(1)), ("brevity", (1, 1, 0, 1)));
}

#[test]
fn take_and_skip_keep_rows_with_their_reference() {
    let mut set = set(rows());
    set.reference = Some(Arc::new(vec![vec![-1.0, -2.0], vec![-3.0, -4.0], vec![-5.0, -6.0]]));
    assert_eq!(set.take(2).len(), 2);
    assert_eq!(set.take(9).len(), 3);
    let rest = set.skip(2);
    assert_eq!(rest.examples[..], set.examples[2..]);
    assert_eq!(rest.select(&[0]).reference, Some(vec![vec![-5.0, -6.0]]));
}

#[test]
fn the_fingerprint_follows_what_training_depends_on() {
    let original = set(rows()).fingerprint();
    assert_eq!(set(rows()).fingerprint(), original);
    let changed = |change: fn(&mut Vec<Row>)| {
        let mut rows = rows();
        change(&mut rows);
        set(rows).fingerprint()
    };
    let others = [
        changed(|rows| rows.swap(0, 1)),
        changed(|rows| rows[0].objectives[0].1 = Some(0)),
        changed(|rows| rows[2].objectives.push(("brevity".into(), Some(0)))),
        changed(|rows| rows[1].responses[0] = "red".into()),
        changed(|rows| rows[1].prompt = "how".into()),
        changed(|rows| rows[0].responses.swap(0, 1)),
        set(rows()).take(2).fingerprint(),
    ];
    for (index, other) in others.iter().enumerate() {
        assert_ne!(*other, original, "change {index}");
        assert!(!others[..index].contains(other), "change {index}");
    }
}
