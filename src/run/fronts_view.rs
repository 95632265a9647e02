//! The fronts of a sweep as tables and as a picture.

use std::path::Path;

use serde_json::{Value, json};

use super::fronts::{Ends, Estimate, Fronts, MeanPoint, Variant};
use super::grid::Grid;
use super::palette::{Marker, method_color, method_marker};
use super::plot::{Plot, Series, Style, save_stack};
use super::table::Table;
use crate::error::Result;

const GAP: (f64, f64) = (f64::NAN, f64::NAN);

fn low(ends: Option<Ends>) -> Value {
    ends.map_or(Value::Null, |ends| json!(ends.low))
}

fn high(ends: Option<Ends>) -> Value {
    ends.map_or(Value::Null, |ends| json!(ends.high))
}

/// Half the width of Student's interval.
fn reach(estimate: &Estimate) -> Value {
    estimate.t.map_or(Value::Null, |t| json!(t.high - estimate.mean))
}

fn table(title: String, head: &[&str], rows: Vec<Vec<Value>>) -> Table {
    Table { title, head: head.iter().map(|name| (*name).to_owned()).collect(), rows }
}

impl Fronts {
    /// The numbers as tables: hypervolumes, comparisons, fronts, mean points, the control.
    pub fn tables(&self) -> Vec<Table> {
        let control = self.control.iter().flat_map(|_| [self.beyond(), self.matched()]);
        [self.volumes(), self.compared(), self.shapes(), self.points()]
            .into_iter()
            .chain(control)
            .filter(|table| !table.rows.is_empty())
            .collect()
    }

    fn volumes(&self) -> Table {
        let row = |variant: &Variant| {
            let volume = variant.hypervolume.as_ref();
            let over = volume.map(|volume| &volume.over_seeds);
            vec![
                json!(variant.label),
                json!(volume.map_or(0, |volume| volume.seeds.len())),
                json!(over.map(|over| over.mean)),
                low(over.and_then(|over| over.t)),
                high(over.and_then(|over| over.t)),
                low(volume.and_then(|volume| volume.bootstrap_t)),
                high(volume.and_then(|volume| volume.bootstrap_t)),
                json!(variant.hypervolume_of_means),
            ]
        };
        let title = format!("hypervolume over the seeds, reference {}", self.reference.short());
        let head = ["variant", "seeds", "mean", "low", "high", "boot low", "boot high", "of means"];
        table(title, &head, self.variants.iter().map(row).collect())
    }

    fn compared(&self) -> Table {
        let rows = self.comparisons.iter().map(|comparison| {
            let difference = &comparison.difference;
            vec![
                json!(comparison.variant),
                json!(comparison.seeds.len()),
                json!(difference.mean),
                low(difference.t),
                high(difference.t),
                json!(comparison.p),
                json!(comparison.smallest_p),
                json!(if comparison.exploratory { "exploratory" } else { "" }),
            ]
        });
        let base = self.baseline.as_deref().unwrap_or_default();
        let title = format!("hypervolume less that of `{base}` at the same seed");
        table(title, &["variant", "seeds", "mean", "low", "high", "p", "least p", ""], rows.collect())
    }

    fn shapes(&self) -> Table {
        let head = ["variant", "front", "joint", "extent", "spacing", "IGD", "IGD⁺", "ε"];
        let follows: Vec<String> = self
            .variants
            .first()
            .into_iter()
            .flat_map(|variant| &variant.coverage)
            .flat_map(|follows| [format!("τ {}", follows.objective), format!("falls {}", follows.objective)])
            .collect();
        let head: Vec<&str> = head.into_iter().chain(follows.iter().map(String::as_str)).collect();
        let row = |variant: &Variant| {
            let count = |on: fn(&MeanPoint) -> bool| variant.means.iter().filter(|mean| on(mean)).count();
            let shape = [
                json!(variant.label),
                json!(format!("{}/{}", count(|mean| mean.on_front), variant.means.len())),
                json!(count(|mean| mean.on_joint_front)),
                json!(variant.extent),
                json!(variant.spacing),
                json!(variant.igd),
                json!(variant.igd_plus),
                json!(variant.additive_epsilon),
            ];
            let coverage = variant.coverage.iter().flat_map(|follows| {
                [json!(follows.tau), json!(format!("{}/{}", follows.violations, follows.pairs))]
            });
            shape.into_iter().chain(coverage).collect()
        };
        table("fronts of the mean points".into(), &head, self.variants.iter().map(row).collect())
    }

