//! Diagnosis of defects that an operator must repair: missing privileges, a database that accepts no changes, a full
//! disk, a schema with missing tables or columns, a damaged or replaced file, rejected connections.
//!
//! diesel does not expose PostgreSQL's error codes, and the messages are in the language of the server. After an error
//! of unknown kind, queries on the system catalogs therefore find out whether there is such a defect.

pub(crate) mod backup;
pub(crate) mod disk;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Text};

use self::disk::{DiskFault, DiskState, Probe};
use crate::db::engine::connection::Conn;
use crate::db::schema::{self, for_each_table};
use crate::error::{AppError, NotReady};

macro_rules! grants {
    ($($table:ident: $privileges:literal,)*) => {
        &[
            $((stringify!($table), $privileges),)*
            // Only triggers write the change log, and diesel keeps its own table.
            ("credential_changes", "SELECT, INSERT, DELETE"),
            ("__diesel_schema_migrations", "SELECT"),
        ]
    };
}

/// The privileges that a role that serves must have, by table. `docs/operations.md` has them as SQL; a test compares
/// both.
pub const GRANTS: &[(&str, &str)] = for_each_table!(grants);

/// A problem that persists until an operator repairs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The error for clients, without internal details.
    pub not_ready: NotReady,
    /// The cause and the remedy, for the log.
    pub cause: String,
}

const PRIVILEGE: NotReady =
    NotReady { code: "privilege_missing", detail: "The database role lacks a privilege that the server needs." };
const READ_ONLY: NotReady = NotReady { code: "read_only", detail: "The database accepts no changes." };
pub(crate) const DISK_FULL: NotReady = NotReady {
    code: "disk_full",
    detail: "The disk of the database is full. Nothing was stored. Try again after the operator has freed space.",
};
const SCHEMA: NotReady = NotReady { code: "schema_changed", detail: "The database lacks tables or columns." };
const REJECTED: NotReady =
    NotReady { code: "database_rejected", detail: "The database server rejects the connections of this server." };
const DAMAGED: NotReady = NotReady { code: "database_damaged", detail: "The database file is damaged." };
pub(crate) const REPLACED: NotReady =
    NotReady { code: "database_replaced", detail: "The database file was replaced while the server was running." };

/// How long a result is reused, so that many errors at once cause few catalog queries.
const REUSE_FOR: Duration = Duration::from_millis(500);

/// The last result of a diagnosis, and the defects that the catalogs do not show.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    /// The SQLite file.
    file: Option<PathBuf>,
    last: Mutex<Option<(Instant, Option<Defect>)>>,
    /// A defect that only a restart ends. Catalog queries do not find it.
    permanent: Mutex<Option<Defect>>,
    /// Why the server rejected the last attempt to connect.
    rejection: Mutex<Option<Defect>>,
    disk: DiskState,
}

