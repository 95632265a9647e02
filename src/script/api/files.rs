//! Reading is free; writing goes through the sandbox.

use std::io::{Read, Write};
use std::path::Path;
use std::rc::Rc;

use rhai::{Array, Dynamic, Engine, Map};

use crate::error::{Error, Result, io_error};

use super::super::host::STRING_BYTES;
use super::super::session::Session;
use super::super::value::{Answer, from_json, to_json};

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_fn("exists", |path: &str| Path::new(path).exists());
    engine.register_fn("read_text", |path: &str| -> Answer<String> { Ok(read(path)?) });
    engine.register_fn("read_json", |path: &str| -> Answer<Dynamic> { Ok(json(&read(path)?, path, None)?) });
    engine.register_fn("read_jsonl", |path: &str| -> Answer<Array> { Ok(json_lines(path)?) });
    engine.register_fn("parse_json", |text: &str| -> Answer<Dynamic> { Ok(json(text, "the text", None)?) });
    engine.register_fn("to_json", |value: Dynamic| -> Answer<String> { Ok(to_json(&value)?.to_string()) });
    // Rhai's own takes a map, and writes the type's name in place of a host type
    engine.register_fn("to_json", |value: Map| -> Answer<String> { Ok(to_json(&value.into())?.to_string()) });

    let shared = session.clone();
    engine.register_fn("write_text", move |path: &str, text: &str| -> Answer<()> {
        Ok(write(&shared, path, text)?)
    });
    let shared = session.clone();
    engine.register_fn("write_json", move |path: &str, value: Dynamic| -> Answer<()> {
        let text = serde_json::to_string_pretty(&to_json(&value)?)
            .map_err(|e| Error::internal(format!("JSON: {e}")))?;
        Ok(write(&shared, path, &(text + "\n"))?)
    });
    let shared = session.clone();
    engine.register_fn("write_jsonl", move |path: &str, rows: Array| -> Answer<()> {
        let lines = rows.iter().map(|row| Ok(to_json(row)?.to_string() + "\n"));
        Ok(write(&shared, path, &lines.collect::<Result<String>>()?)?)
    });
    let shared = session.clone();
    engine.register_fn("make_folder", move |path: &str| -> Answer<()> {
        shared.sandbox.borrow().check(Path::new(path))?;
        Ok(std::fs::create_dir_all(path).map_err(|e| io_error(&e, "make the folder", path))?)
    });
}

fn read(path: &str) -> Result<String> {
    let failed = |e: std::io::Error| io_error(&e, "read", path);
    let mut text = String::new();
    // a device such as /dev/zero never ends
    let file = std::fs::File::open(path).map_err(failed)?.take(STRING_BYTES as u64 + 1);
    std::io::BufReader::new(file).read_to_string(&mut text).map_err(failed)?;
    if text.len() > STRING_BYTES {
        return Err(Error::new(format!("the file has more than {} MiB", STRING_BYTES >> 20))
            .in_file(path)
            .help("split it into smaller files"));
    }
    Ok(text)
}

fn json(text: &str, path: &str, line: Option<usize>) -> Result<Dynamic> {
    let value = serde_json::from_str(text).map_err(|e| {
        Error::new(format!("not valid JSON: {e}"))
            .at_line(path, line.unwrap_or(e.line()))
            .help("JSON needs double quotes and no comma after the last value")
    })?;
    from_json(&value)
}

fn json_lines(path: &str) -> Result<Array> {
    let text = read(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| json(line, path, Some(i + 1))).collect()
}

/// Writes to a temporary name and renames, so that a file is whole or absent.
fn write(session: &Session, path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    session.sandbox.borrow().check(path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: std::io::Error| io_error(&e, "write", path);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
