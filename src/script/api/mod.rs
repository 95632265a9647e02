//! The functions and types of a script, one topic a file.

mod arguments;
mod files;
mod math;
mod random;
mod text;

use std::rc::Rc;

use rhai::Engine;

use super::session::Session;

/// Registers everything.
pub(crate) fn register(engine: &mut Engine, session: &Rc<Session>) {
    arguments::register(engine, session);
    files::register(engine, session);
    math::register(engine);
    random::register(engine);
    text::register(engine, session);
}
