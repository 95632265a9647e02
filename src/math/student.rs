//! Student's t: how far a mean of few numbers may be from what they are drawn around.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// The t with P(|T| ≤ t) = `level` for T of `freedom` ≥ 1 degrees of freedom.
///
/// The probability is a finite sum in θ = atan(t/√ν) for whole ν (Abramowitz and Stegun 26.7.3 and 26.7.4) and rises
/// with θ, which is bisected. `level` is in [0, 1); 0 degrees count as 1.
pub fn student_t(level: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if within(middle, freedom.max(1)) < level { low = middle } else { high = middle }
    }
    (freedom.max(1) as f64).sqrt() * (0.5 * (low + high)).tan()
}

/// P(|T| ≤ √ν tan θ).
fn within(theta: f64, freedom: usize) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let odd = freedom % 2 == 1;
    // the terms cos^k times a product of ratios: k = 1, 3, … ν-2 for odd ν, k = 0, 2, … ν-2 for even ν
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    for k in (if odd { 1 } else { 0 }..freedom.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= cos * cos * (k + 1) as f64 / (k + 2) as f64;
    }
    if odd { FRAC_2_PI * (theta + sin * sum) } else { sin * sum }
}

/// Mean and half the width of its t interval: mean ± t·s/√n with s² = Σ(x - mean)²/(n - 1), for numbers drawn
/// independently around one mean; the width is `None` for fewer than two, both are for none.
pub fn mean_interval(values: &[f64], level: f64) -> Option<(f64, Option<f64>)> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let half = (n > 1).then(|| {
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        student_t(level, n - 1) * (squares / ((n - 1) * n) as f64).sqrt()
    });
    Some((mean, half))
}
