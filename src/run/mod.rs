//! What a run leaves in its folder: the script and modules used, arguments, versions, the log, checkpoints
//! that resume to the same bytes, plots.
//!
//! ```text
//!     NAME/  run.json  args.json  log.csv  log.jsonl  run.svg
//!            source/SCRIPT.rhai  source/modules/…
//!            checkpoints/step-N/  checkpoint.json  model/  optimizer/  …
//! ```
//!
//! Nothing here prints: what the user should be told is returned.

mod axis;
mod checkpoint;
mod contour;
mod facts;
mod figure;
mod files;
mod folder;
mod grid;
mod log;
mod meter;
mod plot;
mod row;

pub use checkpoint::Stateful;
pub use contour::Contours;
pub use figure::run_figure;
pub use files::write_whole;
pub use folder::{Run, RunOptions, Source};
pub use grid::Grid;
pub use log::{Log, columns, flatten, read_log};
pub use meter::{Memory, Meter, memory};
pub use plot::{Plot, Series, Style};
pub use row::{Responses, StepRow, cosines, named};
