//! Preference pairs in memory, and the batches drawn from them.

use std::sync::Arc;

use super::Packed;
use crate::error::{Error, Result, nearest};

/// One response of an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The text as the file has it.
    pub text: String,
    /// Token ids, the end token included.
    pub ids: Vec<u32>,
    /// Tokens before a length limit cut the end off; as many as `ids` where it did not.
    pub tokens: usize,
}

impl Response {
    /// A response that no limit has cut.
    pub fn new(text: impl Into<String>, ids: Vec<u32>) -> Self {
        Self { text: text.into(), tokens: ids.len(), ids }
    }

    /// True if a length limit cut the end off.
    pub fn is_cut(&self) -> bool {
        self.tokens > self.ids.len()
    }
}

/// A prompt with its responses: two for a preference pair (chosen, rejected), one for a demonstration.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The prompt as the file has it (chat messages joined).
    pub prompt: String,
    /// Token ids of the rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// Tokens of the prompt before a length limit cut it; as many as `prompt_ids` where it did not.
    pub prompt_tokens: usize,
    /// `[chosen, rejected]`, or one demonstration.
    pub responses: Vec<Response>,
    /// Per objective: +1 it prefers chosen, -1 rejected, 0 a tie, `None` unlabelled.
    pub labels: Vec<Option<i8>>,
    /// 1-based line of the file (row, of a Parquet file), 0 for rows made in memory.
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
    /// How prompts became text, in words.
    pub rendering: String,
    /// Log-probs of the responses under the reference, `[example][response]` (sums over response tokens).
    pub reference: Option<Arc<Vec<Vec<f64>>>>,
}

impl Preferences {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// True without any example.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// A hash of objectives, token ids and labels: the content that training depends on.
    pub fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        let number = |hash: &mut blake3::Hasher, n: usize| {
            hash.update(&(n as u64).to_le_bytes());
        };
        number(&mut hash, self.objectives.len());
        for name in self.objectives.iter() {
            number(&mut hash, name.len());
            hash.update(name.as_bytes());
        }
        for example in self.examples.iter() {
            number(&mut hash, example.responses.len());
            let responses = example.responses.iter().map(|r| (&r.ids, r.tokens));
            for (ids, tokens) in
                std::iter::once((&example.prompt_ids, example.prompt_tokens)).chain(responses)
            {
                number(&mut hash, ids.len());
                number(&mut hash, tokens);
                ids.iter().for_each(|id| {
                    hash.update(&id.to_le_bytes());
                });
            }
            // 3 is no label
            example.labels.iter().for_each(|label| {
                hash.update(&label.unwrap_or(3).to_le_bytes());
            });
        }
        hash.finalize().to_hex().to_string()
    }

    /// The examples at these places as one batch, number 0, sharing prompts.
    ///
    /// # Panics
    /// A place beyond the set.
    pub fn select(&self, indices: &[usize]) -> Batch {
        Batch {
            objectives: self.objectives.clone(),
            examples: indices.iter().map(|&i| self.examples[i].clone()).collect(),
            reference: self.reference.as_ref().map(|r| indices.iter().map(|&i| r[i].clone()).collect()),
            index: 0,
            share_prompt: true,
        }
    }
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

    /// What an objective prefers: +1 chosen, -1 rejected, 0 a tie or unlabelled, [B].
    ///
    /// # Errors
    /// A name that is no objective of the batch.
    pub fn signs(&self, objective: &str) -> Result<Vec<f64>> {
        Ok(self.labels(objective)?.map(|label| label.map_or(0.0, f64::from)).collect())
    }

    /// Whether an objective labels the example, ties included, [B].
    ///
    /// # Errors
    /// A name that is no objective of the batch.
    pub fn labelled(&self, objective: &str) -> Result<Vec<bool>> {
        Ok(self.labels(objective)?.map(|label| label.is_some()).collect())
    }

    fn labels(&self, objective: &str) -> Result<impl Iterator<Item = Option<i8>>> {
        let Some(index) = self.objectives.iter().position(|name| name == objective) else {
            let names = || self.objectives.iter().map(String::as_str);
            let near = nearest(objective, names());
            return Err(Error::new(format!("no objective `{objective}` in the batch")).help(
                match near.first() {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the objectives are `{}`", names().collect::<Vec<_>>().join("`, `")),
                },
            ));
        };
        Ok(self.examples.iter().map(move |example| example.labels[index]))
    }

    /// Length in tokens of a response of each example before any limit cut it, at least 1, [B]: 0 chosen or the
    /// demonstration, 1 rejected.
    ///
    /// # Errors
    /// An example without that response.
    pub fn lengths(&self, response: usize) -> Result<Vec<usize>> {
        let length = |example: &Arc<Example>| match example.responses.get(response) {
            Some(response) => Ok(response.tokens.max(1)),
            None => Err(Error::new("a demonstration has no rejected response")),
        };
        self.examples.iter().map(length).collect()
    }

    /// Response tokens of the batch, all of which are scored.
    pub fn scored_tokens(&self) -> usize {
        self.examples.iter().flat_map(|e| &e.responses).map(|r| r.ids.len()).sum()
    }

    /// The batch as packed rows; responses in the order of the examples, chosen before rejected.
    ///
    /// # Errors
    /// An empty prompt or response.
    pub fn packed(&self) -> Result<Packed> {
        let sequences = self.examples.iter().map(|example| {
            (example.prompt_ids.as_slice(), example.responses.iter().map(|r| r.ids.as_slice()).collect())
        });
        Packed::new(sequences, self.share_prompt)
    }
}
