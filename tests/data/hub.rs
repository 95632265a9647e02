//! The hub: models and data sets through its API, from a server on the loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use raco::data::hub::{Hub, Wanted, is_address};
use raco::data::{Preferences, ReadOptions, Tokenizer};
use raco::error::Error;
use raco::model::Model;
use tempfile::TempDir;

use crate::common::hub::{COMMIT, Hub as Server, Manner, model_files};

const SECRET: &str = "hf_secretSECRETsecret";
const ROW: &str = r#"{"prompt": "how", "chosen": "ten", "rejected": "red", "objectives": {"quality": 1}}"#;

fn client(home: &Path, server: &Server) -> Hub {
    Hub { home: home.to_owned(), token: None, endpoint: server.endpoint.clone(), offline: false }
}

fn fetch(hub: &Hub, address: &str) -> Result<PathBuf, Error> {
    hub.fetch(address, Wanted::Model, &mut |_, _, _| {})
}

fn serve() -> (TempDir, Server) {
    let data = BTreeMap::from([("sub/pairs.jsonl".to_owned(), ROW.into()), ("b.csv".to_owned(), vec![1])]);
    let server = Server::new(Manner { files: model_files(), data, ..Manner::default() });
    (tempfile::tempdir().unwrap(), server)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_fetched_once_and_found_offline() {
    let (home, server) = serve();
    let mut hub = client(home.path(), &server);
    let mut told = Vec::new();
    let folder = hub
        .fetch("hf:tiny/model", Wanted::Model, &mut |done, total, name| {
            told.push((done, total, name.to_owned()))
        })
        .unwrap();
    assert_eq!(told.last().unwrap(), &(1, 1, "model.safetensors".to_owned()));
    // where the other clients of the hub look for it
    let expected = home.path().join("hub/models--tiny--model/snapshots").join(COMMIT);
    assert_eq!(folder, expected);
    assert_eq!(
        names(&folder),
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/model");
    let fingerprint = Model::load(&own).unwrap().fingerprint().unwrap();
    assert_eq!(Model::load(&folder).unwrap().fingerprint().unwrap(), fingerprint);
    assert!(server.seen().iter().all(|request| request.authorization.is_none()));

    assert_eq!(fetch(&hub, "hf:tiny/model").unwrap(), folder);
    let seen: Vec<String> = server.seen().into_iter().map(|request| request.path).collect();
    assert_eq!(seen, ["/api/models/tiny/model/revision/main"]);
    hub.offline = true;
    for revision in ["", "@main", &format!("@{COMMIT}")] {
        assert_eq!(fetch(&hub, &format!("hf:tiny/model{revision}")).unwrap(), folder);
    }
    assert!(server.seen().is_empty());
}

#[test]
fn revisions_single_files_and_data_sets() {
    let (home, server) = serve();
    let mut hub = client(home.path(), &server);
    for revision in ["v1", "refs%2Fpr%2F1", COMMIT] {
        let path = fetch(&hub, &format!("hf:tiny/model@{revision}/README.md")).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "read me");
    }
    let path = fetch(&hub, "hf:datasets/tiny/pairs@v1/sub/pairs.jsonl").unwrap();
    let words = Tokenizer::word_level(&["how", "ten", "red"].map(str::to_owned)).unwrap();
    assert_eq!(Preferences::read(&path, &words, &ReadOptions::default()).unwrap().len(), 1);
    hub.offline = true;
    assert_eq!(fetch(&hub, "hf:datasets/tiny/pairs@v1/sub/pairs.jsonl").unwrap(), path);
    assert!(is_address("hf:tiny/model") && !is_address("models/hf"));
}

#[test]
fn a_tokenizer_comes_without_weights() {
    let (home, server) = serve();
    let folder =
        client(home.path(), &server).fetch("hf:tiny/model", Wanted::Tokenizer, &mut |_, _, _| {}).unwrap();
    assert_eq!(names(&folder), ["config.json", "tokenizer.json", "tokenizer_config.json"]);
    Tokenizer::load(&folder).unwrap();
    // the model asks for what is not there yet
    Model::load(&fetch(&client(home.path(), &server), "hf:tiny/model").unwrap()).unwrap();
}

#[test]
fn an_adapter_is_fetched_without_a_model() {
    let (home, server) = serve();
    server.manner.lock().unwrap().files =
        ["adapter_config.json", "adapter_model.safetensors", "training.log"]
            .map(|name| (name.to_owned(), name.into()))
            .into();
    let folder = fetch(&client(home.path(), &server), "hf:tiny/model").unwrap();
    assert_eq!(names(&folder), ["adapter_config.json", "adapter_model.safetensors"]);
}

#[test]
fn shards_are_those_that_the_index_names() {
    let (home, server) = serve();
    let weights = {
        let mut manner = server.manner.lock().unwrap();
        let weights = manner.files.remove("model.safetensors").unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let mut map = serde_json::Map::new();
        let parts: Vec<_> = tensors.tensors().into_iter().enumerate().map(|(i, t)| (i % 2, t)).collect();
        for shard in 0..2 {
            let name = format!("model-0000{}-of-00002.safetensors", shard + 1);
            let part: Vec<_> = parts.iter().filter(|(i, _)| *i == shard).map(|(_, t)| t.clone()).collect();
            part.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.clone().into())));
            manner.files.insert(name, safetensors::serialize(part, None).unwrap());
        }
        let index = serde_json::json!({ "weight_map": map }).to_string();
        manner.files.insert("model.safetensors.index.json".into(), index.into_bytes());
        manner.files.insert("model-extra.safetensors".into(), vec![1]);
        weights
    };
    let folder = fetch(&client(home.path(), &server), "hf:tiny/model").unwrap();
    assert_eq!(names(&folder).iter().filter(|name| name.ends_with(".safetensors")).count(), 2);
    let whole = tempfile::tempdir().unwrap();
    for (name, content) in model_files().into_iter().chain([("model.safetensors".to_owned(), weights)]) {
        std::fs::write(whole.path().join(name), content).unwrap();
    }
    let print = |folder: &Path| Model::load(folder).unwrap().fingerprint().unwrap();
    assert_eq!(print(&folder), print(whole.path()));
}

