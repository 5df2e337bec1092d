//! Runs work on connections, on threads for blocking work, and discards connections that never respond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::db::engine::caller::{self, caller};
use crate::db::engine::connection::Conn;
use crate::db::engine::diagnosis::Diagnosis;
use crate::db::engine::lease::{LOST_AFTER, Leases};
use crate::db::engine::manager::Manager;
use crate::db::engine::pool::{CHECKOUT_TIMEOUT, Connections, Pool};
use crate::error::AppError;
use crate::metrics::Durations;

/// How long a checkout of a connection, with its check, may take before the pool counts as stuck. This is a little
/// longer than the time-out of the pool itself.
const STUCK_TIMEOUT: Duration = Duration::from_millis(1_050);
/// How long work waits for a connection before it fails because the server rejects connections.
const REJECTION_CHECK_AFTER: Duration = Duration::from_millis(200);
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
        self.on_blocking_pool((), work).await?
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
        let result = self.on_blocking_pool(lease, work).await;
        guard.executor = None;
        result.unwrap_or_else(|no_connection| {
            // The thread may stay blocked, but does not begin the work any more.
            if self.may_lose_connections {
                self.leases.end(id);
            }
            Err(no_connection.into())
        })
    }

    /// Ends the leases of work that counts as lost, and replaces the pool so that its connections are not used again.
    fn discard_lost_connections(&self) {
        let lost = Instant::now().checked_sub(LOST_AFTER).map_or(0, |then| self.leases.end_started_before(then));
        if lost > 0 {
            log::warn!("{lost} database connections did not respond and were discarded");
            self.pool.replace(&self.pool.current());
        }
    }

    /// Runs `work` on a connection, on a thread for blocking work. Once it has begun it runs to its end, even if the
    /// caller drops the future. `held` is dropped when it ends.
    ///
    /// Errors: the pool is stuck, and the work will not begin.
    async fn on_blocking_pool<H, T, F>(&self, held: H, work: F) -> Result<Result<T, AppError>, NoConnection>
    where
        H: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let connections = self.pool.current();
        let (checkout_sender, mut checkout) = oneshot::channel();
        let (from, diagnosis) = (Arc::clone(&connections), Arc::clone(self.pool.manager().diagnosis()));
        // `connect_timeout` in the URL can allow a longer wait, but not for requests.
        let (wait, stuck_timeout) = match caller::time_remaining() {
            Some(_) => (CHECKOUT_TIMEOUT, STUCK_TIMEOUT),
            None => (self.connect_wait, self.connect_wait + STUCK_TIMEOUT - CHECKOUT_TIMEOUT),
        };
        let task = tokio::task::spawn_blocking(move || {
            let _held = held;
            let mut pooled = check_out(&from, &diagnosis, wait)?;
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

/// Waits up to `wait` for a connection.
///
/// Errors: [`AppError::Internal`] if the pool has no connection and the server rejects new ones; [`AppError::Busy`]
/// after the time-out.
fn check_out(
    connections: &Connections,
    diagnosis: &Diagnosis,
    wait: Duration,
) -> Result<r2d2::PooledConnection<Manager>, AppError> {
    let first_wait = wait.min(REJECTION_CHECK_AFTER);
    let found = connections.get_timeout(first_wait).or_else(|error| match diagnosis.rejection() {
        Some(_) if connections.state().connections == 0 => Err(error),
        _ => connections.get_timeout(wait.saturating_sub(first_wait)),
    });
    found.map_err(|error| match diagnosis.rejection() {
        Some(defect) if connections.state().connections == 0 => AppError::Internal(defect.cause.into()),
        _ => AppError::Busy(error.into()),
    })
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
