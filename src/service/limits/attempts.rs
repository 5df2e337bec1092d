//! Queues of password attempts, by account and by client. Attempts run at the same time only while all of them could
//! fail without a delay of the account, and without exceeding the limit of the client. The others wait, and check the
//! failures again before they run. So guesses in parallel try no more passwords than guesses one after the other.
//!
//! Each process has its own queues. The failures are in the database ([`crate::service::limits::lockout`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::secret::Digest;
use crate::error::AppError;

/// Maximum number of running and waiting attempts on one account. Further ones fail with [`AppError::Busy`].
pub(crate) const QUEUE_PER_ACCOUNT: usize = 64;
/// Maximum number of running and waiting attempts of one client, which may be a network with many users.
pub(crate) const QUEUE_PER_CLIENT: usize = 1_024;

/// The running and waiting attempts of all accounts, or of all clients.
pub(crate) struct Attempts {
    running: Mutex<Running>,
    ended: watch::Sender<()>,
    max_attempts: usize,
}

#[derive(Default)]
struct Running {
    /// The numbers of the attempts of each account or client, the oldest first.
    by_key: HashMap<Digest, VecDeque<u64>>,
    last_number: u64,
}

/// A running or waiting attempt. Dropping it ends the attempt.
pub(crate) struct AttemptGuard {
    attempts: Arc<Attempts>,
    /// The account or client.
    key: Digest,
    number: u64,
}

impl Attempts {
    /// At most `max_attempts` at the same time for each account or client.
    pub(crate) fn new(max_attempts: usize) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), ended: watch::Sender::new(()), max_attempts })
    }

    /// Adds an attempt of this account or client.
    ///
    /// Errors: [`AppError::Busy`] if it has the maximum number of attempts.
    pub(crate) fn begin(self: &Arc<Self>, key: Digest) -> Result<AttemptGuard, AppError> {
        let mut running = self.running();
        running.last_number += 1;
        let number = running.last_number;
        let attempts = running.by_key.entry(key).or_default();
        if attempts.len() >= self.max_attempts {
            return Err(AppError::Busy("too many sign-ins of one account or client are in progress".into()));
        }
        attempts.push_back(number);
        Ok(AttemptGuard { attempts: Arc::clone(self), key, number })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AttemptGuard {
    /// The number of attempts of the same account or client that began earlier and have not ended.
    pub(crate) fn ahead(&self) -> usize {
        let running = self.attempts.running();
        let attempts = running.by_key.get(&self.key);
        attempts.and_then(|attempts| attempts.iter().position(|number| *number == self.number)).unwrap_or(0)
    }

    /// Waits until fewer than `max` attempts are ahead; with 0 as with 1.
    pub(crate) async fn wait_for_fewer_ahead(&self, max: usize) {
        let mut ended = self.attempts.ended.subscribe();
        while self.ahead() >= max.max(1) {
            // Never an error: this guard keeps the sender.
            if ended.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        let mut running = self.attempts.running();
        if let Some(attempts) = running.by_key.get_mut(&self.key) {
            attempts.retain(|number| *number != self.number);
            if attempts.is_empty() {
                running.by_key.remove(&self.key);
            }
        }
        drop(running);
        self.attempts.ended.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Digest {
        Digest::of(name)
    }

    #[tokio::test]
    async fn an_attempt_waits_for_earlier_ones_on_its_account_only() {
        let attempts = Attempts::new(64);
        let first = attempts.begin(account("ada")).unwrap();
        let second = attempts.begin(account("ada")).unwrap();
        let other = attempts.begin(account("eve")).unwrap();
        assert_eq!([first.ahead(), second.ahead(), other.ahead()], [0, 1, 0]);
        second.wait_for_fewer_ahead(2).await;
        let waiting = tokio::spawn(async move {
            second.wait_for_fewer_ahead(1).await;
            second.ahead()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), 0);
        drop(other);
        assert!(attempts.running().by_key.is_empty(), "ended attempts are removed");
    }

    #[test]
    fn an_account_has_at_most_the_maximum_number_of_attempts() {
        let attempts = Attempts::new(3);
        let mut guards: Vec<_> = (0..3).map(|_| attempts.begin(account("ada")).unwrap()).collect();
        assert!(matches!(attempts.begin(account("ada")), Err(AppError::Busy(_))));
        guards.pop();
        assert!(attempts.begin(account("ada")).is_ok());
    }
}
