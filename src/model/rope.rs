//! Frequencies of the rotary position embedding.

use super::config::{Llama3Scaling, Rope, Scaling};

impl Rope {
    /// Angle per position of each pair of dimensions, [head_dim / 2]: θ^(-2i/d), scaled where the config says so.
    ///
    /// In f32, as transformers computes them, so that far positions agree.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let exponent = |i: usize| (2 * i) as f32 / head_dim as f32;
        let plain = (0..head_dim / 2).map(|i| 1.0 / (self.theta as f32).powf(exponent(i)));
        match &self.scaling {
            None => plain.collect(),
            Some(Scaling::Linear(factor)) => plain.map(|f| f / *factor as f32).collect(),
            Some(Scaling::Llama3(scaling)) => plain.map(|f| scaling.scale(f)).collect(),
        }
    }
}

impl Llama3Scaling {
    /// Long wavelengths are slowed down by `factor`, short ones kept, those between interpolated.
    pub(super) fn scale(&self, frequency: f32) -> f32 {
        let wavelength = 2.0 * std::f32::consts::PI / frequency;
        let (factor, original) = (self.factor as f32, self.original_max_position_embeddings as f32);
        let (low, high) = (self.low_freq_factor as f32, self.high_freq_factor as f32);
        if wavelength > original / low {
            frequency / factor
        } else if wavelength < original / high {
            frequency
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}
