//! The database: the only layer that names diesel and r2d2.
//!
//! [`Db`] runs closures on connections, off the async threads. A closure gets a connection and answers; nothing else
//! may hold one, least of all while a password is hashed.

pub mod access_tokens;
pub mod account_cleanups;
pub mod api_keys;
pub mod audit_entries;
mod cached;
pub mod change_log;
mod conn;
mod diagnosis;
mod erase;
pub mod issue_requests;
pub mod known_networks;
mod lease;
pub mod migrate;
pub mod pages;
mod pool;
mod postgres;
mod request;
mod schema;
mod shares;
pub mod sign_in_failures;
mod transaction;
pub mod user_search;
pub mod users;

use std::fs::OpenOptions;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::change_log::ChangeLogReader;
use self::conn::Manager;
pub use self::conn::{Conn, purging_is_ours};
use self::diagnosis::Meaning;
pub use self::diagnosis::{Defect, GRANTS};
pub use self::erase::empty_log;
pub use self::lease::LOST_AFTER;
use self::lease::Leases;
use self::pool::{CHECKOUT_WAIT, Pool};
use self::postgres::{ConnectError, Pooler};
use self::request::REQUEST_BUDGET;
pub use self::request::{Caller, caller, for_one_request, set_caller};
pub use self::shares::Shares;
use self::transaction::{CommitGate, on_its_own, read_transaction, too_late, write_transaction};
use crate::config::{DatabaseSettings, DatabaseUrl};
use crate::error::{AppError, NotReady};
use crate::metrics::Durations;

/// How long a connection may take to be had or to say that it lives, a little longer than the pool tries: after that the
/// pool is stuck.
const STUCK_AFTER: Duration = Duration::from_millis(1_050);
/// How long a write waits for its turn on SQLite.
const WRITE_WAIT: Duration = Duration::from_millis(1_500);
/// How long the outcome of a commit is waited for that had begun when the time of its request was over.
const COMMIT_WAIT: Duration = Duration::from_secs(2);
/// Between two tries to reach a server that is not there yet.
const START_PAUSE: Duration = Duration::from_millis(250);
/// Work of one caller that is under way at once, at least.
const SMALLEST_SHARE: usize = 2;
/// From so many connections on, one is kept for what the process does for itself: health, cleanup.
const RESERVE_FROM: usize = 4;

/// A pool of connections to one database. Clones share it.
#[derive(Clone)]
pub struct Db {
    pool: Arc<Pool>,
    leases: Arc<Leases>,
    connections: Arc<Semaphore>,
    /// Those that requests may have.
    for_requests: Arc<Semaphore>,
    shares: Arc<Shares>,
    /// SQLite has one writer at a time. To queue here is fair; to queue in SQLite is to sleep and hope.
    single_writer: Option<Arc<Semaphore>>,
    waits: Durations,
    /// How long whoever is no request waits for a connection.
    connect_wait: Duration,
}

impl Db {
    /// A pool for `settings`, after one connection has been made: a wrong address fails here, with its cause.
    pub fn open(settings: &DatabaseSettings) -> Result<Self, AppError> {
        if let DatabaseUrl::Sqlite(path) = &settings.url {
            create_private(path)
                .map_err(|error| AppError::Internal(format!("cannot create the file: {error}").into()))?;
        }
        let manager = Manager::connected(settings.url.clone())?;
        let permits = usize::try_from(settings.pool_size).unwrap_or(Semaphore::MAX_PERMITS);
        let reserved = usize::from(permits >= RESERVE_FROM);
        let single_writer = matches!(settings.url, DatabaseUrl::Sqlite(_)).then(|| Arc::new(Semaphore::new(1)));
        Ok(Self {
            pool: Arc::new(Pool::new(manager, settings.pool_size)),
            leases: Arc::default(),
            connections: Arc::new(Semaphore::new(permits)),
            for_requests: Arc::new(Semaphore::new(permits - reserved)),
            shares: Shares::new(SMALLEST_SHARE.max(permits / 4)),
            single_writer,
            waits: Durations::default(),
            connect_wait: connect_wait(&settings.url),
        })
    }

