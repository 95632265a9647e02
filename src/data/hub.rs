//! Folders and files of the Hugging Face hub, through the cache that its other clients use.
//!
//! ```text
//!     hf:owner/name[@revision]                     a model or an adapter: its folder
//!     hf:owner/name[@revision]/path                one file of a model
//!     hf:datasets/owner/name[@revision]/path       one file of a data set
//! ```
//! A revision is a branch, a tag or a commit, `main` without; a slash in it is written `%2F`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::error::{Error, Result, contained, io_error};

const SCHEME: &str = "hf:";
const ENDPOINT: &str = "https://huggingface.co";
/// Attempts to go on with a transfer that broke off.
const RETRIES: usize = 3;
const MIB: usize = 1 << 20;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";
const ADAPTER: &str = "adapter_config.json";
/// What is fetched of a model beside its weights, where it is there.
const FILES: [&str; 9] = [
    CONFIG,
    ADAPTER,
    "adapter_model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
];

/// A hub and the cache of what came from it.
pub struct Hub {
    /// The folder of cache (`hub`) and token file (`token`).
    pub home: PathBuf,
    /// Sent with each request; never shown.
    pub token: Option<String>,
    /// Address of the hub.
    pub endpoint: String,
    /// Use the cache only.
    pub offline: bool,
}

/// What is wanted of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All that it is loaded from.
    Model,
    /// All but the weights.
    Tokenizer,
}

/// What an address names.
struct Source {
    repo: Repo,
    name: String,
    file: Option<String>,
}

/// True for the address of something on the hub, as told from a path.
pub fn is_address(path: &str) -> bool {
    path.starts_with(SCHEME)
}

