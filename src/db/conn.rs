//! Two kinds of connection behind one type, and all that differs between them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::diagnosis::{self, Diagnosis, Meaning};
use super::postgres::{self, ConnectError, Mark, Pooler};
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
    shared: Shared,
    pooler: Pooler,
    /// The connection that showed that the address is right, for the first who needs one.
    first: Arc<Mutex<Option<Pooled>>>,
}

/// What all connections of a manager have in common.
#[derive(Clone, Debug, Default)]
struct Shared {
    /// Failures of its connections, in all.
    failures: Arc<AtomicU64>,
    diagnosis: Arc<Diagnosis>,
}

impl Shared {
    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Has every connection asked whether it lives before it is used again.
    fn recheck_connections(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long SQLite waits for another process: less than a caller waits for its answer.
pub(super) const SQLITE_PATIENCE: &str = "PRAGMA busy_timeout = 1500;";

/// After the patience, because the change to WAL may have to wait. FULL: a commit that was acknowledged survives a power
/// cut. Foreign keys are off unless asked for. Secure deletion overwrites what is removed, instead of only forgetting where
/// it is.
const SQLITE_SETUP: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
     PRAGMA secure_delete = ON;";

/// How long after its last answer a connection is taken for alive without being asked.
const FRESH: Duration = Duration::from_secs(1);

/// What tells a session or a file from another one.
#[derive(Debug)]
enum Proof {
    /// A session of PostgreSQL that is ours alone.
    Mark(Mark),
    /// A session that is another one in each transaction.
    None,
    /// The SQLite file that is open.
    File(PathBuf, FileId),
}

/// A connection of the pool. It is taken for alive if it has just answered and no other one has failed since.
pub(super) struct Pooled {
    conn: Conn,
    proof: Proof,
    answered: Instant,
    /// How many had failed by then.
    failures: u64,
    shared: Shared,
}

impl std::fmt::Debug for Pooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooled").field("proof", &self.proof).finish_non_exhaustive()
    }
}

impl Pooled {
    /// Does `work`. If it fails because of the database, all connections are asked whether they live before they are
    /// used again: a server that is restarted ends all of them.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T, AppError>) -> Result<T, AppError> {
        // Before the work: one that fails meanwhile has this one rechecked, too.
        let failures = self.shared.failures();
        self.check_file()?;
        let answer = work(&mut self.conn);
        match &answer {
            Err(AppError::Busy(_) | AppError::OutcomeUnknown(_) | AppError::Internal(_)) => {
                self.shared.recheck_connections();
            }
            _ => (self.answered, self.failures) = (Instant::now(), failures),
        }
        answer.map_err(|error| self.explained(error))
    }

    /// The error, or what is wrong until somebody mends it, if that may be its cause.
    fn explained(&mut self, error: AppError) -> AppError {
        let (AppError::Busy(source) | AppError::Internal(source)) = &error else {
            return error;
        };
        let Some(DieselError::DatabaseError(kind, told)) = source.downcast_ref::<DieselError>() else {
            return error;
        };
        match diagnosis::sqlite_error(told.message()) {
            Some(Meaning::Damaged) => self.shared.diagnosis.is_damaged(told.message()),
            Some(Meaning::ReadOnly) => self.shared.diagnosis.is_read_only(told.message()),
            _ => {}
        }
        let may_last = matches!(kind, DatabaseErrorKind::Unknown | DatabaseErrorKind::ReadOnlyTransaction);
        if !may_last || is_mid_transaction(&mut self.conn) {
            return error;
        }
        match self.shared.diagnosis.of_error(&mut self.conn) {
            Ok(Some(defect)) => AppError::Internal(format!("{}: {error}", defect.cause).into()),
            _ => error,
        }
    }

    /// The connection itself, for whoever keeps it.
    pub(super) fn into_conn(self) -> Conn {
        self.conn
    }

    fn is_fresh(&self) -> bool {
        self.answered.elapsed() < FRESH && self.failures == self.shared.failures()
    }

    /// Whether the file that is open is still the one that the address names.
    fn check_file(&self) -> Result<(), AppError> {
        if let Proof::File(path, id) = &self.proof
            && FileId::of(path).as_ref() != Some(id)
        {
            self.shared.diagnosis.is_replaced();
        }
        match self.shared.diagnosis.lasting() {
            Some(defect) if defect.told == diagnosis::REPLACED => Err(AppError::Internal(defect.cause.into())),
            _ => Ok(()),
        }
    }
}

