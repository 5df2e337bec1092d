//! What work on the database holds, and since when: if it is never answered, others must not wait for that for ever.
//!
//! PostgreSQL ends a statement that takes too long, and the kernel a connection whose other end is gone. Neither helps
//! against something between that takes everything and passes nothing on. libpq waits for that without end, and so does
//! the thread under it. Only what it held can be saved.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long work may take before it counts as lost: longer than anybody waits for it, or than PostgreSQL lets a statement
/// run.
pub const LOST_AFTER: Duration = Duration::from_secs(2);

/// What is held by work that is under way.
#[derive(Default)]
pub(super) struct Leases(Mutex<ActiveLeases>);

#[derive(Default)]
struct ActiveLeases {
    leases: HashMap<u64, (Instant, Box<dyn Send>)>,
    latest: u64,
}

/// What one piece of work holds. It is given back when this is dropped, or when the work counts as lost.
pub(super) struct Lease {
    of: Arc<Leases>,
    number: u64,
}

impl Lease {
    /// Names it among the others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.end(self.number);
    }
}

impl Leases {
    /// Lets somebody's work have `what`, permits and the like.
    pub(super) fn begin(this: &Arc<Self>, what: impl Send + 'static) -> Lease {
        let mut active = this.active();
        active.latest += 1;
        let number = active.latest;
        active.leases.insert(number, (Instant::now(), Box::new(what)));
        Lease { of: Arc::clone(this), number }
    }

    /// Gives back what is held by this work.
    pub(super) fn end(&self, number: u64) {
        // What is held may have more to do than to be forgotten, so not under the lock.
        let ended = self.active().leases.remove(&number);
        drop(ended);
    }

    /// Gives back what is held by work that began before `then`; how much work that was.
    pub(super) fn end_begun_before(&self, then: Instant) -> usize {
        let ended: Vec<_> = self.active().leases.extract_if(|_, (since, _)| *since < then).collect();
        ended.len()
    }

    fn active(&self) -> MutexGuard<'_, ActiveLeases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn what_lost_work_held_is_given_back_once() {
        let (leases, semaphore) = (Arc::<Leases>::default(), Arc::new(Semaphore::new(2)));
        let take = || Arc::clone(&semaphore).try_acquire_owned().unwrap();
        let lost = Leases::begin(&leases, take());
        let later = Instant::now();
        let alive = Leases::begin(&leases, take());
        assert_eq!(leases.end_begun_before(later), 1);
        assert_eq!((semaphore.available_permits(), leases.end_begun_before(later)), (1, 0));
        drop(lost);
        assert_eq!(semaphore.available_permits(), 1, "it comes back in the end, with nothing to give");
        drop(alive);
        assert_eq!(semaphore.available_permits(), 2);
    }
}
