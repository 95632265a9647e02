mod adapter;
mod gradients;
mod jacobian;
mod pairs;
