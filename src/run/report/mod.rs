//! The report: one HTML file on one run or many, with its pictures and numbers in it and nothing fetched.
//!
//! Folders → [`StoredRun`]s → [`Page`](page::Page), which knows nothing of HTML but its pictures → `page.html`.

mod chart;
mod many;
mod one;
mod page;

use std::path::{Path, PathBuf};

use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde_json::json;

use super::plot::theme;
use super::stored::utc;
use super::{StoredRun, find_runs, write_whole};
use crate::error::{Error, Result};
use page::{Block, Page, Part, Section, Table};

/// Runs that are shown each on its own; of more only what they have in common is.
const EACH: usize = 4;

/// Writes the report on the runs at or below `dirs` to `path`; returns what the user should know: folders that are
/// broken or half written, with the reason.
///
/// # Errors
/// A folder without any run, a file that cannot be written.
pub fn write_report(dirs: &[PathBuf], path: &Path) -> Result<Vec<String>> {
    let runs = find_runs(dirs)?;
    let notes = problems(&runs);
    write_whole(path, render(&page(&runs)?)?.as_bytes())?;
    Ok(notes)
}

fn problems(runs: &[StoredRun]) -> Vec<String> {
    runs.iter().flat_map(|run| run.problems.iter().map(|what| format!("{}: {what}", run.name))).collect()
}

fn page(runs: &[StoredRun]) -> Result<Page> {
    let mut parts = Vec::new();
    if let [run] = runs {
        parts.push(Part { title: String::new(), ..one::part(run, "run")? });
    } else {
        parts.push(many::part(runs)?);
        let each = if runs.len() <= EACH { runs } else { &[] };
        for (i, run) in each.iter().enumerate() {
            parts.push(one::part(run, &format!("run{}", i + 1))?);
        }
    }
    let problems = problems(runs);
    if !problems.is_empty() {
        let mut table =
            Table::new("Folders that are broken, half written or failed", &["run", "what is wrong"]);
        for run in runs {
            run.problems.iter().for_each(|what| table.push([json!(run.name), json!(what)]));
        }
        let text = "What could be read of these runs is shown; the rest is missing from the report.";
        let section = Section::new("problems", "Problems", [text]).with(Block::table(table));
        parts.insert(0, Part { id: "problems-part".into(), title: String::new(), sections: vec![section] });
    }
    let title = match runs {
        [run] => format!("Report on {}", run.name),
        _ => format!("Report on {} runs", runs.len()),
    };
    Ok(Page { title, version: env!("CARGO_PKG_VERSION"), made: now(), theme: theme(), parts })
}

fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    utc(now.map_or(0, |now| now.as_secs()))
}

fn render(page: &Page) -> Result<String> {
    let filled_in = || -> std::result::Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        // the name's ending turns escaping on: responses may hold HTML
        environment.add_template("page.html", include_str!("page.html"))?;
        environment.get_template("page.html")?.render(Serde(page))
    };
    filled_in().map_err(|error| Error::internal(format!("cannot fill in the report: {error:#}")))
}
