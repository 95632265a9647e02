//! Fronts of a sweep: what each variant of a method reaches over the weights, and what of it the seeds leave in doubt.
//!
//! A point is one run: scores on held-out prompts, all maximised, at preference weights and a seed. Runs that differ in
//! anything else, such as the radius c, are variants of their method. All variants are measured over the same weights
//! (those that every one of them has) and compared over the same seeds.
//!
//! **The control.** A method that behaves as the weighted loss with other weights has found no better front, only another
//! place on the same one. So each point is held against the *curve* of the weighted loss: its points of the same seed, over
//! all weights that it was run at, joined piecewise linearly in w (two objectives; of more, the points themselves).

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::math::{
    self, Coverage, Interval, additive_epsilon, bootstrap_t, hypervolume, igd, igd_plus, pareto_front,
    sign_flip, spread, t_interval, weight_coverage,
};

use super::points::{Failed, Outcomes};

/// With fewer seeds than this a paired comparison is called exploratory: it cannot give p below 0.01.
const EXPLORATORY: usize = 8;
/// The method whose curve is the control.
const CONTROL: &str = "linear";

/// Numbers by name, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Named(pub Vec<(String, f64)>);

impl Named {
    /// The number of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn of(names: &[String], values: &[f64]) -> Self {
        Self(names.iter().cloned().zip(values.iter().copied()).collect())
    }

    /// Short text, such as `0.8/0.2`.
    pub fn short(&self) -> String {
        let digits = |x: &f64| format!("{}", (x * 1e4).round() / 1e4);
        self.0.iter().map(|(_, value)| digits(value)).collect::<Vec<_>>().join("/")
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Method and what else varies, such as `cagrad_clip c=0.4`.
    pub variant: String,
    /// The method alone.
    pub method: String,
    /// Preference weights.
    pub weights: Named,
    /// The seed.
    pub seed: i64,
    /// Held-out scores; more is better.
    pub scores: Named,
    /// Held-out losses, where they were measured.
    pub losses: Option<Named>,
    /// Folder of the run.
    pub dir: Option<String>,
}

/// What an analysis may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontOptions {
    /// Scores to look at; those that have a weight for `None`.
    pub objectives: Option<Vec<String>>,
    /// Reference point of the hypervolume; 0 for each objective that it does not name.
    pub reference: Named,
    /// Of [`pareto_front`], in units of the scores.
    pub tolerance: f64,
    /// Variant that the others are compared with; none for an empty name.
    pub baseline: String,
    /// Hold the points against the curve of the weighted loss.
    pub control: bool,
    /// What the intervals cover.
    pub level: f64,
    /// Resamples and seed of the bootstrap.
    pub bootstrap: (usize, u64),
}

impl Default for FrontOptions {
    fn default() -> Self {
        Self {
            objectives: None,
            reference: Named::default(),
            tolerance: 0.0,
            baseline: CONTROL.into(),
            control: true,
            level: 0.95,
            bootstrap: (2000, 0),
        }
    }
}

/// Ends of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ends {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl From<Interval> for Ends {
    fn from(interval: Interval) -> Self {
        Self { low: interval.low, high: interval.high }
    }
}

/// A mean over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Student's interval; none of one seed.
    pub t: Option<Ends>,
    /// The value of each seed.
    pub values: Vec<f64>,
}

impl Estimate {
    fn new(values: Vec<f64>, level: f64) -> Result<Self> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let t = if values.len() > 1 { Some(t_interval(&values, level)?.into()) } else { None };
        Ok(Self { mean, t, values })
    }
}

/// The analysis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fronts {
    /// Names of the scores, in the order of every list of coordinates.
    pub objectives: Vec<String>,
    /// Reference point of the hypervolume.
    pub reference: Named,
    /// Tolerance of dominance.
    pub tolerance: f64,
    /// What the intervals cover.
    pub level: f64,
    /// Weights that every variant has: hypervolumes, distances and comparisons are over these.
    pub grid: Vec<Named>,
    /// Variants, in the order of their first point.
    pub variants: Vec<Variant>,
    /// Mean points on the grid that no mean point of any variant dominates.
    pub joint_front: Vec<Place>,
    /// The variant that the others are compared with.
    pub baseline: Option<String>,
    /// Paired comparisons with it.
    pub comparisons: Vec<Comparison>,
    /// The points against the curve of the weighted loss.
    pub control: Option<Control>,
    /// Runs that failed.
    pub failed: Vec<Failed>,
    /// Runs without a result.
    pub unfinished: Vec<String>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// A mean point by its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// Label of the variant.
    pub variant: String,
    /// Its weights.
    pub weights: Named,
    /// Its mean scores.
    pub scores: Named,
}

