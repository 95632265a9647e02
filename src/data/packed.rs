//! Sequences packed without padding, the prompt of a pair encoded once for all of its responses.

use std::ops::Range;

use crate::error::{Error, Result};

/// Rows of tokens that attend to each other causally, and to a prefix of other rows in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of this span.
    pub rows: Range<usize>,
    /// Rows that every row of this span sees; empty, or earlier rows of the same group.
    pub prefix: Range<usize>,
}

/// Rows and scored positions that no other segment touches: the unit of per-objective weighting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Token rows.
    pub rows: Range<usize>,
    /// Scored positions.
    pub scored: Range<usize>,
}

/// Token rows of several sequences, one after another.
///
/// T token rows (of all tokens but the last of each response), N scored positions (every response token, and nothing else), R responses, K segments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// Token ids, [T].
    pub tokens: Vec<u32>,
    /// Positions in the sequence, counted from 0, [T].
    pub positions: Vec<u32>,
    /// Spans that share keys, in the order of their rows; groups never attend to each other.
    pub groups: Vec<Vec<Span>>,
    /// For each scored position the row whose hidden state predicts it, [N].
    pub predict: Vec<u32>,
    /// For each scored position the token that was predicted, [N].
    pub targets: Vec<u32>,
    /// Scored positions of each response, [R]; the responses of a sequence follow one another.
    pub responses: Vec<Range<usize>>,
    /// Segments in the order of their rows, [K]; they cover all rows and all scored positions.
    pub segments: Vec<Segment>,
}

impl Packed {
    /// Packs prompts with their responses.
    ///
    /// With `share_prompt` a prompt is encoded once, and each response attends to it: one segment a prompt.
    /// Without, each response is a sequence of its own with its own copy of the prompt: one segment a response.
    ///
    /// # Errors
    /// An empty prompt (nothing would predict the first response token) and an empty response.
    pub fn new<'a>(
        sequences: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>,
        share_prompt: bool,
    ) -> Result<Self> {
        let mut packed = Self::default();
        for (index, (prompt, responses)) in sequences.into_iter().enumerate() {
            if prompt.is_empty() {
                return Err(Error::new(format!("sequence {index} has an empty prompt"))
                    .help("give the prompt at least one token, for example the begin-of-text token"));
            }
            if let Some(empty) = responses.iter().position(|r| r.is_empty()) {
                return Err(Error::new(format!("response {empty} of sequence {index} is empty"))
                    .help("leave the row out, or let the response end with the end token"));
            }
            if share_prompt {
                packed.push(prompt, &responses);
            } else {
                responses.iter().for_each(|response| packed.push(prompt, &[response]));
            }
        }
        Ok(packed)
    }

    fn push(&mut self, prompt: &[u32], responses: &[&[u32]]) {
        let (row_start, scored_start) = (self.tokens.len(), self.targets.len());
        self.tokens.extend(prompt);
        self.positions.extend(0..prompt.len() as u32);
        let prompt_rows = row_start..self.tokens.len();
        let single = responses.len() == 1;
        let mut group = Vec::with_capacity(responses.len() + 1);
        if !single {
            group.push(Span { rows: prompt_rows.clone(), prefix: 0..0 });
        }
        for response in responses {
            let start = self.tokens.len();
            let scored = self.targets.len();
            // the last token predicts nothing
            let read = &response[..response.len() - 1];
            self.tokens.extend(read);
            self.positions.extend((0..read.len()).map(|i| (prompt.len() + i) as u32));
            self.predict.push((prompt_rows.end - 1) as u32);
            self.predict.extend((start..self.tokens.len()).map(|row| row as u32));
            self.targets.extend(*response);
            self.responses.push(scored..self.targets.len());
            group.push(if single {
                Span { rows: row_start..self.tokens.len(), prefix: 0..0 }
            } else {
                Span { rows: start..self.tokens.len(), prefix: prompt_rows.clone() }
            });
        }
        self.groups.push(group);
        self.segments
            .push(Segment { rows: row_start..self.tokens.len(), scored: scored_start..self.targets.len() });
    }

    /// Number of token rows T.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// True without any token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
