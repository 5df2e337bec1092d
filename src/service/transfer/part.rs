//! SQLite files that are complete before they get their name.

use std::path::Path;

use super::failed;
use crate::config::DatabaseUrl;
use crate::error::AppError;
use crate::part_file::PartFile;

/// The files that SQLite creates beside a database.
const SIDE_FILES: &[&str] = &["-journal", "-wal", "-shm"];

/// A database that gets its name when it is complete.
pub(super) struct DatabasePart(PartFile);

impl DatabasePart {
    /// Creates an empty file.
    pub(super) fn create(target: &Path) -> Result<Self, AppError> {
        Ok(Self(PartFile::create(target, SIDE_FILES).map_err(failed)?))
    }

    /// The path until the database is complete.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
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
