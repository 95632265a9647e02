//! Plots as SVG: lines and points over axes and contours.

use std::path::Path;

use plotters::coord::Shift;
use plotters::element::ComposedElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::contour::Contours;
use super::palette::{Marker, PALETTE};
use super::write_whole;
use crate::error::{Error, Result};

pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const GREY: RGBColor = RGBColor(175, 175, 175);
const CONTOUR: RGBColor = RGBColor(70, 90, 120);
/// The drawing library rounds to whole units: drawn this much larger, lines stay smooth.
pub(super) const FINE: u32 = 10;
/// In fine units.
pub(super) const TEXT: u32 = 12 * FINE;
pub(super) const LEFT: u32 = 62 * FINE;
pub(super) const TITLE: u32 = 26 * FINE;
pub(super) const LINE: u32 = 17 * FINE;
/// Height of a horizontal axis with its name.
pub(super) const AXIS: u32 = 42 * FINE;
const BAR: u32 = 22 * FINE;
const GAP: u32 = 6 * FINE;
pub(super) const MARGIN: u32 = 10 * FINE;
const WIDTH: u32 = 720 * FINE - 2 * MARGIN;
const STROKE: u32 = 16;
pub(super) const HAIR: u32 = 8;
const BROAD: u32 = 60;
/// Half the width of a marker.
const SIZE: i32 = 3 * FINE as i32;

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
    /// A thin line that stands beside others, without a legend: the reach of a point.
    Whiskers,
    /// A marker a point.
    Points,
    /// A small pale marker a point.
    Dust,
    /// An open marker a point.
    Open,
    /// A broad grey line that stands behind the others.
    Behind,
    /// An open ring a point, on top of the others.
    Rings,
    /// The inside of each closed line.
    Area,
    /// The same, pale: an interval around a line.
    Band,
}

/// The outline of what lies between two lines of equal length, for [`Style::Area`] and [`Style::Band`]; one outline
/// each stretch of finite numbers.
pub fn between(low: &[(f64, f64)], high: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite = |[a, b]: &[(f64, f64); 2]| a.0.is_finite() && a.1.is_finite() && b.1.is_finite();
    let pairs: Vec<[(f64, f64); 2]> = low.iter().zip(high).map(|(low, high)| [*low, *high]).collect();
    let outline = |run: &[[(f64, f64); 2]]| {
        let there = run.iter().map(|[low, _]| *low);
        let back = run.iter().rev().map(|[_, high]| *high);
        there.chain(back).chain([(f64::NAN, f64::NAN)]).collect::<Vec<_>>()
    };
    pairs.split(|pair| !finite(pair)).filter(|run| run.len() > 1).flat_map(outline).collect()
}

impl Style {
    fn is_marked(self) -> bool {
        matches!(self, Self::Points | Self::Dust | Self::Open | Self::Rings)
    }
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
    /// Shape of the points.
    pub marker: Marker,
}

/// One panel with axes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plot {
    /// Above the panel.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// The series, drawn in order.
    pub series: Vec<Series>,
    /// Level lines of a function, behind the series.
    pub contours: Option<Contours>,
    /// One unit is as long on both axes.
    pub equal: bool,
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

    /// The panel as an SVG text of this size for a page of any colour: no ground, no title; `None` without a point to
    /// draw.
    ///
    /// # Errors
    /// A fault of the drawing library.
    pub(super) fn svg(&self, (width, height): (u32, u32)) -> Result<Option<String>> {
        let Some(range) = self.x_range() else { return Ok(None) };
        let (width, height) = (width * FINE, height * FINE);
        let head = Head::new("", std::slice::from_ref(self), width - 2 * MARGIN);
        let above = if head.is_empty() { 6 * FINE } else { head.height() };
        let svg = sheet((width, height + above), None, |root| {
            let (top, body) = root.margin(0, 0, 4 * FINE, MARGIN).split_vertically(above);
            head.draw(&top)?;
            panel(&body, self, range, AXIS)
        });
        svg.map(Some)
    }

    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let points = self.series.iter().flat_map(|s| &s.points).copied();
        let corners = self.contours.iter().flat_map(|c| [(c.x.0, c.y.0), (c.x.1, c.y.1)]);
        points.filter(|(x, y)| x.is_finite() && y.is_finite()).chain(corners)
    }

    /// Horizontal range of the points, wide enough to tell them apart.
    pub(super) fn x_range(&self) -> Option<(f64, f64)> {
        x_range(std::slice::from_ref(self))
    }
}