#[test]
fn a_transfer_that_breaks_off_goes_on() {
    let (home, server) = serve();
    server.manner.lock().unwrap().breaks = Some(("model.safetensors".into(), 2));
    let folder = fetch(&client(home.path(), &server), "hf:tiny/model").unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), model_files()["model.safetensors"]);
    let from: Vec<String> = server
        .seen()
        .into_iter()
        .filter(|request| request.path.starts_with("/moved"))
        .filter_map(|request| request.range)
        .filter(|range| range.ends_with('-') && range != "bytes=0-")
        .collect();
    assert_eq!(from.len(), 2, "{from:?}");
}

#[test]
fn what_never_arrives_whole_is_never_used() {
    let (home, server) = serve();
    let hub = client(home.path(), &server);
    server.manner.lock().unwrap().breaks = Some(("tokenizer.json".into(), usize::MAX));
    let error = fetch(&hub, "hf:tiny/model").unwrap_err();
    assert!(error.what().starts_with("the transfer of `tokenizer.json` broke off"), "{error}");
    assert_eq!(error.help_text(), Some("start again: it goes on where it stopped"));
    let offline = Hub { offline: true, ..client(home.path(), &server) };
    assert!(fetch(&offline, "hf:tiny/model").is_err());

    // an answer that is whole by its own account, and shorter than the file
    server.manner.lock().unwrap().breaks = None;
    server.manner.lock().unwrap().short = Some("tokenizer_config.json".into());
    let size = model_files()["tokenizer_config.json"].len();
    let error = fetch(&hub, "hf:tiny/model").unwrap_err();
    assert_eq!(error.what(), format!("`tokenizer_config.json` arrived with {} of {size} bytes", size - 5));
    assert!(fetch(&offline, "hf:tiny/model").is_err());

    // nothing of it is in the way once the hub is well again
    server.manner.lock().unwrap().short = None;
    let folder = fetch(&hub, "hf:tiny/model").unwrap();
    for (name, content) in model_files().into_iter().filter(|(name, _)| folder.join(name).exists()) {
        assert_eq!(std::fs::read(folder.join(&name)).unwrap(), content, "{name}");
    }
    Model::load(&folder).unwrap();
}

