//! Looks up credentials that are not cached. Lookups that arrive together share a connection, because handing work to
//! another thread and back costs more than the query.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::db::{CallerShares, Conn, Db, LOST_AFTER};
use crate::domain::principal::Identity;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::AppError;
use crate::service::identity::resolve::Resolver;

/// Another connection is taken when this many lookups wait per connection in use, or after [`STALL_TIMEOUT`].
const QUEUE_PER_WORKER: usize = 4;
/// Another connection is taken when the first lookup in the queue has waited this long, because a connection may hang.
const STALL_TIMEOUT: Duration = Duration::from_millis(20);
/// Maximum number of waiting lookups. Further ones fail with [`AppError::Busy`].
const MAX_QUEUE: usize = 10_000;
/// Maximum number of lookups of one caller in the queue. The others wait outside it, so one caller cannot fill the
/// queue.
const MAX_QUEUE_PER_CALLER: usize = 32;
/// How long a worker keeps a connection before it returns it to the pool, so that others can use it.
const CONNECTION_TIME: Duration = Duration::from_millis(100);
/// The result of a lookup.
type Found = Result<Option<Arc<Identity>>, AppError>;

/// The queue of lookups, and the workers that serve it.
pub(crate) struct Lookups {
    db: Db,
    resolver: Resolver,
    /// Maximum number of workers, and so of connections: half of the pool, which leaves the rest to other work.
    max_workers: usize,
    shares: Arc<CallerShares>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<PendingLookup>,
    workers: HashSet<WorkerId>,
    last_worker: WorkerId,
}

/// A worker: it uses one connection at a time, and takes another one if that fails.
type WorkerId = u64;

struct PendingLookup {
    kind: SecretKind,
    digest: Digest,
    since: Instant,
    /// Number of connections that have failed during this lookup. After one failure another connection tries it. After
    /// two, the lookup fails with the error.
    failures: u8,
    result: oneshot::Sender<Found>,
}

/// Why a worker returns its connection.
enum Served {
    /// The queue is empty.
    QueueEmpty,
    /// [`CONNECTION_TIME`] is over.
    TimeOver,
}

impl Lookups {
    pub(crate) fn new(db: Db, resolver: Resolver) -> Arc<Self> {
        let max_workers = (db.pool_size() / 2).max(2);
        let shares = CallerShares::new(MAX_QUEUE_PER_CALLER);
        Arc::new(Self { db, resolver, max_workers, shares, waiting: Mutex::default() })
    }

    /// The identity of the secret with this digest, expired or not. Reads the database after this call has begun.
    ///
    /// Errors: [`AppError::Busy`] if the queue is full, or if the database does not answer within the time of the
    /// request.
    pub(crate) async fn find(self: &Arc<Self>, kind: SecretKind, digest: Digest) -> Found {
        let found = async {
            let _share = self.shares.acquire().await;
            let (result, found) = oneshot::channel();
            let lookup = PendingLookup { kind, digest, since: Instant::now(), failures: 0, result };
            if let Some(worker) = self.enqueue(lookup)? {
                // A separate task: this request may be cancelled while others wait.
                tokio::spawn(Arc::clone(self).work(worker));
            }
            found.await.unwrap_or_else(|_| Err(AppError::Busy("the lookup was cancelled".into())))
        };
        self.db.in_time(found).await
    }

    /// Adds a lookup to the queue. Returns the id of a new worker that the caller must start, if one is needed.
    fn enqueue(&self, lookup: PendingLookup) -> Result<Option<WorkerId>, AppError> {
        let mut waiting = self.waiting();
        if waiting.queue.len() >= MAX_QUEUE {
            waiting.queue.retain(|lookup| !lookup.result.is_closed());
            if waiting.queue.len() >= MAX_QUEUE {
                return Err(AppError::Busy("too many lookups of credentials are waiting".into()));
            }
        }
        let stalled = waiting.queue.front().is_some_and(|first| first.since.elapsed() > STALL_TIMEOUT);
        let crowded = waiting.queue.len() >= QUEUE_PER_WORKER * waiting.workers.len();
        waiting.queue.push_back(lookup);
        if waiting.workers.len() >= self.max_workers || !(crowded || stalled) {
            return Ok(None);
        }
        waiting.last_worker += 1;
        let worker = waiting.last_worker;
        waiting.workers.insert(worker);
        Ok(Some(worker))
    }

    /// Serves the queue with one connection after the other, until it is empty.
    async fn work(self: Arc<Self>, worker: WorkerId) {
        loop {
            let lookups = Arc::clone(&self);
            let serving = self.db.with_connection(move |conn| lookups.serve(worker, conn));
            let served = tokio::time::timeout(LOST_AFTER, serving).await;
            match served.unwrap_or_else(|_| Err(AppError::Busy("the database does not answer".into()))) {
                Ok(Served::QueueEmpty) => return,
                Ok(Served::TimeOver) => {}
                Err(error) => {
                    if !self.should_retry_after(worker, &error) {
                        return;
                    }
                }
            }
        }
    }

    /// Serves the queue. An error means that the connection is unusable.
    fn serve(&self, worker: WorkerId, conn: &mut Conn) -> Result<Served, AppError> {
        let began = Instant::now();
        while began.elapsed() < CONNECTION_TIME {
            let Some(lookup) = self.next(worker) else {
                return Ok(Served::QueueEmpty);
            };
            if lookup.result.is_closed() {
                continue;
            }
            match self.resolver.identify(conn, lookup.kind, lookup.digest) {
                Err(AppError::Busy(cause)) => {
                    self.waiting().queue.push_front(PendingLookup { failures: lookup.failures + 1, ..lookup });
                    return Err(AppError::Busy(cause));
                }
                found => drop(lookup.result.send(found.map(|found| found.map(Arc::new)))),
            }
        }
        Ok(Served::TimeOver)
    }

    /// The next lookup. If there is none, the worker is removed under the same lock, so no lookup can be added to a
    /// queue without a worker. Returns `None` also for a worker that was removed because its connection hung.
    fn next(&self, worker: WorkerId) -> Option<PendingLookup> {
        let mut waiting = self.waiting();
        if !waiting.workers.contains(&worker) {
            return None;
        }
        let next = waiting.queue.pop_front();
        if next.is_none() {
            waiting.workers.remove(&worker);
        }
        next
    }

    /// Whether the worker should try another connection: if a lookup has failed only once. Otherwise the worker is
    /// removed and the other workers serve the queue. If there are none, all waiting lookups fail with the error.
    fn should_retry_after(&self, worker: WorkerId, error: &AppError) -> bool {
        let mut waiting = self.waiting();
        match waiting.queue.front_mut() {
            Some(first) if first.failures == 1 => {
                // Counts the attempt that begins now, which may get no connection at all.
                first.failures += 1;
                return true;
            }
            Some(first) if first.failures > 1 => {
                if let Some(first) = waiting.queue.pop_front() {
                    drop(first.result.send(Err(copy(error))));
                }
            }
            _ => {}
        }
        waiting.workers.remove(&worker);
        if waiting.workers.is_empty() {
            for lookup in waiting.queue.drain(..) {
                drop(lookup.result.send(Err(copy(error))));
            }
        }
        false
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies an error for another waiting lookup.
fn copy(error: &AppError) -> AppError {
    match error {
        AppError::Internal(cause) => AppError::Internal(cause.to_string().into()),
        error => AppError::Busy(error.to_string().into()),
    }
}
