//! Which examples make which batch.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Batch, Preferences};
use crate::error::{Error, Result};

/// Batches of a set, each decided by (seed, number) alone.
///
/// Epoch e is a permutation drawn from (seed, e); batches of the asked size run through the epochs, one
/// after another, and may straddle two. Without a seed the set is gone through once, in its order, and the
/// last batch may be smaller.
#[derive(Debug, Clone)]
pub struct Batches {
    preferences: Preferences,
    size: usize,
    steps: usize,
    seed: Option<u64>,
    share_prompt: bool,
}

impl Preferences {
    /// `steps` batches of `size` examples.
    ///
    /// # Errors
    /// No step, or a size of zero or beyond the number of examples.
    pub fn batches(&self, size: usize, steps: usize, seed: u64) -> Result<Batches> {
        if steps == 0 {
            return Err(Error::new("the number of steps must be at least 1, found `0`")
                .help("give `steps` a positive number"));
        }
        if size > self.len() {
            let what = format!("a batch of {size} examples from a set of {}", self.len());
            return Err(Error::new(what).help(format!("choose a batch size of at most {}", self.len())));
        }
        self.schedule(size, steps, Some(seed))
    }

    /// All examples once, in their order, `size` at a time.
    ///
    /// # Errors
    /// A size of zero.
    pub fn in_order(&self, size: usize) -> Result<Batches> {
        self.schedule(size, self.len().div_ceil(size.max(1)), None)
    }

    fn schedule(&self, size: usize, steps: usize, seed: Option<u64>) -> Result<Batches> {
        if size == 0 {
            return Err(Error::new("the batch size must be at least 1, found `0`")
                .help("give `size` a positive number"));
        }
        Ok(Batches { preferences: self.clone(), size, steps, seed, share_prompt: true })
    }
}

impl Batches {
    /// Number of batches.
    pub fn len(&self) -> usize {
        self.steps
    }

    /// True without any batch.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Examples in a batch.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The set that the batches are drawn from.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }

    /// The same batches, with each prompt encoded once for all of its responses (the default) or not.
    pub fn share_prompt(mut self, share: bool) -> Self {
        self.share_prompt = share;
        self
    }

    /// The examples of batch `k`, as places in the set.
    pub fn indices(&self, k: usize) -> Vec<usize> {
        self.places(k * self.size..(k + 1) * self.size)
    }

    /// Batch `k`.
    pub fn batch(&self, k: usize) -> Batch {
        Batch { index: k, share_prompt: self.share_prompt, ..self.preferences.select(&self.indices(k)) }
    }

    /// The examples that these batches use, each once, in the order of the set.
    pub fn visited(&self, batches: Range<usize>) -> Vec<usize> {
        let count = self.preferences.len();
        let places = batches.start * self.size..batches.end.max(batches.start) * self.size;
        // two epochs' worth of places holds a whole epoch
        if self.seed.is_some() && places.len() >= 2 * count {
            return (0..count).collect();
        }
        let mut visited = self.places(places);
        visited.sort_unstable();
        visited.dedup();
        visited
    }

    fn places(&self, places: Range<usize>) -> Vec<usize> {
        let count = self.preferences.len();
        let Some(seed) = self.seed else {
            return (places.start.min(count)..places.end.min(count)).collect();
        };
        let mut found = Vec::with_capacity(places.len());
        for epoch in places.start / count..places.end.div_ceil(count) {
            let first = epoch * count;
            let order = permutation(count, seed, epoch as u64);
            found.extend(&order[places.start.max(first) - first..places.end.min(first + count) - first]);
        }
        found
    }
}

/// A random order of `count` things, decided by (seed, epoch).
pub(super) fn permutation(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::from_seed(key));
    order
}
