mod aggregators;
mod tasks;
