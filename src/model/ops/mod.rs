//! Fused CPU kernels on plain slices. Each is the forward of one operation of a decoder, and its backward.
//!
//! Loops are written so that the compiler vectorises them; [`simd::dispatch`] compiles each for several
//! instruction sets and chooses at run time.

pub(crate) mod attention;
pub(crate) mod cache;
pub(crate) mod gemm;
pub(crate) mod glu;
pub(crate) mod head;
pub(crate) mod kept;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod simd;

use std::cell::RefCell;

/// Rows that one parallel task works on.
pub(crate) fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(4 * rayon::current_num_threads()).clamp(1, 64)
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with a place for `len` numbers that this thread has used before: they mean nothing.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // taken out, so that work inside work gets a place of its own
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}
