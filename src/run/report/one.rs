//! The sections on one run.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::StoredRun;
use super::super::figure::by_name;
use super::super::heat::Heat;
use super::super::plot::{Plot, Series, Style, between};
use super::chart::{Mean, Words, heated, logged, names, number, plotted, step, value, whole};
use super::page::{Answer, Block, Part, Section, Table};
use crate::data::hub::is_address;
use crate::data::{Preferences, ReadOptions, Tokenizer};
use crate::error::{Error, Result};

/// Columns of a heat map; more steps share one.
const COLUMNS: usize = 60;
/// Prompts whose responses are shown.
const PROMPTS: usize = 6;
/// The grey of the palette.
const GREY: usize = 6;
/// More than rounding: p above w by this much is clipped.
const BINDS: f64 = 1e-9;

/// What a loop logs for realised changes, as the guide has it.
const REALISED: &str = include_str!("realised.rhai");

/// All that is shown of one run; `id` begins the names of its figures.
pub(super) fn part(run: &StoredRun, id: &str) -> Result<Part> {
    let sections = [
        summary(run, id),
        pairs(run, id),
        learning(run, id)?,
        cosines(run, id)?,
        layers(run, id)?,
        weights(run, id)?,
        changes(run, id)?,
        answers(run, id),
        provenance(run, id),
    ];
    Ok(Part {
        id: id.to_owned(),
        title: format!("Run {}", run.name),
        sections: sections.into_iter().flatten().collect(),
    })
}

fn summary(run: &StoredRun, id: &str) -> Option<Section> {
    let (done, planned) = run.steps();
    let mut facts = Table::new("What was run", &["", "value"]);
    let steps = planned.map_or_else(|| done.to_string(), |planned| format!("{done} of {planned}"));
    facts.push([json!("method"), json!(run.method())]);
    facts.push([json!("preference weights w"), json!(run.weights_text())]);
    facts.push([json!("steps in the log"), json!(steps)]);
    for key in ["c", "lr", "batch", "beta", "seed", "model", "pairs"] {
        if let Some(value) = run.argument(key) {
            facts.push([json!(key), value.clone()]);
        }
    }
    let mut section =
        Section::new(&format!("{id}-summary"), "Summary", [] as [&str; 0]).with(Block::table(facts));
    let side = |side: &str| run.evaluation.get(side)?.get("rows")?.as_object();
    if let Some(after) = side("after").filter(|rows| !rows.is_empty()) {
        let mut table = Table::new(
            "Held-out evaluation: before the first step and after the last",
            &["", "before", "after", "change"],
        );
        for (name, after) in after {
            let before = side("before").and_then(|rows| rows.get(name)).cloned().unwrap_or(Value::Null);
            let change = after.as_f64().zip(before.as_f64()).map(|(a, b)| a - b);
            table.push([json!(name), before, after.clone(), json!(change)]);
        }
        section.push(Block::table(table));
    }
    Some(section)
}

