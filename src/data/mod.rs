//! Pairs → tokenised batch: rows in every layout, chat templates, tokenising, packing.

mod batch;
mod packed;
mod tokenizer;

pub use batch::{Batch, Example, Preferences, Response};
pub use packed::{Packed, Segment, Span};
pub use tokenizer::Tokenizer;
