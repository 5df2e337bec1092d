//! One connection outside of any pool, for work without a time limit.

use std::path::Path;

use diesel::connection::SimpleConnection;

use crate::config::DatabaseUrl;
use crate::db::engine::connection::Conn;
use crate::db::engine::database::create_private;
use crate::db::engine::diagnosis::backup::reject_backup;
use crate::db::engine::manager::{Manager, open_read_only};
use crate::db::engine::migrate::{self, SchemaState};
use crate::db::engine::postgres::Pooler;
use crate::db::engine::transaction::{CommitGate, read_transaction, write_transaction};
use crate::db::transfer::target;
use crate::error::AppError;

const APPLICATION_NAME: &str = "latchkey-transfer";

/// A transfer has no time limit. It waits only briefly for the locks of a server.
const POSTGRES_WITHOUT_LIMIT: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s';
     SET LOCAL idle_in_transaction_session_timeout = 0;";

/// A connection outside of any pool.
pub struct Session {
    conn: Conn,
    pooler: Pooler,
}

impl Session {
    /// Opens a database. Creates a missing SQLite file.
    ///
    /// Errors: also if the file is a backup, which this would change.
    pub fn open(url: &DatabaseUrl) -> Result<Self, AppError> {
        if let DatabaseUrl::Sqlite(path) = url {
            reject_backup(path)?;
        }
        Self::open_any(url)
    }

    /// As [`Session::open`], also for a file that is or becomes a backup.
    pub fn open_any(url: &DatabaseUrl) -> Result<Self, AppError> {
        if let DatabaseUrl::Sqlite(path) = url {
            create_private(path)
                .map_err(|error| AppError::Internal(format!("cannot create {}: {error}", path.display()).into()))?;
        }
        let manager = Manager::connected(url.clone())?;
        let pooler = manager.pooler().clone();
        Ok(Self { conn: manager.open_named(APPLICATION_NAME)?.into_conn(), pooler })
    }

    /// Opens a SQLite file that nobody changes, without writing to it or beside it.
    pub fn open_read_only(path: &Path) -> Result<Self, AppError> {
        Ok(Self { conn: Conn::Sqlite(open_read_only(path)?), pooler: Pooler::default() })
    }

    /// The connection, outside of a transaction.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Whether this is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self.conn, Conn::Postgres(_))
    }

    /// Runs `query` on one snapshot of the database.
    pub fn read<T>(&mut self, query: impl FnOnce(&mut Conn) -> Result<T, AppError>) -> Result<T, AppError> {
        read_transaction(&mut self.conn, &self.pooler, |conn| {
            lift_limits(conn)?;
            query(conn)
        })
    }

    /// Runs `change` in one transaction.
    pub fn write<T>(&mut self, change: impl FnOnce(&mut Conn) -> Result<T, AppError>) -> Result<T, AppError> {
        write_transaction(&mut self.conn, &self.pooler, &CommitGate::new(None), |conn| {
            lift_limits(conn)?;
            change(conn)
        })
    }

    /// Keeps servers away from PostgreSQL while this session lasts. Behind a pooler, where a session is not kept, this
    /// only detects them, and the transaction that writes keeps them away.
    ///
    /// Errors: a server uses the database.
    pub fn keep_servers_away(&mut self) -> Result<(), AppError> {
        if self.pooler.is_present() { self.read(target::require_unused) } else { target::take_postgres(&mut self.conn) }
    }

    /// Applies all pending migrations.
    pub fn migrate_up(&mut self) -> Result<Vec<String>, AppError> {
        migrate::migrate_up(&mut self.conn, &self.pooler)
    }

    /// Compares the schema with the one that this program requires.
    pub fn schema_state(&mut self) -> Result<SchemaState, AppError> {
        migrate::schema_state(&mut self.conn)
    }
}

fn lift_limits(conn: &mut Conn) -> Result<(), AppError> {
    if let Conn::Postgres(conn) = conn {
        conn.batch_execute(POSTGRES_WITHOUT_LIMIT)?;
    }
    Ok(())
}
