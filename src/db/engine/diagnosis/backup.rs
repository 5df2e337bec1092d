//! Recognizes backups, so that none is used or replaced as a database.

use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::db::engine::manager::open_read_only;
use crate::db::engine::postgres::ConnectError;

/// A backup has this table, and a database has not.
const HAS_MANIFEST: &str = "EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'backup_manifest')";

/// Fails if the file is a backup. A database would be opened for writing, which changes the file. This does not.
pub(crate) fn reject_backup(path: &Path) -> Result<(), ConnectError> {
    // Whether another file can be opened is for the caller to find out.
    let has_manifest = path.is_file()
        && open_read_only(path).is_ok_and(|mut conn| {
            diesel::select(diesel::dsl::sql::<Bool>(HAS_MANIFEST)).get_result(&mut conn).unwrap_or(false)
        });
    if !has_manifest {
        return Ok(());
    }
    Err(ConnectError::permanent(format!(
        "nothing was changed, because {} is a backup: name a database, into which `latchkey backup restore` restores it",
        path.display()
    )))
}
