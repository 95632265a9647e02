//! The Rhai binding: a host that registers the types, resolves modules and runs a script.
//!
//! [`Host`] embeds the kernel in another program; `raco script` is a thin client of it. Bindings live in one
//! file a topic and only convert, call and wrap.

mod args;
mod call;
mod console;
pub mod contract;
mod definitions;
pub mod doc;
mod edits;
mod failure;
mod header;
mod host;
mod lint;
mod live;
mod names;
mod options;
mod pause;
mod reference;
mod resolver;
mod sandbox;
mod session;
mod suggest;
mod value;
mod watch;
mod wrap;

mod api;

pub use api::works_for_a_sweep;
pub use console::{Console, Silent};
pub use definitions::definitions;
pub use failure::{Failure, Frame};
pub use header::{Header, SECTIONS};
pub use host::{Host, Options};
pub use lint::lint;
pub use live::{Import, Live, Variable};
pub use names::{KEYWORDS, Names};
pub use pause::{Pause, Pauses, Reason, Then};
pub use reference::{Entry, entries};
pub use resolver::STDLIB;
/// The scripting language, for functions and types of your own.
pub use rhai;
pub use session::Session;
