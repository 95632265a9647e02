//! m named gradient rows and single vectors over all parameters.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::Tensor as Values;
use rhai::{Array, Dynamic, Engine, Map};

use crate::engine::{self, By, Gradient};
use crate::error::{Error, Result};
use crate::math::{self, Given, Matrix};
use crate::model::Processor;
use crate::run;

use super::super::session::Session;
use super::super::value::{
    Answer, Opts, array, count, floats, from_json, number, show, strings, type_of, unknown,
};
use super::data::Batch;
use super::loss::{LogProbs, Origin, Tensor};

/// The gradient rows of one batch, with the log-probs they came from.
#[derive(Clone)]
pub(super) struct Gradients(Rc<Inner>);

struct Inner {
    rows: engine::Gradients,
    gramian: OnceCell<Matrix>,
    origin: Option<Rc<Origin>>,
    /// The block of parameters, where these rows are over one only.
    block: Option<String>,
}

impl Gradients {
    fn new(rows: engine::Gradients, origin: Option<Rc<Origin>>) -> Self {
        Self(Rc::new(Inner { rows, gramian: OnceCell::new(), origin, block: None }))
    }

    fn blocks(&self, by: &str) -> Result<Array> {
        let block = |(name, rows): (String, engine::Gradients)| {
            let (gramian, origin) = (OnceCell::new(), self.0.origin.clone());
            Dynamic::from(Self(Rc::new(Inner { rows, gramian, origin, block: Some(name) })))
        };
        Ok(self.rows().blocks(By::named(by)?)?.into_iter().map(block).collect())
    }

    fn gramians(&self, by: &str) -> Result<Array> {
        let part = |(name, gramian): (String, Matrix)| {
            let parts = [("block", Dynamic::from(name)), ("gramian", Dynamic::from(gramian))];
            Dynamic::from(
                parts.map(|(key, value): (&str, _)| (key.into(), value)).into_iter().collect::<Map>(),
            )
        };
        Ok(self.rows().gramians(By::named(by)?)?.into_iter().map(part).collect())
    }

    fn join(&self, parts: Array) -> Result<Gradient> {
        let part = |part: Dynamic| {
            part.try_cast_result::<Gradient>().map_err(|part| {
                Error::new(format!("a part to join is {}, expected a gradient", type_of(&part)))
                    .help("give `method.update(block, weights).direction` of each block")
            })
        };
        self.rows().join(&parts.into_iter().map(part).collect::<Result<Vec<_>>>()?)
    }

    /// S [K, K], from the backward of these rows or from another one.
    fn pair_gramian(&self) -> Result<Matrix> {
        if let Some(block) = &self.0.block {
            return Err(Error::new(format!("pairs are over all parameters, these rows are over `{block}`"))
                .help("use the gradients that the blocks were taken from"));
        }
        // plain numbers have no pairs, and the rows know why
        self.rows().pair_weights()?;
        Ok(self.rows().pair_gramian(&self.log_probs()?.0.log_probs)?.clone())
    }

    fn bootstrap(&self, options: Map) -> Result<Map> {
        let mut options = Opts::new("bootstrap", options);
        let samples = options.count("samples")?.unwrap_or(1000);
        let seed = options.seed("seed")?.unwrap_or(0);
        let level = options.float("level")?.unwrap_or(0.95);
        options.finish()?;
        let s = self.pair_gramian()?;
        let batch = &self.log_probs()?.0.batch;
        let labelled = |name: &String| match batch.objectives.contains(name) {
            true => batch.labelled(name),
            // a loss of another name weighs all pairs
            false => Ok(vec![true; s.rows()]),
        };
        let labelled = self.rows().names().iter().map(labelled).collect::<Result<Vec<_>>>()?;
        let found = math::bootstrap(&s, self.rows().pair_weights()?, &labelled, (samples, level), seed)?;
        let (low, high): (Vec<f64>, Vec<f64>) = found.norms.into_iter().unzip();
        let parts = [
            ("low", Dynamic::from(found.low)),
            ("high", Dynamic::from(found.high)),
            ("negative", Dynamic::from(found.negative)),
            ("norm_low", array(&low).into()),
            ("norm_high", array(&high).into()),
        ];
        Ok(parts.map(|(key, value): (&str, Dynamic)| (key.into(), value)).into_iter().collect())
    }

