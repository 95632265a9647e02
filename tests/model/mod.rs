mod adapter;
mod config;
mod generate;
mod gguf;
mod golden;
mod weights;
