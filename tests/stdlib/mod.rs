mod aggregators;
mod names;
mod tasks;
