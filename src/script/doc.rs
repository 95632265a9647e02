//! The reference of the library's files, from their headers.

use std::fmt::Write;
use std::path::Path;

use super::contract::Property;
use super::header::{Header, SECTIONS};
use super::resolver::STDLIB;
use super::{reference, suggest, wrap};
use crate::error::{Error, Result, nearest};

/// Folders whose files have a header, in the order of the reference.
const FOLDERS: [&str; 2] = ["aggregators", "losses"];

/// A file of the library.
#[derive(Debug, Clone)]
pub struct Entry {
    /// `aggregators` or `losses`.
    pub folder: &'static str,
    /// File name without its ending.
    pub name: String,
    /// Its header.
    pub header: Header,
    /// Heads of its functions, where the text tells them.
    functions: Vec<String>,
}

/// All files of the library that have a header, sorted by folder and name.
pub fn library() -> Vec<Entry> {
    let mut entries = Vec::new();
    for folder in FOLDERS {
        let files = STDLIB.get_dir(folder).map_or_else(Vec::new, |dir| dir.files().collect());
        let mut found: Vec<Entry> = files
            .into_iter()
            .filter_map(|file| {
                let name = file.path().file_stem()?.to_string_lossy().into_owned();
                Some(Entry {
                    folder,
                    name,
                    header: Header::parse(file.contents_utf8()?),
                    functions: Vec::new(),
                })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        entries.extend(found);
    }
    entries
}

/// The entry of a library file by its name, or of a file by its path.
///
/// # Errors
/// A name that is neither, with the nearest.
pub fn entry(name: &str) -> Result<Entry> {
    if name.ends_with(".rhai") && Path::new(name).is_file() {
        let text = std::fs::read_to_string(name).map_err(|e| crate::error::io_error(&e, "read", name))?;
        return Ok(Entry {
            folder: "",
            name: name.to_owned(),
            header: Header::parse(&text),
            functions: Vec::new(),
        });
    }
    let mut library = library();
    if let Some(at) = library.iter().position(|entry| entry.name == name) {
        return Ok(library.swap_remove(at));
    }
    if let Some((path, text)) =
        modules(&FOLDERS).into_iter().find(|(path, _)| path == name || stem(path) == name)
    {
        let functions = suggest::script_functions(&[(String::new(), text.replace("private fn", ""))]);
        return Ok(Entry { folder: "", name: path, header: Header::parse(text), functions });
    }
    let functions = reference::entries();
    let modules = modules(&FOLDERS);
    let known = library.iter().map(|entry| entry.name.as_str());
    let known = known.chain(functions.iter().flat_map(reference::Entry::names));
    let near = nearest(name, known.chain(modules.iter().map(|(path, _)| stem(path))));
    let hint = near.first().map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Err(Error::new(format!("the reference has no `{name}`")).help(format!("{hint}`raco doc` lists all")))
}

/// What the reference says of a name: of host functions, or of a file as [`entry`] finds it.
///
/// # Errors
/// A name that is none of them, with the nearest.
pub fn text(name: &str) -> Result<String> {
    let plain = name.trim_end_matches(['(', ')']).rsplit(['.', ':']).next().unwrap_or(name);
    let functions = functions(plain, None);
    match entry(name) {
        Ok(entry) if functions.is_empty() => Ok(entry.text()),
        Ok(entry) => Ok(format!("{functions}\n\n{}", entry.text())),
        Err(_) if !functions.is_empty() => Ok(functions),
        Err(error) => Err(error),
    }
}

/// What the reference says of the host functions of that name, in lines of at most `width` if one is given; empty where
/// there is none.
pub fn functions(name: &str, width: Option<usize>) -> String {
    let entries = reference::entries();
    let named = entries.iter().filter(|entry| entry.names().any(|known| known == name));
    let texts =
        named.map(|entry| format!("{}\n{}", entry.signatures.join("\n"), indented(&entry.text, width)));
    texts.collect::<Vec<_>>().join("\n\n")
}

/// All that the reference knows, by topic and folder.
pub fn overview() -> String {
    let (mut text, mut topic) = (String::new(), String::new());
    for entry in reference::entries() {
        if entry.topic != topic {
            topic = entry.topic.clone();
            text += &format!("{}{topic}\n", if text.is_empty() { "" } else { "\n" });
        }
        text += &format!("  {}\n", entry.signatures.join(", "));
    }
    let library = library();
    let files = library
        .iter()
        .map(|entry| (entry.folder.to_owned(), entry.name.clone(), entry.header.summary.clone()));
    let others = modules(&FOLDERS).into_iter().map(|(path, text)| {
        let (folder, name) = path.split_once('/').unwrap_or(("modules", &path));
        (folder.to_owned(), name.to_owned(), first_sentence(text))
    });
    let files: Vec<_> = files.chain(others).collect();
    let wide = files.iter().map(|(_, name, _)| name.len()).max().unwrap_or(0);
    let mut last = String::new();
    for (folder, name, summary) in files {
        if folder != last {
            text += &format!("\n{folder}\n");
            last = folder;
        }
        text += &format!("  {name:wide$}  {summary}\n");
    }
    text
}

/// The modules of the library but those of some folders: path without its ending, and text.
pub(super) fn modules(but: &[&str]) -> Vec<(String, &'static str)> {
    let (mut found, mut folders) = (Vec::new(), vec![&STDLIB]);
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs().filter(|dir| !but.iter().any(|name| dir.path() == Path::new(name))));
        found.extend(folder.files().filter_map(|file| {
            let path = file.path().with_extension("").display().to_string().replace('\\', "/");
            Some((path, file.contents_utf8()?))
        }));
    }
    found.sort_unstable_by_key(|(path, _)| {
        (path.split_once('/').map(|(folder, _)| folder.to_owned()), path.clone())
    });
    found
}

