//! SQLite files that are complete before they get their name.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use super::failed;
use crate::config::{DatabaseUrl, SQLITE_SIDE_FILES};
use crate::error::AppError;
use crate::part_file::PartFile;

/// A database that gets its name when it is complete.
pub(super) struct DatabasePart(PartFile);

impl DatabasePart {
    /// Creates an empty file.
    pub(super) fn create(target: &Path) -> Result<Self, AppError> {
        Ok(Self(PartFile::create(target, SQLITE_SIDE_FILES).map_err(failed)?))
    }

    /// Creates an empty file that becomes the database of a server, with the owner of `target` if that exists, and
    /// otherwise, if the process is root, with that of its directory: a server of that user must be able to open it.
    pub(super) fn create_database(target: &Path) -> Result<Self, AppError> {
        // A symbolic link stays, and the file that it names is replaced.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let part = Self::create(&target)?;
        part.set_owner()?;
        Ok(part)
    }

    fn set_owner(&self) -> Result<(), AppError> {
        let (target, part) = (self.0.target(), self.0.file());
        let Ok(new) = part.metadata() else { return Ok(()) };
        // The process has just created the file, so its owner is the user of the process.
        let of_directory = || {
            let directory = target.parent().filter(|directory| !directory.as_os_str().is_empty());
            fs::metadata(directory.unwrap_or(Path::new("."))).ok().filter(|_| new.uid() == 0)
        };
        let Some(old) = fs::metadata(target).ok().or_else(of_directory) else { return Ok(()) };
        if old.uid() == new.uid() {
            return Ok(());
        }
        fchown(part, Some(old.uid()), Some(old.gid())).map_err(|error| {
            let (target, user) = (target.display(), old.uid());
            failed(format!("cannot write {target}: {error}. It belongs to user {user}: run this command as that user"))
        })
    }

    /// The path until the database is complete.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        self.0.file()
    }

    /// The path as the address of a database.
    pub(super) fn url(&self) -> DatabaseUrl {
        DatabaseUrl::Sqlite(self.path().to_owned())
    }

    /// Gives the database its name. No connection to it must be open.
    pub(super) fn publish(self) -> Result<(), AppError> {
        self.0.publish().map_err(failed)
    }
}