    fn points(&self) -> Table {
        let scores = self.objectives.iter().flat_map(|name| [name.clone(), format!("± {name}")]);
        let head: Vec<String> =
            ["variant", "weights", "seeds"].map(str::to_owned).into_iter().chain(scores).collect();
        let mut head: Vec<&str> = head.iter().map(String::as_str).collect();
        head.push("front");
        let row = |variant: &Variant, mean: &MeanPoint| {
            let mut row = vec![json!(variant.label), json!(mean.weights.short()), json!(mean.seeds.len())];
            row.extend(mean.scores.iter().flat_map(|score| [json!(score.mean), reach(score)]));
            row.push(json!(match (mean.on_front, mean.on_joint_front) {
                (_, true) => "joint",
                (true, false) => "own",
                (false, false) => "dominated",
            }));
            row
        };
        let rows =
            self.variants.iter().flat_map(|variant| variant.means.iter().map(move |mean| row(variant, mean)));
        let title = format!("mean scores, ± half a {} % interval", self.level * 100.0);
        table(title, &head, rows.collect())
    }

    fn beyond(&self) -> Table {
        let points = self.control.iter().flat_map(|control| &control.points);
        let rows = points.map(|point| {
            vec![
                json!(point.variant),
                json!(point.weights.short()),
                json!(point.seeds.len()),
                json!(point.epsilon.mean),
                low(point.epsilon.t),
                high(point.epsilon.t),
                json!(point.epsilon_of_means),
                json!(point.verdict),
            ]
        });
        let label = self.control.as_ref().map_or("", |control| control.variant.as_str());
        let slack = self.control.as_ref().and_then(|control| control.slack);
        let slack = slack.map_or("unknown".into(), |slack| format!("{slack:.4}"));
        let title =
            format!("ε against the curve of `{label}`: above 0 inside, below 0 beyond it; slack {slack}");
        table(
            title,
            &["variant", "weights", "seeds", "ε", "low", "high", "of means", "verdict"],
            rows.collect(),
        )
    }

    fn matched(&self) -> Table {
        let label = self.control.as_ref().map_or("", |control| control.variant.as_str());
        let scores = self
            .objectives
            .iter()
            .flat_map(|name| [format!("{name} at w*"), format!("{name} less"), format!("± {name}")]);
        let head: Vec<String> = ["variant", "weights", "w*", "at an end", "apart"]
            .map(str::to_owned)
            .into_iter()
            .chain(scores)
            .collect();
        let rows = self.control.iter().flat_map(|control| &control.points).filter_map(|point| {
            let matched = point.matched.as_ref()?;
            let mut row = vec![
                json!(point.variant),
                json!(point.weights.short()),
                json!(matched.weights.short()),
                json!(format!("{}/{}", matched.at_an_end, point.seeds.len())),
                json!(matched.distance),
            ];
            for ((_, score), difference) in matched.scores.0.iter().zip(&matched.difference) {
                row.extend([json!(score), json!(difference.mean), reach(difference)]);
            }
            Some(row)
        });
        let title = format!("each point less `{label}` at the weights w* whose held-out losses are nearest");
        table(title, &head.iter().map(String::as_str).collect::<Vec<_>>(), rows.collect())
    }

