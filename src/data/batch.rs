//! Preference pairs in memory, and the batches drawn from them.

use std::sync::Arc;

/// One response of an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The text as the file has it.
    pub text: String,
    /// Token ids, the end token included.
    pub ids: Vec<u32>,
}

/// A prompt with its responses: two for a preference pair (chosen, rejected), one for a demonstration.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The prompt as the file has it (chat messages joined).
    pub prompt: String,
    /// Token ids of the rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// `[chosen, rejected]`, or one demonstration.
    pub responses: Vec<Response>,
    /// Per objective: +1 it prefers chosen, -1 rejected, 0 a tie, `None` unlabelled.
    pub labels: Vec<Option<i8>>,
    /// 1-based line of the file, 0 for rows made in memory.
    pub line: usize,
}

/// A set of tokenised examples with the same objectives.
#[derive(Debug, Clone, Default)]
pub struct Preferences {
    /// Objective names, in the order of the label columns.
    pub objectives: Arc<Vec<String>>,
    /// The examples, in file order.
    pub examples: Arc<Vec<Arc<Example>>>,
    /// Where the rows came from, for messages.
    pub origin: String,
    /// Log-probs of the responses under the reference, `[example][response]` (sums over response tokens).
    pub reference: Option<Arc<Vec<Vec<f64>>>>,
}

/// The examples of one optimiser step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Objective names; labels are in this order.
    pub objectives: Arc<Vec<String>>,
    /// The examples, [B].
    pub examples: Vec<Arc<Example>>,
    /// Reference log-prob of each response, [B][responses], where the set has them.
    pub reference: Option<Vec<Vec<f64>>>,
    /// Number of the batch in its schedule, from 0.
    pub index: usize,
    /// Encode each prompt once for all of its responses.
    pub share_prompt: bool,
}

impl Batch {
    /// Number of examples B.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// True without any example.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }
}
