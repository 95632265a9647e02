//! raco aligns a language model with preferences that disagree.
//!
//! Every objective i has a loss on preference pairs, `L_i(θ) = -E[log σ(β s_i Δ)]`, and one step uses all of
//! their gradients `g_i = ∇L_i` at once:
//!
//! ```text
//!     θ ← θ - η·opt(Jᵀ α),   J = rows g_i,   α = weights(J Jᵀ, w)
//! ```
//!
//! The modules follow the data: pairs → batch → response log-probs → losses → gradients → weights → update.

pub mod error;

#[cfg(unix)]
pub mod recycle;

pub mod math;

pub mod data;

pub mod model;

pub mod engine;

pub mod optim;

pub mod run;

pub mod script;

pub mod cli;

pub use error::{Error, Result};