/// A method with everything but weights and seed held.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Variant {
    /// Label.
    pub label: String,
    /// Method.
    pub method: String,
    /// Each run.
    pub points: Vec<Point>,
    /// A mean point for each of its weights, in order of the first weight.
    pub means: Vec<MeanPoint>,
    /// Hypervolume of the points of each seed over the grid.
    pub hypervolume: Option<Hypervolume>,
    /// Hypervolume of the mean points over the grid.
    pub hypervolume_of_means: f64,
    /// Diagonal of the box around the front of its mean points on the grid.
    pub extent: f64,
    /// Schott's spacing of that front.
    pub spacing: Option<f64>,
    /// IGD of its mean points to the joint front.
    pub igd: f64,
    /// IGD⁺ to the joint front.
    pub igd_plus: f64,
    /// Additive ε to the joint front.
    pub additive_epsilon: f64,
    /// Whether each mean score follows its weight, over all weights of the variant.
    pub coverage: Vec<Follows>,
}

/// The runs of a variant at some weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeanPoint {
    /// The weights.
    pub weights: Named,
    /// Seeds, in order.
    pub seeds: Vec<i64>,
    /// Mean score of each objective over the seeds.
    pub scores: Vec<Estimate>,
    /// Part of the grid.
    pub on_grid: bool,
    /// On the front of its variant's mean points.
    pub on_front: bool,
    /// On the joint front.
    pub on_joint_front: bool,
}

impl MeanPoint {
    /// The means, in the order of the objectives.
    pub fn place(&self) -> Vec<f64> {
        self.scores.iter().map(|score| score.mean).collect()
    }
}

/// Hypervolume over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hypervolume {
    /// Seeds that have every weight of the grid.
    pub seeds: Vec<i64>,
    /// Mean, interval and the value of each seed.
    pub over_seeds: Estimate,
    /// Bootstrap-t interval; none of less than 3 seeds.
    pub bootstrap_t: Option<Ends>,
}

/// Whether a score follows its weight.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Follows {
    /// The objective.
    pub objective: String,
    /// Kendall's τ_b of weight and mean score.
    pub tau: Option<f64>,
    /// Pairs of mean points with more weight and a lower score.
    pub violations: usize,
    /// Pairs of mean points.
    pub pairs: usize,
}

/// A variant against the baseline over the same seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Label of the variant.
    pub variant: String,
    /// Seeds that both have.
    pub seeds: Vec<i64>,
    /// Hypervolume of the variant less that of the baseline.
    pub difference: Estimate,
    /// Two-sided p of the exact sign-flip test.
    pub p: f64,
    /// The least p that this number of seeds can give.
    pub smallest_p: f64,
    /// Too few seeds for more than a hint.
    pub exploratory: bool,
}

/// Points of the other variants against the curve of the weighted loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// Label of the weighted loss.
    pub variant: String,
    /// Its weights.
    pub weights: Vec<Named>,
    /// The curve is interpolated between them; else the points alone are opponents.
    pub interpolated: bool,
    /// How far beyond the curve a point may seem although it is on the front, since the curve is known at these weights
    /// alone. None of a curve too short to tell.
    pub slack: Option<f64>,
    /// Each mean point of each other variant.
    pub points: Vec<Controlled>,
}

/// One point of a variant against the curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Controlled {
    /// Label of the variant.
    pub variant: String,
    /// Its weights.
    pub weights: Named,
    /// Seeds that both have.
    pub seeds: Vec<i64>,
    /// ε = max over the curve of minᵢ (curveᵢ − pointᵢ), of each seed against the curve of that seed. Above 0 the weighted
    /// loss at some weights is better by ε in every objective; below 0 it nowhere reaches the point, by |ε|.
    pub epsilon: Estimate,
    /// ε of the mean point against the curve of mean points.
    pub epsilon_of_means: f64,
    /// `inside` where the interval of ε lies above 0, `beyond` where it lies below minus the slack, else `undecided`.
    pub verdict: &'static str,
    /// The weighted loss at the weights whose held-out losses are nearest; none where losses were not measured.
    pub matched: Option<Matched>,
}

