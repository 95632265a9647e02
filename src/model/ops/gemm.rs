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
    // SAFETY: each view was checked against its slice when it was made, the shapes agree, and `dst` is
    // borrowed mutably, so it cannot overlap `a` or `b`.
    #[allow(unsafe_code)]
    unsafe {
        product(dst.data.as_mut_ptr(), dst.row_stride, into, scale, a, b, threads);
    }
}

/// A new matrix that products write, some columns after the other: no number is cleared first.
pub(crate) struct Columns {
    /// Room for [rows, cols]; of every row the first `written` numbers are there.
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    written: usize,
}

impl Columns {
    /// A matrix of which nothing is written.
    pub(crate) fn new(rows: usize, cols: usize) -> Self {
        Self { data: Vec::with_capacity(rows * cols), rows, cols, written: 0 }
    }

    /// The next columns: a [rows, k] b [k, n].
    pub(crate) fn push(&mut self, a: View, b: View, threads: Threads) {
        assert!(a.rows == self.rows && a.cols == b.rows, "shapes of a product");
        assert!(self.written + b.cols <= self.cols, "columns past the end of the matrix");
        // SAFETY: there is room for all rows of all columns, nothing else points to it, and a product that overwrites
        // does not read.
        #[allow(unsafe_code)]
        unsafe {
            let dst = self.data.as_mut_ptr().wrapping_add(self.written);
            product(dst, self.cols, Into::Overwrite, 1.0, a, b, threads);
        }
        self.written += b.cols;
    }

    /// The matrix, row after row.
    pub(crate) fn finish(mut self) -> Vec<f32> {
        assert!(self.written == self.cols, "columns that nothing was written to");
        // SAFETY: every column of every row was written.
        #[allow(unsafe_code)]
        unsafe {
            self.data.set_len(self.rows * self.cols);
        }
        self.data
    }
}

/// dst (+)= scale · a [m, k] b [k, n], dst [m, n] with rows `row_stride` apart.
///
/// # Safety
/// `dst` has that many numbers, which no one else sees; they mean something if they are added to.
#[allow(unsafe_code)]
unsafe fn product(
    dst: *mut f32,
    row_stride: usize,
    into: Into,
    scale: f32,
    a: View,
    b: View,
    threads: Threads,
) {
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    // a small product is done before a second thread has woken up
    let small = a.rows * b.cols * a.cols < 48 * 48 * 256;
    let parallelism = match threads {
        Threads::All if !small => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: views were checked against their slices when they were made; `dst` is the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            dst,
            1,
            row_stride as isize,
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
