//! Tracks whether the database is unavailable, so that cached credentials may pass reads (`auth.serve_stale_seconds`).
//!
//! An outage begins when a lookup fails for which there is a cached credential. During an outage, reads with a cached
//! credential do not wait for the database. A background lookup checks when the outage is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Interval of the background lookups during an outage.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How long the database must have answered before the end of the outage is logged: older connections may still hang.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// The state of the database, as far as the service knows it.
pub(crate) struct Outage {
    started: Instant,
    is_on: AtomicBool,
    /// When the next background lookup is due, in milliseconds since `started`.
    next_probe: AtomicU64,
    /// When the latest lookup succeeded, in milliseconds since `started`.
    answered_at: AtomicU64,
    /// When an outage was last observed, in milliseconds since `started`.
    seen_at: AtomicU64,
    /// Whether the beginning of the outage is logged, and its end is not.
    log_written: AtomicBool,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            is_on: AtomicBool::new(false),
            next_probe: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            seen_at: AtomicU64::new(0),
            log_written: AtomicBool::new(false),
        }
    }

    /// Records that the database does not answer and that a stale credential is served.
    pub(crate) fn begin(&self) {
        self.seen_at.store(self.now(), Ordering::Relaxed);
        if !self.is_on() && !self.is_on.swap(true, Ordering::Relaxed) {
            self.next_probe.store(self.now() + millis(PROBE_INTERVAL), Ordering::Relaxed);
        }
        if !self.log_written.load(Ordering::Relaxed) && !self.log_written.swap(true, Ordering::Relaxed) {
            log::warn!("the database does not answer: cached credentials pass reads (auth.serve_stale_seconds)");
        }
    }

    /// Records that the database can be reached again. Lookups may still fail.
    pub(crate) fn end(&self) {
        if self.is_on() && self.is_on.swap(false, Ordering::Relaxed) {
            self.seen_at.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Records that a lookup succeeded.
    pub(crate) fn lookup_answered(&self) {
        self.answered_at.store(self.now(), Ordering::Relaxed);
        self.end();
    }

    /// Call this after each read of the change log. Logs the end of the outage, once the database has answered for a
    /// second.
    pub(crate) fn log_end_if_stable(&self) {
        let is_over = !self.is_on() && self.now() >= self.seen_at.load(Ordering::Relaxed) + millis(STABLE_AFTER);
        if is_over && self.log_written.load(Ordering::Relaxed) && self.log_written.swap(false, Ordering::Relaxed) {
            log::info!("the database answers again: cached credentials are no longer served without it");
        }
    }

    /// Whether a lookup succeeded after `start`. Then the failure of a lookup that began at `start` proves no outage.
    pub(crate) fn answered_since(&self, start: u64) -> bool {
        self.answered_at.load(Ordering::Relaxed) > start
    }

    /// Whether there is an outage.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether a background lookup is due. Returns `true` to one caller per interval.
    pub(crate) fn claim_probe(&self) -> bool {
        let (now, due) = (self.now(), self.next_probe.load(Ordering::Relaxed));
        let next = now + millis(PROBE_INTERVAL);
        now >= due && self.next_probe.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The current time, in milliseconds since `started`.
    pub(crate) fn now(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_until_the_database_answers_and_one_caller_at_a_time_probes_it() {
        let outage = Outage::new();
        assert!(!outage.is_on());
        outage.begin();
        assert!(outage.is_on());
        assert!(!outage.claim_probe(), "the failed lookup was the first probe");
        outage.next_probe.store(0, Ordering::Relaxed);
        assert!(outage.claim_probe());
        assert!(!outage.claim_probe(), "another caller has the probe of this interval");
        outage.begin();
        assert!(!outage.claim_probe());
        outage.lookup_answered();
        assert!(!outage.is_on());
    }

    #[test]
    fn a_lookup_that_began_before_another_one_succeeded_proves_no_outage() {
        let outage = Outage::new();
        assert!(!outage.answered_since(outage.now()));
        outage.answered_at.store(5, Ordering::Relaxed);
        assert!(outage.answered_since(4));
        assert!(!outage.answered_since(5));
    }

    #[test]
    fn an_outage_is_logged_once() {
        let outage = Outage::new();
        outage.begin();
        assert!(outage.log_written.load(Ordering::Relaxed));
        outage.end();
        assert!(outage.log_written.load(Ordering::Relaxed), "a lookup may fail again");
        outage.lookup_answered();
        outage.log_end_if_stable();
        assert!(outage.log_written.load(Ordering::Relaxed), "the database has answered for less than a second");
        outage.seen_at.store(0, Ordering::Relaxed);
        let stable = Outage { started: outage.started - Duration::from_secs(1), ..outage };
        stable.log_end_if_stable();
        assert!(!stable.log_written.load(Ordering::Relaxed));
    }
}
