//! Opens connections, and checks that pooled connections still work and lead to the same database.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::config::{DatabaseUrl, PostgresUri};
use crate::db::engine::connection::Conn;
use crate::db::engine::diagnosis::disk::{DiskFault, probe_directory};
use crate::db::engine::diagnosis::{self, Diagnosis, SqliteError};
use crate::db::engine::hosts::{CurrentServer, PreferredHost};
use crate::db::engine::postgres::{self, ConnectError, Mark, Pooler};
use crate::db::engine::transaction::is_mid_transaction;
use crate::error::AppError;

/// Opens connections to the database that the URL names.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    url: DatabaseUrl,
    shared: Shared,
    pooler: Pooler,
    /// The value of [`Shared::pools`] when the pool of this manager was created.
    pool: u64,
    /// The connection that [`Manager::connected`] opened, until the pool takes it.
    first: Arc<Mutex<Option<PooledConnection>>>,
}

/// The state that all connections of a manager share.
#[derive(Clone, Debug, Default)]
struct Shared {
    /// The number of failures of all connections.
    failures: Arc<AtomicU64>,
    diagnosis: Arc<Diagnosis>,
    preferred_host: Arc<PreferredHost>,
    server: Arc<CurrentServer>,
    /// The number of pools that were replaced.
    pools: Arc<AtomicU64>,
    is_closed: Arc<AtomicBool>,
}

impl Shared {
    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Makes the pool check every connection before it is used again.
    fn recheck_connections(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long SQLite waits for the lock of another process. This is shorter than the time-out of a request.
pub(crate) const SQLITE_BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 1500;";

/// Executed after the busy timeout is set, because the change to WAL may have to wait for a lock. `FULL`: an
/// acknowledged commit survives a power cut. Foreign keys are off by default. Secure deletion overwrites deleted data
/// with zeros.
const SQLITE_SETUP: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
     PRAGMA secure_delete = ON;";

/// A connection that was used successfully within this time is not checked before it is used again.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// How to verify that a connection still leads to the same session or file.
#[derive(Debug)]
enum Verification {
    /// By the mark of a PostgreSQL session that only this connection uses.
    Mark(Mark),
    /// Not possible: behind a pooler, each transaction can have another session.
    None,
    /// By path and identity of the SQLite file that is open.
    File(PathBuf, FileId),
}

/// A connection of the pool. It is used without a check if it was last used successfully a short time ago
/// ([`RECHECK_AFTER`]) and no connection has failed since.
pub(crate) struct PooledConnection {
    conn: Conn,
    verification: Verification,
    last_success: Instant,
    /// The value of [`Shared::failures`] at that time.
    failures: u64,
    /// The generation of [`Shared::server`] when the connection was opened.
    server: u64,
    shared: Shared,
}

impl std::fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledConnection").field("verification", &self.verification).finish_non_exhaustive()
    }
}