/// Writes panels of the given heights below each other, on one horizontal axis.
///
/// # Errors
/// No point to draw; a file that cannot be written.
pub(super) fn save_stack(plots: &[Plot], heights: &[u32], path: &Path) -> Result<()> {
    let Some((from, to)) = x_range(plots) else { return Err(nothing(path)) };
    let heads: Vec<Head<'_>> =
        plots.iter().map(|p| Head::new(&p.title, std::slice::from_ref(p), WIDTH)).collect();
    let heights: Vec<u32> = heads.iter().zip(heights).map(|(head, h)| h * FINE + head.height()).collect();
    let size = (WIDTH + 2 * MARGIN, heights.iter().sum::<u32>() + AXIS + 2 * MARGIN);
    save(size, path, |root| {
        let mut rest = root.margin(MARGIN, MARGIN, MARGIN, MARGIN);
        for (i, (plot, (head, height))) in plots.iter().zip(heads.iter().zip(&heights)).enumerate() {
            let last = i + 1 == plots.len();
            let (area, below) = rest.split_vertically(height + if last { AXIS } else { 0 });
            let (top, body) = area.split_vertically(head.height());
            head.draw(&top)?;
            panel(&body, plot, (from, to), if last { AXIS } else { 8 * FINE })?;
            rest = below;
        }
        Ok(())
    })
}

/// Writes what `draw` leaves on a white sheet of `size`, in fine units.
pub(super) fn save(size: (u32, u32), path: &Path, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    write_whole(path, sheet(size, Some(WHITE), draw)?.as_bytes())
}

/// The SVG text of what `draw` leaves on a sheet of `size`, in fine units.
pub(super) fn sheet(
    size: (u32, u32),
    ground: Option<RGBColor>,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        if let Some(ground) = ground {
            root.fill(&ground).map_err(draw_error)?;
        }
        draw(&root)?;
        root.present().map_err(draw_error)?;
    }
    let shown = |side: u32| format!("=\"{side}\"");
    Ok(svg
        .replacen(&format!("width{}", shown(size.0)), &format!("width{}", shown(size.0 / FINE)), 1)
        .replacen(&format!("height{}", shown(size.1)), &format!("height{}", shown(size.1 / FINE)), 1))
}

/// CSS for pictures that stand in a page, which may be dark: ink in the colour of the text, and lighter colours of
/// the palette where the dark ones would be lost.
pub(super) fn theme() -> String {
    let hex = |RGBColor(r, g, b): RGBColor| format!("#{r:02X}{g:02X}{b:02X}");
    let rule = |color: RGBColor, to: &str| {
        let from = hex(color);
        format!("svg [fill=\"{from}\"]{{fill:{to}}}svg [stroke=\"{from}\"]{{stroke:{to}}}")
    };
    let dark = [(0, "#4DA3DB"), (1, "#F08437"), (2, "#2FBF95"), (6, "#B0B0B0"), (7, "#C9A35E")];
    let dark: String = dark.iter().map(|(i, to)| rule(PALETTE[*i], to)).collect();
    format!(
        "{}{}{}@media (prefers-color-scheme:dark){{{dark}}}",
        rule(INK, "currentColor"),
        rule(FAINT, "var(--line)"),
        rule(WHITE, "var(--ground)")
    )
}

pub(super) fn nothing(path: &Path) -> Error {
    Error::new("nothing to plot: no point has finite coordinates")
        .in_file(path)
        .help("give at least one series with numbers")
}

