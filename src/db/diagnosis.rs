//! Why the database cannot do what is asked of it until somebody mends it: rights that the role lacks, a server or a file
//! that takes no changes, a schema that is another one.
//!
//! diesel does not tell PostgreSQL's error codes, and its messages are in the language of the server. So after an error of
//! an unknown kind the database itself is asked, in its catalogs, whether something is wrong for good.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Text};

use super::conn::Conn;
use super::schema::{
    access_tokens, account_cleanups, api_keys, audit_entries, issue_requests, known_networks, pages, sign_in_failures,
    users,
};
use crate::error::{AppError, NotReady};

/// What a role that serves must be granted, table by table. `docs/operations.md` has the same as SQL.
pub const GRANTS: [(&str, &str); 11] = [
    ("users", "SELECT, INSERT, UPDATE, DELETE"),
    ("access_tokens", "SELECT, INSERT, UPDATE, DELETE"),
    ("api_keys", "SELECT, INSERT, UPDATE, DELETE"),
    ("issue_requests", "SELECT, INSERT, UPDATE, DELETE"),
    ("pages", "SELECT, INSERT, UPDATE, DELETE"),
    ("sign_in_failures", "SELECT, INSERT, UPDATE, DELETE"),
    ("known_networks", "SELECT, INSERT, UPDATE, DELETE"),
    ("account_cleanups", "SELECT, INSERT, UPDATE, DELETE"),
    ("credential_changes", "SELECT, INSERT, DELETE"),
    ("audit_entries", "SELECT, INSERT"),
    ("__diesel_schema_migrations", "SELECT"),
];

/// Something that is wrong until somebody mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// What everybody may know of it.
    pub told: NotReady,
    /// What the operator must know, and what to do.
    pub cause: String,
}

const PRIVILEGE: NotReady =
    NotReady { code: "privilege_missing", detail: "The database role lacks a privilege that the server needs." };
const READ_ONLY: NotReady = NotReady { code: "read_only", detail: "The database takes no changes." };
const SCHEMA: NotReady = NotReady { code: "schema_changed", detail: "The database lacks tables or columns." };
const DAMAGED: NotReady = NotReady { code: "database_damaged", detail: "The database file is damaged." };
pub(super) const REPLACED: NotReady =
    NotReady { code: "database_replaced", detail: "The database file was replaced while the server ran." };

/// How long what was found is taken for true, so that many errors at once lead to few questions.
const FRESH: Duration = Duration::from_millis(500);

/// What was found for the last error, and what lasts.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    last: Mutex<Option<(Instant, Option<Defect>)>>,
    /// What no question finds out again, and only a restart mends.
    lasting: Mutex<Option<Defect>>,
}

