//! The judge behind an address, against a server on the loopback that behaves well and badly.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raco::error::Kind;
use raco::run::{Answer, Judge, Verdicts};
use serde_json::{Value, json};

/// A variable that every test process has; its value is the key here.
const KEY: &str = "CARGO_MANIFEST_DIR";

/// What the server does with one request.
#[derive(Clone)]
enum Act {
    /// Answers with this text.
    Say(&'static str),
    /// Answers by the responses: the longer one is better.
    Longer,
    /// A status line with headers, and a body.
    Reply(&'static str, &'static str),
    /// Never answers.
    Stall,
    /// Sets the flag, then answers.
    Stop(Arc<AtomicBool>),
}

/// Body and authorisation of a request.
type Asked = (Value, Option<String>);

struct Server {
    url: String,
    /// Bodies and Authorization headers, in order.
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// One act a request; when they are used up, the longer response wins.
    fn new(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, acts) = (seen.clone(), Arc::new(Mutex::new(VecDeque::from(acts))));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, acts) = (log.clone(), acts.clone());
                // a client that goes away is no fault of the server
                std::thread::spawn(move || drop(serve(&stream, &log, &acts)));
            }
        });
        Self { url, seen }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn judge(&self) -> Judge {
        Judge {
            url: self.url.clone(),
            model: "tiny".into(),
            prompt: "{prompt}|{a}|{b}".into(),
            backoff_s: 0.001,
            concurrency: 1,
            timeout_s: 30.0,
            ..Judge::default()
        }
    }
}

fn serve(
    mut stream: &TcpStream,
    log: &Mutex<Vec<(Value, Option<String>)>>,
    acts: &Mutex<VecDeque<Act>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut authorization, mut first) = (0, None, String::new());
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap()
                }
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    authorization = Some(value.to_owned());
                }
                None if line.trim().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body)?;
        assert!(first.starts_with("POST /v1/chat/completions "), "{first}");
        let asked =
            body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        log.lock().unwrap().push((body, authorization));
        let act = acts.lock().unwrap().pop_front().unwrap_or(Act::Longer);
        let says = |text: &str| {
            (
                "200 OK".to_owned(),
                json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] }).to_string(),
            )
        };
        let longer = || {
            let parts: Vec<usize> = asked.split('|').map(str::len).collect();
            match parts[1].cmp(&parts[2]) {
                std::cmp::Ordering::Greater => "A",
                std::cmp::Ordering::Less => " B\n",
                std::cmp::Ordering::Equal => "Tie",
            }
        };
        let (head, text) = match act {
            Act::Say(text) => says(text),
            Act::Longer => says(longer()),
            Act::Reply(head, text) => (head.to_owned(), text.to_owned()),
            Act::Stall => {
                std::thread::sleep(Duration::from_secs(20));
                return Ok(());
            }
            Act::Stop(flag) => {
                flag.store(true, Ordering::Relaxed);
                says(longer())
            }
        };
        write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn compare(judge: &Judge, first: &[&str], second: &[&str]) -> raco::error::Result<Verdicts> {
    let prompts: Vec<String> = (0..first.len()).map(|i| format!("ask {i}")).collect();
    judge.compare((&prompts, &texts(first), &texts(second)), &AtomicBool::new(false), |_, _| {})
}

#[test]
fn both_orders_are_asked_and_counted() {
    let server = Server::new(vec![]);
    let found = compare(&server.judge(), &["long one", "x", "same"], &["y", "a long one", "four"]).unwrap();
    assert_eq!(
        (found.wins, found.losses, found.ties, found.disagreements, found.unanswered),
        (1, 1, 1, 0, 0)
    );
    assert_eq!(found.rate, Some(0.5));
    assert!(found.low.unwrap() < 0.5 && found.high.unwrap() > 0.5 && found.first_place == Some(0.5));
    assert_eq!((found.each[0].forward, found.each[0].backward), (Some(Answer::A), Some(Answer::B)));
    let seen = server.seen.lock().unwrap();
    let asked: Vec<&str> =
        seen.iter().map(|(body, _)| body["messages"][0]["content"].as_str().unwrap()).collect();
    assert_eq!(asked[..2], ["ask 0|long one|y", "ask 0|y|long one"]);
    assert!(
        seen.iter().all(|(body, key)| body["model"] == "tiny" && body["temperature"] == 0.0 && key.is_none())
    );
}

#[test]
fn orders_that_disagree_count_one_half() {
    let server = Server::new(vec![Act::Say("A"), Act::Say("A"), Act::Say("A"), Act::Say("tie")]);
    let found = compare(&server.judge(), &["a", "b"], &["c", "d"]).unwrap();
    assert_eq!((found.ties, found.disagreements, found.rate), (2, 2, Some(0.5)));
    assert_eq!(found.first_place, Some(1.0));
}

