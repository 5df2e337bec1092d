//! The only place that asks for the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDateTime, SubsecRound, TimeDelta, Utc};

/// A point in time in UTC, cut to microseconds: the precision that both databases keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The same point as chrono's type, for JSON (RFC 3339 with `Z`).
    pub fn utc(self) -> DateTime<Utc> {
        self.0
    }

    /// What [`Self::parse`] takes, for people.
    pub const FORM: &str = "Use a time with its offset as in RFC 3339: 2030-01-31T12:00:00Z.";

    /// Reads a point in time with its offset (RFC 3339).
    pub fn parse(text: &str) -> Option<Self> {
        let moment = DateTime::parse_from_rfc3339(text).ok()?;
        // By way of a number, so that a leap second becomes the second after it.
        DateTime::from_timestamp_micros(moment.timestamp_micros()).map(Self)
    }

    /// The same point without its zone, as a `TIMESTAMP` column holds it.
    pub fn naive(self) -> NaiveDateTime {
        self.0.naive_utc()
    }

    /// This point moved by `seconds`, held at the end of time if that is beyond it.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        let delta = TimeDelta::try_seconds(seconds).unwrap_or(TimeDelta::MAX);
        Self(self.0.checked_add_signed(delta).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }
}

impl From<NaiveDateTime> for Timestamp {
    fn from(naive: NaiveDateTime) -> Self {
        Self(naive.and_utc())
    }
}

/// The source of time. Clones share one offset, so a test that advances its clock moves the whole server.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_micros: Arc<AtomicI64>,
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset_micros: Arc::default(), started: Instant::now() }
    }
}

impl Clock {
    /// The present.
    pub fn now(&self) -> Timestamp {
        let offset = TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed));
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let now = Utc::now();
        Timestamp((now + offset).trunc_subsecs(6))
    }

    /// How long this clock has run, whatever becomes of the time of day.
    pub fn uptime(&self) -> Duration {
        let offset = Duration::from_micros(self.offset_micros.load(Ordering::Relaxed).try_into().unwrap_or(0));
        self.started.elapsed() + offset
    }

    /// Moves this clock and its clones by `seconds`, backwards when negative.
    pub fn advance(&self, seconds: i64) {
        self.offset_micros.fetch_add(seconds.saturating_mul(1_000_000), Ordering::Relaxed);
    }
}
