//! Two kinds of connection behind one type, and all that differs between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::transaction::is_mid_transaction;
use crate::config::DatabaseUrl;
use crate::error::AppError;

pub use self::either::Conn;

mod either {
    #![expect(clippy::disallowed_methods, reason = "the derive's own `establish`, which nobody calls")]

    use diesel::prelude::*;

    /// A connection to either database.
    #[derive(diesel::MultiConnection)]
    pub enum Conn {
        /// PostgreSQL, through libpq.
        Postgres(PgConnection),
        /// SQLite, built in.
        Sqlite(SqliteConnection),
    }
}

/// Runs one expression on the connection inside, compiled once per database: for what diesel cannot say about both
/// at once (`ON CONFLICT`, `FOR UPDATE`, `as_returning`).
macro_rules! on_backend {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::Conn::Postgres($conn) => $query,
            crate::db::Conn::Sqlite($conn) => $query,
        }
    };
}
pub(super) use on_backend;

/// The one row that a query finds, which stays as found until the transaction ends. On SQLite a write transaction began
/// IMMEDIATE, so nobody else writes anyway. Rows that refer to this one may come meanwhile (NO KEY).
macro_rules! one_locked {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::Conn::Postgres($conn) => $query.for_no_key_update().get_result($conn).optional(),
            crate::db::Conn::Sqlite($conn) => $query.get_result($conn).optional(),
        }
    };
}
pub(super) use one_locked;

/// All rows of a query, locked likewise, in the order of the query.
macro_rules! all_locked {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::Conn::Postgres($conn) => $query.for_no_key_update().load($conn),
            crate::db::Conn::Sqlite($conn) => $query.load($conn),
        }
    };
}
pub(super) use all_locked;

/// Likewise, but only those that nobody else has locked.
macro_rules! free_locked {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::Conn::Postgres($conn) => $query.for_update().skip_locked().load($conn),
            crate::db::Conn::Sqlite($conn) => $query.load($conn),
        }
    };
}
pub(super) use free_locked;

/// Makes connections to the database that the URL's scheme names, and to no other.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    url: DatabaseUrl,
    /// Of its connections, in all.
    failures: Arc<AtomicU64>,
}

impl Manager {
    pub(super) fn new(url: DatabaseUrl) -> Self {
        Self { url, failures: Arc::default() }
    }
}

/// How long SQLite waits for another process: less than a caller waits for its answer.
pub(super) const SQLITE_PATIENCE: &str = "PRAGMA busy_timeout = 1500;";

/// After the patience, because the change to WAL may have to wait. FULL: a commit that was acknowledged survives a power
/// cut. Foreign keys are off unless asked for. Secure deletion overwrites what is removed, instead of only forgetting where
/// it is.
const SQLITE_SETUP: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
     PRAGMA secure_delete = ON;";

/// A statement that takes too long is ended by the server, before its caller gives up.
const POSTGRES_SETUP: &str = "SET TIME ZONE 'UTC'; SET statement_timeout = '1500ms'; SET lock_timeout = '1200ms';
     SET idle_in_transaction_session_timeout = '10s';";

/// So that a vanished server is noticed: seconds, and milliseconds for the last.
const POSTGRES_TIMEOUTS: [(&str, &str); 5] = [
    ("connect_timeout", "2"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "2"),
    ("tcp_user_timeout", "5000"),
];

/// How long after its last answer a connection is taken for alive without being asked.
const FRESH: Duration = Duration::from_secs(1);

/// A connection of the pool. It is taken for alive if it has just answered and no other one has failed since.
pub(super) struct Pooled {
    conn: Conn,
    answered: Instant,
    /// How many had failed by then.
    failures: u64,
    all_failures: Arc<AtomicU64>,
}

impl Pooled {
    /// Does `work`. If it fails because of the database, all connections are asked whether they live before they are
    /// used again: a server that is restarted ends all of them.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T, AppError>) -> Result<T, AppError> {
        // Before the work: one that fails meanwhile leaves this one in doubt, too.
        let failures = self.all_failures.load(Ordering::Relaxed);
        let answer = work(&mut self.conn);
        match answer {
            Err(AppError::Busy(_) | AppError::OutcomeUnknown(_) | AppError::Internal(_)) => {
                self.all_failures.fetch_add(1, Ordering::Relaxed);
            }
            _ => (self.answered, self.failures) = (Instant::now(), failures),
        }
        answer
    }

    fn is_fresh(&self) -> bool {
        self.answered.elapsed() < FRESH && self.failures == self.all_failures.load(Ordering::Relaxed)
    }
}

impl Manager {
    /// Counts a failure, as if one of the connections had had it.
    pub(super) fn recheck_connections(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A new connection, with our settings.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub(super) fn open(&self) -> Result<Conn, ConnectionError> {
        let (mut conn, setup): (Conn, &[&str]) = match &self.url {
            DatabaseUrl::Sqlite(path) => {
                let path =
                    path.to_str().ok_or_else(|| ConnectionError::BadConnection("the path is not UTF-8".into()))?;
                (Conn::Sqlite(SqliteConnection::establish(path)?), &[SQLITE_PATIENCE, SQLITE_SETUP])
            }
            DatabaseUrl::Postgres(uri) => {
                let uri = uri.with_defaults(&POSTGRES_TIMEOUTS);
                let conn = PgConnection::establish(&uri).map_err(without_secrets)?;
                (Conn::Postgres(conn), &[POSTGRES_SETUP])
            }
        };
        for step in setup {
            conn.batch_execute(step).map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(conn)
    }
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Pooled, ConnectionError> {
        let all_failures = Arc::clone(&self.failures);
        let failures = all_failures.load(Ordering::Relaxed);
        Ok(Pooled { conn: self.open()?, answered: Instant::now(), failures, all_failures })
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), ConnectionError> {
        if pooled.is_fresh() {
            return Ok(());
        }
        let ask = |conn: &mut Conn| Ok(conn.batch_execute("SELECT 1")?);
        pooled.run(ask).map_err(|error| ConnectionError::BadConnection(error.to_string()))
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        std::thread::panicking() || is_mid_transaction(&mut pooled.conn)
    }
}

/// libpq's words about a server that it could not reach. Its words about an address that it could not read quote
/// pieces of it, and so, it may be, of the password.
fn without_secrets(error: ConnectionError) -> ConnectionError {
    let said = error.to_string();
    if said.starts_with("connection to server") {
        return error;
    }
    let reason = if said.contains("could not translate host name") {
        "the name of the server's host cannot be resolved"
    } else {
        "libpq cannot read the address: look at its parameters, and write special characters as %XX"
    };
    ConnectionError::BadConnection(reason.to_owned())
}

/// Any number will do, so long as nothing else on that database takes the same advisory lock. For each schema by itself.
const POSTGRES_PURGE_LOCK: &str = "pg_try_advisory_xact_lock(549487210, hashtext(current_schema()))";

/// Whether no other process removes what has expired, until the transaction ends. On SQLite nobody else writes anyway.
pub fn purging_is_ours(conn: &mut Conn) -> Result<bool, AppError> {
    match conn {
        Conn::Postgres(conn) => {
            let ours = diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(POSTGRES_PURGE_LOCK));
            Ok(ours.get_result(conn)?)
        }
        Conn::Sqlite(_) => Ok(true),
    }
}
