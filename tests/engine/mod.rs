mod adapter;
mod gradients;
mod jacobian;
