//! Restores a backup into a database of either kind.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::backup::{OTHER_DISK, OTHER_TEMPORARY_DISK, Verified, cannot_write, verify};
use super::part::DatabasePart;
use super::target::{load_postgres, open_postgres, record, take_file};
use super::{Manifest, OnProgress, failed};
use crate::clock::Timestamp;
use crate::config::DatabaseUrl;
use crate::db::mail::{outbox, replaced_emails, secrets};
use crate::db::transfer::{Session, check_texts, files, manifest};
use crate::db::{Conn, access_tokens, api_keys, sessions};
use crate::domain::audit::{Action, Event, Target};
use crate::error::AppError;

/// What to do besides the restore of the rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Replace a database that holds data.
    pub replace: bool,
    /// End all sign-in tokens, sessions and links of the backup, and drop its mails that wait.
    pub revoke_tokens: bool,
    /// End all keys of the backup.
    pub revoke_keys: bool,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The manifest of the backup.
    pub manifest: Manifest,
    /// The number of tokens that were revoked.
    pub tokens: usize,
    /// The number of sessions that were ended.
    pub sessions: usize,
    /// The number of keys that were revoked.
    pub keys: usize,
    /// The migrations that were applied to the rows of an older schema.
    pub migrations: Vec<String>,
}

/// Restores `file` into the database at `target`, which no program may use.
pub fn restore(
    file: &Path,
    target: &DatabaseUrl,
    options: RestoreOptions,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Restored, AppError> {
    match target {
        DatabaseUrl::Sqlite(path) => restore_file(file, path, options, now, progress),
        DatabaseUrl::Postgres(_) => restore_postgres(file, target, options, now, progress),
    }
}

/// All changes are made in a copy of the backup beside the target, which then replaces the target.
fn restore_file(
    file: &Path,
    target: &Path,
    options: RestoreOptions,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Restored, AppError> {
    if is_same_file(file, target) || DatabaseUrl::Sqlite(target.to_owned()).owns(file) {
        return Err(failed(format!("{} belongs to the database of the settings: name a backup", file.display())));
    }
    let verified = verify(file, progress)?;
    // Held until the new file has its name, so that no server opens the old one meanwhile.
    let old = take_file(target, options.replace)?;
    let part = DatabasePart::create_database(target)?;
    let restored = migrated_copy(file, &part).and_then(|(mut session, migrations)| {
        let (tokens, sessions, keys) = session.write(|conn| finish(conn, &verified.manifest, options, now))?;
        Ok(Restored { manifest: verified.manifest, tokens, sessions, keys, migrations })
    });
    let restored = restored.map_err(|error| cannot_write(target, OTHER_DISK, &error))?;
    part.publish()?;
    drop(old);
    Ok(restored)
}

/// Whether two paths, links included, lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    id(one).is_some_and(|one| id(other) == Some(one))
}

fn restore_postgres(
    file: &Path,
    target: &DatabaseUrl,
    options: RestoreOptions,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Restored, AppError> {
    let Verified { manifest, pending } = verify(file, progress)?;
    let copy = std::env::temp_dir().join(format!("latchkey-restore-{}", std::process::id()));
    // The rows of an older schema are migrated in a copy.
    let part = if pending.is_empty() { None } else { Some(DatabasePart::create(&copy)?) };
    let (mut source, migrations) = match &part {
        None => (Session::open_read_only(file)?, Vec::new()),
        Some(part) => {
            migrated_copy(file, part).map_err(|error| cannot_write(part.path(), OTHER_TEMPORARY_DISK, &error))?
        }
    };
    check_texts(source.conn(), false)?;
    let mut target = open_postgres(target, options.replace)?;
    let (_, (tokens, sessions, keys)) =
        load_postgres(&mut source, &mut target, progress, |conn, _| finish(conn, &manifest, options, now))?;
    Ok(Restored { manifest, tokens, sessions, keys, migrations })
}

/// Copies a backup to `part`, and makes it a database of this program. Returns the applied migrations.
fn migrated_copy(file: &Path, part: &DatabasePart) -> Result<(Session, Vec<String>), AppError> {
    let copied = File::open(file).and_then(|mut source| {
        let mut target = OpenOptions::new().write(true).open(part.path())?;
        std::io::copy(&mut source, &mut target)
    });
    copied.map_err(|error| failed(error.to_string()))?;
    let mut session = Session::open_any(&part.url())?;
    files::without_wal(session.conn())?;
    manifest::remove(session.conn())?;
    let migrations = session.migrate_up()?;
    Ok((session, migrations))
}

/// Revokes credentials, and writes the audit entries. Returns the numbers of what was revoked.
fn finish(
    conn: &mut Conn,
    manifest: &Manifest,
    options: RestoreOptions,
    now: Timestamp,
) -> Result<(usize, usize, usize), AppError> {
    let Manifest { created_at, audit_head, .. } = manifest;
    let detail = format!("backup of {created_at}, audit entry {audit_head}, {} rows", manifest.rows());
    record(conn, now, &Event::of(Action::RestoreDatabase).detail(detail))?;
    let (mut tokens, mut ended_sessions, mut keys) = (0, 0, 0);
    if options.revoke_tokens {
        (tokens, ended_sessions) = (access_tokens::delete_all(conn)?, sessions::delete_all(conn)?);
        secrets::delete_all(conn)?;
        replaced_emails::delete_all(conn)?;
        // A mail that waits would get a new link.
        outbox::end_all(conn, now)?;
        if tokens + ended_sessions > 0 {
            let ended = Event::of(Action::RevokeToken).on(Target::AllTokens);
            record(conn, now, &ended.detail(format!("{tokens} tokens, {ended_sessions} sessions, at a restore")))?;
        }
    }
    if options.revoke_keys {
        keys = api_keys::end_all(conn, now)?;
        if keys > 0 {
            record(conn, now, &Event::of(Action::RevokeKey).detail(format!("{keys} keys, at a restore")))?;
        }
    }
    Ok((tokens, ended_sessions, keys))
}