/// What the file system calls a file, whatever its name.
#[derive(Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        return Some(Self(
            std::os::unix::fs::MetadataExt::dev(&metadata),
            std::os::unix::fs::MetadataExt::ino(&metadata),
        ));
        #[cfg(not(unix))]
        return Some(Self(0, u64::from(metadata.is_file())));
    }
}

impl Manager {
    /// One that has made a connection.
    pub(super) fn connected(url: DatabaseUrl) -> Result<Self, ConnectError> {
        let manager = Self { url, shared: Shared::default(), pooler: Pooler::default(), first: Arc::default() };
        let first = manager.open()?;
        *manager.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        Ok(manager)
    }

    /// Counts a failure, as if one of the connections had had it.
    pub(super) fn recheck_connections(&self) {
        self.shared.recheck_connections();
    }

    /// Whether a pooler stands in front of PostgreSQL.
    pub(super) fn pooler(&self) -> &Pooler {
        &self.pooler
    }

    /// What is wrong until somebody mends it.
    pub(super) fn diagnosis(&self) -> &Arc<Diagnosis> {
        &self.shared.diagnosis
    }

    /// How often the change log is read. To look whether a file has changed costs next to nothing.
    pub(super) fn change_log_interval(&self) -> Duration {
        match self.url {
            DatabaseUrl::Postgres(_) => Duration::from_millis(50),
            DatabaseUrl::Sqlite(_) => Duration::from_millis(15),
        }
    }

    /// A new connection under a name that PostgreSQL shows, unless the address has one.
    pub(super) fn open_named(&self, name: &str) -> Result<Pooled, ConnectError> {
        let url = match &self.url {
            DatabaseUrl::Postgres(uri) => DatabaseUrl::Postgres(uri.with_application_name(name)),
            DatabaseUrl::Sqlite(path) => DatabaseUrl::Sqlite(path.clone()),
        };
        Self { url, ..self.clone() }.open()
    }

    /// A new connection, with our settings.
    pub(super) fn open(&self) -> Result<Pooled, ConnectError> {
        let failures = self.shared.failures();
        let (conn, proof) = match &self.url {
            DatabaseUrl::Sqlite(path) => {
                let conn = open_file(path)?;
                let id = FileId::of(path).ok_or_else(|| ConnectError::permanent("the file is gone"))?;
                (Conn::Sqlite(conn), Proof::File(path.clone(), id))
            }
            DatabaseUrl::Postgres(uri) => {
                let (conn, mark) = postgres::connect(uri, &self.pooler)?;
                (Conn::Postgres(conn), mark.map_or(Proof::None, Proof::Mark))
            }
        };
        Ok(Pooled { conn, proof, answered: Instant::now(), failures, shared: self.shared.clone() })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place for SQLite")]
fn open_file(path: &Path) -> Result<SqliteConnection, ConnectError> {
    let name = path.to_str().ok_or_else(|| ConnectError::permanent("the path is not UTF-8"))?;
    let mut conn = SqliteConnection::establish(name).map_err(|error| ConnectError::permanent(error.to_string()))?;
    for step in [SQLITE_PATIENCE, SQLITE_SETUP] {
        conn.batch_execute(step).map_err(|error| ConnectError::permanent(error.to_string()))?;
    }
    Ok(conn)
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = ConnectError;

    fn connect(&self) -> Result<Pooled, ConnectError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| self.open(), Ok)
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), ConnectError> {
        if pooled.is_fresh() {
            return Ok(());
        }
        let is_ours = match (&mut pooled.conn, &pooled.proof) {
            (Conn::Postgres(conn), Proof::Mark(mark)) => mark.is_on(conn),
            (Conn::Postgres(conn), _) => conn.batch_execute("SELECT 1").map(|()| true),
            (Conn::Sqlite(conn), _) => conn.batch_execute("SELECT 1").map(|()| true),
        };
        match is_ours {
            Ok(true) => {
                (pooled.answered, pooled.failures) = (Instant::now(), self.shared.failures());
                Ok(())
            }
            Ok(false) => {
                self.pooler.is_found("a session is another one than before");
                Err(ConnectError::temporary("a session is another one than before"))
            }
            Err(error) => {
                self.recheck_connections();
                Err(ConnectError::temporary(error.to_string()))
            }
        }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        std::thread::panicking() || is_mid_transaction(&mut pooled.conn)
    }
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
