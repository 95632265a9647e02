//! Weights from a Hugging Face folder, by memory map.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::config::read_json;
use super::gguf::Gguf;
use super::memory::check_weights;
use super::peft::refuse_as_model;
use super::values::values;
use super::{
    Config, Family, Kernels, Model, Parameter, Precision, Processor, Weights, allowed_bytes, gemma3,
    parameters,
};
use crate::data::Tokenizer;
use crate::error::{Error, Place, Result, io_error};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// How its weights are kept; those that are trained are f32.
    pub precision: Precision,
    /// Where it computes.
    pub processor: Processor,
    /// The code that computes; by default what suits the processor.
    pub kernels: Option<Kernels>,
}

impl Model {
    /// Reads a Hugging Face folder (config.json, safetensors and the tokenizer), or a GGUF file with its tokenizer
    /// beside it.
    ///
    /// # Errors
    /// A file that is missing, broken or not understood; weights that do not fit config.json or memory; a
    /// tokenizer that does not fit the embedding.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_as(path, Load::default())
    }

    /// The same, with a choice of how its weights are kept and where it computes.
    ///
    /// # Errors
    /// As [`Model::load`], [`Processor::open`] and [`Kernels::choose`].
    pub fn load_as(path: &Path, load: Load) -> Result<Self> {
        let (mut config, gguf) = open(path)?;
        let dir = if gguf.is_some() { parent(path) } else { path };
        let device = load.processor.open()?;
        let kernels = Kernels::choose(load.kernels, &device)?;
        // weights pass through the memory of the CPU wherever they go
        check_weights(&config, load.precision, allowed_bytes()).map_err(|e| e.in_file(path))?;
        let tokenizer = Tokenizer::load(dir).map_err(|e| match &gguf {
            Some(_) if !dir.join("tokenizer.json").exists() => Error::new(
                "no `tokenizer.json` beside the GGUF file; raco does not build one from its metadata",
            )
            .in_file(path)
            .help("put tokenizer.json and tokenizer_config.json of the original model beside it"),
            _ => e,
        })?;
        tokenizer.check_fits(config.vocab).map_err(|e| e.in_file(dir))?;
        config.add_stop_tokens(tokenizer.end_tokens().iter().copied());
        let weights = match gguf {
            Some(gguf) => gguf.weights(&config, load.precision)?,
            None => read_weights(dir, &config, load.precision)?,
        };
        let source = std::fs::canonicalize(path).map_err(|e| io_error(&e, "read", path))?;
        let weights = (Arc::new(weights.moved(&device)?), None);
        Ok(Self::of(config, Arc::new(tokenizer), Some(source.display().to_string()), weights, kernels))
    }
}

/// The architecture of a Hugging Face folder or a GGUF file.
///
/// # Errors
/// As [`Model::load`], of the configuration.
pub fn read_config(path: &Path) -> Result<Config> {
    Ok(open(path)?.0)
}

/// The architecture, and the header of a GGUF file; a config.json beside it goes before the file's own keys.
fn open(path: &Path) -> Result<(Config, Option<Gguf>)> {
    if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        let gguf = Gguf::open(path)?;
        let dir = parent(path);
        let config = if dir.join("config.json").exists() {
            Config::read(dir)?
        } else {
            Config::from_json(gguf.config()?).map_err(|e| e.in_file(path))?
        };
        return Ok((config, Some(gguf)));
    }
    if !path.is_dir() {
        let what = if path.exists() { "this is no model folder" } else { "there is no such model folder" };
        return Err(Error::new(what).in_file(path).help(
            "give the path of a Hugging Face folder (config.json, model.safetensors, tokenizer.json) or of a GGUF \
             file",
        ));
    }
    refuse_as_model(path)?;
    Ok((Config::read(path)?, None))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."))
}

/// Reads the parameters of an architecture from `model.safetensors`, or from the shards that
/// `model.safetensors.index.json` names, to be kept in `precision`.
///
/// # Errors
/// No weights, a truncated or broken file, any tensor that is missing, misshapen, of another type or
/// unexpected (all of them by name), a value that is not finite.
pub fn read_weights(dir: &Path, config: &Config, precision: Precision) -> Result<Weights> {
    let expected = parameters(config);
    let files = files(dir)?;
    let maps = files.iter().map(|path| map(path)).collect::<Result<Vec<_>>>()?;
    let mut found: BTreeMap<String, (&Path, TensorView)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (path, map) in files.iter().zip(&maps) {
        let file = SafeTensors::deserialize(map).map_err(|e| {
            Error::new(format!("broken or truncated: {e}")).in_file(path).help("fetch the file again")
        })?;
        for (name, view) in file.tensors() {
            let canonical = match config.family {
                Family::Gemma3 => gemma3::canonical(&name),
                Family::Llama | Family::Qwen3 => Some(name),
            };
            let Some(name) = canonical else { continue };
            if found.contains_key(&name) {
                problems.push(format!("`{name}` stands in two files, `{}` too", file_name(path)));
            }
            found.insert(name, (path, view));
        }
    }
    drop_known_extras(config, &mut found)?;
    problems.extend(misfits(&expected, &found));
    refuse_misfits(&problems).map_err(|e| e.in_file(dir))?;
    let read = |(name, _): &(String, Vec<usize>)| {
        let (path, view) = found.get(name).ok_or_else(|| Error::internal(format!("lost `{name}`")))?;
        let read = parameter(name, view).map_err(|e| e.at(Place::Tensor(name.clone())).in_file(path))?;
        Ok(Parameter { tensor: read.tensor.to_dtype(precision.dtype())?, ..read })
    };
    // collected to a Vec first: which of several bad tensors is named must not depend on the threads
    let read: Vec<Result<Parameter>> = expected.par_iter().map(read).collect();
    Ok(Weights::new(read.into_iter().collect::<Result<_>>()?))
}

