//! Fronts, intervals and tests: of arrays, and of a whole sweep.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use rhai::{Array, Dynamic, Engine, Map};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::math::{self, Coverage, Interval, SignFlip, Spread};
use crate::run::{self, FrontOptions, Named, Outcomes};

use super::super::session::Session;
use super::super::value::{Answer, Opts, floats, from_json, number, show, to_json, type_of};
use super::view::View;

const LEVEL: f64 = 0.95;
const SAMPLES: usize = 2000;

fn rows(points: &[Dynamic], what: &str) -> Result<Vec<Vec<f64>>> {
    let row = |(i, row): (usize, &Dynamic)| match row.read_lock::<Array>() {
        Some(row) => floats(&row, &format!("{what}[{i}]")),
        None => Err(Error::new(format!("{what}[{i}] is {}, expected an array", type_of(row)))
            .help("give points as arrays of numbers, one for each objective")),
    };
    points.iter().enumerate().map(row).collect()
}

fn map<const N: usize>(parts: [(&str, Dynamic); N]) -> Map {
    parts.map(|(key, value)| (key.into(), value)).into()
}

fn optional(value: Option<f64>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Dynamic::from)
}

fn interval(interval: Interval) -> Map {
    let Interval { mean, low, high } = interval;
    map([("mean", mean.into()), ("low", low.into()), ("high", high.into())])
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    indicators(engine);
    statistics(engine);
    for has_options in [false, true] {
        let shared = session.clone();
        let of_folder = move |folder: &str, options: Map| -> Answer<View> {
            Ok(view(&shared, run::read_points(&PathBuf::from(folder))?, options)?)
        };
        let shared = session.clone();
        let of_results = move |results: Array, options: Map| -> Answer<View> {
            Ok(view(&shared, outcomes(&results)?, options)?)
        };
        if has_options {
            engine.register_fn("fronts", of_folder);
            engine.register_fn("fronts", of_results);
        } else {
            engine.register_fn("fronts", move |folder: &str| of_folder(folder, Map::new()));
            engine.register_fn("fronts", move |results: Array| of_results(results, Map::new()));
        }
    }
}

fn indicators(engine: &mut Engine) {
    let front = |points: Array, tolerance: f64| -> Answer<Array> {
        let front = math::pareto_front(&rows(&points, "points")?, tolerance)?;
        Ok(front.into_iter().map(|i| Dynamic::from(i as i64)).collect())
    };
    engine.register_fn("pareto_front", front);
    engine.register_fn("pareto_front", move |points: Array| front(points, 0.0));
    engine.register_fn("hypervolume", |points: Array, reference: Array| -> Answer<f64> {
        Ok(math::hypervolume(&rows(&points, "points")?, &floats(&reference, "reference")?)?)
    });
    type Distance = fn(&[Vec<f64>], &[Vec<f64>]) -> Result<f64>;
    let distances: [(&str, Distance); 3] =
        [("igd", math::igd), ("igd_plus", math::igd_plus), ("additive_epsilon", math::additive_epsilon)];
    for (name, distance) in distances {
        engine.register_fn(name, move |points: Array, front: Array| -> Answer<f64> {
            Ok(distance(&rows(&points, "points")?, &rows(&front, "front")?)?)
        });
    }
    engine.register_fn("spread", |points: Array| -> Answer<Map> {
        let Spread { extent, spacing } = math::spread(&rows(&points, "points")?)?;
        Ok(map([("extent", extent.into()), ("spacing", optional(spacing))]))
    });
    engine.register_fn("weight_coverage", |weights: Array, scores: Array| -> Answer<Map> {
        let (weights, scores) = (floats(&weights, "weights")?, floats(&scores, "scores")?);
        let Coverage { tau, violations, pairs } = math::weight_coverage(&weights, &scores, 0.0)?;
        let counts = [("violations", violations), ("pairs", pairs)];
        let [violations, pairs] = counts.map(|(key, n)| (key, Dynamic::from(n as i64)));
        Ok(map([("tau", optional(tau)), violations, pairs]))
    });
}

