//! Time and memory of a script's own steps, and the bound of a step.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::{Dynamic, Engine, Map};

use crate::engine::Products;
use crate::run::{Meter, memory, reset_peak_memory};

use super::loss::LogProbs;

/// The products of a step; copies share the buffers.
#[derive(Clone)]
struct Bound(Rc<RefCell<Products>>);

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Meter>("Meter");
    engine.register_fn("meter", Meter::start);
    engine.register_fn("reset_peak_memory", reset_peak_memory);
    engine.register_fn("memory", || -> Map {
        let parts = memory().map(|m| [("current_mib", m.current_mib), ("peak_mib", m.peak_mib)]);
        parts.into_iter().flatten().map(|(key, mib)| (key.into(), mib.into())).collect()
    });
    engine.register_get("wall_ms", |m: &mut Meter| m.wall_ms());
    engine.register_get("cpu_ms", |m: &mut Meter| told(m.cpu_ms()));
    let text = |m: &mut Meter| format!("Meter({:.1} ms)", m.wall_ms());
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);

    engine.register_type_with_name::<Bound>("Products");
    engine.register_fn("products", |l: &mut LogProbs| {
        Bound(Rc::new(RefCell::new(Products::new(&l.0.log_probs))))
    });
    engine.register_fn("run", |b: &mut Bound| b.0.borrow_mut().run());
    engine.register_fn("stream", |b: &mut Bound| b.0.borrow().stream() as i64);
    engine.register_get("flops", |b: &mut Bound| b.0.borrow().flops());
    let text = |b: &mut Bound| format!("Products({:.3} GFLOP)", b.0.borrow().flops() / 1e9);
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

/// `()` where the system does not tell.
fn told(value: Option<f64>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Dynamic::from)
}
