//! `raco check FILE…` and `raco check --method FILE`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{Table, presets};

use crate::script::contract::{self, Plan, Property, Report};
use crate::script::{Console, Failure, Options, lint};

use super::terminal::Terminal;
use super::{render, script, work};

/// What takes no longer needs no progress bar.
const SILENCE: Duration = Duration::from_secs(1);

/// Arguments of `raco check`.
#[derive(Args)]
pub(super) struct Check {
    /// Scripts and modules, which are read and not run: names, numbers of arguments, options, unused variables.
    #[arg(value_name = "FILE", required_unless_present = "method", conflicts_with = "method")]
    files: Vec<PathBuf>,
    /// The aggregator: a file, or the name of one of the library. What its header lists under `Holds` is tested.
    #[arg(long, value_name = "FILE")]
    method: Option<String>,
    /// Cases of each family and number of rows.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Numbers of rows, with commas between.
    #[arg(long, value_name = "M,…", default_value = "1,2,3,8,32", value_delimiter = ',', value_parser = rows)]
    m: Vec<usize>,
    /// A folder with modules that the method imports; may be repeated.
    #[arg(long, value_name = "DIR")]
    lib: Vec<PathBuf>,
}

/// Reads scripts or tests an aggregator; the exit code is 1 where something is found or a promise is broken.
pub(super) fn run(mut check: Check) -> i32 {
    work::run(false, move |signals| {
        script::check_lib(&check.lib)?;
        match check.method.take() {
            Some(method) => tested(&method, check, signals.interrupt),
            None => read(check),
        }
    })
}

/// Tells what is wrong in each file.
fn read(check: Check) -> Result<i32, Failure> {
    let mut found = 0;
    for file in &check.files {
        let findings = lint(file, Options { lib: check.lib.clone(), ..Options::default() })?;
        findings.iter().for_each(render::show);
        found += findings.len();
    }
    let files = check.files.len();
    let what = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    let told =
        if found == 0 { format!("nothing found in {what}") } else { format!("{found} found in {what}") };
    Terminal::new().print(&told);
    Ok(i32::from(found > 0))
}

fn tested(method: &str, check: Check, interrupt: Arc<AtomicBool>) -> Result<i32, Failure> {
    let console = Rc::new(Terminal::new());
    let options = Options { lib: check.lib, console: console.clone(), interrupt, ..Options::default() };
    let plan = Plan { seeds: check.seeds, m: check.m };
    let begun = Instant::now();
    let progress = |done, total| {
        if begun.elapsed() > SILENCE {
            console.progress(done, total, "cases");
        }
    };
    let report = contract::check(method, options, &plan, progress);
    console.progress_end();
    let report = report?;
    console.print(text(&report, console.width().is_some()).trim_end());
    Ok(i32::from(!report.passed()))
}

fn text(report: &Report, terminal: bool) -> String {
    let mut text = String::new();
    // writing to a string does not fail
    let _ = write_report(&mut text, report, terminal);
    text
}

fn write_report(text: &mut String, report: &Report, terminal: bool) -> std::fmt::Result {
    let missing = report.cases - report.answered;
    writeln!(text, "{}: {} cases, {missing} without an answer", report.file, report.cases)?;
    for (error, count) in report.refusals.iter().take(5) {
        writeln!(text, "  {count} times: {error}")?;
    }
    let mut table = Table::new();
    table.load_style(if terminal { presets::UTF8_FULL_CONDENSED } else { presets::ASCII_MARKDOWN });
    table.set_header(["property", "result", "cases"]);
    let shown = report.results.iter().filter(|t| t.claimed || t.counterexample.is_some());
    for tested in shown.clone() {
        let fails = tested.counterexample.is_some() || !tested.holds;
        let result = match (fails, tested.claimed) {
            (true, true) => "FAILS",
            (true, false) => "not claimed, yet w takes part",
            (false, _) if tested.cases == 0 => "no case",
            (false, _) => "holds",
        };
        // one case is enough to show that w takes part
        let cases = match tested.property {
            Property::FollowsWeights => String::new(),
            _ => tested.cases.to_string(),
        };
        table.add_row([tested.property.name(), result, &cases]);
    }
    if table.row_count() > 0 {
        writeln!(text, "\n{table}")?;
    }
    for tested in shown.filter(|t| t.claimed && !t.holds && t.counterexample.is_none()) {
        writeln!(text, "\n`{}` fails on every case", tested.property.name())?;
    }
    let failing = report
        .results
        .iter()
        .filter_map(|t| Some((format!("`{}` fails", t.property.name()), t.counterexample.as_ref()?)));
    let broken = report.broken.iter().map(|found| ("not every case has an answer".to_owned(), found));
    for (what, found) in broken.chain(failing) {
        writeln!(text, "\n{what}; {found}\n\n  in a script:\n")?;
        for line in found.script(&report.file).lines() {
            writeln!(text, "    {line}")?;
        }
    }
    if report.answered == 0 {
        writeln!(text, "\nthe method answers no case")?;
    }
    let unclaimed: Vec<&str> = report.unclaimed().iter().map(|property| property.name()).collect();
    if report.answered > 0 && !unclaimed.is_empty() {
        let what = if report.claims { "holds on all cases, not claimed" } else { "holds on all cases" };
        writeln!(text, "\n{what}: {}", unclaimed.join(", "))?;
    }
    if !report.claims {
        writeln!(text, "\nthe header claims nothing: list under `//! Holds` what the method promises")?;
    } else if !report.header.missing().is_empty() {
        writeln!(text, "\nthe header lacks {}", report.header.missing().join(", "))?;
    }
    Ok(())
}

fn rows(text: &str) -> Result<usize, String> {
    let m = text.trim().parse::<usize>().ok().filter(|m| (1..=64).contains(m));
    m.ok_or_else(|| "expected numbers from 1 to 64, such as 1,2,3".to_owned())
}
