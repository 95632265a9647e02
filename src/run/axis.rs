//! The axes of plots.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// A linear axis with ticks at 1, 2 or 5 times a power of ten.
#[derive(Clone)]
pub(super) struct Axis {
    pub from: f64,
    pub to: f64,
}

impl Axis {
    /// Makes the range as long as `length`, about its middle.
    pub fn widen(&mut self, length: f64) {
        let middle = 0.5 * (self.from + self.to);
        (self.from, self.to) = (middle - 0.5 * length, middle + 0.5 * length);
    }

    fn step(&self, most: usize) -> f64 {
        let rough = (self.to - self.from) / most.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|k| k * power).find(|&s| s >= rough * 0.999).unwrap_or(rough)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let most = hint.max_num_points().min(if hint.weight().allow_light_points() { 0 } else { 9 });
        if most == 0 || self.to <= self.from {
            return vec![];
        }
        let step = self.step(most);
        let first = (self.from / step - 1e-9).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last).map(|k| k as f64 * step).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let step = self.step(9);
        let largest = self.from.abs().max(self.to.abs());
        if !(1e-3..1e6).contains(&largest) {
            return format!("{value:.1e}");
        }
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        text.replace('-', "−")
    }
}
