//! Heat maps as SVG: a row each name, a column each step or stretch of steps.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette::PALETTE;
use super::plot::{FINE, HAIR, INK, MARGIN, TEXT, draw_error, fitting, sheet, text_width};
use crate::error::Result;

const CELL: u32 = 17 * FINE;
const SCALE: u32 = 74 * FINE;
/// Below the map: its axis has no ticks.
const BELOW: u32 = 26 * FINE;
const STEPS: usize = 20;

/// Numbers as colours whose strength is their size: blue above 0, vermillion below, told apart by the colour-blind too;
/// none at 0, so that it reads on a light and on a dark page.
pub(super) struct Heat {
    /// Names, from the top.
    pub rows: Vec<String>,
    /// A row each name; all of one length. What is not finite is crossed out.
    pub values: Vec<Vec<f64>>,
    /// What the first and the last column stand at.
    pub x: (f64, f64),
    /// Below the horizontal axis.
    pub x_label: String,
    /// The number of full strength; the largest one for `None`.
    pub full: Option<f64>,
}

impl Heat {
    /// The map as an SVG text of this width; `None` without a number.
    ///
    /// # Errors
    /// A fault of the drawing library.
    pub fn svg(&self, width: u32) -> Result<Option<String>> {
        let finite = || self.values.iter().flatten().filter(|x| x.is_finite());
        let largest = finite().fold(0.0, |a: f64, x| a.max(x.abs()));
        let columns = self.values.first().map_or(0, Vec::len) as u32;
        if finite().next().is_none() || columns == 0 {
            return Ok(None);
        }
        let full = self.full.unwrap_or(if largest > 0.0 { largest } else { 1.0 });
        let signed = finite().any(|&x| x < 0.0) || self.full.is_some();
        let width = width * FINE;
        let names = self.rows.iter().map(|name| text_width(name)).max().unwrap_or(0).min(width / 3);
        let (left, top) = (names + 2 * MARGIN, MARGIN);
        let right = width - SCALE;
        let bottom = top + CELL * self.rows.len() as u32;
        let svg = sheet((width, bottom + BELOW), None, |root| {
            let rect = |[x0, y0, x1, y1]: [u32; 4], strength: f64| {
                let color = PALETTE[usize::from(strength < 0.0)].mix(strength.abs().min(1.0));
                root.draw(&Rectangle::new([(x0 as i32, y0 as i32), (x1 as i32, y1 as i32)], color.filled()))
                    .map_err(draw_error)
            };
            let frame = |[x0, y0, x1, y1]: [u32; 4]| {
                let corners = [(x0 as i32, y0 as i32), (x1 as i32, y1 as i32)];
                root.draw(&Rectangle::new(corners, INK.stroke_width(HAIR))).map_err(draw_error)
            };
            let text = |text: &str, (x, y): (u32, u32), at: (HPos, VPos)| {
                let style = TextStyle::from(("sans-serif", TEXT).into_font()).color(&INK);
                root.draw_text(text, &style.pos(Pos::new(at.0, at.1)), (x as i32, y as i32))
                    .map_err(draw_error)
            };
            let edge = |column: u32| left + (right - left) * column / columns;
            for (i, (name, values)) in self.rows.iter().zip(&self.values).enumerate() {
                let y = top + CELL * i as u32;
                text(&fitting(name, names), (left - MARGIN / 2, y + CELL / 2), (HPos::Right, VPos::Center))?;
                for (column, &x) in values.iter().enumerate() {
                    let cell = [edge(column as u32), y, edge(column as u32 + 1), y + CELL];
                    if x.is_finite() {
                        rect(cell, x / full)?;
                    } else {
                        let ends = [(cell[0] as i32, cell[3] as i32), (cell[2] as i32, cell[1] as i32)];
                        root.draw(&PathElement::new(ends, INK.mix(0.4).stroke_width(HAIR)))
                            .map_err(draw_error)?;
                    }
                }
            }
            frame([left, top, right, bottom])?;
            let below = bottom + 5 * FINE;
            text(&shown(self.x.0), (left, below), (HPos::Left, VPos::Top))?;
            if columns > 1 {
                text(&shown(self.x.1), (right, below), (HPos::Right, VPos::Top))?;
            }
            text(&self.x_label, ((left + right) / 2, below), (HPos::Center, VPos::Top))?;
            // the scale, full strength at the top
            let (from, to) = (right + 14 * FINE, right + 26 * FINE);
            let tall = (bottom - top).clamp(60 * FINE, 150 * FINE).min(bottom - top);
            for k in 0..STEPS {
                let at = |k: usize| top + tall * k as u32 / STEPS as u32;
                let share = 1.0 - (k as f64 + 0.5) / STEPS as f64;
                rect([from, at(k), to, at(k + 1)], if signed { 2.0 * share - 1.0 } else { share })?;
            }
            frame([from, top, to, top + tall])?;
            let ends = [(full, top + TEXT / 2), (if signed { -full } else { 0.0 }, top + tall - TEXT / 2)];
            ends.iter()
                .try_for_each(|&(x, y)| text(&shown(x), (to + 4 * FINE, y), (HPos::Left, VPos::Center)))
        });
        svg.map(Some)
    }
}

/// Three digits.
fn shown(x: f64) -> String {
    let text = match x.abs() {
        0.0 => "0".to_owned(),
        size if (1e-2..1e5).contains(&size) => {
            let digits = (2.0 - size.log10().floor()).max(0.0) as usize;
            let text = format!("{x:.digits$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        _ => format!("{x:.1e}"),
    };
    text.replace('-', "−")
}