impl Diagnosis {
    /// A diagnosis without defects. `file` is the SQLite file; `None` on PostgreSQL.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// The current defect, if any. Reuses the result of a recent call; otherwise queries the catalogs on this
    /// connection.
    pub(crate) fn after_error(&self, conn: &mut Conn) -> Result<Option<Defect>, AppError> {
        if let Some((at, found)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < REUSE_FOR
        {
            return Ok(found.clone());
        }
        let found = self.find_defect_in_catalogs(conn)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    /// The current defect, if any, including that of the disk. Queries the catalogs on this connection, which must not
    /// be in a failed transaction.
    pub(crate) fn find_defect(&self, conn: &mut Conn) -> Result<Option<Defect>, AppError> {
        Ok(self.find_defect_in_catalogs(conn)?.or_else(|| self.disk_defect(conn)))
    }

    fn find_defect_in_catalogs(&self, conn: &mut Conn) -> Result<Option<Defect>, AppError> {
        match self.permanent() {
            None => diagnose(conn),
            permanent => Ok(permanent),
        }
    }

    /// The defect of the disk, if it has not ended.
    fn disk_defect(&self, conn: &mut Conn) -> Option<Defect> {
        let fault = self.disk.current(|| match conn {
            Conn::Postgres(conn) => disk::probe_postgres(conn),
            Conn::Sqlite(_) => self.file.as_deref().map_or(Probe::Unknown, disk::probe_directory),
        })?;
        let not_ready = match fault {
            DiskFault::Full => DISK_FULL,
            DiskFault::ReadOnly => READ_ONLY,
        };
        Some(Defect { not_ready, cause: fault.cause().to_owned() })
    }

    /// Records that a change failed because the disk is full.
    pub(crate) fn set_disk_full(&self) {
        self.disk.set(DiskFault::Full);
    }

    /// Finds out why SQLite reported an I/O error, and records a known fault of the disk.
    pub(crate) fn after_io_error(&self) -> Option<DiskFault> {
        let fault = disk::probe_directory(self.file.as_deref()?).fault()?;
        self.disk.set(fault);
        Some(fault)
    }

    /// The defect that only a restart ends, if any.
    pub(crate) fn permanent(&self) -> Option<Defect> {
        self.permanent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that the SQLite file is damaged.
    pub(crate) fn set_damaged(&self, cause: &str) {
        self.set_permanent(Defect { not_ready: DAMAGED, cause: format!("{cause}: restore a backup") });
    }

    /// Records that the SQLite file is not writable.
    pub(crate) fn set_read_only(&self, cause: &str) {
        self.set_permanent(Defect {
            not_ready: READ_ONLY,
            cause: format!("{cause}: make the file and its directory writable, and restart"),
        });
    }

    /// Records that the open SQLite file was removed, or that another file is at its path.
    pub(crate) fn set_replaced(&self) {
        let cause = "the SQLite file was removed or replaced while it was in use, and new changes would be lost: \
            restart the server";
        self.set_permanent(Defect { not_ready: REPLACED, cause: cause.to_owned() });
    }

    /// Records the outcome of an attempt to connect: that it succeeded or may succeed later, or why the server rejects
    /// connections until an operator changes something.
    pub(crate) fn set_rejection(&self, message: Option<&str>) {
        let mut rejection = self.rejection.lock().unwrap_or_else(PoisonError::into_inner);
        let new = message.map(|message| Defect { not_ready: REJECTED, cause: message.to_owned() });
        if let Some(defect) = new.as_ref().filter(|new| rejection.as_ref() != Some(*new)) {
            log::error!("{}", defect.cause);
        }
        *rejection = new;
    }

    /// Why the server rejected the last attempt to connect, if it did.
    pub(crate) fn rejection(&self) -> Option<Defect> {
        self.rejection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_permanent(&self, defect: Defect) {
        let mut permanent = self.permanent.lock().unwrap_or_else(PoisonError::into_inner);
        if permanent.as_ref() != Some(&defect) {
            log::error!("{}", defect.cause);
            *permanent = Some(defect);
        }
    }
}

/// Fails if the SQLite file is not writable. On such a file, SQLite begins an immediate transaction as one that reads,
/// and only a statement that writes fails.
pub(crate) fn require_writable(conn: &mut Conn) -> Result<(), AppError> {
    if let Conn::Sqlite(conn) = conn {
        conn.batch_execute("DELETE FROM sign_in_failures WHERE failures < 0")?;
    }
    Ok(())
}

fn diagnose(conn: &mut Conn) -> Result<Option<Defect>, AppError> {
    let read_only = match conn {
        Conn::Postgres(conn) => read_only_defect(conn)?,
        // SQLite reports a read-only file in the message of the error itself: see `classify_sqlite_error`.
        Conn::Sqlite(_) => None,
    };
    if read_only.is_some() {
        return Ok(read_only);
    }
    let missing = missing_columns(conn)?;
    if !missing.is_empty() {
        let cause = format!(
            "the database lacks {}: the schema was changed by hand, or the role lacks USAGE on the schema",
            missing.join(", ")
        );
        return Ok(Some(Defect { not_ready: SCHEMA, cause }));
    }
    match conn {
        Conn::Postgres(conn) => missing_privileges(conn),
        Conn::Sqlite(_) => Ok(None),
    }
}

#[derive(QueryableByName)]
struct WriteState {
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    #[diesel(sql_type = Bool)]
    is_read_only: bool,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

fn read_only_defect(conn: &mut PgConnection) -> Result<Option<Defect>, AppError> {
    let state: WriteState = diesel::sql_query(
        "SELECT pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only",
    )
    .get_result(conn)?;
    let cause = if state.is_standby {
        "PostgreSQL is a standby and accepts no changes: set database.url to the primary, or add \
            target_session_attrs=read-write to it"
    } else if state.is_read_only {
        "PostgreSQL accepts no changes: default_transaction_read_only is on for this role, database or server"
    } else {
        return Ok(None);
    };
    Ok(Some(Defect { not_ready: READ_ONLY, cause: cause.to_owned() }))
}

/// All columns that Latchkey uses, as `table.column`.
fn required_columns() -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    macro_rules! add {
        ($($table:ident: $privileges:literal,)*) => {$({
            let all = schema::$table::table.select(schema::$table::all_columns);
            let query = diesel::debug_query::<diesel::pg::Pg, _>(&all).to_string();
            let names = query.split_once(" FROM ").map_or("", |(names, _)| names).trim_start_matches("SELECT ");
            columns.extend(names.split(", ").map(|name| name.replace('"', "")));
        })*};
    }
    for_each_table!(add);
    columns
}

fn missing_columns(conn: &mut Conn) -> Result<Vec<String>, AppError> {
    Ok(required_columns().difference(&existing_columns(conn)?).cloned().collect())
}

/// The columns of Latchkey's tables that exist, as `table.column`, without those of diesel's own table.
pub(crate) fn existing_columns(conn: &mut Conn) -> Result<BTreeSet<String>, AppError> {
    let tables: BTreeSet<&str> =
        GRANTS.iter().map(|(table, _)| *table).filter(|table| !table.starts_with("__")).collect();
    let existing: Vec<Name> = match conn {
        Conn::Postgres(conn) => diesel::sql_query(
            "SELECT CAST(t.name || '.' || a.attname AS TEXT) AS name FROM unnest($1) AS t(name)
             JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) WHERE a.attnum > 0 AND NOT a.attisdropped",
        )
        .bind::<Array<Text>, _>(tables.iter().copied().collect::<Vec<_>>())
        .load(conn)?,
        Conn::Sqlite(conn) => diesel::sql_query(
            "SELECT t.name || '.' || c.name AS name FROM sqlite_master t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table'",
        )
        .load(conn)?,
    };
    let is_own = |column: &str| column.split_once('.').is_some_and(|(table, _)| tables.contains(table));
    Ok(existing.into_iter().map(|row| row.name).filter(|column| is_own(column)).collect())
}

/// The privileges that the role lacks, with the `GRANT` statements to run.
fn missing_privileges(conn: &mut PgConnection) -> Result<Option<Defect>, AppError> {
    let required = GRANTS.iter().flat_map(|(table, privileges)| privileges.split(", ").map(move |one| (*table, one)));
    let (tables, privileges): (Vec<&str>, Vec<&str>) = required.unzip();
    let missing: Vec<Name> = diesel::sql_query(
        "SELECT n.privilege || ' ON ' || n.name || ' TO ' || quote_ident(current_user) AS name
         FROM unnest($1, $2) AS n(name, privilege) WHERE to_regclass(n.name) IS NOT NULL
         AND NOT has_table_privilege(CAST(to_regclass(n.name) AS oid), n.privilege)",
    )
    .bind::<Array<Text>, _>(tables)
    .bind::<Array<Text>, _>(privileges)
    .load(conn)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let mut cause = String::from("the database role lacks privileges; run:");
    for grant in missing {
        let _ = write!(cause, " GRANT {};", grant.name);
    }
    Ok(Some(Defect { not_ready: PRIVILEGE, cause }))
}

/// The kind of an SQLite error, by its message. SQLite does not translate its messages.
pub(crate) fn classify_sqlite_error(message: &str) -> Option<SqliteError> {
    match message {
        "database or disk is full" => Some(SqliteError::Full),
        "database disk image is malformed" | "file is not a database" => Some(SqliteError::Damaged),
        "attempt to write a readonly database" => Some(SqliteError::ReadOnly),
        "disk I/O error" => Some(SqliteError::Io),
        _ if message.starts_with("no such table: ") || message.starts_with("no such column: ") => {
            Some(SqliteError::Schema)
        }
        _ if message.starts_with("table ") && message.contains(" has no column named ") => Some(SqliteError::Schema),
        _ => None,
    }
}

/// The kinds of SQLite errors that [`classify_sqlite_error`] recognizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqliteError {
    /// The disk is full.
    Full,
    /// The file is not a database, or is damaged.
    Damaged,
    /// The file or its directory is not writable.
    ReadOnly,
    /// The operating system reported an error.
    Io,
    /// A table or a column is missing.
    Schema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_required_columns_are_those_of_the_schema_file() {
        let required = required_columns();
        for column in ["users.id", "users.email_key", "pages.updated_by", "sign_in_failures.account"] {
            assert!(required.contains(column), "{column} in {required:?}");
        }
        let tables: BTreeSet<&str> = required.iter().map(|column| column.split_once('.').unwrap().0).collect();
        let text = include_str!("../schema.rs");
        let declared = text.lines().filter(|line| line.ends_with(") {"));
        let declared = declared.filter_map(|line| line.trim().split_once(" (")).map(|(table, _)| table);
        let list = text.lines().position(|line| line.contains("macro_rules! for_each_table")).unwrap() + 4;
        for table in declared {
            assert!(
                tables.contains(table),
                "src/db/schema.rs:{list}: add `{table}: \"SELECT, INSERT, UPDATE, DELETE\",`"
            );
        }
    }
}
