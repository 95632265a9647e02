mod config;
mod generate;
mod golden;
mod weights;
