//! Runs work on connections, on threads for blocking work, and discards connections that never respond.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::db::engine::caller::{self, caller};
use crate::db::engine::connection::Conn;
use crate::db::engine::lease::{LOST_AFTER, Lease, Leases};
use crate::db::engine::manager::Manager;
use crate::db::engine::pool::{CHECKOUT_TIMEOUT, Pool};
use crate::error::AppError;
use crate::metrics::Durations;

/// The value that work returns, or that it holds until it ends, without its type. The code that runs work is large, and is
/// thus compiled once and not for each query.
pub(crate) type Erased = Box<dyn Any + Send>;
/// Work on a connection.
pub(crate) type Work = Box<dyn FnOnce(&mut Conn) -> Result<Erased, AppError> + Send>;
/// What is called after a transaction: with the value if it is stored, and with `None` if it may be stored.
pub(crate) type OnStored = Box<dyn FnOnce(Option<&Erased>) + Send>;
/// What is acquired before work begins.
pub(crate) type Acquire<'a> = Pin<Box<dyn Future<Output = Erased> + Send + 'a>>;

/// Work that returns a `T`.
pub(crate) fn erased<T: Send + 'static>(work: impl FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static) -> Work {
    Box::new(move |conn| {
        let value: Erased = Box::new(work(conn)?);
        Ok(value)
    })
}

/// The value of [`erased`] work that returns a `T`.
pub(crate) fn typed<T: 'static>(result: Result<Erased, AppError>) -> Result<T, AppError> {
    let value = result?.downcast().map_err(|_value| AppError::Internal("the work returned another type".into()))?;
    Ok(*value)
}

/// How long a checkout of a connection, with its check, may take before the pool counts as stuck. This is a little
/// longer than the time-out of the pool itself.
const STUCK_TIMEOUT: Duration = Duration::from_millis(1_050);
/// Work that waits for a connection checks once in this time whether the server rejects connections, and whether the
/// pool was replaced: the old one opens no more connections.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The size from which a pool reserves one connection for work of the process itself, such as health checks and
/// cleanup.
const RESERVE_MIN_SIZE: usize = 4;

/// Runs work on the connections of a pool. Clones share the pool.
#[derive(Clone)]
pub(crate) struct Executor {
    pool: Arc<Pool>,
    leases: Arc<Leases>,
    connections: Arc<Semaphore>,
    /// Permits for requests: the connections without the reserved one.
    for_requests: Arc<Semaphore>,
    waits: Durations,
    /// How long work of the process itself waits for a connection.
    connect_wait: Duration,
    /// Whether work may never end, because the server is unreachable. Work on SQLite always ends, and keeps its permits
    /// until then.
    may_lose_connections: bool,
}

