//! tokenizer.json and the chat template.

/// A tokenizer with its chat template and end tokens.
#[derive(Debug)]
pub struct Tokenizer;
