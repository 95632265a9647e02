//! Scripts that test the script API, and the host seen from Rust.

mod embed;
mod finite_difference;
mod guide;
mod host;
mod inspecting;
mod live;
mod reference;
mod suite;
