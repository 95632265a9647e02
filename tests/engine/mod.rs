mod adapter;
mod cost;
mod generic;
mod gradients;
mod jacobian;
mod pairs;
mod plan;
mod unformed;
