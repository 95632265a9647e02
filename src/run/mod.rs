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
mod events;
mod facts;
mod figure;
mod files;
mod folder;
mod fronts;
mod fronts_view;
mod grid;
mod heat;
mod judge;
mod listing;
mod log;
mod meter;
mod palette;
mod plot;
mod points;
mod report;
mod row;
mod stored;
mod sweep;
mod table;

pub use checkpoint::Stateful;
pub use contour::Contours;
pub use events::write_events;
pub use figure::run_figure;
pub use files::write_whole;
pub use folder::{Run, RunOptions, Source};
pub use fronts::{
    Comparison, Control, Controlled, Ends, Estimate, Follows, FrontOptions, Fronts, Hypervolume, Matched,
    MeanPoint, Named, Place, Point, Variant, fronts,
};
pub use grid::Grid;
pub use judge::{Answer, Judge, Judged, Verdicts};
pub use listing::{Listing, Query, list_runs};
pub use log::{Log, flatten, read_log};
pub use meter::{Memory, Meter, memory, reset_peak_memory};
pub use palette::{Marker, method_color, method_marker};
pub use plot::{Plot, Series, Style, between};
pub use points::{Failed, Outcomes, points_of, read_points};
pub use report::write_report;
pub use row::{Responses, StepRow, cosines, named};
pub use stored::{StoredRun, find_runs};
pub use sweep::{Axes, Claim, Planned, Record, Status, Sweep, is_sweep, read_record, sweep_points};
pub use table::{Table, four_digits};
