//! What several runs have in common: a table, the curves of each method over its seeds, responses side by side.

use serde_json::{Map, Value, json};

use super::super::Record;
use super::super::figure::{MANY, smooth};
use super::super::plot::{Plot, Series, Style, between};
use super::chart::{Words, number, plotted, step, value, whole};
use super::one::texts;
use super::page::{Answer, Block, Part, Section, Table};
use crate::error::Result;
use crate::math::mean_interval;

/// Settings of the weights whose curves are drawn.
const SETTINGS: usize = 3;
/// Methods of one picture.
const LINES: usize = 8;
/// Prompts whose responses are shown.
const PROMPTS: usize = 4;
const LEVEL: f64 = 0.95;
/// Arguments that tell no variant of a method apart.
const COMMON: [&str; 6] = ["method", "aggregator", "weights", "seed", "out", "resume"];

/// Runs of one method and its options under one setting of the weights: they differ by seed.
struct Group<'a> {
    label: String,
    weights: String,
    runs: Vec<&'a Record>,
}

pub(super) fn part(runs: &[Record]) -> Result<Part> {
    let groups = groups(runs);
    let mut sections = vec![table(runs)];
    sections.extend(curves(&groups)?);
    sections.extend(answers(&groups));
    Ok(Part { id: "all".into(), title: format!("All {} runs", runs.len()), sections })
}

/// What a run was started with, a sweep's configuration where there is one.
fn config(run: &Record) -> &Map<String, Value> {
    run.point.get("config").and_then(Value::as_object).unwrap_or(&run.args)
}

/// The method with those of its options that vary among the runs: `cagrad_clip c=0.4`.
pub(super) fn label(run: &Record, runs: &[Record]) -> String {
    let varies = |key: &str| runs.iter().any(|other| config(other).get(key) != config(run).get(key));
    let options = config(run).iter().filter(|(key, _)| !COMMON.contains(&key.as_str()) && varies(key));
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let options = options.map(|(key, value)| format!(" {key}={}", shown(value)));
    std::iter::once(run.method().unwrap_or("no method").to_owned()).chain(options).collect()
}

fn weights(run: &Record) -> String {
    run.weights_text().unwrap_or_default()
}

fn groups(runs: &[Record]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        let (label, weights) = (label(run, runs), weights(run));
        match groups.iter_mut().find(|group| group.label == label && group.weights == weights) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { label, weights, runs: vec![run] }),
        }
    }
    groups
}

