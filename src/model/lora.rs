//! Low-rank adapters: y = x Wᵀ + s (x Aᵀ) Bᵀ with W frozen, A [r, in] and B [out, r] trained.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::Regex;
use serde_json::{Value, json};

use super::ops::gemm::{Into, Threads, View, ViewMut, gemm};
use super::tape::{Axis, Matrix, Sink};
use super::values::{host, values};
use super::{Config, Model, Parameter, Parts, Weights, parameters};
use crate::error::{Error, Result};

/// What an adapter is made of, in the terms of PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// Rank r of each module's B A.
    pub rank: usize,
    /// Scale: s = alpha / r, or alpha / √r with `rslora`.
    pub alpha: f64,
    /// Rank-stabilised scale (arXiv 2312.03732).
    pub rslora: bool,
    /// Which modules carry an adapter.
    pub targets: Targets,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, rslora: false, targets: Targets::AllLinear }
    }
}

impl Lora {
    /// The factor s of B A.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// The parameters of an architecture whose modules carry it.
    ///
    /// # Errors
    /// Targets that choose no module, a rank or alpha out of range.
    pub fn parameters(&self, config: &Config) -> Result<Vec<usize>> {
        self.check()?;
        let all = modules(config);
        let chosen = self.targets.choose(&all)?;
        Ok(all.iter().zip(chosen).filter_map(|(m, yes)| yes.then_some(m.parameter)).collect())
    }

    fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(
                Error::new("the rank of an adapter must be at least 1").help("for example `rank: 16`")
            );
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::new(format!(
                "`alpha` of an adapter must be a positive number, found `{}`",
                self.alpha
            ))
            .help("twice the rank is usual"));
        }
        Ok(())
    }
}

/// Modules chosen as PEFT's `target_modules` does.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Modules of these names, whole (`model.layers.0.mlp.up_proj`) or the last parts of them (`up_proj`).
    Names(Vec<String>),
    /// Modules whose whole name matches a regular expression.
    Pattern(String),
    /// Every linear module but the head.
    AllLinear,
}

impl Targets {
    /// PEFT's reading of one string: `all-linear`, or a pattern.
    pub fn pattern(text: &str) -> Self {
        if text.eq_ignore_ascii_case("all-linear") { Self::AllLinear } else { Self::Pattern(text.to_owned()) }
    }

    /// Which of the modules are meant; a name that none of them has is an error.
    fn choose(&self, modules: &[Module]) -> Result<Vec<bool>> {
        let none = |what: String| {
            let kinds: Vec<String> = kinds(modules).iter().map(|kind| format!("`{kind}`")).collect();
            let first = modules.first().map_or("", |module| &module.name);
            let kinds = kinds.join(", ");
            Error::new(what)
                .help(format!("the modules are {kinds}; the whole name of the first is `{first}`"))
        };
        let chosen: Vec<bool> = match self {
            Self::AllLinear => vec![true; modules.len()],
            Self::Names(names) => {
                let has = |module: &Module, name: &str| {
                    module.name.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                if let Some(name) = names.iter().find(|name| !modules.iter().any(|m| has(m, name))) {
                    return Err(none(format!("no linear module of a layer is named `{name}`")));
                }
                modules.iter().map(|module| names.iter().any(|name| has(module, name))).collect()
            }
            Self::Pattern(pattern) => {
                let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|e| {
                    let text = e.to_string();
                    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    Error::new(format!("`{pattern}` is no regular expression: {why}")).help(
                        "give names such as `[\"q_proj\", \"v_proj\"]`, or a pattern such as `.*q_proj`",
                    )
                })?;
                modules.iter().map(|module| regex.is_match(&module.name)).collect()
            }
        };
        if !chosen.contains(&true) {
            return Err(none(match self {
                Self::Pattern(pattern) => {
                    format!("no linear module of a layer matches `{pattern}` as a whole")
                }
                _ => "no module is chosen for the adapter".into(),
            }));
        }
        Ok(chosen)
    }
}

