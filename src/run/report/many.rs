//! What several runs have in common: a table, the curves of each method over its seeds, responses side by side.

use serde_json::{Map, Value, json};

use super::super::StoredRun;
use super::super::figure::{MANY, smooth};
use super::super::palette::method_color;
use super::super::plot::{Plot, Series, Style, between};
use super::super::points::variant;
use super::super::{FrontOptions, points_of};
use super::chart::{Mean, Words, number, plotted, step, value, whole};
use super::one::texts;
use super::page::{Answer, Block, Part, Section, Table};
use crate::error::Result;

/// Settings of the weights whose curves are drawn.
const SETTINGS: usize = 3;
/// Methods of one picture.
const LINES: usize = 8;
/// Prompts whose responses are shown.
const PROMPTS: usize = 4;
/// Runs of one method and its options under one setting of the weights: they differ by seed.
struct Group<'a> {
    label: String,
    method: String,
    weights: String,
    runs: Vec<&'a StoredRun>,
}

pub(super) fn part(runs: &[StoredRun]) -> Result<Part> {
    let configs: Vec<Map<String, Value>> = runs.iter().map(config).collect();
    let groups = groups(runs, &configs);
    let mut sections = vec![table(runs)];
    sections.extend(fronts(runs, &configs)?);
    sections.extend(curves(&groups)?);
    sections.extend(answers(&groups));
    Ok(Part { id: "all".into(), title: format!("All {} runs", runs.len()), sections })
}

/// What a run was started with, as a sweep would have it: its configuration, or the arguments with the method under
/// `method`.
fn config(run: &StoredRun) -> Map<String, Value> {
    if let Some(config) = run.point.get("config").and_then(Value::as_object) {
        return config.clone();
    }
    let mut config = run.args.clone();
    config.remove("aggregator");
    config.extend(run.method().map(|method| ("method".to_owned(), json!(method))));
    config
}

fn weights(run: &StoredRun) -> String {
    run.weights_text().unwrap_or_default()
}

fn groups<'a>(runs: &'a [StoredRun], configs: &[Map<String, Value>]) -> Vec<Group<'a>> {
    let all: Vec<&Map<String, Value>> = configs.iter().collect();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (run, config) in runs.iter().zip(configs) {
        let (label, weights) = (variant(config, &all), weights(run));
        match groups.iter_mut().find(|group| group.label == label && group.weights == weights) {
            Some(group) => group.runs.push(run),
            None => {
                let method = run.method().unwrap_or_default().to_owned();
                groups.push(Group { label, method, weights, runs: vec![run] });
            }
        }
    }
    groups
}

