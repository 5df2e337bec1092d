//! [`Db`]: a pool of connections to one database, and the ways to run work on it.

use std::fs::OpenOptions;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::config::{DatabaseSettings, DatabaseUrl};
use crate::db::engine::caller::{self, REQUEST_BUDGET};
use crate::db::engine::change_log::ChangeLogReader;
use crate::db::engine::connection::Conn;
use crate::db::engine::diagnosis::backup::reject_backup;
use crate::db::engine::diagnosis::{Defect, require_writable};
use crate::db::engine::erase::truncate_wal;
use crate::db::engine::execution::{Acquire, Erased, Executor, OnStored, Work, erased, permit, typed};
use crate::db::engine::manager::Manager;
use crate::db::engine::pool::CHECKOUT_TIMEOUT;
use crate::db::engine::postgres::Pooler;
use crate::db::engine::shares::CallerShares;
use crate::db::engine::transaction::{CommitGate, read_statements, read_transaction, timed_out, write_transaction};
use crate::error::AppError;
use crate::metrics::Durations;

/// How long a write on SQLite waits for other writes.
const WRITE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a request whose time is over waits for the outcome of a commit that has already begun.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two attempts to reach a server that is not up yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// The least number of queries or changes that one caller can have in progress at once.
const MIN_SHARE: usize = 2;

/// A pool of connections to one database. Clones share it.
#[derive(Clone)]
pub struct Db {
    executor: Executor,
    shares: Arc<CallerShares>,
    /// Set on SQLite, which has one writer at a time. This queue is fair; SQLite itself only sleeps and tries again.
    single_writer: Option<Arc<Semaphore>>,
}

impl Db {
    /// Opens a pool and a first connection, so that a wrong URL fails here, with its cause. Creates a missing SQLite
    /// file.
    pub fn open(settings: &DatabaseSettings) -> Result<Self, AppError> {
        if let DatabaseUrl::Sqlite(path) = &settings.url {
            reject_backup(path)?;
            create_private(path)
                .map_err(|error| AppError::Internal(format!("cannot create the SQLite file: {error}").into()))?;
        }
        let manager = Manager::connected(settings.url.clone())?;
        let single_writer = matches!(settings.url, DatabaseUrl::Sqlite(_)).then(|| Arc::new(Semaphore::new(1)));
        let wait = connect_wait(&settings.url);
        let executor = Executor::new(manager, settings.pool_size, wait, single_writer.is_none());
        let size = usize::try_from(settings.pool_size).unwrap_or(usize::MAX);
        Ok(Self { executor, shares: CallerShares::new(MIN_SHARE.max(size / 4)), single_writer })
    }

