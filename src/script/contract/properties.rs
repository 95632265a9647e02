//! What a method may promise of its update, and how each promise is tested on a case.

use super::super::Failure;
use super::families::{Case, dot, length, mix};
use super::show::{short, vector};
use super::subject::{Answer, Subject, TOLERANCE, Update, agree};
use crate::math::min_norm_point;

/// A promise of an aggregator: d is the update, α its row weights, J the gradient rows, w the preference weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// J → kJ gives kd.
    ScaleEquivariant,
    /// J → kJ gives d.
    ScaleInvariant,
    /// Rows and w permuted together give d.
    PermutationEquivariant,
    /// Coordinates rotated: d rotated.
    RotationEquivariant,
    /// ⟨gᵢ, d⟩ ≥ 0 for every row.
    NonConflicting,
    /// ⟨g₀, d⟩ ≥ 0.
    Descent,
    /// α ≥ 0, Σα = 1.
    ConvexCombination,
    /// α ≥ 0.
    PositiveCombination,
    /// J = 0 gives d = 0.
    ZeroPreserving,
    /// d = 0 where 0 is in the convex hull of the rows.
    Stationary,
    /// Scales of single rows do not change the direction of d.
    RowScaleInvariant,
    /// d(diag(a)J) is linear in a > 0.
    LinearInScales,
    /// A row of weight 0 does not change d.
    WeightZeroOut,
    /// w takes part.
    FollowsWeights,
    /// Where no two rows conflict, d is the mean.
    ReducesToMean,
    /// Where no two rows conflict, d is the sum.
    ReducesToSum,
    /// m = 1 gives d = g₁.
    Single,
    /// The same seed and state give the same d.
    Repeatable,
}

/// What testing a property on a case says.
pub(super) enum Verdict {
    /// The property says nothing about this case, or the method has no answer to it.
    Skipped,
    Holds,
    Fails(Finding),
}

/// What a property wants and what came.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
}

impl Property {
    /// All of them, in the order of the reference.
    pub const ALL: [Self; 18] = [
        Self::ScaleEquivariant,
        Self::ScaleInvariant,
        Self::PermutationEquivariant,
        Self::RotationEquivariant,
        Self::NonConflicting,
        Self::Descent,
        Self::ConvexCombination,
        Self::PositiveCombination,
        Self::ZeroPreserving,
        Self::Stationary,
        Self::RowScaleInvariant,
        Self::LinearInScales,
        Self::WeightZeroOut,
        Self::FollowsWeights,
        Self::ReducesToMean,
        Self::ReducesToSum,
        Self::Single,
        Self::Repeatable,
    ];

