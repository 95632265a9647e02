//! A judge behind an address: a language model that is asked which of two responses is better.
//!
//! The address speaks the chat protocol of OpenAI (`POST …/chat/completions`). Each pair is asked in both orders, since models
//! favour a place; answers are kept on disk by what was asked, so that a stopped comparison goes on where it was. The key is
//! read from an environment variable when it is needed, and stands in no file, message or text of an error.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::files::{create_dir, write_whole};
use crate::error::{Error, Result};
use crate::math::wilson_interval;

/// How often waiting looks for a stop.
const LOOK: Duration = Duration::from_millis(50);
/// No wait between two tries is longer, whatever the server asks for.
const LONGEST_WAIT: f64 = 300.0;
/// Of a server's complaint, so much is told.
const TOLD: usize = 200;

/// What a judge is asked by default.
const PROMPT: &str = "You are given a request and two responses to it. Decide which response is better.\n\n\
    [Request]\n{prompt}\n\n[Response A]\n{a}\n\n[Response B]\n{b}\n\n\
    Answer with one word only: A, B or tie.";

/// A judge and how to reach it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judge {
    /// Address of the interface, such as `https://api.openai.com/v1`.
    pub url: String,
    /// Name of the model.
    pub model: String,
    /// What is asked: a text with `{prompt}`, `{a}` and `{b}`.
    pub prompt: String,
    /// System message, where there is one.
    pub system: Option<String>,
    /// Name of the environment variable with the key; none for a server that asks for none.
    pub key: Option<String>,
    /// Temperature.
    pub temperature: f64,
    /// Further keys of the request; `null` takes one out.
    pub extra: Map<String, Value>,
    /// Seconds for one request.
    pub timeout_s: f64,
    /// Tries after the first, of a request whose failure may pass.
    pub retries: usize,
    /// Seconds before the second try; each further wait is twice as long.
    pub backoff_s: f64,
    /// Requests at a time.
    pub concurrency: usize,
    /// Folder of the answers; they are not kept for `None`.
    pub cache: Option<PathBuf>,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            prompt: PROMPT.into(),
            system: None,
            key: None,
            temperature: 0.0,
            extra: Map::new(),
            timeout_s: 60.0,
            retries: 5,
            backoff_s: 1.0,
            concurrency: 4,
            cache: None,
        }
    }
}

/// What the judge says of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// The first response.
    A,
    /// The second response.
    B,
    /// Neither.
    #[serde(rename = "tie")]
    Tie,
}

impl Answer {
    fn read(text: &str) -> Option<Self> {
        match text.trim() {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            tie if tie.eq_ignore_ascii_case("tie") => Some(Self::Tie),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::Tie => "tie",
        }
    }

    fn turned(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
            Self::Tie => Self::Tie,
        }
    }
}

/// One pair of responses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// `win` where both orders prefer the first list's response, `loss` where both prefer the second's, else `tie`; none
    /// where an order has no answer.
    pub verdict: Option<&'static str>,
    /// The answer with the first list's response as A.
    pub forward: Option<Answer>,
    /// The answer with the first list's response as B.
    pub backward: Option<Answer>,
    /// Why an answer is missing.
    pub error: Option<String>,
}

/// Two lists of responses, compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdicts {
    /// Pairs that the first list wins.
    pub wins: usize,
    /// Pairs that it loses.
    pub losses: usize,
    /// Ties, and pairs whose two orders disagree.
    pub ties: usize,
    /// Of the ties those whose two orders disagree.
    pub disagreements: usize,
    /// Pairs without an answer in one order or both.
    pub unanswered: usize,
    /// (wins + ties/2) / answered pairs; none without an answer.
    pub rate: Option<f64>,
    /// Lower end of Wilson's 95 % interval of the rate; with ties it is wider than it need be.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Answers that name the place A, of all that name one: far from a half, the judge favours a place.
    pub first_place: Option<f64>,
    /// Answers that came from the disk.
    pub cached: usize,
    /// Each pair.
    pub each: Vec<Judged>,
}

/// Why a question has no answer.
enum Failure {
    /// This question alone.
    Here(String),
    /// No question will be answered.
    Everywhere(Error),
    /// The user stopped.
    Stopped,
}

/// What one request came to.
enum Reply {
    Content(String),
    /// Worth another try, after these seconds where the server names them.
    Later(String, Option<f64>),
    Failed(Failure),
}

