//! Vectors over all parameters in a safetensors file, bit for bit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pulp::bytemuck;
use safetensors::tensor::{Dtype, Metadata, View, serialize_to_file};
use serde_json::Value;

use crate::error::{Error, Place, Result, io_error};
use crate::model::ParameterSpace;

/// One key, so that the header has one order.
const HEADER: &str = "raco";

struct Slice<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Slice<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(self.values))
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

/// Writes tensors given by name, shape and values, and a JSON value beside them.
///
/// # Errors
/// A file that cannot be written.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a [usize], &'a [f32])>,
    header: &Value,
) -> Result<()> {
    let tensors = tensors.into_iter().map(|(name, shape, values)| (name, Slice { shape, values }));
    let header = HashMap::from([(HEADER.to_owned(), header.to_string())]);
    serialize_to_file(tensors, Some(header), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(io) => io_error(&io, "write", path),
        other => Error::internal(format!("cannot write tensors: {other}")).in_file(path),
    })
}

/// Writes named vectors [P], a tensor `NAME.PARAMETER` a parameter.
///
/// # Errors
/// A file that cannot be written.
pub fn write_vectors(
    path: &Path,
    space: &ParameterSpace,
    vectors: &[(&str, &[f32])],
    header: &Value,
) -> Result<()> {
    let tensors = vectors.iter().flat_map(|&(vector, values)| {
        (0..space.names.len()).map(move |i| {
            let values = &values[space.offsets[i]..space.offsets[i + 1]];
            (tensor_name(vector, &space.names[i]), space.shapes[i].as_slice(), values)
        })
    });
    write_tensors(path, tensors, header)
}

/// Fills named vectors [P] from a file that [`write_vectors`] made.
///
/// # Errors
/// A tensor that is missing, of another shape, or cut short; all shapes are checked before the first number is
/// read.
pub fn read_vectors(
    file: &StateFile,
    space: &ParameterSpace,
    vectors: &mut [(&str, &mut [f32])],
) -> Result<()> {
    for (vector, _) in vectors.iter() {
        for (name, shape) in space.names.iter().zip(&space.shapes) {
            file.range(&tensor_name(vector, name), shape)?;
        }
    }
    for (vector, values) in vectors.iter_mut() {
        for (i, name) in space.names.iter().enumerate() {
            let values = &mut values[space.offsets[i]..space.offsets[i + 1]];
            file.read(&tensor_name(vector, name), &space.shapes[i], values)?;
        }
    }
    Ok(())
}

fn tensor_name(vector: &str, parameter: &str) -> String {
    format!("{vector}.{parameter}")
}

/// A safetensors file of f32 tensors, read a tensor at a time.
pub struct StateFile {
    path: PathBuf,
    file: File,
    begin: u64,
    tensors: Metadata,
    header: Value,
}

impl StateFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// A file that cannot be read or is not whole.
    pub fn open(path: &Path) -> Result<Self> {
        let read_error = |error: std::io::Error| io_error(&error, "read", path);
        let damaged = |why: String| {
            Error::new(format!("damaged tensor file: {why}")).in_file(path).help("use an older checkpoint")
        };
        let mut file = File::open(path).map_err(read_error)?;
        let length = file.metadata().map_err(read_error)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|e| damaged(e.to_string()))?;
        let size = u64::from_le_bytes(size);
        if size > length.saturating_sub(8) {
            return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut json = vec![0; size as usize];
        file.read_exact(&mut json).map_err(|e| damaged(e.to_string()))?;
        let tensors: Metadata = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
        let begin = 8 + size;
        if begin + tensors.data_len() as u64 != length {
            return Err(damaged(format!("{length} bytes, expected {}", begin + tensors.data_len() as u64)));
        }
        let header =
            tensors.metadata().as_ref().and_then(|m| m.get(HEADER)).map_or(Ok(Value::Null), |text| {
                serde_json::from_str(text).map_err(|e| damaged(e.to_string()))
            })?;
        Ok(Self { path: path.to_owned(), file, begin, tensors, header })
    }

    /// The JSON value that was written with the tensors.
    pub fn header(&self) -> &Value {
        &self.header
    }

    fn range(&self, name: &str, shape: &[usize]) -> Result<(u64, usize)> {
        let wrong = |what: String| {
            Error::new(what)
                .at(Place::Tensor(name.to_owned()))
                .in_file(&self.path)
                .help("resume with the model and options that the run began with")
        };
        let info = self.tensors.info(name).ok_or_else(|| wrong("tensor missing".into()))?;
        if info.dtype != Dtype::F32 || info.shape != shape {
            return Err(wrong(format!("expected F32 {shape:?}, found {:?} {:?}", info.dtype, info.shape)));
        }
        Ok((self.begin + info.data_offsets.0 as u64, info.data_offsets.1 - info.data_offsets.0))
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape, a file that cannot be read.
    pub fn read(&self, name: &str, shape: &[usize], values: &mut [f32]) -> Result<()> {
        let (at, length) = self.range(name, shape)?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        if bytes.len() != length {
            return Err(Error::internal(format!("tensor `{name}` of {length} bytes into {}", bytes.len())));
        }
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|error| io_error(&error, "read", &self.path))
    }
}
