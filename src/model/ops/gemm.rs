//! Matrix products on strided views of slices.

use std::ops::Range;

/// A strided matrix in a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix in a mutable slice whose rows are contiguous.
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

impl<'a> View<'a> {
    /// A contiguous row-major matrix, [rows, cols].
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows begin `row_stride` apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride, 1), "view past the end of its slice");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// A range of rows.
    pub(crate) fn rows(self, range: Range<usize>) -> Self {
        assert!(range.end <= self.rows, "rows past the end of the view");
        let data = if range.is_empty() { &[] } else { &self.data[range.start * self.row_stride..] };
        Self { data, rows: range.len(), ..self }
    }

    /// A range of columns.
    pub(crate) fn cols(self, range: Range<usize>) -> Self {
        self.t().rows(range).t()
    }

    /// Number of rows.
    pub(crate) fn height(&self) -> usize {
        self.rows
    }

    /// One row, of a view whose columns are not apart.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert!(self.col_stride == 1, "a row of a transpose");
        &self.data[row * self.row_stride..][..self.cols]
    }

    /// One number.
    pub(crate) fn at(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.row_stride + col * self.col_stride]
    }

    /// Number of columns.
    pub(crate) fn width(&self) -> usize {
        self.cols
    }
}

impl<'a> ViewMut<'a> {
    /// A contiguous row-major matrix, [rows, cols].
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows begin `row_stride` apart.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride, 1), "view past the end of its slice");
        Self { data, rows, cols, row_stride }
    }
}

/// How a product meets what its destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// dst = scale · a b.
    Overwrite,
    /// dst += scale · a b.
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread: inside a parallel loop.
    One,
    /// All threads of the pool.
    All,
}

/// dst [m, n] (+)= scale · a [m, k] b [k, n].
pub(crate) fn gemm(dst: ViewMut, into: Into, scale: f32, a: View, b: View, threads: Threads) {
    assert!(dst.rows == a.rows && dst.cols == b.cols && a.cols == b.rows, "shapes of a product");
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
    // a small product is done before a second thread has woken up
    let small = dst.rows * dst.cols * a.cols < 48 * 48 * 256;
    let parallelism = match threads {
        Threads::All if !small => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: each view was checked against its slice when it was made, the shapes agree, and `dst` is
    // borrowed mutably, so it cannot overlap `a` or `b`.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            a.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            into == Into::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