fn x_range(plots: &[Plot]) -> Option<(f64, f64)> {
    let (from, to) = range(plots.iter().flat_map(|p| p.finite().map(|(x, _)| x)))?;
    let dots = plots.iter().any(|p| p.series.iter().any(|s| s.style.is_marked()));
    let pad = match to - from {
        0.0 => 0.5 * from.abs().max(1.0),
        width if dots && plots.iter().all(|p| p.contours.is_none()) => 0.03 * width,
        _ => 0.0,
    };
    Some((from - pad, to + pad))
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One panel over the horizontal range; `below` is the height of its axis.
pub(super) fn panel(body: &Area<'_>, plot: &Plot, (from, to): (f64, f64), below: u32) -> Result<()> {
    let (low, high) = plot.y_range.or_else(|| range(plot.finite().map(|(_, y)| y))).unwrap_or((0.0, 1.0));
    let pad = match plot.y_range {
        Some(_) => 0.0,
        None if plot.contours.is_some() => 0.0,
        None if high > low => 0.05 * (high - low),
        None => 0.5 * high.abs().max(1e-300),
    };
    let (mut x, mut y) = (Axis { from, to }, Axis { from: low - pad, to: high + pad });
    if plot.equal {
        let (wide, tall) = body.dim_in_pixel();
        let unit = |axis: &Axis, pixels: u32| (axis.to - axis.from) / f64::from(pixels.max(1));
        let (wide, tall) = (wide.saturating_sub(LEFT), tall.saturating_sub(below));
        let most = unit(&x, wide).max(unit(&y, tall));
        x.widen(most * f64::from(wide));
        y.widen(most * f64::from(tall));
    }
    let (low, high) = (y.from, y.to);
    let (wide, tall) = body.dim_in_pixel();
    let mut chart = ChartBuilder::on(body)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(x.clone(), y)
        .map_err(draw_error)?;
    let labels = TextStyle::from(("sans-serif", TEXT).into_font()).color(&INK);
    let bare = below < 30 * FINE;
    chart
        .configure_mesh()
        .set_all_tick_mark_size(4 * FINE)
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(if plot.contours.is_some() { TRANSPARENT.into() } else { FAINT.stroke_width(HAIR) })
        .axis_style(INK.stroke_width(HAIR))
        .label_style(labels.clone())
        .axis_desc_style(labels)
        .x_labels(if bare { 0 } else { (wide / (70 * FINE)).clamp(3, 9) as usize })
        .y_labels((tall / (45 * FINE)).clamp(5, 9) as usize)
        .x_desc(if bare { "" } else { &plot.x_label })
        .y_desc(&plot.y_label)
        .draw()
        .map_err(draw_error)?;
    if let Some(height) = plot.mark.filter(|&y| low < y && y < high) {
        let line =
            PathElement::new([(x.from, height), (x.to, height)], RGBColor(150, 150, 150).stroke_width(HAIR));
        chart.draw_series([line]).map_err(draw_error)?;
    }
    for (shade, line) in plot.contours.iter().flat_map(Contours::lines) {
        // lower is darker
        let color = CONTOUR.mix(0.75 - 0.55 * shade).stroke_width(HAIR);
        chart.draw_series(LineSeries::new(line, color)).map_err(draw_error)?;
    }
    for series in &plot.series {
        let color = PALETTE[series.color % PALETTE.len()];
        let finite = || series.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
        match series.style {
            Style::Points => chart
                .draw_series(finite().map(|p| mark(p, series.marker, SIZE, color.to_rgba(), true)))
                .map(drop),
            Style::Dust => {
                let pale = |p| mark(p, series.marker, SIZE / 2, color.mix(0.35), true);
                chart.draw_series(finite().map(pale)).map(drop)
            }
            Style::Open => chart
                .draw_series(finite().map(|p| mark(p, series.marker, SIZE, color.to_rgba(), false)))
                .map(drop),
            Style::Rings => [WHITE.filled(), INK.stroke_width(STROKE)].into_iter().try_for_each(|style| {
                chart.draw_series(finite().map(|p| Circle::new(p, 4 * FINE, style))).map(drop)
            }),
            _ => series.points.split(|p| !(p.0.is_finite() && p.1.is_finite())).try_for_each(|run| {
                let points = run.iter().copied();
                match series.style {
                    Style::Pale => {
                        chart.draw_series(LineSeries::new(points, color.mix(0.28).stroke_width(HAIR)))
                    }
                    Style::Whiskers => {
                        chart.draw_series(LineSeries::new(points, color.mix(0.7).stroke_width(HAIR)))
                    }
                    Style::Behind => chart.draw_series(LineSeries::new(points, GREY.stroke_width(BROAD))),
                    Style::Area | Style::Band => {
                        let strength = if series.style == Style::Area { 0.7 } else { 0.22 };
                        chart.draw_series([Polygon::new(run, color.mix(strength).filled())])
                    }
                    Style::Dashed => chart.draw_series(DashedLineSeries::new(
                        points,
                        6 * FINE,
                        4 * FINE,
                        color.stroke_width(STROKE),
                    )),
                    _ => chart.draw_series(LineSeries::new(points, color.stroke_width(STROKE))),
                }
                .map(drop)
            }),
        }
        .map_err(draw_error)?;
    }
    Ok(())
}

/// Inside and edge of a marker.
type Mark<C, DB> = ComposedElement<C, DB, Polygon<(i32, i32)>, PathElement<(i32, i32)>>;

/// A point, filled with its colour, or white with a coloured edge.
fn mark<DB: DrawingBackend, C>(
    at: C,
    marker: Marker,
    size: i32,
    color: RGBAColor,
    full: bool,
) -> Mark<C, DB> {
    let mut corners = marker.corners(size);
    let inside = if full { color } else { WHITE.to_rgba() };
    let inside = Polygon::new(corners.clone(), inside.filled());
    corners.extend(corners.first().copied());
    let edge = color.stroke_width(if full { HAIR } else { STROKE });
    EmptyElement::at(at) + inside + PathElement::new(corners, edge)
}

/// Width of a series in the legend: its line, its name, the space after it.
fn legend_width(label: &str) -> u32 {
    BAR + 3 * GAP + text_width(label)
}

/// Width of a text: a sans-serif letter is a little more than half as wide as high.
pub(super) fn text_width(text: &str) -> u32 {
    (text.chars().count() as f64 * 0.54 * f64::from(TEXT)) as u32
}

/// The text as far as it fits into `width`, its middle left out where it is longer: names differ at both ends.
pub(super) fn fitting(text: &str, width: u32) -> String {
    let letters: Vec<char> = text.chars().collect();
    // half a letter of slack: widths are whole numbers
    let most = (f64::from(width) / (0.54 * f64::from(TEXT)) + 0.5) as usize;
    if letters.len() <= most || most < 5 {
        return text.to_owned();
    }
    let (head, tail) = (most / 2, most - most / 2 - 1);
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
}

/// A title and the legend of panels: beside the title where it fits, else on lines of its own below.
pub(super) struct Head<'a> {
    title: &'a str,
    /// Name and series, line by line.
    legend: Vec<Vec<(String, &'a Series)>>,
}

impl<'a> Head<'a> {
    pub fn new(title: &'a str, plots: &'a [Plot], width: u32) -> Self {
        let whole = (width - LEFT).max(LEFT);
        let letters = title.chars().count() as u32;
        let mut room = whole.saturating_sub(letters * TEXT * 6 / 10);
        let mut shown: Vec<(String, &Series)> = Vec::new();
        for series in plots.iter().flat_map(|p| &p.series) {
            let named = !series.label.is_empty() && series.style != Style::Pale;
            if named && shown.iter().all(|(_, s)| s.label != series.label) {
                shown.push((fitting(&series.label, whole.saturating_sub(legend_width(""))), series));
            }
        }
        let mut legend = vec![vec![]];
        if shown.iter().map(|(label, _)| legend_width(label)).sum::<u32>() > room {
            // without a title the first line is as good as any
            room = if title.is_empty() { whole } else { 0 };
        }
        for (label, series) in shown {
            let width = legend_width(&label);
            if width > room {
                legend.push(vec![]);
                room = whole;
            }
            room = room.saturating_sub(width);
            if let Some(line) = legend.last_mut() {
                line.push((label, series));
            }
        }
        Self { title, legend }
    }

    /// True where there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.title.is_empty() && self.legend.iter().all(Vec::is_empty)
    }

    pub fn height(&self) -> u32 {
        TITLE + (self.legend.len() as u32 - 1) * LINE
    }

    /// The title at the left, the legend at the right.
    pub fn draw(&self, area: &Area<'_>) -> Result<()> {
        let text = |size: u32| {
            let style = TextStyle::from(("sans-serif", size).into_font());
            style.color(&INK).pos(Pos::new(HPos::Left, VPos::Center))
        };
        let middle = TITLE as i32 / 2;
        area.draw_text(self.title, &text(TEXT + 2 * FINE), (LEFT as i32, middle)).map_err(draw_error)?;
        for (i, line) in self.legend.iter().enumerate() {
            let middle = middle + (i as u32 * LINE) as i32;
            let width: u32 = line.iter().map(|(label, _)| legend_width(label)).sum();
            let mut left = area.dim_in_pixel().0.saturating_sub(width.saturating_sub(2 * GAP)) as i32;
            for (label, series) in line {
                let color = PALETTE[series.color % PALETTE.len()];
                let bar = |a: u32, b: u32, style: ShapeStyle| {
                    PathElement::new([(left + a as i32, middle), (left + b as i32, middle)], style)
                };
                let stroke = color.stroke_width(STROKE);
                let dot = (left + (BAR - 2 * GAP) as i32, middle);
                match series.style {
                    Style::Points => area.draw(&mark(dot, series.marker, SIZE, color.to_rgba(), true)),
                    Style::Dust => area.draw(&mark(dot, series.marker, SIZE / 2, color.mix(0.35), true)),
                    Style::Open => area.draw(&mark(dot, series.marker, SIZE, color.to_rgba(), false)),
                    Style::Rings => area.draw(&Circle::new(dot, 4 * FINE, INK.stroke_width(STROKE))),
                    Style::Behind => area.draw(&bar(0, BAR, GREY.stroke_width(BROAD))),
                    Style::Area | Style::Band => {
                        area.draw(&bar(BAR / 4, BAR, color.mix(0.7).stroke_width(2 * BROAD)))
                    }
                    Style::Dashed => area
                        .draw(&bar(0, BAR * 2 / 5, stroke))
                        .and_then(|()| area.draw(&bar(BAR * 3 / 5, BAR, stroke))),
                    _ => area.draw(&bar(0, BAR, stroke)),
                }
                .map_err(draw_error)?;
                area.draw_text(label, &text(TEXT), (left + (BAR + GAP) as i32, middle))
                    .map_err(draw_error)?;
                left += legend_width(label) as i32;
            }
        }
        Ok(())
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}

pub(super) fn draw_error(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("cannot draw: {error}"))
}
