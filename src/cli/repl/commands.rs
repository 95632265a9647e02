//! Commands of the prompt: they begin with a colon, so that no variable is in their way.

use std::path::Path;

use crate::error::{Error, nearest};
use crate::run::write_whole;
use crate::script::{Entry, Failure, Live, Names, doc, entries};

use super::say;

/// A command.
pub(super) struct Command {
    pub name: &'static str,
    takes: &'static str,
    does: &'static str,
}

const HELP: Command =
    Command { name: "help", takes: "[NAME]", does: "what there is, or what a function takes" };
const WHO: Command = Command { name: "who", takes: "", does: "the variables, with what they are" };

/// The commands of the prompt.
pub(super) const COMMANDS: [Command; 6] = [
    HELP,
    WHO,
    Command { name: "run", takes: "FILE", does: "runs a script here: its variables stay" },
    Command { name: "reload", takes: "", does: "reads edited modules anew" },
    Command { name: "save", takes: "FILE", does: "writes the lines so far as a script" },
    Command { name: "quit", takes: "", does: "leaves" },
];

/// The commands at a pause of a script.
pub(super) const AT_PAUSE: [Command; 7] = [
    Command { name: "step", takes: "", does: "to the next statement, into functions that are called" },
    Command { name: "next", takes: "", does: "to the next statement, over functions that are called" },
    Command { name: "continue", takes: "", does: "goes on; the end of the input does the same" },
    Command { name: "quit", takes: "", does: "stops the run after this step, with a checkpoint" },
    Command { name: "where", takes: "", does: "the lines around this place" },
    WHO,
    HELP,
];

/// What a command asks of the loop that reads it.
pub(super) enum Outcome {
    Stay,
    Leave,
}

/// Runs a command of the prompt.
pub(super) fn run(live: &mut Live, command: &str) -> Result<Outcome, Failure> {
    let (name, rest) = split(command);
    match name {
        "run" => {
            let file = path(rest, "run")?;
            live.run_file(Path::new(file)).map(drop)?;
        }
        "reload" => live.reload(),
        "save" => save(live, Path::new(path(rest, "save")?))?,
        "quit" | "q" => return Ok(Outcome::Leave),
        _ => look(live, command, &COMMANDS)?,
    }
    Ok(Outcome::Stay)
}

/// Runs a command that only looks.
pub(super) fn look(live: &Live, command: &str, commands: &[Command]) -> Result<(), Error> {
    let (name, rest) = split(command);
    match name {
        "help" | "h" | "?" if rest.is_empty() => say(&overview(commands)),
        "help" | "h" | "?" => say(&help(live, rest)?),
        "who" => say(&who(live)),
        other => {
            let near = nearest(other, commands.iter().map(|command| command.name));
            let hint = near.first().map_or_else(String::new, |near| format!("did you mean `:{near}`? "));
            return Err(
                Error::new(format!("unknown command `:{other}`")).help(format!("{hint}`:help` lists them"))
            );
        }
    }
    Ok(())
}

/// The name of a command, and what follows it.
pub(super) fn split(command: &str) -> (&str, &str) {
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    (name, rest.trim())
}

fn path<'a>(rest: &'a str, command: &str) -> Result<&'a str, Error> {
    if rest.is_empty() {
        return Err(Error::new(format!("`:{command}` needs a file")).help(format!("write `:{command} FILE`")));
    }
    Ok(rest.trim_matches('"'))
}

fn overview(commands: &[Command]) -> String {
    let lines = commands.iter().map(|c| format!("  :{:<14} {}", format!("{} {}", c.name, c.takes), c.does));
    let lines: Vec<String> = lines.collect();
    format!(
        "Anything else is Rhai: `let x = 1`, `x + 1`. A value is shown.\nTab completes; Ctrl-C stops what runs.\n{}",
        lines.join("\n")
    )
}

fn help(live: &Live, name: &str) -> Result<String, Error> {
    let name = name.trim_end_matches(['(', ')']).rsplit(['.', ':']).next().unwrap_or(name);
    let found = doc::functions(name, live.session().console().width());
    if !found.is_empty() {
        return Ok(found);
    }
    let own = live.comments(name);
    if !own.is_empty() {
        return Ok(own.join("\n\n"));
    }
    let names = Names::new(live.engine());
    let words = names.words(live, "");
    let known = words.iter().map(|word| word.trim_end_matches('('));
    let all = entries();
    let near = nearest(name, known.chain(all.iter().flat_map(Entry::names)));
    let error = Error::new(format!("no function `{name}`"));
    Err(match near.first() {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help("press Tab on an empty line to see all names"),
    })
}

fn who(live: &Live) -> String {
    const PAPER: usize = 100;
    let columns = live.session().console().width().unwrap_or(PAPER).max(40);
    let widest = live.variables().map(|variable| variable.name.chars().count()).max().unwrap_or(0).min(24);
    let mut lines: Vec<String> = live
        .variables()
        .map(|variable| {
            let value = live.describe(variable.value, columns.saturating_sub(widest + 8));
            let constant = if variable.constant { "const " } else { "" };
            format!("  {:<widest$}  {constant}{value}", variable.name)
        })
        .collect();
    lines.extend(
        live.modules().iter().map(|module| format!("  {:<widest$}  module {}", module.alias, module.path)),
    );
    if lines.is_empty() { "nothing yet".to_owned() } else { lines.join("\n") }
}

fn save(live: &Live, path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::new("the file exists").in_file(path).help("give another name, or remove it"));
    }
    write_whole(path, live.script().as_bytes())
}
