//! The command line: argument parsing and the only printing.

mod check;
mod doc;
mod new;
mod render;
mod repl;
mod report;
mod runs;
mod script;
mod terminal;
mod work;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Train a language model on preferences that disagree, by scripts.
#[derive(Parser)]
#[command(name = "raco", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a script. `raco script FILE --help` lists what the script takes.
    #[command(disable_help_flag = true)]
    Script {
        #[command(flatten)]
        own: script::Own,
        /// The script.
        file: PathBuf,
        /// Arguments of the script: `--key value`; `--resume DIR` continues a stopped run. The options above may stand
        /// here, too.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--KEY VALUE")]
        args: Vec<String>,
    },
    /// A prompt: look at models, pairs and gradients, and try ideas on them. `:help` tells what it takes.
    Repl {
        /// A folder with modules of your own, searched after the script's folder; may be repeated.
        #[arg(long, value_name = "DIR")]
        lib: Vec<PathBuf>,
        /// A script that runs first; its variables stay.
        file: Option<PathBuf>,
        /// Arguments of the script: `--key value`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--KEY VALUE")]
        args: Vec<String>,
    },
    /// Read scripts for mistakes without running them; or test what an aggregator promises, `--method FILE`.
    Check(check::Check),
    /// Write a file to start from.
    New(new::New),
    /// Print what a function, an aggregator, a loss, a problem or a task is; without a name, all that there is.
    Doc(doc::Doc),
    /// Write one HTML file on runs: pictures, numbers, responses, provenance.
    Report(report::Report),
    /// List the runs in a folder, or write their logs for TensorBoard.
    Runs(runs::Runs),
}

/// Runs the program with these arguments and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {
            Command::Script { own, file, args } => script::run(own, file, args),
            Command::Repl { lib, file, args } => repl::run(lib, file, args),
            Command::Check(check) => check::run(check),
            Command::New(new) => new::run(&new),
            Command::Doc(doc) => doc::run(&doc),
            Command::Report(report) => report::run(report),
            Command::Runs(runs) => runs::run(runs),
        },
        Err(error) => {
            // the terminal may be gone; there is nobody left to tell
            let _ = error.print();
            error.exit_code()
        }
    }
}
