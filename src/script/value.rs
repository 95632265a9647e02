//! Between script values and Rust: numbers, options maps, JSON, and our error inside Rhai's.

use rhai::{Array, Dynamic, EvalAltResult, Map, Position};

use crate::error::{Error, Kind, Result, nearest};

use super::options::options_of;

/// Values that a script's arrays, and likewise its maps, may hold together.
pub(crate) const CONTAINER_SIZE: usize = 4_000_000;

/// The result of a host function.
pub(crate) type Answer<T> = std::result::Result<T, Box<EvalAltResult>>;

impl From<Error> for Box<EvalAltResult> {
    /// Scripts catch it as a value with `e.what` and `e.help`; an interrupt cannot be caught.
    fn from(error: Error) -> Self {
        let interrupted = error.kind() == Kind::Interrupted;
        let token = Dynamic::from(error);
        Box::new(if interrupted {
            EvalAltResult::ErrorTerminated(token, Position::NONE)
        } else {
            EvalAltResult::ErrorRuntime(token, Position::NONE)
        })
    }
}

/// A value as a message shows it.
pub(crate) fn show(value: &Dynamic) -> String {
    if value.is_unit() { "()".to_owned() } else { value.to_string() }
}

/// The script's name of a value's type.
pub(crate) fn type_of(value: &Dynamic) -> &'static str {
    match value.type_name() {
        "i64" => "int",
        "f64" => "float",
        "()" => "nothing",
        name if name.contains("FnPtr") || name == "Fn" => "function",
        name => name.rsplit("::").next().unwrap_or(name),
    }
}

/// A float, or an int taken as one.
pub(crate) fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|i| i as f64))
}

/// Numbers as an array of floats.
pub(crate) fn array(values: &[f64]) -> Array {
    values.iter().map(|&v| Dynamic::from(v)).collect()
}

/// An array of numbers.
///
/// # Errors
/// An element that is no number; `what` names the array.
pub(crate) fn floats(values: &[Dynamic], what: &str) -> Result<Vec<f64>> {
    let convert = |(i, value): (usize, &Dynamic)| {
        number(value).ok_or_else(|| {
            Error::new(format!("{what}[{i}] is `{}`, expected a number", show(value)))
                .help("use an array of numbers")
        })
    };
    values.iter().enumerate().map(convert).collect()
}

/// An array of strings.
///
/// # Errors
/// An element that is no string; `what` names the array.
pub(crate) fn strings(values: &[Dynamic], what: &str) -> Result<Vec<String>> {
    let convert = |value: &Dynamic| {
        value.clone().into_string().map_err(|_| {
            Error::new(format!("{what} holds `{}`, expected a string", show(value)))
                .help("use an array of strings")
        })
    };
    values.iter().map(convert).collect()
}

/// Fails where a count or an index is negative.
pub(crate) fn count(value: i64, what: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| {
        Error::new(format!("{what} is `{value}`, expected 0 or more"))
            .help("use a number that is not negative")
    })
}

/// The length of an array that a host function makes.
///
/// # Errors
/// A negative length, and one past what a script's arrays may hold.
pub(crate) fn length(value: i64, what: &str) -> Result<usize> {
    let length = count(value, what)?;
    if length > CONTAINER_SIZE {
        return Err(Error::new(format!("{what} is `{length}`, past the limit of a script"))
            .help(format!("stay below {CONTAINER_SIZE}")));
    }
    Ok(length)
}

/// An unknown name, with the nearest of the valid ones.
pub(crate) fn unknown<'a>(what: &str, name: &str, valid: impl IntoIterator<Item = &'a str>) -> Error {
    let valid: Vec<&str> = valid.into_iter().collect();
    let error = Error::new(format!("unknown {what} `{name}`"));
    match nearest(name, valid.iter().copied()).first() {
        Some(near) => error.help(format!("did you mean `{near}`? known: {}", valid.join(", "))),
        None if valid.is_empty() => error,
        None => error.help(format!("use one of: {}", valid.join(", "))),
    }
}

/// An options map that is read key by key; what is left over is an error.
pub(crate) struct Opts {
    of: &'static str,
    map: Map,
    known: Vec<&'static str>,
}

impl Opts {
    /// The options of function `of`.
    pub fn new(of: &'static str, map: Map) -> Self {
        Self { of, map, known: Vec::new() }
    }