/// Fails with every tensor that does not fit.
pub(super) fn refuse_misfits(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let list = problems.iter().take(10).cloned().collect::<Vec<_>>().join("; ");
    let more = problems.len().checked_sub(11).map_or(String::new(), |n| format!("; and {} more", n + 1));
    Err(Error::new(format!("the weights do not fit config.json: {list}{more}"))
        .help("take config.json and weights from the same model"))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.exists() {
        return Ok(vec![single]);
    }
    if !index.exists() {
        let entries = std::fs::read_dir(dir).map_err(|e| io_error(&e, "read", dir))?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let other = |end: &str| files.filter(|path| path.extension().is_some_and(|e| e == end)).min();
        let help = match other("gguf") {
            Some(file) => format!("to read a GGUF file, give its own path: `{}`", file.display()),
            None => "give a Hugging Face folder with safetensors weights".into(),
        };
        return Err(Error::new(format!("found neither `{SINGLE}` nor `{INDEX}`")).in_file(dir).help(help));
    }
    let json = read_json(&index)?;
    let bad = |what: String| Error::new(what).in_file(&index).help("fetch the file again");
    let map = json
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| bad("`weight_map` is missing".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().filter(|name| Path::new(name).file_name() == Some(name.as_ref()));
        names.insert(name.ok_or_else(|| bad(format!("`{tensor}` is not in a file beside it: `{file}`")))?);
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = std::fs::File::open(path).map_err(|e| io_error(&e, "read", path))?;
    // SAFETY: the map is read-only and dropped when the weights are copied out; a file that another program
    // truncates meanwhile ends this process, as it would any reader of a memory map.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|e| io_error(&e, "read", path))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Removes what old checkpoints hold although it is computed: rotary frequencies, and a tied head's copy of
/// the embedding.
fn drop_known_extras(config: &Config, found: &mut BTreeMap<String, (&Path, TensorView)>) -> Result<()> {
    found.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
    if config.tied
        && let Some((path, head)) = found.remove("lm_head.weight")
        && let Some((_, embed)) = found.get("model.embed_tokens.weight")
        && (head.dtype() != embed.dtype() || head.data() != embed.data())
    {
        return Err(Error::new("differs from the embedding although `tie_word_embeddings` is `true`")
            .at(Place::Tensor("lm_head.weight".into()))
            .in_file(path)
            .help("set `tie_word_embeddings` to `false` in config.json if the head is meant to be its own"));
    }
    Ok(())
}

/// What is missing, misshapen, of another type or unexpected.
pub(super) fn misfits(
    expected: &[(String, Vec<usize>)],
    found: &BTreeMap<String, (&Path, TensorView)>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, shape) in expected {
        match found.get(name) {
            None => problems.push(format!("`{name}` {shape:?} is missing")),
            Some((path, view)) if view.shape() != shape => problems.push(format!(
                "`{name}` is {:?} in `{}`, expected {shape:?}",
                view.shape(),
                file_name(path)
            )),
            Some((path, view)) if dtype(view).is_none() => problems.push(format!(
                "`{name}` is {:?} in `{}`, expected F32, F16 or BF16",
                view.dtype(),
                file_name(path)
            )),
            Some(_) => {}
        }
    }
    let names: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    for (name, (path, view)) in found.iter().filter(|(name, _)| !names.contains(name.as_str())) {
        problems.push(format!("`{name}` {:?} in `{}` is not expected", view.shape(), file_name(path)));
    }
    problems
}

fn dtype(view: &TensorView) -> Option<DType> {
    match view.dtype() {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

pub(super) fn parameter(name: &str, view: &TensorView) -> Result<Parameter> {
    let dtype = dtype(view).ok_or_else(|| Error::internal("unchecked type"))?;
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
    let parameter = Parameter { name: name.to_owned(), tensor: tensor.to_dtype(DType::F32)? };
    check_finite(&values(&parameter.tensor)?)?;
    Ok(parameter)
}

pub(super) fn check_finite(values: &[f32]) -> Result<()> {
    let Some(first) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let count = values.iter().filter(|v| !v.is_finite()).count();
    Err(Error::new(format!(
        "{count} of {} weights are not finite, the first is `{}` at {first}",
        values.len(),
        values[first]
    ))
    .help("take weights that are finite; an earlier training run may have diverged"))
}
