//! Optimisers and their schedules.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rhai::{Dynamic, Engine, Map};

use crate::engine::Gradient;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::optim::{self, AdamW, Schedule, Sgd, Shape, StepReport, Warmup};

use super::super::value::{Answer, Opts, show, unknown};

/// An optimiser of one model; copies share it.
#[derive(Clone)]
pub(super) struct Optimizer {
    pub inner: Rc<RefCell<optim::Optimizer>>,
    /// What the last step did.
    pub report: Rc<Cell<Option<StepReport>>>,
}

impl Optimizer {
    fn new(inner: optim::Optimizer) -> Self {
        Self { inner: Rc::new(RefCell::new(inner)), report: Rc::default() }
    }

    fn show(&self) -> String {
        let inner = self.inner.borrow();
        format!("{}(lr {}, {} steps done)", inner.name(), inner.lr(), inner.step_count())
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Optimizer>("Optimizer");
    engine.register_fn("adamw", |model: Model, options: Map| -> Answer<Optimizer> {
        let mut options = Opts::new("adamw", options);
        let default = AdamW::default();
        let betas = options.floats("betas")?;
        let (beta1, beta2) = match betas.as_deref() {
            None => (default.beta1, default.beta2),
            Some(&[beta1, beta2]) => (beta1, beta2),
            Some(other) => {
                return Err(Error::new(format!("`betas` has {} numbers, expected 2", other.len()))
                    .help("for example `betas: [0.9, 0.999]`")
                    .into());
            }
        };
        let eps = options.float("eps")?.unwrap_or(default.eps);
        let decay = options.float("decay")?.unwrap_or(default.decay);
        let common = common(options)?;
        Ok(Optimizer::new(optim::Optimizer::adamw(&model, AdamW { beta1, beta2, eps, decay }, common)?))
    });
    engine.register_fn("sgd", |model: Model, options: Map| -> Answer<Optimizer> {
        let mut options = Opts::new("sgd", options);
        let rule = Sgd {
            momentum: options.float("momentum")?.unwrap_or_default(),
            decay: options.float("decay")?.unwrap_or_default(),
            nesterov: options.flag("nesterov")?.unwrap_or_default(),
        };
        Ok(Optimizer::new(optim::Optimizer::sgd(&model, rule, common(options)?)?))
    });
    engine.register_fn("step", |optimizer: &mut Optimizer, direction: Gradient| -> Answer<Map> {
        let report = optimizer.inner.borrow_mut().step(&direction)?;
        optimizer.report.set(Some(report));
        let report = [
            ("lr", Dynamic::from(report.lr)),
            ("norm", Dynamic::from(report.norm)),
            ("clipped", Dynamic::from(report.clipped)),
        ];
        Ok(report.into_iter().map(|(k, v)| (k.into(), v)).collect())
    });
    engine.register_fn("preview", |optimizer: &mut Optimizer, direction: Gradient| -> Answer<Gradient> {
        Ok(optimizer.inner.borrow_mut().preview(&direction)?)
    });
    engine.register_get("lr", |optimizer: &mut Optimizer| optimizer.inner.borrow().lr());
    engine.register_get("steps", |optimizer: &mut Optimizer| optimizer.inner.borrow().step_count() as i64);
    engine.register_fn("to_string", |optimizer: &mut Optimizer| optimizer.show());
    engine.register_fn("to_debug", |optimizer: &mut Optimizer| optimizer.show());
}

/// `lr`, `clip`, and the schedule: its shape, `warmup` as a count of steps (int) or a part of them (float), `steps`.
fn common(mut options: Opts) -> Result<optim::Options> {
    let lr = options.float("lr")?.ok_or_else(|| {
        Error::new("the optimiser needs a learning rate").help("give `lr`, for example `#{ lr: 5e-4 }`")
    })?;
    let shape = match options.text("schedule")?.as_deref() {
        None | Some("constant") => Shape::Constant,
        Some("linear") => Shape::Linear,
        Some("cosine") => Shape::Cosine,
        Some(other) => return Err(unknown("schedule", other, ["constant", "linear", "cosine"])),
    };
    let total = options.count("steps")?;
    let warmup = options.take("warmup");
    let warmup = match warmup.as_ref().map(|w| (w.as_int(), w.as_float())) {
        None => Warmup::Steps(0),
        Some((Ok(steps), _)) if steps >= 0 => Warmup::Steps(steps as usize),
        Some((_, Ok(part))) => Warmup::Fraction(part),
        Some(_) => {
            let found = warmup.as_ref().map_or_else(String::new, show);
            return Err(Error::new(format!("`warmup` is `{found}`, expected steps or a part of them"))
                .help("give a whole number of steps, or a part such as `0.1`"));
        }
    };
    let clip = options.float("clip")?;
    options.finish()?;
    Ok(optim::Options { lr, schedule: Schedule::new(shape, warmup, total)?, clip })
}