/// The last parts of the names, each once.
fn kinds(modules: &[Module]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for module in modules {
        let kind = module.name.rsplit('.').next().unwrap_or(&module.name);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// A linear module of a layer.
#[derive(Debug, Clone)]
struct Module {
    name: String,
    /// Index of its weight, [out, in].
    parameter: usize,
    out: usize,
    width: usize,
}

fn modules(config: &Config) -> Vec<Module> {
    let linear = |(parameter, (name, shape)): (usize, (String, Vec<usize>))| {
        let name = name.strip_suffix(".weight").filter(|name| name.contains(".layers."))?.to_owned();
        let [out, width] = shape[..] else { return None };
        Some(Module { name, parameter, out, width })
    };
    parameters(config).into_iter().enumerate().filter_map(linear).collect()
}

/// An adapter of one decoder: where its tensors belong. Their values are the model's [`Weights`]: A then B of each
/// module, in the order of the decoder.
pub struct Adapter {
    lora: Lora,
    base: Arc<Weights>,
    modules: Vec<Module>,
    /// Index of the module of a decoder's parameter.
    places: Vec<Option<usize>>,
}

impl Adapter {
    /// An adapter of the decoder `base`.
    pub(super) fn new(lora: Lora, config: &Config, base: Arc<Weights>) -> Result<Self> {
        lora.check()?;
        let all = modules(config);
        let chosen = lora.targets.choose(&all)?;
        let modules: Vec<Module> =
            all.into_iter().zip(chosen).filter_map(|(m, yes)| yes.then_some(m)).collect();
        let mut places = vec![None; base.parameters().len()];
        modules.iter().enumerate().for_each(|(i, module)| places[module.parameter] = Some(i));
        Ok(Self { lora, base, modules, places })
    }

    /// The same adapter of a copy of its decoder on `device`.
    pub(super) fn on(&self, device: &Device) -> Result<Self> {
        let base = Arc::new(self.base.copied(device)?);
        let Self { lora, modules, places, .. } = self;
        Ok(Self { lora: lora.clone(), base, modules: modules.clone(), places: places.clone() })
    }

    /// What it is made of.
    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    /// The decoder that it adapts.
    pub fn base(&self) -> &Arc<Weights> {
        &self.base
    }

    /// What it is made of, for people and files; all linear modules by the last parts of their names.
    pub fn describe(&self) -> Value {
        let targets = match &self.lora.targets {
            Targets::Names(names) => json!(names),
            Targets::Pattern(pattern) => json!(pattern),
            Targets::AllLinear => json!(kinds(&self.modules)),
        };
        let Lora { rank, alpha, rslora, .. } = self.lora;
        json!({ "rank": rank, "alpha": alpha, "rslora": rslora, "targets": targets, "modules": self.modules.len() })
    }

    /// Number of modules that carry it.
    pub fn module_count(&self) -> usize {
        self.modules.len()
    }

    /// The factor s of B A.
    pub(crate) fn scale(&self) -> f32 {
        self.lora.scale() as f32
    }

    /// Name and shape of its tensors, in order.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let rank = self.lora.rank;
        self.modules.iter().flat_map(move |Module { name, out, width, .. }| {
            [
                (format!("{name}.lora_A.weight"), vec![rank, *width]),
                (format!("{name}.lora_B.weight"), vec![*out, rank]),
            ]
        })
    }

    /// A as PEFT draws it (Kaiming-uniform: U(-1/√in, 1/√in)), B = 0.
    fn fresh(&self, seed: u64) -> Result<Weights> {
        let draw = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
            let size = shape.iter().product();
            let values = if is_b(index) {
                vec![0.0; size]
            } else {
                let bound = 1.0 / (shape[1] as f32).sqrt();
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                // a stream for each module: what one gets does not depend on the other targets
                rng.set_stream(self.modules[index / 2].parameter as u64);
                (0..size).map(|_| rng.random_range(-bound..bound)).collect()
            };
            Ok(Parameter { name, tensor: Tensor::from_vec(values, shape, &Device::Cpu)? })
        };
        Ok(Weights::new(self.tensors().enumerate().map(draw).collect::<Result<_>>()?))
    }

    /// True while no B has a number other than zero: the model is its base.
    pub(super) fn is_idle(&self, weights: &Weights) -> bool {
        (0..self.modules.len()).all(|module| is_zero(weights, 2 * module + 1))
    }

    /// True for an A whose B is zero: nothing reaches it.
    pub(crate) fn is_out_of_reach(&self, weights: &Weights, index: usize) -> bool {
        !is_b(index) && is_zero(weights, index + 1)
    }

    /// The parameters of the decoder whose modules carry it.
    pub fn parameters(&self) -> Vec<usize> {
        self.modules.iter().map(|module| module.parameter).collect()
    }

    /// True if the module of a decoder's parameter carries it.
    pub(crate) fn adapts(&self, parameter: usize) -> bool {
        self.places.get(parameter).is_some_and(Option::is_some)
    }
}

fn is_b(index: usize) -> bool {
    index % 2 == 1
}

fn is_zero(weights: &Weights, index: usize) -> bool {
    let tensor = host(&weights.parameters()[index].tensor);
    tensor.is_ok_and(|tensor| values::<f32>(&tensor).is_ok_and(|values| values.iter().all(|&x| x == 0.0)))
}

