//! Migrations, which are embedded in the program, one set per database.
//!
//! All pending migrations run in one transaction under a lock. Replicas that start together therefore run them one
//! after the other, and a process that is killed leaves the schema unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::db::engine::connection::Conn;
use crate::db::engine::database::Db;
use crate::db::engine::diagnosis::existing_columns;
use crate::db::engine::manager::{SQLITE_BUSY_TIMEOUT, open_in_memory};
use crate::db::engine::postgres::Pooler;
use crate::db::engine::transaction::{CommitGate, write_transaction};
use crate::db::schema::{self, for_each_table};
use crate::error::{AppError, Source};

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The number of the advisory lock is arbitrary; nothing else on the database may use it.
const POSTGRES_LOCK: &str = "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '10min';
     SELECT pg_advisory_xact_lock(5494872103);";
/// Long enough for the whole migration of another replica.
const SQLITE_MIGRATION_TIMEOUT: &str = "PRAGMA busy_timeout = 60000;";

/// A migration that this program contains, that the database has applied, or both.
#[derive(Clone, Debug)]
pub struct Status {
    /// Timestamp and name; only the timestamp if this program does not contain the migration.
    pub name: String,
    /// Whether the database has applied it.
    pub applied: bool,
    /// Whether this program contains it.
    pub known: bool,
}

/// A migration that was reverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reverted {
    /// Timestamp and name.
    pub name: String,
    /// What it dropped.
    pub dropped: Vec<Dropped>,
}

/// A table or a column that a reverted migration dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The table, or the column with its table, such as `users.role`.
    pub name: String,
    /// The number of rows that the table held before.
    pub rows: i64,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.name.contains('.') { "column" } else { "table" };
        let unit = if self.rows == 1 { "row" } else { "rows" };
        write!(f, "{kind} {} ({} {unit})", self.name, self.rows)
    }
}

/// The schema of the database, compared with the one that this program requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The schemas are the same.
    Current,
    /// The database is older. The names of the pending migrations.
    Outdated(Vec<String>),
    /// The database is newer. The names of the migrations that this program does not contain.
    Unknown(Vec<String>),
}

impl Db {
    /// Applies all pending migrations and returns their names.
    ///
    /// Errors: the database has applied migrations that this program does not contain.
    pub async fn migrate_up(&self) -> Result<Vec<String>, AppError> {
        self.migrate(run_pending).await
    }

    /// Reverts the latest migration; returns `None` if none is applied.
    ///
    /// Errors: the database has applied migrations that this program does not contain; or `may_lose_rows` is false, and
    /// the migration drops tables or columns of tables that hold rows. The message lists them, and nothing is changed.
    pub async fn migrate_down(&self, may_lose_rows: bool) -> Result<Option<Reverted>, AppError> {
        self.migrate(move |conn| revert_last(conn, may_lose_rows)).await
    }

    /// All migrations of this program, in order, and then those that only the database has.
    pub async fn migration_status(&self) -> Result<Vec<Status>, AppError> {
        self.read(|conn| status(conn).map_err(read_error)).await
    }

    /// Compares the schema of the database with the one that this program requires.
    pub async fn schema_state(&self) -> Result<SchemaState, AppError> {
        Ok(state(&self.migration_status().await?))
    }

    async fn migrate<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Conn) -> Result<T, Source> + Send + 'static,
    ) -> Result<T, AppError> {
        let pooler = self.pooler();
        self.without_timeout(move |conn| in_migration(conn, &pooler, run)).await
    }
}

/// Runs `run` in one transaction, and excludes the migrations of other processes.
fn in_migration<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    run: impl FnOnce(&mut Conn) -> Result<T, Source>,
) -> Result<T, AppError> {
    if let Conn::Sqlite(conn) = conn {
        conn.batch_execute(SQLITE_MIGRATION_TIMEOUT)?;
    }
    let result = write_transaction(conn, pooler, &CommitGate::new(None), |conn| {
        if let Conn::Postgres(conn) = conn {
            conn.batch_execute(POSTGRES_LOCK)?;
        }
        run(conn).map_err(AppError::Internal)
    });
    if let Conn::Sqlite(conn) = conn {
        conn.batch_execute(SQLITE_BUSY_TIMEOUT)?;
    }
    result
}

