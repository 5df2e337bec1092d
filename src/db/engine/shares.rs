//! Shares of the database: a limit for the work that each caller has in progress at once. Further work of the caller
//! waits in the order of arrival, before it acquires permits that other callers need.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::db::engine::caller::{Caller, caller};

/// The shares of all callers with work in progress.
pub struct CallerShares {
    limit: usize,
    callers: Mutex<HashMap<Caller, Arc<Semaphore>>>,
}

/// A slot in a caller's share, which is freed on drop.
pub struct CallerShare {
    shares: Arc<CallerShares>,
    caller: Caller,
    permit: Option<OwnedSemaphorePermit>,
}

impl CallerShares {
    /// Shares of `limit` slots for each caller.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, callers: Mutex::default() })
    }

    /// Waits for a slot in the share of the current request's caller. Returns `None` at once for work of the process
    /// itself, which has no limit.
    pub async fn acquire(self: &Arc<Self>) -> Option<CallerShare> {
        let caller = caller()?;
        let permits = Arc::clone(self.callers().entry(caller).or_insert_with(|| Arc::new(Semaphore::new(self.limit))));
        // Created before the wait, so that its destructor also runs if this future is dropped.
        let mut share = CallerShare { shares: Arc::clone(self), caller, permit: None };
        // Fails only for a closed semaphore, and this one is never closed.
        share.permit = permits.acquire_owned().await.ok();
        Some(share)
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<Caller, Arc<Semaphore>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallerShare {
    fn drop(&mut self) {
        let mut callers = self.shares.callers();
        self.permit = None;
        // Each permit, and each future that waits for one, holds another reference.
        if callers.get(&self.caller).is_some_and(|permits| Arc::strong_count(permits) == 1) {
            callers.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::db::engine::caller::for_one_request;
    use crate::domain::id::UserId;

    const SHORT_WAIT: Duration = Duration::from_millis(20);

    async fn acquire(shares: &Arc<CallerShares>, caller: Option<Caller>) -> Option<Option<CallerShare>> {
        timeout(SHORT_WAIT, for_one_request(caller, shares.acquire())).await.ok()
    }

    #[tokio::test]
    async fn a_caller_with_a_full_share_waits_and_other_callers_do_not() {
        let (ada, eve) = (Some(Caller::User(UserId(1))), Some(Caller::User(UserId(2))));
        let shares = CallerShares::new(2);
        let first = acquire(&shares, ada).await.expect("the share is free");
        let _second = acquire(&shares, ada).await.expect("half of the share is free");
        assert!(acquire(&shares, ada).await.is_none(), "the share is full");
        assert!(acquire(&shares, eve).await.is_some(), "another caller has a share of their own");
        for _ in 0..10 {
            assert!(acquire(&shares, None).await.expect("the process itself does not wait").is_none());
        }
        drop(first);
        assert!(acquire(&shares, ada).await.is_some(), "a freed slot can be acquired again");
    }

    #[tokio::test]
    async fn no_state_is_kept_for_callers_without_work_in_progress() {
        let shares = CallerShares::new(1);
        for number in 0..100 {
            let caller = Some(Caller::User(UserId(number)));
            let held = acquire(&shares, caller).await;
            assert!(acquire(&shares, caller).await.is_none(), "this one stops waiting");
            drop(held);
        }
        assert!(shares.callers().is_empty());
    }
}
