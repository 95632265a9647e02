//! PEFT folders: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use super::config::read_json;
use super::load::{map, misfits, parameter};
use super::save::{Precision, write_tensors};
use super::{Adapter, Lora, Model, Parameter, Targets, Weights, gemma3};
use crate::error::{Error, Place, Result, io_error};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model.
const PREFIX: &str = "base_model.model.";

/// Keys that do not change what an adapter computes, or that stand with one that is checked.
const WITHOUT_EFFECT: [&str; 10] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "layers_pattern",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Options that change it, with the act that takes them out of a folder.
const MENDS: [(&str, &str); 7] = [
    ("use_dora", "merge it in PEFT (`merge_and_unload`) and load the merged model"),
    ("bias", "train it with `bias=\"none\"`, or merge it in PEFT and load the merged model"),
    ("modules_to_save", "train it without, or merge it in PEFT and load the merged model"),
    ("rank_pattern", "give all modules one rank, or merge it in PEFT and load the merged model"),
    ("alpha_pattern", "give all modules one alpha, or merge it in PEFT and load the merged model"),
    (
        "layers_to_transform",
        "say the same by a pattern in `target_modules`, such as `.*layers\\.[0-7]\\..*q_proj`",
    ),
    ("exclude_modules", "say the same by `target_modules` alone"),
];

impl Model {
    /// This model with the adapter of a PEFT folder, which is then what is trained. The decoder is shared.
    ///
    /// # Errors
    /// A file that is missing or broken; an option that raco does not compute; tensors that do not fit the model,
    /// all of them by name; a model that has an adapter already.
    pub fn load_adapter(&self, dir: &Path) -> Result<Self> {
        let base = self.free_base()?;
        let file = dir.join(CONFIG);
        if !file.is_file() {
            let what =
                if dir.is_dir() { format!("found no `{CONFIG}`") } else { "there is no such folder".into() };
            return Err(Error::new(what)
                .in_file(dir)
                .help(format!("give the path of a PEFT folder: {CONFIG}, {WEIGHTS}")));
        }
        let json = read_json(&file)?;
        let lora = lora(&json).map_err(|e| e.in_file(&file))?;
        let adapter = Adapter::new(lora, self.config(), base).map_err(|e| e.in_file(&file))?;
        let weights = read(dir, &adapter, base_name(&json))?.moved(&self.device())?;
        Ok(self.with(Arc::new(weights), Some(Arc::new(adapter))))
    }
}

/// Refuses an adapter's folder in the place of a model's.
pub(super) fn refuse_as_model(dir: &Path) -> Result<()> {
    if dir.join("config.json").exists() || !dir.join(CONFIG).exists() {
        return Ok(());
    }
    let json = read_json(&dir.join(CONFIG))?;
    let (base, shown) = (base_name(&json).unwrap_or("BASE"), dir.display());
    Err(Error::new("the folder holds an adapter, not a model")
        .in_file(dir)
        .help(format!("load its base with it: `load_model(\"{base}\", #{{ adapter: \"{shown}\" }})`")))
}

fn base_name(json: &Value) -> Option<&str> {
    json.get("base_model_name_or_path")?.as_str().filter(|name| !name.is_empty())
}

/// What an adapter_config.json describes.
fn lora(json: &Value) -> Result<Lora> {
    let mut rest = json.as_object().cloned().ok_or_else(|| Error::new("expected a JSON object"))?;
    let mut take = |key: &str| rest.remove(key).filter(|value| !value.is_null());
    let wrong = |key: &str, value: Option<Value>, expected: &str| {
        let found = value.map_or("nothing".to_owned(), |v| format!("`{v}`"));
        Error::new(format!("`{key}` is {found}, expected {expected}"))
            .at(Place::Key(key.to_owned()))
            .help("save the adapter again with PEFT")
    };
    match take("peft_type") {
        Some(Value::String(kind)) if kind == "LORA" => {}
        other => {
            let error = wrong("peft_type", other, "`\"LORA\"`");
            return Err(error.help("take a LoRA adapter, or merge it in PEFT and load the merged model"));
        }
    }
    match take("task_type") {
        None => {}
        Some(Value::String(task)) if task == "CAUSAL_LM" => {}
        other => {
            return Err(wrong("task_type", other, "`\"CAUSAL_LM\"`").help("take an adapter of a decoder"));
        }
    }
    let rank = take("r");
    let rank = rank
        .as_ref()
        .and_then(Value::as_u64)
        .filter(|&rank| rank > 0)
        .ok_or_else(|| wrong("r", rank, "a whole number of 1 or more"))? as usize;
    let alpha = take("lora_alpha");
    let alpha =
        alpha.as_ref().and_then(Value::as_f64).ok_or_else(|| wrong("lora_alpha", alpha, "a number"))?;
    let rslora = match take("use_rslora") {
        None => false,
        Some(Value::Bool(rslora)) => rslora,
        other => return Err(wrong("use_rslora", other, "`true` or `false`")),
    };
    let targets = match take("target_modules") {
        Some(Value::String(pattern)) => Targets::pattern(&pattern),
        Some(value) => match serde_json::from_value::<Vec<String>>(value.clone()) {
            Ok(names) => Targets::Names(names),
            Err(_) => return Err(wrong("target_modules", Some(value), "names of modules, or a pattern")),
        },
        None => return Err(wrong("target_modules", None, "names of modules, or a pattern")),
    };
    match take("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(way)) if ["gaussian", "orthogonal", "eva"].contains(&way.as_str()) => {}
        other => {
            return Err(wrong("init_lora_weights", other, "a way that leaves the base as it is").help(
                "convert it in PEFT: `save_pretrained(…, path_initial_model_for_weight_conversion=…)`",
            ));
        }
    }
    refuse_options(&rest)?;
    Ok(Lora { rank, alpha, rslora, targets })
}

