//! Copies the database to another one, of the same or of the other kind.

use super::backup::{OTHER_DISK, cannot_write, write_rows};
use super::part::DatabasePart;
use super::target::{load_postgres, open_postgres, record, take_file};
use super::{OnProgress, TableSummary, failed, require_current};
use crate::clock::Timestamp;
use crate::config::DatabaseUrl;
use crate::db::Conn;
use crate::db::mail::outbox;
use crate::db::transfer::tables::last_audit_entry;
use crate::db::transfer::{Session, check_texts, files};
use crate::domain::audit::{Action, Event};
use crate::error::AppError;

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// The content of each table.
    pub tables: Vec<TableSummary>,
    /// The number of audit entries that the source has gained since the copy began, which the copy lacks.
    pub missed_entries: i64,
}

/// Copies all rows from `source` to `target`, which no program may use, from one snapshot of the source.
pub fn copy(
    source_url: &DatabaseUrl,
    target: &DatabaseUrl,
    replace: bool,
    now: Timestamp,
    progress: OnProgress<'_>,
) -> Result<Copied, AppError> {
    if is_same(source_url, target) {
        return Err(failed("the source and the target are the same database: name another one with --to"));
    }
    let cannot = |error: AppError| failed(format!("cannot use the database {source_url}: {error}"));
    let mut source = Session::open(source_url).map_err(cannot)?;
    require_current(&mut source)?;
    let kind = match source_url {
        DatabaseUrl::Sqlite(_) => "SQLite",
        DatabaseUrl::Postgres(_) => "PostgreSQL",
    };
    let finish = |conn: &mut Conn, tables: &[TableSummary]| {
        let rows: i64 = tables.iter().map(|table| table.rows).sum();
        let detail = format!("from {kind}, audit entry {}, {rows} rows", head(tables));
        // The server on the source sends them.
        outbox::end_all(conn, now)?;
        record(conn, now, &Event::of(Action::CopyDatabase).detail(detail))
    };
    let copied = match target {
        DatabaseUrl::Sqlite(path) => {
            // Held until the new file has its name, so that no server opens the old one meanwhile.
            let old = take_file(path, replace)?;
            let part = DatabasePart::create_database(path)?;
            let written = write_rows(&mut source, &part, progress).and_then(|tables| {
                let mut file = Session::open_any(&part.url())?;
                files::without_wal(file.conn())?;
                file.write(|conn| finish(conn, &tables))?;
                files::check(file.conn())?;
                Ok(tables)
            });
            let tables = written.map_err(|error| cannot_write(path, OTHER_DISK, &error))?;
            part.publish()?;
            drop(old);
            tables
        }
        DatabaseUrl::Postgres(_) => {
            check_texts(source.conn(), false)?;
            files::check_foreign_keys(source.conn())?;
            let mut target = open_postgres(target, replace)?;
            load_postgres(&mut source, &mut target, progress, finish)?.0
        }
    };
    let missed_entries = last_audit_entry(source.conn())? - head(&copied);
    Ok(Copied { tables: copied, missed_entries })
}

/// The id of the latest audit entry.
fn head(tables: &[TableSummary]) -> i64 {
    tables.iter().find(|table| table.name == "audit_entries").and_then(|table| table.last_id).unwrap_or_default()
}

/// Whether both addresses name the same database. PostgreSQL also detects this by its locks.
fn is_same(source: &DatabaseUrl, target: &DatabaseUrl) -> bool {
    match (source, target) {
        (DatabaseUrl::Sqlite(source), DatabaseUrl::Sqlite(target)) => {
            source == target || source.canonicalize().is_ok_and(|source| target.canonicalize().ok() == Some(source))
        }
        (source, target) => source == target,
    }
}