/// Labels of the pairs, read again from the file that the arguments name.
fn pairs(run: &StoredRun, id: &str) -> Option<Section> {
    let path = run.argument("pairs").and_then(Value::as_str)?;
    let mut section = Section::new(
        &format!("{id}-pairs"),
        "Labels of the pairs",
        [
            "How often the objectives want the same response of a pair. Where they oppose, no step serves both on that pair; \
         the correlation is (agree − oppose) / (agree + oppose) over the pairs on which both take a side: −1 always \
         opposed, 0 unrelated, 1 always agreed.",
        ],
    );
    let set = match read_again(run, path) {
        Ok(set) => set,
        Err(error) => {
            let what = error.to_string().replace('\n', "; ");
            return Some(section.with(Block::note(format!("`{path}` could not be read again: {what}."))));
        }
    };
    let summary = set.summary();
    let mut labels = Table::new(
        &format!("{path}: {} pairs, {} prompts", summary.rows, summary.prompts),
        &["objective", "wants chosen", "wants rejected", "tie", "unlabelled"],
    );
    for c in &summary.labels {
        labels.push([
            json!(c.objective),
            json!(c.chosen),
            json!(c.rejected),
            json!(c.ties),
            json!(c.unlabelled),
        ]);
    }
    section.push(Block::table(labels));
    if !summary.agreements.is_empty() {
        let mut table = Table::new(
            "Two objectives on one pair",
            &["two objectives", "agree", "oppose", "tie", "share opposed", "correlation"],
        );
        for a in &summary.agreements {
            let rate = a.conflict_rate();
            table.push([
                json!(a.objectives.join(" · ")),
                json!(a.agree),
                json!(a.conflict),
                json!(a.ties),
                json!(rate),
                json!(a.correlation()),
            ]);
        }
        section.push(Block::table(table));
    }
    let inputs = run.facts.get("inputs");
    let known = inputs.and_then(|inputs| inputs.get(path)).and_then(Value::as_str);
    section.push(Block::note(if known == Some(&set.fingerprint()) {
        "The file is the one that the run read: their fingerprints agree."
    } else {
        "Whether the file is still as the run read it cannot be said: their fingerprints differ, as they do when the file has \
         changed, and also when the script read it with limits or a template of its own."
    }));
    Some(section)
}

fn read_again(run: &StoredRun, path: &str) -> Result<Preferences> {
    let model = run.argument("model").and_then(Value::as_str).unwrap_or_default();
    if is_address(path) || is_address(model) {
        return Err(Error::new("it is on the hub, and a report fetches nothing"));
    }
    if model.is_empty() {
        return Err(Error::new("the arguments name no `model`, whose tokenizer reads it"));
    }
    let model = Path::new(model);
    let folder = if model.is_dir() { model } else { model.parent().unwrap_or(model) };
    let objectives = Some(run.objectives()).filter(|names| !names.is_empty());
    let options = ReadOptions { objectives, ..ReadOptions::default() };
    Preferences::read(Path::new(path), &Tokenizer::load(folder)?, &options)
}

/// What a chart over steps shows.
struct Lines<'a> {
    key: &'a str,
    title: &'a str,
    caption: &'a str,
    range: Option<(f64, f64)>,
    mark: Option<f64>,
}

/// Losses, margins, accuracies, chosen and rejected log-probs.
fn learning(run: &StoredRun, id: &str) -> Result<Option<Section>> {
    if run.rows.is_empty() {
        return Ok(None);
    }
    let mut section = Section::new(
        &format!("{id}-learning"),
        "Learning",
        [
            "Each number is of the batch of its step, before the step. Beyond 50 steps a smooth line (weights that fall \
         linearly over a twentieth of the run on either side) stands over the pale line of the log.",
        ],
    );
    let charts = [
        Lines {
            key: "losses",
            title: "Loss",
            caption: "The loss of each objective. ln 2 = 0.693 is that of DPO at its start.",
            range: None,
            mark: None,
        },
        Lines {
            key: "margins",
            title: "Margin",
            caption: "Mean over the batch of the objective's sign times (chosen − rejected log-prob, less the reference's), \
                      in nats: above 0 the policy prefers what the objective prefers, more than the reference does.",
            range: None,
            mark: Some(0.0),
        },
        Lines {
            key: "accuracies",
            title: "Accuracy",
            caption: "Share of the batch's pairs with a margin above 0, of those on which the objective takes a side.",
            range: Some((0.0, 1.0)),
            mark: Some(0.5),
        },
    ];
    let objectives = run.objectives();
    for Lines { key, title, caption, range, mark } in charts {
        let color = |name: &str| objectives.iter().position(|known| known == name);
        let series = by_name(&run.rows, key, color);
        if series.is_empty() {
            continue;
        }
        let plot = over_steps(title, series, range, mark);
        let table = logged(&format!("{title} by step"), &run.rows, &[key]);
        section.push(plotted(
            Words { id: format!("{id}-{key}"), title, caption: caption.to_owned() },
            &plot,
            table,
        )?);
    }
    let sides: Vec<&str> = ["chosen", "rejected"]
        .into_iter()
        .filter(|side| run.rows.iter().any(|row| row.contains_key(*side)))
        .collect();
    if !sides.is_empty() {
        let line = |(i, side): (usize, &&str)| Series {
            label: (*side).to_owned(),
            points: run.rows.iter().map(|row| (step(row), number(row, &[side]))).collect(),
            style: if i == 0 { Style::Line } else { Style::Dashed },
            color: 3 + i,
            ..Series::default()
        };
        let series = sides.iter().enumerate().map(line).collect();
        let caption = "Mean log-prob of the responses of the batch, summed over their tokens, in nats. A DPO loss sees \
                       only the difference of the two: it falls as well when both fall and the rejected one falls faster. \
                       Chosen log-probs that sink mean that probability moves to responses that are in no pair.";
        let words = Words {
            id: format!("{id}-log-probs"),
            title: "Chosen and rejected log-probs",
            caption: caption.to_owned(),
        };
        let table = logged("Log-probs by step", &run.rows, &sides);
        section.push(plotted(words, &over_steps("log-prob, nats", series, None, None), table)?);
    } else {
        section.push(Block::note(
            "The log has no log-probs: these gradients are of plain numbers, not of a model.",
        ));
    }
    if names(&run.rows, "margins").is_empty() && !sides.is_empty() {
        section.push(Block::note(
            "The log has no margins: demonstrations have one response, so nothing to prefer it to.",
        ));
    }
    Ok(Some(section))
}