fn statistics(engine: &mut Engine) {
    let t_interval = |values: Array, level: f64| -> Answer<Map> {
        Ok(interval(math::t_interval(&floats(&values, "values")?, level)?))
    };
    engine.register_fn("t_interval", t_interval);
    engine.register_fn("t_interval", move |values: Array| t_interval(values, LEVEL));
    engine.register_fn("bootstrap_t", |values: Array, options: Map| -> Answer<Map> {
        let mut options = Opts::new("bootstrap_t", options);
        let level = options.float("level")?.unwrap_or(LEVEL);
        let samples = options.count("samples")?.unwrap_or(SAMPLES);
        let seed = options.seed("seed")?.unwrap_or(0);
        options.finish()?;
        Ok(interval(math::bootstrap_t(&floats(&values, "values")?, level, samples, seed)?))
    });
    engine.register_fn("sign_flip", |a: Array, b: Array| -> Answer<Map> {
        let SignFlip { n, difference, p, smallest } =
            math::sign_flip(&floats(&a, "first array")?, &floats(&b, "second array")?)?;
        let n = Dynamic::from(n as i64);
        let rest = [("difference", difference), ("p", p), ("smallest", smallest)];
        let [difference, p, smallest] = rest.map(|(key, x)| (key, Dynamic::from(x)));
        Ok(map([("n", n), difference, p, smallest]))
    });
}

/// What `sweep` returned: of each result the scores and losses.
fn outcomes(results: &[Dynamic]) -> Result<Outcomes> {
    let entry = |(i, result): (usize, &Dynamic)| -> Result<Value> {
        let map = result.read_lock::<Map>().ok_or_else(|| {
            Error::new(format!("result {i} is {}, expected a map", type_of(result)))
                .help("give `#{ config: #{ method, weights, seed }, result: #{ scores } }`")
        })?;
        let mut entry = serde_json::Map::new();
        for key in ["config", "name", "dir", "status"] {
            if let Some(value) = map.get(key) {
                entry.insert(key.into(), to_json(value)?);
            }
        }
        if let Some(error) = map.get("error").filter(|error| !error.is_unit()) {
            entry.insert("error".into(), show(error).into());
        }
        if let Some(result) = map.get("result").and_then(|result| result.read_lock::<Map>()) {
            let part = |key: &str| result.get(key).map_or(Ok(Value::Null), to_json);
            entry.insert("result".into(), json!({ "scores": part("scores")?, "losses": part("losses")? }));
        }
        Ok(Value::Object(entry))
    };
    run::points_of(&results.iter().enumerate().map(entry).collect::<Result<Vec<_>>>()?)
}

fn view(session: &Rc<Session>, outcomes: Outcomes, options: Map) -> Result<View> {
    let mut options = Opts::new("fronts", options);
    let usual = FrontOptions::default();
    let objectives = options.texts("objectives")?;
    let reference = match options.take("reference") {
        Some(value) => named(&value, objectives.as_deref())?,
        None => usual.reference,
    };
    let chosen = FrontOptions {
        objectives,
        reference,
        tolerance: options.float("tolerance")?.unwrap_or(usual.tolerance),
        baseline: options.text("baseline")?.unwrap_or(usual.baseline),
        control: options.flag("control")?.unwrap_or(usual.control),
        level: options.float("level")?.unwrap_or(usual.level),
        bootstrap: (
            options.count("samples")?.unwrap_or(usual.bootstrap.0),
            options.seed("seed")?.unwrap_or(usual.bootstrap.1),
        ),
    };
    options.finish()?;
    let fronts = run::fronts(outcomes, &chosen)?;
    let json = serde_json::to_value(&fronts)
        .map_err(|e| Error::internal(format!("the fronts have no JSON form: {e}")))?;
    let values = from_json(&json)?.try_cast::<Map>().unwrap_or_default();
    let (tables, notes) = (fronts.tables(), fronts.notes.clone());
    View::of(session, tables, notes, Box::new(move |path: &Path| fronts.save_picture(path)), values)
}

/// Numbers by objective: a map, or an array where the order of the objectives was given.
fn named(value: &Dynamic, objectives: Option<&[String]>) -> Result<Named> {
    let wrong = || {
        Error::new(format!("option `reference` of `fronts` is `{}`", show(value))).help(
            "give a number by objective, `#{ quality: 0.0, brevity: 0.0 }`, or an array beside `objectives`",
        )
    };
    if let Some(map) = value.read_lock::<Map>() {
        let pair = |(name, x): (&rhai::Identifier, &Dynamic)| Some((name.to_string(), number(x)?));
        return map.iter().map(pair).collect::<Option<Vec<_>>>().map(Named).ok_or_else(wrong);
    }
    let row = value.read_lock::<Array>().ok_or_else(wrong)?;
    let names = objectives.filter(|names| names.len() == row.len()).ok_or_else(wrong)?;
    Ok(Named(names.iter().cloned().zip(floats(&row, "reference")?).collect()))
}
