//! Scripts that test the script API, and the host seen from Rust.

mod embed;
mod guide;
mod host;
mod suite;
