//! Fronts of points whose coordinates are all maximised: who is dominated, how much a set reaches, how far it stays
//! behind another set, whether it follows the weights.
//!
//! Points are n rows of m coordinates; a reference and each row of another set have m coordinates too. Everything here
//! is exact up to rounding.

use crate::error::{Error, Result};

fn check<'a>(sets: impl IntoIterator<Item = (&'a str, &'a [Vec<f64>])>) -> Result<()> {
    let mut width = None;
    for (what, set) in sets {
        for (i, row) in set.iter().enumerate() {
            let m = *width.get_or_insert(row.len());
            if m == 0 || row.len() != m {
                return Err(Error::new(format!("{what} {i} has {} coordinates, expected {m}", row.len()))
                    .help("give every point one number for each objective"));
            }
            if let Some(x) = row.iter().find(|x| !x.is_finite()) {
                return Err(Error::new(format!("{what} {i} holds `{x}`, expected finite numbers"))
                    .help("leave out points that are not finite"));
            }
        }
    }
    Ok(())
}

fn two_sets(points: &[Vec<f64>], front: &[Vec<f64>]) -> Result<()> {
    check([("point", points), ("front point", front)])?;
    if points.is_empty() || front.is_empty() {
        return Err(Error::new("a distance between sets of which one is empty")
            .help("give at least one point and one point of the front"));
    }
    Ok(())
}

/// True where `b` is nowhere below `a`, and above it by more than `tolerance` in one coordinate at least.
fn dominates(b: &[f64], a: &[f64], tolerance: f64) -> bool {
    b.iter().zip(a).all(|(b, a)| b >= a) && b.iter().zip(a).any(|(b, a)| b - a > tolerance)
}

/// Indices, ascending, of the points that no other point dominates: b dominates a where bᵢ ≥ aᵢ for all i and
/// bᵢ − aᵢ > `tolerance` for one i. Equal points are kept, all of them. O(n² m).
///
/// # Errors
/// Rows of different length, numbers that are not finite, a negative tolerance.
pub fn pareto_front(points: &[Vec<f64>], tolerance: f64) -> Result<Vec<usize>> {
    check([("point", points)])?;
    if !(tolerance >= 0.0 && tolerance.is_finite()) {
        return Err(Error::new(format!("the tolerance of a front is `{tolerance}`, expected 0 or more"))
            .help("leave it out for 0"));
    }
    let stays = |a: &Vec<f64>| !points.iter().any(|b| dominates(b, a, tolerance));
    Ok((0..points.len()).filter(|&i| stays(&points[i])).collect())
}

/// Volume of the union of the boxes between `reference` and each point: the hypervolume of Zitzler and Thiele (1999).
/// A point that is not above the reference in every coordinate adds nothing. Units: the product of the coordinates'.
///
/// Two coordinates by a sweep. More by slices, as While, Bradstreet and Barone (2012) do: in ascending order of the last
/// coordinate, point k adds (its last coordinate) × (its box in the others − what later points, limited to that box,
/// cover of it).
///
/// # Errors
/// Rows of different length, numbers that are not finite, a volume past the largest number.
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> Result<f64> {
    let reference = [reference.to_vec()];
    check([("reference", &reference[..]), ("point", points)])?;
    let above = |p: &Vec<f64>| p.iter().zip(&reference[0]).map(|(p, r)| p - r).collect::<Vec<f64>>();
    let sides = points.iter().map(above).filter(|p| p.iter().all(|x| *x > 0.0)).collect();
    let volume = union(sides, reference[0].len());
    if volume.is_finite() {
        Ok(volume)
    } else {
        Err(Error::new("the hypervolume is past the largest number").help("scale the objectives down"))
    }
}

/// Volume of the union of boxes from 0 with these sides, by their first m coordinates.
fn union(mut boxes: Vec<Vec<f64>>, m: usize) -> f64 {
    let Some(last) = m.checked_sub(1) else { return 0.0 };
    if m == 1 {
        return boxes.iter().map(|b| b[0]).fold(0.0, f64::max);
    }
    boxes.sort_by(|a, b| a[last].total_cmp(&b[last]));
    if m == 2 {
        // from the highest down: each adds what it is wider than all before
        let mut wide = 0.0;
        return boxes.iter().rev().fold(0.0, |sum, b| {
            let more = (b[0] - wide).max(0.0);
            wide = b[0].max(wide);
            sum + more * b[1]
        });
    }
    let mut volume = 0.0;
    for (k, low) in boxes.iter().enumerate() {
        let later = &boxes[k + 1..];
        if later.iter().any(|b| (0..last).all(|i| b[i] >= low[i])) {
            continue;
        }
        let limited = |b: &Vec<f64>| (0..last).map(|i| b[i].min(low[i])).collect::<Vec<f64>>();
        let limited: Vec<Vec<f64>> = later.iter().map(limited).collect();
        let covered = union(maximal(limited), last);
        volume += low[last] * (low[..last].iter().product::<f64>() - covered).max(0.0);
    }
    volume
}

/// The boxes that lie in no other; of equal ones the first.
fn maximal(boxes: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut kept: Vec<Vec<f64>> = Vec::new();
    for b in boxes {
        let inside = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a <= b);
        if !kept.iter().any(|k| inside(&b, k)) {
            kept.retain(|k| !inside(k, &b));
            kept.push(b);
        }
    }
    kept
}

