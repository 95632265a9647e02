//! Where a script may write: below the run folders it started and below paths given on the command line.
//! Reading is free.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// The folders and files that a script may write.
#[derive(Debug, Default, Clone)]
pub struct Sandbox {
    roots: Vec<PathBuf>,
}

impl Sandbox {
    /// Allows the paths that the user gave.
    pub fn new(given: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { roots: given.into_iter().map(|path| real(&path)).collect() }
    }

    /// Fails unless a run may start in `folder`.
    ///
    /// # Errors
    /// A folder that is neither below the working directory nor given on the command line.
    pub fn check_start(&self, folder: &Path) -> Result<()> {
        let (here, path) = (real(Path::new(".")), real(folder));
        if path != here && path.starts_with(&here) { Ok(()) } else { self.check(folder) }
    }

    /// Allows all below the folder of a run.
    pub fn allow(&mut self, folder: &Path) {
        self.roots.push(real(folder));
    }

    /// Fails unless the script may write `path`.
    ///
    /// # Errors
    /// A path outside.
    pub fn check(&self, path: &Path) -> Result<()> {
        let wanted = real(path);
        if self.roots.iter().any(|root| wanted.starts_with(root)) {
            return Ok(());
        }
        Err(Error::new(format!("a script may not write `{}`", path.display())).help(
            "write below the folder of `start_run`, or take the path from the command line: \
             `args(#{ out: … })` and `--out PATH`",
        ))
    }
}

/// The absolute path with links followed as far as the path exists, and without `.` and `..`.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => {
                out.push(part);
                if let Ok(target) = out.canonicalize() {
                    out = target;
                }
            }
        }
    }
    out
}
