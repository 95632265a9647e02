//! From a counterexample to a smallest one.

use super::super::Failure;
use super::families::Case;
use super::properties::Finding;

/// Cases tried at most.
const TRIALS: usize = 2000;

/// The smallest case found on which `fails` still finds something: fewer rows, then fewer columns, then rounder numbers.
///
/// # Errors
/// What `fails` returns.
pub(super) fn shrink(
    case: Case,
    finding: Finding,
    fails: impl Fn(&Case) -> Result<Option<Finding>, Failure>,
) -> Result<(Case, Finding), Failure> {
    let mut best = (case, finding);
    let mut trials = 0;
    loop {
        let size = cost(&best.0);
        let mut next = None;
        for smaller in simpler(&best.0).filter(|case| cost(case) < size).take(TRIALS - trials) {
            trials += 1;
            if let Some(finding) = fails(&smaller)? {
                next = Some((smaller, finding));
                break;
            }
        }
        match next {
            Some(smaller) => best = smaller,
            None => return Ok(best),
        }
    }
}

/// Rows, columns, and how much there is to read; the order in which counterexamples are smaller.
fn cost(case: &Case) -> (usize, usize, usize) {
    let text = case.rows.iter().flatten().chain(&case.w).map(|x| letters(*x)).sum();
    (case.m(), case.rows.first().map_or(0, Vec::len), text)
}

fn letters(x: f64) -> usize {
    match x.abs() {
        0.0 => 0,
        1.0 => 1 + usize::from(x < 0.0),
        _ => format!("{x:e}").len(),
    }
}

/// Candidates, the boldest first.
fn simpler(case: &Case) -> impl Iterator<Item = Case> + '_ {
    let columns = case.rows.first().map_or(0, Vec::len);
    let rows = spans(case.m()).map(|span| {
        let keep = |i: usize| !span.contains(&i);
        let w: Vec<f64> = (0..case.m()).filter(|i| keep(*i)).map(|i| case.w[i]).collect();
        let rows = (0..case.m()).filter(|i| keep(*i)).map(|i| case.rows[i].clone()).collect();
        Case { rows, w: normalised(w), ..case.clone() }
    });
    let columns = spans(columns).map(|span| {
        let keep = |row: &Vec<f64>| {
            (0..row.len()).filter(|k| !span.contains(k)).map(|k| row[k]).collect::<Vec<f64>>()
        };
        Case { rows: case.rows.iter().map(keep).collect(), ..case.clone() }
    });
    let weights = weights(&case.w).map(|w| Case { w, ..case.clone() });
    rows.chain(columns).chain(weights).chain(numbers(case))
}

/// Halves, quarters, … single places of n, but never all of them.
fn spans(n: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let sizes = std::iter::successors(Some(n / 2), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.flat_map(move |size| (0..n).step_by(size).map(move |start| start..(start + size).min(n)))
}

fn normalised(w: Vec<f64>) -> Vec<f64> {
    let sum: f64 = w.iter().sum();
    let even = 1.0 / w.len() as f64;
    w.iter().map(|x| if sum > 0.0 { x / sum } else { even }).collect()
}

/// Uniform, one-hot, and rounded to tenths.
fn weights(w: &[f64]) -> impl Iterator<Item = Vec<f64>> {
    let m = w.len();
    let uniform = std::iter::once(vec![1.0 / m as f64; m]);
    let one_hot = (0..m).map(move |k| (0..m).map(|i| f64::from(u8::from(i == k))).collect());
    let mut tenths: Vec<f64> = w.iter().map(|x| (10.0 * x).round()).collect();
    let over = tenths.iter().sum::<f64>() - 10.0;
    if let Some(largest) = tenths.iter_mut().max_by(|a, b| a.total_cmp(b)) {
        *largest -= over;
    }
    let rounded = (tenths.iter().all(|x| *x >= 0.0)).then(|| tenths.iter().map(|x| x / 10.0).collect());
    one_hot.chain(uniform).chain(rounded)
}

/// The matrix at scale 1, rounded as a whole, then number by number.
fn numbers(case: &Case) -> impl Iterator<Item = Case> + '_ {
    let largest = case.rows.iter().flatten().fold(0.0_f64, |a, x| a.max(x.abs()));
    let all = move |change: &dyn Fn(f64) -> f64| {
        let rows = case.rows.iter().map(|row| row.iter().map(|x| change(*x)).collect()).collect();
        Case { rows, ..case.clone() }
    };
    let whole = [
        all(&|x| x / largest.max(f64::MIN_POSITIVE)),
        all(&|x| 10.0 * x / largest.max(f64::MIN_POSITIVE)),
        all(&f64::round),
        all(&|x| digits(x, 1)),
        all(&|x| digits(x, 2)),
    ];
    let changes: [fn(f64) -> f64; 5] = [|_| 0.0, f64::signum, f64::round, |x| digits(x, 1), |x| digits(x, 2)];
    let single = case.rows.iter().enumerate().flat_map(move |(i, row)| {
        (0..row.len()).flat_map(move |k| {
            changes.into_iter().map(move |change| {
                let mut rows = case.rows.clone();
                rows[i][k] = change(rows[i][k]);
                Case { rows, ..case.clone() }
            })
        })
    });
    whole.into_iter().chain(single)
}

/// Rounded to so many decimal digits.
fn digits(x: f64, count: usize) -> f64 {
    format!("{x:.*e}", count - 1).parse().unwrap_or(x)
}