impl Hub {
    /// The hub of the environment: HF_HOME, HF_TOKEN (or the file `token` in HF_HOME), HF_ENDPOINT, HF_HUB_OFFLINE.
    ///
    /// # Errors
    /// No HF_HOME where there is no home folder.
    pub fn from_env() -> Result<Self> {
        let set =
            |name: &str| std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let home = match set("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => dirs::home_dir()
                .ok_or_else(|| Error::new("there is no home folder for the hub's cache").help("set HF_HOME"))?
                .join(".cache/huggingface"),
        };
        let on = |value: String| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str());
        Ok(Self {
            token: set("HF_TOKEN").or_else(|| Cache::new(home.join("hub")).token()),
            home,
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            offline: set("HF_HUB_OFFLINE").is_some_and(on),
        })
    }

    /// The local path of what an address names, fetched if it is not in the cache: of a model its folder.
    /// `progress(done, total, file)` counts MiB.
    ///
    /// # Errors
    /// A malformed address; a hub that cannot be reached, refuses, lacks the repository, the revision or a file,
    /// or breaks off; offline, what the cache lacks.
    pub fn fetch(
        &self,
        address: &str,
        wanted: Wanted,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<PathBuf> {
        let source = Source::parse(address)?;
        let found = match self.offline {
            true => self.cached(&source, wanted),
            false => self.online(&source, wanted, progress),
        };
        found.map_err(|e| e.in_file(address))
    }

    fn cache(&self) -> Cache {
        Cache::new(self.home.join("hub"))
    }

    fn cached(&self, source: &Source, wanted: Wanted) -> Result<PathBuf> {
        let absent = |what: String| {
            Error::new(format!("{what} is not in the cache, and HF_HUB_OFFLINE is set"))
                .help("unset HF_HUB_OFFLINE to fetch it, or set HF_HOME to a cache that has it")
        };
        let repo = self.cache().repo(source.repo.clone());
        let refs = self.cache().path().join(source.repo.folder_name()).join("refs");
        let commit = std::fs::read_to_string(refs.join(source.repo.revision()));
        let commit = commit.unwrap_or_else(|_| source.repo.revision().to_owned());
        let folder = repo.pointer_path(commit.trim());
        if !folder.is_dir() {
            return Err(absent(format!("`{}` at `{}`", source.name, source.repo.revision())));
        }
        let get = |name: &str| match folder.join(name) {
            path if path.exists() => Ok(path),
            _ => Err(absent(format!("`{name}`"))),
        };
        match &source.file {
            Some(file) => get(file),
            None => {
                model_files(wanted, |name| folder.join(name).exists(), get)?;
                Ok(folder)
            }
        }
    }

    fn online(
        &self,
        source: &Source,
        wanted: Wanted,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<PathBuf> {
        let endpoint = self.endpoint.trim_end_matches('/');
        let api = ApiBuilder::from_cache(self.cache())
            .with_endpoint(endpoint.to_owned())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_retries(RETRIES)
            .with_user_agent("raco", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|e| Error::internal(format!("the client of the hub cannot be made: {e}")))?;
        let hub = Online { hub: self, api, endpoint, source };
        // a branch moves: everything is fetched from the commit that it is at now
        let (commit, files) = hub.listing()?;
        let pinned = Repo::with_revision(source.repo_id(), source.repo_type(), commit.clone());
        let mut get = |name: &str| match files.contains(name) {
            true => hub.get(&pinned, name, progress),
            false => Err(hub.no_file(name, &files)),
        };
        let path = match &source.file {
            Some(file) => get(file)?,
            None => {
                model_files(wanted, |name| files.contains(name), get)?;
                self.cache().repo(pinned).pointer_path(&commit)
            }
        };
        // offline, the revision is found by its name
        let repo = self.cache().repo(source.repo.clone());
        repo.create_ref(&commit).map_err(|e| io_error(&e, "write the hub's cache", &self.home))?;
        Ok(path)
    }
}

/// Gets the files that a model is loaded from: those of [`FILES`] that it has, and its weights if they are wanted.
fn model_files(
    wanted: Wanted,
    has: impl Fn(&str) -> bool,
    mut get: impl FnMut(&str) -> Result<PathBuf>,
) -> Result<()> {
    if !has(CONFIG) && !has(ADAPTER) {
        return Err(Error::new(format!("there is no `{CONFIG}`: not a model that can be loaded"))
            .help("name a repository in the transformers format, or one file of it: `hf:owner/name/FILE`"));
    }
    for name in FILES.into_iter().filter(|name| has(name)) {
        get(name)?;
    }
    if wanted == Wanted::Tokenizer {
        return Ok(());
    }
    if has(WEIGHTS) {
        get(WEIGHTS)?;
    } else if has(INDEX) {
        for shard in shards(&get(INDEX)?)? {
            get(&shard)?;
        }
    } else if !has(ADAPTER) {
        return Err(Error::new(format!("there is neither `{WEIGHTS}` nor `{INDEX}`"))
            .help("name a repository with safetensors weights, or one file of it: `hf:owner/name/FILE`"));
    }
    Ok(())
}

fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(index).map_err(|e| io_error(&e, "read the index", index))?;
    let bad = |what: &str| {
        Error::new(what).in_file(index).help("report it to the owner of the repository, or choose another")
    };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|_| bad("the index is no JSON"))?;
    let map = json["weight_map"].as_object().ok_or_else(|| bad("`weight_map` of the index is missing"))?;
    let plain = |name: &&str| Path::new(name).file_name() == Some(name.as_ref());
    let name = |file: &serde_json::Value| {
        file.as_str().filter(plain).map(str::to_owned).ok_or_else(|| bad("the index names no file beside it"))
    };
    map.values().map(name).collect()
}