    /// Opens a pool as [`Db::open`] does, and repeats the attempt for up to `limit` while the server is not up yet.
    pub async fn open_within(settings: &DatabaseSettings, limit: Duration) -> Result<Self, AppError> {
        let started = Instant::now();
        let mut has_logged = false;
        loop {
            let settings = settings.clone();
            let opened = tokio::task::spawn_blocking(move || Self::open(&settings)).await;
            match opened.unwrap_or_else(|error| Err(AppError::Internal(error.into()))) {
                Ok(db) => {
                    if has_logged {
                        log::info!("the database is available after {:.1} s", started.elapsed().as_secs_f32());
                    }
                    return Ok(db);
                }
                Err(AppError::Busy(cause)) if started.elapsed() + RETRY_INTERVAL < limit => {
                    if !std::mem::replace(&mut has_logged, true) {
                        log::warn!("waiting up to {} s for the database: {cause}", limit.as_secs());
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs `query` on a connection, without a transaction.
    ///
    /// Errors: [`AppError::Busy`] after the time-out, as for all methods that run work for a request.
    pub async fn read<T, F>(&self, query: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let (pooler, query) = (self.pooler(), erased(query));
        typed(self.read_in_share(Box::new(move |conn| read_statements(conn, &pooler, query))).await)
    }

    /// Runs `query` in a read-only transaction, on one snapshot of the database.
    pub async fn read_consistent<T, F>(&self, query: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let (pooler, query) = (self.pooler(), erased(query));
        typed(self.read_in_share(Box::new(move |conn| read_transaction(conn, &pooler, query))).await)
    }

    /// Runs `read` on a connection, in the share of the caller and within the time of the current request.
    async fn read_in_share(&self, read: Work) -> Result<Erased, AppError> {
        self.in_time(async {
            let share = self.shares.acquire().await;
            let permits = self.executor.connection_permits().await?;
            self.executor.with_lease((permits, share), read).await
        })
        .await
    }

    /// Runs `change` in one transaction. If this returns `Ok`, all of it is stored; if it returns an error, nothing is
    /// stored, unless the error is [`AppError::OutcomeUnknown`].
    pub async fn write<T, F>(&self, change: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.write_then(std::future::ready(()), change, |_| ()).await
    }

    /// Acquires `user_lock`, then runs `change` as [`Db::write`] does. Calls `on_stored` after the transaction, even if
    /// this future has been dropped: with the value if the changes are stored, and with `None` if they may be stored.
    /// `user_lock` is held until the work ends, or counts as lost because the database does not respond.
    pub async fn write_then<H, T, F, A>(
        &self,
        user_lock: impl Future<Output = H> + Send,
        change: F,
        on_stored: A,
    ) -> Result<T, AppError>
    where
        H: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
        A: FnOnce(Option<&T>) + Send + 'static,
    {
        let user_lock = Box::pin(async {
            let user_lock: Erased = Box::new(user_lock.await);
            user_lock
        });
        let on_stored = Box::new(|value: Option<&Erased>| on_stored(value.and_then(|value| value.downcast_ref())));
        typed(self.write_erased(user_lock, erased(change), on_stored).await)
    }

    async fn write_erased(
        &self,
        user_lock: Acquire<'_>,
        change: Work,
        on_stored: OnStored,
    ) -> Result<Erased, AppError> {
        let limit = self.work_timeout();
        let gate = Arc::new(CommitGate::new(Some(Instant::now() + limit)));
        let (commit_gate, pooler) = (Arc::clone(&gate), self.pooler());
        let transaction: Work = Box::new(move |conn| {
            let result = write_transaction(conn, &pooler, &commit_gate, change);
            match &result {
                Ok(value) => on_stored(Some(value)),
                Err(AppError::OutcomeUnknown(_)) => on_stored(None),
                Err(_) => {}
            }
            result
        });
        let mut work = pin!(async {
            // Acquired before the share, so that changes that wait for the same user do not use up the share.
            let user_lock = user_lock.await;
            let share = self.shares.acquire().await;
            let writer = match &self.single_writer {
                Some(writer) => Some(permit(writer, WRITE_TIMEOUT, "timed out while waiting for another write").await?),
                None => None,
            };
            let permits = self.executor.connection_permits().await?;
            self.executor.with_lease((permits, writer, share, user_lock), transaction).await
        });
        if let Some(result) = caller::within(limit, work.as_mut()).await {
            return result;
        }
        if gate.close() {
            return Err(timed_out());
        }
        let outcome = tokio::time::timeout(COMMIT_TIMEOUT, work).await;
        outcome.unwrap_or_else(|_| Err(AppError::OutcomeUnknown("the database did not confirm the commit".into())))
    }

    /// Awaits `work` for the remaining time of the current request.
    ///
    /// Errors: [`AppError::Busy`] if that time is over.
    pub async fn in_time<T>(&self, work: impl Future<Output = Result<T, AppError>>) -> Result<T, AppError> {
        caller::within(self.work_timeout(), work).await.unwrap_or_else(|| Err(timed_out()))
    }

    /// Opens a reader of the change log, on a connection outside the pool.
    pub fn change_log_reader(&self) -> Result<ChangeLogReader, AppError> {
        ChangeLogReader::open(self.executor.pool().manager())
    }

    /// Whether the URL names several hosts.
    pub fn has_several_hosts(&self) -> bool {
        self.executor.pool().manager().has_several_hosts()
    }

    /// The interval between two reads of the change log.
    pub fn change_log_interval(&self) -> Duration {
        self.executor.pool().manager().change_log_interval()
    }

    /// The maximum number of connections in the pool.
    pub fn pool_size(&self) -> usize {
        usize::try_from(self.executor.pool().size()).unwrap_or(usize::MAX)
    }

    /// The waiting times for connections.
    pub fn waits(&self) -> &Durations {
        self.executor.waits()
    }

    /// The numbers of open connections and of idle connections.
    pub fn connections(&self) -> [u32; 2] {
        let state = self.executor.pool().current().state();
        [state.connections, state.idle_connections]
    }

    /// Makes the pool check every connection before it is used again.
    pub fn recheck_connections(&self) {
        self.executor.pool().manager().recheck_connections();
    }

    /// Runs `work` on a connection of the pool, outside the shares of callers. The waits for a permit and for a connection
    /// have time-outs, but `work` has none: the caller must limit its time.
    pub async fn with_connection<T, F>(&self, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let (pooler, work) = (self.pooler(), erased(work));
        let work: Work = Box::new(move |conn| read_statements(conn, &pooler, work));
        typed(self.executor.with_lease(self.executor.connection_permits().await?, work).await)
    }

    /// The defect of the database that an operator must repair, if there is one.
    pub async fn defect(&self) -> Result<Option<Defect>, AppError> {
        let diagnosis = Arc::clone(self.executor.pool().manager().diagnosis());
        if let Some(permanent) = diagnosis.permanent() {
            return Ok(Some(permanent));
        }
        let of_connection = Arc::clone(&diagnosis);
        let found = self.read(move |conn| diagnosis.find_defect(conn)).await;
        match found {
            Err(AppError::Internal(error)) => of_connection.rejection().map(Some).ok_or(AppError::Internal(error)),
            found => found,
        }
    }

    /// Checks that the database can serve: privileges, tables and columns are complete, and it accepts changes.
    ///
    /// Errors: the cause, and the remedy.
    pub async fn check_for_serving(&self) -> Result<(), AppError> {
        if let Some(defect) = self.defect().await? {
            return Err(AppError::Internal(defect.cause.into()));
        }
        self.write(require_writable).await
    }

    /// Closes the connections that are not in use, and opens no more; the others are closed when their work ends. On
    /// SQLite, this first moves the changes in the write-ahead log to the database file, so that the file is complete on
    /// its own. SQLite deletes its side files when no program uses the database any more.
    ///
    /// Errors: the write-ahead log cannot be read or written.
    pub async fn close(&self) -> Result<(), AppError> {
        let emptied = match self.single_writer {
            Some(_) => self.read(truncate_wal).await.map(drop),
            None => Ok(()),
        };
        self.executor.pool().close();
        emptied
    }

    /// Runs `work` without permits. The wait for a connection has a time-out, but `work` has none.
    pub(crate) async fn without_timeout<T, F>(&self, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.executor.without_timeout(work).await
    }

    pub(crate) fn pooler(&self) -> Pooler {
        self.executor.pool().manager().pooler().clone()
    }

    /// The time-out for work: the remaining time of the current request. Outside a request it is the time of a whole
    /// request, plus the additional connect time that the URL allows.
    fn work_timeout(&self) -> Duration {
        caller::time_remaining()
            .unwrap_or_else(|| REQUEST_BUDGET.max(REQUEST_BUDGET + self.executor.connect_wait() - CHECKOUT_TIMEOUT))
    }
}

/// How long work outside of requests waits for a connection: `connect_timeout` of the URL, if it is set.
fn connect_wait(url: &DatabaseUrl) -> Duration {
    let DatabaseUrl::Postgres(uri) = url else { return CHECKOUT_TIMEOUT };
    let configured = uri.parameter("connect_timeout").and_then(|seconds| seconds.parse::<u64>().ok());
    // 0 means no limit to libpq.
    let seconds =
        configured.map(|seconds| if seconds == 0 { MAX_CONNECT_SECONDS } else { seconds.min(MAX_CONNECT_SECONDS) });
    seconds.map_or(CHECKOUT_TIMEOUT, |seconds| CHECKOUT_TIMEOUT.max(Duration::from_secs(seconds)))
}

/// The upper bound for `connect_timeout` of the URL, in seconds.
const MAX_CONNECT_SECONDS: u64 = 600;

/// Creates a missing SQLite file with permissions for its owner only, because it contains password hashes. SQLite gives
/// its side files the same permissions. An existing file is not opened: on close, the operating system would release
/// the locks that SQLite holds on it in this process, and another process could then delete the write-ahead log.
pub(crate) fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}