#[test]
fn what_fails_for_now_is_tried_again() {
    // the usual wait would be ten minutes: the servers' own word is taken instead
    let patient = |server: &Server| Judge { backoff_s: 600.0, ..server.judge() };
    let now = "429 Too Many Requests\r\nretry-after: 0";
    let server =
        Server::new(vec![Act::Reply(now, "slow down"), Act::Reply("503 Busy\r\nretry-after: 0", "")]);
    let found = compare(&patient(&server), &["long one"], &["y"]).unwrap();
    assert_eq!((found.wins, server.count()), (1, 4));
    let server = Server::new(vec![Act::Reply("500 Oh", "broken"), Act::Reply("502 Oh", "")]);
    assert_eq!(compare(&server.judge(), &["long one"], &["y"]).unwrap().wins, 1);
    // a server that never answers is left after the time that was given
    let server = Server::new(vec![Act::Stall]);
    let found =
        compare(&Judge { timeout_s: 1.0, retries: 6, ..server.judge() }, &["long one"], &["y"]).unwrap();
    assert_eq!(found.wins, 1);
}

#[test]
fn what_fails_for_good_is_told_and_loses_nothing_else() {
    let broken = || Act::Reply("500 Oh", "the model is broken");
    let server = Server::new(vec![broken(), broken(), broken()]);
    let judge = Judge { retries: 2, ..server.judge() };
    let found = compare(&judge, &["long one", "long two"], &["y", "z"]).unwrap();
    assert_eq!((found.wins, found.unanswered, found.rate), (1, 1, Some(1.0)));
    let error = found.each[0].error.as_ref().unwrap();
    assert!(error.contains("replied 500: the model is broken, after 3 tries"), "{error}");
    // only the order that failed lacks its answer
    assert_eq!((found.each[0].forward, found.each[0].backward), (None, Some(Answer::B)));
    let server = Server::new(vec![Act::Reply("400 Bad Request", "too long"), Act::Reply("200 OK", "{}")]);
    let found = compare(&server.judge(), &["long one", "long two"], &["y", "z"]).unwrap();
    assert_eq!((found.unanswered, found.wins, server.count()), (1, 1, 4));
}

#[test]
fn nonsense_is_asked_once_more_and_then_counts_as_no_answer() {
    let server = Server::new(vec![Act::Say("I prefer A"), Act::Say("A")]);
    let found = compare(&server.judge(), &["long one"], &["y"]).unwrap();
    assert_eq!((found.wins, server.count()), (1, 3));
    let server = Server::new(vec![Act::Say("A."), Act::Say("Both are fine")]);
    let found = compare(&server.judge(), &["long one"], &["y"]).unwrap();
    assert_eq!((found.unanswered, server.count(), found.rate), (1, 3, None));
    assert!(found.each[0].error.as_ref().unwrap().contains("answered `Both are fine`, expected A, B or tie"));
}

#[test]
fn answers_are_kept_by_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(vec![]);
    let judge = Judge { cache: Some(folder.path().join("judgements")), ..server.judge() };
    let first = compare(&judge, &["long one", "x"], &["y", "longer"]).unwrap();
    assert_eq!((first.cached, server.count()), (0, 4));
    let again = compare(&judge, &["long one", "x"], &["y", "longer"]).unwrap();
    assert_eq!((again.cached, server.count()), (4, 4));
    assert_eq!(again.each, first.each);
    // another question is another answer
    compare(&Judge { model: "other".into(), ..judge.clone() }, &["long one"], &["y"]).unwrap();
    assert_eq!(server.count(), 6);
    // a spoilt file is asked for again
    for entry in walk(folder.path()) {
        std::fs::write(entry, "{").unwrap();
    }
    assert_eq!(compare(&judge, &["long one"], &["y"]).unwrap().cached, 0);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn the_key_goes_to_the_server_and_nowhere_else() {
    let key = std::env::var(KEY).unwrap();
    let echo: &'static str = Box::leak(format!("no such key: {key}").into_boxed_str());
    let server = Server::new(vec![Act::Longer, Act::Longer, Act::Reply("401 Unauthorized", echo)]);
    let folder = tempfile::tempdir().unwrap();
    let judge = Judge { key: Some(KEY.into()), cache: Some(folder.path().into()), ..server.judge() };
    compare(&judge, &["long one"], &["y"]).unwrap();
    let expected = format!("Bearer {key}");
    assert!(server.seen.lock().unwrap().iter().all(|(_, sent)| sent.as_ref() == Some(&expected)));
    for path in walk(folder.path()) {
        assert!(!std::fs::read_to_string(path).unwrap().contains(&key));
    }
    // one refusal ends the questions: nothing else can be answered either
    let error = compare(&judge, &["a", "b", "c"], &["dd", "ee", "ff"]).unwrap_err().to_string();
    assert!(
        error.contains("401: no such key: ***") && error.contains(&format!("check the key in `{KEY}`")),
        "{error}"
    );
    assert!(!error.contains(&key) && server.count() == 3);
    // a key in place of its name is refused without a word of it
    let given = Judge { key: Some("sk-1234".into()), ..judge.clone() };
    let error = compare(&given, &["a"], &["b"]).unwrap_err().to_string();
    assert!(error.contains("no name of an environment variable") && !error.contains("1234"), "{error}");
    let absent = Judge { key: Some("RACO_NO_SUCH_KEY".into()), ..judge };
    assert!(
        compare(&absent, &["a"], &["b"])
            .unwrap_err()
            .what()
            .contains("`RACO_NO_SUCH_KEY` with the judge's key is not set")
    );
}