    pub fn rows(&self) -> &engine::Gradients {
        &self.0.rows
    }

    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_deref()
    }

    fn log_probs(&self) -> Result<LogProbs> {
        let origin = self.0.origin.clone().map(LogProbs);
        origin.ok_or_else(|| {
            Error::new("these gradients are plain numbers, no batch is behind them")
                .help("take gradients from `jacobian(losses)`")
        })
    }

    pub fn gramian(&self) -> Result<&Matrix> {
        if let Some(h) = self.0.gramian.get() {
            return Ok(h);
        }
        let h = self.0.rows.gramian()?;
        Ok(self.0.gramian.get_or_init(|| h))
    }

    fn index(&self, name: &str) -> Result<usize> {
        let names = self.0.rows.names();
        let found = names.iter().position(|n| n == name);
        found.ok_or_else(|| unknown("objective", name, names.iter().map(String::as_str)))
    }

    fn by_name(&self, values: &[f64]) -> Map {
        self.0.rows.names().iter().zip(values).map(|(n, &v)| (n.as_str().into(), Dynamic::from(v))).collect()
    }

    fn show(&self) -> String {
        let rows = self.rows();
        format!("Gradients({}; {})", rows.names().join(", "), size(rows.space().size(), rows.kind()))
    }
}

/// `0.4 M parameters, cpu f32`.
fn size(parameters: usize, (device, dtype): (candle_core::Device, candle_core::DType)) -> String {
    let (place, kind) = (Processor::of(&device), dtype.as_str());
    if parameters < 1000 {
        return format!("{parameters} numbers, {place} {kind}");
    }
    format!("{:.2} M parameters, {place} {kind}", parameters as f64 / 1e6)
}

/// Preference weights in the order of the rows, from a map by name or an array.
pub(super) fn preference_weights(names: &[String], given: &Dynamic) -> Result<Vec<f64>> {
    let given = if let Some(map) = given.read_lock::<Map>() {
        let pair = |(name, value): (&rhai::Identifier, &Dynamic)| {
            let value = number(value).ok_or_else(|| {
                Error::new(format!("weight of `{name}` is `{}`, expected a number", show(value)))
                    .help("give one number an objective")
            })?;
            Ok((name.to_string(), value))
        };
        Given::Named(map.iter().map(pair).collect::<Result<_>>()?)
    } else if let Some(values) = given.read_lock::<Array>() {
        Given::Ordered(floats(&values, "weights")?)
    } else {
        return Err(Error::new(format!("weights are {}, expected a map", type_of(given)))
            .help("give weights by name: `#{ quality: 0.8, brevity: 0.2 }`"));
    };
    math::preference_weights(names, &given)
}

