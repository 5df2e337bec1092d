//! Log lines about work that is repeated at short intervals and can fail every time.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Minimum time between two lines about the failures of the same work.
const INTERVAL: Duration = Duration::from_secs(60);

/// Logs when repeated work begins to fail, and when it succeeds again, at most once a minute each.
#[derive(Debug)]
pub struct RepeatedFailure {
    /// The work, as in "cannot … again".
    work: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a failure was last logged.
    logged_at: Option<Instant>,
    /// Whether the work has not succeeded since then.
    is_failing: bool,
}

impl RepeatedFailure {
    /// `work` completes the sentence "cannot …", such as `write the last use of keys`.
    pub fn new(work: &'static str) -> Self {
        Self { work, state: Mutex::default() }
    }

    /// Logs a failure, unless one was logged within the last minute.
    pub fn failed(&self, error: &impl Display) {
        let mut state = self.state();
        if state.logged_at.is_none_or(|at| at.elapsed() >= INTERVAL) {
            *state = State { logged_at: Some(Instant::now()), is_failing: true };
            log::warn!("cannot {}, will try again: {error}", self.work);
        }
    }

    /// Logs that the work succeeds again, if its last failure was logged.
    pub fn succeeded(&self) {
        if std::mem::take(&mut self.state().is_failing) {
            log::info!("can {} again", self.work);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_a_minute_even_if_the_work_succeeds_meanwhile() {
        let failure = RepeatedFailure::new("count");
        failure.succeeded();
        assert_eq!(failure.state().logged_at, None);
        failure.failed(&"one");
        let first = failure.state().logged_at;
        assert!(first.is_some() && failure.state().is_failing);
        failure.succeeded();
        failure.failed(&"two");
        assert!(failure.state().logged_at == first && !failure.state().is_failing, "not logged again");
        failure.state().logged_at = Instant::now().checked_sub(Duration::from_secs(61));
        failure.failed(&"three");
        assert!(failure.state().logged_at > first && failure.state().is_failing, "logged again after a minute");
    }
}