impl Judge {
    /// Asks which of `first[i]` and `second[i]` answers `prompts[i]` better, in both orders. `progress` hears of answers
    /// and all questions on the calling thread; `stop` ends it between requests.
    ///
    /// Server faults (408, 429, 5xx), broken connections and time-outs are tried again after `backoff_s` · 2ᵏ seconds, or when
    /// the server says (`Retry-After`). Anything but `A`, `B` or `tie` is asked once more, then counts as no answer.
    ///
    /// # Errors
    /// Lists of different length; a judge that is not well described; a key that is not there; an interrupt; a server that
    /// refuses every question.
    pub fn compare(
        &self,
        (prompts, first, second): (&[String], &[String], &[String]),
        stop: &AtomicBool,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Verdicts> {
        if prompts.len() != first.len() || prompts.len() != second.len() {
            let lengths =
                format!("{} prompts, {} and {} responses", prompts.len(), first.len(), second.len());
            return Err(Error::new(lengths).help("give one response of each list for every prompt"));
        }
        self.check()?;
        let line = Line {
            judge: self,
            agent: self.agent(),
            url: endpoint(&self.url),
            key: self.key()?,
            stop,
            refused: Mutex::new(None),
            cached: AtomicUsize::new(0),
        };
        let total = 2 * prompts.len();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let answers: Mutex<Vec<Option<std::result::Result<Answer, String>>>> = Mutex::new(vec![None; total]);
        thread::scope(|scope| {
            let work = || {
                while !line.ended() {
                    let k = next.fetch_add(1, Ordering::Relaxed);
                    if k >= total {
                        break;
                    }
                    let (a, b) = if k % 2 == 0 { (first, second) } else { (second, first) };
                    match line.ask(&prompts[k / 2], &a[k / 2], &b[k / 2]) {
                        Ok(answer) => held(&answers)[k] = Some(Ok(answer)),
                        Err(Failure::Here(why)) => held(&answers)[k] = Some(Err(why)),
                        Err(Failure::Everywhere(error)) => *held(&line.refused) = Some(error),
                        Err(Failure::Stopped) => break,
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            let workers: Vec<_> = (0..self.concurrency.min(total)).map(|_| scope.spawn(work)).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                progress(done.load(Ordering::Relaxed), total);
                sleep(LOOK);
            }
        });
        if stop.load(Ordering::Relaxed) {
            return Err(Error::interrupted("stopped by Ctrl-C"));
        }
        let answers = held(&answers);
        let refused = held(&line.refused).take();
        if let Some(error) = &refused
            && answers.iter().flatten().all(std::result::Result::is_err)
        {
            return Err(error.clone());
        }
        let unasked = refused.map_or_else(String::new, |error| error.what().to_owned());
        let each = answers.chunks(2).map(|two| judged(&two[0], &two[1], &unasked)).collect();
        Verdicts::of(each, line.cached.load(Ordering::Relaxed))
    }

    /// Fails where the judge cannot be asked as it is described.
    ///
    /// # Errors
    /// An address that is none, no model, a prompt without its places, a key given in place of its name.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String, help: &str| Err(Error::new(what).help(help));
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return wrong(format!("address `{}` of a judge", self.url), "give `url: \"https://…/v1\"`");
        }
        if self.model.is_empty() {
            return wrong("a judge without a model".into(), "give the `model` that the server is to run");
        }
        if let Some(part) = ["{prompt}", "{a}", "{b}"].iter().find(|part| !self.prompt.contains(**part)) {
            return wrong(
                format!("the judge's prompt lacks `{part}`"),
                "write `{prompt}`, `{a}` and `{b}` where the request and the two responses belong",
            );
        }
        if !(self.timeout_s > 0.0 && self.timeout_s <= 86_400.0 && (0.0..=86_400.0).contains(&self.backoff_s))
        {
            return wrong(
                "a time of the judge is negative or longer than a day".into(),
                "give times in seconds",
            );
        }
        // a key in place of a name must not reach a message
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if self.key.as_ref().is_some_and(|name| name.is_empty() || !name.chars().all(plain)) {
            return wrong(
                "`key` of a judge is no name of an environment variable".into(),
                "put the key into a variable, and give its name: `key: \"OPENAI_API_KEY\"`",
            );
        }
        if self.concurrency == 0 {
            return wrong("a judge with `concurrency` 0".into(), "allow one request at a time at least");
        }
        Ok(())
    }

    /// The key, from its environment variable.
    fn key(&self) -> Result<Option<String>> {
        let Some(name) = &self.key else { return Ok(None) };
        match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => Ok(Some(key.trim().to_owned())),
            _ => Err(Error::new(format!("environment variable `{name}` with the judge's key is not set"))
                .help(format!("set it: `export {name}=…`"))),
        }
    }

