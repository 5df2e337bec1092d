//! Changes by one user take turns before they take a connection. They would wait for each other in the database anyway,
//! where each holds a connection meanwhile: one user with many requests could then keep out all others.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::domain::id::UserId;

/// Users share turns by their ids.
const SLOTS: usize = 1024;

/// Whose turn it is, for each user.
pub(super) struct Turns(Box<[Arc<Mutex<()>>]>);

/// A turn, until it is dropped.
pub(super) type Turn = Option<OwnedMutexGuard<()>>;

impl Default for Turns {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    /// Waits for the turn of this user; whoever is nobody needs none.
    pub(super) async fn take(&self, user: Option<UserId>) -> Turn {
        let slot = user.and_then(|user| self.0.get(usize::try_from(user.0).unwrap_or(0) % SLOTS))?;
        Some(Arc::clone(slot).lock_owned().await)
    }
}
