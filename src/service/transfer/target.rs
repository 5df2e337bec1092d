//! The database into which a backup or another database is written.

use std::path::Path;

use super::failed;
use crate::clock::Timestamp;
use crate::config::DatabaseUrl;
use crate::db::engine::diagnosis::backup::reject_backup;
use crate::db::engine::migrate::{SchemaState, newer_schema};
use crate::db::transfer::tables::{self, OnProgress, TableSummary};
use crate::db::transfer::{Session, target};
use crate::db::{Conn, audit_entries};
use crate::domain::audit::{Actor, Caller, ClientInfo, Event, Outcome};
use crate::error::AppError;

/// Checks that a SQLite file may be replaced, and keeps all other programs away from it while the result is held.
/// `None` if there is no database, or one that is too damaged to be opened.
///
/// Errors: the file is a backup, it exists and `replace` is false, or a program uses it.
pub(super) fn take_file(path: &Path, replace: bool) -> Result<Option<Session>, AppError> {
    reject_backup(path)?;
    let is_present = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
    if !is_present {
        return Ok(None);
    }
    if !replace {
        return Err(failed(format!(
            "nothing was changed, because {} exists: name another database, or add --replace to lose its data",
            path.display()
        )));
    }
    let taken = Session::open_any(&DatabaseUrl::Sqlite(path.to_owned()));
    let taken = taken.and_then(|mut session| target::take_sqlite(session.conn()).map(|()| session));
    match taken {
        Ok(session) => Ok(Some(session)),
        Err(error) if error.to_string().contains("locked") => Err(failed(target::IN_USE)),
        Err(error) if ["not a database", "malformed"].iter().any(|text| error.to_string().contains(text)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens PostgreSQL, and creates the tables.
///
/// Errors: the tables hold rows and `replace` is false, a newer version has migrated them, or a server uses them.
pub(super) fn open_postgres(url: &DatabaseUrl, replace: bool) -> Result<Session, AppError> {
    let cannot = |error: AppError| failed(format!("cannot use the database {url}: {error}"));
    let mut session = Session::open(url).map_err(cannot)?;
    if let SchemaState::Unknown(unknown) = session.schema_state().map_err(cannot)? {
        return Err(failed(newer_schema(&unknown)));
    }
    if !replace && !session.read(target::is_empty).map_err(cannot)? {
        return Err(failed(format!(
            "nothing was changed, because {url} holds rows: name an empty database, or add --replace to lose its data"
        )));
    }
    session.keep_servers_away()?;
    session.migrate_up().map_err(cannot)?;
    Ok(session)
}

/// Copies all rows of `source` into PostgreSQL, in one transaction. It is committed only if both sides have equal rows.
/// `finish` runs in the transaction, after the rows have been compared.
pub(super) fn load_postgres<T>(
    source: &mut Session,
    target: &mut Session,
    progress: OnProgress<'_>,
    finish: impl FnOnce(&mut Conn, &[TableSummary]) -> Result<T, AppError>,
) -> Result<(Vec<TableSummary>, T), AppError> {
    let done = source.read(|source| {
        target.write(|conn| {
            target::prepare_postgres(conn)?;
            let copied = tables::copy(source, conn, progress)?;
            tables::require_equal(&copied, &tables::summarize(conn, "digest", progress)?)?;
            let finished = finish(conn, &copied)?;
            Ok((copied, finished))
        })
    })?;
    // The rows are stored, so a failure here is none of the transfer.
    if let Err(error) = target.write(target::analyze) {
        log::warn!("cannot update the statistics of PostgreSQL, run ANALYZE: {error}");
    }
    Ok(done)
}

/// Copies all rows of `source` into a new SQLite file.
pub(super) fn load_file(
    source: &mut Session,
    file: &mut Session,
    progress: OnProgress<'_>,
) -> Result<Vec<TableSummary>, AppError> {
    file.migrate_up()?;
    let copied = source.read(|source| file.write(|target| tables::copy(source, target, progress)))?;
    tables::require_equal(&copied, &tables::summarize(file.conn(), "digest", progress)?)?;
    Ok(copied)
}

/// Writes an audit entry of the command line.
pub(super) fn record(conn: &mut Conn, now: Timestamp, event: &Event) -> Result<(), AppError> {
    let by = Actor::caller(&Caller::CommandLine);
    audit_entries::insert(conn, now, &by, event, Outcome::Success, &ClientInfo::default()).map(drop)
}