    fn agent(&self) -> ureq::Agent {
        ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(self.timeout_s)))
            .http_status_as_error(false)
            // the key goes to the address that was given, and to no other
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .into()
    }

    fn body(&self, prompt: &str, a: &str, b: &str) -> Value {
        let system = self.system.iter().map(|text| json!({ "role": "system", "content": text }));
        let asked = filled(&self.prompt, prompt, a, b);
        let messages: Vec<Value> = system.chain([json!({ "role": "user", "content": asked })]).collect();
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), messages.into());
        body.insert("temperature".into(), json!(self.temperature));
        for (key, value) in &self.extra {
            if value.is_null() {
                body.remove(key)
            } else {
                body.insert(key.clone(), value.clone())
            };
        }
        body.into()
    }
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn endpoint(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with("/chat/completions") { url.to_owned() } else { format!("{url}/chat/completions") }
}

/// The template with its places filled; what is filled in is not searched for places again.
fn filled(template: &str, prompt: &str, a: &str, b: &str) -> String {
    let places = [("{prompt}", prompt), ("{a}", a), ("{b}", b)];
    let (mut out, mut rest) = (String::new(), template);
    while let Some((at, (name, text))) =
        places.iter().filter_map(|place| Some((rest.find(place.0)?, place))).min_by_key(|(at, _)| *at)
    {
        out += &rest[..at];
        out.push_str(text);
        rest = &rest[at + name.len()..];
    }
    out + rest
}

type Given = Option<std::result::Result<Answer, String>>;

fn judged(forward: &Given, backward: &Given, unasked: &str) -> Judged {
    let answer = |given: &Given| given.as_ref().and_then(|given| given.as_ref().ok().copied());
    let why = |given: &Given| match given {
        Some(Ok(_)) => None,
        Some(Err(why)) => Some(why.clone()),
        None => Some(unasked.to_owned()),
    };
    let (a, b) = (answer(forward), answer(backward));
    let verdict = a.zip(b).map(|two| match two {
        (Answer::A, Answer::B) => "win",
        (Answer::B, Answer::A) => "loss",
        _ => "tie",
    });
    Judged { verdict, forward: a, backward: b, error: why(forward).or_else(|| why(backward)) }
}

impl Verdicts {
    fn of(each: Vec<Judged>, cached: usize) -> Result<Self> {
        let count = |verdict: Option<&str>| each.iter().filter(|pair| pair.verdict == verdict).count();
        let (wins, losses, ties) = (count(Some("win")), count(Some("loss")), count(Some("tie")));
        let split =
            |pair: &&Judged| pair.verdict.is_some() && pair.forward != pair.backward.map(Answer::turned);
        let disagreements = each.iter().filter(split).count();
        let answered = wins + losses + ties;
        let good = wins as f64 + 0.5 * ties as f64;
        let interval = if answered > 0 { Some(wilson_interval(good, answered)?) } else { None };
        let places = || each.iter().flat_map(|pair| [pair.forward, pair.backward]).flatten();
        let [a, b] = [Answer::A, Answer::B].map(|place| places().filter(|p| *p == place).count() as f64);
        Ok(Self {
            wins,
            losses,
            ties,
            disagreements,
            unanswered: count(None),
            rate: interval.map(|interval| interval.mean),
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            first_place: (a + b > 0.0).then(|| a / (a + b)),
            cached,
            each,
        })
    }
}

/// The connection of one comparison, shared by its workers.
struct Line<'a> {
    judge: &'a Judge,
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
    stop: &'a AtomicBool,
    /// Set once the server refuses everything.
    refused: Mutex<Option<Error>>,
    cached: AtomicUsize,
}

