//! Response log-probs and per-objective gradients: the two passes over a model.

mod accumulate;
mod algebra;
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
mod tensor_rows;
mod unformed;

pub use blocks::By;
pub use bound::Products;
pub use cost::{Costs, Memory, Moments, Phases, Product, Runs, Shape, Work};
pub use gradients::{Gradient, Gradients};
pub use jacobian::{FORMED_BYTES, Forming, jacobian, jacobian_with};
pub use log_probs::{LogProbs, TAPE_BYTES, shapes};
pub use pairs::Factors;
pub use plan::Plan;
pub use reference::Reference;