impl Model {
    /// This model with a fresh adapter, which is then what is trained. The decoder is shared, not copied.
    ///
    /// # Errors
    /// Targets that choose no module, a rank or alpha out of range, a model that has an adapter already.
    pub fn with_adapter(&self, lora: Lora, seed: u64) -> Result<Self> {
        let adapter = Adapter::new(lora, self.config(), self.free_base()?)?;
        let weights = adapter.fresh(seed)?.moved(&self.device())?;
        Ok(self.with(Arc::new(weights), Some(Arc::new(adapter))))
    }

    /// The decoder of a model without adapter.
    pub(super) fn free_base(&self) -> Result<Arc<Weights>> {
        match self.adapter() {
            None => Ok(self.weights()),
            Some(_) => Err(Error::new("the model has an adapter already")
                .help("merge it first, `policy.merged()`, or take the model without it, `policy.base()`")),
        }
    }

    /// A model without adapter that computes the same: W + s B A in the place of each W.
    ///
    /// # Errors
    /// A tensor operation that fails.
    pub fn merged(&self) -> Result<Self> {
        let Parts { decoder, adapter, .. } = self.parts();
        let mut merged = decoder.copy()?;
        if let Some((adapter, weights)) = &adapter {
            let factor = |i: usize| host(&weights.parameters()[i].tensor);
            let rank = adapter.lora.rank;
            for (i, &Module { parameter, out, width, .. }) in adapter.modules.iter().enumerate() {
                let (a, b) = (factor(2 * i)?, factor(2 * i + 1)?);
                let (a, b) = (values::<f32>(&a)?, values::<f32>(&b)?);
                let (a, b) = (View::new(&a, rank, width), View::new(&b, out, rank));
                merged.change(parameter, |w| {
                    gemm(ViewMut::new(w, out, width), Into::Add, adapter.scale(), b, a, Threads::All);
                    Ok(())
                })?;
            }
        }
        Ok(self.with(Arc::new(merged), None))
    }
}

/// The adapter of one module in one pass.
pub(super) struct LowRank {
    /// Index of A among the trained weights; B follows.
    pub(super) index: usize,
    pub(super) a: Tensor, // [r, in]
    pub(super) b: Tensor, // [out, r]
    pub(super) scale: f32,
    h: Vec<f32>, // s x Aᵀ [T, r]
}

impl LowRank {
    /// That of a decoder's parameter, if it has one.
    pub(super) fn of(parts: &Parts, parameter: usize) -> Option<Self> {
        let (adapter, weights) = parts.adapter.as_ref()?;
        let index = 2 * adapter.places[parameter]?;
        let tensor = |i: usize| weights.parameters()[i].tensor.clone();
        Some(Self { index, a: tensor(index), b: tensor(index + 1), scale: adapter.scale(), h: Vec::new() })
    }

    /// y += s (x Aᵀ) Bᵀ, [T, out].
    pub(super) fn forward(mut self, x: View, y: ViewMut, rows: usize) -> Result<Self> {
        let ((rank, width), (out, _)) = (self.a.dims2()?, self.b.dims2()?);
        self.h = vec![0f32; rows * rank];
        let a = values::<f32>(&self.a)?;
        let h = ViewMut::new(&mut self.h, rows, rank);
        gemm(h, Into::Overwrite, self.scale, x, View::new(&a, rank, width).t(), Threads::All);
        let (h, b) = (View::new(&self.h, rows, rank), values::<f32>(&self.b)?);
        gemm(y, Into::Add, 1.0, h, View::new(&b, out, rank).t(), Threads::All);
        drop((a, b));
        Ok(self)
    }

    /// dB = dyᵀ h, dA = dhᵀ x and dx += dh A with dh = s dy B, [T, r].
    pub(super) fn backward(
        &self,
        x: View,
        dy: View,
        dx: Option<ViewMut>,
        axis: Axis,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let ((rank, width), (out, _)) = (self.a.dims2()?, self.b.dims2()?);
        let rows = self.h.len() / rank;
        let (a, b) = (values::<f32>(&self.a)?, values::<f32>(&self.b)?);
        let mut dh = vec![0f32; rows * rank];
        let dst = ViewMut::new(&mut dh, rows, rank);
        gemm(dst, Into::Overwrite, self.scale, dy, View::new(&b, out, rank), Threads::All);
        let dh = View::new(&dh, rows, rank);
        if let Some(dx) = dx {
            gemm(dx, Into::Add, 1.0, dh, View::new(&a, rank, width), Threads::All);
        }
        sink.product(self.index, 0, Matrix(dh), Matrix(x), axis);
        sink.product(self.index + 1, 0, Matrix(dy), Matrix(View::new(&self.h, rows, rank)), axis);
        Ok(())
    }
}
