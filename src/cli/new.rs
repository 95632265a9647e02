//! `raco new aggregator NAME`.

use std::io::Write;
use std::path::Path;

use clap::{Args, Subcommand};

use crate::error::{Error, Kind, Result, io_error};

use super::render;

/// Arguments of `raco new`.
#[derive(Args)]
pub(super) struct New {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write NAME.rhai, an aggregator that works and passes `raco check`, to change as you like.
    Aggregator {
        /// Name of the method and, with `.rhai`, of its file in the working directory.
        name: String,
        /// With a state that goes from call to call and into checkpoints.
        #[arg(long)]
        stateful: bool,
        /// On all coordinates of the gradients rather than on their Gramian: `direction` in place of `weights`.
        #[arg(long)]
        coordinates: bool,
    },
}

/// Writes the file and returns the exit code.
pub(super) fn run(new: &New) -> i32 {
    let What::Aggregator { name, stateful, coordinates } = &new.what;
    let template = match (coordinates, stateful) {
        (false, false) => include_str!("templates/weights.rhai"),
        (false, true) => include_str!("templates/weights_stateful.rhai"),
        (true, false) => include_str!("templates/direction.rhai"),
        (true, true) => include_str!("templates/direction_stateful.rhai"),
    };
    match write(name, template) {
        Ok(file) => {
            let next = "change it, then test what its header promises:";
            let _ = writeln!(
                std::io::stdout(),
                "{file} is written; {next}\n\n    raco check --method {file}\n    raco script scripts/raco_clip.rhai --aggregator {name}"
            );
            0
        }
        Err(error) => {
            let code = error.kind().exit_code();
            render::show(&error.into());
            code
        }
    }
}

fn write(name: &str, template: &str) -> Result<String> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letters) {
        return Err(Error::with_kind(Kind::Usage, format!("`{name}` is no name of an aggregator"))
            .help("use small letters, digits and `_`, a letter first: `raco new aggregator my_method`"));
    }
    let file = format!("{name}.rhai");
    let mut open = std::fs::File::options();
    let opened = open.write(true).create_new(true).open(Path::new(&file));
    let written = opened.and_then(|mut out| out.write_all(template.replace("NAME", name).as_bytes()));
    match written {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(format!("`{file}` is there already"))
                .help("choose another name, or move the file away"))
        }
        Err(error) => Err(io_error(&error, "write the aggregator", &file)),
    }
}
