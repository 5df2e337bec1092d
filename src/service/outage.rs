//! Whether the database is known to be unavailable, so that cached credentials may pass reads meanwhile
//! (`auth.serve_stale_seconds`).
//!
//! An outage begins when a lookup fails for which there is a cached credential, never while the database answers. While it
//! lasts a cached credential does not wait for the database: one lookup beside the requests finds out when it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a lookup is tried during an outage.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How long the database must have answered before the log says so: connections from before may hang a little longer.
const CALM: Duration = Duration::from_secs(1);

/// The state of the database, as far as the service knows.
pub(super) struct Outage {
    started: Instant,
    is_on: AtomicBool,
    /// When the next lookup is tried, in milliseconds since `started`.
    next_probe: AtomicU64,
    /// When the latest lookup was answered, likewise.
    answered_at: AtomicU64,
    /// When an outage was last known to last, likewise.
    seen_at: AtomicU64,
    /// Whether the log says that cached credentials are served.
    is_logged: AtomicBool,
}

impl Outage {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            is_on: AtomicBool::new(false),
            next_probe: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            seen_at: AtomicU64::new(0),
            is_logged: AtomicBool::new(false),
        }
    }

    /// The database does not answer, and a cached credential is served without it.
    pub(super) fn begin(&self) {
        self.seen_at.store(self.now(), Ordering::Relaxed);
        if !self.is_on() && !self.is_on.swap(true, Ordering::Relaxed) {
            self.next_probe.store(self.now() + millis(PROBE_INTERVAL), Ordering::Relaxed);
        }
        if !self.is_logged.load(Ordering::Relaxed) && !self.is_logged.swap(true, Ordering::Relaxed) {
            log::warn!("the database does not answer: cached credentials pass reads (auth.serve_stale_seconds)");
        }
    }

    /// The database can be reached again. Whether lookups succeed is yet to be seen.
    pub(super) fn end(&self) {
        if self.is_on() && self.is_on.swap(false, Ordering::Relaxed) {
            self.seen_at.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A lookup was answered.
    pub(super) fn lookup_answered(&self) {
        self.answered_at.store(self.now(), Ordering::Relaxed);
        self.end();
    }

    /// The change log was read: the database answers, and if it has for a while, the log says that the outage is over.
    pub(super) fn settle(&self) {
        let is_over = !self.is_on() && self.now() >= self.seen_at.load(Ordering::Relaxed) + millis(CALM);
        if is_over && self.is_logged.load(Ordering::Relaxed) && self.is_logged.swap(false, Ordering::Relaxed) {
            log::info!("the database answers again: cached credentials are no longer served without it");
        }
    }

    /// Whether a lookup was answered after `asked`: one that began before and failed says nothing of the present.
    pub(super) fn answered_since(&self, asked: u64) -> bool {
        self.answered_at.load(Ordering::Relaxed) > asked
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one to try a lookup now.
    pub(super) fn takes_probe(&self) -> bool {
        let (now, due) = (self.now(), self.next_probe.load(Ordering::Relaxed));
        let next = now + millis(PROBE_INTERVAL);
        now >= due && self.next_probe.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The present, in milliseconds since the service was made.
    pub(super) fn now(&self) -> u64 {
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
    fn an_outage_lasts_until_the_database_answers_and_is_probed_by_one_at_a_time() {
        let outage = Outage::new();
        assert!(!outage.is_on());
        outage.begin();
        assert!(outage.is_on());
        assert!(!outage.takes_probe(), "the lookup that failed was one");
        outage.next_probe.store(0, Ordering::Relaxed);
        assert!(outage.takes_probe());
        assert!(!outage.takes_probe(), "somebody else is at it");
        outage.begin();
        assert!(!outage.takes_probe());
        outage.lookup_answered();
        assert!(!outage.is_on());
    }

    #[test]
    fn a_lookup_that_began_before_another_was_answered_proves_no_outage() {
        let outage = Outage::new();
        assert!(!outage.answered_since(outage.now()));
        outage.answered_at.store(5, Ordering::Relaxed);
        assert!(outage.answered_since(4));
        assert!(!outage.answered_since(5));
    }

    #[test]
    fn the_log_tells_of_an_outage_once() {
        let outage = Outage::new();
        outage.begin();
        assert!(outage.is_logged.load(Ordering::Relaxed));
        outage.end();
        assert!(outage.is_logged.load(Ordering::Relaxed), "a lookup may fail again");
        outage.lookup_answered();
        outage.settle();
        assert!(outage.is_logged.load(Ordering::Relaxed), "it has just answered");
        outage.seen_at.store(0, Ordering::Relaxed);
        let calm = Outage { started: outage.started - Duration::from_secs(1), ..outage };
        calm.settle();
        assert!(!calm.is_logged.load(Ordering::Relaxed));
    }
}