fn over_steps(y_label: &str, series: Vec<Series>, y_range: Option<(f64, f64)>, mark: Option<f64>) -> Plot {
    Plot { x_label: "step".into(), y_label: y_label.to_lowercase(), series, y_range, mark, ..Plot::default() }
}

/// How the gradients of two objectives stand to each other.
fn cosines(run: &StoredRun, id: &str) -> Result<Option<Section>> {
    let pairs = run.objectives();
    let duos: Vec<(&String, &String)> =
        pairs.iter().enumerate().flat_map(|(i, a)| pairs[i + 1..].iter().map(move |b| (a, b))).collect();
    if duos.is_empty() || names(&run.rows, "cosines").is_empty() {
        return Ok(None);
    }
    // odd, so that as many steps lie before as after
    let window = (run.rows.len() / 5).clamp(5, 25) | 1;
    let mut section = Section::new(
        &format!("{id}-cosines"),
        "Conflict of gradients",
        [format!(
            "The cosine between the gradients of two objectives on the batch of a step: below 0 a step down one loss goes up the \
         other. Dots are the log's; the line is the mean over the {window} steps around, the band its 95 % t interval (mean ± \
         t·s/√n). It takes the steps of a window for independent draws around one mean. Batches nearly are; but the weights \
         move, so it tells the noise of the mean, not what another seed would give: for that report several runs."
        )],
    );
    for (i, (a, b)) in duos.into_iter().enumerate() {
        let points: Vec<(f64, f64)> =
            run.rows.iter().map(|row| (step(row), number(row, &["cosines", a, b]))).collect();
        let rolling = rolling(&points, window);
        let at = |pick: fn(&Mean) -> f64| -> Vec<(f64, f64)> {
            points.iter().zip(&rolling).map(|(point, r)| (point.0, pick(r))).collect()
        };
        let color = pairs.len() + i;
        let label = format!("{a} · {b}");
        let series = vec![
            Series {
                points: between(&at(|r| r.low), &at(|r| r.high)),
                style: Style::Band,
                color,
                ..Series::default()
            },
            Series { points: points.clone(), style: Style::Dust, color, ..Series::default() },
            Series { label: label.clone(), points: at(|r| r.mean), color, ..Series::default() },
        ];
        let mut table =
            Table::new(&format!("Cosine of {label} by step"), &["step", "cosine", "mean", "low", "high"]);
        for (row, r) in run.rows.iter().zip(&rolling) {
            let logged = row.get("cosines").and_then(|c| c.get(a)?.get(b)).cloned().unwrap_or(Value::Null);
            table.push([whole(step(row)), logged, value(r.mean), value(r.low), value(r.high)]);
        }
        let words = Words {
            id: format!("{id}-cosine{i}"),
            title: &format!("Cosine of {label}"),
            caption: format!(
                "Dots: each step. Line and band: mean over {window} steps and its 95 % t interval."
            ),
        };
        section.push(plotted(words, &over_steps("cosine", series, Some((-1.0, 1.0)), Some(0.0)), table)?);
    }
    Ok(Some(section))
}

