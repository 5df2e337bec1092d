//! Files that are complete before they get their name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::failed;
use crate::config::DatabaseUrl;
use crate::error::AppError;

/// The files that SQLite creates beside a database.
const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// The file `.NAME.part`, which becomes `NAME` when it is complete. It is removed when dropped before.
pub(super) struct PartFile {
    path: PathBuf,
    target: PathBuf,
    /// Held while the file is written, so that two programs do not write it at once.
    lock: File,
    /// Whether the file has its name, so that another program can use the name of the part.
    is_published: bool,
}

impl PartFile {
    /// Creates an empty file for its owner only, who is that of an existing `target`. Replaces the rest of a program
    /// that was killed.
    pub(super) fn create(target: &Path) -> Result<Self, AppError> {
        // A symbolic link stays, and the file that it names is replaced.
        let target = &fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let cannot = |error: std::io::Error| failed(format!("cannot write {}: {error}", target.display()));
        let name = target.file_name().ok_or_else(|| failed(format!("{} does not name a file", target.display())))?;
        let mut part = OsString::from(".");
        part.push(name);
        part.push(".part");
        let path = target.with_file_name(part);
        // Anything but a file, such as a named pipe, is not opened, because this can wait forever.
        let is_file = fs::symlink_metadata(&path).is_ok_and(|rest| rest.is_file());
        match is_file.then(|| File::open(&path).map(|rest| rest.try_lock())) {
            Some(Ok(Err(TryLockError::WouldBlock))) => {
                return Err(failed(format!("another program writes {}: wait until it ends", target.display())));
            }
            _ => remove_with_side_files(&path).map_err(cannot)?,
        }
        let lock =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
        lock.lock().map_err(cannot)?;
        let part = Self { path, target: target.to_owned(), lock, is_published: false };
        part.keep_owner()?;
        Ok(part)
    }

    /// Gives the file to the owner of the target, because a server of that user must be able to open it.
    fn keep_owner(&self) -> Result<(), AppError> {
        let (Ok(old), Ok(new)) = (fs::metadata(&self.target), self.lock.metadata()) else { return Ok(()) };
        if old.uid() == new.uid() {
            return Ok(());
        }
        fchown(&self.lock, Some(old.uid()), Some(old.gid())).map_err(|error| {
            let (target, user) = (self.target.display(), old.uid());
            failed(format!("cannot write {target}: {error}. It belongs to user {user}: run this command as that user"))
        })
    }

    /// The path until the file is complete.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path as the address of a database.
    pub(super) fn url(&self) -> DatabaseUrl {
        DatabaseUrl::Sqlite(self.path.clone())
    }

    /// Writes the file to the disk and gives it its name, in one step. No connection to it must be open. Side files of
    /// an earlier database of this name are removed before, because SQLite would apply them to the new one.
    pub(super) fn publish(mut self) -> Result<(), AppError> {
        let cannot = |error: std::io::Error| failed(format!("cannot write {}: {error}", self.target.display()));
        self.lock.sync_all().map_err(cannot)?;
        for suffix in SIDE_FILES {
            remove(&with_suffix(&self.target, suffix)).map_err(cannot)?;
        }
        fs::rename(&self.path, &self.target).map_err(cannot)?;
        self.is_published = true;
        let directory = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all()).map_err(cannot)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_published {
            // The error that made the file incomplete is reported instead.
            let _ = remove_with_side_files(&self.path);
        }
    }
}

fn remove_with_side_files(path: &Path) -> std::io::Result<()> {
    SIDE_FILES.iter().try_for_each(|suffix| remove(&with_suffix(path, suffix)))?;
    remove(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Removes a file that may be missing.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
