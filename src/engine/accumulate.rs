//! m gradient rows from one activation backward.
//!
//! Segment k leaves h_k, its gradient under the seed; the gradient of objective i is gᵢ = Σₖ U[i,k] h_k. Each
//! h_k exists only as a tile in cache: the products of a few segments, then m combinations, then the next tile.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::cost::weighs_rows;
use crate::error::Result;
use crate::model::ops::gemm::{Into, Threads, View, ViewMut, gemm};
use crate::model::ops::simd::{axpy, dispatch, mix};
use crate::model::ops::with_scratch;
use crate::model::values::tensor;
use crate::model::{Axis, Matrix, ParameterSpace, Sink};

/// Rows of a weight in one tile.
const TILE_ROWS: usize = 128;
/// Segments whose products share a tile's scratch.
const SEGMENTS: usize = 8;
/// Scalars of the scratch of one tile: a MiB. A smaller one would stay nearer, but its products would be packed more often.
const SCRATCH: usize = 1 << 18;

/// What adds up the m rows of a Jacobian over several backwards.
pub(crate) trait Rows: Sink {
    /// Sets the segments of the next backward, and how each objective weighs them: `u` [m, K] for each seed.
    fn weigh(&mut self, u: Vec<Vec<f32>>, tokens: Vec<Range<usize>>, scored: Vec<Range<usize>>)
    -> Result<()>;

    /// The rows, [m, P].
    fn finish(self: Box<Self>) -> Result<Tensor>;
}

/// Adds up the m rows of a Jacobian, [m, P].
pub(crate) struct Accumulator {
    space: Arc<ParameterSpace>,
    rows: Vec<f32>,   // [m, P]
    u: Vec<Vec<f32>>, // a seed each, [m, K]
    seed: usize,
    tokens: Vec<Range<usize>>,
    scored: Vec<Range<usize>>,
}

impl Accumulator {
    /// Rows of zeros.
    pub(crate) fn new(space: Arc<ParameterSpace>, m: usize) -> Self {
        let rows = vec![0f32; m * space.size()];
        Self { space, rows, u: Vec::new(), seed: 0, tokens: Vec::new(), scored: Vec::new() }
    }

    /// The m rows of one parameter.
    fn parameter<'a>(
        rows: &'a mut [f32],
        space: &ParameterSpace,
        index: usize,
    ) -> impl Iterator<Item = &'a mut [f32]> {
        let range = space.offsets[index]..space.offsets[index + 1];
        rows.chunks_mut(space.size().max(1)).map(move |row| &mut row[range.clone()])
    }
}

impl Rows for Accumulator {
    fn weigh(
        &mut self,
        u: Vec<Vec<f32>>,
        tokens: Vec<Range<usize>>,
        scored: Vec<Range<usize>>,
    ) -> Result<()> {
        (self.u, self.tokens, self.scored) = (u, tokens, scored);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        let m = self.rows.len() / self.space.size().max(1);
        tensor(self.rows, (m, self.space.size()))
    }
}

/// targetᵢ += dyᵀ diag(wᵢ) x, where wᵢ is U[i,k] on the rows of segment k: a product an objective.
fn weighed(targets: &mut [&mut [f32]], u: &[f32], segments: &[Range<usize>], dy: View, x: View) {
    let (rows, out, width) = (dy.height(), dy.width(), x.width());
    let narrow = if out <= width { dy } else { x };
    let size = narrow.width();
    with_scratch(rows * size, |scratch| {
        for (target, u) in targets.iter_mut().zip(u.chunks_exact(segments.len())) {
            // rows of no segment have no weight
            scratch.fill(0.0);
            for (segment, &u) in segments.iter().zip(u) {
                for row in segment.clone() {
                    let place = scratch[row * size..][..size].iter_mut().zip(narrow.row(row));
                    place.for_each(|(place, x)| *place = u * x);
                }
            }
            let scaled = View::new(scratch, rows, size);
            let (dy, x) = if out <= width { (scaled, x) } else { (dy, scaled) };
            gemm(ViewMut::new(target, out, width), Into::Add, 1.0, dy.t(), x, Threads::All);
        }
    });
}

impl Sink for Accumulator {
    fn term(&mut self, seed: usize) {
        self.seed = seed;
    }

    fn segments(&self, axis: Axis) -> &[Range<usize>] {
        match axis {
            Axis::Tokens => &self.tokens,
            Axis::Scored => &self.scored,
        }
    }