fn mean_distance(points: &[Vec<f64>], front: &[Vec<f64>], shortfall: impl Fn(f64) -> f64) -> Result<f64> {
    two_sets(points, front)?;
    let distance =
        |z: &[f64], a: &[f64]| z.iter().zip(a).map(|(z, a)| shortfall(z - a)).fold(0.0, f64::hypot);
    let nearest = |z: &Vec<f64>| points.iter().map(|a| distance(z, a)).fold(f64::INFINITY, f64::min);
    Ok(front.iter().map(nearest).sum::<f64>() / front.len() as f64)
}

/// Inverted generational distance: the mean over z in `front` of min_a ‖z − a‖₂ over a in `points`. 0 where every point
/// of the front is reached. Coello Coello and Reyes Sierra (2004).
///
/// # Errors
/// An empty set, rows of different length, numbers that are not finite.
pub fn igd(points: &[Vec<f64>], front: &[Vec<f64>]) -> Result<f64> {
    mean_distance(points, front, |missing| missing)
}

/// IGD⁺: as [`igd`] with ‖max(z − a, 0)‖₂, so that only what a point lacks counts; weakly Pareto compliant. Ishibuchi,
/// Masuda, Tanigaki and Nojima (2015).
///
/// # Errors
/// As [`igd`].
pub fn igd_plus(points: &[Vec<f64>], front: &[Vec<f64>]) -> Result<f64> {
    mean_distance(points, front, |missing| missing.max(0.0))
}

/// Additive ε indicator: the least ε such that `points`, raised by ε in every coordinate, reach each point of `front`:
/// max_z min_a max_i (zᵢ − aᵢ). Zitzler, Thiele, Laumanns, Fonseca and Grunert da Fonseca (2003).
///
/// # Errors
/// As [`igd`].
pub fn additive_epsilon(points: &[Vec<f64>], front: &[Vec<f64>]) -> Result<f64> {
    two_sets(points, front)?;
    let lacks = |z: &[f64], a: &[f64]| z.iter().zip(a).map(|(z, a)| z - a).fold(f64::NEG_INFINITY, f64::max);
    let nearest = |z: &Vec<f64>| points.iter().map(|a| lacks(z, a)).fold(f64::INFINITY, f64::min);
    Ok(front.iter().map(nearest).fold(f64::NEG_INFINITY, f64::max))
}

/// How far a set reaches and how evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Diagonal of the box around the points, √Σᵢ (maxᵢ − minᵢ)²: Zitzler's maximum spread (1999).
    pub extent: f64,
    /// Schott's spacing (1995): √(Σⱼ (d̄ − dⱼ)² / (n − 1)), dⱼ the least Σᵢ |aᵢ − bᵢ| from point j to another; 0 where all
    /// neighbours are equally far. None for less than two points, and 0 for two.
    pub spacing: Option<f64>,
}

/// Extent and spacing of a set of points.
///
/// # Errors
/// No point, rows of different length, numbers that are not finite.
pub fn spread(points: &[Vec<f64>]) -> Result<Spread> {
    check([("point", points)])?;
    let Some(first) = points.first() else {
        return Err(Error::new("the spread of no point").help("give at least one point"));
    };
    let side = |i: usize| {
        let column = || points.iter().map(|p| p[i]);
        column().fold(f64::NEG_INFINITY, f64::max) - column().fold(f64::INFINITY, f64::min)
    };
    let extent = (0..first.len()).map(side).fold(0.0, f64::hypot);
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>();
    let nearest = |j: usize| {
        let others = (0..points.len()).filter(|&k| k != j);
        others.map(|k| apart(&points[j], &points[k])).fold(f64::INFINITY, f64::min)
    };
    let distances: Vec<f64> = (0..points.len()).map(nearest).collect();
    let spacing = (points.len() > 1).then(|| {
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        (distances.iter().map(|d| (mean - d).powi(2)).sum::<f64>() / (distances.len() - 1) as f64).sqrt()
    });
    Ok(Spread { extent, spacing })
}

/// Whether a score rises with the weight of its objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coverage {
    /// Kendall's τ_b between weights and scores: 1 where each rise of the weight is a rise of the score; none where all
    /// weights or all scores are equal.
    pub tau: Option<f64>,
    /// Pairs of points in which the weight is higher and the score lower by more than the tolerance.
    pub violations: usize,
    /// Pairs of points whose weights differ.
    pub pairs: usize,
}

/// Does the score of an objective follow its weight? `weights` [n] and `scores` [n] of that one objective.
///
/// # Errors
/// Different lengths, numbers that are not finite.
pub fn weight_coverage(weights: &[f64], scores: &[f64], tolerance: f64) -> Result<Coverage> {
    let both: Vec<Vec<f64>> = weights.iter().zip(scores).map(|(w, s)| vec![*w, *s]).collect();
    check([("point", &both[..])])?;
    if weights.len() != scores.len() {
        return Err(Error::new(format!("{} weights and {} scores", weights.len(), scores.len()))
            .help("give a weight and a score for each point"));
    }
    let (mut balance, mut by_weight, mut by_score, mut violations) = (0.0, 0usize, 0usize, 0);
    for (i, a) in both.iter().enumerate() {
        for b in &both[..i] {
            let (weight, score) = (a[0] - b[0], a[1] - b[1]);
            by_weight += usize::from(weight != 0.0);
            by_score += usize::from(score != 0.0);
            if weight != 0.0 && score != 0.0 {
                balance += weight.signum() * score.signum();
                violations += usize::from(weight.signum() * score < -tolerance);
            }
        }
    }
    let tau = (by_weight > 0 && by_score > 0).then(|| balance / (by_weight as f64 * by_score as f64).sqrt());
    Ok(Coverage { tau, violations, pairs: by_weight })
}