/// The weighted loss at matched weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Matched {
    /// Mean over seeds of the weights w* with the least Σᵢ (lossᵢ(w*) − lossᵢ)².
    pub weights: Named,
    /// Seeds whose w* lies at an end of the curve: the curve may not reach far enough there.
    pub at_an_end: usize,
    /// Root of that sum, mean over seeds.
    pub distance: f64,
    /// Mean scores of the weighted loss at w*.
    pub scores: Named,
    /// Score of the point less that of the weighted loss at w*, by objective.
    pub difference: Vec<Estimate>,
}

/// Weights as a key: names are the same in all points.
fn key(weights: &Named) -> Vec<i64> {
    weights.0.iter().map(|(_, w)| (w * 1e9).round() as i64).collect()
}

fn select(named: &Named, names: &[String]) -> Option<Vec<f64>> {
    names.iter().map(|name| named.get(name)).collect()
}

type Key = Vec<i64>;

/// The runs of a variant: weights → seed → (index of the point).
struct Runs<'a> {
    label: &'a str,
    points: Vec<&'a Point>,
    at: BTreeMap<Key, BTreeMap<i64, &'a Point>>,
}

/// Analyses the runs of a sweep.
///
/// # Errors
/// No run with a result; scores that are missing or two runs at one place; a baseline that is not there; fewer than two
/// objectives.
pub fn fronts(outcomes: Outcomes, options: &FrontOptions) -> Result<Fronts> {
    let Outcomes { mut points, failed, unfinished } = outcomes;
    let objectives = objectives(&points, options)?;
    points.iter_mut().for_each(|point| point.weights = in_order(&point.weights, &objectives));
    let mut analysis = Analysis { options, objectives: &objectives, notes: vec![] };
    let runs = analysis.runs(&points)?;
    let grid = analysis.grid(&runs);
    let reference = analysis.reference()?;
    let mut variants =
        runs.iter().map(|runs| analysis.variant(runs, &grid, &reference)).collect::<Result<Vec<_>>>()?;
    let joint_front = analysis.join(&mut variants)?;
    let baseline = analysis.baseline(&variants)?;
    let comparisons = match &baseline {
        Some(label) => analysis.compare(&variants, label)?,
        None => vec![],
    };
    let control = if options.control { analysis.control(&runs, &variants)? } else { None };
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|failed| failed.name.as_str()).collect();
        analysis.notes.push(format!("{} runs failed: {}", names.len(), names.join(", ")));
    }
    if !unfinished.is_empty() {
        analysis.notes.push(format!(
            "{} runs have no result yet: {}",
            unfinished.len(),
            unfinished.join(", ")
        ));
    }
    let notes = analysis.notes;
    let grid = variants.first().map_or(vec![], |variant| {
        variant.means.iter().filter(|mean| mean.on_grid).map(|mean| mean.weights.clone()).collect()
    });
    Ok(Fronts {
        reference: Named::of(&objectives, &reference),
        tolerance: options.tolerance,
        level: options.level,
        objectives,
        grid,
        variants,
        joint_front,
        baseline,
        comparisons,
        control,
        failed,
        unfinished,
        notes,
    })
}

/// The scores to look at: as given, or those with a weight, in the order of the weights.
fn objectives(points: &[Point], options: &FrontOptions) -> Result<Vec<String>> {
    let Some(first) = points.first() else {
        return Err(
            Error::new("no run of the sweep has a result").help("finish one run of the sweep at least")
        );
    };
    let by_weight = || first.weights.0.iter().map(|(name, _)| name.clone());
    let objectives = match &options.objectives {
        Some(given) => given.clone(),
        None => by_weight().filter(|name| first.scores.get(name).is_some()).collect(),
    };
    if objectives.len() < 2 {
        return Err(Error::new(format!("a front of {} objectives, expected two or more", objectives.len()))
            .help("give `objectives`, names of two scores or more"));
    }
    for point in points {
        let place = || point.dir.clone().unwrap_or_else(|| describe(point));
        if let Some(name) = objectives.iter().find(|name| point.scores.get(name).is_none()) {
            let known: Vec<&str> = point.scores.0.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::new(format!("{} has no score `{name}`", place()))
                .help(format!("it has: {}", known.join(", "))));
        }
        if point.weights.0.len() != first.weights.0.len()
            || by_weight().any(|name| point.weights.get(&name).is_none())
        {
            return Err(Error::new(format!(
                "{} has weights of other objectives than {}",
                place(),
                describe(first)
            ))
            .help("compare runs with weights of the same objectives"));
        }
    }
    Ok(objectives)
}

