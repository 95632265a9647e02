//! How a batch is run within a given memory: in one pass or in several, and what a pass keeps.
//!
//! The plan follows from shapes and the budget alone: the one with the fewest operations, and of equal ones that with the
//! fewest passes. Running a layer again costs the same whether the batch was split (its log-probs are needed before the first
//! backward) or its layers keep their inputs only, and a split batch runs the head again too; so in order: everything kept in
//! one pass, all but the logits, inputs in one pass, everything in several, all but the logits, inputs in several.

use std::cmp::Reverse;

use super::cost::{Costs, Runs, Shape};
use crate::error::{Error, Result};
use crate::model::{Keep, show_bytes};

/// Which examples run together, and what their passes keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Examples of each pass, in ascending order; every example is in one of them.
    pub passes: Vec<Vec<usize>>,
    /// What a pass keeps for its backward.
    pub keep: Keep,
}

impl Plan {
    /// The cheapest plan for examples of these shapes whose passes take at most `budget` bytes.
    ///
    /// # Errors
    /// An example that takes more by itself.
    pub fn new(costs: &Costs, shapes: &[Shape], budget: usize) -> Result<Self> {
        let fits = |&keep: &Keep| Self::within(costs, shapes, keep, budget);
        let plans = [Keep::Everything, Keep::Layers, Keep::Inputs].iter().filter_map(fits);
        let priced = plans.map(|plan| (plan.flops(costs, shapes), plan));
        let cheapest = priced
            .min_by(|(a, plan), (b, other)| a.total_cmp(b).then(plan.passes.len().cmp(&other.passes.len())))
            .map(|(_, plan)| plan);
        cheapest.ok_or_else(|| too_small(largest(costs, shapes), budget))
    }

    /// A plan with the fewest passes that keep this.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn keeping(costs: &Costs, shapes: &[Shape], keep: Keep, budget: usize) -> Result<Self> {
        let largest = || {
            let bytes = |&shape: &Shape| (costs.pass(shape, keep), shape);
            shapes.iter().map(bytes).max_by_key(|(bytes, _)| *bytes).unwrap_or_default()
        };
        Self::within(costs, shapes, keep, budget).ok_or_else(|| too_small(largest(), budget))
    }

    /// The fewest bytes that a plan needs: those of the largest example by itself.
    pub fn least(costs: &Costs, shapes: &[Shape]) -> usize {
        largest(costs, shapes).0
    }

    /// Shapes of the passes.
    pub fn shapes(&self, examples: &[Shape]) -> Vec<Shape> {
        self.passes.iter().map(|pass| pass.iter().map(|&i| examples[i]).sum()).collect()
    }

    /// Operations of the products of a step.
    fn flops(&self, costs: &Costs, examples: &[Shape]) -> f64 {
        let runs = Runs::new(self.keep, self.passes.len());
        let passes = self.shapes(examples);
        let products = passes.iter().flat_map(|&shape| costs.products(shape, runs));
        products.map(|product| product.flops()).sum()
    }

    /// The fewest passes of even size, the longest examples dealt out first to the pass that is the smallest by then.
    fn within(costs: &Costs, shapes: &[Shape], keep: Keep, budget: usize) -> Option<Self> {
        let fits = |shape: &Shape| costs.pass(*shape, keep) <= budget;
        if !shapes.iter().all(fits) {
            return None;
        }
        let whole: Shape = shapes.iter().copied().sum();
        let fewest = costs.tape(whole, keep).div_ceil(budget.max(1)).max(1);
        let mut order: Vec<usize> = (0..shapes.len()).collect();
        order.sort_by_key(|&i| Reverse(shapes[i].rows));
        let deal = |count: usize| {
            let mut passes = vec![(Shape::default(), Vec::new()); count];
            for &i in &order {
                let smallest = passes.iter_mut().min_by_key(|(shape, _)| shape.rows)?;
                smallest.0 = smallest.0 + shapes[i];
                smallest.1.push(i);
            }
            passes.iter().all(|(shape, _)| fits(shape)).then_some(passes)
        };
        let passes = (fewest..=shapes.len().max(1)).find_map(deal)?;
        let mut passes: Vec<Vec<usize>> = passes.into_iter().map(|(_, pass)| pass).collect();
        passes.iter_mut().for_each(|pass| pass.sort_unstable());
        passes.sort();
        Some(Self { passes, keep })
    }
}

fn too_small((least, example): (usize, Shape), budget: usize) -> Error {
    let (least, budget) = (show_bytes(least), show_bytes(budget));
    Error::new(format!(
        "one example of {} token rows takes {least} for its pass by itself, and `memory` is {budget}",
        example.rows
    ))
    .help(format!("give `memory` {least} or more, or cut long rows by `max_length`"))
}

/// The example that takes the most by itself, and how much at least.
fn largest(costs: &Costs, shapes: &[Shape]) -> (usize, Shape) {
    let least = |&shape: &Shape| {
        let of = |keep| costs.pass(shape, keep);
        (of(Keep::Layers).min(of(Keep::Inputs)), shape)
    };
    shapes.iter().map(least).max_by_key(|(bytes, _)| *bytes).unwrap_or_default()
}
