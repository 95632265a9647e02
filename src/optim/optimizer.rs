//! The step: check, clip, descend.

use std::path::Path;

use candle_core::Tensor;
use rayon::prelude::*;

use super::tensors::{TensorState, extent_of};
use super::{AdamW, Schedule, Sgd, StateFile, read_vectors, write_vectors};
use crate::engine::Gradient;
use crate::error::{Error, Place, Result};
use crate::model::ops::simd::{dispatch, max_abs};
use crate::model::values::values;
use crate::model::{Kernels, Model, reserve};

/// Scalars that one task works on; fixed, so that sums do not depend on the thread count.
pub(super) const CHUNK: usize = 1 << 14;

/// What all optimisers share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Learning rate, > 0; the schedule multiplies it.
    pub lr: f64,
    /// Its course over the steps.
    pub schedule: Schedule,
    /// The update is scaled down to this norm where it is longer, as in `torch.nn.utils.clip_grad_norm_`.
    pub clip: Option<f64>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Learning rate of this step.
    pub lr: f64,
    /// Norm of the combined update as it came, before clipping.
    pub norm: f64,
    /// It was longer than the clipping norm.
    pub clipped: bool,
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Number of the step, from 1.
    pub number: usize,
    /// Learning rate.
    pub lr: f64,
    /// Factor of the update that clips it, in (0, 1].
    pub scale: f32,
}

impl Step {
    pub(super) fn exponent(&self) -> i32 {
        i32::try_from(self.number).unwrap_or(i32::MAX)
    }
}

/// How the combined update moves the parameters.
pub trait Rule {
    /// Name in messages and in the state file.
    fn name(&self) -> &'static str;

    /// The state to save: named vectors over all parameters, each [P].
    fn state(&self) -> Vec<(&'static str, &[f32])>;

    /// The same vectors, to be filled when a state is restored.
    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])>;

    /// An upper bound on every |u| of θ ← θ - lr·u and on every |state|, where no input of this or an earlier
    /// step was larger than `peak`; infinite where something may overflow.
    fn reach(&self, step: &Step, peak: f64) -> f64;

    /// Weight decay that multiplies the weights.
    fn decay(&self) -> f64 {
        0.0
    }

    /// Weight decay that is added to the update.
    fn coupled_decay(&self) -> f64 {
        0.0
    }

    /// Moves the weights of one parameter, whose scalars begin at `at`, by its part of the update.
    fn apply(&mut self, step: &Step, at: usize, weights: &mut [f32], update: &[f32]);

    /// The same by tensor operations: the new weights of one parameter, whose part of each vector of the state is in
    /// `state`, in the order of [`Rule::state`], and is replaced there.
    ///
    /// # Errors
    /// A rule that has slices only; a device that fails.
    fn shift(
        &self,
        _step: &Step,
        _weight: &Tensor,
        _update: &Tensor,
        _state: &mut [Tensor],
    ) -> Result<Tensor> {
        Err(Error::new(format!("the rule `{}` is not written for tensors", self.name()))
            .help("train on the CPU with the fused kernels, or use `adamw` or `sgd`"))
    }
}

/// The state of an optimiser at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    vectors: Vec<Vec<f32>>,
    tensors: Option<TensorState>,
    steps: usize,
    peak: f64,
}

/// Moves the parameters of one model along combined updates.
pub struct Optimizer {
    model: Model,
    options: Options,
    rule: Box<dyn Rule>,
    /// The rule's state where the generic kernels compute; the rule's own vectors are then empty.
    tensors: Option<TensorState>,
    steps: usize,
    peak: f64,
}

impl Optimizer {
    /// An AdamW optimiser of `model`.
    ///
    /// # Errors
    /// A constant outside its range.
    pub fn adamw(model: &Model, adamw: AdamW, options: Options) -> Result<Self> {
        if model.device().is_cpu() {
            reserve("the moments of AdamW", 8 * model.weights().space().size() as u64)?;
        }
        let rule = adamw.rule(held_by_rule(model))?;
        Self::with_rule(model, Box::new(rule), options)
    }

