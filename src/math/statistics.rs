//! What a mean over few seeds is worth: intervals and an exact test.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bootstrap::percentiles;
use crate::error::{Error, Result};

/// More differences than this are not tested exactly: 2²⁰ sums of each half.
const MOST_PAIRS: usize = 40;

/// A mean with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Mean and standard error s/√n.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

fn check(values: &[f64], least: usize, level: f64, what: &str) -> Result<()> {
    if values.len() < least {
        return Err(Error::new(format!("{what} of {} values, expected {least} or more", values.len()))
            .help("run more seeds"));
    }
    if let Some(x) = values.iter().find(|x| !x.is_finite()) {
        return Err(Error::new(format!("{what} of values that hold `{x}`"))
            .help("leave out values that are not finite"));
    }
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(Error::new(format!("{what} at level `{level}`")).help("give a level between 0 and 1 such as 0.95"))
}

/// Student's interval of a mean, mean ± t s/√n with t the quantile (1 + `level`)/2 at n − 1 degrees of freedom. It
/// supposes values from one normal distribution, independent of each other.
///
/// # Errors
/// Less than 2 values, values that are not finite, a level outside (0, 1).
pub fn t_interval(values: &[f64], level: f64) -> Result<Interval> {
    check(values, 2, level, "a t interval")?;
    let (mean, error) = mean_and_error(values);
    let reach = t_quantile(0.5 * (1.0 + level), (values.len() - 1) as f64) * error;
    Ok(Interval { mean, low: mean - reach, high: mean + reach })
}

/// Bootstrap-t interval of a mean (Efron 1981): of resamples, t* = (mean* − mean)/se*; the interval is
/// \[mean − q(1 − a) se, mean − q(a) se\] with q the quantiles of t* and a = (1 − `level`)/2. It takes the skew of the
/// values from the values; of few values it is wide, and of 3 or 4 hardly worth more than their range.
/// Resamples of equal values have no t* and are left out.
///
/// # Errors
/// Less than 3 values, values that are not finite, a level outside (0, 1), no resample.
pub fn bootstrap_t(values: &[f64], level: f64, samples: usize, seed: u64) -> Result<Interval> {
    check(values, 3, level, "a bootstrap-t interval")?;
    if samples == 0 {
        return Err(Error::new("a bootstrap of 0 samples").help("give one sample or more"));
    }
    let (mean, error) = mean_and_error(values);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = vec![0.0; values.len()];
    let mut studentized = Vec::with_capacity(samples);
    for _ in 0..samples {
        drawn.iter_mut().for_each(|x| *x = values[rng.random_range(0..values.len())]);
        if drawn.iter().any(|x| *x != drawn[0]) {
            let (again, error) = mean_and_error(&drawn);
            studentized.push((again - mean) / error);
        }
    }
    let (low, high) = percentiles(&mut studentized, 0.5 * (1.0 - level));
    Ok(Interval { mean, low: mean - high * error, high: mean - low * error })
}

/// Wilson's 95 % interval (1927) of a share, `successes` of `n`, with z = 1.96: the shares q with |p − q| ≤ z √(q(1 − q)/n).
/// Halves among the successes are fine: of values in \[0, 1\] none vary more than zeros and ones, so it is wide enough.
///
/// # Errors
/// No trial; successes below 0 or above `n`.
pub fn wilson_interval(successes: f64, n: usize) -> Result<Interval> {
    const Z: f64 = 1.959_963_984_540_054;
    if n == 0 || !(0.0..=n as f64).contains(&successes) {
        return Err(Error::new(format!("a share of {successes} in {n}"))
            .help("give a number of successes between 0 and the number of trials, which is not 0"));
    }
    let n = n as f64;
    let (mean, shrink) = (successes / n, 1.0 + Z * Z / n);
    let middle = (mean + Z * Z / (2.0 * n)) / shrink;
    let reach = Z / shrink * (mean * (1.0 - mean) / n + Z * Z / (4.0 * n * n)).sqrt();
    Ok(Interval { mean, low: (middle - reach).max(0.0), high: (middle + reach).min(1.0) })
}

/// What the signs of paired differences say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignFlip {
    /// Pairs.
    pub n: usize,
    /// Mean of a − b.
    pub difference: f64,
    /// Two-sided: the share of the 2ⁿ sign patterns whose |Σ ±dᵢ| is at least |Σ dᵢ|.
    pub p: f64,
    /// The least p that n pairs can give, 2/2ⁿ.
    pub smallest: f64,
}