    /// As a header names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScaleEquivariant => "scale-equivariant",
            Self::ScaleInvariant => "scale-invariant",
            Self::PermutationEquivariant => "permutation-equivariant",
            Self::RotationEquivariant => "rotation-equivariant",
            Self::NonConflicting => "non-conflicting",
            Self::Descent => "descent",
            Self::ConvexCombination => "convex-combination",
            Self::PositiveCombination => "positive-combination",
            Self::ZeroPreserving => "zero-preserving",
            Self::Stationary => "stationary",
            Self::RowScaleInvariant => "row-scale-invariant",
            Self::LinearInScales => "linear-in-scales",
            Self::WeightZeroOut => "weight-zero-out",
            Self::FollowsWeights => "follows-weights",
            Self::ReducesToMean => "reduces-to-mean",
            Self::ReducesToSum => "reduces-to-sum",
            Self::Single => "single",
            Self::Repeatable => "repeatable",
        }
    }

    /// What it says, in one line.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::ScaleEquivariant => "kJ in place of J gives kd, for rows from 1e-150 to 1e150",
            Self::ScaleInvariant => "kJ in place of J gives the same d, k > 0",
            Self::PermutationEquivariant => "rows and w in another order give the same d",
            Self::RotationEquivariant => "coordinates rotated, d is rotated",
            Self::NonConflicting => "⟨gᵢ, d⟩ ≥ 0 for every i: no loss rises, to first order",
            Self::Descent => "⟨g₀, d⟩ ≥ 0 with g₀ = Σ wᵢgᵢ: the weighted loss does not rise",
            Self::ConvexCombination => "α ≥ 0 and Σα = 1",
            Self::PositiveCombination => "α ≥ 0",
            Self::ZeroPreserving => "J = 0 gives d = 0",
            Self::Stationary => "d = 0 where 0 is in the convex hull of the rows",
            Self::RowScaleInvariant => "positive scales of single rows do not change the direction of d",
            Self::LinearInScales => "d of the rows aᵢgᵢ is linear in a > 0",
            Self::WeightZeroOut => "a row of weight 0 does not change d",
            Self::FollowsWeights => "w takes part; a method without this promise ignores w",
            Self::ReducesToMean => {
                "where no two rows conflict, d is the mean: Σ wᵢgᵢ where w takes part, else Σ gᵢ/m"
            }
            Self::ReducesToSum => "where no two rows conflict, d is the sum of the rows",
            Self::Single => "m = 1 gives d = g₁",
            Self::Repeatable => "the same seed and state give the same d, to the last bit",
        }
    }

    /// Tests the property on a case; `base` is the update of the case itself, `follows` says whether w takes part.
    ///
    /// # Errors
    /// Ctrl-C.
    pub(super) fn test(
        self,
        subject: &Subject,
        case: &Case,
        base: &Update,
        follows: bool,
    ) -> Result<Verdict, Failure> {
        let probe = Probe { subject, case, base };
        let d = &base.direction;
        Ok(match self {
            Self::ScaleEquivariant => probe.scales(|d, k| d.iter().map(|x| x / k).collect())?,
            Self::ScaleInvariant => probe.scales(|d, _| d.to_vec())?,
            Self::PermutationEquivariant => probe.permutations()?,
            Self::RotationEquivariant => probe.rotation()?,
            Self::NonConflicting => {
                let products: Vec<f64> = case.rows.iter().map(|row| dot(row, d)).collect();
                let bad = |(i, product): (usize, &f64)| {
                    (*product < -TOLERANCE * length(&case.rows[i]) * base.size).then_some((i, *product))
                };
                match products.iter().enumerate().find_map(bad) {
                    Some((i, product)) => {
                        fails(format!("⟨row {i}, d⟩ ≥ 0"), format!("⟨row {i}, d⟩ = {}", short(product)))
                    }
                    None => Verdict::Holds,
                }
            }
            Self::Descent => {
                let g0 = mix(&case.w, &case.rows);
                let (product, parts) = (dot(&g0, d), weighed(&case.w, &case.rows));
                holds(product >= -TOLERANCE * parts * base.size, || {
                    ("⟨g₀, d⟩ ≥ 0".to_owned(), format!("⟨g₀, d⟩ = {}", short(product)))
                })
            }
            Self::ConvexCombination | Self::PositiveCombination => {
                let Some(alpha) = &base.alpha else {
                    return Ok(fails("row weights `alpha`", "an update without them"));
                };
                let (least, sum) =
                    (alpha.iter().copied().fold(f64::INFINITY, f64::min), alpha.iter().sum::<f64>());
                let largest = alpha.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
                if least < -1e-9 * largest {
                    fails("α ≥ 0", format!("α = {}", vector(alpha)))
                } else if self == Self::ConvexCombination && (sum - 1.0).abs() > 1e-9 {
                    fails("Σα = 1", format!("Σα = {sum}, α = {}", vector(alpha)))
                } else {
                    Verdict::Holds
                }
            }
            Self::ZeroPreserving => {
                if case.rows.iter().flatten().any(|x| *x != 0.0) {
                    return Ok(Verdict::Skipped);
                }
                holds(d.iter().all(|x| *x == 0.0), || ("d = 0".to_owned(), format!("d = {}", vector(d))))
            }
            Self::Stationary => {
                // a matrix of zeros is what `zero-preserving` is about
                let zero = case.rows.iter().flatten().all(|x| *x == 0.0);
                if zero || !min_norm_point(&case.gramian()).is_ok_and(|point| point.norm == 0.0) {
                    return Ok(Verdict::Skipped);
                }
                let longest = case.rows.iter().map(|row| length(row)).fold(0.0, f64::max);
                holds(length(d) <= TOLERANCE * base.size.max(longest), || {
                    ("d = 0, for 0 is in the hull of the rows".to_owned(), format!("d = {}", vector(d)))
                })
            }
            Self::RowScaleInvariant => probe.row_scales()?,
            Self::LinearInScales => probe.linear()?,
            Self::WeightZeroOut => probe.weight_zero()?,
            Self::FollowsWeights => probe.other_weights()?,
            Self::ReducesToMean | Self::ReducesToSum => {
                if case.gramian().data().iter().any(|x| *x < 0.0) {
                    return Ok(Verdict::Skipped);
                }
                let share = if self == Self::ReducesToSum { 1.0 } else { 1.0 / case.m() as f64 };
                let shares = vec![share; case.m()];
                let shares = if follows && self == Self::ReducesToMean { &case.w } else { &shares };
                let expected = mix(shares, &case.rows);
                let size = base.size.max(weighed(shares, &case.rows));
                holds(agree(&expected, d, size), || {
                    let what = if self == Self::ReducesToSum { "sum" } else { "mean" };
                    let expected =
                        format!("d is the {what}, {}, for no two rows conflict", vector(&expected));
                    (expected, format!("d = {}", vector(d)))
                })
            }
            Self::Single => match &case.rows[..] {
                [row] => holds(agree(row, d, base.size.max(length(row))), || {
                    ("d is the row".to_owned(), format!("d = {}", vector(d)))
                }),
                _ => Verdict::Skipped,
            },
            Self::Repeatable => match probe.ask(&case.rows, &case.w)? {
                Ok(again) => holds(again.direction == *d, || {
                    let found = format!("{}, then {}", vector(d), vector(&again.direction));
                    ("the same d in a second call from the same state".to_owned(), found)
                }),
                Err(verdict) => verdict,
            },
        })
    }
}

