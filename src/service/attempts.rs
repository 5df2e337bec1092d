//! Password attempts under way, by account and by client. So many run at once as could all fail without the account having
//! to wait, or the client having reached its limit; the others queue, and look at the failures again when it is their turn:
//! whoever guesses in parallel gains nothing.
//!
//! Each process has its own queue. The failures themselves are in the database ([`super::failures`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::secret::Digest;
use crate::error::AppError;

/// Attempts of one account that may run and queue; more are refused.
pub(super) const QUEUE_PER_ACCOUNT: usize = 64;
/// The same for one client, which may be a network with many users.
pub(super) const QUEUE_PER_CLIENT: usize = 1_024;

/// All attempts under way.
pub(super) struct Attempts {
    running: Mutex<Running>,
    ended: watch::Sender<()>,
    most: usize,
}

#[derive(Default)]
struct Running {
    /// The attempts of each account, or client, the oldest first.
    by_account: HashMap<Digest, VecDeque<u64>>,
    latest: u64,
}

/// An attempt under way, until it is dropped.
pub(super) struct AttemptGuard {
    of: Arc<Attempts>,
    account: Digest,
    number: u64,
}

impl Attempts {
    /// None yet; at most so many of one account or client.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), ended: watch::Sender::new(()), most })
    }

    /// One more attempt on this account. Errors: [`AppError::Busy`] if too many queue already.
    pub(super) fn begin(self: &Arc<Self>, account: Digest) -> Result<AttemptGuard, AppError> {
        let mut running = self.running();
        running.latest += 1;
        let number = running.latest;
        let attempts = running.by_account.entry(account).or_default();
        if attempts.len() >= self.most {
            return Err(AppError::Busy("too many sign-ins of one account or client are under way".into()));
        }
        attempts.push_back(number);
        Ok(AttemptGuard { of: Arc::clone(self), account, number })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AttemptGuard {
    /// How many attempts on the same account began earlier and are still under way.
    pub(super) fn ahead(&self) -> usize {
        let running = self.of.running();
        let attempts = running.by_account.get(&self.account);
        attempts.and_then(|attempts| attempts.iter().position(|number| *number == self.number)).unwrap_or(0)
    }

    /// Waits until fewer than `most` attempts are ahead.
    pub(super) async fn fewer_ahead_than(&self, most: usize) {
        let mut ended = self.of.ended.subscribe();
        while self.ahead() >= most.max(1) {
            // The sender lives as long as this guard.
            if ended.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        let mut running = self.of.running();
        if let Some(attempts) = running.by_account.get_mut(&self.account) {
            attempts.retain(|number| *number != self.number);
            if attempts.is_empty() {
                running.by_account.remove(&self.account);
            }
        }
        drop(running);
        self.of.ended.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Digest {
        Digest::of(name)
    }

    #[tokio::test]
    async fn an_attempt_waits_for_those_ahead_of_it_and_for_no_other_account() {
        let attempts = Attempts::new(64);
        let first = attempts.begin(account("ada")).unwrap();
        let second = attempts.begin(account("ada")).unwrap();
        let other = attempts.begin(account("eve")).unwrap();
        assert_eq!([first.ahead(), second.ahead(), other.ahead()], [0, 1, 0]);
        second.fewer_ahead_than(2).await;
        let waiting = tokio::spawn(async move {
            second.fewer_ahead_than(1).await;
            second.ahead()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), 0);
        drop(other);
        assert!(attempts.running().by_account.is_empty(), "nothing is kept of attempts that ended");
    }

    #[test]
    fn an_account_has_so_many_attempts_and_no_more() {
        let attempts = Attempts::new(3);
        let mut guards: Vec<_> = (0..3).map(|_| attempts.begin(account("ada")).unwrap()).collect();
        assert!(matches!(attempts.begin(account("ada")), Err(AppError::Busy(_))));
        guards.pop();
        assert!(attempts.begin(account("ada")).is_ok());
    }
}
