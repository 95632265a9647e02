//! Generate and judge; draw.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use rhai::{Array, Dynamic, Engine, FnPtr, Map, NativeCallContext};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::run::{Contours, Grid, Plot, Series, Style};

use super::super::session::Session;
use super::super::value::{Answer, Opts, array, floats, number, show, type_of};
use super::model::responses;

/// Prompts generated for between two looks at the progress bar.
const CHUNK: usize = 64;

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    let shared = session.clone();
    engine.register_fn(
        "evaluate",
        move |context: NativeCallContext, policy: Model, prompts: Array, judges: Map, options: Map| {
            evaluate(&shared, &context, &policy, &prompts, &judges, options)
        },
    );
    let shared = session.clone();
    engine.register_fn("plot", move |path: &str, options: Map| -> Answer<()> {
        shared.sandbox.borrow().check(Path::new(path))?;
        Ok(plot(options, Path::new(path))?)
    });
}

/// `#{ responses, scores: #{ judge: mean }, each: #{ judge: [score, …] } }`.
fn evaluate(
    session: &Session,
    context: &NativeCallContext,
    policy: &Model,
    prompts: &[Dynamic],
    judges: &Map,
    options: Map,
) -> Answer<Map> {
    if prompts.is_empty() {
        return Err(Error::new("`evaluate` without a prompt").help("give at least one prompt").into());
    }
    if options.contains_key("first_index") {
        return Err(Error::new("`evaluate` numbers the prompts itself")
            .help("leave out `first_index`")
            .into());
    }
    let begun = Instant::now();
    let mut texts = Vec::with_capacity(prompts.len());
    for (i, chunk) in prompts.chunks(CHUNK).enumerate() {
        session.console().progress(i * CHUNK, prompts.len(), "generating");
        let mut options = options.clone();
        options.insert("first_index".into(), ((i * CHUNK) as i64).into());
        texts.extend(responses(session, policy, chunk, options)?);
    }
    session.console().progress_end();
    session.evaluated.set(session.evaluated.get() + begun.elapsed());
    let (mut scores, mut each) = (Map::new(), Map::new());
    for (name, judge) in judges {
        let judge = judge.clone().try_cast::<FnPtr>().ok_or_else(|| {
            Error::new(format!("judge `{name}` is {}, expected a function", type_of(judge)))
                .help("give `|prompt, response| number`")
        })?;
        let mut values = Vec::with_capacity(texts.len());
        for (prompt, text) in prompts.iter().zip(&texts) {
            let score: Dynamic = judge.call_within_context(context, (prompt.clone(), text.clone()))?;
            values.push(number(&score).filter(|x| x.is_finite()).ok_or_else(|| {
                Error::new(format!("judge `{name}` returned `{}`, expected a finite number", show(&score)))
                    .help("return a number for every response, also an empty one")
            })?);
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        scores.insert(name.clone(), mean.into());
        each.insert(name.clone(), array(&values).into());
    }
    let texts: Array = texts.into_iter().map(Dynamic::from).collect();
    let parts = [("responses", texts.into()), ("scores", scores.into()), ("each", each.into())];
    Ok(parts.map(|(key, value): (&str, Dynamic)| (key.into(), value)).into())
}

/// `#{ title, panels, columns }`, or the options of one panel.
pub(super) fn plot(options: Map, path: &Path) -> Result<()> {
    let mut labels = Vec::new();
    if !options.contains_key("panels") {
        return panel(options, &mut labels)?.save(path);
    }
    let mut options = Opts::new("plot", options);
    let title = options.text("title")?.unwrap_or_default();
    let columns = options.count("columns")?.unwrap_or(2);
    let mut plots = Vec::new();
    for given in options.host::<Array>("panels", "an array of maps")?.unwrap_or_default() {
        let given = given.try_cast_result::<Map>().map_err(|value| {
            Error::new(format!("a panel of the plot is {}, expected a map", type_of(&value)))
                .help("give each panel as `#{ title: …, lines: #{ … } }`")
        })?;
        plots.push(panel(given, &mut labels)?);
    }
    options.finish()?;
    Grid { title, plots, columns }.save(path)
}

/// One panel; a label has one colour, whatever it stands at and in all panels.
fn panel(options: Map, labels: &mut Vec<String>) -> Result<Plot> {
    let mut options = Opts::new("plot", options);
    let mut plot = Plot {
        title: options.text("title")?.unwrap_or_default(),
        x_label: options.text("x_label")?.unwrap_or_default(),
        y_label: options.text("y_label")?.unwrap_or_default(),
        mark: options.float("mark")?,
        equal: options.flag("equal")?.unwrap_or(false),
        ..Plot::default()
    };
    if let Some(map) = options.host::<Map>("contours", "a map with `x`, `y` and `values`")? {
        plot.contours = Some(contours(map)?);
    }
    let styles = [
        ("behind", Style::Behind),
        ("lines", Style::Line),
        ("dashed", Style::Dashed),
        ("points", Style::Points),
        ("rings", Style::Rings),
    ];
    for (key, style) in styles {
        for (label, values) in options.host::<Map>(key, "a map of arrays by label")?.unwrap_or_default() {
            let points = points(&label, &values)?;
            let color = match labels.iter().position(|known| *known == label) {
                _ if matches!(style, Style::Behind | Style::Rings) => 0,
                Some(color) => color,
                None => {
                    labels.push(label.to_string());
                    labels.len() - 1
                }
            };
            plot.series.push(Series { label: label.to_string(), points, style, color, ..Series::default() });
        }
    }
    options.finish()?;
    Ok(plot)
}

/// Numbers over their index, or `[x, y]` pairs; `()` interrupts a line.
fn points(label: &str, values: &Dynamic) -> Result<Vec<(f64, f64)>> {
    let values = values.read_lock::<Array>().ok_or_else(|| {
        Error::new(format!("`{label}` of the plot is {}, expected an array", type_of(values)))
            .help("give numbers, or `[x, y]` pairs")
    })?;
    let point = |(i, value): (usize, &Dynamic)| match (number(value), value.read_lock::<Array>()) {
        (Some(y), _) => Ok((i as f64, y)),
        (None, Some(pair)) if pair.len() == 2 => {
            let pair = floats(&pair, label)?;
            Ok((pair[0], pair[1]))
        }
        _ if value.is_unit() => Ok((f64::NAN, f64::NAN)),
        _ => Err(Error::new(format!("`{label}[{i}]` is `{}`, expected a number or a pair", show(value)))
            .help("give numbers, or `[x, y]` pairs")),
    };
    values.iter().enumerate().map(point).collect()
}

fn contours(map: Map) -> Result<Contours> {
    let mut options = Opts::new("contours", map);
    let mut range = |key| match options.floats(key)?.as_deref() {
        Some(&[low, high]) => Ok((low, high)),
        _ => Err(Error::new(format!("`{key}` of the contours is no range")).help("give `[low, high]`")),
    };
    let (x, y) = (range("x")?, range("y")?);
    let rows = options.host::<Array>("values", "an array of rows")?.unwrap_or_default();
    options.finish()?;
    let row = |row: &Dynamic| match row.read_lock::<Array>() {
        Some(row) => floats(&row, "values"),
        None => Err(Error::new(format!("a row of the contours is {}, expected an array", type_of(row)))
            .help("give `values` as rows, one for each y")),
    };
    Contours::new(x, y, rows.iter().map(row).collect::<Result<_>>()?)
}
