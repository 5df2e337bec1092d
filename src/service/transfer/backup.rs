//! Backups: a SQLite file with all rows, of a database of either kind, and a manifest in it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::background::in_background;
use super::part::DatabasePart;
use super::target::load_file;
use super::{Manifest, OnProgress, TableSummary, checksum, failed, require_current};
use crate::clock::Timestamp;
use crate::config::DatabaseUrl;
use crate::db::engine::migrate::{self, SchemaState, newer_schema};
use crate::db::transfer::{Session, check_texts, files, manifest, objects, tables};
use crate::domain::secret::hex;
use crate::error::AppError;

/// Makes a backup in `file`, which must not exist. The database can be in use.
pub fn create(
    source: &DatabaseUrl,
    file: &Path,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Manifest, AppError> {
    if source.owns(file) {
        return Err(failed(format!("{} belongs to the database: name another file", file.display())));
    }
    require_free(file)?;
    let mut source = open_source(source)?;
    let part = DatabasePart::create(file)?;
    let manifest = in_background(part.file(), || write(&mut source, &part, now, progress))
        .map_err(|error| cannot_write(file, OTHER_DISK, &error))?;
    require_free(file)?;
    part.publish()?;
    Ok(manifest)
}

fn require_free(file: &Path) -> Result<(), AppError> {
    match file.symlink_metadata() {
        Ok(_) => Err(failed(format!("{} exists: name a file that does not exist yet", file.display()))),
        Err(_) => Ok(()),
    }
}

/// Makes a backup in a temporary file, and writes it to `output`.
pub fn stream(
    source: &DatabaseUrl,
    output: &mut impl Write,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Manifest, AppError> {
    let mut source = open_source(source)?;
    let name = std::env::temp_dir().join(format!("latchkey-backup-{}", std::process::id()));
    let part = DatabasePart::create(&name)?;
    let manifest = in_background(part.file(), || write(&mut source, &part, now, progress))
        .map_err(|error| cannot_write(part.path(), OTHER_TEMPORARY_DISK, &error))?;
    let sent = File::open(part.path()).and_then(|mut file| {
        // A process that is killed while it sends leaves no file behind.
        drop(part);
        std::io::copy(&mut file, output)?;
        output.flush()
    });
    sent.map_err(|error| failed(format!("cannot write to standard output: {error}")))?;
    Ok(manifest)
}

/// A backup that is complete and unchanged.
#[derive(Debug)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// The migrations that the schema of the backup lacks. The rows of an older schema are only verified by the digest
    /// of the file.
    pub pending: Vec<String>,
}

/// Verifies that a backup is complete and unchanged.
pub fn verify(file: &Path, progress: OnProgress<'_>) -> Result<Verified, AppError> {
    let name = file.display();
    if file == Path::new("-") || file.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(failed(
            "a backup is not read from standard input or a pipe: write it to a file, and name the file",
        ));
    }
    if !file.is_file() {
        return Err(failed(format!("there is no file {name}: name a backup that `latchkey backup create` made")));
    }
    let no_backup =
        || failed(format!("{name} is no backup, or it is damaged: name a file that `latchkey backup create` made"));
    let opened = Session::open_read_only(file);
    let mut session = opened.map_err(|error| failed(format!("cannot open {name}: {error}")))?;
    let manifest = manifest::read(session.conn()).ok_or_else(no_backup)?;
    if manifest.format != manifest::FORMAT {
        return Err(failed(format!(
            "{name} has format {}, and this program reads format {}: use version {} of the program",
            manifest.format,
            manifest::FORMAT,
            manifest.version
        )));
    }
    let changed = |reason: &str| failed(format!("{name} is damaged or was changed ({reason}): use another backup"));
    match checksum::matches(file, &manifest.file_digest) {
        Ok(true) => {}
        Ok(false) => return Err(changed("its digest differs from that in its manifest")),
        Err(error) => return Err(failed(format!("cannot read {name}: {error}"))),
    }
    files::check(session.conn()).map_err(|error| changed(&error.to_string()))?;
    let pending = match session.schema_state()? {
        SchemaState::Current => Vec::new(),
        SchemaState::Outdated(pending) => pending,
        SchemaState::Unknown(unknown) => return Err(failed(format!("{name}: {}", newer_schema(&unknown)))),
    };
    objects::require_own(session.conn()).map_err(|error| changed(&error.to_string()))?;
    if pending.is_empty() {
        let found = tables::summarize(session.conn(), "verify", progress)?;
        tables::require_equal(&manifest.summaries()?, &found).map_err(|error| changed(&error.to_string()))?;
    }
    Ok(Verified { manifest, pending })
}

