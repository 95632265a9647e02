mod gramian;
mod matrix;
mod simplex;
