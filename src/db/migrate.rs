//! Migrations, embedded per database.
//!
//! All pending ones run in one transaction under a lock, so replicas that start together take turns, and one that is
//! killed leaves the schema as it was.

use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::conn::SQLITE_PATIENCE;
use super::transaction::{CommitGate, write_transaction};
use super::{Conn, Db};
use crate::error::{AppError, Source};

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Any number will do, so long as nothing else on that database takes the same advisory lock.
const POSTGRES_LOCK: &str = "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '10min';
     SELECT pg_advisory_xact_lock(5494872103);";
/// One replica may wait for another's whole migration.
const SQLITE_LONG_PATIENCE: &str = "PRAGMA busy_timeout = 60000;";

/// One migration of this program or of the database.
#[derive(Clone, Debug)]
pub struct Status {
    /// Timestamp and name; of one that this program does not know, the timestamp alone.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
    /// Whether this program has it.
    pub known: bool,
}

/// What the database's schema is to this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The one that it was built for.
    Current,
    /// An older one: these migrations are pending.
    Outdated(Vec<String>),
    /// Another one: these were applied by a newer program.
    Unknown(Vec<String>),
}

impl Db {
    /// Applies all pending migrations; their names. Errors: the database has migrations that this program does not know.
    pub async fn migrate_up(&self) -> Result<Vec<String>, AppError> {
        self.migrate(run_pending).await
    }

    /// Reverts the latest migration; its name, or `None` if there is none. Errors as above.
    pub async fn migrate_down(&self) -> Result<Option<String>, AppError> {
        self.migrate(revert_last).await
    }

    /// Every migration of this program and of the database, in order.
    pub async fn migration_status(&self) -> Result<Vec<Status>, AppError> {
        self.read(|conn| status(conn).map_err(read_error)).await
    }

    /// Whether the schema is the one this program was built for.
    pub async fn schema_state(&self) -> Result<SchemaState, AppError> {
        Ok(state(&self.migration_status().await?))
    }

    async fn migrate<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Conn) -> Result<T, Source> + Send + 'static,
    ) -> Result<T, AppError> {
        let pooler = self.pool.manager().pooler().clone();
        self.without_timeout(move |conn| {
            if let Conn::Sqlite(conn) = conn {
                conn.batch_execute(SQLITE_LONG_PATIENCE)?;
            }
            let answer = write_transaction(conn, &pooler, &CommitGate::new(None), |conn| {
                if let Conn::Postgres(conn) = conn {
                    conn.batch_execute(POSTGRES_LOCK)?;
                }
                run(conn).map_err(AppError::Internal)
            });
            if let Conn::Sqlite(conn) = conn {
                conn.batch_execute(SQLITE_PATIENCE)?;
            }
            answer
        })
        .await
    }
}

/// An error of the database stays what it is.
fn read_error(error: Source) -> AppError {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => (*error).into(),
        Err(error) => AppError::Internal(error),
    }
}

/// What a schema with these migrations is to this program.
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

/// What to tell of a schema with these unknown migrations.
pub fn newer_schema(unknown: &[String]) -> String {
    format!(
        "the database schema was migrated by a newer version of this program, which knows {}: run that version",
        unknown.join(", ")
    )
}

fn known_schema(conn: &mut Conn) -> Result<Vec<Status>, Source> {
    let migrations = status(conn)?;
    match state(&migrations) {
        SchemaState::Unknown(unknown) => Err(newer_schema(&unknown).into()),
        _ => Ok(migrations),
    }
}

fn run_pending(conn: &mut Conn) -> Result<Vec<String>, Source> {
    let before = known_schema(conn)?;
    match conn {
        Conn::Postgres(conn) => conn.run_pending_migrations(POSTGRES)?,
        Conn::Sqlite(conn) => conn.run_pending_migrations(SQLITE)?,
    };
    Ok(before.into_iter().filter(|migration| !migration.applied).map(|migration| migration.name).collect())
}

fn revert_last(conn: &mut Conn) -> Result<Option<String>, Source> {
    let Some(last) = known_schema(conn)?.into_iter().rfind(|migration| migration.applied) else {
        return Ok(None);
    };
    match conn {
        Conn::Postgres(conn) => conn.revert_last_migration(POSTGRES)?,
        Conn::Sqlite(conn) => conn.revert_last_migration(SQLITE)?,
    };
    Ok(Some(last.name))
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
    /// Diesel's own.
    __diesel_schema_migrations (version) {
        /// The timestamp of a migration, without its name.
        version -> Text,
    }
}

/// The versions that the database has. Diesel's own function would create its table first; a look should not write,
/// and a role that only serves may not.
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
