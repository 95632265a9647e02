mod adapter;
mod generic;
mod gradients;
mod jacobian;
mod pairs;