impl PooledConnection {
    /// Runs `work`. If it fails because of the database, all connections are checked before they are used again,
    /// because a restart of the server closes all of them.
    pub(crate) fn run<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T, AppError>) -> Result<T, AppError> {
        // Read before the work, so that a failure of another connection meanwhile causes a check of this one, too.
        let failures = self.shared.failures();
        self.check_file()?;
        let result = work(&mut self.conn);
        match &result {
            Err(AppError::Busy(_) | AppError::OutcomeUnknown(_) | AppError::Internal(_)) => {
                self.shared.recheck_connections();
            }
            Err(AppError::NotReady(reason)) if *reason == diagnosis::DISK_FULL => self.shared.diagnosis.set_disk_full(),
            _ => (self.last_success, self.failures) = (Instant::now(), failures),
        }
        result.map_err(|error| self.with_cause(error))
    }

    /// Adds the cause to an error if the database has a defect that an operator must repair.
    fn with_cause(&mut self, error: AppError) -> AppError {
        let (AppError::Busy(source) | AppError::Internal(source) | AppError::OutcomeUnknown(source)) = &error else {
            return error;
        };
        let Some(DieselError::DatabaseError(kind, info)) = source.downcast_ref::<DieselError>() else {
            return error;
        };
        match diagnosis::classify_sqlite_error(info.message()) {
            Some(SqliteError::Damaged) => self.shared.diagnosis.set_damaged(info.message()),
            Some(SqliteError::ReadOnly) => self.shared.diagnosis.set_read_only(info.message()),
            Some(SqliteError::Io) => return self.with_disk_fault(error),
            _ => {}
        }
        if let AppError::OutcomeUnknown(_) = error {
            return error;
        }
        let may_be_permanent = matches!(kind, DatabaseErrorKind::Unknown | DatabaseErrorKind::ReadOnlyTransaction);
        if !may_be_permanent || is_mid_transaction(&mut self.conn) {
            return error;
        }
        match self.shared.diagnosis.after_error(&mut self.conn) {
            Ok(Some(defect)) => AppError::Internal(format!("{}: {error}", defect.cause).into()),
            _ => error,
        }
    }

    /// Replaces an I/O error by the fault of the disk that causes it, if it is known. The outcome of a commit stays
    /// unknown.
    fn with_disk_fault(&self, error: AppError) -> AppError {
        match (self.shared.diagnosis.after_io_error(), &error) {
            (Some(DiskFault::Full), AppError::Busy(_)) => AppError::NotReady(diagnosis::DISK_FULL),
            (Some(fault), AppError::Busy(_)) => AppError::Internal(format!("{}: {error}", fault.cause()).into()),
            _ => error,
        }
    }

    /// The inner connection, for a use outside the pool that ends soon.
    pub(crate) fn into_conn(self) -> Conn {
        self.conn
    }

    /// The inner connection, for use outside the pool.
    ///
    /// Errors: the open SQLite file is no longer the file at its path.
    pub(crate) fn verified(&mut self) -> Result<&mut Conn, AppError> {
        self.check_file()?;
        Ok(&mut self.conn)
    }

    fn is_fresh(&self) -> bool {
        self.last_success.elapsed() < RECHECK_AFTER && self.failures == self.shared.failures()
    }

    /// Fails if the open SQLite file is no longer the file at its path.
    fn check_file(&self) -> Result<(), AppError> {
        if let Verification::File(path, id) = &self.verification
            && FileId::of(path).as_ref() != Some(id)
        {
            self.shared.diagnosis.set_replaced();
        }
        match self.shared.diagnosis.permanent() {
            Some(defect) if defect.not_ready == diagnosis::REPLACED => Err(AppError::Internal(defect.cause.into())),
            _ => Ok(()),
        }
    }
}

