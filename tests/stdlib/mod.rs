mod aggregators;
mod inspect_step;
mod losses;
mod names;
mod tasks;
