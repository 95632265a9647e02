//! `raco doc [NAME]`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Result, io_error};
use crate::run::write_whole;
use crate::script::doc;

use super::render;

/// Arguments of `raco doc`.
#[derive(Args)]
pub(super) struct Doc {
    /// An aggregator or a loss of the library, or a file of yours; without it, all of the library are listed.
    name: Option<String>,
    /// Write the pages of the reference into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    markdown: Option<PathBuf>,
}

/// Prints or writes the reference and returns the exit code.
pub(super) fn run(doc: &Doc) -> i32 {
    let text = match doc {
        Doc { markdown: Some(folder), .. } => write(folder),
        Doc { name: Some(name), .. } => doc::entry(name).map(|entry| entry.text()),
        _ => Ok(list()),
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

fn list() -> String {
    let library = doc::library();
    let wide = library.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let (mut text, mut folder) = (String::new(), "");
    for entry in &library {
        if entry.folder != folder {
            folder = entry.folder;
            text += &format!("{}{folder}\n", if text.is_empty() { "" } else { "\n" });
        }
        text += &format!("  {:wide$}  {}\n", entry.name, entry.header.summary);
    }
    text
}

fn write(folder: &std::path::Path) -> Result<String> {
    let pages = doc::pages();
    for (path, text) in &pages {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| io_error(&e, "make the folder", parent))?;
        }
        write_whole(&path, text.as_bytes())?;
    }
    Ok(format!("{} pages are in {}", pages.len(), folder.display()))
}
