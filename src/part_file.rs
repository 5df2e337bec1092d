//! Files that are complete before they get their name, such as backups and exports.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file `.NAME.part`, which becomes `NAME` when it is complete. It is removed when dropped before.
pub struct PartFile {
    path: PathBuf,
    target: PathBuf,
    /// Suffixes of files that another program creates beside both.
    side_files: &'static [&'static str],
    /// Locked, so that two programs do not write it at once.
    file: File,
    /// Whether the file has its name, so that another program can use the name of the part.
    is_published: bool,
}

impl PartFile {
    /// Creates an empty file for its owner only. Replaces the rest of a program that was killed, with its side files,
    /// whose names end with the given suffixes.
    ///
    /// Errors: a message with the path, also if another program writes the file.
    pub fn create(target: &Path, side_files: &'static [&'static str]) -> Result<Self, String> {
        let cannot = |error: std::io::Error| cannot_write(target, &error);
        let busy = || format!("another program writes {}: wait until it ends", target.display());
        let name = target.file_name().ok_or_else(|| format!("{} does not name a file", target.display()))?;
        let path = target.with_file_name(format!(".{}.part", name.to_string_lossy()));
        let lock = |file: &File| match file.try_lock() {
            Ok(()) if is_named(file, &path) => Ok(()),
            // After a change by another program, the locked file is not the one with this name.
            Ok(()) | Err(TryLockError::WouldBlock) => Err(busy()),
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        };
        // A named pipe is not opened, because this can wait forever.
        let is_file = fs::symlink_metadata(&path).is_ok_and(|rest| rest.is_file());
        let rest = if is_file { File::open(&path).ok() } else { None };
        if let Some(rest) = &rest {
            lock(rest)?;
            remove(&path).map_err(cannot)?;
        }
        // Never opens a file that exists: another user could have made it, and could read what is written.
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => format!("{} exists: remove it, and try again", path.display()),
            _ => cannot(error),
        })?;
        lock(&file)?;
        let part = Self { path, target: target.to_owned(), side_files, file, is_published: false };
        remove_all(&part.path, side_files).map_err(cannot)?;
        Ok(part)
    }

    /// The path until the file is complete.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the complete file.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes the file to the disk and gives it its name, in one step. No other program must have it open. Side files
    /// of an earlier file of this name are removed before, so that they are not applied to the new one.
    ///
    /// Errors: a message with the path.
    pub fn publish(mut self) -> Result<(), String> {
        let cannot = |error: std::io::Error| cannot_write(&self.target, &error);
        self.file.sync_all().map_err(cannot)?;
        remove_all(&self.target, self.side_files).map_err(cannot)?;
        fs::rename(&self.path, &self.target).map_err(cannot)?;
        let directory = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let stored = File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        let stored = stored.map_err(cannot);
        self.is_published = true;
        stored
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_published {
            // The error that made the file incomplete is reported instead.
            let _ = remove_all(&self.path, self.side_files);
            let _ = remove(&self.path);
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Whether the open file is the one with this name.
fn is_named(file: &File, path: &Path) -> bool {
    let same = |(file, named): (Metadata, Metadata)| (file.dev(), file.ino()) == (named.dev(), named.ino());
    file.metadata().ok().zip(path.symlink_metadata().ok()).is_some_and(same)
}

/// Removes the files whose names are that of `path` with these suffixes.
fn remove_all(path: &Path, suffixes: &[&str]) -> std::io::Result<()> {
    suffixes.iter().try_for_each(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        remove(Path::new(&name))
    })
}

/// Removes a file that may be missing.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_complete_and_is_removed_when_it_is_not() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("backup");
        fs::write(home.path().join("backup-wal"), "of an earlier file").unwrap();
        fs::write(home.path().join(".backup.part-wal"), "of a killed program").unwrap();
        fs::write(home.path().join(".backup.part"), "of a killed program").unwrap();
        let mut rest = File::open(home.path().join(".backup.part")).unwrap();
        let dropped = PartFile::create(&target, &["-wal"]).unwrap();
        assert_eq!(names(home.path()), [".backup.part", "backup-wal"]);
        assert_eq!(dropped.file().metadata().unwrap().len(), 0);
        dropped.file().write_all(b"secret").unwrap();
        let mut read = String::new();
        rest.read_to_string(&mut read).unwrap();
        assert_eq!(read, "of a killed program", "who has opened the rest does not see the new content");
        assert_eq!(dropped.file().metadata().unwrap().mode() & 0o777, 0o600, "not the mode of the rest");
        let busy = PartFile::create(&target, &["-wal"]).err().unwrap();
        assert!(busy.starts_with("another program writes "), "{busy}");
        drop(dropped);
        assert_eq!(names(home.path()), ["backup-wal"]);

        let part = PartFile::create(&target, &["-wal"]).unwrap();
        assert_eq!(part.file().metadata().unwrap().mode() & 0o777, 0o600);
        part.file().write_all(b"complete").unwrap();
        part.publish().unwrap();
        assert_eq!(names(home.path()), ["backup"]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "complete");

        std::os::unix::fs::symlink(&target, home.path().join(".backup.part")).unwrap();
        let refused = PartFile::create(&target, &[]).err().unwrap();
        assert!(refused.ends_with(".backup.part exists: remove it, and try again"), "{refused}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "complete", "the link is not followed");
    }
}