    /// The same, after a server that is not there yet has been waited for.
    pub async fn open_within(settings: &DatabaseSettings, limit: Duration) -> Result<Self, AppError> {
        let began = Instant::now();
        let mut has_told = false;
        loop {
            let settings = settings.clone();
            let opened = tokio::task::spawn_blocking(move || Self::open(&settings)).await;
            match opened.unwrap_or_else(|error| Err(AppError::Internal(error.into()))) {
                Ok(db) => {
                    if has_told {
                        log::info!("the database is there after {:.1} s", began.elapsed().as_secs_f32());
                    }
                    return Ok(db);
                }
                Err(AppError::Busy(cause)) if began.elapsed() + START_PAUSE < limit => {
                    if !std::mem::replace(&mut has_told, true) {
                        log::warn!("waits up to {} s for the database: {cause}", limit.as_secs());
                    }
                    tokio::time::sleep(START_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs `query` on a connection, outside any transaction.
    pub async fn read<T, F>(&self, query: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.in_time(async {
            let share = self.shares.take().await;
            let permits = self.connection_permits().await?;
            let pooler = self.pooler();
            self.on_lease((permits, share), move |conn| on_its_own(conn, &pooler, query)).await
        })
        .await
    }

    /// Runs `query` on one snapshot of the database.
    pub async fn read_consistent<T, F>(&self, query: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.in_time(async {
            let share = self.shares.take().await;
            let permits = self.connection_permits().await?;
            let pooler = self.pooler();
            self.on_lease((permits, share), move |conn| read_transaction(conn, &pooler, query)).await
        })
        .await
    }

    /// Runs `change` in one transaction: all of it is stored when this answers `Ok`, and none of it otherwise, unless the
    /// error is [`AppError::OutcomeUnknown`].
    pub async fn write<T, F>(&self, change: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.write_then(std::future::ready(()), change, || ()).await
    }

    /// The same after a `turn` has come, which is kept to the end; and then `then`, unless it is certain that nothing is
    /// stored, even if nobody waits for the answer any more. A turn is given back early only if the database never answers.
    pub async fn write_then<H, T, F, A>(&self, turn: impl Future<Output = H>, change: F, then: A) -> Result<T, AppError>
    where
        H: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
        A: FnOnce() + Send + 'static,
    {
        let limit = self.time_left();
        let gate = Arc::new(CommitGate::new(Some(Instant::now() + limit)));
        let (entered, pooler) = (Arc::clone(&gate), self.pooler());
        let transaction = move |conn: &mut Conn| {
            let answer = write_transaction(conn, &pooler, &entered, change);
            if matches!(answer, Ok(_) | Err(AppError::OutcomeUnknown(_))) {
                then();
            }
            answer
        };
        let mut work = pin!(async {
            // Changes of one user wait for each other in any case, and need not fill their share meanwhile.
            let turn = turn.await;
            let share = self.shares.take().await;
            let writer = match &self.single_writer {
                Some(writer) => Some(permit(writer, WRITE_WAIT, "another write takes too long").await?),
                None => None,
            };
            let permits = self.connection_permits().await?;
            self.on_lease((permits, writer, share, turn), transaction).await
        });
        if let Some(answer) = request::within(limit, work.as_mut()).await {
            return answer;
        }
        if gate.close() {
            return Err(too_late());
        }
        let outcome = tokio::time::timeout(COMMIT_WAIT, work).await;
        outcome.unwrap_or_else(|_| Err(AppError::OutcomeUnknown("the database does not answer a commit".into())))
    }

    /// The answer, unless the database takes too long over it.
    ///
    /// Errors: [`AppError::Busy`] when the time of the request is over.
    pub async fn in_time<T>(&self, answer: impl Future<Output = Result<T, AppError>>) -> Result<T, AppError> {
        request::within(self.time_left(), answer).await.unwrap_or_else(|| Err(too_late()))
    }

    /// A reader of the change log, on a connection of its own.
    pub fn change_log_reader(&self) -> Result<ChangeLogReader, AppError> {
        ChangeLogReader::open(self.pool.manager())
    }

    /// How long to wait between two reads of the change log.
    pub fn change_log_interval(&self) -> Duration {
        self.pool.manager().change_log_interval()
    }

    /// Connections at most.
    pub fn pool_size(&self) -> usize {
        usize::try_from(self.pool.size()).unwrap_or(usize::MAX)
    }

    /// How long connections were waited for.
    pub fn waits(&self) -> &Durations {
        &self.waits
    }

    /// Connections that are open, and those of them that do nothing.
    pub fn connections(&self) -> [u32; 2] {
        let state = self.pool.current().state();
        [state.connections, state.idle_connections]
    }

    /// Has every connection asked whether it lives before it is used again.
    pub fn recheck_connections(&self) {
        self.pool.manager().recheck_connections();
    }

    /// Runs `work` on a connection, however long it takes: whoever waits for it has a time-out of their own.
    pub async fn with_connection<T, F>(&self, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let pooler = self.pooler();
        self.on_lease(self.connection_permits().await?, move |conn| on_its_own(conn, &pooler, work)).await
    }

    /// What is wrong with the database until somebody mends it, if anything is.
    pub async fn defect(&self) -> Result<Option<Defect>, AppError> {
        let diagnosis = Arc::clone(self.pool.manager().diagnosis());
        if let Some(lasting) = diagnosis.lasting() {
            return Ok(Some(lasting));
        }
        self.read(move |conn| diagnosis.ask(conn)).await
    }

    /// Whether all that serving takes can be done: rights, tables and columns are there, and changes are taken.
    ///
    /// Errors: the cause, and what to do.
    pub async fn check_for_serving(&self) -> Result<(), AppError> {
        if let Some(defect) = self.defect().await? {
            return Err(AppError::Internal(defect.cause.into()));
        }
        self.write(|_| Ok(())).await
    }

    fn pooler(&self) -> Pooler {
        self.pool.manager().pooler().clone()
    }

    /// How long an answer is waited for: as long as the current request has left, or if there is none, as long as one has.
    fn time_left(&self) -> Duration {
        request::time_left().unwrap_or_else(|| REQUEST_BUDGET.max(REQUEST_BUDGET + self.connect_wait - CHECKOUT_WAIT))
    }

    /// A permit to use a connection; a request needs another one, so that it never gets the last connection.
    async fn connection_permits(&self) -> Result<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>), AppError> {
        const COMPLAINT: &str = "no free database connection";
        let asked = Instant::now();
        let for_request = match caller() {
            Some(_) => permit(&self.for_requests, CHECKOUT_WAIT, COMPLAINT).await.map(Some),
            None => Ok(None),
        };
        let permits = match for_request {
            Ok(for_request) => {
                let rest = CHECKOUT_WAIT.saturating_sub(asked.elapsed());
                permit(&self.connections, rest, COMPLAINT).await.map(|permit| (permit, for_request))
            }
            Err(error) => Err(error),
        };
        self.waits.note(asked.elapsed());
        permits
    }

    /// Runs `work` however long it takes.
    async fn without_timeout<T, F>(&self, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.on_blocking_pool((), work).await?
    }

    /// Whether work may never end. SQLite always ends its work, and holds what it takes until then; PostgreSQL may be out
    /// of reach.
    fn may_lose_connections(&self) -> bool {
        self.single_writer.is_none()
    }

    /// Runs `work`, which holds `what` until it ends or is lost. Whoever stops waiting for it leaves somebody to look.
    async fn on_lease<H, T, F>(&self, what: H, work: F) -> Result<T, AppError>
    where
        H: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let of = self.may_lose_connections().then(|| self.clone());
        let mut abandoned = Abandoned { work_of: of, since: Instant::now() };
        let lease = Leases::begin(&self.leases, what);
        let number = lease.number();
        let answer = self.on_blocking_pool(lease, work).await;
        abandoned.work_of = None;
        answer.unwrap_or_else(|stuck| {
            // The thread may hang for long, but will not begin the work any more.
            if self.may_lose_connections() {
                self.leases.end(number);
            }
            Err(stuck.into())
        })
    }

    /// Takes what it holds from work that no database will ever answer, and makes a pool without its connections.
    fn give_up_what_is_lost(&self) {
        let lost = Instant::now().checked_sub(LOST_AFTER).map_or(0, |then| self.leases.end_begun_before(then));
        if lost > 0 {
            log::warn!("{lost} database connections do not answer and are given up");
            self.pool.replace(&self.pool.current());
        }
    }

    /// What is `held` goes with the work, which runs to its end once it has begun, even if its caller is gone. Errors: no
    /// connection could be had, and the work will not begin.
    async fn on_blocking_pool<H, T, F>(&self, held: H, work: F) -> Result<Result<T, AppError>, Stuck>
    where
        H: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let connections = self.pool.current();
        let (lends, mut lent) = oneshot::channel();
        let from = Arc::clone(&connections);
        // The address may say that a connection takes longer; a request has no time for that.
        let (wait, stuck_after) = match request::time_left() {
            Some(_) => (CHECKOUT_WAIT, STUCK_AFTER),
            None => (self.connect_wait, self.connect_wait + STUCK_AFTER - CHECKOUT_WAIT),
        };
        let task = tokio::task::spawn_blocking(move || {
            let _held = held;
            match from.get_timeout(wait) {
                Ok(mut pooled) => match lends.send(()) {
                    Ok(()) => pooled.run(work),
                    Err(()) => Err(Stuck.into()),
                },
                Err(error) => Err(AppError::Busy(error.into())),
            }
        });
        match tokio::time::timeout(stuck_after, &mut lent).await {
            Ok(Ok(())) => {}
            // Others may have connections that live, and find none free.
            Ok(Err(_)) if connections.state().connections > 0 => {}
            Ok(Err(_)) => drop(self.pool.replace(&connections)),
            Err(_) => {
                lent.close();
                if lent.try_recv().is_err() {
                    if self.may_lose_connections() && self.pool.replace(&connections) {
                        log::warn!("the database connections do not answer and are given up");
                    }
                    return Err(Stuck);
                }
            }
        }
        Ok(task.await.unwrap_or_else(|error| Err(AppError::Internal(error.into()))))
    }
}

/// How long whoever is no request waits for a connection: as long as the address lets libpq try, if it says so.
fn connect_wait(url: &DatabaseUrl) -> Duration {
    let DatabaseUrl::Postgres(uri) = url else { return CHECKOUT_WAIT };
    let stated = uri.parameter("connect_timeout").and_then(|seconds| seconds.parse::<u64>().ok());
    // libpq takes 0 for no limit.
    let seconds = stated.map(|seconds| if seconds == 0 { LONGEST_CONNECT } else { seconds.min(LONGEST_CONNECT) });
    seconds.map_or(CHECKOUT_WAIT, |seconds| CHECKOUT_WAIT.max(Duration::from_secs(seconds)))
}

/// Seconds that a connection is waited for at most, whatever the address says.
const LONGEST_CONNECT: u64 = 600;

impl From<ConnectError> for AppError {
    fn from(error: ConnectError) -> Self {
        if error.is_temporary { Self::Busy(error.into()) } else { Self::Internal(error.into()) }
    }
}

/// No connection could be had for so long that the work will not begin.
struct Stuck;

impl From<Stuck> for AppError {
    fn from(_: Stuck) -> Self {
        Self::Busy("no database connection answers".into())
    }
}

/// Work for which nobody waits any more, if it is dropped with a database.
struct Abandoned {
    work_of: Option<Db>,
    since: Instant,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let (Some(db), Ok(runtime)) = (self.work_of.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let rest = (LOST_AFTER + Duration::from_millis(1)).saturating_sub(self.since.elapsed());
        runtime.spawn(async move {
            tokio::time::sleep(rest).await;
            db.give_up_what_is_lost();
        });
    }
}

async fn permit(
    semaphore: &Arc<Semaphore>,
    patience: Duration,
    complaint: &'static str,
) -> Result<OwnedSemaphorePermit, AppError> {
    // Nobody is overtaken: what is given back goes to those who wait first.
    if let Ok(permit) = Arc::clone(semaphore).try_acquire_owned() {
        return Ok(permit);
    }
    match tokio::time::timeout(patience, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(closed)) => Err(AppError::Internal(closed.into())),
        Err(_) => Err(AppError::Busy(complaint.into())),
    }
}

/// Creates a missing SQLite file for its owner's eyes only: it holds password hashes. SQLite gives its side files the
/// same permissions. A file that exists is not even opened: to close it would drop SQLite's own locks on it, and
/// another process could then delete the write-ahead log under us.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

const DISK_FULL: NotReady = NotReady {
    code: "disk_full",
    detail: "The disk of the database is full, so nothing was stored. Try again when the operator has made room.",
};

/// A failed query, in the words of the house. Constraint violations that have a meaning are caught where the meaning
/// is known, so one that arrives here is a defect; everything else is a database in trouble.
impl From<DieselError> for AppError {
    fn from(error: DieselError) -> Self {
        if let DieselError::DatabaseError(_, told) = &error
            && let Some(meaning) = diagnosis::sqlite_error(told.message())
        {
            return match meaning {
                Meaning::Full => Self::NotReady(DISK_FULL),
                Meaning::Damaged | Meaning::ReadOnly | Meaning::Schema => Self::Internal(error.into()),
            };
        }
        match error {
            DieselError::DatabaseError(
                DatabaseErrorKind::Unknown
                | DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ReadOnlyTransaction,
                _,
            )
            | DieselError::BrokenTransactionManager => Self::Busy(error.into()),
            _ => Self::Internal(error.into()),
        }
    }
}
