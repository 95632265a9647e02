//! The functions and types of a script, one topic a file.

mod arguments;
mod cost;
mod data;
mod files;
mod fronts;
mod gradients;
mod judge;
mod look;
mod loss;
mod math;
mod measure;
mod method;
mod model;
mod optim;
mod pairs;
mod random;
mod report;
mod run;
mod snapshot;
mod state;
mod sweep;
mod text;
mod view;

use std::rc::Rc;

use rhai::Engine;

use super::session::Session;

pub(super) use method::{find as find_aggregator, options_of as aggregator_options};
pub(super) use run::was_watched;
pub use sweep::works_for_a_sweep;

/// Registers everything.
pub(crate) fn register(engine: &mut Engine, session: &Rc<Session>) {
    arguments::register(engine, session);
    files::register(engine, session);
    math::register(engine);
    random::register(engine);
    text::register(engine, session);
    model::register(engine, session);
    data::register(engine, session);
    pairs::register(engine);
    loss::register(engine);
    gradients::register(engine, session);
    optim::register(engine);
    method::register(engine, session);
    measure::register(engine);
    cost::register(engine, session);
    run::register(engine, session);
    report::register(engine, session);
    snapshot::register(engine);
    sweep::register(engine, session);
    view::register(engine, session);
    fronts::register(engine, session);
    judge::register(engine, session);
    look::register(engine, session);
}