/// Means over the `window` points around each, with t intervals.
fn rolling(points: &[(f64, f64)], window: usize) -> Vec<Mean> {
    let around = |i: usize| {
        let from = i.saturating_sub(window / 2).min(points.len().saturating_sub(window));
        let mean = Mean::of(points[from..(from + window).min(points.len())].iter().map(|p| p.1));
        Mean { low: mean.low.clamp(-1.0, 1.0), high: mean.high.clamp(-1.0, 1.0), ..mean }
    };
    (0..points.len()).map(around).collect()
}

/// Which layers carry the conflict, and when.
fn layers(run: &StoredRun, id: &str) -> Result<Option<Section>> {
    let Some(first) = run.rows.iter().find_map(|row| row.get("layers")?.as_object()) else { return Ok(None) };
    let blocks: Vec<String> = first.keys().cloned().collect();
    let (bins, each) = binned(run.rows.len());
    let shared = if each > 1 { format!(" Each column is the mean of {each} steps.") } else { String::new() };
    let mut section = Section::new(
        &format!("{id}-layers"),
        "Layers",
        [format!(
            "The gradients over each layer alone, and over what lies outside the layers. Blue is above 0, vermillion below, the \
         strength of the colour the size; a crossed cell has no value (a gradient of 0 has no cosine).{shared}"
        )],
    );
    let objectives = run.objectives();
    let mut maps: Vec<(String, Vec<&str>, Option<f64>, &str)> = Vec::new();
    for (i, a) in objectives.iter().enumerate() {
        for b in &objectives[i + 1..] {
            let path = vec!["cosines", a.as_str(), b.as_str()];
            maps.push((
                format!("Cosine of {a} · {b} by layer"),
                path,
                Some(1.0),
                "Vermillion layers carry the conflict.",
            ));
        }
    }
    for name in &objectives {
        let path = vec!["norms", name.as_str()];
        maps.push((
            format!("Norm of the gradient of {name} by layer"),
            path,
            None,
            "Which layers the objective would move.",
        ));
    }
    let steps: Vec<f64> = run.rows.iter().map(step).collect();
    for (i, (title, path, full, caption)) in maps.into_iter().enumerate() {
        let at = |row: &Map<String, Value>, block: &str| {
            let whole: Vec<&str> = ["layers", block].into_iter().chain(path.iter().copied()).collect();
            number(row, &whole)
        };
        let values = blocks.iter().map(|block| {
            let column = |range: &std::ops::Range<usize>| {
                Mean::of(run.rows[range.clone()].iter().map(|row| at(row, block))).mean
            };
            bins.iter().map(column).collect()
        });
        let heat = Heat {
            rows: blocks.clone(),
            values: values.collect(),
            x: (steps.first().copied().unwrap_or(0.0), steps.last().copied().unwrap_or(0.0)),
            x_label: "step".into(),
            full,
        };
        let head: Vec<&str> = std::iter::once("step").chain(blocks.iter().map(String::as_str)).collect();
        let mut table = Table::new(&format!("{title} and step"), &head);
        for row in &run.rows {
            table.push(
                std::iter::once(whole(step(row))).chain(blocks.iter().map(|block| value(at(row, block)))),
            );
        }
        section.push(heated(
            Words { id: format!("{id}-layers{i}"), title: &title, caption: caption.to_owned() },
            &heat,
            table,
        )?);
    }
    Ok(Some(section))
}

