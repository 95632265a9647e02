//! Judges behind an address.

use std::rc::Rc;

use rhai::{Array, Engine, Map};

use crate::error::{Error, Result};
use crate::run::Judge;

use super::super::session::Session;
use super::super::value::{Answer, Opts, from_json, strings, to_json};
use super::data::cache_folder;

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<Judge>("Judge");
    engine.register_fn("judge_http", |options: Map| -> Answer<Judge> { Ok(judge(options)?) });
    let session = session.clone();
    engine.register_fn(
        "compare",
        move |judge: &mut Judge, prompts: Array, first: Array, second: Array| -> Answer<Map> {
            Ok(compare(&session, judge, (&prompts, &first, &second))?)
        },
    );
    let text = |judge: &mut Judge| format!("Judge({} at {})", judge.model, judge.url);
    engine.register_fn("to_string", text);
    engine.register_fn("to_debug", text);
}

fn judge(options: Map) -> Result<Judge> {
    let mut options = Opts::new("judge_http", options);
    let usual = Judge::default();
    let extra = options.host::<Map>("extra", "a map of keys of the request")?.unwrap_or_default();
    let judge = Judge {
        url: options.text("url")?.unwrap_or(usual.url),
        model: options.text("model")?.unwrap_or(usual.model),
        prompt: options.text("prompt")?.unwrap_or(usual.prompt),
        system: options.text("system")?,
        key: name_of_key(&mut options)?,
        temperature: options.float("temperature")?.unwrap_or(usual.temperature),
        extra: extra
            .iter()
            .map(|(key, value)| Ok((key.to_string(), to_json(value)?)))
            .collect::<Result<_>>()?,
        timeout_s: options.float("timeout_s")?.unwrap_or(usual.timeout_s),
        retries: options.count("retries")?.unwrap_or(usual.retries),
        backoff_s: options.float("backoff_s")?.unwrap_or(usual.backoff_s),
        concurrency: options.count("concurrency")?.unwrap_or(usual.concurrency),
        cache: options.flag("cache")?.unwrap_or(true).then(|| cache_folder("judgements")).flatten(),
    };
    options.finish()?;
    judge.check()?;
    Ok(judge)
}

fn name_of_key(options: &mut Opts) -> Result<Option<String>> {
    options.take("key").map(|value| value.into_string()).transpose().map_err(|_| {
        Error::new("`key` of a judge is no name of an environment variable")
            .help("give its name: `key: \"OPENAI_API_KEY\"`")
    })
}

fn compare(session: &Session, judge: &Judge, lists: (&Array, &Array, &Array)) -> Result<Map> {
    let prompts = strings(lists.0, "prompts")?;
    let (first, second) = (strings(lists.1, "first responses")?, strings(lists.2, "second responses")?);
    let tell = |done: usize, total: usize| session.console().progress(done, total, "judging");
    let found = judge.compare((&prompts, &first, &second), session.interrupt(), tell);
    session.console().progress_end();
    let json = serde_json::to_value(found?)
        .map_err(|e| Error::internal(format!("the verdicts have no JSON form: {e}")))?;
    Ok(from_json(&json)?.try_cast::<Map>().unwrap_or_default())
}
