//! Lines that fit the terminal.

/// Lines of at most `width`, broken between words.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let letters = word.chars().count();
        if used > 0 && used + 1 + letters > width {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out += word;
        used += letters;
    }
    out
}

/// Markdown as plain text: paragraphs are filled anew up to `width`, if one is given; the code of an example stays,
/// without its marks.
pub(super) fn plain(text: &str, width: Option<usize>) -> Vec<String> {
    let (mut lines, mut paragraph, mut code) = (Vec::new(), Vec::new(), false);
    let fill = |lines: &mut Vec<String>, paragraph: &mut Vec<&str>| {
        let taken = std::mem::take(paragraph);
        match width {
            _ if taken.is_empty() => {}
            Some(width) => lines.extend(wrapped(&taken.join(" "), width).lines().map(str::to_owned)),
            None => lines.extend(taken.into_iter().map(str::to_owned)),
        }
    };
    for line in text.lines() {
        let mark = line.starts_with("```");
        // items and rows begin lines of their own
        if mark || code || line.is_empty() || line.starts_with(['-', '|']) {
            fill(&mut lines, &mut paragraph);
        }
        code ^= mark;
        match line {
            _ if mark => {}
            line if code || line.is_empty() || line.starts_with('|') => lines.push(line.to_owned()),
            line => paragraph.push(line),
        }
    }
    fill(&mut lines, &mut paragraph);
    lines
}