#[test]
fn a_refusal_in_the_middle_keeps_what_was_answered() {
    let server = Server::new(vec![Act::Longer, Act::Longer, Act::Reply("403 Forbidden", "no credit left")]);
    let found = compare(&server.judge(), &["long one", "long two", "long three"], &["y", "z", "x"]).unwrap();
    assert_eq!((found.wins, found.unanswered, server.count()), (1, 2, 3));
    assert!(found.each[2].error.as_ref().unwrap().contains("no credit left"));
}

#[test]
fn an_interrupt_ends_it_between_requests() {
    let stop = Arc::new(AtomicBool::new(false));
    let server = Server::new(vec![Act::Longer, Act::Stop(stop.clone())]);
    let many = texts(&["x"; 20]);
    let error = server.judge().compare((&many, &many, &many), &stop, |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(server.count(), 2);
    // and a wait for a server that is busy
    let stop = Arc::new(AtomicBool::new(false));
    let server = Server::new(vec![Act::Reply("429 Busy\r\nretry-after: 300", "")]);
    let flag = stop.clone();
    let error =
        server.judge().compare((&many, &many, &many), &stop, |_, _| flag.store(true, Ordering::Relaxed));
    assert_eq!(error.unwrap_err().kind(), Kind::Interrupted);
}

#[test]
fn requests_run_beside_each_other_and_answers_keep_their_places() {
    let server = Server::new(vec![]);
    let first: Vec<String> = (0..24).map(|i| "x".repeat(1 + i % 3)).collect();
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    let found = compare(&Judge { concurrency: 6, ..server.judge() }, &first, &["yy"; 24]).unwrap();
    for (i, pair) in found.each.iter().enumerate() {
        assert_eq!(pair.verdict, Some(["loss", "tie", "win"][i % 3]));
    }
    assert_eq!(server.count(), 48);
}

#[test]
fn a_request_is_as_it_was_described() {
    let server = Server::new(vec![]);
    let extra = json!({ "temperature": null, "max_tokens": 8 });
    let judge =
        Judge { system: Some("be fair".into()), extra: extra.as_object().unwrap().clone(), ..server.judge() };
    // what is filled in is not searched for places
    compare(&judge, &["{b} {prompt}"], &["{a}"]).unwrap();
    let seen = server.seen.lock().unwrap();
    let body = &seen[0].0;
    assert_eq!(body["messages"][0], json!({ "role": "system", "content": "be fair" }));
    assert_eq!(body["messages"][1]["content"], "ask 0|{b} {prompt}|{a}");
    assert!(body.get("temperature").is_none() && body["max_tokens"] == 8);
}

#[test]
fn a_judge_that_is_not_well_described_is_refused() {
    let usual = Judge { url: "http://127.0.0.1:9".into(), model: "tiny".into(), ..Judge::default() };
    let refused = |judge: Judge| compare(&judge, &["a"], &["b"]).unwrap_err().to_string();
    assert!(
        refused(Judge { url: "api.openai.com".into(), ..usual.clone() }).contains("give `url: \"https://")
    );
    assert!(refused(Judge { model: String::new(), ..usual.clone() }).contains("without a model"));
    assert!(refused(Judge { prompt: "{a} or {b}?".into(), ..usual.clone() }).contains("lacks `{prompt}`"));
    assert!(refused(Judge { concurrency: 0, ..usual.clone() }).contains("`concurrency` 0"));
    assert!(refused(Judge { timeout_s: -1.0, ..usual.clone() }).contains("a time of the judge"));
    let error = usual.compare((&[], &texts(&["a"]), &[]), &AtomicBool::new(false), |_, _| {}).unwrap_err();
    assert!(error.what().contains("0 prompts, 1 and 0 responses"));
    // no server there: told, not thrown
    let found = compare(&Judge { retries: 1, backoff_s: 0.0, ..usual.clone() }, &["a"], &["b"]).unwrap();
    assert_eq!(found.unanswered, 1);
    assert!(found.each[0].error.as_ref().unwrap().contains("no reply"));
    let nothing = usual.compare((&[], &[], &[]), &AtomicBool::new(false), |_, _| {}).unwrap();
    assert_eq!((nothing.rate, nothing.each.len()), (None, 0));
}