/// The weights of the objectives first, in their order.
fn in_order(weights: &Named, objectives: &[String]) -> Named {
    let of = |name: &String| weights.get(name).map(|w| (name.clone(), w));
    let rest = weights.0.iter().filter(|(name, _)| !objectives.contains(name)).cloned();
    Named(objectives.iter().filter_map(of).chain(rest).collect())
}

fn describe(point: &Point) -> String {
    format!("`{}` at weights {}, seed {}", point.variant, point.weights.short(), point.seed)
}

struct Analysis<'a> {
    options: &'a FrontOptions,
    objectives: &'a [String],
    notes: Vec<String>,
}

impl Analysis<'_> {
    fn place(&self, point: &Point) -> Vec<f64> {
        select(&point.scores, self.objectives).unwrap_or_default()
    }

    fn runs<'p>(&self, points: &'p [Point]) -> Result<Vec<Runs<'p>>> {
        let mut all: Vec<Runs<'p>> = Vec::new();
        for point in points {
            let found = all.iter().position(|runs| runs.label == point.variant);
            let at = found.unwrap_or_else(|| {
                all.push(Runs { label: &point.variant, points: vec![], at: BTreeMap::new() });
                all.len() - 1
            });
            all[at].points.push(point);
            if all[at].at.entry(key(&point.weights)).or_default().insert(point.seed, point).is_some() {
                return Err(Error::new(format!("two runs of {}", describe(point)))
                    .help("give runs that differ in more than method, weights and seed another `config`"));
            }
        }
        Ok(all)
    }

    /// Weights that every variant has; all of them, where none are shared.
    fn grid(&mut self, runs: &[Runs<'_>]) -> Option<Vec<Key>> {
        let (first, rest) = runs.split_first()?;
        let shared: Vec<Key> = first
            .at
            .keys()
            .filter(|key| rest.iter().all(|runs| runs.at.contains_key(*key)))
            .cloned()
            .collect();
        if shared.is_empty() {
            self.notes.push(
                "the variants have no weights in common: each hypervolume is over weights of its own, \
                 and they cannot be compared"
                    .into(),
            );
            return None;
        }
        let most = runs.iter().map(|runs| runs.at.len()).max().unwrap_or(0);
        if shared.len() < most {
            self.notes.push(format!(
                "hypervolumes, distances and comparisons are over the {} weights that all variants have",
                shared.len()
            ));
        }
        Some(shared)
    }

    fn reference(&self) -> Result<Vec<f64>> {
        if let Some((name, _)) =
            self.options.reference.0.iter().find(|(name, _)| !self.objectives.contains(name))
        {
            return Err(Error::new(format!("the reference names `{name}`, which is no objective here"))
                .help(format!("name: {}", self.objectives.join(", "))));
        }
        Ok(self.objectives.iter().map(|name| self.options.reference.get(name).unwrap_or(0.0)).collect())
    }

    fn variant(&mut self, runs: &Runs<'_>, grid: &Option<Vec<Key>>, reference: &[f64]) -> Result<Variant> {
        let level = self.options.level;
        let mut means = Vec::new();
        for (key, by_seed) in &runs.at {
            let places: Vec<Vec<f64>> = by_seed.values().map(|point| self.place(point)).collect();
            let column = |i: usize| Estimate::new(places.iter().map(|place| place[i]).collect(), level);
            let Some(point) = by_seed.values().next() else { continue };
            means.push(MeanPoint {
                weights: point.weights.clone(),
                seeds: by_seed.keys().copied().collect(),
                scores: (0..self.objectives.len()).map(column).collect::<Result<_>>()?,
                on_grid: grid.as_ref().is_none_or(|grid| grid.contains(key)),
                on_front: false,
                on_joint_front: false,
            });
        }
        let places: Vec<Vec<f64>> = means.iter().map(MeanPoint::place).collect();
        for i in pareto_front(&places, self.options.tolerance)? {
            means[i].on_front = true;
        }
        let gridded: Vec<Vec<f64>> = means.iter().filter(|mean| mean.on_grid).map(MeanPoint::place).collect();
        let front: Vec<Vec<f64>> =
            pareto_front(&gridded, self.options.tolerance)?.into_iter().map(|i| gridded[i].clone()).collect();
        let math::Spread { extent, spacing } = spread(&front)?;
        let coverage = self.objectives.iter().enumerate().filter_map(|(i, objective)| {
            let weights: Option<Vec<f64>> = means.iter().map(|mean| mean.weights.get(objective)).collect();
            let scores: Vec<f64> = places.iter().map(|place| place[i]).collect();
            weights.map(|weights| {
                let found = weight_coverage(&weights, &scores, self.options.tolerance)?;
                let Coverage { tau, violations, pairs } = found;
                Ok(Follows { objective: objective.clone(), tau, violations, pairs })
            })
        });
        let coverage = coverage.collect::<Result<Vec<_>>>()?;
        Ok(Variant {
            label: runs.label.to_owned(),
            method: runs.points.first().map(|point| point.method.clone()).unwrap_or_default(),
            points: runs.points.iter().map(|point| (*point).clone()).collect(),
            hypervolume: self.over_seeds(runs, grid, reference)?,
            hypervolume_of_means: hypervolume(&gridded, reference)?,
            means,
            extent,
            spacing,
            igd: 0.0,
            igd_plus: 0.0,
            additive_epsilon: 0.0,
            coverage,
        })
    }

    /// Hypervolume of each seed that has all weights of the grid.
    fn over_seeds(
        &mut self,
        runs: &Runs<'_>,
        grid: &Option<Vec<Key>>,
        reference: &[f64],
    ) -> Result<Option<Hypervolume>> {
        let wanted: Vec<&BTreeMap<i64, &Point>> = match grid {
            Some(grid) => grid.iter().filter_map(|key| runs.at.get(key)).collect(),
            None => runs.at.values().collect(),
        };
        let mut seeds: Vec<i64> = runs.points.iter().map(|point| point.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let (complete, partial): (Vec<i64>, Vec<i64>) =
            seeds.into_iter().partition(|seed| wanted.iter().all(|by_seed| by_seed.contains_key(seed)));
        if !partial.is_empty() {
            let names: Vec<String> = partial.iter().map(i64::to_string).collect();
            self.notes.push(format!(
                "`{}` lacks weights of the grid at seed {}: no hypervolume there",
                runs.label,
                names.join(", ")
            ));
        }
        if complete.is_empty() {
            return Ok(None);
        }
        let of_seed = |seed: &i64| {
            let points: Vec<Vec<f64>> = wanted
                .iter()
                .filter_map(|by_seed| by_seed.get(seed))
                .map(|point| self.place(point))
                .collect();
            hypervolume(&points, reference)
        };
        let values = complete.iter().map(of_seed).collect::<Result<Vec<f64>>>()?;
        let (samples, seed) = self.options.bootstrap;
        let bootstrap_t = match values.len() {
            0..3 => None,
            _ => Some(bootstrap_t(&values, self.options.level, samples, seed)?.into()),
        };
        Ok(Some(Hypervolume {
            seeds: complete,
            over_seeds: Estimate::new(values, self.options.level)?,
            bootstrap_t,
        }))
    }

    /// The front of all mean points on the grid, and how far each variant stays behind it.
    fn join(&self, variants: &mut [Variant]) -> Result<Vec<Place>> {
        let all: Vec<(usize, usize)> = variants
            .iter()
            .enumerate()
            .flat_map(|(v, variant)| (0..variant.means.len()).map(move |i| (v, i)))
            .filter(|&(v, i)| variants[v].means[i].on_grid)
            .collect();
        let places: Vec<Vec<f64>> = all.iter().map(|&(v, i)| variants[v].means[i].place()).collect();
        let best = pareto_front(&places, self.options.tolerance)?;
        let front: Vec<Vec<f64>> = best.iter().map(|&k| places[k].clone()).collect();
        let mut joint = Vec::new();
        for &k in &best {
            let (v, i) = all[k];
            variants[v].means[i].on_joint_front = true;
            joint.push(Place {
                variant: variants[v].label.clone(),
                weights: variants[v].means[i].weights.clone(),
                scores: Named::of(self.objectives, &places[k]),
            });
        }
        for variant in variants.iter_mut() {
            let own: Vec<Vec<f64>> =
                variant.means.iter().filter(|mean| mean.on_grid).map(MeanPoint::place).collect();
            variant.igd = igd(&own, &front)?;
            variant.igd_plus = igd_plus(&own, &front)?;
            variant.additive_epsilon = additive_epsilon(&own, &front)?;
        }
        Ok(joint)
    }

    /// The label of the named variant, or of the one variant of the named method.
    fn baseline(&mut self, variants: &[Variant]) -> Result<Option<String>> {
        let wanted = &self.options.baseline;
        if wanted.is_empty() {
            return Ok(None);
        }
        match named(variants.iter().map(|variant| (variant.label.as_str(), variant.method.as_str())), wanted)
        {
            Some(label) => Ok(Some(label.to_owned())),
            None if *wanted == FrontOptions::default().baseline => {
                self.notes.push(format!(
                    "no variant is `{wanted}` alone: there is no paired comparison; name a `baseline`"
                ));
                Ok(None)
            }
            None => {
                let labels: Vec<&str> = variants.iter().map(|variant| variant.label.as_str()).collect();
                Err(Error::new(format!("no variant is `{wanted}`"))
                    .help(format!("name as baseline one of: {}", labels.join(", "))))
            }
        }
    }

    fn compare(&mut self, variants: &[Variant], baseline: &str) -> Result<Vec<Comparison>> {
        let by_seed = |variant: &Variant| -> BTreeMap<i64, f64> {
            let volumes = variant.hypervolume.iter();
            volumes.flat_map(|h| h.seeds.iter().copied().zip(h.over_seeds.values.iter().copied())).collect()
        };
        let Some(base) = variants.iter().find(|variant| variant.label == baseline).map(by_seed) else {
            return Ok(vec![]);
        };
        let mut comparisons = Vec::new();
        for variant in variants.iter().filter(|variant| variant.label != baseline) {
            let pairs: Vec<(i64, f64, f64)> = by_seed(variant)
                .into_iter()
                .filter_map(|(seed, value)| base.get(&seed).map(|base| (seed, value, *base)))
                .collect();
            if pairs.is_empty() {
                self.notes.push(format!("`{}` and `{baseline}` have no seed in common", variant.label));
                continue;
            }
            let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.iter().map(|pair| (pair.1, pair.2)).unzip();
            let test = sign_flip(&ours, &theirs)?;
            let differences = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
            comparisons.push(Comparison {
                variant: variant.label.clone(),
                seeds: pairs.iter().map(|pair| pair.0).collect(),
                difference: Estimate::new(differences, self.options.level)?,
                p: test.p,
                smallest_p: test.smallest,
                exploratory: test.n < EXPLORATORY,
            });
        }
        Ok(comparisons)
    }

    fn control(&mut self, runs: &[Runs<'_>], variants: &[Variant]) -> Result<Option<Control>> {
        let labels = variants.iter().map(|variant| (variant.label.as_str(), variant.method.as_str()));
        let label = named(labels, CONTROL);
        let Some(control) = runs.iter().find(|runs| Some(runs.label) == label) else {
            self.notes
                .push(format!("no variant is `{CONTROL}` alone: the points are held against no control"));
            return Ok(None);
        };
        if control.at.len() < 2 || runs.len() < 2 {
            return Ok(None);
        }
        let interpolated = self.objectives.len() == 2;
        let mean_curve = self.curve(control.at.values().map(|by_seed| by_seed.values().copied()));
        let slack = slack(&mean_curve, interpolated);
        let mut points = Vec::new();
        for runs in runs.iter().filter(|runs| runs.label != control.label) {
            for by_seed in runs.at.values() {
                if let Some(mut point) = self.controlled(control, by_seed, &mean_curve)? {
                    point.verdict = verdict(&point.epsilon, slack);
                    points.push(point);
                }
            }
        }
        let weights = control.at.values().filter_map(|by_seed| by_seed.values().next());
        Ok(Some(Control {
            variant: control.label.to_owned(),
            weights: weights.map(|point| point.weights.clone()).collect(),
            interpolated,
            slack,
            points,
        }))
    }

    /// The knots of a curve: the mean of the runs at each weight, in the order of the first weight.
    fn curve<'p>(&self, knots: impl Iterator<Item = impl Iterator<Item = &'p Point>>) -> Vec<Knot> {
        let knot = |runs: Vec<&Point>| -> Option<Knot> {
            let weights = runs.first()?.weights.0.iter().map(|(_, w)| *w).collect();
            let losses: Option<Vec<Vec<f64>>> = runs.iter().map(|point| self.losses(point)).collect();
            let places: Vec<Vec<f64>> = runs.iter().map(|point| self.place(point)).collect();
            Some(Knot { weights, scores: mean(&places), losses: losses.map(|losses| mean(&losses)) })
        };
        knots.filter_map(|runs| knot(runs.collect())).collect()
    }

    /// Losses of the objectives that are trained, which are those with a weight.
    fn losses(&self, point: &Point) -> Option<Vec<f64>> {
        let names: Vec<String> = point.weights.0.iter().map(|(name, _)| name.clone()).collect();
        select(point.losses.as_ref()?, &names)
    }

    fn controlled(
        &self,
        control: &Runs<'_>,
        by_seed: &BTreeMap<i64, &Point>,
        mean_curve: &[Knot],
    ) -> Result<Option<Controlled>> {
        let level = self.options.level;
        let joined = self.objectives.len() == 2;
        let (mut seeds, mut epsilons, mut places, mut matches) = (vec![], vec![], vec![], vec![]);
        for (&seed, point) in by_seed {
            let curve = self
                .curve(control.at.values().filter_map(|runs| runs.get(&seed)).map(|p| std::iter::once(*p)));
            if curve.len() < 2 {
                continue;
            }
            let place = self.place(point);
            epsilons.push(epsilon(&curve, &place, joined));
            matches.push(self.losses(point).and_then(|losses| nearest(&curve, &losses, joined)));
            seeds.push(seed);
            places.push(place);
        }
        let Some(point) = by_seed.values().next().filter(|_| !seeds.is_empty()) else { return Ok(None) };
        let matches: Option<Vec<Match>> = matches.into_iter().collect();
        let names: Vec<String> = point.weights.0.iter().map(|(name, _)| name.clone()).collect();
        let matched = matches.map(|matches| -> Result<Matched> {
            let of = |part: fn(&Match) -> &Vec<f64>| -> Vec<f64> {
                mean(&matches.iter().map(|found| part(found).clone()).collect::<Vec<_>>())
            };
            let difference = |i: usize| {
                let values =
                    places.iter().zip(&matches).map(|(place, found)| place[i] - found.knot.scores[i]);
                Estimate::new(values.collect(), level)
            };
            Ok(Matched {
                weights: Named::of(&names, &of(|found| &found.knot.weights)),
                at_an_end: matches.iter().filter(|found| found.at_an_end).count(),
                distance: matches.iter().map(|found| found.distance).sum::<f64>() / matches.len() as f64,
                scores: Named::of(self.objectives, &of(|found| &found.knot.scores)),
                difference: (0..self.objectives.len()).map(difference).collect::<Result<_>>()?,
            })
        });
        Ok(Some(Controlled {
            variant: point.variant.clone(),
            weights: point.weights.clone(),
            epsilon: Estimate::new(epsilons, level)?,
            epsilon_of_means: epsilon(mean_curve, &mean(&places), joined),
            verdict: "undecided",
            matched: matched.transpose()?,
            seeds,
        }))
    }
}

/// The label that is `wanted`, or else that of the one variant whose method is.
fn named<'a>(labels: impl Iterator<Item = (&'a str, &'a str)> + Clone, wanted: &str) -> Option<&'a str> {
    let exact = labels.clone().find(|(label, _)| *label == wanted);
    let mut of_method = labels.filter(|(_, method)| *method == wanted);
    let only = of_method.next().filter(|_| of_method.next().is_none());
    exact.or(only).map(|(label, _)| label)
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let width = rows.first().map_or(0, Vec::len);
    (0..width).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}

/// What the weighted loss reaches at some weights.
#[derive(Debug, Clone)]
struct Knot {
    weights: Vec<f64>,
    scores: Vec<f64>,
    losses: Option<Vec<f64>>,
}

impl Knot {
    /// The part `t` in \[0, 1\] of the way to `other`.
    fn towards(&self, other: &Self, t: f64) -> Self {
        let between =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + t * (b - a)).collect::<Vec<f64>>();
        let losses = self.losses.as_ref().zip(other.losses.as_ref()).map(|(a, b)| between(a, b));
        Self {
            weights: between(&self.weights, &other.weights),
            scores: between(&self.scores, &other.scores),
            losses,
        }
    }
}