#[test]
fn a_stale_part_in_the_cache_does_no_harm() {
    let (home, server) = serve();
    let hub = client(home.path(), &server);
    let content = &model_files()["README.md"];
    let blobs = home.path().join("hub/models--tiny--model/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(blake3::hash(content).to_hex().as_str()).with_extension("part");
    std::fs::write(part, vec![b'x'; content.len() + 9]).unwrap();
    assert_eq!(std::fs::read(fetch(&hub, "hf:tiny/model/README.md").unwrap()).unwrap(), *content);
}

#[test]
fn the_token_is_sent_and_never_told() {
    let (home, server) = serve();
    server.manner.lock().unwrap().token = Some(SECRET.into());
    let mut hub = client(home.path(), &server);
    let error = fetch(&hub, "hf:tiny/model").unwrap_err();
    assert_eq!(error.what(), format!("{} refuses `tiny/model`: HTTP 401", server.endpoint));
    assert_eq!(
        error.help_text(),
        Some("set HF_TOKEN to a token that may read it; a misspelt name is refused, too")
    );
    hub.token = Some("hf_wrongWRONG".into());
    let error = fetch(&hub, "hf:tiny/model").unwrap_err();
    assert!(error.help_text().unwrap().starts_with("accept the terms"), "{error}");
    assert!(!error.to_string().contains("wrongWRONG"), "{error}");
    hub.token = Some(SECRET.into());
    server.seen();
    fetch(&hub, "hf:tiny/model").unwrap();
    let seen = server.seen();
    assert!(seen.len() > 5);
    assert!(seen.iter().all(|r| r.authorization.as_deref() == Some(&format!("Bearer {SECRET}"))));
}

/// Address, what the server is made to do, what is told, and a part of the help.
type Case = (&'static str, fn(&mut Manner), &'static str, &'static str);

const SHARED: &str = "200 OK\r\ncontent-type: application/json";
const BAD: &[Case] = &[
    ("hf:tiny/modle", |_| {}, "has no `tiny/modle`", "check the name"),
    ("hf:tiny/model@v2", |_| {}, "`tiny/model` has no revision `v2`", "name a branch, a tag or a commit"),
    ("hf:tiny/model/reade.md", |_| {}, "`tiny/model` has no file `reade.md`", "did you mean `README.md`?"),
    (
        "hf:datasets/tiny/pairs/pairs.jsonl",
        |_| {},
        "has no file `pairs.jsonl`",
        "did you mean `sub/pairs.jsonl`?",
    ),
    (
        "hf:tiny/model",
        |m| drop(m.files.remove("config.json")),
        "there is no `config.json`",
        "in the transformers format",
    ),
    (
        "hf:tiny/model",
        |m| drop(m.files.remove("model.safetensors")),
        "there is neither `model.safetensors`",
        "safetensors weights",
    ),
    (
        "hf:tiny/model",
        |m| {
            m.files.remove("model.safetensors");
            m.files.insert(
                "model.safetensors.index.json".into(),
                br#"{"weight_map": {"a": "b.safetensors"}}"#.to_vec(),
            );
        },
        "`tiny/model` has no file `b.safetensors`",
        "look at the files",
    ),
    (
        "hf:tiny/model",
        |m| {
            m.files.remove("model.safetensors");
            m.files.insert(
                "model.safetensors.index.json".into(),
                br#"{"weight_map": {"a": "../../b"}}"#.to_vec(),
            );
        },
        "the index names no file beside it",
        "report it to the owner",
    ),
    (
        "hf:tiny/model",
        |m| {
            m.files.remove("model.safetensors");
            m.files.insert("model.safetensors.index.json".into(), b"{".to_vec());
        },
        "the index is no JSON",
        "report it to the owner",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/api/", SHARED, "<html>")),
        "answers as no hub does",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/api/", SHARED, "{}")),
        "answers as no hub does",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/api/", SHARED, r#"{"sha": "../../up", "siblings": []}"#)),
        "answers as no hub does: a commit `../../up`",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/config.json", "206 Partial Content", "x")),
        "answers as no hub does: for `config.json`, Header etag is missing",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/config.json", "302 Found\r\netag: \"a\"\r\nx-repo-commit: b", "")),
        "answers as no hub does: for `config.json`, ",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| {
            let head = "206 Partial Content\r\netag: \"../../a\"\r\ncontent-range: bytes 0-0/1\r\n\
                        x-repo-commit: 0123456789abcdef0123456789abcdef01234567";
            m.instead.push(("/config.json", head, "x"));
        },
        "answers as no hub does: `config.json` with the mark `../../a`",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| {
            let head =
                "206 Partial Content\r\netag: \"a\"\r\ncontent-range: bytes 0-0/1\r\nx-repo-commit: beef";
            m.instead.push(("/config.json", head, "x"));
        },
        "`config.json` of another commit, `beef`",
        "check HF_ENDPOINT",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/config.json", "403 Forbidden", "")),
        "refuses `config.json`: HTTP 403",
        "set HF_TOKEN",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/api/", "429 Too Many Requests", "")),
        "has had too many requests",
        "wait a few minutes",
    ),
    (
        "hf:tiny/model",
        |m| m.instead.push(("/api/", "503 Service Unavailable", "")),
        "cannot give `tiny/model`: HTTP 503",
        "try again later",
    ),
    ("hf:tiny", |_| {}, "`hf:tiny` names no repository", "write `hf:owner/name@revision`"),
    ("hf:tiny/mo del", |_| {}, "names no repository", "write `hf:owner/name@revision`"),
    ("hf:../model", |_| {}, "names no repository", "write `hf:owner/name@revision`"),
    ("hf:tiny/model@", |_| {}, "has a malformed revision", "write `hf:owner/name@revision`"),
    ("hf:tiny/model@..%2Fa", |_| {}, "has a malformed revision", "write `hf:owner/name@revision`"),
    ("hf:tiny/model/../../a", |_| {}, "has a malformed path", "write `hf:owner/name@revision`"),
    (
        "hf:datasets/tiny/pairs",
        |_| {},
        "names no file of the data set",
        "hf:datasets/owner/name@revision/path.jsonl",
    ),
];