impl Diagnosis {
    /// What is wrong, asked on this connection unless another error has just asked it.
    pub(super) fn of_error(&self, conn: &mut Conn) -> Result<Option<Defect>, AppError> {
        if let Some((at, found)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < FRESH
        {
            return Ok(found.clone());
        }
        let found = self.ask(conn)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    /// What is wrong, asked on this connection, which must not be within a transaction.
    pub(super) fn ask(&self, conn: &mut Conn) -> Result<Option<Defect>, AppError> {
        match self.lasting() {
            None => diagnose(conn),
            lasting => Ok(lasting),
        }
    }

    /// What only a restart mends, if there is any such thing.
    pub(super) fn lasting(&self) -> Option<Defect> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers that the file is damaged.
    pub(super) fn is_damaged(&self, cause: &str) {
        self.lasts(Defect { told: DAMAGED, cause: format!("{cause}: restore a backup") });
    }

    /// Remembers that the file may not be written.
    pub(super) fn is_read_only(&self, cause: &str) {
        self.lasts(Defect {
            told: READ_ONLY,
            cause: format!("{cause}: make the file and its directory writable, and restart"),
        });
    }

    /// Remembers that another file is in the place of the one that is open.
    pub(super) fn is_replaced(&self) {
        let cause = "the SQLite file was removed or replaced while it was in use, and what is written now would be lost: \
            restart the server";
        self.lasts(Defect { told: REPLACED, cause: cause.to_owned() });
    }

    fn lasts(&self, defect: Defect) {
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        if lasting.as_ref() != Some(&defect) {
            log::error!("{}", defect.cause);
            *lasting = Some(defect);
        }
    }
}

fn diagnose(conn: &mut Conn) -> Result<Option<Defect>, AppError> {
    let read_only = match conn {
        Conn::Postgres(conn) => takes_no_changes(conn)?,
        // What SQLite refuses it says in words of its own: see `sqlite_error`.
        Conn::Sqlite(_) => None,
    };
    if read_only.is_some() {
        return Ok(read_only);
    }
    let missing = missing_columns(conn)?;
    if !missing.is_empty() {
        let cause = format!(
            "the database lacks {}: the schema was changed by hand, or the role has no USAGE on it",
            missing.join(", ")
        );
        return Ok(Some(Defect { told: SCHEMA, cause }));
    }
    match conn {
        Conn::Postgres(conn) => missing_privileges(conn),
        Conn::Sqlite(_) => Ok(None),
    }
}

#[derive(QueryableByName)]
struct State {
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

fn takes_no_changes(conn: &mut PgConnection) -> Result<Option<Defect>, AppError> {
    let state: State = diesel::sql_query(
        "SELECT pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on' AS is_read_only",
    )
    .get_result(conn)?;
    let cause = if state.is_standby {
        "PostgreSQL is a standby and takes no changes: name the primary, or add target_session_attrs=read-write"
    } else if state.is_read_only {
        "PostgreSQL takes no changes: default_transaction_read_only is on for this role, database or server"
    } else {
        return Ok(None);
    };
    Ok(Some(Defect { told: READ_ONLY, cause: cause.to_owned() }))
}

/// What each table must have, as `table.column`.
fn needed_columns() -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    macro_rules! add {
        ($($table:ident)*) => {$({
            let query = diesel::debug_query::<diesel::pg::Pg, _>(&$table::table.select($table::all_columns)).to_string();
            let names = query.split_once(" FROM ").map_or("", |(names, _)| names).trim_start_matches("SELECT ");
            columns.extend(names.split(", ").map(|name| name.replace('"', "")));
        })*};
    }
    add!(users access_tokens api_keys pages issue_requests account_cleanups audit_entries sign_in_failures known_networks);
    columns
}

fn missing_columns(conn: &mut Conn) -> Result<Vec<String>, AppError> {
    let needed = needed_columns();
    let there: Vec<Name> = match conn {
        Conn::Postgres(conn) => {
            let tables: BTreeSet<&str> =
                needed.iter().filter_map(|column| column.split_once('.')).map(|(table, _)| table).collect();
            diesel::sql_query(
                "SELECT CAST(t.name || '.' || a.attname AS TEXT) AS name FROM unnest($1) AS t(name)
                 JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) WHERE a.attnum > 0 AND NOT a.attisdropped",
            )
            .bind::<Array<Text>, _>(tables.into_iter().collect::<Vec<_>>())
            .load(conn)?
        }
        Conn::Sqlite(conn) => diesel::sql_query(
            "SELECT t.name || '.' || c.name AS name FROM sqlite_master t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table'",
        )
        .load(conn)?,
    };
    let there: BTreeSet<String> = there.into_iter().map(|row| row.name).collect();
    Ok(needed.difference(&there).cloned().collect())
}

/// The grants that the role lacks, with the statements that give them.
fn missing_privileges(conn: &mut PgConnection) -> Result<Option<Defect>, AppError> {
    let needed = GRANTS.iter().flat_map(|(table, privileges)| privileges.split(", ").map(move |one| (*table, one)));
    let (tables, privileges): (Vec<&str>, Vec<&str>) = needed.unzip();
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
    let mut cause = String::from("the database role lacks privileges, so run:");
    for grant in missing {
        let _ = write!(cause, " GRANT {};", grant.name);
    }
    Ok(Some(Defect { told: PRIVILEGE, cause }))
}

/// What an error of SQLite means, by its message, which is the same in every language.
pub(super) fn sqlite_error(message: &str) -> Option<Meaning> {
    match message {
        "database or disk is full" => Some(Meaning::Full),
        "database disk image is malformed" | "file is not a database" => Some(Meaning::Damaged),
        "attempt to write a readonly database" => Some(Meaning::ReadOnly),
        _ if message.starts_with("no such table: ") || message.starts_with("no such column: ") => Some(Meaning::Schema),
        _ if message.starts_with("table ") && message.contains(" has no column named ") => Some(Meaning::Schema),
        _ => None,
    }
}

/// See [`sqlite_error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// There is no room for a change.
    Full,
    /// The file holds no database, or a broken one.
    Damaged,
    /// The file or its directory may not be written.
    ReadOnly,
    /// The schema is not ours.
    Schema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_that_are_needed_are_those_of_the_schema_file() {
        let needed = needed_columns();
        for column in ["users.id", "users.email_key", "pages.updated_by", "sign_in_failures.account"] {
            assert!(needed.contains(column), "{column} in {needed:?}");
        }
        let tables: BTreeSet<&str> = needed.iter().map(|column| column.split_once('.').unwrap().0).collect();
        // Only triggers write the change log, and its columns differ by database.
        let others = ["__diesel_schema_migrations", "credential_changes"];
        let granted = GRANTS.iter().map(|(table, _)| *table).filter(|name| !others.contains(name));
        assert_eq!(tables, granted.collect(), "each table has its grants");
        let declared = include_str!("schema.rs").lines().filter(|line| line.ends_with(") {"));
        let declared = declared.filter_map(|line| line.trim().split_once(" (")).map(|(table, _)| table);
        assert_eq!(tables, declared.collect(), "each table of the schema file is looked for");
    }
}
