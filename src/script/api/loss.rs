//! Log-probs of a batch, and the tensors that losses are made of: f64 on the CPU, with autograd.

use std::rc::Rc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor as Values, Var, bail};
use rhai::{Array, Dynamic, Engine, Map};

use crate::data;
use crate::engine;
use crate::error::{Error, Result};
use crate::model::Model;

use super::super::value::{Answer, Opts, array, floats};
use super::cost::{default_bytes, memory};
use super::data::{Batch, no_reference};

/// log π of the response tokens of a batch under the policy.
#[derive(Clone)]
pub(super) struct LogProbs(pub Rc<Origin>);

/// What the tensors of one batch come from; `jacobian` goes back to it.
pub(super) struct Origin {
    pub log_probs: engine::LogProbs,
    pub batch: Rc<data::Batch>,
}

/// A small tensor over the rows or tokens of a batch; copies share it.
#[derive(Clone)]
pub(super) struct Tensor {
    pub values: Values,
    pub origin: Option<Rc<Origin>>,
}

impl Tensor {
    /// Numbers that do not depend on the policy.
    fn constant(values: Vec<f64>) -> Result<Self> {
        let len = values.len();
        Ok(Self { values: Values::from_vec(values, len, &Device::Cpu)?, origin: None })
    }

    pub fn number(x: f64) -> Result<Self> {
        Ok(Self { values: Values::new(x, &Device::Cpu)?, origin: None })
    }

    fn map(&self, op: impl FnOnce(&Values) -> candle_core::Result<Values>) -> Answer<Self> {
        Ok(Self { values: op(&self.values).map_err(Error::from)?, origin: self.origin.clone() })
    }

    fn zip(
        &self,
        other: &Self,
        op: impl FnOnce(&Values, &Values) -> candle_core::Result<Values>,
    ) -> Answer<Self> {
        let origin = match (&self.origin, &other.origin) {
            (Some(a), Some(b)) if !Rc::ptr_eq(a, b) => {
                return Err(Error::new("the tensors come from two different calls of `log_probs`")
                    .help("build a loss from one `policy.log_probs(batch)`")
                    .into());
            }
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        let values = op(&self.values, &other.values).map_err(|_| {
            let (a, b) = (self.values.dims(), other.values.dims());
            Error::new(format!("tensors of shape {a:?} and {b:?} do not fit together"))
                .help("combine tensors of one length, or a tensor and a number")
        })?;
        Ok(Self { values, origin })
    }

    /// The only number of a scalar.
    fn value(&self) -> Result<f64> {
        match self.values.elem_count() {
            1 => Ok(self.values.flatten_all()?.to_vec1::<f64>()?[0]),
            n => Err(Error::new(format!("`value` of a tensor of {n} numbers"))
                .help("take `mean()` or `sum()` first, or `to_array()` for all numbers")),
        }
    }

    fn numbers(&self) -> Result<Vec<f64>> {
        Ok(self.values.flatten_all()?.to_vec1::<f64>()?)
    }

    fn show(&self) -> String {
        let numbers = self.numbers().unwrap_or_default();
        let shown: Vec<String> = numbers.iter().take(6).map(|x| format!("{x:.4}")).collect();
        let dots = if numbers.len() > shown.len() { ", …" } else { "" };
        format!("Tensor({:?}; {}{dots})", self.values.dims(), shown.join(", "))
    }
}

/// A function of single numbers with its derivative, both exact far out, where autograd of the parts overflows.
struct Scalar {
    name: &'static str,
    value: fn(f64) -> f64,
    slope: fn(f64) -> f64,
}

/// log σ(x) = -log(1 + e⁻ˣ).
const LOG_SIGMOID: Scalar = Scalar {
    name: "log_sigmoid",
    value: |x| x.min(0.0) - (-x.abs()).exp().ln_1p(),
    slope: |x| 1.0 / (1.0 + x.exp()),
};

/// log(1 - eˣ), x < 0.
const LOG1MEXP: Scalar = Scalar {
    name: "log1mexp",
    value: |x| if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() },
    slope: |x| -1.0 / (-x).exp_m1(),
};

/// max(x, 0), with slope 0 at the kink; candle's has slope 1 there.
const RELU: Scalar = Scalar { name: "relu", value: |x| x.max(0.0), slope: |x| f64::from(x > 0.0) };

