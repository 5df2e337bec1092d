//! One caller gets a share of the database, not all of it: only so much of their work is under way at once. More of it
//! waits here, in the order of arrival, before it takes what others need.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::request::{Caller, caller};

/// What each caller has under way.
pub struct Shares {
    limit: usize,
    callers: Mutex<HashMap<Caller, Arc<Semaphore>>>,
}

/// A part of a caller's share, until it is dropped.
pub struct Share {
    of: Arc<Shares>,
    caller: Caller,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// At most `limit` at once for each caller.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, callers: Mutex::default() })
    }

    /// Waits until the caller of the current request may do more. The process itself need not wait.
    pub async fn take(self: &Arc<Self>) -> Option<Share> {
        let caller = caller()?;
        let permits = Arc::clone(self.callers().entry(caller).or_insert_with(|| Arc::new(Semaphore::new(self.limit))));
        // Before the wait, so that whoever stops waiting is cleaned up after.
        let mut share = Share { of: Arc::clone(self), caller, permit: None };
        // It is never closed.
        share.permit = permits.acquire_owned().await.ok();
        Some(share)
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<Caller, Arc<Semaphore>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut callers = self.of.callers();
        self.permit = None;
        // Whoever has or waits for a permit holds the semaphore, too.
        if callers.get(&self.caller).is_some_and(|permits| Arc::strong_count(permits) == 1) {
            callers.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::request::for_one_request;
    use super::*;
    use crate::domain::id::UserId;

    const SOON: Duration = Duration::from_millis(20);

    async fn take(shares: &Arc<Shares>, caller: Option<Caller>) -> Option<Option<Share>> {
        timeout(SOON, for_one_request(caller, shares.take())).await.ok()
    }

    #[tokio::test]
    async fn a_caller_with_a_full_share_waits_and_nobody_else_does() {
        let (ada, eve) = (Some(Caller::User(UserId(1))), Some(Caller::User(UserId(2))));
        let shares = Shares::new(2);
        let first = take(&shares, ada).await.expect("the share is free");
        let _second = take(&shares, ada).await.expect("half of the share is free");
        assert!(take(&shares, ada).await.is_none(), "the share is full");
        assert!(take(&shares, eve).await.is_some(), "another caller has a share of their own");
        for _ in 0..10 {
            assert!(take(&shares, None).await.expect("the process itself does not wait").is_none());
        }
        drop(first);
        assert!(take(&shares, ada).await.is_some(), "what is given back can be taken again");
    }

    #[tokio::test]
    async fn nothing_is_kept_about_callers_who_have_nothing_under_way() {
        let shares = Shares::new(1);
        for number in 0..100 {
            let caller = Some(Caller::User(UserId(number)));
            let held = take(&shares, caller).await;
            assert!(take(&shares, caller).await.is_none(), "this one stops waiting");
            drop(held);
        }
        assert!(shares.callers().is_empty());
    }
}
