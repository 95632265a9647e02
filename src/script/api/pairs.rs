//! Sets of pairs made from a set: chosen, split, shuffled, labelled; and what a set is made of.

use std::rc::Rc;

use rhai::{Array, Dynamic, Engine, FnPtr, ImmutableString, Map, NativeCallContext};

use crate::data;
use crate::error::{Error, Result};

use super::super::session::Session;
use super::super::value::{Answer, Opts, count, number, show, type_of, unknown};
use super::data::{Preferences, row_map};
use super::text::table;

/// Of `split(seed)`: the part that goes to `train`.
const TRAIN: f64 = 0.9;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("take", |p: &mut Preferences, n: i64| -> Answer<Preferences> {
        Ok(p.with(p.inner.take(count(n, "the number of rows")?)))
    });
    engine.register_fn("skip", |p: &mut Preferences, n: i64| -> Answer<Preferences> {
        Ok(p.with(p.inner.skip(count(n, "the number of rows")?)))
    });
    engine.register_fn("shuffle", |p: &mut Preferences, seed: i64| -> Answer<Preferences> {
        Ok(p.with(p.inner.shuffle(count(seed, "the seed")? as u64)))
    });
    engine
        .register_fn("split", |p: &mut Preferences, seed: i64| -> Answer<Map> { Ok(split(p, TRAIN, seed)?) });
    engine.register_fn("split", |p: &mut Preferences, fraction: f64, seed: i64| -> Answer<Map> {
        Ok(split(p, fraction, seed)?)
    });
    engine.register_fn("filter", |context: NativeCallContext, p: &mut Preferences, keep: FnPtr| {
        filter(&context, p, &keep)
    });
    for has_options in [false, true] {
        let label = |context: NativeCallContext, p: &mut Preferences, name: &str, judge: FnPtr, options| {
            label(&context, p, name, &judge, options)
        };
        if has_options {
            engine.register_fn("label", label);
        } else {
            engine.register_fn(
                "label",
                move |context: NativeCallContext, p: &mut Preferences, name: &str, judge: FnPtr| {
                    label(context, p, name, judge, Map::new())
                },
            );
        }
    }
    engine.register_fn("label_counts", |p: &mut Preferences| -> Array {
        p.inner.label_counts().iter().map(|counts| Dynamic::from(label_map(counts))).collect()
    });

    engine.register_type_with_name::<Summary>("Summary");
    engine.register_fn("summary", |p: &mut Preferences| Summary {
        session: p.session.clone(),
        inner: Rc::new(p.inner.summary()),
    });
    engine.register_fn("to_map", |s: &mut Summary| s.map());
    engine.register_indexer_get(|s: &mut Summary, key: ImmutableString| -> Answer<Dynamic> {
        let map = s.map();
        let known = || map.keys().map(|k| k.as_str());
        Ok(map.get(key.as_str()).cloned().ok_or_else(|| unknown("key of a summary", &key, known()))?)
    });
    engine.register_fn("to_string", |s: &mut Summary| -> Answer<String> { Ok(s.text()?) });
    engine.register_fn("to_debug", |s: &mut Summary| -> Answer<String> { Ok(s.text()?) });
}

fn split(p: &Preferences, fraction: f64, seed: i64) -> Result<Map> {
    let (train, test) = p.inner.split(fraction, count(seed, "the seed")? as u64)?;
    Ok(map([("train", Dynamic::from(p.with(train))), ("test", Dynamic::from(p.with(test)))]))
}

fn filter(context: &NativeCallContext, p: &Preferences, keep: &FnPtr) -> Answer<Preferences> {
    let mut places = Vec::new();
    for (place, example) in p.inner.examples.iter().enumerate() {
        let answer: Dynamic = keep.call_within_context(context, (row_map(example, &p.inner.objectives),))?;
        let kept = answer.as_bool().map_err(|_| {
            Error::new(format!("`filter` got `{}` for row {place}, expected true or false", show(&answer)))
                .help("return a comparison, such as `row.chosen.len > 10`")
        })?;
        if kept {
            places.push(place);
        }
    }
    Ok(p.with(p.inner.pick(&places)))
}

/// The sign of what `judge` returns is the label; up to `margin` it is a tie, `()` leaves the row unlabelled.
fn label(
    context: &NativeCallContext,
    p: &Preferences,
    name: &str,
    judge: &FnPtr,
    options: Map,
) -> Answer<Preferences> {
    let mut options = Opts::new("label", options);
    let margin = options.float("margin")?.unwrap_or(0.0);
    options.finish()?;
    if !(margin >= 0.0 && margin.is_finite()) {
        return Err(Error::new(format!("`margin` of `label` must not be negative, found `{margin}`"))
            .help("give the largest difference that is still a tie")
            .into());
    }
    let mut labels = Vec::with_capacity(p.inner.len());
    for (place, example) in p.inner.examples.iter().enumerate() {
        let [chosen, rejected] = &example.responses[..] else {
            return Err(Error::new("demonstrations have one response, there is nothing to prefer")
                .help("label preference pairs")
                .into());
        };
        let texts = (example.prompt.clone(), chosen.text.clone(), rejected.text.clone());
        let score: Dynamic = judge.call_within_context(context, texts)?;
        labels.push(match number(&score) {
            _ if score.is_unit() => None,
            Some(x) if x.abs() <= margin => Some(0),
            Some(x) if !x.is_nan() => Some(if x > 0.0 { 1 } else { -1 }),
            _ => {
                let found = format!("`{}` ({})", show(&score), type_of(&score));
                return Err(Error::new(format!(
                    "label `{name}` of row {place} is {found}, expected a number"
                ))
                .help("return a number, positive where `chosen` is preferred, or `()` for no label")
                .into());
            }
        });
    }
    Ok(p.with(p.inner.with_objective(name, &labels)?))
}

