//! `args`, `options`, and the error value that `catch` receives.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rhai::{Dynamic, Engine, EvalAltResult, Map, Position};

use crate::error::{Error, Kind, Result};

use super::super::args::usage_lines;
use super::super::resolver;
use super::super::session::Session;
use super::super::value::{Answer, fit, strings, unknown};
use super::run::stored_arguments;

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    let shared = session.clone();
    engine.register_fn("args", move |defaults: Map| -> Answer<Map> {
        let mut given = shared.given.borrow_mut();
        if given.take("help").is_some() {
            shared.console().print(&help(&shared, &defaults));
            return Err(EvalAltResult::Exit(Dynamic::UNIT, Position::NONE).into());
        }
        let resumed = given.take("resume").map(|folder| {
            let out = given.peek("out").map(str::to_owned);
            let folder = folder.or(out).or_else(|| defaults.get("out")?.clone().into_string().ok());
            folder.map(PathBuf::from).ok_or_else(|| {
                Error::with_kind(Kind::Usage, "`--resume` needs the folder of the run")
                    .help("write `--resume runs/NAME`")
            })
        });
        let Some(folder) = resumed.transpose()? else { return Ok(given.fill(defaults)?) };
        given.resume(stored_arguments(&folder)?);
        let mut args = given.fill(defaults)?;
        args.insert("out".into(), folder.display().to_string().into());
        shared.resume.replace(Some(folder));
        Ok(args)
    });
    engine.register_fn("options", |given: Map, defaults: Map| {
        Ok::<_, Box<EvalAltResult>>(merge(given, defaults)?)
    });
    engine.register_fn("pick", |map: Map, keys: rhai::Array| -> Answer<Map> {
        let keys = strings(&keys, "the keys")?;
        Ok(map.into_iter().filter(|(key, _)| keys.iter().any(|k| k == key.as_str())).collect())
    });
    let shared = session.clone();
    engine.register_fn("has_module", move |path: &str| resolver::find(&shared, path).is_ok());
    let shared = session.clone();
    engine.register_fn("sleep", move |seconds: f64| sleep(&shared, seconds));
    let shared = session.clone();
    engine.register_fn("sleep", move |seconds: i64| sleep(&shared, seconds as f64));

    engine.register_type_with_name::<Error>("Error");
    engine.register_get("what", |e: &mut Error| e.what().to_owned());
    engine.register_get("help", |e: &mut Error| e.help_text().unwrap_or_default().to_owned());
    engine.register_get("places", |e: &mut Error| -> rhai::Array {
        e.places().iter().map(|p| p.to_string().into()).collect()
    });
    engine.register_fn("to_string", |e: &mut Error| e.to_string());
    engine.register_fn("to_debug", |e: &mut Error| e.to_string());
    engine.register_fn("error", |what: &str, help: &str| Error::new(what).help(help));
    engine
        .register_fn("usage_error", |what: &str, help: &str| Error::with_kind(Kind::Usage, what).help(help));
}

/// Rhai's own `sleep` hears no Ctrl-C.
fn sleep(session: &Session, seconds: f64) -> Answer<()> {
    let end = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        session.check_interrupt()?;
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    Ok(())
}

/// The header of the script and its arguments with their defaults.
fn help(session: &Session, defaults: &Map) -> String {
    let script = session.script.borrow().display().to_string();
    let sources = session.sources();
    let source = sources.iter().find(|(name, _)| *name == script).map_or("", |(_, text)| text.as_str());
    let header: String = source
        .lines()
        .take_while(|line| line.starts_with("//"))
        .map(|line| {
            format!("{}\n", line.trim_start_matches(['/', '!']).strip_prefix(' ').unwrap_or_default())
        })
        .collect();
    let lib = "  --lib DIR  a folder with modules, given before or after the script";
    format!("{header}\nUsage: raco script {script} [--key value …]\n\n{}\n{lib}", usage_lines(defaults))
}

/// The defaults with the given options in their place.
fn merge(given: Map, mut defaults: Map) -> Result<Map> {
    for (key, value) in given {
        let Some(default) = defaults.get(&key) else {
            return Err(unknown("option", &key, defaults.keys().map(|k| k.as_str())));
        };
        let value = fit(default, value, &format!("option `{key}`"))?;
        defaults.insert(key, value);
    }
    Ok(defaults)
}
