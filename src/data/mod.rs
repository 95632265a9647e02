//! Pairs → tokenised batch: rows in every layout, chat templates, tokenising, packing.

mod batch;
mod files;
pub mod hub;
mod layouts;
mod packed;
mod parquet;
mod read;
mod render;
mod row;
mod schedule;
mod select;
mod summary;
mod template;
mod tokenizer;

pub use batch::{Batch, Example, Preferences, Response};
pub use packed::{Packed, Segment, Span};
pub use read::{Keep, ReadOptions, read_rows};
pub use render::Template;
pub use row::{Message, Prompt, Row, RowIds, write_preferences};
pub use schedule::Batches;
pub use summary::{Agreement, LabelCounts, Lengths, Summary, Truncated};
pub use tokenizer::Tokenizer;
