//! `raco doc [NAME]`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Result, io_error};
use crate::run::write_whole;
use crate::script::{Host, Options, definitions, doc};

use super::render;

/// Arguments of `raco doc`.
#[derive(Args)]
pub(super) struct Doc {
    /// A function, a file of the library, or a file of yours; without it, all are listed.
    name: Option<String>,
    /// Write the pages of the reference into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    markdown: Option<PathBuf>,
    /// Write definition files for editors into this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["name", "markdown"])]
    definitions: Option<PathBuf>,
}

/// Prints or writes the reference and returns the exit code.
pub(super) fn run(doc: &Doc) -> i32 {
    let text = match doc {
        Doc { markdown: Some(folder), .. } => write(folder, &doc::pages(), "pages"),
        Doc { definitions: Some(folder), .. } => Host::new(Options::default())
            .and_then(|host| write(folder, &definitions(host.engine()), "definition files")),
        Doc { name: Some(name), .. } => doc::text(name),
        _ => Ok(doc::overview()),
    };
    match text {
        Ok(text) => {
            // a closed pipe ends the output
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            0
        }
        Err(error) => {
            let code = error.kind().exit_code();
            render::show(&error.into());
            code
        }
    }
}

fn write(folder: &std::path::Path, files: &[(String, String)], what: &str) -> Result<String> {
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| io_error(&e, "make the folder", parent))?;
        }
        write_whole(&path, text.as_bytes())?;
    }
    Ok(format!("{} {what} are in {}", files.len(), folder.display()))
}
