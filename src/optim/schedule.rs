//! The learning rate over the steps of a run.

use crate::error::{Error, Place, Result};

/// What the rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// It stays.
    #[default]
    Constant,
    /// It falls to 0 on a line.
    Linear,
    /// It falls to 0 on half a cosine.
    Cosine,
}

/// How long the rate rises from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// This many steps.
    Steps(usize),
    /// This part of all steps, rounded up; in [0, 1).
    Fraction(f64),
}

/// The factor of the learning rate at each step, as in the schedules of transformers.
///
/// ```text
///     t < warm                t / warm
///     constant                1
///     linear                  (total - t) / (total - warm)
///     cosine                  (1 + cos π(t - warm)/(total - warm)) / 2
/// ```
///
/// t counts steps from 0: the first step of a warm-up has rate 0. Past `total` it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Schedule {
    shape: Shape,
    warm: usize,
    total: Option<usize>,
}

impl Schedule {
    /// A schedule over `total` steps.
    ///
    /// # Errors
    /// A shape or a fraction that needs `total` without it; a fraction outside [0, 1); a warm-up longer than
    /// the run.
    pub fn new(shape: Shape, warmup: Warmup, total: Option<usize>) -> Result<Self> {
        let missing = |what: &str| {
            Error::new(format!("{what} needs the number of steps"))
                .at(Place::Key("steps".into()))
                .help("give `steps`")
        };
        let warm = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Fraction(fraction) if !(0.0..1.0).contains(&fraction) => {
                return Err(Error::new(format!(
                    "warm-up must be a part of the run in [0, 1), found `{fraction}`"
                ))
                .at(Place::Key("warmup".into()))
                .help("give a fraction such as 0.1, or a whole number of steps"));
            }
            Warmup::Fraction(fraction) if fraction > 0.0 => {
                let total = total.ok_or_else(|| missing("a warm-up given as a fraction"))?;
                (total as f64 * fraction).ceil() as usize
            }
            Warmup::Fraction(_) => 0,
        };
        match (shape, total) {
            (Shape::Linear, None) => return Err(missing("the schedule `linear`")),
            (Shape::Cosine, None) => return Err(missing("the schedule `cosine`")),
            (_, Some(total)) if warm > total => {
                return Err(Error::new(format!("a warm-up of {warm} steps in a run of {total}"))
                    .at(Place::Key("warmup".into()))
                    .help("shorten the warm-up"));
            }
            _ => {}
        }
        Ok(Self { shape, warm, total })
    }

    /// The factor at step `t`, counted from 0; in [0, 1].
    pub fn factor(&self, t: usize) -> f64 {
        if t < self.warm {
            return t as f64 / self.warm as f64;
        }
        let total = self.total.unwrap_or(usize::MAX);
        let (done, length) = ((t - self.warm) as f64, total.saturating_sub(self.warm).max(1) as f64);
        match self.shape {
            Shape::Constant => 1.0,
            _ if t >= total => 0.0,
            Shape::Linear => total.saturating_sub(t) as f64 / length,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done / length).cos()),
        }
    }
}

impl std::str::FromStr for Shape {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "constant" => Ok(Self::Constant),
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            other => Err(Error::new(format!("unknown schedule `{other}`"))
                .at(Place::Key("schedule".into()))
                .help("one of `constant`, `linear`, `cosine`")),
        }
    }
}
