//! One change per user at a time. Changes by one user would wait for each other in the database anyway, where each would
//! hold a connection meanwhile: one user with many requests could then keep out all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::domain::id::UserId;

/// A lock for each user who has requests under way, and for nobody else. Clones share them.
#[derive(Clone, Default)]
pub(super) struct UserLocks(Arc<Mutex<HashMap<UserId, Arc<AsyncMutex<()>>>>>);

/// The lock of a user, until it is dropped.
pub(super) struct UserLockGuard {
    // Dropped first: the entry goes with its last holder.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry,
}

/// A place in the map, of one who holds the lock or waits for it.
struct Entry {
    locks: UserLocks,
    user: UserId,
    /// Given back under the lock of the map.
    lock: Option<Arc<AsyncMutex<()>>>,
}

impl UserLocks {
    /// Waits for the lock of this user. Without a user there is nothing to lock.
    pub(super) async fn lock(&self, user: Option<UserId>) -> Option<UserLockGuard> {
        let entry = self.enter(user?);
        let guard = Arc::clone(entry.lock.as_ref()?).lock_owned().await;
        Some(UserLockGuard { _guard: guard, _entry: entry })
    }

    fn enter(&self, user: UserId) -> Entry {
        let lock = Arc::clone(self.map().entry(user).or_default());
        Entry { locks: self.clone(), user, lock: Some(lock) }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<UserId, Arc<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut map = self.locks.map();
        drop(self.lock.take());
        // The map's alone: nobody holds the lock or waits for it.
        if map.get(&self.user).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const ADA: Option<UserId> = Some(UserId(1));
    /// Equal to Ada's id modulo any power of two below.
    const EVE: Option<UserId> = Some(UserId(1 + (1 << 40)));

    #[tokio::test]
    async fn a_user_waits_for_themselves_and_for_nobody_else() {
        let locks = UserLocks::default();
        let held = locks.lock(ADA).await;
        assert!(locks.lock(EVE).now_or_never().is_some());
        assert!(locks.lock(None).now_or_never().is_some());
        assert!(locks.lock(ADA).now_or_never().is_none());
        drop(held);
        assert!(locks.lock(ADA).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_lock_is_kept_only_while_somebody_holds_it_or_waits_for_it() {
        let locks = UserLocks::default();
        let held = locks.lock(ADA).await;
        let mut waiting = Box::pin(locks.lock(ADA));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(locks.lock(ADA).now_or_never().is_none(), "this one gives up");
        drop(held);
        assert_eq!(locks.map().len(), 1, "somebody waits");
        let held = waiting.await;
        assert!(locks.lock(ADA).now_or_never().is_none(), "the one who waited has it");
        drop(held);
        assert!(locks.map().is_empty());
    }
}
