//! The header of a library file: what it is, its definition, and what it promises.

use super::contract::Property;
use crate::error::{Error, Result, nearest};

/// Words that begin a section, in their order.
pub const SECTIONS: [&str; 8] =
    ["Reads", "Options", "Returns", "Holds", "Notes", "Errors", "Source", "Usage"];

/// The `//!` lines at the top of a file.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// The name before the first colon; empty where there is none.
    pub name: String,
    /// The rest of the first paragraph, without the full stop.
    pub summary: String,
    /// Lines between the first paragraph and the first section, without their common indent.
    pub definition: Vec<String>,
    sections: Vec<Section>,
}

#[derive(Debug, Clone)]
struct Section {
    name: &'static str,
    lines: Vec<String>,
    /// Line of the file, from 1.
    line: usize,
}

impl Header {
    /// Reads the lines that begin with `//!`; all is empty where there are none.
    pub fn parse(text: &str) -> Self {
        let mut header = Self::default();
        let mut first = Vec::new();
        let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
        for (i, line) in lines.enumerate() {
            let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
            let begins = SECTIONS.into_iter().find(|name| {
                line.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            });
            if let Some(name) = begins {
                let lines = vec![line[name.len()..].trim().to_owned()];
                header.sections.push(Section { name, lines, line: i + 1 });
            } else if let Some(section) = header.sections.last_mut() {
                section.lines.push(line.trim().to_owned());
            } else if header.definition.is_empty() && !line.is_empty() && !line.starts_with("    ") {
                first.push(line.to_owned());
            } else {
                header.definition.push(line.to_owned());
            }
        }
        let first = first.join(" ");
        let first = first.trim_end_matches('.');
        let (name, summary) = first.split_once(": ").unwrap_or(("", first));
        (header.name, header.summary) = (name.to_owned(), summary.to_owned());
        header.definition = flush(&header.definition);
        for section in &mut header.sections {
            section.lines.retain(|line| !line.is_empty());
        }
        header
    }

    /// The lines of a section, empty where it is missing.
    pub fn section(&self, name: &str) -> &[String] {
        self.sections.iter().find(|s| s.name == name).map_or(&[], |s| &s.lines)
    }

    /// The sections that an aggregator should have and this header lacks; `Notes` may be left out.
    pub fn missing(&self) -> Vec<&'static str> {
        let lacks = |name: &&str| *name != "Notes" && self.section(name).is_empty();
        SECTIONS.into_iter().filter(lacks).collect()
    }

    /// The properties named under `Holds`; `None` without that section. `file` stands for the header in messages.
    ///
    /// # Errors
    /// A name that is no property.
    pub fn claims(&self, file: &str) -> Result<Option<Vec<Property>>> {
        let Some(section) = self.sections.iter().find(|s| s.name == "Holds") else { return Ok(None) };
        let mut claims = Vec::new();
        for (i, line) in section.lines.iter().enumerate() {
            for name in line.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let claim = Property::ALL.into_iter().find(|p| p.name() == name);
                claims.push(claim.ok_or_else(|| unknown(name).at_line(file, section.line + i))?);
            }
        }
        Ok(Some(claims))
    }
}

fn unknown(name: &str) -> Error {
    let known = || Property::ALL.iter().map(|p| p.name());
    let help = match nearest(name, known()).first() {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!("`Holds` takes {}; all else goes under `Notes`", known().collect::<Vec<_>>().join(", "))
        }
    };
    Error::new(format!("unknown property `{name}`")).help(help)
}

/// Without blank lines at both ends and without the common indent.
fn flush(lines: &[String]) -> Vec<String> {
    let full = |line: &&String| !line.is_empty();
    let indent = lines.iter().filter(full).map(|l| l.len() - l.trim_start().len()).min().unwrap_or(0);
    let start = lines.iter().position(|l| !l.is_empty()).unwrap_or(lines.len());
    let end = lines.iter().rposition(|l| !l.is_empty()).map_or(start, |i| i + 1);
    lines[start..end].iter().map(|l| l.get(indent..).unwrap_or_default().to_owned()).collect()
}
