//! A line of Rhai in pieces, as far as a prompt needs them: to colour them, and to see whether more has to come.

use std::ops::Range;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Keyword,
    Name,
    /// A name before a bracket.
    Call,
    Number,
    String,
    Comment,
    Open,
    Close,
    Other,
}

/// A piece and its bytes; what lies between pieces is blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub kind: Kind,
    pub range: Range<usize>,
}

/// The pieces of a text.
pub(super) struct Scan {
    pub pieces: Vec<Piece>,
    /// A string, comment or bracket is still open at the end.
    pub unfinished: bool,
    /// Start of the string that is open at the end.
    pub open_string: Option<usize>,
}

/// Takes a text apart.
pub(super) fn scan(text: &str, keywords: &[&str]) -> Scan {
    let mut scan = Scan { pieces: Vec::new(), unfinished: false, open_string: None };
    let mut depth = 0_i64;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (kind, len) = match c {
            '"' | '`' | '\'' => match string(rest, c) {
                Some(len) => (Kind::String, len),
                None => {
                    // a plain string ends with its line, closed or not
                    let line = if c == '`' { None } else { rest.find('\n') };
                    let len = line.unwrap_or(rest.len());
                    scan.unfinished |= c == '`';
                    if len == rest.len() {
                        scan.open_string = Some(at);
                    }
                    (Kind::String, len)
                }
            },
            _ if rest.starts_with("//") => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
            _ if rest.starts_with("/*") => match rest[2..].find("*/") {
                Some(end) => (Kind::Comment, end + 4),
                None => {
                    scan.unfinished = true;
                    (Kind::Comment, rest.len())
                }
            },
            _ if c.is_ascii_digit() => (Kind::Number, number(rest)),
            _ if c.is_alphabetic() || c == '_' => {
                let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let kind = match &rest[..len] {
                    word if keywords.contains(&word) => Kind::Keyword,
                    _ if rest[len..].starts_with('(') => Kind::Call,
                    _ => Kind::Name,
                };
                (kind, len)
            }
            '(' | '[' | '{' => {
                depth += 1;
                (Kind::Open, 1)
            }
            ')' | ']' | '}' => {
                depth -= 1;
                (Kind::Close, 1)
            }
            _ => (Kind::Other, c.len_utf8()),
        };
        scan.pieces.push(Piece { kind, range: at..at + len });
        at += len;
    }
    scan.unfinished |= depth > 0;
    scan
}

/// Length of the string that begins the text, with its quotes; `None` where it does not end.
fn string(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            '\n' if quote != '`' => return None,
            c if c == quote => return Some(i + 1),
            _ => {}
        }
    }
    None
}

fn number(text: &str) -> usize {
    let mut previous = ' ';
    let end = text.char_indices().find(|(i, c)| {
        let exponent = matches!(previous, 'e' | 'E') && matches!(c, '+' | '-');
        let point = *c == '.' && text[i + 1..].starts_with(|c: char| c.is_ascii_digit());
        previous = *c;
        !(c.is_ascii_alphanumeric() || *c == '_' || exponent || point)
    });
    end.map_or(text.len(), |(i, _)| i)
}

/// The bracket that belongs to the one at byte `at`.
pub(super) fn partner(pieces: &[Piece], at: usize) -> Option<usize> {
    let here = pieces.iter().position(|p| p.range.start == at)?;
    let step = |kind: Kind| match kind {
        Kind::Open => 1,
        Kind::Close => -1,
        _ => 0,
    };
    let mut depth = 0;
    let find = |p: &&Piece| {
        depth += step(p.kind);
        depth == 0
    };
    match pieces[here].kind {
        Kind::Open => pieces[here..].iter().find(find),
        Kind::Close => pieces[..=here].iter().rev().find(find),
        _ => None,
    }
    .map(|piece| piece.range.start)
}

/// Name of the function whose argument the end of the text is.
pub(super) fn open_call(text: &str, pieces: &[Piece]) -> Option<String> {
    let mut depth = 0;
    let open = pieces.iter().rposition(|piece| {
        depth += match piece.kind {
            Kind::Open => 1,
            Kind::Close => -1,
            _ => 0,
        };
        depth == 1
    })?;
    let name = pieces.get(open.checked_sub(1)?)?;
    (name.kind == Kind::Call && &text[pieces[open].range.clone()] == "(")
        .then(|| text[name.range.clone()].to_owned())
}
