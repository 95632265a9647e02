mod adapter;
mod config;
mod generate;
mod golden;
mod weights;
