//! The simplex: projection, clipping, and preference weights as a user gives them.

use super::gramian::{check_finite, check_vector};
use crate::error::{Error, Result, nearest};

/// The point of the simplex nearest to `v` (Euclidean): `max(v - t, 0)` with t such that the sum is 1.
///
/// `v` [m], m ≥ 1, any scale. Refused: no values, values that are not finite.
pub fn simplex_project(v: &[f64]) -> Result<Vec<f64>> {
    if v.is_empty() {
        return Err(Error::new("`v` must have at least one value, found none"));
    }
    check_finite("v", v)?;
    Ok(project(v))
}

pub(super) fn project(v: &[f64]) -> Vec<f64> {
    // Adding a constant changes nothing; with the largest at 0 the sums below neither overflow nor cancel.
    let largest = v.iter().fold(f64::NEG_INFINITY, |a, x| a.max(*x));
    let v: Vec<f64> = v.iter().map(|x| x - largest).collect();
    let mut sorted = v.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut threshold = -1.0;
    let mut sum = 0.0;
    for (k, x) in sorted.iter().enumerate() {
        let candidate = (sum + x - 1.0) / (k + 1) as f64;
        if *x <= candidate {
            break;
        }
        sum += x;
        threshold = candidate;
    }
    v.iter().map(|x| (x - threshold).max(0.0)).collect()
}

/// `min(p, w)` elementwise, not renormalised: the dual weights never outweigh the user.
///
/// `p`, `w` [m]. Refused: lengths that differ, values that are not finite.
pub fn clip(p: &[f64], w: &[f64]) -> Result<Vec<f64>> {
    if p.len() != w.len() {
        return Err(Error::new(format!("`p` has {} values and `w` has {}", p.len(), w.len())));
    }
    check_vector("p", p, w.len())?;
    check_vector("w", w, w.len())?;
    Ok(p.iter().zip(w).map(|(p, w)| p.min(*w)).collect())
}

/// Preference weights as a user gives them.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// By objective.
    Named(Vec<(String, f64)>),
    /// In the order of the objectives.
    Ordered(Vec<f64>),
}

/// The preference weights w [m] in the order of the objectives `names`.
///
/// Refused, with the objective named: a missing or unknown name, the wrong number of weights, a weight that is
/// negative or not finite, weights that are all zero or do not sum to 1 within 1e-6.
pub fn preference_weights(names: &[String], given: &Given) -> Result<Vec<f64>> {
    let w = match given {
        Given::Named(pairs) => in_order(names, pairs)?,
        Given::Ordered(w) if w.len() == names.len() => w.clone(),
        Given::Ordered(w) => {
            return Err(Error::new(format!(
                "{} objectives ({}) need as many weights, found {}",
                names.len(),
                list(names),
                w.len()
            ))
            .help("give one weight an objective"));
        }
    };
    for (name, w) in names.iter().zip(&w) {
        if !w.is_finite() {
            return Err(Error::new(format!("weight of `{name}` must be a finite number, found `{w}`")));
        }
        if *w < 0.0 {
            return Err(Error::new(format!("weight of `{name}` must not be negative, found `{w}`"))
                .help("give 0 to leave an objective out"));
        }
    }
    let largest = w.iter().fold(0.0_f64, |a, x| a.max(*x));
    if largest == 0.0 {
        return Err(Error::new(format!("weights of {} are all zero", list(names)))
            .help("give at least one objective a positive weight"));
    }
    let sum: f64 = w.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        let total: f64 = w.iter().map(|x| x / largest).sum();
        let normalised: Vec<String> =
            names.iter().zip(&w).map(|(n, x)| format!("{n}: {}", shorten(x / largest / total))).collect();
        return Err(Error::new(format!("weights must sum to 1, found `{sum}`"))
            .help(format!("divide by the sum: #{{ {} }}", normalised.join(", "))));
    }
    // What is 1 up to rounding stays as the user wrote it.
    if (sum - 1.0).abs() <= 4.0 * w.len() as f64 * f64::EPSILON {
        return Ok(w);
    }
    Ok(w.iter().map(|x| x / sum).collect())
}

fn in_order(names: &[String], pairs: &[(String, f64)]) -> Result<Vec<f64>> {
    if let Some((unknown, _)) = pairs.iter().find(|(name, _)| !names.contains(name)) {
        let near = nearest(unknown, names.iter().map(String::as_str));
        let help = match near.first() {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("the objectives are {}", list(names)),
        };
        return Err(Error::new(format!("weight of an unknown objective `{unknown}`")).help(help));
    }
    let find = |name: &String| pairs.iter().find(|(n, _)| n == name).map(|(_, w)| *w);
    let missing: Vec<String> = names.iter().filter(|n| find(n).is_none()).cloned().collect();
    if !missing.is_empty() {
        return Err(Error::new(format!("no weight given for {}", list(&missing)))
            .help("give every objective a weight, 0 to leave it out"));
    }
    Ok(names.iter().filter_map(find).collect())
}

fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Six significant digits are within the 1e-6 that a sum may be off only for few weights; twelve are for all.
fn shorten(x: f64) -> f64 {
    (x * 1e12).round() / 1e12
}
