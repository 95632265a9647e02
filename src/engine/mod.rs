//! Response log-probs and per-objective gradients: the two passes over a model.

mod accumulate;
mod coordinates;
mod gradients;
mod jacobian;
mod log_probs;
mod reference;

pub use gradients::{Gradient, Gradients};
pub use jacobian::jacobian;
pub use log_probs::{LogProbs, TAPE_BYTES};
pub use reference::Reference;