    /// Takes a key as it is; `()` counts as absent.
    pub fn take(&mut self, key: &'static str) -> Option<Dynamic> {
        self.known.push(key);
        self.map.remove(key).filter(|v| !v.is_unit())
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&Dynamic) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        convert(&value).map(Some).ok_or_else(|| {
            Error::new(format!(
                "option `{key}` of `{}` is `{}` ({}), expected {expected}",
                self.of,
                show(&value),
                type_of(&value)
            ))
            .help(format!("give `{key}` {expected}"))
        })
    }

    /// A number.
    pub fn float(&mut self, key: &'static str) -> Result<Option<f64>> {
        self.typed(key, "a number", number)
    }

    /// A count.
    pub fn count(&mut self, key: &'static str) -> Result<Option<usize>> {
        self.typed(key, "a whole number of 0 or more", |v| v.as_int().ok().and_then(|i| i.try_into().ok()))
    }

    /// A seed or another 64-bit number.
    pub fn seed(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.typed(key, "a whole number of 0 or more", |v| v.as_int().ok().and_then(|i| i.try_into().ok()))
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |v| v.as_bool().ok())
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        self.typed(key, "a string", |v| v.clone().into_string().ok())
    }

    /// An array of strings.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.typed(key, "an array of strings", |v| {
            v.clone().into_typed_array::<String>().ok().or_else(|| {
                let array = v.clone().into_array().ok()?;
                array.into_iter().map(|v| v.into_string().ok()).collect()
            })
        })
    }

    /// An array of numbers.
    pub fn floats(&mut self, key: &'static str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "an array of numbers", |v| floats(&v.clone().into_array().ok()?, "").ok())
    }

    /// A host type.
    pub fn host<T: Clone + 'static>(&mut self, key: &'static str, expected: &str) -> Result<Option<T>> {
        self.typed(key, expected, |v| v.clone().try_cast::<T>())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// A key that was not asked for.
    pub fn finish(self) -> Result<()> {
        // the table is what a static check knows: a key that it lacks would be reported there
        let table = options_of(self.of).unwrap_or(&self.known);
        if let Some(key) = self.known.iter().find(|key| !table.contains(key)) {
            return Err(Error::internal(format!(
                "option `{key}` of `{}` is missing in the table of options",
                self.of
            )));
        }
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => {
                let error = unknown("option", key, self.known);
                let help = error.help_text().unwrap_or_default().to_owned();
                Err(Error::new(format!("{} of `{}`", error.what(), self.of)).help(help))
            }
        }
    }
}

/// Brings a given value to the type of its default: ints are taken where a float is meant.
///
/// # Errors
/// Another type.
pub(crate) fn fit(default: &Dynamic, given: Dynamic, what: &str) -> Result<Dynamic> {
    if default.is_float()
        && let Some(x) = number(&given)
    {
        return Ok(Dynamic::from(x));
    }
    if default.is_unit() || given.is_unit() || default.type_id() == given.type_id() {
        return Ok(given);
    }
    Err(Error::new(format!(
        "{what} is `{}` ({}), expected {}",
        show(&given),
        type_of(&given),
        with_article(type_of(default))
    ))
    .help(format!("the default is `{}`", show(default))))
}

fn with_article(name: &str) -> String {
    let vowel = name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {name}", if vowel { "an" } else { "a" })
}

/// JSON as a script value: whole numbers are ints, `null` is `()`.
///
/// # Errors
/// A number outside 64 bits.
pub(crate) fn from_json(json: &serde_json::Value) -> Result<Dynamic> {
    use serde_json::Value;
    Ok(match json {
        Value::Null => Dynamic::UNIT,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => i.into(),
            (None, Some(x)) => x.into(),
            (None, None) => return Err(Error::new(format!("number `{n}` does not fit 64 bits"))),
        },
        Value::String(s) => s.into(),
        Value::Array(items) => items.iter().map(from_json).collect::<Result<Array>>()?.into(),
        Value::Object(items) => {
            items.iter().map(|(k, v)| Ok((k.as_str().into(), from_json(v)?))).collect::<Result<Map>>()?.into()
        }
    })
}

/// A script value as JSON.
///
/// # Errors
/// A number that is not finite, a value that JSON has no form for.
pub(crate) fn to_json(value: &Dynamic) -> Result<serde_json::Value> {
    use serde_json::Value;
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(b) = value.as_bool() {
        return Ok(b.into());
    }
    if let Ok(i) = value.as_int() {
        return Ok(i.into());
    }
    if let Ok(x) = value.as_float() {
        return serde_json::Number::from_f64(x).map(Value::Number).ok_or_else(|| {
            Error::new(format!("JSON has no number `{x}`")).help("replace it before it is written")
        });
    }
    if let Some(s) = value.read_lock::<rhai::ImmutableString>() {
        return Ok(s.as_str().into());
    }
    if let Ok(c) = value.as_char() {
        return Ok(c.to_string().into());
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().map(to_json).collect();
    }
    if let Some(items) = value.read_lock::<Map>() {
        let pairs = items.iter().map(|(k, v)| Ok((k.to_string(), to_json(v)?)));
        return pairs.collect::<Result<serde_json::Map<_, _>>>().map(Value::Object);
    }
    if let Some(matrix) = value.read_lock::<crate::math::Matrix>() {
        return Ok((0..matrix.rows()).map(|i| matrix.row(i).to_vec()).collect());
    }
    Err(Error::new(format!("JSON has no form for {}", with_article(type_of(value))))
        .help("write its numbers or its text"))
}
