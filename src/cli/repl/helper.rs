//! Completion, colours, hints and line breaks of the prompt.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use crate::script::{KEYWORDS, Live, Names};

use super::commands::Command;
use super::scan::{Kind, open_call, partner, scan};

/// What rustyline asks about a line.
pub(super) struct Prompt<'e> {
    live: Rc<RefCell<Live<'e>>>,
    commands: &'static [Command],
    names: RefCell<Option<Names>>,
    files: FilenameCompleter,
    colour: bool,
}

impl<'e> Prompt<'e> {
    pub fn new(live: Rc<RefCell<Live<'e>>>, commands: &'static [Command], colour: bool) -> Self {
        Self { live, commands, names: RefCell::new(None), files: FilenameCompleter::new(), colour }
    }

    /// Forgets what the last line may have changed.
    pub fn refresh(&self) {
        self.names.replace(None);
    }

    fn ask<T>(&self, question: impl FnOnce(&Names, &Live) -> T) -> T {
        let live = self.live.borrow();
        let mut names = self.names.borrow_mut();
        question(names.get_or_insert_with(|| Names::new(live.engine())), &live)
    }
}

impl Helper for Prompt<'_> {}

impl Completer for Prompt<'_> {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let text = &line[..pos];
        let command = text.trim_start().strip_prefix(':');
        if let Some((name, _)) = command.and_then(|c| c.split_once(' '))
            && matches!(name, "run" | "save")
        {
            return self.files.complete(line, pos, context);
        }
        if let Some(start) = command.filter(|c| !c.contains(' ')) {
            let names =
                self.commands.iter().map(|c| c.name.to_owned()).filter(|name| name.starts_with(start));
            return Ok((pos - start.len(), pairs(names.collect())));
        }
        if let Some(open) = scan(text, &KEYWORDS).open_string {
            let (before, start) = (text[..open].trim_end(), &text[open + 1..]);
            if before.ends_with("import") || before.ends_with("aggregator(") {
                let prefix = if before.ends_with("import") { "" } else { "aggregators/" };
                let found = Names::modules(&self.live.borrow(), &format!("{prefix}{start}"));
                let found = found.into_iter().map(|name| name[prefix.len()..].to_owned());
                return Ok((open + 1, pairs(found.collect())));
            }
            return self.files.complete(line, pos, context);
        }
        let from = text
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |i| i + text[i..].chars().next().map_or(1, char::len_utf8));
        let (before, start) = text.split_at(from);
        let found = if let Some(path) = before.strip_suffix('.') {
            self.ask(|names, live| names.members(live, last_path(path), start))
        } else if let Some(path) = before.strip_suffix("::") {
            self.ask(|names, live| names.of_module(live, last_path(path), start))
        } else {
            self.ask(|names, live| names.words(live, start))
        };
        Ok((from, pairs(found)))
    }
}

/// The path of names at the end of a text.
fn last_path(text: &str) -> &str {
    let from = text.rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').map_or(0, |i| i + 1);
    text.get(from..).unwrap_or_default()
}

fn pairs(words: Vec<String>) -> Vec<Pair> {
    words.into_iter().map(|word| Pair { display: word.clone(), replacement: word }).collect()
}

impl Hinter for Prompt<'_> {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, _context: &Context<'_>) -> Option<String> {
        if pos < line.len() || line.starts_with(':') {
            return None;
        }
        let name = open_call(line, &scan(line, &KEYWORDS).pieces)?;
        let signatures = self.ask(|names, live| names.signatures(live, &name));
        let first = signatures.first()?;
        let more = signatures.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!("   {first}{more}"))
    }
}

impl Highlighter for Prompt<'_> {
    fn highlight<'l>(&self, line: &'l str, pos: usize) -> Cow<'l, str> {
        if !self.colour || line.starts_with(':') {
            return line.into();
        }
        let pieces = scan(line, &KEYWORDS).pieces;
        let under = |at: usize| partner(&pieces, at).map(|other| [at, other]);
        let matched = under(pos).or_else(|| under(pos.checked_sub(1)?)).unwrap_or([usize::MAX; 2]);
        let (mut out, mut at) = (String::with_capacity(2 * line.len()), 0);
        for piece in &pieces {
            out.push_str(&line[at..piece.range.start]);
            let code = match piece.kind {
                Kind::Open | Kind::Close if matched.contains(&piece.range.start) => "1;4",
                // as far from white as from black, which the first eight colours are not
                Kind::Keyword => "38;5;133",
                Kind::Call => "38;5;32",
                Kind::Number => "38;5;30",
                Kind::String => "38;5;28",
                Kind::Comment => "2",
                _ => "",
            };
            let text = &line[piece.range.clone()];
            if code.is_empty() {
                out.push_str(text);
            } else {
                out.push_str(&format!("\x1b[{code}m{text}\x1b[0m"));
            }
            at = piece.range.end;
        }
        out.push_str(&line[at..]);
        out.into()
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.colour { format!("\x1b[2m{hint}\x1b[0m").into() } else { hint.into() }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        if self.colour { format!("\x1b[1m{prompt}\x1b[0m").into() } else { prompt.into() }
    }

    fn highlight_char(&self, _line: &str, _pos: usize, _kind: CmdKind) -> bool {
        self.colour
    }
}

impl Validator for Prompt<'_> {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        // a blank line ends what would otherwise go on for ever
        let unfinished =
            !text.starts_with(':') && scan(text, &KEYWORDS).unfinished && !text.ends_with("\n\n");
        Ok(if unfinished { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}
