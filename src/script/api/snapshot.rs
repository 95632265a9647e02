//! Models, optimisers and methods as they were at one time.

use std::rc::Rc;
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine};

use crate::error::{Error, Result};
use crate::model::{Model, Weights};
use crate::optim;

use super::super::value::{Answer, type_of};
use super::method::Method;
use super::optim::Optimizer;

/// What `restore` puts back; copies share it.
#[derive(Clone)]
struct Snapshot(Rc<Vec<Kept>>);

enum Kept {
    Model(Model, Arc<Weights>),
    Optimizer(Optimizer, optim::Snapshot),
    Method(Method, (Option<(usize, Dynamic)>, u64)),
}

impl Snapshot {
    fn of(states: Array) -> Result<Self> {
        let keep = |state: Dynamic| {
            if let Some(model) = state.clone().try_cast::<Model>() {
                let weights = model.weights();
                Ok(Kept::Model(model, weights))
            } else if let Some(optimizer) = state.clone().try_cast::<Optimizer>() {
                let kept = optimizer.inner.borrow().snapshot();
                Ok(Kept::Optimizer(optimizer, kept))
            } else if let Some(method) = state.clone().try_cast::<Method>() {
                let kept = method.snapshot();
                Ok(Kept::Method(method, kept))
            } else {
                Err(Error::new(format!("a snapshot cannot hold {}", type_of(&state)))
                    .help("give models, optimisers and aggregators: `snapshot([policy, optimizer, method])`"))
            }
        };
        Ok(Self(Rc::new(states.into_iter().map(keep).collect::<Result<_>>()?)))
    }

    fn restore(&self) -> Result<()> {
        for kept in self.0.iter() {
            match kept {
                Kept::Model(model, weights) => model.restore(weights.clone())?,
                Kept::Optimizer(optimizer, kept) => optimizer.inner.borrow_mut().put_back(kept)?,
                Kept::Method(method, kept) => method.put_back(kept.clone()),
            }
        }
        Ok(())
    }

    fn show(&self) -> String {
        let kinds = self.0.iter().map(|kept| match kept {
            Kept::Model(..) => "model",
            Kept::Optimizer(..) => "optimiser",
            Kept::Method(..) => "method",
        });
        format!("Snapshot({})", kinds.collect::<Vec<_>>().join(", "))
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Snapshot>("Snapshot");
    engine.register_fn("snapshot", |states: Array| -> Answer<Snapshot> { Ok(Snapshot::of(states)?) });
    engine.register_fn("restore", |snapshot: Snapshot| -> Answer<()> { Ok(snapshot.restore()?) });
    engine.register_fn("to_string", |snapshot: &mut Snapshot| snapshot.show());
    engine.register_fn("to_debug", |snapshot: &mut Snapshot| snapshot.show());
}