impl Line<'_> {
    fn ended(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || held(&self.refused).is_some()
    }

    fn ask(&self, prompt: &str, a: &str, b: &str) -> std::result::Result<Answer, Failure> {
        let body = self.judge.body(prompt, a, b).to_string();
        let kept = self.judge.cache.as_ref().map(|folder| kept_at(folder, &self.url, &body));
        if let Some(answer) = kept.as_deref().and_then(recalled) {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        let mut last = String::new();
        // nonsense is asked once more
        for _ in 0..2 {
            last = self.tried(&body)?;
            if let Some(answer) = Answer::read(&last) {
                if let Some(path) = &kept {
                    keep(path, answer).map_err(Failure::Everywhere)?;
                }
                return Ok(answer);
            }
        }
        Err(Failure::Here(format!("the judge answered `{}`, expected A, B or tie", self.told(&last))))
    }

    /// The text of the reply, after as many tries as are allowed.
    fn tried(&self, body: &str) -> std::result::Result<String, Failure> {
        for attempt in 0.. {
            if self.ended() {
                return Err(Failure::Stopped);
            }
            let (why, wait) = match self.send(body) {
                Reply::Content(text) => return Ok(text),
                Reply::Failed(failure) => return Err(failure),
                Reply::Later(why, wait) => (why, wait),
            };
            if attempt >= self.judge.retries {
                return Err(Failure::Here(format!("{why}, after {} tries", attempt + 1)));
            }
            let usual = self.judge.backoff_s * 2f64.powi(attempt.min(30) as i32);
            self.wait(wait.unwrap_or(usual).min(LONGEST_WAIT));
        }
        Err(Failure::Stopped)
    }

    /// Sleeps in parts, so that a stop is seen.
    fn wait(&self, seconds: f64) {
        let mut left = Duration::from_secs_f64(seconds.max(0.0));
        while !left.is_zero() && !self.ended() {
            let part = left.min(LOOK);
            sleep(part);
            left -= part;
        }
    }

    fn send(&self, body: &str) -> Reply {
        let mut request = self.agent.post(self.url.as_str()).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Reply::Later(format!("no reply: {}", self.told(&error.to_string())), None),
        };
        let status = response.status().as_u16();
        let wait =
            response.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
        let text = match response.body_mut().read_to_string() {
            Ok(text) => text,
            Err(error) => {
                return Reply::Later(
                    format!("a reply that broke off: {}", self.told(&error.to_string())),
                    wait,
                );
            }
        };
        let complaint = || format!("the judge's server replied {status}: {}", self.told(&text));
        match status {
            200 => match content(&text) {
                Some(content) => Reply::Content(content),
                None => {
                    Reply::Failed(Failure::Here(format!("a reply without `choices`: {}", self.told(&text))))
                }
            },
            408 | 425 | 429 | 500.. => Reply::Later(complaint(), wait.filter(|wait: &f64| *wait >= 0.0)),
            401 | 403 => {
                Reply::Failed(Failure::Everywhere(Error::new(complaint()).help(match &self.judge.key {
                    Some(name) => format!("check the key in `{name}`"),
                    None => "name the environment variable of the key: `key: \"OPENAI_API_KEY\"`".into(),
                })))
            }
            300..=399 | 404 | 405 => Reply::Failed(Failure::Everywhere(
                Error::new(complaint()).help(format!("check `url` and `model`: `{}` was asked", self.url)),
            )),
            _ => Reply::Failed(Failure::Here(complaint())),
        }
    }

    /// The start of a text on one line, the key blotted out.
    fn told(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "***"),
            None => text.to_owned(),
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TOLD).collect()
    }
}

/// The text of the first choice.
fn content(reply: &str) -> Option<String> {
    let reply: Value = serde_json::from_str(reply).ok()?;
    reply["choices"][0]["message"]["content"].as_str().map(str::to_owned)
}

/// Where the answer to a question is kept: by address and whole request, the key not among them.
fn kept_at(folder: &Path, url: &str, body: &str) -> PathBuf {
    let hash = blake3::hash(format!("{url}\n{body}").as_bytes()).to_hex();
    folder.join(&hash[..2]).join(format!("{hash}.json"))
}

/// A file that is not as it was written counts as none.
fn recalled(path: &Path) -> Option<Answer> {
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    Answer::read(kept["answer"].as_str()?)
}

fn keep(path: &Path, answer: Answer) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_dir(folder)?;
    }
    write_whole(path, format!("{}\n", json!({ "answer": answer.text() })).as_bytes())
}