/// Ranges of rows, one a column of a heat map, and how many rows a full one has.
fn binned(rows: usize) -> (Vec<std::ops::Range<usize>>, usize) {
    let each = rows.div_ceil(COLUMNS).max(1);
    ((0..rows).step_by(each).map(|from| from..(from + each).min(rows)).collect(), each)
}

/// Dual weights before and after the clip, and what the user asked for.
fn weights(run: &StoredRun, id: &str) -> Result<Option<Section>> {
    let objectives = run.objectives();
    let kinds = [
        ("p", "Dual weights p", "What the method would weigh the objectives by, on its own."),
        (
            "p_clip",
            "Clipped weights p_clip",
            "min(p, w), not renormalised: what is missing to 1 was clipped away.",
        ),
        ("w", "Preference weights w", "What the user asked for."),
        (
            "alpha",
            "Row weights alpha",
            "What the update really adds up: Σ alphaᵢ gᵢ; these need not sum to 1.",
        ),
    ];
    let there = |key: &str| run.rows.iter().any(|row| row.get(key).is_some_and(Value::is_object));
    if !kinds.iter().any(|(key, ..)| there(key)) {
        return Ok(None);
    }
    let binding: Vec<f64> = run.rows.iter().filter(|row| binds(row, &objectives)).map(step).collect();
    let clips = there("p_clip");
    let told = if clips {
        format!(
            "Areas are stacked, one colour an objective. The clip binds (some p above its w) at {} of {} steps; dots along the top mark \
             them.",
            binding.len(),
            run.rows.len()
        )
    } else {
        "Areas are stacked, one colour an objective. This method has no clip.".to_owned()
    };
    let mut section = Section::new(&format!("{id}-weights"), "Weights", [told]);
    for (key, title, caption) in kinds.into_iter().filter(|(key, ..)| there(key)) {
        let mut base: Vec<(f64, f64)> = run.rows.iter().map(|row| (step(row), 0.0)).collect();
        let mut series = Vec::new();
        let mut negative = false;
        for (color, name) in objectives.iter().enumerate() {
            let at = |(row, base): (&Map<String, Value>, &(f64, f64))| {
                (base.0, base.1 + number(row, &[key, name]))
            };
            negative |= run.rows.iter().any(|row| number(row, &[key, name]) < 0.0);
            let top: Vec<(f64, f64)> = run.rows.iter().zip(&base).map(at).collect();
            series.push(Series {
                label: name.clone(),
                points: between(&base, &top),
                style: Style::Area,
                color,
                ..Series::default()
            });
            base = top;
        }
        let highest = base.iter().fold(0.0, |most: f64, point| most.max(point.1));
        let mut range = (highest > 0.0).then_some((0.0, 1.08 * highest));
        if negative {
            range = None;
            // areas below 0 cannot be stacked
            series = by_name(&run.rows, key, |name| objectives.iter().position(|known| known == name));
        }
        if clips && key != "alpha" && key != "w" && !binding.is_empty() {
            let points = binding.iter().map(|&step| (step, 1.04 * highest)).collect();
            let label = "the clip binds".to_owned();
            series.push(Series { label, points, style: Style::Dust, color: GREY, ..Series::default() });
        }
        let table = logged(&format!("{title} by step"), &run.rows, &[key]);
        let words = Words { id: format!("{id}-{key}"), title, caption: caption.to_owned() };
        section.push(plotted(words, &over_steps("weight", series, range, None), table)?);
    }
    Ok(Some(section))
}

/// True where the clip takes something from some p.
fn binds(row: &Map<String, Value>, objectives: &[String]) -> bool {
    objectives.iter().any(|name| number(row, &["p", name]) - number(row, &["p_clip", name]) > BINDS)
}

