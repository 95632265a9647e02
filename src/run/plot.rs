//! Line and point plots as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::write_whole;
use crate::error::{Error, Result};

/// Okabe and Ito's colours, told apart by the colour-blind too; the order puts contrast first.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
    RGBColor(160, 120, 40),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
/// The drawing library rounds to whole units: drawn this much larger, lines stay smooth.
const FINE: u32 = 10;
/// In fine units.
const TEXT: u32 = 12 * FINE;
const LEFT: u32 = 62 * FINE;
const TITLE: u32 = 26 * FINE;
const LINE: u32 = 17 * FINE;
const BAR: u32 = 22 * FINE;
const GAP: u32 = 6 * FINE;
const MARGIN: u32 = 10 * FINE;
const WIDTH: u32 = 720 * FINE - 2 * MARGIN;
const STROKE: u32 = 16;
const HAIR: u32 = 8;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// A line.
    #[default]
    Line,
    /// A dashed line.
    Dashed,
    /// A thin pale line that stands behind the others, without a legend.
    Pale,
    /// A dot a point.
    Points,
}

/// Points with a name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Name in the legend; none for an empty one.
    pub label: String,
    /// (x, y); a point with a number that is not finite is left out and interrupts the line.
    pub points: Vec<(f64, f64)>,
    /// Line or points.
    pub style: Style,
    /// Number of the colour; series of one colour belong together.
    pub color: usize,
}

/// One panel with axes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plot {
    /// Above the panel.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// The series, drawn in order.
    pub series: Vec<Series>,
    /// Vertical range; that of the points for `None`.
    pub y_range: Option<(f64, f64)>,
    /// A line across at this height.
    pub mark: Option<f64>,
}

impl Plot {
    /// Writes the panel as an SVG picture.
    ///
    /// # Errors
    /// No point to draw; a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_stack(std::slice::from_ref(self), &[300], path)
    }

    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.series.iter().flat_map(|s| &s.points).copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// Writes panels of the given heights below each other, on one horizontal axis.
///
/// # Errors
/// No point to draw; a file that cannot be written.
pub(super) fn save_stack(plots: &[Plot], heights: &[u32], path: &Path) -> Result<()> {
    let Some((from, to)) = range(plots.iter().flat_map(|p| p.finite().map(|(x, _)| x))) else {
        return Err(Error::new("nothing to plot: no point has finite coordinates")
            .in_file(path)
            .help("give at least one series with numbers"));
    };
    let dots = plots.iter().any(|p| p.series.iter().any(|s| s.style == Style::Points));
    let pad = match to - from {
        0.0 => 0.5 * to.abs().max(1.0),
        width if dots => 0.03 * width,
        _ => 0.0,
    };
    let (from, to) = (from - pad, to + pad);
    let axis = 42 * FINE;
    let heights: Vec<u32> = plots.iter().zip(heights).map(|(p, h)| h * FINE + head_height(p)).collect();
    let size = (WIDTH + 2 * MARGIN, heights.iter().sum::<u32>() + axis + 2 * MARGIN);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(draw_error)?;
        let mut rest = root.margin(MARGIN, MARGIN, MARGIN, MARGIN);
        for (i, (plot, height)) in plots.iter().zip(&heights).enumerate() {
            let last = i + 1 == plots.len();
            let (area, below) = rest.split_vertically(height + if last { axis } else { 0 });
            panel(&area, plot, (from, to), if last { axis } else { 8 * FINE })?;
            rest = below;
        }
        root.present().map_err(draw_error)?;
    }
    let shown = |side: u32| format!("=\"{side}\"");
    let svg = svg
        .replacen(&format!("width{}", shown(size.0)), &format!("width{}", shown(size.0 / FINE)), 1)
        .replacen(&format!("height{}", shown(size.1)), &format!("height{}", shown(size.1 / FINE)), 1);
    write_whole(path, svg.as_bytes())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn panel(area: &Area<'_>, plot: &Plot, (from, to): (f64, f64), below: u32) -> Result<()> {
    let (low, high) = plot.y_range.or_else(|| range(plot.finite().map(|(_, y)| y))).unwrap_or((0.0, 1.0));
    let pad = match plot.y_range {
        Some(_) => 0.0,
        None if high > low => 0.05 * (high - low),
        None => 0.5 * high.abs().max(1e-300),
    };
    let (low, high) = (low - pad, high + pad);
    let (top, body) = area.split_vertically(head_height(plot));
    head(&top, plot)?;
    let mut chart = ChartBuilder::on(&body)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(Axis { from, to }, Axis { from: low, to: high })
        .map_err(draw_error)?;
    let labels = TextStyle::from(("sans-serif", TEXT).into_font()).color(&INK);
    let bare = below < 30 * FINE;
    chart
        .configure_mesh()
        .set_all_tick_mark_size(4 * FINE)
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT.stroke_width(HAIR))
        .axis_style(INK.stroke_width(HAIR))
        .label_style(labels.clone())
        .axis_desc_style(labels)
        .x_labels(if bare { 0 } else { 9 })
        .y_labels(5)
        .x_desc(if bare { "" } else { &plot.x_label })
        .draw()
        .map_err(draw_error)?;
    if let Some(height) = plot.mark.filter(|&y| low < y && y < high) {
        let line =
            PathElement::new([(from, height), (to, height)], RGBColor(150, 150, 150).stroke_width(HAIR));
        chart.draw_series([line]).map_err(draw_error)?;
    }
    for series in &plot.series {
        let color = PALETTE[series.color % PALETTE.len()];
        if series.style == Style::Points {
            let dots = series.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite());
            chart.draw_series(dots.map(|&p| Circle::new(p, 3 * FINE, color.filled()))).map_err(draw_error)?;
            continue;
        }
        for run in series.points.split(|p| !(p.0.is_finite() && p.1.is_finite())) {
            let points = run.iter().copied();
            match series.style {
                Style::Pale => chart.draw_series(LineSeries::new(points, color.mix(0.28).stroke_width(HAIR))),
                Style::Dashed => chart.draw_series(DashedLineSeries::new(
                    points,
                    6 * FINE,
                    4 * FINE,
                    color.stroke_width(STROKE),
                )),
                _ => chart.draw_series(LineSeries::new(points, color.stroke_width(STROKE))),
            }
            .map_err(draw_error)?;
        }
    }
    Ok(())
}