/// Scores against each other, where runs have them: the fronts of the methods with what the seeds leave in doubt.
fn fronts(runs: &[StoredRun], configs: &[Map<String, Value>]) -> Result<Option<Section>> {
    if runs.iter().all(|run| run.scores().is_empty()) {
        return Ok(None);
    }
    let entry = |(run, config): (&StoredRun, &Map<String, Value>)| {
        let (scores, result) = (run.scores(), run.point.get("result"));
        // of an evaluation only what was weighed is a score: not the words
        let weighed = |name: &String| result.is_some() || run.weights().is_some_and(|w| w.contains_key(name));
        let scores: Map<String, Value> = scores.into_iter().filter(|(name, _)| weighed(name)).collect();
        let error = run.point.get("error").cloned().unwrap_or(Value::Null);
        let status = if scores.is_empty() && error.is_null() { "open" } else { "done" };
        let losses = result.and_then(|result| result.get("losses")).cloned().unwrap_or(Value::Null);
        json!({
            "name": run.name, "config": config, "status": status, "error": error,
            "result": { "scores": scores, "losses": losses },
        })
    };
    let entries: Vec<Value> = runs.iter().zip(configs).map(entry).collect();
    let mut section = Section::new(
        "all-fronts",
        "Fronts",
        [
            "Held-out scores against each other, more is better. A small pale point is one run; a marker is the mean over the seeds of a method at \
          one setting of the weights, open where another mean point of the method is at least as good in all scores; whiskers are 95 % t \
          intervals over the seeds, drawn from three seeds on. The hypervolume is what a front dominates above the reference point.",
        ],
    );
    let analysed =
        points_of(&entries).and_then(|outcomes| super::super::fronts(outcomes, &FrontOptions::default()));
    let fronts = match analysed {
        Ok(fronts) => fronts,
        Err(error) => {
            let what = error.to_string().replace('\n', "; ");
            return Ok(Some(section.with(Block::note(format!("There are no fronts to draw: {what}.")))));
        }
    };
    let mut head = vec!["variant".to_owned(), "weights".to_owned(), "seed".to_owned()];
    head.extend(fronts.objectives.iter().cloned());
    let mut table = Table::new("The scores of each run", &head);
    for point in fronts.variants.iter().flat_map(|variant| &variant.points) {
        let scores = fronts.objectives.iter().map(|name| json!(point.scores.get(name)));
        table.push(
            [json!(point.variant), json!(point.weights.short()), json!(point.seed)].into_iter().chain(scores),
        );
    }
    for (i, plot) in fronts.panels().into_iter().enumerate() {
        let title = format!("{} and {}", plot.x_label, plot.y_label);
        let caption = format!("Reference point of the hypervolume: {}.", fronts.reference.short());
        section.push(plotted(
            Words { id: format!("all-front{i}"), title: &title, caption },
            &plot,
            table.clone(),
        )?);
    }
    fronts.notes.iter().for_each(|note| section.push(Block::note(note)));
    for given in fronts.tables() {
        let mut table = Table::new(&given.title, &given.head);
        given.rows.into_iter().for_each(|row| table.push(row));
        section.push(Block::table(table));
    }
    Ok(Some(section))
}

fn table(runs: &[StoredRun]) -> Section {
    let union = |of: fn(&StoredRun) -> Vec<String>| {
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
    for group in &logged {
        if !settings.contains(&group.weights.as_str()) {
            settings.push(&group.weights);
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
    let mut what: Vec<Curves> = objectives
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
                let color = method_color(&group.method);
                // another variant of the method, or a method of the same colour
                let taken = lines.iter().any(|line: &Series| line.color == color);
                let style = if taken { Style::Dashed } else { Style::Line };
                let means = over_seeds(&group.runs, &path);
                for (step, m) in &means {
                    let cells = [whole(*step), json!(m.count), value(m.mean), value(m.low), value(m.high)];
                    table.push(std::iter::once(json!(group.label)).chain(cells));
                }
                let at = |pick: fn(&Mean) -> f64| -> Vec<(f64, f64)> {
                    means.iter().map(|(step, m)| (*step, pick(m))).collect()
                };
                let points = between(&at(|m| m.low), &at(|m| m.high));
                bands.push(Series { points, style: Style::Band, color, ..Series::default() });
                let label = group.label.clone();
                lines.push(Series { label, points: at(|m| m.mean), style, color, ..Series::default() });
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

/// The mean over runs at each step that the longest of them has, over those that have it.
fn over_seeds(runs: &[&StoredRun], path: &[&str]) -> Vec<(f64, Mean)> {
    let curve = |run: &&StoredRun| {
        let points: Vec<(f64, f64)> = run.rows.iter().map(|row| (step(row), number(row, path))).collect();
        if points.len() > MANY { smooth(&points, points.len() / 20) } else { points }
    };
    let curves: Vec<Vec<(f64, f64)>> = runs.iter().map(curve).collect();
    let longest = curves.iter().map(Vec::len).max().unwrap_or(0);
    let at = |i: usize| {
        let points: Vec<(f64, f64)> = curves.iter().filter_map(|curve| curve.get(i)).copied().collect();
        let step = points.first().map_or(f64::NAN, |point| point.0);
        (step, Mean::of(points.into_iter().map(|point| point.1)))
    };
    (0..longest).map(at).collect()
}

/// Responses of the methods to the same prompts, of the first run of each group.
fn answers(groups: &[Group<'_>]) -> Option<Section> {
    let mut runs: Vec<(String, &StoredRun)> = Vec::new();
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

/// What one picture of curves is of: title, path of the number in a row of the log, vertical range, line across.
type Curves = (String, Vec<String>, Option<(f64, f64)>, Option<f64>);