/// As [`Db::migrate_up`], on a connection outside of a pool.
pub(crate) fn migrate_up(conn: &mut Conn, pooler: &Pooler) -> Result<Vec<String>, AppError> {
    in_migration(conn, pooler, run_pending)
}

/// As [`Db::schema_state`], on a connection outside of a pool.
pub(crate) fn schema_state(conn: &mut Conn) -> Result<SchemaState, AppError> {
    Ok(state(&status(conn).map_err(read_error)?))
}

/// The name of the latest migration of this program.
pub(crate) fn latest() -> Result<String, AppError> {
    let known = names::<diesel::sqlite::Sqlite>(&SQLITE).map_err(AppError::Internal)?;
    Ok(known.into_iter().next_back().map(|(_, name)| name).unwrap_or_default())
}

/// An empty SQLite database in memory, with the schema that the migrations which `conn` has applied create.
pub(crate) fn reference_schema(conn: &mut Conn) -> Result<SqliteConnection, AppError> {
    let create = |conn: &mut Conn, reference: &mut SqliteConnection| -> Result<(), Source> {
        let applied = applied(conn)?;
        let mut known = MigrationSource::<diesel::sqlite::Sqlite>::migrations(&SQLITE)?;
        known.retain(|migration| applied.contains(&migration.name().version().to_string()));
        known.sort_by_key(|migration| migration.name().version().to_string());
        // Creates diesel's table of applied migrations.
        reference.applied_migrations()?;
        known.iter().try_for_each(|migration| reference.run_migration(migration).map(drop))
    };
    let mut reference = open_in_memory()?;
    create(conn, &mut reference).map_err(read_error)?;
    Ok(reference)
}

/// The number of rows of each table that exists.
pub(crate) fn count_existing_rows(conn: &mut Conn) -> Result<BTreeMap<&'static str, i64>, AppError> {
    let columns = existing_columns(conn)?;
    count_rows(conn, &columns).map_err(read_error)
}

/// Converts an error: database errors keep their kind, all others become internal errors.
fn read_error(error: Source) -> AppError {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => (*error).into(),
        Err(error) => AppError::Internal(error),
    }
}

/// The state of a schema with these migrations.
pub fn state(migrations: &[Status]) -> SchemaState {
    let names = |chosen: fn(&Status) -> bool| -> Vec<String> {
        migrations.iter().filter(|one| chosen(one)).map(|one| one.name.clone()).collect()
    };
    let (unknown, pending) = (names(|one| !one.known), names(|one| !one.applied));
    match (unknown.is_empty(), pending.is_empty()) {
        (false, _) => SchemaState::Unknown(unknown),
        (true, false) => SchemaState::Outdated(pending),
        (true, true) => SchemaState::Current,
    }
}

/// The error message for a schema with migrations that this program does not contain.
pub fn newer_schema(unknown: &[String]) -> String {
    format!(
        "a newer version of this program has migrated the database schema (unknown migrations: {}): run that version",
        unknown.join(", ")
    )
}

fn checked_status(conn: &mut Conn) -> Result<Vec<Status>, Source> {
    let migrations = status(conn)?;
    match state(&migrations) {
        SchemaState::Unknown(unknown) => Err(newer_schema(&unknown).into()),
        _ => Ok(migrations),
    }
}

fn run_pending(conn: &mut Conn) -> Result<Vec<String>, Source> {
    let before = checked_status(conn)?;
    match conn {
        Conn::Postgres(conn) => conn.run_pending_migrations(POSTGRES)?,
        Conn::Sqlite(conn) => conn.run_pending_migrations(SQLITE)?,
    };
    Ok(before.into_iter().filter(|migration| !migration.applied).map(|migration| migration.name).collect())
}

fn revert_last(conn: &mut Conn, may_lose_rows: bool) -> Result<Option<Reverted>, Source> {
    let Some(last) = checked_status(conn)?.into_iter().rfind(|migration| migration.applied) else {
        return Ok(None);
    };
    let before = existing_columns(conn)?;
    let rows = count_rows(conn, &before)?;
    match conn {
        Conn::Postgres(conn) => conn.revert_last_migration(POSTGRES)?,
        Conn::Sqlite(conn) => conn.revert_last_migration(SQLITE)?,
    };
    let dropped = dropped(&before, &existing_columns(conn)?, &rows);
    let lost: Vec<String> = dropped.iter().filter(|dropped| dropped.rows > 0).map(Dropped::to_string).collect();
    if !may_lose_rows && !lost.is_empty() {
        return Err(format!(
            "nothing was changed, because reverting {} drops data: {}. Make a backup, then run `latchkey migrate down \
             --yes`",
            last.name,
            lost.join(", ")
        )
        .into());
    }
    Ok(Some(Reverted { name: last.name, dropped }))
}