/// Every option that is left must be off.
fn refuse_options(rest: &Map<String, Value>) -> Result<()> {
    let off = |key: &str, value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || (key == "bias" && text == "none"),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    };
    let on = rest.iter().find(|(key, value)| !WITHOUT_EFFECT.contains(&key.as_str()) && !off(key, value));
    let Some((key, value)) = on else { return Ok(()) };
    let mend = MENDS.iter().find(|(name, _)| name == key).map_or(MENDS[0].1, |(_, mend)| mend);
    Err(Error::new(format!("the option `{key}` of the adapter is `{value}`, which raco does not compute"))
        .at(Place::Key(key.clone()))
        .help(mend))
}

fn read(dir: &Path, adapter: &Adapter, base: Option<&str>) -> Result<Weights> {
    let path = dir.join(WEIGHTS);
    if !path.exists() && dir.join("adapter_model.bin").exists() {
        return Err(Error::new("the adapter is stored as `adapter_model.bin`, which can hold programs")
            .in_file(dir)
            .help("save it again with PEFT, which writes safetensors"));
    }
    let bytes = map(&path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| {
        Error::new(format!("broken or truncated: {e}")).in_file(&path).help("fetch the file again")
    })?;
    let bare = |name: &str| {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        // adapters of a model with a vision tower
        gemma3::canonical(name).unwrap_or_else(|| name.to_owned())
    };
    let found: BTreeMap<_, _> =
        file.tensors().into_iter().map(|(name, view)| (bare(&name), (path.as_path(), view))).collect();
    let expected: Vec<(String, Vec<usize>)> = adapter.tensors().collect();
    let problems = misfits(&expected, &found);
    if !problems.is_empty() {
        let list = problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let more = problems.len().checked_sub(6).map_or(String::new(), |n| format!("; and {} more", n + 1));
        let base =
            base.map_or_else(|| "the model it was made for".to_owned(), |name| format!("its base, `{name}`"));
        return Err(Error::new(format!("the adapter does not fit the model: {list}{more}"))
            .in_file(dir)
            .help(format!("load it onto {base}")));
    }
    let read = |(name, _): &(String, Vec<usize>)| {
        let (_, view) = found.get(name).ok_or_else(|| Error::internal(format!("lost `{name}`")))?;
        parameter(name, view).map_err(|e| e.at(Place::Tensor(name.clone())).in_file(&path))
    };
    let read: Vec<Result<Parameter>> = expected.par_iter().map(read).collect();
    Ok(Weights::new(read.into_iter().collect::<Result<_>>()?))
}

/// Writes the two files of an adapter's folder.
pub(super) fn write(
    adapter: &Adapter,
    weights: &Weights,
    source: Option<&str>,
    dir: &Path,
    precision: Precision,
) -> Result<()> {
    let lora = adapter.lora();
    let alpha = if lora.alpha.fract() == 0.0 && lora.alpha < 1e15 {
        json!(lora.alpha as u64)
    } else {
        json!(lora.alpha)
    };
    let json = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "r": lora.rank,
        "lora_alpha": alpha,
        "use_rslora": lora.rslora,
        "target_modules": adapter.describe()["targets"],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
    });
    let config = dir.join(CONFIG);
    std::fs::write(&config, format!("{json:#}\n")).map_err(|e| io_error(&e, "write", &config))?;
    let named = weights.parameters().iter().map(|p| (format!("{PREFIX}{}", p.name), &p.tensor));
    write_tensors(named, &dir.join(WEIGHTS), precision, &config)
}