impl CustomOp1 for &'static Scalar {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F64(x), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("{} takes contiguous f64", self.name)
        };
        let y = x[start..end].iter().map(|&x| (self.value)(x)).collect();
        Ok((CpuStorage::F64(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Values, _y: &Values, gradient: &Values) -> candle_core::Result<Option<Values>> {
        let slopes = x.flatten_all()?.to_vec1::<f64>()?.into_iter().map(self.slope).collect();
        Ok(Some((gradient * Values::from_vec(slopes, x.shape(), x.device())?)?))
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<LogProbs>("LogProbs");
    engine.register_fn("log_probs", |policy: &mut Model, batch: Batch| -> Answer<LogProbs> {
        Ok(log_probs(policy, batch, Map::new())?)
    });
    engine.register_fn("log_probs", |policy: &mut Model, batch: Batch, options: Map| -> Answer<LogProbs> {
        Ok(log_probs(policy, batch, options)?)
    });
    engine.register_get("chosen", |l: &mut LogProbs| sums(l, 0));
    engine.register_get("rejected", |l: &mut LogProbs| sums(l, 1));
    engine.register_get("margin", |l: &mut LogProbs| -> Answer<Tensor> {
        sums(l, 0)?.zip(&sums(l, 1)?, |a, b| a - b)
    });
    engine.register_get("tokens", |l: &mut LogProbs| Tensor {
        values: l.0.log_probs.tokens().clone(),
        origin: Some(l.0.clone()),
    });
    engine.register_get("batch", |l: &mut LogProbs| Batch(l.0.batch.clone()));
    engine.register_get("passes", |l: &mut LogProbs| l.0.log_probs.plan().passes.len() as i64);
    let text = |l: &mut LogProbs| {
        format!("LogProbs({} rows, {} tokens)", l.0.batch.len(), l.0.log_probs.tokens().elem_count())
    };
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
    batch(engine);
    tensor(engine);
    operators(engine);
}

/// What losses need of a batch.
fn batch(engine: &mut Engine) {
    engine.register_get("reference_chosen", |b: &mut Batch| reference(b, |r| r[0]));
    engine.register_get("reference_rejected", |b: &mut Batch| reference(b, |r| r[1]));
    engine.register_get("reference_margin", |b: &mut Batch| reference(b, |r| r[0] - r[1]));
    engine.register_get("chosen_lengths", |b: &mut Batch| lengths(b, 0));
    engine.register_get("rejected_lengths", |b: &mut Batch| lengths(b, 1));
    engine.register_fn("sign", |b: &mut Batch, objective: &str| -> Answer<Tensor> {
        Ok(Tensor::constant(b.0.signs(objective)?)?)
    });
    engine.register_fn("labelled", |b: &mut Batch, objective: &str| -> Answer<Tensor> {
        Ok(Tensor::constant(b.0.labelled(objective)?.into_iter().map(f64::from).collect())?)
    });
    engine.register_fn("mean", |b: &mut Batch, objective: &str, values: Tensor| -> Answer<Tensor> {
        let labelled: Vec<f64> = b.0.labelled(objective)?.into_iter().map(f64::from).collect();
        let count: f64 = labelled.iter().sum();
        let mask = Tensor::constant(labelled)?;
        mask.zip(&values, |m, v| (m * v)?.sum_all()? / count.max(1.0))
    });
}

fn tensor(engine: &mut Engine) {
    engine.register_type_with_name::<Tensor>("Tensor");
    engine.register_fn("tensor", |values: Array| -> Answer<Tensor> {
        Ok(Tensor::constant(floats(&values, "tensor")?)?)
    });
    engine.register_fn("variable", |values: Array| -> Answer<Tensor> {
        let values = floats(&values, "variable")?;
        let leaf = Var::from_vec(values.clone(), values.len(), &Device::Cpu).map_err(Error::from)?;
        Ok(Tensor { values: leaf.into_inner(), origin: None })
    });
    engine.register_fn("derivative", |y: Tensor, x: Tensor| -> Answer<Array> { Ok(derivative(&y, &x)?) });
    for op in [&LOG_SIGMOID, &LOG1MEXP, &RELU] {
        engine.register_fn(op.name, move |t: Tensor| t.map(|x| x.contiguous()?.apply_op1(op)));
    }
    engine.register_fn("-", |t: Tensor| t.map(Values::neg));
    engine.register_fn("sigmoid", |t: Tensor| t.map(candle_nn::ops::sigmoid));
    engine.register_fn("exp", |t: Tensor| t.map(Values::exp));
    engine.register_fn("log", |t: Tensor| t.map(Values::log));
    engine.register_fn("abs", |t: Tensor| t.map(Values::abs));
    engine.register_fn("sqr", |t: Tensor| t.map(Values::sqr));
    engine.register_fn("sqrt", |t: Tensor| t.map(Values::sqrt));
    engine.register_fn("sum", |t: Tensor| t.map(Values::sum_all));
    engine.register_fn("mean", |t: Tensor| t.map(Values::mean_all));
    engine.register_fn("detach", |t: Tensor| Tensor { values: t.values.detach(), origin: None });
    engine.register_fn("dot", |a: Tensor, b: Tensor| a.zip(&b, |a, b| (a * b)?.sum_all()));
    engine.register_get("value", |t: &mut Tensor| -> Answer<f64> { Ok(t.value()?) });
    engine.register_fn("to_array", |t: &mut Tensor| -> Answer<Array> { Ok(array(&t.numbers()?)) });
    engine.register_fn("len", |t: &mut Tensor| t.values.elem_count() as i64);
    engine.register_get("shape", |t: &mut Tensor| -> Array {
        t.values.dims().iter().map(|&d| Dynamic::from(d as i64)).collect()
    });
    engine.register_fn("to_string", |t: &mut Tensor| t.show());
    engine.register_fn("to_debug", |t: &mut Tensor| t.show());
}

/// dy/dx of a scalar by the numbers of a `variable`, where no model is.
fn derivative(y: &Tensor, x: &Tensor) -> Result<Array> {
    y.value()?;
    if !x.values.is_variable() {
        return Err(Error::new("`derivative` by a tensor that is no variable")
            .help("make it by `variable([...])` and compute the loss from it"));
    }
    let slopes = y.values.backward()?;
    Ok(match slopes.get(&x.values) {
        Some(slopes) => array(&slopes.to_vec1::<f64>()?),
        None => array(&vec![0.0; x.values.elem_count()]),
    })
}

type Binary = fn(&Values, &Values) -> candle_core::Result<Values>;

fn operators(engine: &mut Engine) {
    let all: [(&str, Binary); 4] = [
        ("+", |a, b| a.broadcast_add(b)),
        ("-", |a, b| a.broadcast_sub(b)),
        ("*", |a, b| a.broadcast_mul(b)),
        ("/", |a, b| a.broadcast_div(b)),
    ];
    for (name, op) in all {
        engine.register_fn(name, move |a: Tensor, b: Tensor| a.zip(&b, op));
        engine.register_fn(name, move |a: Tensor, b: f64| a.zip(&Tensor::number(b)?, op));
        engine.register_fn(name, move |a: f64, b: Tensor| Tensor::number(a)?.zip(&b, op));
        engine.register_fn(name, move |a: Tensor, b: i64| a.zip(&Tensor::number(b as f64)?, op));
        engine.register_fn(name, move |a: i64, b: Tensor| Tensor::number(a as f64)?.zip(&b, op));
    }
    // Rhai takes `tensor == 1` for false where nothing is registered
    for name in ["==", "!=", "<", ">", "<=", ">="] {
        engine.register_fn(name, move |_: Tensor, _: f64| compare(name));
        engine.register_fn(name, move |_: Tensor, _: i64| compare(name));
        engine.register_fn(name, move |_: Tensor, _: Tensor| compare(name));
    }
}

fn compare(name: &str) -> Answer<bool> {
    Err(Error::new(format!("`{name}` does not compare tensors"))
        .help("compare numbers: `tensor.value` of a scalar, or `tensor.to_array()`")
        .into())
}

fn log_probs(policy: &Model, batch: Batch, options: Map) -> Result<LogProbs> {
    let mut options = Opts::new("log_probs", options);
    let bytes = match memory(&mut options)? {
        Some(bytes) => bytes,
        None => {
            let shapes = engine::shapes(policy.config(), &batch.0.examples, batch.0.share_prompt)?;
            default_bytes(&engine::Costs::of(policy), &shapes)
        }
    };
    options.finish()?;
    let log_probs = engine::LogProbs::new(policy, &batch.0, bytes)?;
    Ok(LogProbs(Rc::new(Origin { log_probs, batch: batch.0 })))
}

fn sums(l: &LogProbs, which: usize) -> Answer<Tensor> {
    if which > 0 {
        check_pairs(&l.0.batch)?;
    }
    Ok(Tensor { values: l.0.log_probs.sums(which)?, origin: Some(l.0.clone()) })
}

fn check_pairs(batch: &data::Batch) -> Result<()> {
    batch.lengths(1).map(drop)
}

fn reference(b: &Batch, of: fn(&Vec<f64>) -> f64) -> Answer<Tensor> {
    check_pairs(&b.0)?;
    let rows = b.0.reference.as_ref().ok_or_else(no_reference)?;
    Ok(Tensor::constant(rows.iter().map(of).collect())?)
}

fn lengths(b: &Batch, response: usize) -> Answer<Tensor> {
    Ok(Tensor::constant(b.0.lengths(response)?.into_iter().map(|n| n as f64).collect())?)
}
