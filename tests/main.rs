//! All tests in one binary, so that the crate links once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod common;
mod data;
mod engine;
mod house;
mod math;
mod model;
mod optim;
#[cfg(unix)]
mod recycle;
mod run;
mod script;
mod stdlib;

#[cfg(unix)]
#[global_allocator]
static MEMORY: raco::recycle::Recycler = raco::recycle::Recycler;