/// Neighbouring knots, or each knot with itself where they are not joined.
fn segments(curve: &[Knot], joined: bool) -> Vec<(&Knot, &Knot)> {
    if joined { curve.iter().zip(curve.iter().skip(1)).collect() } else { curve.iter().zip(curve).collect() }
}

/// max over the curve of minᵢ (curveᵢ − pointᵢ). On a segment each difference is linear in t, their least is concave: its
/// greatest value lies at an end or where two of them cross.
fn epsilon(curve: &[Knot], point: &[f64], joined: bool) -> f64 {
    let mut most = f64::NEG_INFINITY;
    for (a, b) in segments(curve, joined) {
        let start: Vec<f64> = a.scores.iter().zip(point).map(|(a, p)| a - p).collect();
        let slope: Vec<f64> = a.scores.iter().zip(&b.scores).map(|(a, b)| b - a).collect();
        let crossings = (0..point.len())
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| (start[j] - start[i]) / (slope[i] - slope[j]));
        for t in [0.0, 1.0].into_iter().chain(crossings.filter(|t| (0.0..=1.0).contains(t))) {
            let least = start.iter().zip(&slope).map(|(s, k)| s + t * k).fold(f64::INFINITY, f64::min);
            most = most.max(least);
        }
    }
    most
}

