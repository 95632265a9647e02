//! Level lines of a function of two numbers.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// How many levels are drawn.
const LEVELS: usize = 14;

/// A function on a grid, drawn by its level lines; the levels part its values into equal shares.
#[derive(Debug, Clone, PartialEq)]
pub struct Contours {
    /// Horizontal range.
    pub x: (f64, f64),
    /// Vertical range.
    pub y: (f64, f64),
    values: Vec<Vec<f64>>, // [rows from low y to high y][columns]
}

/// The edge of a grid from (column, row) to the next column, or to the next row.
type Edge = (usize, usize, bool);

impl Contours {
    /// The function's values on an even grid over both ranges, a row for each y.
    ///
    /// # Errors
    /// Fewer than two rows or columns, rows of unequal length, an empty range.
    pub fn new(x: (f64, f64), y: (f64, f64), values: Vec<Vec<f64>>) -> Result<Self> {
        let columns = values.first().map_or(0, Vec::len);
        if values.len() < 2 || columns < 2 || values.iter().any(|row| row.len() != columns) {
            return Err(Error::new("contours need at least two rows of two values, all of one length")
                .help("give `values` as rows, one for each y"));
        }
        if !(x.0 < x.1 && y.0 < y.1) {
            return Err(Error::new(format!("contours over {x:?} and {y:?}"))
                .help("give ranges as `[low, high]`, the lower number first"));
        }
        Ok(Self { x, y, values })
    }

    /// Each level line, with its level's place among the levels, 0 for the lowest and 1 for the highest.
    pub(super) fn lines(&self) -> Vec<(f64, Vec<(f64, f64)>)> {
        let mut sorted: Vec<f64> = self.values.iter().flatten().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let mut lines = Vec::new();
        for k in 0..LEVELS {
            let Some(&level) = sorted.get((k + 1) * sorted.len() / (LEVELS + 1)) else { continue };
            let place = k as f64 / (LEVELS - 1) as f64;
            lines.extend(self.level(level).into_iter().map(|line| (place, line)));
        }
        lines
    }

    /// Marching squares: the points where the function passes `level` on the edges of the grid, joined cell by cell.
    fn level(&self, level: f64) -> Vec<Vec<(f64, f64)>> {
        let mut next: BTreeMap<Edge, Vec<Edge>> = BTreeMap::new();
        let above = |i: usize, j: usize| self.values[j][i] > level;
        for j in 0..self.values.len() - 1 {
            for i in 0..self.values[0].len() - 1 {
                let corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)];
                if corners.iter().any(|&(i, j)| !self.values[j][i].is_finite()) {
                    continue;
                }
                let edges: [Edge; 4] = [(i, j, true), (i + 1, j, false), (i, j + 1, true), (i, j, false)];
                let crossed: Vec<Edge> = (0..4)
                    .filter(|&k| {
                        let (a, b) = (corners[k], corners[(k + 1) % 4]);
                        above(a.0, a.1) != above(b.0, b.1)
                    })
                    .map(|k| edges[k])
                    .collect();
                for pair in crossed.chunks_exact(2) {
                    next.entry(pair[0]).or_default().push(pair[1]);
                    next.entry(pair[1]).or_default().push(pair[0]);
                }
            }
        }
        let mut lines = Vec::new();
        // open lines begin at an edge with one neighbour; what then is left are rings
        for open in [true, false] {
            let starts: Vec<Edge> =
                next.iter().filter(|(_, n)| !open || n.len() == 1).map(|(edge, _)| *edge).collect();
            for start in starts {
                let mut line = vec![self.crossing(start, level)];
                let mut at = start;
                while let Some(to) = next.get_mut(&at).and_then(Vec::pop) {
                    if let Some(back) = next.get_mut(&to) {
                        back.retain(|edge| *edge != at);
                    }
                    line.push(self.crossing(to, level));
                    at = to;
                }
                if line.len() > 1 {
                    lines.push(line);
                }
            }
        }
        lines
    }

    /// Where the function, taken as linear along the edge, has the value `level`.
    fn crossing(&self, (i, j, across): Edge, level: f64) -> (f64, f64) {
        let (a, b) = if across {
            (self.values[j][i], self.values[j][i + 1])
        } else {
            (self.values[j][i], self.values[j + 1][i])
        };
        let part = ((level - a) / (b - a)).clamp(0.0, 1.0);
        let (column, row) = if across { (i as f64 + part, j as f64) } else { (i as f64, j as f64 + part) };
        let (columns, rows) = ((self.values[0].len() - 1) as f64, (self.values.len() - 1) as f64);
        let along = |(from, to): (f64, f64), part: f64| from + (to - from) * part;
        (along(self.x, column / columns), along(self.y, row / rows))
    }
}