/// Exact paired test by sign flips (Fisher 1935) of a − b over the same seeds: if the two are exchangeable within each
/// pair, each dᵢ is as likely as −dᵢ, and all 2ⁿ patterns are counted. Both halves of the differences are summed under
/// their own patterns, and sums that belong together found by bisection, so 40 pairs take no longer than 2²⁰ look-ups.
///
/// # Errors
/// Different lengths, no pair, more than 40 pairs, numbers that are not finite.
pub fn sign_flip(a: &[f64], b: &[f64]) -> Result<SignFlip> {
    if a.len() != b.len() {
        return Err(Error::new(format!("a paired test of {} and {} values", a.len(), b.len()))
            .help("give one value of each for every seed, in the same order"));
    }
    check(a, 1, 0.5, "a sign-flip test")?;
    check(b, 1, 0.5, "a sign-flip test")?;
    let n = a.len();
    if n > MOST_PAIRS {
        return Err(Error::new(format!("an exact sign-flip test of {n} pairs, at most {MOST_PAIRS}"))
            .help("use `t_interval` of the differences"));
    }
    let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let total: f64 = d.iter().sum();
    // sums that differ by rounding alone count as equal
    let bar = total.abs() - 1e-12 * d.iter().map(|x| x.abs()).sum::<f64>();
    let (first, second) = d.split_at(n / 2);
    let mut ends = sums(second);
    ends.sort_by(f64::total_cmp);
    let reached = |x: &f64| {
        let above = ends.len() - ends.partition_point(|y| x + y < bar);
        let below = ends.partition_point(|y| x + y <= -bar);
        // at a bar of 0 or less both counts hold the same sums
        (above + below).min(ends.len())
    };
    let count: usize = sums(first).iter().map(reached).sum();
    let patterns = 2f64.powi(n as i32);
    Ok(SignFlip {
        n,
        difference: total / n as f64,
        p: count as f64 / patterns,
        smallest: (2.0 / patterns).min(1.0),
    })
}

/// Σ ±dᵢ for every pattern of signs.
fn sums(d: &[f64]) -> Vec<f64> {
    d.iter().fold(vec![0.0], |sums, x| sums.iter().flat_map(|s| [s + x, s - x]).collect())
}

/// Quantile of Student's t: the x with P(T ≤ x) = `p` for p in (0, 1) and `degrees` > 0 degrees of freedom; NaN
/// elsewhere.
pub fn t_quantile(p: f64, degrees: f64) -> f64 {
    if !(p > 0.0 && p < 1.0 && degrees > 0.0) {
        return f64::NAN;
    }
    if p == 0.5 {
        return 0.0;
    }
    // P(|T| > x) = I_y(degrees/2, 1/2), y = degrees/(degrees + x²): the tail, so that small ones keep their digits
    let tail = p.min(1.0 - p);
    let beyond = |x: f64| beta_share(degrees / (degrees + x * x), 0.5 * degrees, 0.5);
    let (mut low, mut high) = (0.0, 1.0);
    while beyond(high) > 2.0 * tail && high < 1e150 {
        (low, high) = (high, 2.0 * high);
    }
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle.copysign(p - 0.5);
        }
        if beyond(middle) > 2.0 * tail { low = middle } else { high = middle }
    }
}

/// Regularised incomplete beta function I_x(a, b), by the continued fraction 26.5.8 of Abramowitz and Stegun on the side
/// where it converges fast.
fn beta_share(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_share(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    // modified Lentz
    let (mut c, mut d) = (1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..10_000 {
        let k = f64::from(m);
        let even = k * (b - k) * x / ((a + 2.0 * k - 1.0) * (a + 2.0 * k));
        let odd = -(a + k) * (a + b + k) * x / ((a + 2.0 * k) * (a + 2.0 * k + 1.0));
        let mut last = 1.0;
        for term in [even, odd] {
            d = 1.0 / (1.0 + term * d);
            c = 1.0 + term / c;
            last = c * d;
            fraction *= last;
        }
        if (last - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// ln Γ(x) for x > 0 by Lanczos' series (g = 7, 9 terms), relative error near 1e-15.
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let series = |(i, term): (usize, &f64)| term / (x + i as f64 + 1.0);
    let sum = 0.999_999_999_999_809_9 + TERMS.iter().enumerate().map(series).sum::<f64>();
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}