/// Width of a series in the legend: its line, its name, the space after it.
fn legend_width(series: &Series) -> u32 {
    // a sans-serif letter is a little more than half as wide as high
    BAR + 3 * GAP + (series.label.chars().count() as f64 * 0.54 * f64::from(TEXT)) as u32
}

/// The legend in lines: beside the title where it fits, else on lines of its own below.
fn legend(plot: &Plot) -> Vec<Vec<&Series>> {
    let letters = plot.title.chars().count() as u32;
    let mut room = (WIDTH - LEFT).saturating_sub(letters * TEXT * 6 / 10);
    let mut lines = vec![vec![]];
    let shown = plot.series.iter().filter(|s| !s.label.is_empty() && s.style != Style::Pale);
    let whole: u32 = shown.clone().map(legend_width).sum();
    if whole > room {
        room = 0;
    }
    for series in shown {
        let width = legend_width(series);
        if width > room {
            lines.push(vec![]);
            room = WIDTH - LEFT;
        }
        room = room.saturating_sub(width);
        if let Some(line) = lines.last_mut() {
            line.push(series);
        }
    }
    lines
}

/// Height of title and legend.
fn head_height(plot: &Plot) -> u32 {
    TITLE + (legend(plot).len() as u32 - 1) * LINE
}

/// The title at the left, the legend at the right.
fn head(area: &Area<'_>, plot: &Plot) -> Result<()> {
    let text = |size: u32| {
        let style = TextStyle::from(("sans-serif", size).into_font());
        style.color(&INK).pos(Pos::new(HPos::Left, VPos::Center))
    };
    let middle = TITLE as i32 / 2;
    area.draw_text(&plot.title, &text(TEXT + 2 * FINE), (LEFT as i32, middle)).map_err(draw_error)?;
    for (i, line) in legend(plot).into_iter().enumerate() {
        let middle = middle + (i as u32 * LINE) as i32;
        let width: u32 = line.iter().map(|s| legend_width(s)).sum();
        let mut left = area.dim_in_pixel().0.saturating_sub(width.saturating_sub(2 * GAP)) as i32;
        for series in line {
            let color = PALETTE[series.color % PALETTE.len()];
            let bar = |a: u32, b: u32| {
                let stroke = color.stroke_width(STROKE);
                PathElement::new([(left + a as i32, middle), (left + b as i32, middle)], stroke)
            };
            match series.style {
                Style::Points => {
                    area.draw(&Circle::new((left + (BAR - 2 * GAP) as i32, middle), 3 * FINE, color.filled()))
                }
                Style::Dashed => {
                    area.draw(&bar(0, BAR * 2 / 5)).and_then(|()| area.draw(&bar(BAR * 3 / 5, BAR)))
                }
                _ => area.draw(&bar(0, BAR)),
            }
            .map_err(draw_error)?;
            area.draw_text(&series.label, &text(TEXT), (left + (BAR + GAP) as i32, middle))
                .map_err(draw_error)?;
            left += legend_width(series) as i32;
        }
    }
    Ok(())
}

/// A linear axis with ticks at 1, 2 or 5 times a power of ten.
#[derive(Clone)]
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
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

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}

fn draw_error(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("cannot draw: {error}"))
}