fn stem(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn first_sentence(text: &str) -> String {
    let header = Header::parse(text);
    let whole =
        if header.name.is_empty() { header.summary } else { format!("{}: {}", header.name, header.summary) };
    whole.split(". ").next().unwrap_or_default().to_owned()
}

/// The text of an entry below its signatures, without the marks of its example.
fn indented(text: &str, width: Option<usize>) -> String {
    const INDENT: usize = 4;
    let line = |line: String| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    let lines = wrap::plain(text, width.map(|width| width.saturating_sub(INDENT))).into_iter();
    lines.map(line).collect::<String>().trim_end().to_owned()
}

impl Entry {
    /// The header as plain text.
    pub fn text(&self) -> String {
        let Header { name, summary, definition, .. } = &self.header;
        let title = if name.is_empty() { summary.clone() } else { format!("{name}: {summary}") };
        let mut text = format!("{} — {title}\n", self.name);
        if !definition.is_empty() {
            text.push('\n');
            for line in definition {
                text += format!("    {line}").trim_end();
                text.push('\n');
            }
        }
        text.push('\n');
        for section in SECTIONS {
            for (i, line) in self.header.section(section).iter().enumerate() {
                let label = if i == 0 { section } else { "" };
                text += &format!("{label:8}{line}\n");
            }
        }
        for function in &self.functions {
            text += &format!("    {function}\n");
        }
        text
    }

    /// A page of the reference.
    fn page(&self) -> String {
        let header = &self.header;
        let name = if header.name.is_empty() { "" } else { &format!("**{}**: ", escape(&header.name)) };
        let mut page = format!("{MADE}\n# {}\n\n{name}{}.\n", self.name, escape(&header.summary));
        if !header.definition.is_empty() {
            page += &format!("\n```text\n{}\n```\n", header.definition.join("\n"));
        }
        for section in SECTIONS {
            let lines = header.section(section);
            match (section, header.claims(&self.name)) {
                _ if lines.is_empty() => {}
                ("Holds", Ok(Some(claims))) if self.folder == "aggregators" => {
                    page += "\n| holds | |\n|---|---|\n";
                    for claim in claims {
                        page += &format!("| {} | {} |\n", claim.name(), claim.meaning());
                    }
                }
                ("Options", _) if lines.iter().skip(1).any(|line| is_option(line)) => {
                    page += "\n**Options**\n";
                    for line in lines {
                        page += if is_option(line) { "\n- " } else { " " };
                        page += &escape(line);
                    }
                    page.push('\n');
                }
                _ => page += &format!("\n**{section}** {}\n", escape(&lines.join(" "))),
            }
        }
        let file = format!("stdlib/{}/{}.rhai", self.folder, self.name);
        page += &format!("\n**File** [{file}](../../../{file})\n");
        page
    }

    /// The first paragraph in a cell of a table, with a link to the page.
    fn row(&self) -> String {
        format!("| [{0}]({0}.md) | {1} |\n", self.name, escape(&self.header.summary))
    }
}

const MADE: &str =
    "<!-- made by `raco doc --markdown docs/reference` from the header of the file: edit that -->\n";

/// The pages of the reference: path below its folder, and text.
pub fn pages() -> Vec<(String, String)> {
    let library = library();
    let mut pages = Vec::new();
    for folder in FOLDERS {
        let entries: Vec<&Entry> = library.iter().filter(|entry| entry.folder == folder).collect();
        let mut index = format!("{MADE}\n# {}\n\n| | |\n|---|---|\n", capital(folder));
        entries.iter().for_each(|entry| index += &entry.row());
        if folder == "aggregators" {
            index += &format!("\n## Promises\n\n{}", promises());
            index += "\n## What they say\n\nJ holds the gradient rows gᵢ, w the preference weights, d is the update, α its \
                      row weights: d = Jᵀα. `raco check` tests each on families of matrices.\n\n| | |\n|---|---|\n";
            for property in Property::ALL {
                // writing to a string does not fail
                let _ = writeln!(index, "| {} | {} |", property.name(), property.meaning());
            }
        }
        pages.push((format!("{folder}/README.md"), index));
        pages.extend(entries.iter().map(|entry| (format!("{folder}/{}.md", entry.name), entry.page())));
    }
    pages
}

/// Tables of all aggregators and what they promise.
pub fn promises() -> String {
    use Property as P;
    let groups: [&[Property]; 3] = [
        &[
            P::NonConflicting,
            P::Descent,
            P::Stationary,
            P::FollowsWeights,
            P::WeightZeroOut,
            P::ConvexCombination,
            P::PositiveCombination,
        ],
        &[
            P::ScaleEquivariant,
            P::ScaleInvariant,
            P::RowScaleInvariant,
            P::LinearInScales,
            P::PermutationEquivariant,
            P::RotationEquivariant,
        ],
        &[P::ZeroPreserving, P::ReducesToMean, P::ReducesToSum, P::Single, P::Repeatable],
    ];
    let entries: Vec<Entry> = library().into_iter().filter(|entry| entry.folder == "aggregators").collect();
    let table = |group: &&[Property]| {
        let names: Vec<&str> = group.iter().map(|property| property.name()).collect();
        let mut table = format!("| | {} |\n|---|{}\n", names.join(" | "), ":-:|".repeat(names.len()));
        for entry in &entries {
            let claims = entry.header.claims(&entry.name).ok().flatten().unwrap_or_default();
            // who promises a convex combination promises a positive one
            let holds = |property: &Property| {
                claims.contains(property)
                    || *property == P::PositiveCombination && claims.contains(&P::ConvexCombination)
            };
            let marks: Vec<&str> = group.iter().map(|p| if holds(p) { "✓" } else { "" }).collect();
            table += &format!("| {} | {} |\n", entry.name, marks.join(" | "));
        }
        table
    };
    groups.iter().map(table).collect::<Vec<_>>().join("\n")
}

/// Whether a line begins an option, such as `beta 0.2`, rather than going on with the last.
fn is_option(line: &str) -> bool {
    let mut words = line.split(' ');
    let name = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let value = |word: &str| {
        let word = word.trim_end_matches([',', ';', ':']);
        word.parse::<f64>().is_ok() || ["true", "false", "()"].contains(&word) || word.starts_with('"')
    };
    words.next().is_some_and(name) && words.next().is_some_and(value)
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Plain text as Markdown; what stands in backticks stays.
fn escape(text: &str) -> String {
    let escape = |(i, part): (usize, &str)| match i % 2 {
        0 => part.replace('*', "\\*").replace('_', "\\_").replace('<', "\\<").replace('|', "\\|"),
        _ => part.to_owned(),
    };
    text.split('`').enumerate().map(escape).collect::<Vec<_>>().join("`")
}
