//! `raco report DIR…`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::run::write_report;

use super::work;

/// Arguments of `raco report`.
#[derive(Args)]
pub(super) struct Report {
    /// Folders of runs, or folders that hold runs.
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    out: PathBuf,
}

/// Writes the report and returns the exit code.
pub(super) fn run(report: Report) -> i32 {
    work::run(false, move |_| {
        let notes = write_report(&report.dirs, &report.out)?;
        for note in notes {
            // a closed pipe ends the output
            let _ = writeln!(std::io::stderr(), "note: {note}");
        }
        let _ = writeln!(std::io::stdout(), "the report is {}", report.out.display());
        Ok(0)
    })
}
