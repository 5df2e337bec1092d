//! SQLite files of copies: how they are made and checked.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::tables::{OnProgress, Progress};
use crate::db::engine::connection::Conn;
use crate::error::AppError;

#[derive(QueryableByName)]
struct Finding {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

#[derive(QueryableByName)]
struct Pages {
    #[diesel(sql_type = BigInt)]
    page_count: i64,
}

#[derive(QueryableByName)]
struct Orphan {
    #[diesel(sql_type = Text)]
    table: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    rowid: Option<i64>,
}

/// The maximum number of findings in an error message.
const MAX_REPORTED: usize = 10;

/// Copies a snapshot of the SQLite database to `file`, which must be empty. Other connections can write meanwhile.
pub fn vacuum_into(conn: &mut Conn, file: &Path, progress: OnProgress<'_>) -> Result<(), AppError> {
    let Conn::Sqlite(conn) = conn else {
        return Err(AppError::Internal("only SQLite copies itself to a file".into()));
    };
    let name = file.to_str().ok_or_else(|| AppError::Internal("the path is not UTF-8".into()))?;
    let total = diesel::sql_query("PRAGMA page_count").get_result::<Pages>(conn)?.page_count;
    let mut report = |done| progress(Progress { step: "copy", table: "all tables", done, total });
    report(0);
    diesel::sql_query("VACUUM INTO $1").bind::<Text, _>(name).execute(conn)?;
    report(total);
    Ok(())
}

/// Writes to this file without a write-ahead log, which would become as large as the copy.
pub fn without_wal(conn: &mut Conn) -> Result<(), AppError> {
    if let Conn::Sqlite(conn) = conn {
        conn.batch_execute("PRAGMA journal_mode = DELETE;")?;
    }
    Ok(())
}

/// Checks the structure of a SQLite file, and that no row refers to a missing row.
pub fn check(conn: &mut Conn) -> Result<(), AppError> {
    let Conn::Sqlite(conn) = conn else { return Ok(()) };
    let found: Vec<Finding> = diesel::sql_query("PRAGMA integrity_check(10)").load(conn)?;
    let damaged = |message: String| Err(AppError::Internal(format!("the file is damaged: {message}").into()));
    if !matches!(found.as_slice(), [only] if only.integrity_check == "ok") {
        let found: Vec<String> = found.into_iter().map(|finding| finding.integrity_check).collect();
        return damaged(found.join("; "));
    }
    check_references(conn)
}

/// Fails if a row refers to a row that does not exist. SQLite does not enforce this for every program.
pub fn check_foreign_keys(conn: &mut Conn) -> Result<(), AppError> {
    match conn {
        Conn::Sqlite(conn) => check_references(conn),
        Conn::Postgres(_) => Ok(()),
    }
}

fn check_references(conn: &mut SqliteConnection) -> Result<(), AppError> {
    let orphans: Vec<Orphan> = diesel::sql_query("PRAGMA foreign_key_check").load(conn)?;
    if orphans.is_empty() {
        return Ok(());
    }
    let name = |orphan: &Orphan| format!("{} row {}", orphan.table, orphan.rowid.unwrap_or_default());
    let names: Vec<String> = orphans.iter().take(MAX_REPORTED).map(name).collect();
    Err(AppError::Internal(
        format!("rows refer to rows that do not exist: {}. Delete them in the source, and try again", names.join(", "))
            .into(),
    ))
}