fn fails(expected: impl Into<String>, found: impl Into<String>) -> Verdict {
    Verdict::Fails(Finding { expected: expected.into(), found: found.into() })
}

fn holds(holds: bool, otherwise: impl FnOnce() -> (String, String)) -> Verdict {
    if holds {
        return Verdict::Holds;
    }
    let (expected, found) = otherwise();
    fails(expected, found)
}

/// `Σ |x_i| ‖g_i‖`.
fn weighed(x: &[f64], rows: &[Vec<f64>]) -> f64 {
    x.iter().zip(rows).map(|(x, row)| x.abs() * length(row)).sum()
}

/// The case changed in some way, and the method asked again.
struct Probe<'a> {
    subject: &'a Subject,
    case: &'a Case,
    base: &'a Update,
}

impl Probe<'_> {
    /// The update of other rows or weights, or what having none means.
    fn ask(&self, rows: &[Vec<f64>], w: &[f64]) -> Result<Result<Update, Verdict>, Failure> {
        Ok(match self.subject.answer(rows, w)? {
            Answer::Found(update) => Ok(update),
            Answer::Nothing(_) => Err(Verdict::Skipped),
            Answer::Broken(failure) => Err(fails("an update of the changed case too", failure.to_string())),
        })
    }

    fn rows(&self, scale: impl Fn(usize) -> f64) -> Vec<Vec<f64>> {
        let row = |(i, row): (usize, &Vec<f64>)| row.iter().map(|x| x * scale(i)).collect();
        self.case.rows.iter().enumerate().map(row).collect()
    }

    /// All rows times the powers of two that bring them near 1e-150 and 1e150: exact, so that what is a tie stays one.
    fn scales(&self, back: impl Fn(&[f64], f64) -> Vec<f64>) -> Result<Verdict, Failure> {
        let exponent = |x: f64| x.log2().round() as i32;
        let lengths = self.case.rows.iter().map(|row| length(row)).filter(|x| *x > 0.0);
        let (longest, shortest) = lengths.fold((0.0_f64, f64::INFINITY), |(a, b), x| (a.max(x), b.min(x)));
        if longest == 0.0 {
            return Ok(Verdict::Skipped);
        }
        for power in [498 - exponent(longest), -498 - exponent(shortest)] {
            let k = 2.0_f64.powi(power);
            let name = format!("{k:.1e}");
            let update = match self.subject.answer(&self.rows(|_| k), &self.case.w)? {
                Answer::Found(update) => update,
                Answer::Nothing(error) => {
                    return Ok(fails(format!("an update of kJ too, k = {name}"), format!("error: {error}")));
                }
                Answer::Broken(failure) => {
                    return Ok(fails(format!("an update of kJ too, k = {name}"), failure.to_string()));
                }
            };
            let found = back(&update.direction, k);
            if !self.base.agrees(&self.base.direction, &found) {
                let over = if back(&[k], k) == [1.0] { "/k" } else { "" };
                let (d, found) = (vector(&self.base.direction), vector(&found));
                return Ok(fails(
                    format!("d(kJ){over} = d(J), k = {name}"),
                    format!("d(J) = {d}, d(kJ){over} = {found}"),
                ));
            }
        }
        Ok(Verdict::Holds)
    }

    /// Rows turned by one, and in reverse.
    fn permutations(&self) -> Result<Verdict, Failure> {
        let m = self.case.m();
        if m == 1 {
            return Ok(Verdict::Skipped);
        }
        let mut verdict = Verdict::Skipped;
        for order in [(0..m).map(|i| (i + 1) % m).collect::<Vec<_>>(), (0..m).rev().collect()] {
            let rows: Vec<Vec<f64>> = order.iter().map(|i| self.case.rows[*i].clone()).collect();
            let w: Vec<f64> = order.iter().map(|i| self.case.w[*i]).collect();
            match self.ask(&rows, &w)? {
                Ok(found) if self.base.agrees(&self.base.direction, &found.direction) => {
                    verdict = Verdict::Holds;
                }
                Ok(found) => {
                    let (d, found) = (vector(&self.base.direction), vector(&found.direction));
                    let order = order.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                    let expected = format!("the same d with rows and w in the order {order}");
                    return Ok(fails(expected, format!("{d}, then {found}")));
                }
                Err(verdict @ Verdict::Fails(_)) => return Ok(verdict),
                Err(_) => {}
            }
        }
        Ok(verdict)
    }

    /// Each four coordinates mirrored at the plane across (1, 1, 1, 1): integers stay exact, so that a tie stays one.
    fn rotation(&self) -> Result<Verdict, Failure> {
        let turn = |v: &[f64]| -> Vec<f64> {
            let mirror = |four: &[f64]| {
                let shift = four.iter().sum::<f64>() / 2.0;
                (0..4).map(move |k| four.get(k).copied().unwrap_or(0.0) - shift).collect::<Vec<_>>()
            };
            v.chunks(4).flat_map(mirror).collect()
        };
        let rows: Vec<Vec<f64>> = self.case.rows.iter().map(|row| turn(row)).collect();
        Ok(match self.ask(&rows, &self.case.w)? {
            Ok(found) => {
                let expected = turn(&self.base.direction);
                holds(self.base.agrees(&expected, &found.direction), || {
                    let what = "d turned with the rows: of each four coordinates, half their sum subtracted";
                    let expected = format!("{what}, {}", vector(&expected));
                    (expected, format!("d of the turned rows = {}", vector(&found.direction)))
                })
            }
            Err(verdict) => verdict,
        })
    }

    fn row_scales(&self) -> Result<Verdict, Failure> {
        let scale = |i: usize| 2.0_f64.powi(((i + 2) * 5 % 7) as i32 - 3);
        let found = match self.ask(&self.rows(scale), &self.case.w)? {
            Ok(found) => found,
            Err(verdict) => return Ok(verdict),
        };
        let (a, b) = (length(&self.base.direction), length(&found.direction));
        let (zero_a, zero_b) = (a <= TOLERANCE * self.base.size, b <= TOLERANCE * found.size);
        if zero_a || zero_b {
            return Ok(if zero_a && zero_b { Verdict::Holds } else { Verdict::Skipped });
        }
        let unit = |d: &[f64], length: f64| -> Vec<f64> { d.iter().map(|x| x / length).collect() };
        let (expected, turned) = (unit(&self.base.direction, a), unit(&found.direction, b));
        Ok(holds(agree(&expected, &turned, (self.base.size / a).max(found.size / b)), || {
            let scales: Vec<f64> = (0..self.case.m()).map(scale).collect();
            let expected = format!("d/‖d‖ = {} with rows times {}, too", vector(&expected), vector(&scales));
            (expected, format!("d/‖d‖ = {}", vector(&turned)))
        }))
    }

    /// d of rows times 1 + a is d + d of rows times a.
    fn linear(&self) -> Result<Verdict, Failure> {
        let scale = |i: usize| 2.0_f64.powi(((i + 1) * 3 % 5) as i32 - 2);
        let part = match self.ask(&self.rows(scale), &self.case.w)? {
            Ok(part) => part,
            Err(verdict) => return Ok(verdict),
        };
        let whole = match self.ask(&self.rows(|i| 1.0 + scale(i)), &self.case.w)? {
            Ok(whole) => whole,
            Err(verdict) => return Ok(verdict),
        };
        let sum: Vec<f64> = self.base.direction.iter().zip(&part.direction).map(|(a, b)| a + b).collect();
        let size = (self.base.size + part.size).max(whole.size);
        Ok(holds(agree(&sum, &whole.direction, size), || {
            let scales: Vec<f64> = (0..self.case.m()).map(scale).collect();
            let scales = vector(&scales);
            let expected = format!("d of rows times 1 + a is d + d of rows times a, a = {scales}");
            let (d, part) = (vector(&self.base.direction), vector(&part.direction));
            (expected, format!("{d} + {part} against {}", vector(&whole.direction)))
        }))
    }

    /// A row of weight 0 taken away and turned round.
    fn weight_zero(&self) -> Result<Verdict, Failure> {
        let Some(zero) = self.case.w.iter().position(|w| *w == 0.0) else { return Ok(Verdict::Skipped) };
        if self.case.rows.iter().flatten().all(|x| *x == 0.0) {
            return Ok(Verdict::Skipped);
        }
        let other = &self.case.rows[(zero + 1) % self.case.m()];
        let replacements: [(&str, Vec<f64>); 2] = [
            ("zero", vec![0.0; other.len()]),
            ("-3 times the next", other.iter().map(|x| -3.0 * x).collect()),
        ];
        let mut verdict = Verdict::Skipped;
        for (name, row) in replacements {
            let mut rows = self.case.rows.clone();
            rows[zero] = row;
            match self.ask(&rows, &self.case.w)? {
                Ok(found) if self.base.agrees(&self.base.direction, &found.direction) => {
                    verdict = Verdict::Holds;
                }
                Ok(found) => {
                    let (d, found) = (vector(&self.base.direction), vector(&found.direction));
                    let expected = format!("the same d with row {zero}, whose weight is 0, set to {name}");
                    return Ok(fails(expected, format!("{d}, then {found}")));
                }
                Err(verdict @ Verdict::Fails(_)) => return Ok(verdict),
                Err(_) => {}
            }
        }
        Ok(verdict)
    }

    /// Fails where other weights give another update: then w takes part.
    fn other_weights(&self) -> Result<Verdict, Failure> {
        let m = self.case.m();
        let ramp: Vec<f64> = (0..m).map(|i| 2.0 * (i + 1) as f64 / (m * (m + 1)) as f64).collect();
        if ramp.iter().zip(&self.case.w).all(|(a, b)| (a - b).abs() < 1e-3) {
            return Ok(Verdict::Skipped);
        }
        Ok(match self.ask(&self.case.rows, &ramp)? {
            Ok(found) => holds(found.direction == self.base.direction, || {
                let expected = format!("the same d with w = {}, without `follows-weights`", vector(&ramp));
                let (d, found) = (vector(&self.base.direction), vector(&found.direction));
                (expected, format!("{d}, then {found}"))
            }),
            Err(verdict) => verdict,
        })
    }
}
