//! Time and memory of a script's own steps, and the bound of a step.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::{Dynamic, Engine};

use crate::engine::Products;
use crate::run::Meter;

use super::loss::LogProbs;

/// The products of a step; copies share the buffers.
#[derive(Clone)]
struct Bound(Rc<RefCell<Products>>);

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Meter>("Meter");
    engine.register_fn("meter", Meter::start_with_memory);
    engine.register_get("wall_ms", |m: &mut Meter| m.wall_ms());
    engine.register_get("cpu_ms", |m: &mut Meter| told(m.cpu_ms()));
    engine.register_get("peak_mib", |m: &mut Meter| told(m.peak_mib()));
    let text = |m: &mut Meter| format!("Meter({:.1} ms)", m.wall_ms());
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);

    engine.register_type_with_name::<Bound>("Products");
    engine.register_fn("products", |l: &mut LogProbs| {
        Bound(Rc::new(RefCell::new(Products::new(&l.0.log_probs))))
    });
    engine.register_fn("run", |b: &mut Bound| b.0.borrow_mut().run());
    engine.register_get("flops", |b: &mut Bound| b.0.borrow().flops());
    let text = |b: &mut Bound| format!("Products({:.3} GFLOP)", b.0.borrow().flops() / 1e9);
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

/// `()` where the system does not tell.
fn told(value: Option<f64>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Dynamic::from)
}
