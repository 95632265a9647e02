//! Scripts that test the script API, and the host seen from Rust.

mod embed;
mod host;
mod suite;
