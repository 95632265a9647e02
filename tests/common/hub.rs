//! A hub on the loopback that serves a tiny repository, well or badly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Commit of everything.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the hub is to behave.
#[derive(Clone, Default)]
pub struct Manner {
    /// Files of `tiny/model`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files of `datasets/tiny/pairs`.
    pub data: BTreeMap<String, Vec<u8>>,
    /// The only token that is let in.
    pub token: Option<String>,
    /// A file whose transfer ends after half of what is left, this many times.
    pub breaks: Option<(String, usize)>,
    /// A file of which the last bytes are never sent, though the answer looks whole.
    pub short: Option<String>,
    /// Answers in place of the right ones, by a part of the path: status line and headers, body.
    pub instead: Vec<(&'static str, &'static str, &'static str)>,
}

/// A hub that runs until the test ends.
pub struct Hub {
    pub endpoint: String,
    pub manner: Arc<Mutex<Manner>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

impl Hub {
    pub fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (manner, seen) = (Arc::new(Mutex::new(manner)), Arc::new(Mutex::new(Vec::new())));
        let (shared, log) = (manner.clone(), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, log) = (shared.clone(), log.clone());
                // a client that goes away is no fault of the hub
                std::thread::spawn(move || drop(answer(stream, &shared, &log)));
            }
        });
        Self { endpoint, manner, seen }
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// The tiny model of the repository, with files that nobody needs.
pub fn model_files() -> BTreeMap<String, Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/model");
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let mut files: BTreeMap<String, Vec<u8>> =
        names.into_iter().map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap())).collect();
    files.insert("README.md".into(), b"read me".to_vec());
    files.insert("pytorch_model.bin".into(), vec![7; 64]);
    files
}

fn answer(stream: TcpStream, manner: &Mutex<Manner>, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap_or(Ok(String::new()))?.split(' ').nth(1).unwrap_or("").to_owned();
    let (mut range, mut authorization) = (None, None);
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            None => break,
            Some((key, value)) if key.eq_ignore_ascii_case("range") => range = Some(value.to_owned()),
            Some((key, value)) if key.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            Some(_) => {}
        }
    }
    log.lock().unwrap().push(Seen {
        path: path.clone(),
        range: range.clone(),
        authorization: authorization.clone(),
    });
    let mut manner = manner.lock().unwrap();
    let mut stream = stream;
    let mut say = |head: &str, body: &[u8]| {
        let length = if head.contains("content-length") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        write!(stream, "HTTP/1.1 {head}\r\n{length}connection: close\r\n\r\n")?;
        stream.write_all(body)
    };
    if let Some((_, head, body)) = manner.instead.iter().find(|(part, ..)| path.contains(part)) {
        return say(head, body.as_bytes());
    }
    let expected = manner.token.as_ref().map(|token| format!("Bearer {token}"));
    if expected.is_some() && expected != authorization {
        return say("401 Unauthorized", b"{\"error\":\"Invalid username or password.\"}");
    }
    let missing = |say: &mut dyn FnMut(&str, &[u8]) -> std::io::Result<()>| {
        say("404 Not Found", b"{\"error\":\"not found\"}")
    };
    if let Some(rest) = path.strip_prefix("/api/") {
        let files = match rest.split_once("/revision/") {
            Some(("models/tiny/model", revision)) if known(revision) => &manner.files,
            Some(("datasets/tiny/pairs", revision)) if known(revision) => &manner.data,
            _ => return missing(&mut say),
        };
        let list: Vec<String> = files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
        let body = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", list.join(","));
        return say("200 OK\r\ncontent-type: application/json", body.as_bytes());
    }
    let (repo, at) = path.split_once("/resolve/").unwrap_or((&path, ""));
    let (revision, name) = at.split_once('/').unwrap_or((at, ""));
    let files = match repo {
        "/tiny/model" | "/moved/tiny/model" if known(revision) => &manner.files,
        "/datasets/tiny/pairs" if known(revision) => &manner.data,
        _ => return missing(&mut say),
    };
    let Some(content) = files.get(name).cloned() else { return missing(&mut say) };
    let etag = blake3::hash(&content).to_hex().to_string();
    // large files stand elsewhere, as on the real hub
    if name.ends_with(".safetensors") && repo == "/tiny/model" {
        let head = format!(
            "302 Found\r\nlocation: /moved{path}\r\nx-repo-commit: {COMMIT}\r\nx-linked-etag: \"{etag}\""
        );
        return say(&head, b"");
    }
    let wanted = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (from, to) = wanted.unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let to = to.parse::<usize>().map_or(content.len(), |to| to + 1);
    let part = &content[from.min(to)..to];
    let head = format!(
        "206 Partial Content\r\netag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\n\
         content-range: bytes {from}-{}/{}",
        to.max(1) - 1,
        content.len()
    );
    let probe = range.as_deref() == Some("bytes=0-0");
    if manner.short.as_deref() == Some(name) && !probe {
        return say(&head, &part[..part.len().saturating_sub(5)]);
    }
    match &mut manner.breaks {
        Some((broken, times)) if broken == name && *times > 0 && !probe => {
            *times -= 1;
            say(&format!("{head}\r\ncontent-length: {}", part.len()), &part[..part.len() / 2])
        }
        _ => say(&head, part),
    }
}

fn known(revision: &str) -> bool {
    ["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision)
}
