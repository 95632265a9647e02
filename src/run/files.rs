//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io_error};

const TEMPORARY: &str = ".writing-";

/// Writes a file to a temporary name beside `path`, then renames it: a reader never sees a part of it.
///
/// # Errors
/// A folder that cannot be written, a full disk; an older file stays as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| io_error(&error, "write", path);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(parent(path)).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    // temporary files are private by default; a result is as readable as any other file
    let readable = file.as_file().metadata().map_err(failed)?.permissions();
    file.as_file().set_permissions(shared(readable)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_dir(parent(path))
}

#[cfg(unix)]
fn shared(mut permissions: fs::Permissions) -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    permissions.set_mode(0o644);
    permissions
}

#[cfg(not(unix))]
fn shared(permissions: fs::Permissions) -> fs::Permissions {
    permissions
}

/// Removes what [`write_whole`] and unfinished folders left when their process was killed.
pub(super) fn remove_temporary(dir: &Path) -> Result<()> {
    for entry in entries(dir)? {
        if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY)) {
            remove(&entry)?;
        }
    }
    Ok(())
}

/// Removes a file or a folder with all it holds.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| io_error(&error, "remove", path))
}

/// A new folder in `dir` that is removed again unless it is renamed.
pub(super) fn temporary_dir(dir: &Path) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(dir)
}

/// The folder that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes a folder and those above it.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    if let Some(file) = path.ancestors().find(|p| p.is_file()) {
        return Err(Error::new(format!("cannot make the folder `{}`: a file is in the way", path.display()))
            .in_file(file)
            .help("choose another folder, or move the file"));
    }
    fs::create_dir_all(path).map_err(|error| io_error(&error, "make the folder", path))
}

/// Makes the names in a folder survive a power cut.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| io_error(&error, "write", path))?;
    }
    Ok(())
}

/// Makes all files and names below a folder survive a power cut.
pub(super) fn sync_tree(path: &Path) -> Result<()> {
    for entry in entries(path)? {
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            File::open(&entry)
                .and_then(|f| f.sync_all())
                .map_err(|error| io_error(&error, "write", &entry))?;
        }
    }
    sync_dir(path)
}

/// The entries of a folder, sorted; none where it does not exist.
pub(super) fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| io_error(&error, "read the folder", path);
    let mut found = match fs::read_dir(path) {
        Ok(dir) => dir.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => vec![],
        Err(error) => return Err(failed(error)),
    };
    found.sort();
    Ok(found)
}

/// Reads a JSON file.
pub(super) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = fs::read_to_string(path).map_err(|error| io_error(&error, "read", path))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::new(format!("not JSON: {error}"))
            .at_line(path, error.line())
            .help("restore the file as raco wrote it")
    })
}