impl Source {
    fn parse(address: &str) -> Result<Self> {
        let malformed = |what: &str| {
            Error::new(format!("`{address}` {what}")).help(
                "write `hf:owner/name@revision` for a model, `hf:datasets/owner/name@revision/path.jsonl` for a file",
            )
        };
        let rest = address.strip_prefix(SCHEME).ok_or_else(|| malformed("is no address of the hub"))?;
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (RepoType::Dataset, rest),
            None => (RepoType::Model, rest),
        };
        let mut parts = rest.splitn(3, '/');
        let (owner, named) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let file = parts.next().filter(|path| !path.is_empty()).map(str::to_owned);
        let (name, revision) = match named.split_once('@') {
            Some((name, revision)) => (name, revision.replace("%2F", "/")),
            None => (named, "main".to_owned()),
        };
        let word = |text: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !text.is_empty() && !text.starts_with('.') && text.chars().all(allowed)
        };
        let path = |path: &str| {
            path.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && !path.contains(['?', '#', '%', '\\'])
        };
        if !word(owner) || !word(name) {
            return Err(malformed("names no repository"));
        }
        if !path(&revision) {
            return Err(malformed("has a malformed revision"));
        }
        if file.as_deref().is_some_and(|file| !path(file)) {
            return Err(malformed("has a malformed path"));
        }
        if file.is_none() && matches!(kind, RepoType::Dataset) {
            return Err(malformed("names no file of the data set"));
        }
        let name = format!("{owner}/{name}");
        Ok(Self { repo: Repo::with_revision(name.clone(), kind, revision), name, file })
    }

    fn repo_id(&self) -> String {
        self.name.clone()
    }

    fn repo_type(&self) -> RepoType {
        if self.repo.url().starts_with("datasets/") { RepoType::Dataset } else { RepoType::Model }
    }
}

/// A hub that is asked.
struct Online<'a> {
    hub: &'a Hub,
    api: Api,
    endpoint: &'a str,
    source: &'a Source,
}

impl Online<'_> {
    /// The commit of the revision and the files in it.
    fn listing(&self) -> Result<(String, BTreeSet<String>)> {
        let repo = &self.source.repo;
        let info = self.ask(|| self.api.repo(repo.clone()).info()).map_err(|fault| {
            let main = || Repo::new(self.source.repo_id(), self.source.repo_type());
            let named = self.source.name.as_str();
            match &fault {
                Fault::Status(404) if self.ask(|| self.api.repo(main()).info()).is_ok() => {
                    Error::new(format!("`{named}` has no revision `{}`", repo.revision()))
                        .help("name a branch, a tag or a commit of the repository, or leave `@…` out")
                }
                Fault::Status(404) => Error::new(format!("{} has no `{named}`", self.endpoint))
                    .help("check the name; a data set is `hf:datasets/owner/name/path`"),
                _ => self.explain(fault, &format!("`{named}`")),
            }
        })?;
        // it becomes the name of a folder
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(self.no_hub(&format!("a commit `{}`", info.sha)));
        }
        Ok((info.sha, info.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    /// One file, whole: from the cache, or fetched and as long as the hub said.
    fn get(&self, repo: &Repo, name: &str, progress: &mut dyn FnMut(usize, usize, &str)) -> Result<PathBuf> {
        let cache = self.hub.cache().repo(repo.clone());
        let fails = |fault| self.explain(fault, &format!("`{name}`"));
        if let Some(path) = cache.get(name) {
            return Ok(path);
        }
        let remote = self.api.repo(repo.clone());
        let facts = self.ask(|| self.api.metadata(&remote.url(name))).map_err(fails)?;
        if facts.commit_hash() != repo.revision() {
            return Err(self.no_hub(&format!("`{name}` of another commit, `{}`", facts.commit_hash())));
        }
        if facts.etag().is_empty() || !facts.etag().chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(self.no_hub(&format!("`{name}` with the mark `{}`", facts.etag())));
        }
        let blob = cache.blob_path(facts.etag());
        let part = blob.with_extension("part");
        let mut arrived = 0;
        // a second time from the beginning, should the first have gone on with something else
        for _ in 0..2 {
            let bar = Bar { progress, done: 0, total: 0, name };
            match self.ask(|| remote.download_with_progress(name, bar)) {
                Ok(path) => match std::fs::metadata(&path).map(|file| file.len()) {
                    Ok(size) if size == facts.size() as u64 => return Ok(path),
                    found => {
                        arrived = found.unwrap_or(0);
                        [&path, &blob].into_iter().for_each(|file| drop(std::fs::remove_file(file)));
                    }
                },
                Err(Fault::Resume) => drop(std::fs::remove_file(&part)),
                Err(fault) => return Err(fails(fault)),
            }
        }
        Err(Error::new(format!("`{name}` arrived with {arrived} of {} bytes", facts.size()))
            .help("start again; if it stays so, the hub or a proxy before it is at fault"))
    }

    fn ask<T>(&self, call: impl FnOnce() -> Result<T, ApiError>) -> Result<T, Fault> {
        match contained(call) {
            Ok(answer) => answer.map_err(Fault::from),
            Err(panic) => Err(Fault::Answer(panic)),
        }
    }

    fn no_file(&self, name: &str, files: &BTreeSet<String>) -> Error {
        let near = crate::error::nearest(name, files.iter().map(String::as_str));
        let help = match near.first() {
            Some(near) => format!("did you mean `{near}`?"),
            None => "look at the files on the page of the repository".to_owned(),
        };
        Error::new(format!("`{}` has no file `{name}`", self.source.name)).help(help)
    }

    fn no_hub(&self, answer: &str) -> Error {
        Error::new(format!("{} answers as no hub does: {answer}", self.endpoint)).help("check HF_ENDPOINT")
    }

    fn explain(&self, fault: Fault, what: &str) -> Error {
        match fault {
            Fault::Status(status @ (401 | 403)) => {
                let error = Error::new(format!("{} refuses {what}: HTTP {status}", self.endpoint));
                error.help(match self.hub.token {
                    Some(_) => {
                        "accept the terms on the page of the repository, or give HF_TOKEN a token that may read it"
                    }
                    None => "set HF_TOKEN to a token that may read it; a misspelt name is refused, too",
                })
            }
            Fault::Status(404) => Error::new(format!("{} has no {what}", self.endpoint))
                .help("look at the files on the page of the repository"),
            Fault::Status(429) => {
                Error::new(format!("{} has had too many requests: HTTP 429", self.endpoint))
                    .help("wait a few minutes, or set HF_TOKEN: who is known may ask more")
            }
            Fault::Status(status) => {
                Error::new(format!("{} cannot give {what}: HTTP {status}", self.endpoint))
                    .help("try again later, or set HF_HUB_OFFLINE=1 to use what the cache has")
            }
            Fault::Request(e) => Error::new(format!("{} cannot be asked for {what}: {e}", self.endpoint))
                .help("check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use what the cache has"),
            Fault::Transfer(e) => Error::new(format!("the transfer of {what} broke off: {e}"))
                .help("start again: it goes on where it stopped"),
            Fault::Resume => Error::new(format!("the part of {what} in the cache is longer than the file"))
                .help("start again"),
            Fault::Locked(lock) => Error::new(format!("another program is fetching {what}"))
                .in_file(lock)
                .help("wait until it is done"),
            Fault::Answer(e) => self.no_hub(&format!("for {what}, {e}")),
        }
    }
}

