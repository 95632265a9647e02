//! One colour and one shape of point for each method, the same in every picture.

use plotters::style::RGBColor;

/// Okabe and Ito's colours, told apart by the colour-blind too; the order puts contrast first.
pub(super) const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
    RGBColor(160, 120, 40),
];

/// Methods that have a colour of their own, of the paper's comparison.
const FIRST: [&str; 4] = ["linear", "cagrad_clip", "cagrad", "amopo"];
/// The other methods of the library, in the order in which colours and shapes are given out: new ones go at the end.
const OTHERS: [&str; 22] = [
    "mgda",
    "pcgrad",
    "nash_mtl",
    "upgrad",
    "mean",
    "sum",
    "imtl_g",
    "gradvac",
    "graddrop",
    "aligned_mtl",
    "dual_proj",
    "fair_grad",
    "config",
    "constant",
    "random",
    "krum",
    "trimmed_mean",
    "cr_mogm",
    "modo",
    "sdmgrad",
    "excess_mtl",
    "pcd",
];

/// Shape of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Marker {
    /// A disc.
    #[default]
    Circle,
    /// A square.
    Square,
    /// A triangle that points up.
    Triangle,
    /// A square on its corner.
    Diamond,
    /// A triangle that points down.
    Down,
    /// A star of five points.
    Star,
}

const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Down, Marker::Star];

impl Marker {
    /// The shape `steps` further on, of another variant of the same method.
    pub fn next(self, steps: usize) -> Self {
        let at = MARKERS.iter().position(|marker| *marker == self).unwrap_or(0);
        MARKERS[(at + steps) % MARKERS.len()]
    }

    /// Corners about (0, 0), of about the area of a disc of radius `r`.
    pub(super) fn corners(self, r: i32) -> Vec<(i32, i32)> {
        let polygon = |n: usize, from: f64, radius: fn(usize) -> f64| {
            let corner = |k: usize| {
                let angle = (from + 360.0 * k as f64 / n as f64).to_radians();
                let length = radius(k) * f64::from(r);
                ((length * angle.cos()).round() as i32, (length * angle.sin()).round() as i32)
            };
            (0..n).map(corner).collect()
        };
        match self {
            Self::Circle => polygon(32, 0.0, |_| 1.0),
            Self::Square => polygon(4, 45.0, |_| 1.25),
            Self::Triangle => polygon(3, -90.0, |_| 1.5),
            Self::Diamond => polygon(4, 0.0, |_| 1.35),
            Self::Down => polygon(3, 90.0, |_| 1.5),
            Self::Star => polygon(10, -90.0, |k| if k % 2 == 0 { 1.7 } else { 0.75 }),
        }
    }
}

/// Number of a method's colour: the paper's four have one each, the others share the rest, told apart by their markers.
/// A method of a user's file gets one by its name.
pub fn method_color(name: &str) -> usize {
    match FIRST.iter().position(|known| *known == name) {
        Some(color) => color,
        None => FIRST.len() + place(name) % (PALETTE.len() - FIRST.len()),
    }
}

/// Shape of a method's points.
pub fn method_marker(name: &str) -> Marker {
    match FIRST.iter().position(|known| *known == name) {
        Some(first) => MARKERS[first],
        None => MARKERS[place(name) / (PALETTE.len() - FIRST.len()) % MARKERS.len()],
    }
}

fn place(name: &str) -> usize {
    let known = OTHERS.iter().position(|known| *known == name);
    known.unwrap_or_else(|| {
        let hash = blake3::hash(name.as_bytes());
        usize::from(hash.as_bytes()[0])
    })
}
