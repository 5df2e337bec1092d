//! Leases on resources, such as permits, that work on the database holds. They are released if the work never ends.
//!
//! PostgreSQL cancels a statement that takes too long, and the kernel closes a connection to a host that has vanished.
//! Neither helps if a host in between accepts packets and does not forward them: libpq then waits without limit, and
//! blocks its thread. The thread cannot be stopped, but the resources can be released.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::db::engine::pool::Connections;

/// After this time, work counts as lost. It is longer than any request waits for the database, and longer than
/// PostgreSQL lets a statement run.
pub const LOST_AFTER: Duration = Duration::from_secs(2);

/// The leases of all work in progress.
#[derive(Default)]
pub(crate) struct Leases(Mutex<ActiveLeases>);

#[derive(Default)]
struct ActiveLeases {
    leases: HashMap<u64, ActiveLease>,
    last_id: u64,
}

struct ActiveLease {
    since: Instant,
    /// The pool whose connection the work uses or waits for.
    pool: Option<Connections>,
    _held: Box<dyn Send>,
}

/// A lease. Its resources are released when it is dropped, or when the work counts as lost.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    id: u64,
}

impl Lease {
    /// The id of this lease, for [`Leases::end`].
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// States that the work uses a connection of this pool, or waits for one.
    pub(crate) fn set_pool(&self, pool: &Connections) {
        if let Some(lease) = self.leases.inner().leases.get_mut(&self.id) {
            lease.pool = Some(Arc::clone(pool));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.end(self.id);
    }
}

impl Leases {
    /// Starts a lease on `held`.
    pub(crate) fn begin(this: &Arc<Self>, held: impl Send + 'static) -> Lease {
        let mut inner = this.inner();
        inner.last_id += 1;
        let id = inner.last_id;
        inner.leases.insert(id, ActiveLease { since: Instant::now(), pool: None, _held: Box::new(held) });
        Lease { leases: Arc::clone(this), id }
    }

    /// Ends the lease with this id, and drops what it held. Does nothing if it has already ended.
    pub(crate) fn end(&self, id: u64) {
        // Dropped after the lock is released, because the destructor of what was held can run any code.
        let ended = self.inner().leases.remove(&id);
        drop(ended);
    }

    /// Ends the leases that started before `before`. Returns the pool of each of them, if its work had one.
    pub(crate) fn end_started_before(&self, before: Instant) -> Vec<Option<Connections>> {
        let ended: Vec<_> = self.inner().leases.extract_if(|_, lease| lease.since < before).collect();
        ended.into_iter().map(|(_, lease)| lease.pool).collect()
    }

    fn inner(&self) -> MutexGuard<'_, ActiveLeases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn resources_of_lost_work_are_released_exactly_once() {
        let (leases, semaphore) = (Arc::<Leases>::default(), Arc::new(Semaphore::new(2)));
        let acquire = || Arc::clone(&semaphore).try_acquire_owned().unwrap();
        let lost = Leases::begin(&leases, acquire());
        let later = Instant::now();
        let in_progress = Leases::begin(&leases, acquire());
        assert_eq!(leases.end_started_before(later).len(), 1);
        assert_eq!((semaphore.available_permits(), leases.end_started_before(later).len()), (1, 0));
        drop(lost);
        assert_eq!(semaphore.available_permits(), 1, "the lost work ends later and releases nothing");
        drop(in_progress);
        assert_eq!(semaphore.available_permits(), 2);
    }
}