/// What the first order says of each loss, and what came of it where the log tells.
fn changes(run: &StoredRun, id: &str) -> Result<Option<Section>> {
    let objectives = run.objectives();
    let logged_keys = |key: &str| !names(&run.rows, key).is_empty();
    let (has_predicted, has_realised) = (logged_keys("predicted"), logged_keys("realised"));
    let plain = |row: &Map<String, Value>, i: usize| {
        let h = |j: usize| row.get("h")?.get(i)?.get(j)?.as_f64();
        let products =
            objectives.iter().enumerate().map(|(j, name)| Some(h(j)? * number(row, &["alpha", name])));
        let slope: Option<f64> = products.sum();
        -number(row, &["lr"]) * slope.unwrap_or(f64::NAN)
    };
    let has_plain = run.rows.iter().any(|row| (0..objectives.len()).any(|i| plain(row, i).is_finite()));
    if !has_plain && !has_predicted && !has_realised {
        return Ok(None);
    }
    let text = if has_predicted {
        "Predicted is the first order ⟨gᵢ, Δθ⟩ with the Δθ of the optimiser, as the script logged it."
    } else {
        "Predicted is the first order of a plain step of size lr along the update, −lr·(H alpha)ᵢ, from the logged Gramian H, alpha and \
         lr. An adaptive optimiser such as AdamW, momentum or clipping take another step: then only the sign says \
         something, whether the update by itself lowers a loss."
    };
    let optimizer = run.facts.get("optimizer").and_then(Value::as_str);
    let named = optimizer.map_or_else(String::new, |name| format!(" The optimiser of this run is {name}."));
    let text = format!("{text}{named}");
    let mut section =
        Section::new(&format!("{id}-changes"), "Predicted and realised change of the losses", [text]);
    let mut head = vec!["step".to_owned()];
    let mut series = Vec::new();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for (color, name) in objectives.iter().enumerate() {
        let mut add = |what: &str, style: Style, y: Vec<f64>| {
            let label = format!("{name}, {what}");
            let points = run.rows.iter().map(step).zip(y.iter().copied()).collect();
            series.push(Series { label: label.clone(), points, style, color, ..Series::default() });
            head.push(label);
            columns.push(y);
        };
        let of = |key: &str| run.rows.iter().map(|row| number(row, &[key, name])).collect();
        match has_predicted {
            true => add("predicted", Style::Dashed, of("predicted")),
            false if has_plain => {
                add("plain step", Style::Dashed, run.rows.iter().map(|row| plain(row, color)).collect())
            }
            false => {}
        }
        if has_realised {
            add("realised", Style::Line, of("realised"));
        }
    }
    let mut table = Table::new("Change of the losses by step", &head);
    for (i, row) in run.rows.iter().enumerate() {
        table.push(std::iter::once(whole(step(row))).chain(columns.iter().map(|y| value(y[i]))));
    }
    let caption = if has_realised {
        "Dashed: predicted; solid: the loss on the same batch after the step, less that before it."
    } else {
        "Below 0 the update lowers the loss to first order."
    };
    let words =
        Words { id: format!("{id}-change"), title: "Change of the losses", caption: caption.to_owned() };
    section.push(plotted(words, &over_steps("change", series, None, Some(0.0)), table)?);
    if !has_realised {
        section.push(Block::note(
            "Realised changes are not in this log: the losses of two steps in a row are on different batches, and their \
             difference is mostly the difference of the batches. A script that logs `realised` (and `predicted`) by objective \
             gets both drawn here, at the price of one more forward a step; at the prompt, `realised(lab)` measures one step.",
        ));
        section.push(Block::Code {
            caption: "In the loop of the script, in place of its last two lines".into(),
            code: REALISED.into(),
        });
    }
    Ok(Some(section))
}

/// The evaluation's texts of one side.
pub(super) fn texts(run: &StoredRun, side: &str, key: &str) -> Vec<String> {
    let list = run.evaluation.get(side).and_then(|side| side.get(key)).and_then(Value::as_array);
    list.into_iter().flatten().map(spoken).collect()
}

