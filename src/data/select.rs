//! New sets from a set: some of its examples, in another order, or with one more objective. Examples are shared.

use std::collections::HashMap;
use std::sync::Arc;

use super::schedule::permutation;
use super::{Example, Preferences};
use crate::error::{Error, Result};

/// Streams of random numbers that no epoch of a schedule uses.
const SHUFFLE: u64 = u64::MAX;
const SPLIT: u64 = u64::MAX - 1;

impl Preferences {
    /// The examples at these places, in this order.
    ///
    /// # Panics
    /// A place beyond the set.
    pub fn pick(&self, places: &[usize]) -> Self {
        let examples = places.iter().map(|&i| self.examples[i].clone()).collect();
        let reference = self.reference.as_ref().map(|r| places.iter().map(|&i| r[i].clone()).collect());
        Self { examples: Arc::new(examples), reference: reference.map(Arc::new), ..self.clone() }
    }

    /// The first `count` examples, or all if there are fewer.
    pub fn take(&self, count: usize) -> Self {
        self.pick(&(0..count.min(self.len())).collect::<Vec<_>>())
    }

    /// All examples but the first `count`.
    pub fn skip(&self, count: usize) -> Self {
        self.pick(&(count.min(self.len())..self.len()).collect::<Vec<_>>())
    }

    /// The examples in a random order.
    pub fn shuffle(&self, seed: u64) -> Self {
        self.pick(&permutation(self.len(), seed, SHUFFLE))
    }

    /// Two sets, the first of about `fraction` of the examples; both keep the order. Examples with the same
    /// prompt stay together, so that nothing that is held out was seen.
    ///
    /// # Errors
    /// A fraction outside (0, 1); examples of one prompt only.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::new(format!("the fraction of a split must be in (0, 1), found `{fraction}`"))
                .help("give the part that goes to the first set, such as 0.9"));
        }
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut of_prompt: HashMap<&str, usize> = HashMap::new();
        for (place, example) in self.examples.iter().enumerate() {
            let group = *of_prompt.entry(&example.prompt).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(group) => group.push(place),
                None => groups.push(vec![place]),
            }
        }
        if groups.len() < 2 {
            return Err(Error::new(format!(
                "{} rows of {} prompt cannot be split: rows with the same prompt stay together",
                self.len(),
                groups.len()
            ))
            .help("give rows with at least two prompts"));
        }
        let mut first = vec![false; self.len()];
        let (mut taken, wanted) = (0, fraction * self.len() as f64);
        let order = permutation(groups.len(), seed, SPLIT);
        for (rank, &group) in order.iter().enumerate() {
            let size = groups[group].len();
            // nearer with this group than without it; each side gets at least one
            let nearer = taken as f64 + size as f64 / 2.0 <= wanted;
            if rank == 0 || (nearer && rank + 1 < order.len()) {
                groups[group].iter().for_each(|&place| first[place] = true);
                taken += size;
            }
        }
        let places = |side| (0..self.len()).filter(|&i| first[i] == side).collect::<Vec<_>>();
        Ok((self.pick(&places(true)), self.pick(&places(false))))
    }

    /// The same examples with one more objective: its label of each example.
    ///
    /// # Errors
    /// A name that the set has; another number of labels; labels other than -1, 0, 1; no label at all.
    pub fn with_objective(&self, name: &str, labels: &[Option<i8>]) -> Result<Self> {
        if self.objectives.iter().any(|known| known == name) {
            return Err(Error::new(format!("the pairs have an objective `{name}` already")).help(
                "choose another name, or leave the objective out with `objectives` when they are read",
            ));
        }
        if name.is_empty() {
            return Err(Error::new("the name of an objective is empty").help("give it a name"));
        }
        if labels.len() != self.len() {
            return Err(Error::new(format!("{} labels for {} examples", labels.len(), self.len()))
                .help("give one label an example"));
        }
        if let Some(label) = labels.iter().flatten().find(|label| !(-1..=1).contains(*label)) {
            return Err(Error::new(format!("label `{name}` must be -1, 0, 1 or null, found `{label}`"))
                .help("1: `chosen` is preferred, -1: `rejected` is, 0: a tie, null: unlabelled"));
        }
        if labels.iter().all(Option::is_none) {
            return Err(
                Error::new(format!("objective `{name}` is labelled by no row")).help("label some rows")
            );
        }
        let labelled = |(example, label): (&Arc<Example>, &Option<i8>)| {
            let labels = example.labels.iter().copied().chain([*label]).collect();
            Arc::new(Example { labels, ..Example::clone(example) })
        };
        let objectives = self.objectives.iter().cloned().chain([name.to_owned()]).collect();
        Ok(Self {
            objectives: Arc::new(objectives),
            examples: Arc::new(self.examples.iter().zip(labels).map(labelled).collect()),
            ..self.clone()
        })
    }
}
