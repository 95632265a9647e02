//! Response log-probs and per-objective gradients: the two passes over a model.

mod accumulate;
mod algebra;
mod blocks;
mod bound;
mod coordinates;
mod gradients;
mod jacobian;
mod log_probs;
mod pairs;
mod reference;
mod tensor_rows;
mod unformed;

pub use blocks::By;
pub use bound::Products;
pub use gradients::{Gradient, Gradients};
pub use jacobian::{FORMED_BYTES, Forming, jacobian, jacobian_with};
pub use log_probs::{LogProbs, TAPE_BYTES};
pub use pairs::Factors;
pub use reference::Reference;
