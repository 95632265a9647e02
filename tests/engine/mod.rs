mod adapter;
mod cost;
mod gradients;
mod jacobian;
mod pairs;
mod plan;