impl Executor {
    /// An executor with up to `size` connections from `manager`.
    pub(crate) fn new(manager: Manager, size: u32, connect_wait: Duration, may_lose_connections: bool) -> Self {
        let permits = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS);
        let reserved = usize::from(permits >= RESERVE_MIN_SIZE);
        Self {
            pool: Arc::new(Pool::new(manager, size)),
            leases: Arc::default(),
            connections: Arc::new(Semaphore::new(permits)),
            for_requests: Arc::new(Semaphore::new(permits - reserved)),
            waits: Durations::default(),
            connect_wait,
            may_lose_connections,
        }
    }

    /// The pool.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The waiting times for connections.
    pub(crate) fn waits(&self) -> &Durations {
        &self.waits
    }

    /// How long work of the process itself waits for a connection.
    pub(crate) fn connect_wait(&self) -> Duration {
        self.connect_wait
    }

    /// Waits for a permit to use a connection. A request also requires a second permit, so that requests leave the
    /// reserved connection free.
    ///
    /// Errors: [`AppError::Busy`] after a time-out.
    pub(crate) async fn connection_permits(
        &self,
    ) -> Result<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>), AppError> {
        const NO_PERMIT: &str = "no free database connection";
        let started = Instant::now();
        let for_request = match caller() {
            Some(_) => permit(&self.for_requests, CHECKOUT_TIMEOUT, NO_PERMIT).await.map(Some),
            None => Ok(None),
        };
        let permits = match for_request {
            Ok(for_request) => {
                let remaining = CHECKOUT_TIMEOUT.saturating_sub(started.elapsed());
                permit(&self.connections, remaining, NO_PERMIT).await.map(|permit| (permit, for_request))
            }
            Err(error) => Err(error),
        };
        self.waits.observe(started.elapsed());
        permits
    }

    /// Runs `work` without a permit. The wait for a connection has a time-out, but `work` has none.
    pub(crate) async fn without_timeout<T, F>(&self, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.on_blocking_pool(None, work).await?
    }

    /// Runs `work`, which holds `held` until it ends or counts as lost. If the returned future is dropped before the
    /// work ends, a task checks later whether the work is lost.
    pub(crate) async fn with_lease<H, T, F>(&self, held: H, work: F) -> Result<T, AppError>
    where
        H: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let executor = self.may_lose_connections.then(|| self.clone());
        let mut guard = AbandonGuard { executor, since: Instant::now() };
        let lease = Leases::begin(&self.leases, held);
        let id = lease.id();
        let result = self.on_blocking_pool(Some(lease), work).await;
        guard.executor = None;
        result.unwrap_or_else(|no_connection| {
            // The thread may stay blocked, but does not begin the work any more.
            if self.may_lose_connections {
                self.leases.end(id);
            }
            Err(no_connection.into())
        })
    }

    /// Ends the leases of work that counts as lost, and replaces its pool so that the connections are not used again. A
    /// pool that has replaced it stays: requests on its connections would fail.
    fn discard_lost_connections(&self) {
        let lost = Instant::now().checked_sub(LOST_AFTER).map(|then| self.leases.end_started_before(then));
        let lost = lost.unwrap_or_default();
        if !lost.is_empty() {
            log::warn!("{} database connections did not respond and were discarded", lost.len());
        }
        for pool in lost.iter().flatten() {
            self.pool.replace(pool);
        }
    }

    /// Runs `work` on a connection, on a thread for blocking work. Once it has begun it runs to its end, even if the
    /// caller drops the future. `lease` is dropped when it ends.
    ///
    /// Errors: the pool is stuck, and the work will not begin.
    async fn on_blocking_pool<T, F>(&self, lease: Option<Lease>, work: F) -> Result<Result<T, AppError>, NoConnection>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let connections = self.pool.current();
        let (checkout_sender, mut checkout) = oneshot::channel();
        let pool = Arc::clone(&self.pool);
        // `connect_timeout` in the URL can allow a longer wait, but not for requests.
        let (wait, stuck_timeout) = match caller::time_remaining() {
            Some(_) => (CHECKOUT_TIMEOUT, STUCK_TIMEOUT),
            None => (self.connect_wait, self.connect_wait + STUCK_TIMEOUT - CHECKOUT_TIMEOUT),
        };
        let task = tokio::task::spawn_blocking(move || {
            let mut pooled = check_out(&pool, lease.as_ref(), wait)?;
            match checkout_sender.send(()) {
                Ok(()) => pooled.run(work),
                Err(()) => Err(NoConnection.into()),
            }
        });
        match tokio::time::timeout(stuck_timeout, &mut checkout).await {
            Ok(Ok(())) => {}
            // The checkout failed, but other connections are open, so the pool may only be exhausted.
            Ok(Err(_)) if connections.state().connections > 0 => {}
            // The pool itself connects again.
            Ok(Err(_)) if self.pool.manager().diagnosis().rejection().is_some() => {}
            Ok(Err(_)) => drop(self.pool.replace(&connections)),
            Err(_) => {
                checkout.close();
                if checkout.try_recv().is_err() {
                    if self.may_lose_connections && self.pool.replace(&connections) {
                        log::warn!("the database connections did not respond and were discarded");
                    }
                    return Err(NoConnection);
                }
            }
        }
        Ok(task.await.unwrap_or_else(|error| Err(AppError::Internal(error.into()))))
    }
}