/// A prompt may be chat messages.
fn spoken(value: &Value) -> String {
    let turn = |turn: &Value| {
        let part = |key: &str| turn.get(key)?.as_str().map(str::to_owned);
        Some(format!("{}: {}", part("role")?, part("content")?))
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(turns) => turns.iter().filter_map(turn).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

fn answers(run: &StoredRun, id: &str) -> Option<Section> {
    let (prompts, after) = (texts(run, "after", "prompts"), texts(run, "after", "responses"));
    let before = texts(run, "before", "responses");
    if prompts.is_empty() || after.is_empty() {
        return None;
    }
    let mut section = Section::new(
        &format!("{id}-answers"),
        "Responses to held-out prompts",
        [format!(
            "The first {} of {} prompts of the evaluation, not chosen by what came out.",
            prompts.len().min(PROMPTS),
            prompts.len()
        )],
    );
    for (i, prompt) in prompts.iter().take(PROMPTS).enumerate() {
        let sides = [("before", &before), ("after", &after)];
        let answer = |(by, texts): (&str, &Vec<String>)| {
            Some(Answer { by: by.to_owned(), text: texts.get(i)?.clone() })
        };
        let answers = sides.into_iter().filter_map(answer).collect();
        section.push(Block::Answers { prompt: prompt.clone(), answers });
    }
    Some(section)
}

/// Where the numbers come from, and what they took.
fn provenance(run: &StoredRun, id: &str) -> Option<Section> {
    let mut section = Section::new(
        &format!("{id}-provenance"),
        "Provenance",
        ["The folder's `source` holds the script and the modules as they ran."],
    );
    let mut made = Table::new("What the run is made of", &["", "value"]);
    let fact = |key: &str| run.facts.get(key).cloned().unwrap_or(Value::Null);
    made.push([json!("folder"), json!(run.dir.display().to_string())]);
    made.push([json!("script"), fact("script")]);
    made.push([json!("raco"), fact("raco")]);
    for (library, version) in fact("versions").as_object().into_iter().flatten() {
        made.push([json!(library), version.clone()]);
    }
    made.push([json!("seed"), fact("seed")]);
    for key in ["optimizer", "device"] {
        if let Some(value) = run.facts.get(key) {
            made.push([json!(key), value.clone()]);
        }
    }
    for (input, hash) in fact("inputs").as_object().into_iter().flatten() {
        made.push([json!(format!("hash of {input}")), hash.clone()]);
    }
    section.push(Block::table(made));
    let mut sessions = Table::new(
        "Sessions: a run that was resumed has several",
        &[
            "from step",
            "began, UTC",
            "system",
            "processor",
            "threads",
            "before training, s",
            "evaluation, s",
            "whole, s",
            "peak memory, MiB",
        ],
    );
    for session in fact("sessions").as_array().into_iter().flatten() {
        let of = |key: &str| session.get(key).cloned().unwrap_or(Value::Null);
        let began = of("unix_s").as_u64().map(super::super::stored::utc);
        sessions.push([
            of("from_step"),
            json!(began),
            of("os"),
            of("cpu"),
            of("threads"),
            of("start_s"),
            of("evaluate_s"),
            of("whole_s"),
            of("peak_mib"),
        ]);
    }
    section.push(Block::table(sessions));
    let times: Vec<f64> =
        run.rows.iter().map(|row| number(row, &["time_ms"])).filter(|x| x.is_finite()).collect();
    if !times.is_empty() {
        let mut sorted = times.clone();
        sorted.sort_by(f64::total_cmp);
        let memory = run.rows.iter().map(|row| number(row, &["memory_mib"])).fold(f64::NAN, f64::max);
        let mut table = Table::new("The steps", &["", "value"]);
        table.push([json!("all steps, s"), value((times.iter().sum::<f64>() / 10.0).round() / 100.0)]);
        table.push([json!("median step, ms"), value(sorted[sorted.len() / 2])]);
        table.push([json!("slowest step, ms"), value(sorted[sorted.len() - 1])]);
        table.push([json!("most memory after a step, MiB"), value(memory)]);
        for key in ["seconds", "cpu_seconds"] {
            if let Some(seconds) = run.point.get(key) {
                table.push([json!(format!("{} of the whole point", key.replace('_', " "))), seconds.clone()]);
            }
        }
        section.push(Block::table(table));
    }
    Some(section)
}
