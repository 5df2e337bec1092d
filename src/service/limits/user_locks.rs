//! Locks that run the changes of one user one after the other. In the database such changes wait for each other in any
//! case, but each would hold a connection, so one user with many requests could block all others. A request by an
//! issued key first waits for other requests of the same key, so its holder has at most one place in the queue of the
//! owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::domain::id::{KeyId, UserId};

/// A lock for each user and issued key with changes in progress. Clones share the locks.
#[derive(Clone, Default)]
pub(crate) struct UserLocks(Arc<Mutex<HashMap<Owner, Arc<AsyncMutex<()>>>>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    User(UserId),
    IssuedKey(KeyId),
}

/// The held lock of a user. Dropping it releases the lock.
pub(crate) struct UserLockGuard {
    _of_user: Acquired,
    _of_key: Option<Acquired>,
}

struct Acquired {
    // Dropped before the entry, which is removed with its last holder.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry,
}

/// Keeps the lock in the map while a request holds it or waits for it.
struct Entry {
    locks: UserLocks,
    owner: Owner,
    /// Dropped while the map is locked.
    lock: Option<Arc<AsyncMutex<()>>>,
}

impl UserLocks {
    /// Waits for the lock of the issued key, if there is one, and then for the lock of the user. Returns `None` without
    /// a user.
    pub(crate) async fn lock(&self, user: Option<UserId>, issued_key: Option<KeyId>) -> Option<UserLockGuard> {
        let user = user?;
        let of_key = match issued_key {
            Some(key) => Some(self.acquire(Owner::IssuedKey(key)).await),
            None => None,
        };
        Some(UserLockGuard { _of_user: self.acquire(Owner::User(user)).await, _of_key: of_key })
    }

    async fn acquire(&self, owner: Owner) -> Acquired {
        let lock = Arc::clone(self.map().entry(owner).or_default());
        let entry = Entry { locks: self.clone(), owner, lock: Some(Arc::clone(&lock)) };
        Acquired { _guard: lock.lock_owned().await, _entry: entry }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Owner, Arc<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut map = self.locks.map();
        drop(self.lock.take());
        // Only the map refers to it, so no request holds it or waits for it.
        if map.get(&self.owner).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const ADA: Option<UserId> = Some(UserId(1));
    /// Equal to the id of ADA modulo every power of two up to 2^40.
    const EVE: Option<UserId> = Some(UserId(1 + (1 << 40)));

    #[tokio::test]
    async fn changes_of_one_user_wait_for_each_other_and_not_for_other_users() {
        let locks = UserLocks::default();
        let held = locks.lock(ADA, None).await;
        assert!(locks.lock(EVE, None).now_or_never().is_some());
        assert!(locks.lock(None, None).now_or_never().is_some());
        assert!(locks.lock(ADA, None).now_or_never().is_none());
        drop(held);
        assert!(locks.lock(ADA, None).now_or_never().is_some());
    }

    #[tokio::test]
    async fn of_all_requests_of_an_issued_key_only_one_waits_for_the_lock_of_its_owner() {
        let (locks, key, other) = (UserLocks::default(), Some(KeyId(1)), Some(KeyId(2)));
        let held = locks.lock(ADA, key).await;
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(locks.lock(ADA, key))).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let (mut owner, mut other) = (Box::pin(locks.lock(ADA, None)), Box::pin(locks.lock(ADA, other)));
        assert!((&mut owner).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        drop(held);
        drop(owner.await);
        drop(other.await);
        for waiting in waiting {
            drop(waiting.await);
        }
        assert!(locks.map().is_empty());
    }

    #[tokio::test]
    async fn a_lock_is_removed_when_no_request_holds_it_or_waits_for_it() {
        let locks = UserLocks::default();
        let held = locks.lock(ADA, None).await;
        let mut waiting = Box::pin(locks.lock(ADA, None));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(locks.lock(ADA, None).now_or_never().is_none(), "this request is cancelled");
        drop(held);
        assert_eq!(locks.map().len(), 1, "one request waits");
        let held = waiting.await;
        assert!(locks.lock(ADA, None).now_or_never().is_none(), "the waiting request has the lock");
        drop(held);
        assert!(locks.map().is_empty());
    }
}
