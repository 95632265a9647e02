//! Pairs → tokenised batch: rows in every layout, chat templates, tokenising, packing.

mod batch;
mod layouts;
mod packed;
mod read;
mod render;
mod row;
mod schedule;
mod template;
mod tokenizer;

pub use batch::{Batch, Example, LabelCounts, Preferences, Response};
pub use packed::{Packed, Segment, Span};
pub use read::{ReadOptions, read_rows};
pub use render::Template;
pub use row::{Message, Prompt, Row, RowIds, write_preferences};
pub use schedule::Batches;
pub use tokenizer::Tokenizer;