    /// Writes the picture as SVG: of two objectives one panel, of more every projection on two.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save_picture(&self, path: &Path) -> Result<()> {
        let mut plots = self.panels();
        let title = format!("mean scores over seeds, whiskers {} %", self.level * 100.0);
        if let [only] = &mut plots[..] {
            only.title = title;
            return save_stack(&plots, &[400], path);
        }
        Grid { title, plots, columns: 3 }.save(path)
    }

    /// A panel for each two objectives.
    pub(super) fn panels(&self) -> Vec<Plot> {
        let m = self.objectives.len();
        (0..m).flat_map(|i| (i + 1..m).map(move |j| self.panel(i, j))).collect()
    }

    /// Objective i across, j upwards.
    fn panel(&self, i: usize, j: usize) -> Plot {
        let two = self.objectives.len() == 2;
        let mut series = Vec::new();
        let control = self.control.as_ref().map(|control| control.variant.as_str());
        for (k, variant) in self.variants.iter().enumerate() {
            let earlier = self.variants[..k].iter().filter(|other| other.method == variant.method).count();
            let look = Series {
                color: method_color(&variant.method),
                marker: method_marker(&variant.method).next(earlier),
                ..Series::default()
            };
            let dashed = two && control == Some(&variant.label);
            series.extend(pictured(variant, (i, j), &self.objectives, two && !dashed, &look));
            if dashed {
                let mut curve: Vec<&MeanPoint> = variant.means.iter().collect();
                curve.sort_by(|a, b| first_weight(a).total_cmp(&first_weight(b)));
                let points = curve.iter().map(|mean| (mean.scores[i].mean, mean.scores[j].mean)).collect();
                let label = format!("curve of {}", variant.label);
                series.push(Series {
                    label,
                    points,
                    style: Style::Dashed,
                    marker: Marker::default(),
                    ..look
                });
            }
        }
        Plot {
            x_label: self.objectives[i].clone(),
            y_label: self.objectives[j].clone(),
            series,
            ..Plot::default()
        }
    }
}

fn first_weight(mean: &MeanPoint) -> f64 {
    mean.weights.0.first().map_or(0.0, |(_, w)| *w)
}

/// Points of each seed, whiskers, the line of the front, members of the front full and the others open.
fn pictured(
    variant: &Variant,
    (i, j): (usize, usize),
    objectives: &[String],
    line: bool,
    look: &Series,
) -> Vec<Series> {
    let at = |mean: &MeanPoint| (mean.scores[i].mean, mean.scores[j].mean);
    let of_seed = variant
        .points
        .iter()
        .filter_map(|point| Some((point.scores.get(&objectives[i])?, point.scores.get(&objectives[j])?)));
    let whisker = |mean: &MeanPoint| {
        let (x, y) = at(mean);
        // of two seeds Student's interval is 12.7 standard errors wide: it would hide all else
        let shown = mean.seeds.len() > 2;
        let across = mean.scores[i].t.filter(|_| shown).map(|t| [(t.low, y), (t.high, y), GAP]);
        let upwards = mean.scores[j].t.filter(|_| shown).map(|t| [(x, t.low), (x, t.high), GAP]);
        across.into_iter().chain(upwards).flatten().collect::<Vec<_>>()
    };
    let mut front: Vec<(f64, f64)> = variant.means.iter().filter(|mean| mean.on_front).map(at).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    let open: Vec<(f64, f64)> = variant.means.iter().filter(|mean| !mean.on_front).map(at).collect();
    let of = |points: Vec<(f64, f64)>, style| Series { points, style, ..look.clone() };
    let mut series = vec![
        of(of_seed.collect(), Style::Dust),
        of(variant.means.iter().flat_map(whisker).collect(), Style::Whiskers),
    ];
    if line {
        series.push(of(front.clone(), Style::Line));
    }
    series.push(of(open, Style::Open));
    series.push(Series { label: variant.label.clone(), ..of(front, Style::Points) });
    series.retain(|series| !series.points.is_empty());
    series
}