/// The device and inode of a file, which identify it independently of its path.
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
    /// A manager that has opened a first connection. Fails if that is not possible.
    pub(crate) fn connected(url: DatabaseUrl) -> Result<Self, ConnectError> {
        let file = match &url {
            DatabaseUrl::Sqlite(path) => Some(path.clone()),
            DatabaseUrl::Postgres(_) => None,
        };
        let shared = Shared { diagnosis: Arc::new(Diagnosis::new(file)), ..Shared::default() };
        let manager = Self { url, shared, pooler: Pooler::default(), pool: 0, first: Arc::default() };
        let first = manager.open()?;
        *manager.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        Ok(manager)
    }

    /// A manager for a new pool. Those of all other pools open no more connections: attempts of replaced pools to reach
    /// a server that hangs would otherwise all succeed at the same time, and use up the connections of the server.
    pub(crate) fn for_new_pool(&self) -> Self {
        let pool = self.shared.pools.fetch_add(1, Ordering::Relaxed) + 1;
        Self { pool, ..self.clone() }
    }

    /// Whether the URL names several hosts.
    pub(crate) fn has_several_hosts(&self) -> bool {
        matches!(&self.url, DatabaseUrl::Postgres(uri) if uri.split_hosts().len() > 1)
    }

    /// Whether the pool of this manager has not been replaced.
    pub(crate) fn is_current(&self) -> bool {
        self.pool == self.shared.pools.load(Ordering::Relaxed)
    }

    /// Makes the pool check every connection before it is used again.
    pub(crate) fn recheck_connections(&self) {
        self.shared.recheck_connections();
    }

    /// From now on no connection is opened any more.
    pub(crate) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
    }

    /// The state that records whether a pooler is in front of PostgreSQL.
    pub(crate) fn pooler(&self) -> &Pooler {
        &self.pooler
    }

    /// The defects of the database that have been found.
    pub(crate) fn diagnosis(&self) -> &Arc<Diagnosis> {
        &self.shared.diagnosis
    }

    /// The server from which the change log is read.
    pub(crate) fn server(&self) -> &Arc<CurrentServer> {
        &self.shared.server
    }

    /// The interval between two reads of the change log. It is shorter on SQLite, where a check of the file costs
    /// little.
    pub(crate) fn change_log_interval(&self) -> Duration {
        match self.url {
            DatabaseUrl::Postgres(_) => Duration::from_millis(50),
            DatabaseUrl::Sqlite(_) => Duration::from_millis(15),
        }
    }

    /// Opens a connection with this `application_name`, unless the URL sets one. SQLite ignores it.
    pub(crate) fn open_named(&self, name: &str) -> Result<PooledConnection, ConnectError> {
        let url = match &self.url {
            DatabaseUrl::Postgres(uri) => DatabaseUrl::Postgres(uri.with_default("application_name", name)),
            DatabaseUrl::Sqlite(path) => DatabaseUrl::Sqlite(path.clone()),
        };
        Self { url, ..self.clone() }.open()
    }

    /// Opens a connection and applies the session settings.
    pub(crate) fn open(&self) -> Result<PooledConnection, ConnectError> {
        if self.shared.is_closed.load(Ordering::Relaxed) {
            return Err(ConnectError::temporary("the process is about to end"));
        }
        let (failures, server) = (self.shared.failures(), self.shared.server.generation());
        let (conn, verification) = match &self.url {
            DatabaseUrl::Sqlite(path) => {
                let conn = open_file(path)?;
                let id = FileId::of(path).ok_or_else(|| ConnectError::permanent("the file was removed"))?;
                (Conn::Sqlite(conn), Verification::File(path.clone(), id))
            }
            DatabaseUrl::Postgres(uri) => {
                let connect = |host: &PostgresUri| postgres::connect(host, &self.pooler);
                let (conn, mark) = self.shared.preferred_host.connect(uri, connect)?;
                (Conn::Postgres(conn), mark.map_or(Verification::None, Verification::Mark))
            }
        };
        self.shared.diagnosis.set_rejection(None);
        let (last_success, shared) = (Instant::now(), self.shared.clone());
        Ok(PooledConnection { conn, verification, last_success, failures, server, shared })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the only place that opens SQLite")]
fn open_file(path: &Path) -> Result<SqliteConnection, ConnectError> {
    let name = path.to_str().ok_or_else(|| ConnectError::permanent("the path is not UTF-8"))?;
    let failed = |error: String| match probe_directory(path).fault() {
        Some(fault) => ConnectError::permanent(format!("{error}: {}", fault.cause())),
        None => ConnectError::permanent(error),
    };
    let mut conn = SqliteConnection::establish(name).map_err(|error| failed(error.to_string()))?;
    for step in [SQLITE_BUSY_TIMEOUT, SQLITE_SETUP] {
        conn.batch_execute(step).map_err(|error| failed(error.to_string()))?;
    }
    Ok(conn)
}

/// Opens a file that no program changes, such as a backup, without locks and without files beside it.
#[expect(clippy::disallowed_methods, reason = "a backup is not a database that the manager serves")]
pub(crate) fn open_read_only(path: &Path) -> Result<SqliteConnection, ConnectError> {
    let name = path.to_str().ok_or_else(|| ConnectError::permanent("the path is not UTF-8"))?;
    let name = utf8_percent_encode(name, IN_FILE_URI);
    SqliteConnection::establish(&format!("file:{name}?mode=ro&immutable=1"))
        .map_err(|error| ConnectError::permanent(error.to_string()))
}

/// Opens an empty SQLite database, which exists as long as the connection.
#[expect(clippy::disallowed_methods, reason = "this is no database that the manager serves")]
pub(crate) fn open_in_memory() -> Result<SqliteConnection, ConnectError> {
    SqliteConnection::establish(":memory:").map_err(|error| ConnectError::permanent(error.to_string()))
}

/// The characters that have a meaning in a `file:` URI of SQLite.
const IN_FILE_URI: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

impl r2d2::ManageConnection for Manager {
    type Connection = PooledConnection;
    type Error = ConnectError;

    fn connect(&self) -> Result<PooledConnection, ConnectError> {
        if !self.is_current() {
            return Err(ConnectError::temporary("the pool has been replaced"));
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| self.open(), Ok)
    }

    fn is_valid(&self, pooled: &mut PooledConnection) -> Result<(), ConnectError> {
        if pooled.server != self.shared.server.generation() {
            return Err(ConnectError::temporary("another server has become the primary"));
        }
        if pooled.is_fresh() {
            return Ok(());
        }
        let is_same_session = match (&mut pooled.conn, &pooled.verification) {
            (Conn::Postgres(conn), Verification::Mark(mark)) => mark.matches(conn),
            (Conn::Postgres(conn), _) => conn.batch_execute("SELECT 1").map(|()| true),
            (Conn::Sqlite(conn), _) => conn.batch_execute("SELECT 1").map(|()| true),
        };
        match is_same_session {
            Ok(true) => {
                (pooled.last_success, pooled.failures) = (Instant::now(), self.shared.failures());
                Ok(())
            }
            Ok(false) => {
                self.pooler.set_present("the session of a connection has changed");
                Err(ConnectError::temporary("the session of a connection has changed"))
            }
            Err(error) => {
                self.recheck_connections();
                Err(ConnectError::temporary(error.to_string()))
            }
        }
    }

    fn has_broken(&self, pooled: &mut PooledConnection) -> bool {
        std::thread::panicking() || is_mid_transaction(&mut pooled.conn)
    }
}
