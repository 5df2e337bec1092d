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

/// One migration and whether it has been applied.
pub struct Status {
    /// Timestamp and name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl Db {
    /// Applies all pending migrations; their names.
    pub async fn migrate_up(&self) -> Result<Vec<String>, AppError> {
        self.migrate(run_pending).await
    }

    /// Reverts the latest migration; its name, or `None` if there is none.
    pub async fn migrate_down(&self) -> Result<Option<String>, AppError> {
        self.migrate(revert_last).await
    }

    /// Every migration of this program, in order.
    pub async fn migration_status(&self) -> Result<Vec<Status>, AppError> {
        self.read(|conn| status(conn).map_err(AppError::Busy)).await
    }

    /// Whether the schema is the one this program was built for.
    pub async fn is_migrated(&self) -> Result<bool, AppError> {
        Ok(self.migration_status().await?.iter().all(|migration| migration.applied))
    }

    async fn migrate<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Conn) -> Result<T, Source> + Send + 'static,
    ) -> Result<T, AppError> {
        self.without_timeout(|conn| {
            if let Conn::Sqlite(conn) = conn {
                conn.batch_execute(SQLITE_LONG_PATIENCE)?;
            }
            let answer = write_transaction(conn, &CommitGate::new(None), |conn| {
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

fn run_pending(conn: &mut Conn) -> Result<Vec<String>, Source> {
    let before = status(conn)?;
    match conn {
        Conn::Postgres(conn) => conn.run_pending_migrations(POSTGRES)?,
        Conn::Sqlite(conn) => conn.run_pending_migrations(SQLITE)?,
    };
    Ok(before.into_iter().filter(|migration| !migration.applied).map(|migration| migration.name).collect())
}

fn revert_last(conn: &mut Conn) -> Result<Option<String>, Source> {
    let Some(last) = status(conn)?.into_iter().rfind(|migration| migration.applied) else {
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
    let applied = applied(conn)?;
    Ok(known.into_iter().map(|(version, name)| Status { applied: applied.contains(&version), name }).collect())
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
