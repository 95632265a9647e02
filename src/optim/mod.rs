//! Update → parameters: AdamW, SGD, clipping by norm and learning-rate schedules.
//!
//! An [`Optimizer`] descends: θ ← θ - lr·u, u being what its [`Rule`] makes of the combined update. All of it
//! equals PyTorch's optimisers and the schedules of transformers, number for number up to rounding.

mod adamw;
mod optimizer;
mod schedule;
mod sgd;
mod state;
mod tensors;

pub use adamw::AdamW;
pub use optimizer::{Optimizer, Options, Rule, Snapshot, Step, StepReport};
pub use schedule::{Schedule, Shape, Warmup};
pub use sgd::Sgd;
pub use state::{StateFile, read_vectors, write_tensors, write_vectors};