/// What the curve's gaps hide. A knot that is left out lies beyond the curve of the others by what a straight line over
/// its place misses. Over a bend that is four times what the line misses with the knot there, for twice the gap; half of the
/// largest such distance is safe. Knots that are not joined hide all of it. The ends of a curve have no line over them.
fn slack(curve: &[Knot], joined: bool) -> Option<f64> {
    let (inner, share) = if joined { (1..curve.len().saturating_sub(1), 0.5) } else { (0..curve.len(), 1.0) };
    let missed = |k: usize| {
        let others: Vec<Knot> = [&curve[..k], &curve[k + 1..]].concat();
        (-epsilon(&others, &curve[k].scores, joined)).max(0.0)
    };
    inner.map(missed).max_by(f64::total_cmp).map(|most| share * most)
}

fn verdict(epsilon: &Estimate, slack: Option<f64>) -> &'static str {
    match (epsilon.t, slack) {
        (Some(t), _) if t.low > 0.0 => "inside",
        (Some(t), Some(slack)) if t.high < -slack => "beyond",
        _ => "undecided",
    }
}

struct Match {
    knot: Knot,
    distance: f64,
    at_an_end: bool,
}

/// The place of the curve whose losses are nearest, ‖·‖₂.
fn nearest(curve: &[Knot], losses: &[f64], joined: bool) -> Option<Match> {
    let mut best: Option<Match> = None;
    let all = segments(curve, joined);
    for (k, (a, b)) in all.iter().enumerate() {
        let (from, to) = (a.losses.as_ref()?, b.losses.as_ref()?);
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let less = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<f64>>();
        let (way, missing) = (less(to, from), less(losses, from));
        let length = dot(&way, &way);
        let t = if length > 0.0 { (dot(&way, &missing) / length).clamp(0.0, 1.0) } else { 0.0 };
        let knot = a.towards(b, t);
        let distance = knot.losses.as_ref().map(|at| less(at, losses)).map(|d| dot(&d, &d).sqrt())?;
        if best.as_ref().is_none_or(|best| distance < best.distance) {
            let at_an_end = joined && ((k == 0 && t == 0.0) || (k + 1 == all.len() && t == 1.0));
            best = Some(Match { knot, distance, at_an_end });
        }
    }
    best
}
