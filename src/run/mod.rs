//! The run layer.
