//! What a set of pairs is made of, in numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Example, Preferences};

/// Rows, lengths, labels, and how the objectives of a set agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Number of examples.
    pub rows: usize,
    /// Number of distinct prompts.
    pub prompts: usize,
    /// Examples whose prompt and responses, in either order, stand earlier in the set, token by token.
    pub duplicates: usize,
    /// What length limits cut.
    pub truncated: Truncated,
    /// Tokens of `prompt`, `chosen`, `rejected` (or `response`) as they are trained on.
    pub lengths: Vec<(&'static str, Lengths)>,
    /// How each objective labels the rows.
    pub labels: Vec<LabelCounts>,
    /// Each two objectives.
    pub agreements: Vec<Agreement>,
}

/// How many examples length limits touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Truncated {
    /// Examples with anything cut.
    pub rows: usize,
    /// Prompts that were cut.
    pub prompts: usize,
    /// Responses that were cut.
    pub responses: usize,
}

/// Lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lengths {
    /// Half of the rows are no longer than this (the lower of the two in the middle).
    pub median: usize,
    /// 95 % of the rows are no longer than this.
    pub p95: usize,
    /// The longest.
    pub max: usize,
}

/// How the rows are labelled by one objective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCounts {
    /// Name of the objective.
    pub objective: String,
    /// Rows where it prefers chosen.
    pub chosen: usize,
    /// Rows where it prefers rejected.
    pub rejected: usize,
    /// Ties.
    pub ties: usize,
    /// Rows that it does not label.
    pub unlabelled: usize,
}

/// Two objectives on the rows that both label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The two objectives.
    pub objectives: [String; 2],
    /// Rows where both prefer the same response.
    pub agree: usize,
    /// Rows where they prefer opposed responses.
    pub conflict: usize,
    /// Rows that both label, one or both of them as a tie.
    pub ties: usize,
}

impl Agreement {
    /// The part of the rows with two preferences in which they oppose; `None` without such a row.
    pub fn conflict_rate(&self) -> Option<f64> {
        let both = self.agree + self.conflict;
        (both > 0).then(|| self.conflict as f64 / both as f64)
    }

    /// Correlation of the two labels where both prefer a side, in [-1, 1]: (agree - conflict)/(agree + conflict), the
    /// mean product of the signs. Which response stands first as `chosen` is a matter of layout, so that the signs have
    /// mean 0 over both orders.
    pub fn correlation(&self) -> Option<f64> {
        self.conflict_rate().map(|rate| 1.0 - 2.0 * rate)
    }
}

impl Preferences {
    /// How each objective labels the rows.
    pub fn label_counts(&self) -> Vec<LabelCounts> {
        let counts = |(index, name): (usize, &String)| {
            let count = |label| self.examples.iter().filter(|e| e.labels[index] == label).count();
            LabelCounts {
                objective: name.clone(),
                chosen: count(Some(1)),
                rejected: count(Some(-1)),
                ties: count(Some(0)),
                unlabelled: count(None),
            }
        };
        self.objectives.iter().enumerate().map(counts).collect()
    }

    /// What length limits cut.
    pub fn truncated(&self) -> Truncated {
        let mut truncated = Truncated::default();
        for example in self.examples.iter() {
            let prompt = usize::from(example.prompt_tokens > example.prompt_ids.len());
            let responses = example.responses.iter().filter(|r| r.is_cut()).count();
            truncated.prompts += prompt;
            truncated.responses += responses;
            truncated.rows += usize::from(prompt + responses > 0);
        }
        truncated
    }

    /// Rows, lengths, labels, agreement, duplicates.
    pub fn summary(&self) -> Summary {
        let prompts: HashSet<&str> = self.examples.iter().map(|e| e.prompt.as_str()).collect();
        let mut seen = HashMap::new();
        for example in self.examples.iter() {
            *seen.entry(content(example)).or_insert(0usize) += 1;
        }
        let names: &[&'static str] = match self.examples.first() {
            Some(example) if example.responses.len() == 1 => &["response"],
            _ => &["chosen", "rejected"],
        };
        let response = |(index, name): (usize, &&'static str)| {
            let ids = self.examples.iter().filter_map(|e| e.responses.get(index));
            (*name, lengths(ids.map(|r| r.ids.len()).collect()))
        };
        let prompt = ("prompt", lengths(self.examples.iter().map(|e| e.prompt_ids.len()).collect()));
        Summary {
            rows: self.len(),
            prompts: prompts.len(),
            duplicates: seen.values().map(|count| count - 1).sum(),
            truncated: self.truncated(),
            lengths: std::iter::once(prompt).chain(names.iter().enumerate().map(response)).collect(),
            labels: self.label_counts(),
            agreements: self.agreements(),
        }
    }

    fn agreements(&self) -> Vec<Agreement> {
        let count = self.objectives.len();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        let agreement = |(a, b): (usize, usize)| {
            let product = |e: &Example| e.labels[a].unwrap_or(0) * e.labels[b].unwrap_or(0);
            let rows = |sign| self.examples.iter().filter(|e| product(e) == sign).count();
            let labelled = |e: &&Arc<Example>| e.labels[a].is_some() && e.labels[b].is_some();
            let both = self.examples.iter().filter(labelled).count();
            Agreement {
                objectives: [self.objectives[a].clone(), self.objectives[b].clone()],
                agree: rows(1),
                conflict: rows(-1),
                ties: both - rows(1) - rows(-1),
            }
        };
        pairs.map(agreement).collect()
    }
}

/// What makes two rows the same: the tokens of prompt and responses, whichever is called chosen.
fn content(example: &Example) -> (&[u32], Vec<&[u32]>) {
    let mut responses: Vec<&[u32]> = example.responses.iter().map(|r| &r.ids[..]).collect();
    responses.sort_unstable();
    (&example.prompt_ids, responses)
}

fn lengths(mut tokens: Vec<usize>) -> Lengths {
    tokens.sort_unstable();
    // the least length that at least this part of the rows does not pass
    let quantile = |part: f64| {
        let rank = (part * tokens.len() as f64).ceil().max(1.0) as usize;
        tokens.get(rank - 1).copied().unwrap_or(0)
    };
    Lengths { median: quantile(0.5), p95: quantile(0.95), max: quantile(1.0) }
}