    /// An SGD optimiser of `model`.
    ///
    /// # Errors
    /// A constant outside its range.
    pub fn sgd(model: &Model, sgd: Sgd, options: Options) -> Result<Self> {
        let rule = sgd.rule(held_by_rule(model))?;
        Self::with_rule(model, Box::new(rule), options)
    }

    /// An optimiser of `model` with a rule of one's own.
    ///
    /// # Errors
    /// A learning rate or clipping norm that is not a positive number; weights that are not trained.
    pub fn with_rule(model: &Model, rule: Box<dyn Rule>, options: Options) -> Result<Self> {
        model.weights().check_trainable()?;
        check_number("lr", options.lr, f64::MIN_POSITIVE)?;
        options.clip.map_or(Ok(()), |clip| check_number("clip", clip, f64::MIN_POSITIVE))?;
        let tensors = match model.kernels() {
            Kernels::Fused => None,
            Kernels::Generic => Some(TensorState::zeros(rule.state().len(), &model.weights())?),
        };
        Ok(Self { model: model.clone(), options, rule, tensors, steps: 0, peak: 0.0 })
    }

    /// The model that it moves.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Name of the rule: `adamw`, `sgd`.
    pub fn name(&self) -> &'static str {
        self.rule.name()
    }

    /// Number of steps taken.
    pub fn step_count(&self) -> usize {
        self.steps
    }

    /// Learning rate of the next step.
    pub fn lr(&self) -> f64 {
        self.options.lr * self.options.schedule.factor(self.steps)
    }

    /// θ ← θ - lr·u.
    ///
    /// # Errors
    /// An update over other parameters; an update or a weight that is not finite, or a step that may overflow:
    /// nothing is changed then, and the tensor is named.
    pub fn step(&mut self, update: &Gradient) -> Result<StepReport> {
        let space = self.model.weights().space().clone();
        if *update.space() != space {
            return Err(Error::new("the update and the optimiser's model have different parameters")
                .help("take the gradients from the model that the optimiser was made for"));
        }
        if self.tensors.is_some() {
            return self.step_tensors(update);
        }
        update.with_f32(|direction| {
            let found = Extent::of(direction);
            if !found.squares.is_finite() {
                update.check_finite("the update")?;
            }
            let (norm, factor, step) = self.next_step(&found);
            let peak = self.check(&step, f64::from(found.largest) * factor, update)?;
            let (rule, offsets) = (&mut self.rule, &space.offsets);
            self.model.update(|i, weights| {
                rule.apply(&step, offsets[i], weights, &direction[offsets[i]..offsets[i + 1]]);
                Ok(())
            })?;
            (self.steps, self.peak) = (step.number, peak);
            Ok(StepReport { lr: step.lr, norm, clipped: factor < 1.0 })
        })
    }

    /// [`Optimizer::step`] by tensor operations.
    fn step_tensors(&mut self, update: &Gradient) -> Result<StepReport> {
        let update = &update.map(|values| values.to_device(&self.model.device()))?;
        let found = extent_of(update.tensor())?;
        if !found.squares.is_finite() {
            update.check_finite("the update")?;
        }
        let (norm, factor, step) = self.next_step(&found);
        let peak = self.check(&step, f64::from(found.largest) * factor, update)?;
        let Some(state) = &mut self.tensors else { return Err(Error::internal("no state on the device")) };
        let (rule, space) = (&self.rule, update.space());
        self.model.replace(|i, weight| {
            let range = space.offsets[i]..space.offsets[i + 1];
            let part = update.tensor().narrow(0, range.start, range.len())?.reshape(weight.shape())?;
            rule.shift(&step, weight, &part, state.of(i))
        })?;
        (self.steps, self.peak) = (step.number, peak);
        Ok(StepReport { lr: step.lr, norm, clipped: factor < 1.0 })
    }

    /// Norm of the update, factor that clips it, and the numbers of the step.
    fn next_step(&self, found: &Extent) -> (f64, f64, Step) {
        let norm = found.squares.sqrt();
        // the formula of `clip_grad_norm_`
        let factor = self.options.clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        (norm, factor, Step { number: self.steps + 1, lr: self.lr(), scale: factor as f32 })
    }

    /// The peak of the inputs up to this step, or the error that keeps the weights finite.
    fn check(&self, step: &Step, largest: f64, update: &Gradient) -> Result<f64> {
        let weights = self.model.weights();
        let mut heaviest = (0f32, "");
        for parameter in weights.parameters() {
            let found = match &self.tensors {
                None => Extent::of(&values(&parameter.tensor)?),
                Some(_) => extent_of(&parameter.tensor)?,
            };
            if !found.squares.is_finite() {
                return Err(Error::new("a weight is not finite")
                    .at(Place::Tensor(parameter.name.clone()))
                    .help("start again from a checkpoint or model that is whole"));
            }
            if found.largest > heaviest.0 {
                heaviest = (found.largest, &parameter.name);
            }
        }
        let weight = f64::from(heaviest.0);
        let peak = self.peak.max(largest + self.rule.coupled_decay() * weight);
        let move_by = step.lr * self.rule.reach(step, peak);
        let limit = 0.99 * f64::from(f32::MAX);
        if self.rule.reach(step, peak) < limit
            && weight * (1.0 + step.lr * self.rule.decay()) + move_by < limit
        {
            return Ok(peak);
        }
        let larger =
            |most: (usize, f32), (i, g): (usize, &f32)| if g.abs() > most.1 { (i, g.abs()) } else { most };
        let most = update.with_f32(|direction| Ok(direction.iter().enumerate().fold((0, 0f32), larger)))?;
        let name = if weight > limit / 2.0 { heaviest.1 } else { weights.space().name_at(most.0) };
        Err(Error::new(format!(
            "the step may overflow: largest number of the update `{largest:e}`, of the weights `{weight:e}`, \
             learning rate `{:e}`",
            step.lr
        ))
        .at(Place::Tensor(name.to_owned()))
        .help("scale the losses down, clip the update by norm, or lower the learning rate"))
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        let vectors = self.rule.state().into_iter().map(|(_, vector)| vector.to_vec()).collect();
        Snapshot { vectors, tensors: self.tensors.clone(), steps: self.steps, peak: self.peak }
    }

    /// Puts a state back that [`Optimizer::snapshot`] gave.
    ///
    /// # Errors
    /// The state of another optimiser.
    pub fn put_back(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut own = self.rule.state_mut();
        let lengths = |len: usize, vector: &Vec<f32>| len == vector.len();
        let fits = match (&self.tensors, &snapshot.tensors) {
            (None, None) => true,
            (Some(own), Some(kept)) => own.shapes() == kept.shapes(),
            _ => false,
        };
        if own.len() != snapshot.vectors.len()
            || !fits
            || !own.iter().zip(&snapshot.vectors).all(|((_, own), kept)| lengths(own.len(), kept))
        {
            return Err(Error::new("the state belongs to another optimiser")
                .help("restore what was taken from this optimiser"));
        }
        own.iter_mut().zip(&snapshot.vectors).for_each(|((_, own), kept)| own.copy_from_slice(kept));
        self.tensors.clone_from(&snapshot.tensors);
        (self.steps, self.peak) = (snapshot.steps, snapshot.peak);
        Ok(())
    }

    /// θ' - θ, [P]: what a step along `update` would change, without changing anything.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn preview(&mut self, update: &Gradient) -> Result<Gradient> {
        let model = self.model.clone();
        let (state, before) = (self.snapshot(), model.weights());
        self.model = model.twin();
        let moved = self.step(update);
        let after = std::mem::replace(&mut self.model, model).weights();
        self.put_back(&state)?;
        moved?;
        let mut change = Vec::with_capacity(before.space().size());
        for (old, new) in before.parameters().iter().zip(after.parameters()) {
            change.push((&new.tensor - &old.tensor)?.flatten_all()?);
        }
        Gradient::new(before.space().clone(), Tensor::cat(&change, 0)?)
    }

    /// Writes the state to a safetensors file: each vector a tensor a parameter, and the step count.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = serde_json::json!({ "rule": self.name(), "steps": self.steps, "peak": self.peak });
        let weights = self.model.weights();
        let Some(state) = &self.tensors else {
            return write_vectors(path, weights.space(), &self.rule.state(), &header);
        };
        let numbers = state.numbers()?;
        let named = self.rule.state().into_iter().zip(&numbers);
        let vectors: Vec<_> = named.map(|((name, _), numbers)| (name, &numbers[..])).collect();
        write_vectors(path, weights.space(), &vectors, &header)
    }

    /// Continues from a state that [`Optimizer::save`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read, of another rule or another model; the state is unchanged only if the file
    /// could be opened and fits.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let file = StateFile::open(path)?;
        let field = |key: &str| {
            file.header().get(key).ok_or_else(|| {
                Error::new(format!("no `{key}` in the optimiser state"))
                    .in_file(path)
                    .help("use an older checkpoint")
            })
        };
        let rule = field("rule")?;
        if rule != self.name() {
            return Err(Error::new(format!(
                "optimiser state of {rule}, this optimiser is `{}`",
                self.name()
            ))
            .in_file(path)
            .help("resume with the optimiser that the run began with"));
        }
        let (steps, peak) = (field("steps")?.as_u64(), field("peak")?.as_f64());
        let (Some(steps), Some(peak)) = (steps, peak) else {
            return Err(Error::new("damaged optimiser state").in_file(path).help("use an older checkpoint"));
        };
        let weights = self.model.weights();
        match &mut self.tensors {
            None => read_vectors(&file, weights.space(), &mut self.rule.state_mut())?,
            Some(state) => {
                let names: Vec<&str> = self.rule.state().into_iter().map(|(name, _)| name).collect();
                let mut numbers = vec![vec![0f32; weights.space().size()]; names.len()];
                let named = names.into_iter().zip(numbers.iter_mut().map(|numbers| &mut numbers[..]));
                read_vectors(&file, weights.space(), &mut named.collect::<Vec<_>>())?;
                *state = TensorState::of_numbers(&numbers, &weights)?;
            }
        }
        (self.steps, self.peak) = (steps as usize, peak);
        Ok(())
    }
}

