//! Small vectors and matrices in f64: the mathematics of combining gradients, without any model.

mod matrix;

pub use matrix::Matrix;
