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

/// Logs once when work has failed for a minute without a success, and when it succeeds again. For work that often fails
/// for a moment.
#[derive(Debug)]
pub struct LongFailure {
    log: RepeatedFailure,
    /// When the work began to fail, and whether that was logged.
    failing: Mutex<Option<(Instant, bool)>>,
}

impl LongFailure {
    /// As [`RepeatedFailure::new`].
    pub fn new(work: &'static str) -> Self {
        Self { log: RepeatedFailure::new(work), failing: Mutex::default() }
    }

    /// Logs the failure if the work has failed for a minute, once until it succeeds.
    pub fn failed(&self, error: &impl Display) {
        let is_due = {
            let mut failing = self.failing();
            let (since, is_logged) = failing.get_or_insert((Instant::now(), false));
            let is_due = !*is_logged && since.elapsed() >= INTERVAL;
            *is_logged |= is_due;
            is_due
        };
        if is_due {
            self.log.failed(error);
        }
    }

    /// Logs that the work succeeds again, if its last failure was logged.
    pub fn succeeded(&self) {
        *self.failing() = None;
        self.log.succeeded();
    }

    fn failing(&self) -> MutexGuard<'_, Option<(Instant, bool)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_lasts_a_minute_is_logged_once_and_a_shorter_one_is_not() {
        let failure = LongFailure::new("count");
        let is_logged = || failure.log.state().is_failing;
        failure.failed(&"one");
        failure.succeeded();
        failure.failed(&"two");
        assert!(!is_logged(), "the time of the first failure does not count");
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        *failure.failing() = Some((long_ago, false));
        failure.failed(&"three");
        assert!(is_logged());
        failure.log.state().logged_at = Some(long_ago);
        failure.failed(&"four");
        assert_eq!(failure.log.state().logged_at, Some(long_ago), "logged once only");
        failure.succeeded();
        assert!(!is_logged() && failure.failing().is_none());
    }

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
