//! The picture of a run: losses, cosines and weights over its steps.

use std::path::Path;

use serde_json::{Map, Value};

use super::flatten;
use super::plot::{Plot, Series, Style, save_stack};
use crate::error::{Error, Result};

/// From how many steps on the lines are smoothed.
pub(super) const MANY: usize = 50;

/// Draws the log of a run: losses, cosines between gradients, dual weights and row weights, each over the
/// steps and coloured by objective.
///
/// # Errors
/// A log without losses; a file that cannot be written.
pub fn run_figure(rows: &[Map<String, Value>], path: &Path) -> Result<()> {
    let objectives: Vec<String> = match rows.first().and_then(|row| row.get("losses")) {
        Some(Value::Object(losses)) => losses.keys().cloned().collect(),
        _ => {
            return Err(Error::new("the log has no losses to draw")
                .in_file(path)
                .help("log `losses` at each step"));
        }
    };
    let color = |name: &str| objectives.iter().position(|o| o == name);
    let mut plots =
        vec![Plot { title: "loss".into(), series: by_name(rows, "losses", color), ..Plot::default() }];
    let mut pairs = 0;
    let mut next = |_: &str| {
        pairs += 1;
        Some(objectives.len() + pairs - 1)
    };
    let cosines = by_name(rows, "cosines", &mut next);
    if !cosines.is_empty() {
        plots.push(Plot {
            title: "cosine of gradients".into(),
            series: cosines,
            y_range: Some((-1.0, 1.0)),
            mark: Some(0.0),
            ..Plot::default()
        });
    }
    let mut dual = by_name(rows, "p", color);
    let clipped = by_name(rows, "p_clip", color);
    if !dual.is_empty() {
        let mut title = "dual weights p";
        if !clipped.is_empty() {
            title = "dual weights: p dashed, p_clip solid";
            for series in dual.iter_mut().filter(|s| s.style == Style::Line) {
                (series.style, series.label) = (Style::Dashed, String::new());
            }
        }
        dual.extend(clipped);
        plots.push(Plot { title: title.into(), series: dual, y_range: Some((0.0, 1.0)), ..Plot::default() });
    }
    let alpha = by_name(rows, "alpha", color);
    if !alpha.is_empty() {
        plots.push(Plot { title: "row weights of the update".into(), series: alpha, ..Plot::default() });
    }
    if let Some(last) = plots.last_mut() {
        last.x_label = "step".into();
    }
    let heights: Vec<u32> = plots.iter().map(|p| if p.title == "loss" { 175 } else { 135 }).collect();
    save_stack(&plots, &heights, path)
}

/// The series below one key of the rows; where steps are many, a smooth line over a pale one.
pub(super) fn by_name(
    rows: &[Map<String, Value>],
    key: &str,
    mut color: impl FnMut(&str) -> Option<usize>,
) -> Vec<Series> {
    let part = |row: &Map<String, Value>| match row.get(key) {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    };
    let Some(first) = rows.first().map(part) else { return vec![] };
    let names: Vec<String> = flatten(&first).into_iter().map(|(name, _)| name).collect();
    let mut series = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let Some(color) = color(name) else { continue };
        let points: Vec<(f64, f64)> = rows
            .iter()
            .map(|row| {
                let x = row.get("step").and_then(Value::as_f64).unwrap_or(f64::NAN);
                let cells = part(row);
                let y = flatten(&cells).get(i).and_then(|(_, value)| value.as_f64()).unwrap_or(f64::NAN);
                (x, y)
            })
            .collect();
        let label = name.replace('.', " · ");
        if rows.len() <= MANY {
            series.push(Series { label, points, color, ..Series::default() });
        } else {
            let smoothed = smooth(&points, rows.len() / 20);
            series.insert(i, Series { points, style: Style::Pale, color, ..Series::default() });
            series.push(Series { label, points: smoothed, color, ..Series::default() });
        }
    }
    series
}

/// A mean with weights that fall linearly to 0 at `reach` steps, over the points that are there.
pub(super) fn smooth(points: &[(f64, f64)], reach: usize) -> Vec<(f64, f64)> {
    (0..points.len())
        .map(|i| {
            let near = i.saturating_sub(reach)..(i + reach + 1).min(points.len());
            let (mut sum, mut total) = (0.0, 0.0);
            for j in near.filter(|&j| points[j].1.is_finite()) {
                let weight = (reach + 1 - i.abs_diff(j)) as f64;
                sum += weight * points[j].1;
                total += weight;
            }
            (points[i].0, sum / total)
        })
        .collect()
}
