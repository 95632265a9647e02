//! `args(#{ key: default })`: the command line fills in what the script declares.

use std::path::PathBuf;

use rhai::{Array, Dynamic, Map};

use crate::error::{Error, Kind, Result};

use super::value::{self, show, type_of, unknown};

/// What the command line gave to the script.
#[derive(Debug, Default)]
pub struct Given {
    /// Keys with their text, in order; `None` for a key without value.
    pairs: Vec<(String, Option<String>)>,
    /// Arguments of the run that goes on, which take the place of the defaults.
    stored: Map,
    taken: bool,
}

impl Given {
    /// Reads `--key value`, `--key=value` and bare `--key`.
    ///
    /// # Errors
    /// A word that is no key, a key given twice.
    pub fn parse(words: &[String]) -> Result<Self> {
        let mut pairs: Vec<(String, Option<String>)> = Vec::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let Some(key) = word.strip_prefix("--").filter(|key| !key.is_empty()) else {
                return Err(usage(format!("`{word}` stands where a `--key` is expected"))
                    .help("give arguments as `--key value`"));
            };
            let (key, value) = match key.split_once('=') {
                // `--weights quality=0.8` has its `=` in the value
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (key, words.next_if(|next| !is_key(next)).cloned()),
            };
            let key = key.replace('-', "_");
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(usage(format!("`--{key}` is given twice")).help("give it once"));
            }
            pairs.push((key, value));
        }
        Ok(Self { pairs, stored: Map::new(), taken: false })
    }

    /// Continues a run: its arguments take the place of the defaults.
    pub fn resume(&mut self, stored: Map) {
        self.stored = stored;
    }

    /// Takes a key that the host understands itself: absent, without value, or with one.
    pub fn take(&mut self, key: &str) -> Option<Option<String>> {
        let index = self.pairs.iter().position(|(k, _)| k == key)?;
        Some(self.pairs.remove(index).1)
    }

    /// The value of a key, where it has one.
    pub fn peek(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.as_deref())
    }

    /// Values that may name a file or folder.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.pairs.iter().filter_map(|(_, v)| v.as_ref()).filter(|v| !v.is_empty()).map(PathBuf::from)
    }

    /// Fails where arguments were given to a script that takes none.
    pub fn check_taken(&self) -> Result<()> {
        match self.pairs.first() {
            Some((key, _)) if !self.taken => {
                Err(usage(format!("the script takes no arguments, found `--{key}`")).help("leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// The arguments of the script: the defaults, with what was given in their place.
    ///
    /// # Errors
    /// A second call, an unknown key, a value of the wrong type.
    pub fn fill(&mut self, mut defaults: Map) -> Result<Map> {
        if std::mem::replace(&mut self.taken, true) {
            return Err(Error::new("`args` was called before").help("call it once and keep what it returns"));
        }
        for (key, default) in &defaults {
            if default.is_fnptr() {
                return Err(Error::new(format!("argument `{key}` has a function as its default"))
                    .help("use a number, string, bool, array, map or `()`"));
            }
        }
        for (key, stored) in std::mem::take(&mut self.stored) {
            if let Some(default) = defaults.get_mut(&key) {
                *default = value::fit(default, stored, &format!("argument `{key}` of the run"))?;
            }
        }
        for (key, text) in &self.pairs {
            let known = || defaults.keys().map(|k| k.as_str());
            let Some(default) = defaults.get(key.as_str()) else {
                let error = unknown("argument", &format!("--{key}"), known());
                let list: Vec<String> =
                    defaults.iter().map(|(k, v)| format!("--{k} {}", text_of(v))).collect();
                let near = crate::error::nearest(key, known());
                let hint = near.first().map_or_else(String::new, |near| format!("did you mean `--{near}`? "));
                return Err(usage(error.what()).help(format!("{hint}the script takes {}", list.join(" "))));
            };
            let parsed = parse(default, text.as_deref()).map_err(|expected| {
                let found = text.as_ref().map_or("nothing".to_owned(), |t| format!("`{t}`"));
                usage(format!("`--{key}` expects {expected}, found {found}"))
                    .help(format!("for example `--{key} {}`", text_of(default)))
            })?;
            defaults.insert(key.as_str().into(), parsed);
        }
        Ok(defaults)
    }
}

/// A key with its default, a line each.
pub(crate) fn usage_lines(defaults: &Map) -> String {
    let wide = defaults.keys().map(|k| k.len()).max().unwrap_or(0);
    let line = |(k, v): (&rhai::Identifier, &Dynamic)| format!("  --{k:wide$}  {}\n", text_of(v));
    defaults.iter().map(line).collect()
}

/// A value as the command line writes it.
fn text_of(value: &Dynamic) -> String {
    if let Some(map) = value.read_lock::<Map>() {
        let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", show(v))).collect();
        return pairs.join(",");
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().map(show).collect::<Vec<_>>().join(",");
    }
    let text = show(value);
    if text.is_empty() || text.contains(' ') { format!("{text:?}") } else { text }
}

fn usage(what: impl Into<String>) -> Error {
    Error::with_kind(Kind::Usage, what)
}

fn is_key(word: &str) -> bool {
    // negative numbers are values
    word.starts_with("--")
}

fn parse(default: &Dynamic, text: Option<&str>) -> std::result::Result<Dynamic, &'static str> {
    let kind = type_of(default);
    let Some(text) = text else {
        return if kind == "bool" { Ok(true.into()) } else { Err(expected(kind)) };
    };
    let text = text.trim();
    let parsed = match kind {
        "int" => whole(text).map(Dynamic::from),
        "float" => float(text).map(Dynamic::from),
        "bool" => text.parse::<bool>().ok().map(Dynamic::from),
        "map" => pairs(text).map(Dynamic::from),
        "array" => {
            let first = default.read_lock::<Array>().and_then(|a| a.first().cloned());
            let first = first.unwrap_or_else(|| "".into());
            let items = text.split(',').filter(|t| !t.is_empty());
            items.map(|item| parse(&first, Some(item)).ok()).collect::<Option<Array>>().map(Dynamic::from)
        }
        _ => Some(text.into()),
    };
    parsed.ok_or(expected(kind))
}

fn expected(kind: &str) -> &'static str {
    match kind {
        "int" => "a whole number",
        "float" => "a number",
        "bool" => "`true` or `false`",
        "map" => "`name=number` pairs with commas between",
        "array" => "values with commas between",
        _ => "a value",
    }
}

/// A whole number, also as `1e3`.
fn whole(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let exact = |x: &f64| x.fract() == 0.0 && x.abs() < 9e15;
    plain.parse().ok().or_else(|| plain.parse::<f64>().ok().filter(exact).map(|x| x as i64))
}

fn float(text: &str) -> Option<f64> {
    text.replace('_', "").parse::<f64>().ok().filter(|x| x.is_finite())
}

fn pairs(text: &str) -> Option<Map> {
    let mut map = Map::new();
    for pair in text.split(',').filter(|p| !p.trim().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if map.insert(name.trim().into(), Dynamic::from(float(value.trim())?)).is_some() {
            return None;
        }
    }
    (!map.is_empty()).then_some(map)
}