/// Sum of squares and largest magnitude.
#[derive(Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) squares: f64,
    pub(super) largest: f32,
}

impl Extent {
    /// Of all numbers; `squares` is finite exactly when all of them are.
    fn of(values: &[f32]) -> Self {
        let run = |part: &[f32]| {
            dispatch(
                #[inline(always)]
                || extent(part),
            )
        };
        let join =
            |a: Self, b: Self| Self { squares: a.squares + b.squares, largest: a.largest.max(b.largest) };
        if values.len() <= CHUNK {
            return run(values);
        }
        let parts: Vec<Self> = values.par_chunks(CHUNK).map(run).collect();
        parts.into_iter().fold(Self::default(), join)
    }
}

#[inline(always)]
fn extent(values: &[f32]) -> Extent {
    const WIDTH: usize = 16;
    let mut squares = [0f64; WIDTH];
    let chunks = values.chunks_exact(WIDTH);
    let rest: f64 = chunks.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for chunk in chunks {
        for i in 0..WIDTH {
            let x = f64::from(chunk[i]);
            squares[i] = x.mul_add(x, squares[i]);
        }
    }
    Extent { squares: squares.iter().sum::<f64>() + rest, largest: max_abs(values) }
}

/// Numbers of each vector that the rule itself keeps: none where they are tensors.
fn held_by_rule(model: &Model) -> usize {
    match model.kernels() {
        Kernels::Fused => model.weights().space().size(),
        Kernels::Generic => 0,
    }
}

pub(super) fn check_fraction(key: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::new(format!("`{key}` must be in [0, 1), found `{value}`"))
        .at(Place::Key(key.into()))
        .help("lower it"))
}

pub(super) fn check_number(key: &str, value: f64, least: f64) -> Result<()> {
    if value.is_finite() && value >= least {
        return Ok(());
    }
    let range = if least > 0.0 { "a positive number" } else { "a number ≥ 0" };
    Err(Error::new(format!("`{key}` must be {range}, found `{value}`"))
        .at(Place::Key(key.into()))
        .help(format!("give {range}")))
}
