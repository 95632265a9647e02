//! Errors as rustc draws them.

use std::io::{IsTerminal, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::error::{Kind, Place};
use crate::script::{Failure, Frame};

/// Writes a failure to stderr.
pub(super) fn show(failure: &Failure) {
    let colour = colour_is_welcome() && std::io::stderr().is_terminal();
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    // stderr may be closed; there is nobody left to tell
    let _ = writeln!(std::io::stderr(), "{}", draw(failure, &renderer));
}

/// False where the user asked for none (<https://no-color.org>).
pub(super) fn colour_is_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn draw(failure: &Failure, renderer: &Renderer) -> String {
    let error = &failure.error;
    let level = match error.kind() {
        Kind::Interrupted => Level::NOTE,
        _ => Level::ERROR,
    };
    let shown = shown(failure);
    let spans: Vec<(&Frame, Range<usize>)> = shown.iter().map(|frame| (*frame, span(frame))).collect();
    let title: String = places(error.places()) + error.what();
    let mut group: Group = Group::with_title(level.primary_title(title.as_str()));
    if let Some((frame, span)) = spans.first() {
        group = group.element(
            Snippet::source(frame.text.as_str())
                .path(frame.source.as_str())
                .annotation(AnnotationKind::Primary.span(span.clone())),
        );
    }
    let notes: Vec<String> = trace(failure, shown.first().copied());
    for note in &notes {
        group = group.element(Level::NOTE.no_name().message(note.as_str()));
    }
    let help = error.help_text().map(|help| Group::with_title(Level::HELP.secondary_title(help)));
    if spans.is_empty() {
        // without a source, a line that joins the two parts would join nothing
        let help = help.map_or_else(String::new, |help| format!("\n{}", renderer.render(&[help])));
        return format!("{}{help}", renderer.render(&[group]));
    }
    let report: Vec<Group> = std::iter::once(group).chain(help).collect();
    renderer.render(&report)
}

/// The frame with the caret: the innermost one outside stdlib, which is what the user can change. A stopped
/// run and a wrong command line have none: no line of the script is at fault.
fn shown(failure: &Failure) -> Vec<&Frame> {
    if matches!(failure.error.kind(), Kind::Interrupted | Kind::Usage) {
        return Vec::new();
    }
    let own = failure.frames.iter().rev().find(|frame| !frame.source.starts_with("stdlib/"));
    own.or(failure.frames.last()).into_iter().collect()
}

/// The other frames: `in` what lies deeper than the caret, `called from` what lies above.
fn trace(failure: &Failure, shown: Option<&Frame>) -> Vec<String> {
    let Some(shown) = shown.and_then(|s| failure.frames.iter().position(|f| std::ptr::eq(f, s))) else {
        return Vec::new();
    };
    let mut notes = Vec::new();
    for i in shown + 1..failure.frames.len() {
        notes.push(format!("in {}, at {}", failure.frames[i - 1].enters, failure.frames[i]));
    }
    for frame in failure.frames[..shown].iter().rev() {
        notes.push(format!("{} called at {frame}", frame.enters));
    }
    const MOST: usize = 8;
    if notes.len() > MOST {
        let left_out = notes.len() - MOST;
        notes.splice(MOST / 2..MOST / 2 + left_out, [format!("… {left_out} more …")]);
    }
    notes
}

/// Data file, tensor, key: the places that the error itself knows.
fn places(places: &[Place]) -> String {
    places.iter().rev().map(|place| format!("{place}: ")).collect()
}

/// The word or sign at the frame's position, in bytes.
fn span(frame: &Frame) -> Range<usize> {
    let start_of_line: usize =
        frame.text.split_inclusive('\n').take(frame.line.saturating_sub(1)).map(str::len).sum();
    let line = frame.text[start_of_line..].lines().next().unwrap_or_default();
    let at = line.char_indices().nth(frame.column.saturating_sub(1)).map_or(line.len(), |(i, _)| i);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let rest = &line[at..];
    let len = match rest.chars().next() {
        Some(first) if word(first) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
        Some(first) => first.len_utf8(),
        None => 0,
    };
    start_of_line + at..start_of_line + at + len
}
