//! Copies all tables from one database to another, with the number and the digest of their rows.

use diesel::result::Error as DieselError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rows::{self, CopiedRow};
use super::sequences;
use crate::db::engine::connection::Conn;
use crate::db::schema::for_each_table;
use crate::domain::secret::hex;
use crate::error::AppError;

/// Rows per statement. SQLite allows 32,766 values, which are 1,310 rows of the table with most columns.
const BATCH: usize = 500;

/// The content of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TableSummary {
    /// The table.
    pub name: String,
    /// The number of rows.
    pub rows: i64,
    /// SHA-256 of all values of all rows in the order of the key, in hex.
    pub digest: String,
    /// The last id that was assigned, for a table that assigns ids.
    pub last_id: Option<i64>,
}

/// What a transfer does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `copy`, `digest` (the rows of the copy are read) or `verify` (those of a backup are).
    pub step: &'static str,
    /// The table, or `all tables`.
    pub table: &'static str,
    /// The number of rows of this table that are done. For all tables: pages of the database.
    pub done: i64,
    /// The number of rows of this table. For all tables: pages of the database.
    pub total: i64,
}

/// Called for each batch of rows.
pub type OnProgress<'p> = &'p mut dyn FnMut(Progress);

/// The content of every table. `step` names this in the progress.
pub fn summarize(conn: &mut Conn, step: &'static str, progress: OnProgress<'_>) -> Result<Vec<TableSummary>, AppError> {
    let mut found = Vec::new();
    macro_rules! each {
        ($($table:ident: $privileges:literal,)*) => {
            $(found.push(read_table::<rows::$table::Row>(conn, None, step, progress)?);)*
        };
    }
    for_each_table!(each);
    Ok(found)
}

/// Copies every row and the last ids from `source` to `target`, whose tables are empty, in an order that foreign keys
/// allow. Returns the content of the source.
pub fn copy(source: &mut Conn, target: &mut Conn, progress: OnProgress<'_>) -> Result<Vec<TableSummary>, AppError> {
    let mut found = Vec::new();
    macro_rules! each {
        ($($table:ident: $privileges:literal,)*) => {
            $(found.push(read_table::<rows::$table::Row>(source, Some(target), "copy", progress)?);)*
        };
    }
    for_each_table!(each);
    sequences::set(target, found.iter().filter_map(|table| Some((table.name.as_str(), table.last_id?))))?;
    Ok(found)
}

/// The id of the latest audit entry.
pub fn last_audit_entry(conn: &mut Conn) -> Result<i64, AppError> {
    sequences::last_id(conn, "audit_entries")
}

/// Fails if the contents differ, and names the first table that does.
pub fn require_equal(expected: &[TableSummary], found: &[TableSummary]) -> Result<(), AppError> {
    let differs = expected.iter().find(|table| !found.contains(table));
    match differs {
        None if expected.len() == found.len() => Ok(()),
        differs => {
            let name = differs.map_or("a table", |table| table.name.as_str());
            let rows =
                |tables: &[TableSummary]| tables.iter().find(|table| table.name == name).map_or(0, |table| table.rows);
            let (rows, found) = (rows(expected), rows(found));
            Err(AppError::Internal(
                format!("the rows of {name} differ from the original ({rows} expected, {found} found)").into(),
            ))
        }
    }
}

/// Reads a table, and inserts its rows into `target` if there is one.
fn read_table<R: CopiedRow>(
    source: &mut Conn,
    mut target: Option<&mut Conn>,
    step: &'static str,
    progress: OnProgress<'_>,
) -> Result<TableSummary, AppError> {
    let total = R::count(source)?;
    let (mut digest, mut done, mut batch) = (Sha256::new(), 0, Vec::with_capacity(BATCH));
    let mut next_report = 0;
    let mut flush = |batch: &mut Vec<R>| -> Result<(), AppError> {
        if let Some(target) = target.as_deref_mut()
            && !batch.is_empty()
        {
            R::insert(target, batch).map_err(|error| in_table(R::TABLE, error))?;
        }
        batch.clear();
        Ok(())
    };
    R::for_each(source, &mut |row| {
        row.hash(&mut digest);
        batch.push(row);
        done += 1;
        if batch.len() == BATCH {
            flush(&mut batch)?;
        }
        if done >= next_report && done < total {
            progress(Progress { step, table: R::TABLE, done, total });
            next_report = done + total / 100 + 1;
        }
        Ok(())
    })
    .map_err(|error| in_table(R::TABLE, error))?;
    flush(&mut batch)?;
    progress(Progress { step, table: R::TABLE, done, total });
    let last_id = R::ASSIGNS_IDS.then(|| sequences::last_id(source, R::TABLE)).transpose()?;
    Ok(TableSummary { name: R::TABLE.to_owned(), rows: done, digest: hex(&digest.finalize()), last_id })
}

/// Adds the table to an error about one of its rows.
fn in_table(table: &str, error: AppError) -> AppError {
    match error {
        AppError::Internal(source) if source.is::<DieselError>() => {
            AppError::Internal(format!("table {table}: {source}").into())
        }
        error => error,
    }
}
