use proptest::prelude::*;
use raco::data::{Packed, Span};

type Sequence = (Vec<u32>, Vec<Vec<u32>>);

/// Few token ids, so that responses often share a prefix or are equal; one-token responses are frequent.
fn sequences() -> impl Strategy<Value = Vec<Sequence>> {
    let tokens = || prop::collection::vec(0u32..3, 1..6);
    prop::collection::vec((tokens(), prop::collection::vec(tokens(), 1..4)), 0..5)
}

fn pack(sequences: &[Sequence], share: bool) -> Packed {
    let borrowed = sequences.iter().map(|(p, rs)| (p.as_slice(), rs.iter().map(Vec::as_slice).collect()));
    Packed::new(borrowed, share).unwrap()
}

/// (token, position) of all rows that a row attends to, itself included.
fn context(packed: &Packed, row: usize) -> Vec<(u32, u32)> {
    let spans: Vec<&Span> = packed.groups.iter().flatten().filter(|s| s.rows.contains(&row)).collect();
    assert_eq!(spans.len(), 1, "a row belongs to one span");
    let rows = spans[0].prefix.clone().chain(spans[0].rows.start..row + 1);
    rows.map(|row| (packed.tokens[row], packed.positions[row])).collect()
}

proptest! {
    #[test]
    fn each_scored_token_is_predicted_from_all_before_it(sequences in sequences(), share: bool) {
        let packed = pack(&sequences, share);
        let responses = sequences.iter().flat_map(|(prompt, rs)| rs.iter().map(move |r| (prompt, r)));
        prop_assert_eq!(packed.responses.len(), responses.clone().count());
        for ((prompt, response), scored) in responses.zip(&packed.responses) {
            prop_assert_eq!(&packed.targets[scored.clone()], response.as_slice());
            let whole: Vec<u32> = prompt.iter().chain(response).copied().collect();
            for (i, place) in scored.clone().enumerate() {
                let seen: Vec<(u32, u32)> = whole[..prompt.len() + i].iter().copied().zip(0..).collect();
                prop_assert_eq!(context(&packed, packed.predict[place] as usize), seen);
            }
        }
    }

    #[test]
    fn segments_cover_all_rows_and_scored_positions_and_nothing_crosses_them(
        sequences in sequences(),
        share: bool,
    ) {
        let packed = pack(&sequences, share);
        prop_assert_eq!(packed.tokens.len(), packed.positions.len());
        prop_assert_eq!(packed.targets.len(), packed.predict.len());
        let (mut rows, mut scored) = (0, 0);
        for segment in &packed.segments {
            prop_assert_eq!((segment.rows.start, segment.scored.start), (rows, scored));
            (rows, scored) = (segment.rows.end, segment.scored.end);
            for place in segment.scored.clone() {
                prop_assert!(segment.rows.contains(&(packed.predict[place] as usize)));
            }
        }
        prop_assert_eq!((rows, scored), (packed.len(), packed.targets.len()));
        let spans: Vec<usize> = packed.groups.iter().flatten().flat_map(|span| span.rows.clone()).collect();
        prop_assert_eq!(spans, (0..packed.len()).collect::<Vec<_>>());
        for group in &packed.groups {
            let rows = group[0].rows.start..group[group.len() - 1].rows.end;
            let inside = packed.segments.iter().any(|s| s.rows.start <= rows.start && rows.end <= s.rows.end);
            prop_assert!(inside);
            for span in group {
                prop_assert!(span.prefix.is_empty() || span.prefix.end <= span.rows.start);
            }
        }
    }

    #[test]
    fn sharing_the_prompt_changes_the_rows_and_nothing_else(sequences in sequences()) {
        let (shared, apart) = (pack(&sequences, true), pack(&sequences, false));
        prop_assert_eq!(&shared.targets, &apart.targets);
        prop_assert_eq!(&shared.responses, &apart.responses);
        for (a, b) in shared.predict.iter().zip(&apart.predict) {
            prop_assert_eq!(context(&shared, *a as usize), context(&apart, *b as usize));
        }
        let saved: usize = sequences.iter().map(|(prompt, rs)| prompt.len() * (rs.len() - 1)).sum();
        prop_assert_eq!(shared.len() + saved, apart.len());
        prop_assert_eq!(shared.segments.len(), sequences.len());
        prop_assert_eq!(apart.segments.len(), apart.responses.len());
    }
}

#[test]
fn empty_prompts_and_responses_are_refused() {
    let error = Packed::new([(&[1][..], vec![&[2][..]]), (&[][..], vec![&[2][..]])], true).unwrap_err();
    assert_eq!(error.what(), "sequence 1 has an empty prompt");
    let error = Packed::new([(&[1][..], vec![&[2][..], &[][..]])], false).unwrap_err();
    assert_eq!(error.what(), "response 1 of sequence 0 is empty");
}