/// What a set is made of; prints as tables, its parts are read as those of a map.
#[derive(Clone)]
struct Summary {
    session: Rc<Session>,
    inner: Rc<data::Summary>,
}

impl Summary {
    fn map(&self) -> Map {
        let s = &*self.inner;
        let lengths =
            |l: &data::Lengths| map([("median", l.median), ("p95", l.p95), ("max", l.max)].map(int));
        let agreement = |a: &data::Agreement| {
            let rate = a.conflict_rate().map_or(Dynamic::UNIT, Dynamic::from);
            let objectives: Array = a.objectives.iter().map(|name| name.into()).collect();
            let mut counts = map([("agree", a.agree), ("conflict", a.conflict)].map(int));
            counts.extend(map([("objectives", objectives.into()), ("conflict_rate", rate)]));
            Dynamic::from(counts)
        };
        let t = s.truncated;
        let truncated = map([("rows", t.rows), ("prompts", t.prompts), ("responses", t.responses)].map(int));
        let lengths: Map = s.lengths.iter().map(|(name, l)| ((*name).into(), lengths(l).into())).collect();
        let labels = s.labels.iter().map(|counts| Dynamic::from(label_map(counts))).collect::<Array>();
        let agreements = s.agreements.iter().map(agreement).collect::<Array>();
        let mut all = map([("rows", s.rows), ("prompts", s.prompts), ("duplicates", s.duplicates)].map(int));
        all.extend(map([
            ("truncated", truncated.into()),
            ("lengths", lengths.into()),
            ("labels", labels.into()),
            ("agreements", agreements.into()),
        ]));
        all
    }

    fn text(&self) -> Result<String> {
        let s = &*self.inner;
        let mut parts = vec![format!(
            "{} rows, {} prompts, {} duplicates, {} truncated ({} prompts, {} responses)",
            s.rows, s.prompts, s.duplicates, s.truncated.rows, s.truncated.prompts, s.truncated.responses
        )];
        let tokens = s.lengths.iter().map(|(name, l)| row(*name, &[l.median, l.p95, l.max]));
        parts.push(self.table(&["tokens", "median", "p95", "max"], tokens)?);
        let share = |part: usize, of: usize| match of {
            0 => String::new(),
            _ => format!("{part} ({:.0} %)", 100.0 * part as f64 / of as f64),
        };
        if !s.labels.is_empty() {
            let labels = s.labels.iter().map(|c| {
                row(&c.objective, &[c.chosen, c.rejected, c.ties, c.unlabelled].map(|n| share(n, s.rows)))
            });
            parts.push(self.table(&["objective", "chosen", "rejected", "tie", "unlabelled"], labels)?);
        }
        if !s.agreements.is_empty() {
            let agreements = s.agreements.iter().map(|a| {
                let both = a.agree + a.conflict;
                row(a.objectives.join(", "), &[share(a.agree, both), share(a.conflict, both)])
            });
            parts.push(self.table(&["two objectives", "agree", "conflict"], agreements)?);
        }
        Ok(parts.join("\n"))
    }

    fn table(&self, head: &[&str], rows: impl Iterator<Item = Dynamic>) -> Result<String> {
        let head: Array = head.iter().map(|name| (*name).into()).collect();
        table(&self.session, &head, &rows.collect::<Array>())
    }
}

fn map<const N: usize>(entries: [(&str, Dynamic); N]) -> Map {
    entries.map(|(key, value)| (key.into(), value)).into()
}

fn int((key, count): (&str, usize)) -> (&str, Dynamic) {
    (key, (count as i64).into())
}

fn row(name: impl Into<String>, cells: &[impl ToString]) -> Dynamic {
    let cells = cells.iter().map(|cell| cell.to_string().into());
    std::iter::once(name.into().into()).chain(cells).collect::<Array>().into()
}

fn label_map(counts: &data::LabelCounts) -> Map {
    let mut all = map([
        ("chosen", counts.chosen),
        ("rejected", counts.rejected),
        ("ties", counts.ties),
        ("unlabelled", counts.unlabelled),
    ]
    .map(int));
    all.insert("objective".into(), counts.objective.clone().into());
    all
}
