//! GGUF files of llama.cpp: a header of keys and tensors, read over a memory map; quantised tensors become f32.
//!
//! Tensors and keys go by llama.cpp's names, some values by its conventions: rows of a Llama's queries and keys are
//! interleaved, Gemma's norms hold 1 + w, and the scaling of Llama 3's rotary embedding is a tensor of factors.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use memmap2::Mmap;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::config::{Llama3Scaling, Rope};
use super::load::{check_finite, map, refuse_misfits};
use super::values::values;
use super::{Config, Family, Parameter, Precision, Weights, parameters};
use crate::error::{Error, Place, Result};

/// Factors of the rotary frequencies, a tensor of the file that is no parameter.
const FACTORS: &str = "rope_freqs.weight";

/// A file, its header read.
pub(super) struct Gguf {
    path: PathBuf,
    map: Mmap,
    keys: Map<String, Value>,
    tensors: BTreeMap<String, Info>,
}

/// Where a tensor lies.
struct Info {
    shape: Vec<usize>,
    dtype: GgmlDType,
    bytes: Range<usize>,
}

impl Gguf {
    /// Reads the header.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated, of another format or version, or has a tensor of a type that is
    /// not read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        let (keys, tensors) = header(&map).map_err(|e| {
            let e = if e.help_text().is_none() { e.help("fetch the file again") } else { e };
            e.in_file(path)
        })?;
        Ok(Self { path: path.to_owned(), map, keys, tensors })
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.keys.get(key).and_then(Value::as_str).ok_or_else(|| self.missing(key, "a string"))
    }

    fn missing(&self, key: &str, kind: &str) -> Error {
        let what = match self.keys.get(key) {
            None => format!("`{key}` is missing, expected {kind}"),
            Some(found) => format!("`{key}` must be {kind}, found `{found}`"),
        };
        Error::new(what)
            .at(Place::Key(key.into()))
            .in_file(&self.path)
            .help("convert the model again, or put its config.json beside the file")
    }

    /// The config.json that the keys amount to.
    ///
    /// # Errors
    /// An architecture that raco does not have, a key that is missing.
    pub(super) fn config(&self) -> Result<Value> {
        let name = self.text("general.architecture")?;
        let family = match name {
            "llama" => Family::Llama,
            "qwen3" => Family::Qwen3,
            "gemma3" => Family::Gemma3,
            other => {
                return Err(Error::new(format!(
                    "architecture `{other}` is not known, expected `llama`, `qwen3` or `gemma3`"
                ))
                .at(Place::Key("general.architecture".into()))
                .in_file(&self.path)
                .help("choose a model of one of these families"));
            }
        };
        let own = |key: &str| format!("{name}.{key}");
        let count = |key: &str| {
            let key = own(key);
            self.keys.get(&key).and_then(Value::as_u64).ok_or_else(|| self.missing(&key, "a whole number"))
        };
        let count_or = |key: &str, default: u64| match self.keys.get(&own(key)) {
            None => Ok(default),
            Some(_) => count(key),
        };
        let number = |key: &str| self.keys.get(&own(key)).and_then(Value::as_f64);
        if self.keys.contains_key(&own("expert_count")) {
            return Err(Error::new("the model is a mixture of experts, which raco does not compute")
                .at(Place::Key(own("expert_count")))
                .in_file(&self.path)
                .help("choose a dense model"));
        }
        let (hidden, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let layers = count("block_count")?;
        let head_dim = count_or("attention.key_length", hidden / heads.max(1))?;
        let embedding = self.tensors.get("token_embd.weight").ok_or_else(|| {
            Error::new("is missing")
                .at(Place::Tensor("token_embd.weight".into()))
                .in_file(&self.path)
                .help("fetch the file again")
        })?;
        let eps = "attention.layer_norm_rms_epsilon";
        let mut config = json!({
            "architectures": [family.architecture()],
            "model_type": family.name(),
            "vocab_size": embedding.shape[0],
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": count_or("attention.head_count_kv", heads)?,
            "head_dim": head_dim,
            "intermediate_size": count("feed_forward_length")?,
            "rms_norm_eps": number(eps).ok_or_else(|| self.missing(&own(eps), "a number"))?,
            "max_position_embeddings": count("context_length")?,
            "tie_word_embeddings": !self.tensors.contains_key("output.weight"),
        });
        let default_theta = if family == Family::Gemma3 { 1e6 } else { 1e4 };
        let theta = number("rope.freq_base").unwrap_or(default_theta);
        config["rope_theta"] = json!(theta);
        let kind = self.keys.get(&own("rope.scaling.type")).and_then(Value::as_str);
        config["rope_scaling"] = match (kind, self.tensors.get(FACTORS)) {
            (Some("linear"), _) => {
                let factor = number("rope.scaling.factor");
                json!({ "rope_type": "linear", "factor": factor })
            }
            (None | Some("none"), None) => Value::Null,
            (None | Some("none"), Some(info)) => self.llama3(theta, info)?,
            (Some(other), _) => json!({ "rope_type": other }),
        };
        if family == Family::Gemma3 {
            let more = [
                ("sliding_window", json!(count("attention.sliding_window")?)),
                ("rope_local_base_freq", json!(number("rope.freq_base_swa").unwrap_or(1e4))),
                ("final_logit_softcapping", json!(number("final_logit_softcapping"))),
                // not in the file; of the published sizes, 27B alone has another one than the width of a head
                ("query_pre_attn_scalar", json!(if layers == 62 { hidden / heads.max(1) } else { head_dim })),
                ("hidden_activation", json!("gelu_pytorch_tanh")),
            ];
            more.into_iter().for_each(|(key, value)| config[key] = value);
            match self.keys.get(&own("attention.sliding_window_pattern")) {
                Some(Value::Array(local)) => {
                    let kind = |l: &Value| {
                        if *l == json!(true) { "sliding_attention" } else { "full_attention" }
                    };
                    config["layer_types"] = local.iter().map(kind).collect();
                }
                _ => {
                    config["sliding_window_pattern"] = count_or("attention.sliding_window_pattern", 6)?.into()
                }
            }
        } else {
            config["hidden_act"] = json!("silu");
        }
        let ends = ["eos", "eot", "eom"].map(|end| format!("tokenizer.ggml.{end}_token_id"));
        let mut ends: Vec<u64> = ends.iter().filter_map(|key| self.keys.get(key)?.as_u64()).collect();
        ends.dedup();
        config["eos_token_id"] = json!(ends);
        Ok(config)
    }

    /// The scaling of Llama 3 that gives the file's factors.
    fn llama3(&self, theta: f64, info: &Info) -> Result<Value> {
        let factors = self.dequantise(FACTORS, info)?;
        let factors = values::<f32>(&factors)?;
        let scaling = Llama3Scaling {
            factor: f64::from(factors.iter().fold(1f32, |a, &b| a.max(b))),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = Rope::plain(theta).frequencies(2 * factors.len());
        let agree = |(&f, &factor): (&f32, &f32)| (f / scaling.scale(f) - factor).abs() < 1e-3 * factor;
        if !plain.iter().zip(&*factors).all(agree) {
            return Err(Error::new("the factors are not those of Llama 3.1, 3.2 or 3.3")
                .at(Place::Tensor(FACTORS.into()))
                .in_file(&self.path)
                .help("put the model's config.json beside the file"));
        }
        Ok(json!({
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }))
    }

    fn dequantise(&self, name: &str, info: &Info) -> Result<Tensor> {
        let place = |e: Error| e.at(Place::Tensor(name.to_owned())).in_file(&self.path);
        let bytes =
            self.map.get(info.bytes.clone()).ok_or_else(|| place(Error::internal("unchecked range")))?;
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, info.dtype)?;
        let tensor = QTensor::new(storage, info.shape.clone()).and_then(|t| t.dequantize(&Device::Cpu));
        tensor.map_err(|e| place(e.into()))
    }

    /// The parameters of an architecture, kept in `precision`.
    ///
    /// # Errors
    /// Tensors that are missing, misshapen or unexpected, all by name; a value that is not finite.
    pub(super) fn weights(&self, config: &Config, precision: Precision) -> Result<Weights> {
        let expected = parameters(config);
        let stored: Vec<String> = expected.iter().map(|(name, _)| stored_name(name, config.family)).collect();
        let mut problems = Vec::new();
        for ((_, shape), name) in expected.iter().zip(&stored) {
            match self.tensors.get(name) {
                None => problems.push(format!("`{name}` {shape:?} is missing")),
                Some(info) if info.shape != *shape => {
                    problems.push(format!("`{name}` is {:?}, expected {shape:?}", info.shape));
                }
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = stored.iter().map(String::as_str).chain([FACTORS]).collect();
        for (name, info) in self.tensors.iter().filter(|(name, _)| !known.contains(name.as_str())) {
            problems.push(format!("`{name}` {:?} is not expected", info.shape));
        }
        refuse_misfits(&problems).map_err(|e| e.in_file(&self.path))?;
        let read = |((name, _), stored): (&(String, Vec<usize>), &String)| {
            let info = self.tensors.get(stored).ok_or_else(|| Error::internal(format!("lost `{stored}`")))?;
            let tensor = self.dequantise(stored, info)?;
            let mut values = values::<f32>(&tensor)?.to_vec();
            drop(tensor);
            check_finite(&values).map_err(|e| e.at(Place::Tensor(stored.clone())).in_file(&self.path))?;
            match config.family {
                Family::Llama if name.ends_with("q_proj.weight") => {
                    values = halves(&values, config.heads, config.hidden);
                }
                Family::Llama if name.ends_with("k_proj.weight") => {
                    values = halves(&values, config.kv_heads, config.hidden);
                }
                Family::Gemma3 if name.ends_with("norm.weight") => values.iter_mut().for_each(|w| *w -= 1.0),
                _ => {}
            }
            let tensor = Tensor::from_vec(values, info.shape.clone(), &Device::Cpu)?;
            Ok(Parameter { name: name.clone(), tensor: tensor.to_dtype(precision.dtype())? })
        };
        let read: Vec<Result<Parameter>> = expected.par_iter().zip(&stored).map(read).collect();
        Ok(Weights::new(read.into_iter().collect::<Result<_>>()?))
    }
}

/// What llama.cpp calls a parameter.
fn stored_name(name: &str, family: Family) -> String {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let top = match stem {
        "model.embed_tokens" => Some("token_embd"),
        "model.norm" => Some("output_norm"),
        "lm_head" => Some("output"),
        _ => None,
    };
    if let Some(top) = top {
        return format!("{top}.weight");
    }
    let (layer, part) =
        stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')).unwrap_or(("?", stem));
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" if family == Family::Gemma3 => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => other,
    };
    format!("blk.{layer}.{part}.weight")
}

/// Rows of each head as the rotation takes them, the first halves of all pairs and then the second ones; llama.cpp
/// keeps the pairs together.
fn halves(rows: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let half = |head, half| <[f32]>::chunks_exact(head, width).skip(half).step_by(2);
    rows.chunks_exact(rows.len() / heads)
        .flat_map(|head| half(head, 0).chain(half(head, 1)))
        .flatten()
        .copied()
        .collect()
}

/// The keys and the tensors of a file.
fn header(bytes: &[u8]) -> Result<(Map<String, Value>, BTreeMap<String, Info>)> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4)? != b"GGUF" {
        return Err(
            Error::new("not a GGUF file: its first bytes are not `GGUF`").help("fetch the file again")
        );
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Error::new(format!("GGUF version `{version}`, expected 2 or 3"))
            .help("convert the model with a llama.cpp of 2024 or later"));
    }
    let (tensor_count, key_count) = (reader.u64()?, reader.u64()?);
    let mut keys = Map::new();
    for _ in 0..key_count {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind, 0).map_err(|e| e.at(Place::Key(key.clone())))?;
        keys.insert(key, value);
    }
    let mut list = Vec::new();
    for _ in 0..tensor_count {
        let name = reader.text()?;
        let info = reader.tensor().map_err(|e| e.at(Place::Tensor(name.clone())))?;
        list.push((name, info));
    }
    let alignment = keys.get("general.alignment").map_or(Some(32), Value::as_u64);
    let alignment =
        alignment.filter(|a| a.is_power_of_two() && (8..=1 << 20).contains(a)).ok_or_else(|| {
            Error::new(format!("alignment `{}`, expected a power of 2 from 8", keys["general.alignment"]))
                .at(Place::Key("general.alignment".into()))
        })?;
    let data = (reader.at as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (name, (shape, dtype, offset)) in list {
        let place = |e: Error| e.at(Place::Tensor(name.clone()));
        let bytes = place_of(bytes.len(), &shape, dtype, data, offset, alignment).map_err(place)?;
        if tensors.insert(name.clone(), Info { shape, dtype, bytes }).is_some() {
            return Err(place(Error::new("stands in the file twice")));
        }
    }
    Ok((keys, tensors))
}