/// Opens the database to be backed up, whose schema must be that of this program.
fn open_source(source: &DatabaseUrl) -> Result<Session, AppError> {
    let mut session = Session::open(source)?;
    require_current(&mut session)?;
    Ok(session)
}

fn write(
    source: &mut Session,
    part: &DatabasePart,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Manifest, AppError> {
    let tables = write_rows(source, part, progress)?;
    let mut file = Session::open_any(&part.url())?;
    files::without_wal(file.conn())?;
    manifest::write(file.conn(), &new_manifest(&tables, now)?)?;
    let placeholder = manifest::read(file.conn()).map(|manifest| manifest.file_digest).unwrap_or_default();
    // The file must not be open while its bytes change.
    drop(file);
    checksum::seal(part.path(), &placeholder).map_err(|error| failed(error.to_string()))?;
    Ok(verify(part.path(), progress)?.manifest)
}

/// Copies all rows of a database to a new SQLite file, which is closed afterwards.
pub(super) fn write_rows(
    source: &mut Session,
    part: &DatabasePart,
    progress: OnProgress<'_>,
) -> Result<Vec<TableSummary>, AppError> {
    if source.is_postgres() {
        let mut file = Session::open_any(&part.url())?;
        files::without_wal(file.conn())?;
        return load_file(source, &mut file, progress);
    }
    let foreign =
        |error: AppError| failed(format!("the source cannot be copied: {error}. Correct them, and try again"));
    objects::require_own(source.conn()).map_err(foreign)?;
    files::vacuum_into(source.conn(), part.path(), progress)?;
    let mut file = Session::open_read_only(part.path())?;
    check_texts(file.conn(), true)?;
    files::check_foreign_keys(file.conn())?;
    tables::summarize(file.conn(), "digest", progress)
}

fn new_manifest(tables: &[TableSummary], now: Timestamp) -> Result<Manifest, AppError> {
    let tables_json = serde_json::to_string(tables).map_err(|error| AppError::Internal(error.into()))?;
    let created_at = now.to_string();
    let audit = tables.iter().find(|table| table.name == "audit_entries");
    Ok(Manifest {
        // A text that occurs nowhere else in the file. The digest replaces it.
        file_digest: hex(&Sha256::digest(format!("latchkey backup {created_at} {tables_json}"))),
        format: manifest::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at,
        migration: migrate::latest()?,
        audit_head: audit.and_then(|table| table.last_id).unwrap_or_default(),
        tables: tables_json,
    })
}

/// What to do besides freeing space, if the disk of a file is full.
pub(super) const OTHER_DISK: &str = "name a file on another disk";
/// What to do besides freeing space, if the disk of temporary files is full.
pub(super) const OTHER_TEMPORARY_DISK: &str = "set TMPDIR to a directory on another disk";

/// The error of a file that cannot be written. The file is removed.
pub(super) fn cannot_write(file: &Path, other_disk: &str, error: &AppError) -> AppError {
    let file = file.display();
    match error {
        AppError::NotReady(reason) if reason.code == "disk_full" => {
            failed(format!("cannot write {file}, because the disk is full: free space, or {other_disk}"))
        }
        error => failed(format!("cannot write {file}: {error}")),
    }
}
