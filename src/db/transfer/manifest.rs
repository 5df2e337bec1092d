//! The manifest of a backup: a table with one row in the file itself.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::tables::TableSummary;
use crate::db::engine::connection::Conn;
use crate::error::AppError;

/// The format of backups that this program writes.
pub const FORMAT: i64 = 1;

/// The digest of the file is in the first column, so that it is never split between two pages of the file.
const CREATE: &str = "CREATE TABLE backup_manifest (
         file_digest TEXT NOT NULL, format INTEGER NOT NULL, version TEXT NOT NULL, created_at TEXT NOT NULL,
         migration TEXT NOT NULL, audit_head INTEGER NOT NULL, tables TEXT NOT NULL
     );";
const INSERT: &str = "INSERT INTO backup_manifest
     (file_digest, format, version, created_at, migration, audit_head, tables) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const SELECT: &str =
    "SELECT file_digest, format, version, created_at, migration, audit_head, tables FROM backup_manifest";

/// What a backup contains.
#[derive(Clone, Debug, QueryableByName)]
pub struct Manifest {
    /// SHA-256 of the file, in hex, computed with zeros in place of this text.
    #[diesel(sql_type = Text)]
    pub file_digest: String,
    /// The format of the file.
    #[diesel(sql_type = BigInt)]
    pub format: i64,
    /// The version of the program that made it.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// When it was made.
    #[diesel(sql_type = Text)]
    pub created_at: String,
    /// The latest migration of its schema.
    #[diesel(sql_type = Text)]
    pub migration: String,
    /// The id of the latest audit entry.
    #[diesel(sql_type = BigInt)]
    pub audit_head: i64,
    /// The content of each table, as JSON.
    #[diesel(sql_type = Text)]
    pub tables: String,
}

impl Manifest {
    /// The content of each table.
    pub fn summaries(&self) -> Result<Vec<TableSummary>, AppError> {
        serde_json::from_str(&self.tables).map_err(|error| AppError::Internal(format!("the manifest: {error}").into()))
    }

    /// The number of rows of all tables.
    pub fn rows(&self) -> i64 {
        self.summaries().unwrap_or_default().iter().map(|table| table.rows).sum()
    }
}

/// Writes the manifest.
pub fn write(conn: &mut Conn, manifest: &Manifest) -> Result<(), AppError> {
    let Conn::Sqlite(conn) = conn else { return Err(not_a_file()) };
    conn.batch_execute(CREATE)?;
    diesel::sql_query(INSERT)
        .bind::<Text, _>(&manifest.file_digest)
        .bind::<BigInt, _>(manifest.format)
        .bind::<Text, _>(&manifest.version)
        .bind::<Text, _>(&manifest.created_at)
        .bind::<Text, _>(&manifest.migration)
        .bind::<BigInt, _>(manifest.audit_head)
        .bind::<Text, _>(&manifest.tables)
        .execute(conn)?;
    Ok(())
}

/// Reads the manifest. Returns `None` if the file is not a backup.
pub fn read(conn: &mut Conn) -> Option<Manifest> {
    let Conn::Sqlite(conn) = conn else { return None };
    diesel::sql_query(SELECT).get_result(conn).ok()
}

/// Removes the manifest from a file that becomes a database.
pub fn remove(conn: &mut Conn) -> Result<(), AppError> {
    let Conn::Sqlite(conn) = conn else { return Err(not_a_file()) };
    Ok(conn.batch_execute("DROP TABLE IF EXISTS backup_manifest;")?)
}

fn not_a_file() -> AppError {
    AppError::Internal("only a SQLite file has a manifest".into())
}