/// The bytes of a tensor.
fn place_of(
    len: usize,
    shape: &[usize],
    dtype: GgmlDType,
    data: u64,
    offset: u64,
    alignment: u64,
) -> Result<Range<usize>> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let blocks = count.filter(|_| shape.last().is_some_and(|n| n.is_multiple_of(dtype.block_size())));
    let size = blocks.and_then(|count| (count / dtype.block_size()).checked_mul(dtype.type_size()));
    let Some(size) = size else {
        return Err(Error::new(format!("shape {shape:?} does not go into blocks of {dtype:?}")));
    };
    let start = data.checked_add(offset).filter(|_| offset.is_multiple_of(alignment));
    let range = start.and_then(|start| Some(start as usize..(start as usize).checked_add(size)?));
    range.filter(|range| range.end <= len).ok_or_else(|| {
        Error::new(format!("broken or truncated: {size} bytes at {offset} of the data are not in the file"))
    })
}

/// A place in the header.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken =
            rest.get(..count).ok_or_else(|| Error::new("broken or truncated: the header ends too soon"))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Error::internal("a slice of another length"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => self.array::<1>()?[0].into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            // by its shortest decimal: 1e-6 is written as f32
            6 => shortest(f32::from_le_bytes(self.array()?)).into(),
            7 => (self.array::<1>()?[0] != 0).into(),
            8 => self.text()?.into(),
            9 if depth < 4 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(kind, depth + 1)?);
                }
                list.into()
            }
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            12 => f64::from_le_bytes(self.array()?).into(),
            other => return Err(Error::new(format!("broken: a value of type `{other}`, expected 0 to 12"))),
        })
    }

    fn tensor(&mut self) -> Result<(Vec<usize>, GgmlDType, u64)> {
        let dimensions = self.u32()?;
        if !(1..=4).contains(&dimensions) {
            return Err(Error::new(format!("broken: {dimensions} dimensions, expected 1 to 4")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(usize::try_from(self.u64()?).unwrap_or(usize::MAX));
        }
        shape.reverse();
        let dtype = dtype(self.u32()?)?;
        Ok((shape, dtype, self.u64()?))
    }
}

/// The number with the fewest digits that is this f32.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| x.into())
}

fn dtype(kind: u32) -> Result<GgmlDType> {
    Ok(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        other => {
            return Err(Error::new(format!(
                "quantisation type `{other}` is not read; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to \
                 Q6_K are"
            ))
            .help("take the model in one of these, for example Q8_0"));
        }
    })
}
