//! Response log-probs and per-objective gradients: the two passes over a model.

mod gradients;

pub use gradients::{Gradient, Gradients};
