//! One change per user at a time. Changes by one user would wait for each other in the database anyway, where each would
//! hold a connection meanwhile: one user with many requests could then keep out all others. An issued key waits for itself
//! first, so its holder has one place in the owner's queue, however many requests they send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::domain::id::{KeyId, UserId};

/// A lock for each user and issued key with requests under way, and for no other. Clones share them.
#[derive(Clone, Default)]
pub(super) struct UserLocks(Arc<Mutex<HashMap<Owner, Arc<AsyncMutex<()>>>>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    User(UserId),
    IssuedKey(KeyId),
}

/// The lock of a user, until it is dropped.
pub(super) struct UserLockGuard {
    _of_user: Acquired,
    _of_key: Option<Acquired>,
}

struct Acquired {
    // Dropped first: the entry goes with its last holder.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry,
}

/// A place in the map, of one who holds the lock or waits for it.
struct Entry {
    locks: UserLocks,
    owner: Owner,
    /// Given back under the lock of the map.
    lock: Option<Arc<AsyncMutex<()>>>,
}

impl UserLocks {
    /// Waits for the lock of this user, and before that for the one of the issued key that acts on their account. Without
    /// a user there is nothing to lock.
    pub(super) async fn lock(&self, user: Option<UserId>, issued_key: Option<KeyId>) -> Option<UserLockGuard> {
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
        // Only the map has it: it is neither held nor waited for.
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
    /// Equal to Ada's id modulo any power of two below.
    const EVE: Option<UserId> = Some(UserId(1 + (1 << 40)));

    #[tokio::test]
    async fn a_user_waits_for_themselves_and_for_nobody_else() {
        let locks = UserLocks::default();
        let held = locks.lock(ADA, None).await;
        assert!(locks.lock(EVE, None).now_or_never().is_some());
        assert!(locks.lock(None, None).now_or_never().is_some());
        assert!(locks.lock(ADA, None).now_or_never().is_none());
        drop(held);
        assert!(locks.lock(ADA, None).now_or_never().is_some());
    }

    #[tokio::test]
    async fn however_many_requests_an_issued_key_sends_one_of_them_waits_for_its_owner() {
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
    async fn a_lock_is_kept_only_while_somebody_holds_it_or_waits_for_it() {
        let locks = UserLocks::default();
        let held = locks.lock(ADA, None).await;
        let mut waiting = Box::pin(locks.lock(ADA, None));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(locks.lock(ADA, None).now_or_never().is_none(), "this one gives up");
        drop(held);
        assert_eq!(locks.map().len(), 1, "somebody waits");
        let held = waiting.await;
        assert!(locks.lock(ADA, None).now_or_never().is_none(), "the one who waited has it");
        drop(held);
        assert!(locks.map().is_empty());
    }
}