/// The tables, and the columns of remaining tables, that are among `before` and not among `after`.
fn dropped(before: &BTreeSet<String>, after: &BTreeSet<String>, rows: &BTreeMap<&'static str, i64>) -> Vec<Dropped> {
    let table_of = |column: &str| column.split_once('.').map_or(column, |(table, _)| table).to_owned();
    let remaining: BTreeSet<String> = after.iter().map(|column| table_of(column)).collect();
    let names: BTreeSet<String> = before
        .difference(after)
        .map(|column| Some(table_of(column)).filter(|table| !remaining.contains(table)).unwrap_or(column.clone()))
        .collect();
    let rows_of = |name: &str| rows.get(table_of(name).as_str()).copied().unwrap_or_default();
    names.into_iter().map(|name| Dropped { rows: rows_of(&name), name }).collect()
}

/// The number of rows of each table that exists.
fn count_rows(conn: &mut Conn, columns: &BTreeSet<String>) -> Result<BTreeMap<&'static str, i64>, Source> {
    let exists = |table: &str| columns.iter().any(|column| column.split_once('.').is_some_and(|(of, _)| of == table));
    let mut rows = BTreeMap::new();
    macro_rules! count {
        ($($table:ident: $privileges:literal,)*) => {$(
            if exists(stringify!($table)) {
                rows.insert(stringify!($table), schema::$table::table.count().get_result(conn)?);
            }
        )*};
    }
    for_each_table!(count);
    if exists("credential_changes") {
        let count = diesel::dsl::sql::<BigInt>("(SELECT count(*) FROM credential_changes)");
        rows.insert("credential_changes", diesel::select(count).get_result(conn)?);
    }
    Ok(rows)
}

fn status(conn: &mut Conn) -> Result<Vec<Status>, Source> {
    let known = match conn {
        Conn::Postgres(_) => names::<diesel::pg::Pg>(&POSTGRES)?,
        Conn::Sqlite(_) => names::<diesel::sqlite::Sqlite>(&SQLITE)?,
    };
    let mut applied = applied(conn)?;
    let mut all: Vec<Status> = Vec::with_capacity(known.len());
    for (version, name) in known {
        let found = applied.iter().position(|one| *one == version);
        all.push(Status { name, applied: found.map(|at| applied.swap_remove(at)).is_some(), known: true });
    }
    applied.sort();
    all.extend(applied.into_iter().map(|version| Status { name: version, applied: true, known: false }));
    Ok(all)
}

diesel::table! {
    /// Diesel's table of applied migrations.
    __diesel_schema_migrations (version) {
        /// The timestamp of a migration, without its name.
        version -> Text,
    }
}

/// The versions of the applied migrations. Diesel's own function is not used, because it would create the table: a
/// status query must not write, and a role that only serves lacks the privilege.
fn applied(conn: &mut Conn) -> Result<Vec<String>, Source> {
    let exists = match conn {
        Conn::Postgres(_) => "to_regclass('__diesel_schema_migrations') IS NOT NULL",
        Conn::Sqlite(_) => "EXISTS (SELECT 1 FROM sqlite_master WHERE name = '__diesel_schema_migrations')",
    };
    if diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(exists)).get_result(conn)? {
        Ok(__diesel_schema_migrations::table.select(__diesel_schema_migrations::version).load(conn)?)
    } else {
        Ok(Vec::new())
    }
}

/// Version and full name of each embedded migration, in order.
fn names<DB: diesel::backend::Backend>(source: &EmbeddedMigrations) -> Result<Vec<(String, String)>, Source> {
    let mut known: Vec<(String, String)> = MigrationSource::<DB>::migrations(source)?
        .iter()
        .map(|migration| (migration.name().version().to_string(), migration.name().to_string()))
        .collect();
    known.sort();
    Ok(known)
}
