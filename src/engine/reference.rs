//! Log-probs under the frozen reference: computed once, kept on disk by the content of model and data.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{Example, Packed};
use crate::error::{Error, Result, io_error};
use crate::model::{Kernels, Model};

/// Examples scored between two looks at the interrupt flag.
const CHUNK: usize = 32;

/// A frozen model and what it said so far.
pub struct Reference {
    model: Model,
    file: Option<PathBuf>,
    known: Mutex<HashMap<String, Vec<f64>>>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    example: String,
    log_probs: Vec<f64>,
}

impl Reference {
    /// The reference `model`, with its cache under `folder`, if any.
    ///
    /// # Errors
    /// A cache file that exists but cannot be read.
    pub fn new(model: Model, folder: Option<&Path>) -> Result<Self> {
        let mut known = HashMap::new();
        let fingerprint = model.fingerprint()?;
        let file = folder.map(|f| f.join(format!("{}.jsonl", fingerprint)));
        if let Some(file) = file.as_deref().filter(|f| f.exists()) {
            let text =
                std::fs::read_to_string(file).map_err(|e| io_error(&e, "read the reference cache", file))?;
            // a line torn by a kill is computed again
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
            known.extend(lines.map(|line| (line.example, line.log_probs)));
        }
        Ok(Self { model, file, known: Mutex::new(known) })
    }

    /// The frozen model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// log π_ref(y|x) of each response of each example, sums over tokens, [examples][responses].
    ///
    /// Each example is scored by itself, so that its value does not depend on its neighbours. `tick(done, total)`
    /// is called between chunks and stops the work by returning false.
    ///
    /// # Errors
    /// An example the model has no place for, an interrupt, a cache that cannot be written.
    pub fn log_probs(
        &self,
        examples: &[std::sync::Arc<Example>],
        mut tick: impl FnMut(usize, usize) -> bool,
    ) -> Result<Vec<Vec<f64>>> {
        let mut known = self.known.lock().unwrap_or_else(|p| p.into_inner());
        let keys: Vec<String> = examples.iter().map(|e| key(e)).collect();
        let mut seen = std::collections::HashSet::new();
        let missing: Vec<usize> =
            (0..examples.len()).filter(|&i| !known.contains_key(&keys[i]) && seen.insert(&keys[i])).collect();
        let mut done = 0;
        for chunk in missing.chunks(CHUNK) {
            let score = |&i: &usize| self.score(&examples[i]);
            // the work of a device stands in one queue, whoever sends it
            let values: Vec<Vec<f64>> = match self.model.kernels() {
                Kernels::Fused => chunk.par_iter().map(score).collect::<Result<_>>()?,
                Kernels::Generic => chunk.iter().map(score).collect::<Result<_>>()?,
            };
            let lines: Vec<Line> = chunk
                .iter()
                .zip(values)
                .map(|(&i, log_probs)| Line { example: keys[i].clone(), log_probs })
                .collect();
            self.keep(&lines)?;
            known.extend(lines.into_iter().map(|line| (line.example, line.log_probs)));
            done += chunk.len();
            if !tick(done, missing.len()) {
                return Err(Error::interrupted("stopped while the reference was scoring the pairs")
                    .help("what was scored is kept; start the same command again"));
            }
        }
        Ok(keys.iter().map(|key| known.get(key).cloned().unwrap_or_default()).collect())
    }

    fn score(&self, example: &Example) -> Result<Vec<f64>> {
        let responses = example.responses.iter().map(|r| &r.ids[..]).collect();
        let packed = Packed::new([(&example.prompt_ids[..], responses)], true)?;
        let log_probs = self.model.score(&packed)?;
        let sum = |r: &std::ops::Range<usize>| log_probs[r.clone()].iter().map(|&x| f64::from(x)).sum();
        Ok(packed.responses.iter().map(sum).collect())
    }

    fn keep(&self, lines: &[Line]) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = String::new();
        for line in lines {
            let json = serde_json::to_string(line)
                .map_err(|e| Error::internal(format!("a reference log-prob cannot be written: {e}")))?;
            text.push_str(&json);
            text.push('\n');
        }
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|e| {
            io_error(&e, "write the reference cache", file)
                .help("set RACO_CACHE to a folder that can be written")
        })
    }
}

fn key(example: &Example) -> String {
    let mut hasher = blake3::Hasher::new();
    for ids in std::iter::once(&example.prompt_ids).chain(example.responses.iter().map(|r| &r.ids)) {
        hasher.update(&(ids.len() as u64).to_le_bytes());
        ids.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
