//! A Hugging Face folder that transformers loads to the same logits.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use safetensors::SafeTensorError;
use serde_json::Value;

use super::values::host;
use super::{Config, Model, peft};
use crate::error::{Error, Result, io_error};

/// How weights are kept in memory or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Every bit.
    #[default]
    F32,
    /// Half the size; about three digits are kept. In memory for models that are not trained.
    Bf16,
}

impl Precision {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// As scripts call it.
    pub fn short(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// As torch calls it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

impl Model {
    /// Writes config.json, model.safetensors and the files that the tokenizer came with, generation_config.json
    /// among them; of a model with an adapter, the PEFT folder of the adapter alone. All of them are written under a temporary name and renamed: a new folder appears
    /// whole, and in an existing one every file is either the old or the new.
    ///
    /// # Errors
    /// A folder that cannot be written, or a full disk.
    pub fn save(&self, dir: &Path, precision: Precision) -> Result<()> {
        let name = dir.file_name().ok_or_else(|| {
            Error::new("the path names no folder").in_file(dir).help("give the folder a name")
        })?;
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(|e| io_error(&e, "make the folder", parent))?;
        let temporary = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let written = self.write(&temporary, precision).and_then(|()| publish(&temporary, dir));
        if written.is_err() {
            // the first error is the one that matters; a folder that was never made cannot be removed
            let _ = std::fs::remove_dir_all(&temporary);
        }
        written
    }

    fn write(&self, dir: &Path, precision: Precision) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|e| io_error(&e, "make the folder", dir))?;
        if let Some(adapter) = self.adapter() {
            return peft::write(adapter, &self.weights(), self.source(), dir, precision);
        }
        let config = dir.join("config.json");
        let json = config_json(self.config(), precision);
        std::fs::write(&config, format!("{json:#}\n")).map_err(|e| io_error(&e, "write", &config))?;
        self.tokenizer().save(dir)?;
        let weights = self.weights();
        let named = weights.parameters().iter().map(|p| (p.name.clone(), &p.tensor));
        write_tensors(named, &dir.join("model.safetensors"), precision, &config)
    }
}

fn config_json(config: &Config, precision: Precision) -> Value {
    let mut json = config.json.clone();
    if let Some(object) = json.as_object_mut() {
        let old = object.contains_key("torch_dtype");
        let key = if old && !object.contains_key("dtype") { "torch_dtype" } else { "dtype" };
        object.insert(key.into(), precision.name().into());
    }
    json
}

/// Writes a safetensors file with the permissions of the file `beside` it.
pub(super) fn write_tensors<'a>(
    named: impl Iterator<Item = (String, &'a Tensor)>,
    path: &Path,
    precision: Precision,
    beside: &Path,
) -> Result<()> {
    let tensors = named
        .map(|(name, tensor)| Ok((name, host(tensor)?.to_dtype(precision.dtype())?)))
        .collect::<Result<Vec<_>>>()?;
    // transformers asks for the format
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|e| match e {
        SafeTensorError::IoError(e) => io_error(&e, "write", path),
        other => Error::internal(format!("cannot write weights: {other}")).in_file(path),
    })?;
    // safetensors makes its file readable by the owner only; the others have the user's own mode
    std::fs::metadata(beside)
        .and_then(|metadata| std::fs::set_permissions(path, metadata.permissions()))
        .map_err(|e| io_error(&e, "set the permissions", path))
}

fn publish(temporary: &Path, dir: &Path) -> Result<()> {
    if !dir.exists() {
        return std::fs::rename(temporary, dir).map_err(|e| io_error(&e, "rename to", dir));
    }
    let entries = std::fs::read_dir(temporary).map_err(|e| io_error(&e, "read", temporary))?;
    for entry in entries {
        let entry = entry.map_err(|e| io_error(&e, "read", temporary))?;
        let target = dir.join(entry.file_name());
        std::fs::rename(entry.path(), &target).map_err(|e| io_error(&e, "rename to", &target))?;
    }
    std::fs::remove_dir(temporary).map_err(|e| io_error(&e, "remove", temporary))
}