/// Rows in the order of the batch's objectives, then others by name.
fn jacobian(losses: &Map, options: Map) -> Result<Gradients> {
    let mut options = Opts::new("jacobian", options);
    let (pairs, gramian_only) = (options.flag("pairs")?.unwrap_or(false), options.flag("gramian_only")?);
    options.finish()?;
    let form = match (pairs, gramian_only) {
        (true, Some(true)) => {
            return Err(Error::new("`pairs` and `gramian_only` both")
                .help("leave `pairs` out: with the Gramian alone that of the pairs is there too"));
        }
        (true, _) => engine::Forming::Pairs,
        (false, Some(true)) => engine::Forming::Unformed,
        (false, Some(false)) => engine::Forming::Formed,
        (false, None) => engine::Forming::Auto,
    };
    let tensor = |(name, value): (&rhai::Identifier, &Dynamic)| {
        let tensor = match (number(value), value.clone().try_cast::<Tensor>()) {
            (Some(x), _) => Tensor::number(x)?,
            (None, Some(tensor)) => tensor,
            (None, None) => {
                return Err(Error::new(format!(
                    "loss of `{name}` is {}, expected a scalar tensor",
                    type_of(value)
                ))
                .help("return `#{ objective: batch.mean(objective, values) }`"));
            }
        };
        Ok((name.to_string(), tensor))
    };
    let mut rows = losses.iter().map(tensor).collect::<Result<Vec<_>>>()?;
    let Some(origin) = rows.iter().find_map(|(_, t)| t.origin.clone()) else {
        return Err(
            Error::new("no loss depends on the policy").help("build losses from `policy.log_probs(batch)`")
        );
    };
    if rows.iter().any(|(_, t)| t.origin.as_ref().is_some_and(|o| !Rc::ptr_eq(o, &origin))) {
        return Err(Error::new("the losses come from different calls of `log_probs`")
            .help("build all losses from one `policy.log_probs(batch)`"));
    }
    let order = |name: &String| origin.batch.objectives.iter().position(|o| o == name).unwrap_or(usize::MAX);
    rows.sort_by_key(|(name, _)| order(name));
    let (names, tensors): (Vec<String>, Vec<Values>) = rows.into_iter().map(|(n, t)| (n, t.values)).unzip();
    let rows = engine::jacobian_with(Arc::new(names), &tensors, &origin.log_probs, form)?;
    Ok(Gradients::new(rows, Some(origin)))
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<Gradients>("Gradients");
    let shared = session.clone();
    let differentiate = move |losses: &Map, options: Map| -> Answer<Gradients> {
        let gradients = jacobian(losses, options)?;
        let terms = gradients.rows().terms();
        if terms > 1 && !shared.told_terms.replace(true) {
            let what = format!("these losses need {terms} backward passes a step (Q = {terms})");
            shared.console().print(&what);
        }
        Ok(gradients)
    };
    let plain = differentiate.clone();
    engine.register_fn("jacobian", move |losses: Map| plain(&losses, Map::new()));
    engine.register_fn("jacobian", move |losses: Map, options: Map| differentiate(&losses, options));
    engine.register_fn("gradients", |rows: Array, names: Array| -> Answer<Gradients> {
        let rows = rows.iter().enumerate().map(|(i, row)| match row.read_lock::<Array>() {
            Some(row) => floats(&row, &format!("row {i}")),
            None => Err(Error::new(format!("row {i} is {}, expected an array", type_of(row)))
                .help("write `gradients([[1.0, 0.0], [-0.5, 1.0]], [\"a\", \"b\"])`")),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Gradients::new(engine::Gradients::from_rows(&rows, strings(&names, "the names")?)?, None))
    });
    engine.register_fn("len", |g: &mut Gradients| g.rows().len() as i64);
    engine.register_get("objectives", |g: &mut Gradients| -> Array {
        g.rows().names().iter().map(|name| name.into()).collect()
    });
    engine.register_get("losses", |g: &mut Gradients| array(g.rows().losses()));
    engine.register_fn("blocks", |g: &mut Gradients, by: &str| -> Answer<Array> { Ok(g.blocks(by)?) });
    engine.register_fn("gramians", |g: &mut Gradients, by: &str| -> Answer<Array> { Ok(g.gramians(by)?) });
    engine.register_fn("join", |g: &mut Gradients, parts: Array| -> Answer<Gradient> { Ok(g.join(parts)?) });
    engine.register_get("block", |g: &mut Gradients| g.0.block.clone().map_or(Dynamic::UNIT, Dynamic::from));
    engine.register_fn("pair_gramian", |g: &mut Gradients| -> Answer<Matrix> { Ok(g.pair_gramian()?) });
    engine.register_fn("pair_weights", |g: &mut Gradients| -> Answer<Matrix> {
        Ok(g.rows().pair_weights()?.clone())
    });
    engine.register_fn("bootstrap", |g: &mut Gradients, options: Map| -> Answer<Map> {
        Ok(g.bootstrap(options)?)
    });
    engine.register_fn("losses_by_name", |g: &mut Gradients| g.by_name(g.rows().losses()));
    engine.register_get("terms", |g: &mut Gradients| g.rows().terms() as i64);
    engine.register_get("batch", |g: &mut Gradients| -> Answer<Batch> {
        Ok(Batch(g.log_probs()?.0.batch.clone()))
    });
    engine.register_get("log_probs", |g: &mut Gradients| -> Answer<LogProbs> { Ok(g.log_probs()?) });
    engine.register_fn("gramian", |g: &mut Gradients| -> Answer<Matrix> { Ok(g.gramian()?.clone()) });
    engine.register_fn("norms", |g: &mut Gradients| -> Answer<Map> {
        Ok(g.by_name(&math::row_norms(g.gramian()?)?))
    });
    engine.register_fn("cosines", |g: &mut Gradients| -> Answer<Dynamic> {
        Ok(from_json(&run::cosines(g.rows().names(), g.gramian()?))?)
    });
    engine.register_fn("cosine", |g: &mut Gradients, a: &str, b: &str| -> Answer<f64> {
        Ok(math::cosines(g.gramian()?)?[(g.index(a)?, g.index(b)?)])
    });
    engine.register_fn("combine", |g: &mut Gradients, alpha: Array| -> Answer<Gradient> {
        Ok(g.rows().combine(&floats(&alpha, "alpha")?)?)
    });
    engine.register_fn("combine", |g: &mut Gradients, alpha: Map| -> Answer<Gradient> {
        let mut values = vec![0.0; g.rows().len()];
        for (name, value) in &alpha {
            values[g.index(name)?] = number(value).ok_or_else(|| {
                Error::new(format!("alpha of `{name}` is `{}`, expected a number", show(value)))
                    .help("give one number an objective")
            })?;
        }
        Ok(g.rows().combine(&values)?)
    });
    engine.register_fn("rank_mean", |g: &mut Gradients, from: i64, to: i64| -> Answer<Gradient> {
        Ok(g.rows().rank_mean(count(from, "the first rank")?..count(to, "the last rank")?)?)
    });
    engine.register_indexer_get(|g: &mut Gradients, i: i64| -> Answer<Gradient> {
        Ok(g.rows().row(usize::try_from(i).unwrap_or(usize::MAX))?)
    });
    engine.register_indexer_get(|g: &mut Gradients, name: &str| -> Answer<Gradient> {
        Ok(g.rows().row(g.index(name)?)?)
    });
    engine.register_fn("to_string", |g: &mut Gradients| g.show());
    engine.register_fn("to_debug", |g: &mut Gradients| g.show());
    let weights = |names: Array, given: Dynamic| -> Answer<Array> {
        Ok(array(&preference_weights(&strings(&names, "the names")?, &given)?))
    };
    engine.register_fn("preference_weights", weights);
    vector(engine);
}

type Binary = fn(&Values, &Values) -> candle_core::Result<Values>;
type Unary = fn(&Values) -> candle_core::Result<Values>;

/// The algebra of single vectors.
fn vector(engine: &mut Engine) {
    engine.register_type_with_name::<Gradient>("Gradient");
    let binary: [(&str, Binary); 6] = [
        ("+", |a, b| a.add(b)),
        ("-", |a, b| a.sub(b)),
        ("*", |a, b| a.mul(b)),
        ("/", |a, b| a.div(b)),
        ("min", |a, b| a.minimum(b)),
        ("max", |a, b| a.maximum(b)),
    ];
    for (name, op) in binary {
        engine.register_fn(name, move |a: Gradient, b: Gradient| -> Answer<Gradient> { Ok(a.zip(&b, op)?) });
    }
    let unary: [(&str, Unary); 5] = [
        ("-", Values::neg),
        ("abs", Values::abs),
        ("sign", Values::sign),
        ("sqr", Values::sqr),
        ("sqrt", Values::sqrt),
    ];
    for (name, op) in unary {
        engine.register_fn(name, move |a: Gradient| -> Answer<Gradient> { Ok(a.map(op)?) });
    }
    engine.register_fn("*", |a: Gradient, x: f64| -> Answer<Gradient> { Ok(a.map(|v| v * x)?) });
    engine.register_fn("*", |x: f64, a: Gradient| -> Answer<Gradient> { Ok(a.map(|v| v * x)?) });
    engine.register_fn("/", |a: Gradient, x: f64| -> Answer<Gradient> { Ok(a.map(|v| v / x)?) });
    engine.register_fn("+", |a: Gradient, x: f64| -> Answer<Gradient> { Ok(a.map(|v| v + x)?) });
    engine.register_fn("-", |a: Gradient, x: f64| -> Answer<Gradient> { Ok(a.map(|v| v - x)?) });
    // a where the mask is positive, b elsewhere
    engine.register_fn("where", |mask: Gradient, a: Gradient, b: Gradient| -> Answer<Gradient> {
        Ok(a.zip(&b, |a, b| mask.tensor().gt(0.0)?.where_cond(a, b))?)
    });
    engine.register_fn("dot", |a: Gradient, b: Gradient| -> Answer<f64> { Ok(a.dot(&b)?) });
    engine.register_fn("norm", |a: Gradient| -> Answer<f64> { Ok(a.norm()?) });
    engine.register_fn("norms_by_tensor", |a: Gradient| -> Answer<Map> {
        let norms = a.norms_by_tensor()?.into_iter().map(Dynamic::from);
        Ok(a.space().names.iter().map(|name| name.as_str().into()).zip(norms).collect())
    });
    engine.register_fn("cosine", |a: Gradient, b: Gradient| -> Answer<f64> {
        let lengths = a.norm()? * b.norm()?;
        Ok(if lengths > 0.0 { (a.dot(&b)? / lengths).clamp(-1.0, 1.0) } else { 0.0 })
    });
    engine.register_fn("len", |a: &mut Gradient| a.space().size() as i64);
    engine.register_fn("to_array", |a: &mut Gradient| -> Answer<Array> {
        const MOST: usize = 100_000;
        if a.space().size() > MOST {
            return Err(Error::new(format!("`to_array` of {} numbers", a.space().size()))
                .help("use `norm`, `dot` or the other functions of vectors")
                .into());
        }
        let values = a.tensor().to_dtype(candle_core::DType::F64).and_then(|t| t.to_vec1::<f64>());
        Ok(array(&values.map_err(Error::from)?))
    });
    let text = |a: &mut Gradient| {
        format!("Gradient({})", size(a.space().size(), (a.tensor().device().clone(), a.tensor().dtype())))
    };
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}
