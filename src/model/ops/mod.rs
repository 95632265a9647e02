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
pub(crate) mod norm;
pub(crate) mod simd;

/// Rows that one parallel task works on.
pub(crate) fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(4 * rayon::current_num_threads()).clamp(1, 64)
}