#[test]
fn each_way_that_a_hub_can_be_wrong() {
    for (address, spoil, what, help) in BAD {
        let (home, server) = serve();
        spoil(&mut server.manner.lock().unwrap());
        let hub = Hub { token: Some(SECRET.into()), ..client(home.path(), &server) };
        let help_of = |error: &Error| error.help_text().unwrap_or_default().to_owned();
        let error = fetch(&hub, address).unwrap_err();
        assert!(error.what().contains(what), "{address}: {error}");
        let refused = what.contains("refuses");
        assert!(help_of(&error).contains(help) || refused, "{address}: {error}");
        assert!(error.to_string().contains(address), "{address}: {error}");
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
}

#[test]
fn a_hub_that_is_not_there() {
    let (home, server) = serve();
    let away = Hub { endpoint: "http://127.0.0.1:1".into(), ..client(home.path(), &server) };
    let error = fetch(&away, "hf:tiny/model").unwrap_err();
    assert!(error.what().starts_with("http://127.0.0.1:1 cannot be asked for `tiny/model`: "), "{error}");
    assert!(error.help_text().unwrap().contains("HF_HUB_OFFLINE=1"));
    let offline = Hub { offline: true, ..client(home.path(), &server) };
    let error = fetch(&offline, "hf:tiny/model").unwrap_err();
    assert_eq!(error.what(), "`tiny/model` at `main` is not in the cache, and HF_HUB_OFFLINE is set");
    fetch(&client(home.path(), &server), "hf:tiny/model").unwrap();
    let error = fetch(&offline, "hf:tiny/model/README.md").unwrap_err();
    assert_eq!(error.what(), "`README.md` is not in the cache, and HF_HUB_OFFLINE is set");
}
