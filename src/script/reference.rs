//! The reference of the script functions: the pages of `docs/reference/functions`, entry by entry.

use include_dir::{Dir, include_dir};

static PAGES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/docs/reference/functions");

/// What the reference says of one or more functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The title of its page.
    pub topic: String,
    /// How the functions are written: `clip(p, w)`, `policy.layers`.
    pub signatures: Vec<String>,
    /// The text, with an example where it has one.
    pub text: String,
}

impl Entry {
    /// The names of its functions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| {
            let call = signature.split('(').next().unwrap_or_default();
            call.rsplit('.').next().unwrap_or_default()
        })
    }
}

/// All entries, page by page.
pub fn entries() -> Vec<Entry> {
    let mut pages: Vec<&str> = PAGES.files().filter_map(|page| page.contents_utf8()).collect();
    pages.sort_unstable();
    let entries = |page: &str| {
        let mut parts = page.split("\n## ");
        let topic = parts.next().unwrap_or_default().lines().next().unwrap_or_default();
        let topic = topic.trim_start_matches("# ").to_owned();
        let entry = move |part: &str| {
            let (heading, text) = part.split_once('\n').unwrap_or((part, ""));
            let signatures = heading.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Entry { topic: topic.clone(), signatures, text: text.trim().to_owned() }
        };
        parts.map(entry).collect::<Vec<_>>()
    };
    pages.into_iter().flat_map(entries).collect()
}