    fn product(&mut self, parameter: usize, first_row: usize, dy: Matrix, x: Matrix, axis: Axis) {
        let (dy, x): (View, View) = (dy.0, x.0);
        let (out, width) = (dy.width(), x.width());
        let segments = match axis {
            Axis::Tokens => &self.tokens,
            Axis::Scored => &self.scored,
        };
        let destination = first_row * width..(first_row + out) * width;
        let rows = Self::parameter(&mut self.rows, &self.space, parameter);
        let mut targets: Vec<&mut [f32]> = rows.map(|row| &mut row[destination.clone()]).collect();
        let u = &self.u[self.seed];
        if let ([target], [u]) = (&mut targets[..], &u[..]) {
            gemm(ViewMut::new(target, out, width), Into::Add, *u, dy.t(), x, Threads::All);
            return;
        }

        let k = segments.len();
        if weighs_rows(dy.height(), k, u.len() / k.max(1)) {
            return weighed(&mut targets, u, segments, dy, x);
        }
        let together = k.min(SEGMENTS);
        let tile_rows = out.min(TILE_ROWS);
        let tile_cols = (SCRATCH / (together * tile_rows)).max(64).min(width);
        // the rows of a tile are contiguous in each of the m targets, so tiles can be handed out safely
        let mut tiles: Vec<Vec<&mut [f32]>> = (0..out.div_ceil(tile_rows)).map(|_| Vec::new()).collect();
        for target in targets {
            for (tile, part) in tiles.iter_mut().zip(target.chunks_mut(tile_rows * width)) {
                tile.push(part);
            }
        }
        tiles.par_iter_mut().enumerate().with_max_len(1).for_each(|(tile, targets)| {
            with_scratch(together * tile_rows * tile_cols, |scratch| {
                let rows = tile * tile_rows..((tile + 1) * tile_rows).min(out);
                for cols in (0..width).step_by(tile_cols).map(|c| c..(c + tile_cols).min(width)) {
                    let size = rows.len() * cols.len();
                    for batch in (0..k).step_by(together).map(|s| s..(s + together).min(k)) {
                        for (slot, segment) in batch.clone().enumerate() {
                            let range = segments[segment].clone();
                            let dy = dy.rows(range.clone()).cols(rows.clone()).t();
                            let x = x.rows(range).cols(cols.clone());
                            let dst = &mut scratch[slot * size..][..size];
                            let dst = ViewMut::new(dst, rows.len(), cols.len());
                            gemm(dst, Into::Overwrite, 1.0, dy, x, Threads::One);
                        }
                        dispatch(
                            #[inline(always)]
                            || {
                                for row in 0..rows.len() {
                                    let (at, columns) = (row * cols.len(), row * width);
                                    mix(
                                        targets,
                                        columns + cols.start..columns + cols.end,
                                        |i| &u[i * k..][batch.clone()],
                                        |s| &scratch[s * size + at..][..cols.len()],
                                    );
                                }
                            },
                        );
                    }
                }
            });
        });
    }

    fn sums(&mut self, parameter: usize, sums: &[f32]) {
        let k = self.tokens.len();
        let width = sums.len() / k.max(1);
        let (u, rows) = (&self.u[self.seed], Self::parameter(&mut self.rows, &self.space, parameter));
        for (row, u) in rows.zip(u.chunks_exact(k)) {
            for (sum, &u) in sums.chunks_exact(width).zip(u) {
                axpy(u, sum, row);
            }
        }
    }

    fn embedding(&mut self, parameter: usize, tokens: &[u32], dy: &[f32]) {
        let width = dy.len() / tokens.len().max(1);
        let (k, u, segments) = (self.tokens.len(), &self.u[self.seed], &self.tokens);
        let rows: Vec<&mut [f32]> = Self::parameter(&mut self.rows, &self.space, parameter).collect();
        rows.into_par_iter().zip(u.par_chunks_exact(k)).for_each(|(row, u)| {
            dispatch(
                #[inline(always)]
                || {
                    for (segment, &u) in segments.iter().zip(u) {
                        for t in segment.clone() {
                            let row = &mut row[tokens[t] as usize * width..][..width];
                            axpy(u, &dy[t * width..][..width], row);
                        }
                    }
                },
            );
        });
    }
}
