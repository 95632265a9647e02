//! Checkpoints: what a run needs to go on, in a folder that is whole or not there.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::files::{
    create_dir, entries, read_json, remove, remove_temporary, sync_dir, sync_tree, temporary_dir, write_whole,
};
use crate::error::{Error, Result, io_error};
use crate::model::Model;
use crate::model::values::{host, values};
use crate::optim::{Optimizer, StateFile, write_tensors};

const MANIFEST: &str = "checkpoint.json";

/// Something that a checkpoint holds: the policy, an optimiser, a method with a memory.
pub trait Stateful {
    /// Names its folder in the checkpoint; the second of a name becomes `NAME-2`.
    fn name(&self) -> &str;

    /// Writes the state to files in `dir`, which exists and is empty.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn save(&self, dir: &Path) -> Result<()>;

    /// Takes the state that [`Stateful::save`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit.
    fn restore(&self, dir: &Path) -> Result<()>;
}

impl Stateful for Model {
    fn name(&self) -> &str {
        "model"
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let weights = self.weights();
        weights.check_trainable()?;
        let here: Vec<Tensor> =
            weights.parameters().iter().map(|p| host(&p.tensor)).collect::<Result<_>>()?;
        let numbers = here.iter().map(values::<f32>).collect::<Result<Vec<_>>>()?;
        let named = weights.parameters().iter().zip(&numbers);
        let tensors = named.map(|(p, numbers)| (p.name.clone(), p.tensor.dims(), &numbers[..]));
        write_tensors(&dir.join("weights.safetensors"), tensors, &Value::Null)
    }

    fn restore(&self, dir: &Path) -> Result<()> {
        let file = StateFile::open(&dir.join("weights.safetensors"))?;
        let space = self.weights().space().clone();
        self.update(|i, values| file.read(&space.names[i], &space.shapes[i], values))
    }
}

impl Stateful for RefCell<Optimizer> {
    fn name(&self) -> &str {
        "optimizer"
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let optimizer =
            self.try_borrow().map_err(|_| Error::internal("checkpoint within an optimiser step"))?;
        optimizer.save(&dir.join("state.safetensors"))
    }

    fn restore(&self, dir: &Path) -> Result<()> {
        let mut optimizer =
            self.try_borrow_mut().map_err(|_| Error::internal("restore within an optimiser step"))?;
        optimizer.restore(&dir.join("state.safetensors"))
    }
}

/// The checkpoints of one run.
pub(super) struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Those in `dir`; the newest `keep` stay. What a killed process left half done is removed.
    pub fn open(dir: PathBuf, keep: usize) -> Result<Self> {
        remove_temporary(&dir)?;
        for entry in entries(&dir)? {
            if step_of(&entry).is_some() && !entry.join(MANIFEST).is_file() {
                remove(&entry)?;
            }
        }
        Ok(Self { dir, keep: keep.max(1) })
    }

    /// All whole checkpoints, oldest first.
    fn whole(&self) -> Result<Vec<(usize, PathBuf)>> {
        let mut found: Vec<(usize, PathBuf)> = entries(&self.dir)?
            .into_iter()
            .filter(|path| path.join(MANIFEST).is_file())
            .filter_map(|path| Some((step_of(&path)?, path)))
            .collect();
        found.sort();
        Ok(found)
    }

    /// The newest whole checkpoint and the value that was stored with it.
    pub fn newest(&self) -> Result<Option<(usize, PathBuf, Value)>> {
        let Some((step, path)) = self.whole()?.pop() else { return Ok(None) };
        let manifest = read_json(&path.join(MANIFEST)).map_err(|e| try_older(e, &path))?;
        Ok(Some((step, path, manifest)))
    }

    /// Writes the checkpoint of `step`, then lets the oldest go; one that is there already stays.
    pub fn write(&self, step: usize, record: Value, states: &[Rc<dyn Stateful>]) -> Result<PathBuf> {
        let path = self.dir.join(format!("step-{step}"));
        if path.join(MANIFEST).is_file() {
            return Ok(path);
        }
        create_dir(&self.dir)?;
        let temporary =
            temporary_dir(&self.dir).map_err(|error| io_error(&error, "write a checkpoint", &self.dir))?;
        let names = folder_names(states);
        for (state, name) in states.iter().zip(&names) {
            let dir = temporary.path().join(name);
            create_dir(&dir)?;
            state.save(&dir)?;
        }
        let manifest = json!({ "step": step, "states": names, "record": record });
        write_whole(&temporary.path().join(MANIFEST), format!("{manifest:#}\n").as_bytes())?;
        sync_tree(temporary.path())?;
        if path.exists() {
            // without a manifest: no checkpoint of ours
            remove(&path)?;
        }
        publish(&temporary, &path).map_err(|error| io_error(&error, "write", &path))?;
        sync_dir(&self.dir)?;
        let whole = self.whole()?;
        for (_, old) in whole.iter().take(whole.len().saturating_sub(self.keep)) {
            // without its manifest it is no checkpoint: killed here, half of one cannot be taken for whole
            remove(&old.join(MANIFEST))?;
            remove(old)?;
        }
        Ok(path)
    }

    /// Gives each state what the checkpoint at `path` holds of it.
    pub fn restore(path: &Path, manifest: &Value, states: &[Rc<dyn Stateful>]) -> Result<()> {
        let names = folder_names(states);
        if manifest["states"] != json!(names) {
            return Err(Error::new(format!(
                "the checkpoint holds {}, the script gives {}",
                manifest["states"],
                json!(names)
            ))
            .in_file(path)
            .help("resume with the script that began the run"));
        }
        for (state, name) in states.iter().zip(&names) {
            state.restore(&path.join(name)).map_err(|e| try_older(e, path))?;
        }
        Ok(())
    }
}

/// The step of a checkpoint's folder.
fn step_of(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Renames a finished temporary folder to its place, which must be free.
pub(super) fn publish(temporary: &tempfile::TempDir, path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755))?;
    }
    fs::rename(temporary.path(), path)
}

fn folder_names(states: &[Rc<dyn Stateful>]) -> Vec<String> {
    let count = |i: usize| states[..=i].iter().filter(|s| s.name() == states[i].name()).count();
    (0..states.len())
        .map(|i| match count(i) {
            1 => states[i].name().to_owned(),
            n => format!("{}-{n}", states[i].name()),
        })
        .collect()
}

fn try_older(error: Error, path: &Path) -> Error {
    error.help(format!("remove `{}` to resume from the checkpoint before it", path.display()))
}