/// What a request came to, without the client's types.
enum Fault {
    Status(u16),
    Request(String),
    Transfer(String),
    Resume,
    Locked(PathBuf),
    Answer(String),
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::RequestError(e) => {
                let text = e.to_string();
                let status = text.strip_prefix("http status: ").and_then(|status| status.parse().ok());
                match status {
                    Some(status) => Fault::Status(status),
                    None if text.starts_with("json: ") => Fault::Answer(text),
                    None => Fault::Request(text),
                }
            }
            ApiError::TooManyRetries(e) => match Fault::from(*e) {
                Fault::Request(e) => Fault::Transfer(e),
                fault => fault,
            },
            ApiError::IoError(e) => Fault::Transfer(e.to_string()),
            ApiError::InvalidResume => Fault::Resume,
            ApiError::LockAcquisition(lock) => Fault::Locked(lock),
            other => Fault::Answer(other.to_string()),
        }
    }
}

/// Hands on whole MiB.
struct Bar<'a> {
    progress: &'a mut dyn FnMut(usize, usize, &str),
    done: usize,
    total: usize,
    name: &'a str,
}

impl Progress for Bar<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size);
        (self.progress)(0, size.div_ceil(MIB), self.name);
    }

    fn update(&mut self, size: usize) {
        let before = self.done / MIB;
        self.done += size;
        if self.done / MIB > before {
            (self.progress)(self.done / MIB, self.total.div_ceil(MIB), self.name);
        }
    }

    fn finish(&mut self) {
        let total = self.total.div_ceil(MIB);
        (self.progress)(total, total, self.name);
    }
}
