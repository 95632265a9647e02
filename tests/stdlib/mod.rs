mod aggregators;
mod contract;
mod inspect_step;
mod losses;
mod names;
mod problems;
mod real;
mod tasks;