fn table(runs: &[Record]) -> Section {
    let union = |of: fn(&Record) -> Vec<String>| {
        let mut all: Vec<String> = Vec::new();
        for name in runs.iter().flat_map(of) {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    };
    let scores = union(|run| run.scores().keys().cloned().collect());
    let losses = union(|run| if run.rows.is_empty() { vec![] } else { run.objectives() });
    let mut head: Vec<String> = ["run", "method", "weights", "c", "seed", "steps"].map(str::to_owned).into();
    head.extend(scores.iter().map(|name| format!("score: {name}")));
    head.extend(losses.iter().map(|name| format!("last loss: {name}")));
    head.extend(["training, s", "began, UTC"].map(str::to_owned));
    let mut table = Table::new("The runs; scores are held out, the last loss is of the last batch", &head);
    for run in runs {
        let argument = |key: &str| run.argument(key).cloned().unwrap_or(Value::Null);
        let mut row = vec![
            json!(run.name),
            json!(run.method()),
            json!(weights(run)),
            argument("c"),
            argument("seed"),
            json!(run.steps().0),
        ];
        let found = run.scores();
        row.extend(scores.iter().map(|name| found.get(name).cloned().unwrap_or(Value::Null)));
        let last = |name: &String| run.rows.last().map_or(f64::NAN, |row| number(row, &["losses", name]));
        row.extend(losses.iter().map(|name| value(last(name))));
        row.extend([value((run.training_seconds() * 10.0).round() / 10.0), json!(run.began())]);
        table.push(row);
    }
    Section::new("all-runs", "The runs", [] as [&str; 0]).with(Block::table(table))
}

/// Losses and cosines of each method over the steps, one picture a setting of the weights.
fn curves(groups: &[Group<'_>]) -> Result<Option<Section>> {
    let logged: Vec<&Group<'_>> =
        groups.iter().filter(|g| g.runs.iter().any(|run| run.rows.len() > 1)).collect();
    let Some(first) = logged.first().and_then(|g| g.runs.iter().find(|run| run.rows.len() > 1)) else {
        return Ok(None);
    };
    let objectives = first.objectives();
    let mut settings: Vec<&str> = Vec::new();
    let mut labels: Vec<&str> = Vec::new();
    for group in &logged {
        if !settings.contains(&group.weights.as_str()) {
            settings.push(&group.weights);
        }
        if !labels.contains(&group.label.as_str()) {
            labels.push(&group.label);
        }
    }
    let all = settings.len();
    let settings: Vec<&str> = if all <= SETTINGS {
        settings
    } else {
        (0..SETTINGS).map(|i| settings[i * (all - 1) / (SETTINGS - 1)]).collect()
    };
    let smoothed = first.rows.len() > MANY;
    let mut section = Section::new(
        "all-curves",
        "Losses and conflict over the steps",
        [format!(
            "Lines are means over the runs of a method that differ by seed only; the band is the 95 % t interval over these seeds (mean ± \
         t·s/√n), for a method with at least two. A method has one colour in all pictures.{}{}",
            if smoothed {
                " Each run is smoothed first, with weights that fall linearly over a twentieth of its steps on either side."
            } else {
                ""
            },
            if all > settings.len() {
                format!(" Of {all} settings of the weights, {} are drawn.", settings.len())
            } else {
                String::new()
            },
        )],
    );
    let mut what: Vec<(String, Vec<String>, Option<(f64, f64)>, Option<f64>)> = objectives
        .iter()
        .map(|name| (format!("Loss of {name}"), vec!["losses".to_owned(), name.clone()], None, None))
        .collect();
    for (i, a) in objectives.iter().enumerate() {
        for b in &objectives[i + 1..] {
            let path = ["cosines", a, b].map(str::to_owned).to_vec();
            what.push((format!("Cosine of {a} · {b}"), path, Some((-1.0, 1.0)), Some(0.0)));
        }
    }
    for (s, setting) in settings.iter().enumerate() {
        let shown: Vec<&&Group<'_>> = logged.iter().filter(|g| g.weights == *setting).take(LINES).collect();
        for (k, (title, path, y_range, mark)) in what.iter().enumerate() {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let mut table =
                Table::new(&format!("{title} by step"), &["method", "step", "runs", "mean", "low", "high"]);
            let (mut bands, mut lines) = (Vec::new(), Vec::new());
            for group in &shown {
                let color = method_color(&group.label, &labels);
                let means = over_seeds(&group.runs, &path);
                for m in &means {
                    let cells = [whole(m.step), json!(m.runs), value(m.mean), value(m.low), value(m.high)];
                    table.push(std::iter::once(json!(group.label)).chain(cells));
                }
                let at = |pick: fn(&Mean) -> f64| -> Vec<(f64, f64)> {
                    means.iter().map(|m| (m.step, pick(m))).collect()
                };
                let points = between(&at(|m| m.low), &at(|m| m.high));
                bands.push(Series { points, style: Style::Band, color, ..Series::default() });
                let label = group.label.clone();
                lines.push(Series { label, points: at(|m| m.mean), color, ..Series::default() });
            }
            bands.extend(lines);
            let runs: usize = shown.iter().map(|g| g.runs.len()).sum();
            let caption = if setting.is_empty() {
                format!("{runs} runs.")
            } else {
                format!("Weights {setting}; {runs} runs.")
            };
            let plot = Plot {
                x_label: "step".into(),
                y_label: title.to_lowercase(),
                series: bands,
                y_range: *y_range,
                mark: *mark,
                ..Plot::default()
            };
            section.push(plotted(Words { id: format!("all-{s}-{k}"), title, caption }, &plot, table)?);
        }
    }
    Ok(Some(section))
}

/// One colour a method, whatever its place in a picture.
fn method_color(label: &str, labels: &[&str]) -> usize {
    labels.iter().position(|known| *known == label).unwrap_or(0)
}

struct Mean {
    step: f64,
    runs: usize,
    mean: f64,
    low: f64,
    high: f64,
}

/// The mean over runs at each step that the longest of them has, over those that have it.
fn over_seeds(runs: &[&Record], path: &[&str]) -> Vec<Mean> {
    let curve = |run: &&Record| {
        let points: Vec<(f64, f64)> = run.rows.iter().map(|row| (step(row), number(row, path))).collect();
        if points.len() > MANY { smooth(&points, points.len() / 20) } else { points }
    };
    let curves: Vec<Vec<(f64, f64)>> = runs.iter().map(curve).collect();
    let longest = curves.iter().map(Vec::len).max().unwrap_or(0);
    let at = |i: usize| {
        let points = curves.iter().filter_map(|curve| curve.get(i)).filter(|point| point.1.is_finite());
        let (steps, values): (Vec<f64>, Vec<f64>) = points.copied().unzip();
        let (mean, half) = mean_interval(&values, LEVEL)?;
        let half = half.unwrap_or(f64::NAN);
        Some(Mean { step: steps[0], runs: values.len(), mean, low: mean - half, high: mean + half })
    };
    (0..longest).filter_map(at).collect()
}

/// Responses of the methods to the same prompts, of the first run of each group.
fn answers(groups: &[Group<'_>]) -> Option<Section> {
    let mut runs: Vec<(String, &Record)> = Vec::new();
    for group in groups {
        let run = group.runs.iter().find(|run| !texts(run, "after", "responses").is_empty());
        let by = [&group.label[..], &group.weights].join(if group.weights.is_empty() { "" } else { " · " });
        runs.extend(run.map(|run| (by, *run)));
    }
    let (_, first) = runs.first()?;
    let mut section = Section::new(
        "all-answers",
        "Responses of the methods to held-out prompts",
        [format!(
            "The first {PROMPTS} prompts of the evaluation; of each method and setting of the weights the run that comes first, at most {LINES} \
         of them, and the policy before training."
        )],
    );
    let before = texts(first, "before", "responses");
    for (i, prompt) in texts(first, "after", "prompts").iter().take(PROMPTS).enumerate() {
        let mut answers: Vec<Answer> = before
            .get(i)
            .map(|text| Answer { by: "before training".into(), text: text.clone() })
            .into_iter()
            .collect();
        for (by, run) in runs.iter().take(LINES) {
            let place = texts(run, "after", "prompts").iter().position(|known| known == prompt);
            let text = place.and_then(|place| texts(run, "after", "responses").get(place).cloned());
            answers.extend(text.map(|text| Answer { by: by.clone(), text }));
        }
        section.push(Block::Answers { prompt: prompt.clone(), answers });
    }
    Some(section)
}
