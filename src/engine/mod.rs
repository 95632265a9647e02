//! Response log-probs and per-objective gradients: the two passes over a model.

mod accumulate;
mod blocks;
mod bound;
mod coordinates;
mod cost;
mod gradients;
mod jacobian;
mod log_probs;
mod pairs;
mod plan;
mod reference;

pub use blocks::By;
pub use bound::Products;
pub use cost::{Costs, Memory, Moments, Phases, Product, Runs, Shape, Work};
pub use gradients::{Gradient, Gradients};
pub use jacobian::{jacobian, jacobian_with_pairs};
pub use log_probs::{LogProbs, TAPE_BYTES, shapes};
pub use pairs::Factors;
pub use plan::Plan;
pub use reference::Reference;
