mod adapter;
mod jacobian;