/// Waits up to `wait` for a connection of the current pool.
///
/// Errors: [`AppError::Internal`] if the pool has no connection and the server rejects new ones; [`AppError::Busy`]
/// after the time-out.
fn check_out(pool: &Pool, lease: Option<&Lease>, wait: Duration) -> Result<r2d2::PooledConnection<Manager>, AppError> {
    let started = Instant::now();
    loop {
        let connections = pool.current();
        if let Some(lease) = lease {
            lease.set_pool(&connections);
        }
        let remaining = wait.saturating_sub(started.elapsed());
        let error = match connections.get_timeout(remaining.min(CHECK_INTERVAL)) {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if let Some(defect) = pool.manager().diagnosis().rejection()
            && connections.state().connections == 0
        {
            return Err(AppError::Internal(defect.cause.into()));
        }
        if started.elapsed() >= wait {
            return Err(AppError::Busy(error.into()));
        }
    }
}

/// The pool returned no connection in time, and the work will not begin.
struct NoConnection;

impl From<NoConnection> for AppError {
    fn from(_: NoConnection) -> Self {
        Self::Busy("no database connection responds".into())
    }
}

/// Checks for lost work if it is dropped while `executor` is set, because then the caller stopped waiting.
struct AbandonGuard {
    executor: Option<Executor>,
    since: Instant,
}

impl Drop for AbandonGuard {
    fn drop(&mut self) {
        let (Some(executor), Ok(runtime)) = (self.executor.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let remaining = (LOST_AFTER + Duration::from_millis(1)).saturating_sub(self.since.elapsed());
        runtime.spawn(async move {
            tokio::time::sleep(remaining).await;
            executor.discard_lost_connections();
        });
    }
}

/// Waits for a permit, in the order of arrival.
///
/// Errors: [`AppError::Busy`] with `message` after `timeout`.
pub(crate) async fn permit(
    semaphore: &Arc<Semaphore>,
    timeout: Duration,
    message: &'static str,
) -> Result<OwnedSemaphorePermit, AppError> {
    // This does not overtake waiting tasks: a returned permit is assigned to the first of them.
    if let Ok(permit) = Arc::clone(semaphore).try_acquire_owned() {
        return Ok(permit);
    }
    match tokio::time::timeout(timeout, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(closed)) => Err(AppError::Internal(closed.into())),
        Err(_) => Err(AppError::Busy(message.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::DatabaseUrl;

    /// An executor on a SQLite file, whose connections count as lost like those of PostgreSQL.
    fn executor(home: &std::path::Path, size: u32) -> Executor {
        let manager = Manager::connected(DatabaseUrl::Sqlite(home.join("test.db"))).unwrap();
        Executor::new(manager, size, CHECKOUT_TIMEOUT, true)
    }

    #[tokio::test]
    async fn lost_work_replaces_its_own_pool_and_not_a_later_one() {
        let home = tempfile::tempdir().unwrap();
        let executor = executor(home.path(), 2);
        for is_replaced_before in [false, true] {
            let used = executor.pool().current();
            let ((end, ended), held) = (channel::<()>(), Arc::new(()));
            let lost = executor.with_lease(Arc::clone(&held), move |_| Ok(ended.recv().is_ok()));
            assert!(tokio::time::timeout(Duration::from_millis(300), lost).await.is_err());
            if is_replaced_before {
                assert!(executor.pool().replace(&used));
            }
            let before = executor.pool().current();
            while Arc::strong_count(&held) > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let is_replaced = !Arc::ptr_eq(&before, &executor.pool().current());
            assert_eq!(is_replaced, !is_replaced_before, "replaced before: {is_replaced_before}");
            drop(end);
        }
    }

    #[tokio::test]
    async fn work_that_waits_for_a_replaced_pool_gets_a_connection_of_the_new_one() {
        let home = tempfile::tempdir().unwrap();
        let executor = executor(home.path(), 1);
        let (used, (end, ended)) = (executor.pool().current(), channel::<()>());
        let first = executor.clone();
        let first = tokio::spawn(async move { first.with_lease((), move |_| Ok(ended.recv().is_ok())).await });
        while used.state().idle_connections > 0 || used.state().connections == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let second = executor.clone();
        let second = tokio::spawn(async move { second.with_lease((), |_| Ok(())).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(executor.pool().replace(&used));
        second.await.unwrap().unwrap();
        end.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
    }
}
