//! Panels side by side in one picture.

use std::path::Path;

use super::plot::{AXIS, Area, FINE, Head, LEFT, MARGIN, Plot, TITLE, nothing, panel, save};
use crate::error::Result;

const BETWEEN: u32 = 14 * FINE;

/// Panels side by side below one title and one legend, in which a label stands once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grid {
    /// Above all panels.
    pub title: String,
    /// Row by row.
    pub plots: Vec<Plot>,
    /// Panels a row.
    pub columns: usize,
}

impl Grid {
    /// Writes the picture as SVG.
    ///
    /// # Errors
    /// No panel, a panel without a point to draw; a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        if self.plots.is_empty() {
            return Err(nothing(path));
        }
        let columns = self.columns.clamp(1, self.plots.len().max(1)) as u32;
        let wide = FINE
            * match columns {
                1 => 700,
                2 => 450,
                _ => 340,
            };
        // side by side they are square
        let tall = if columns == 1 { wide * 3 / 10 } else { wide - LEFT };
        let rows = self.plots.chunks(columns as usize);
        let inner = columns * wide + (columns - 1) * BETWEEN;
        let head = Head::new(&self.title, &self.plots, inner);
        let height = head.height() + rows.len() as u32 * (TITLE + tall + AXIS);
        save((inner + 2 * MARGIN, height + 2 * MARGIN), path, |root| {
            let (top, mut rest) = root.margin(MARGIN, MARGIN, MARGIN, MARGIN).split_vertically(head.height());
            head.draw(&top)?;
            for row in rows {
                let (mut line, below) = rest.split_vertically(TITLE + tall + AXIS);
                for plot in row {
                    let (area, right) = line.split_horizontally(wide);
                    one(&area, plot, wide, path)?;
                    line = right.margin(0, 0, BETWEEN, 0);
                }
                rest = below;
            }
            Ok(())
        })
    }
}

fn one(area: &Area<'_>, plot: &Plot, wide: u32, path: &Path) -> Result<()> {
    let range = plot.x_range().ok_or_else(|| nothing(path))?;
    let (top, body) = area.split_vertically(TITLE);
    Head::new(&plot.title, &[], wide).draw(&top)?;
    panel(&body, plot, range, AXIS)
}
