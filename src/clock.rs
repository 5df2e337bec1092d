//! The clock: the only module that reads the system time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Serialize, Serializer};

/// A point in time in UTC, truncated to microseconds, which is the precision of both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The time as chrono's type. Use [`fmt::Display`] for responses and logs.
    pub fn utc(self) -> DateTime<Utc> {
        self.0
    }

    /// A regular expression for the text of a time. The fraction always has six digits, so that the text sorts by time.
    pub const PATTERN: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$";

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.timestamp()
    }

    fn of_micros(since_1970: i64) -> Self {
        Self(DateTime::from_timestamp_micros(since_1970).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// The format that [`Self::parse`] accepts, for error messages.
    pub const FORMAT_HINT: &str = "Use a time with an offset as in RFC 3339, such as 2030-01-31T12:00:00Z.";

    /// Parses a time with an offset (RFC 3339). Returns `None` for invalid text.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = DateTime::parse_from_rfc3339(text).ok()?;
        // The conversion to a number turns a leap second into the second after it.
        DateTime::from_timestamp_micros(moment.timestamp_micros()).map(Self)
    }

    /// The start of the day in UTC.
    #[must_use]
    pub fn start_of_day(self) -> Self {
        let micros = self.0.timestamp_micros();
        Self::of_micros(micros - micros.rem_euclid(86_400_000_000))
    }

    /// The hour in UTC that contains this time, counted from 1970.
    pub fn hour(self) -> i64 {
        self.seconds().div_euclid(3_600)
    }

    /// The start of an hour in UTC, counted from 1970.
    pub fn start_of_hour(hour: i64) -> Self {
        Self::of_micros(hour.saturating_mul(3_600_000_000))
    }

    /// The date and the minute in UTC, for people, such as `2026-11-25 20:00 UTC`.
    pub fn to_minutes(self) -> String {
        self.0.format("%Y-%m-%d %H:%M UTC").to_string()
    }

    /// The time in UTC without a zone, for a `TIMESTAMP` column.
    pub fn naive(self) -> NaiveDateTime {
        self.0.naive_utc()
    }

    /// The time `seconds` later, or the latest possible time if that is exceeded.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        let delta = TimeDelta::try_seconds(seconds).unwrap_or(TimeDelta::MAX);
        Self(self.0.checked_add_signed(delta).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }
}

/// RFC 3339 in UTC, in the form of [`Timestamp::PATTERN`].
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<NaiveDateTime> for Timestamp {
    fn from(naive: NaiveDateTime) -> Self {
        Self(naive.and_utc())
    }
}

/// A clock that never goes backwards. If the system clock is set back, time continues from its latest value at the rate
/// of the monotonic clock until the process ends, so that no token lives longer than intended.
///
/// Clones share their state, so a test that advances its clock advances the whole server.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// The time at which the clock stands still, in microseconds since 1970.
    stopped_at: Option<i64>,
    /// The microseconds by which tests have advanced the clock.
    advanced: AtomicU64,
    time: MonotonicTime,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Clock {
    /// A clock that stands still, for tests: only [`advance`](Self::advance) changes its time.
    pub fn stopped() -> Self {
        Self::new(Some(time_of_day()))
    }

    fn new(stopped_at: Option<i64>) -> Self {
        let (started, time) = (Instant::now(), MonotonicTime::default());
        Self(Arc::new(Shared { started, stopped_at, advanced: AtomicU64::new(0), time }))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        let advanced = i64::try_from(self.0.advanced.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        Timestamp::of_micros(self.0.stopped_at.unwrap_or_else(|| self.running()).saturating_add(advanced))
    }

    /// The time of a clock that does not stand still, in microseconds since 1970.
    fn running(&self) -> i64 {
        // The time of day is read first, so that a pause between the two reads does not look like a clock that was set
        // forward.
        let since_1970 = time_of_day();
        let since_start = micros(self.0.started.elapsed());
        self.0.time.advance_to(Reading { since_1970, since_start })
    }

    /// The time since this clock was created. Changes of the system clock do not affect it.
    pub fn uptime(&self) -> Duration {
        let elapsed = if self.0.stopped_at.is_some() { Duration::ZERO } else { self.0.started.elapsed() };
        elapsed + Duration::from_micros(self.0.advanced.load(Ordering::Relaxed))
    }

    /// Advances this clock and its clones by `seconds`, for tests. This cannot be undone.
    pub fn advance(&self, seconds: u32) {
        self.0.advanced.fetch_add(u64::from(seconds) * 1_000_000, Ordering::Relaxed);
    }
}

/// The system time in microseconds since 1970. It can go backwards. Log lines use it, so that they match the times of
/// other programs.
pub fn time_of_day() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the only module that reads the system time")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or_else(|before| -micros(before.duration()), micros)
}

/// Microseconds of a duration. `Duration::as_micros` is slower, because it divides 128-bit numbers.
fn micros(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000).saturating_add(i64::from(duration.subsec_micros()))
}

/// A reading of the two clocks of the system, in microseconds.
#[derive(Clone, Copy)]
struct Reading {
    /// The time of day, which can be set.
    since_1970: i64,
    /// The monotonic clock, which cannot be set.
    since_start: i64,
}

/// Derives one monotonic time from both clocks: the monotonic clock plus the largest offset of the time of day so far.
#[derive(Debug)]
struct MonotonicTime {
    /// The largest difference so far between the time of day and the monotonic clock.
    offset: AtomicI64,
    /// Whether it was logged that the time of day is behind.
    is_logged: AtomicBool,
}

impl Default for MonotonicTime {
    fn default() -> Self {
        Self { offset: AtomicI64::new(i64::MIN), is_logged: AtomicBool::new(false) }
    }
}

impl MonotonicTime {
    /// The step back from which on it is logged, in microseconds.
    const LOGGED_STEP: i64 = 1_000_000;

    /// The time at this reading, in microseconds since 1970.
    fn advance_to(&self, reading: Reading) -> i64 {
        let offset = reading.since_1970.saturating_sub(reading.since_start);
        let mut max_offset = self.offset.load(Ordering::Relaxed);
        // The write is rare, so that threads do not contend for the cache line.
        if offset > max_offset {
            max_offset = self.offset.fetch_max(offset, Ordering::Relaxed).max(offset);
        }
        self.log_step_back(max_offset.saturating_sub(offset));
        reading.since_start.saturating_add(max_offset)
    }

    /// Logs once each time that the time of day falls behind, by `behind` microseconds.
    fn log_step_back(&self, behind: i64) {
        let is_behind = behind >= Self::LOGGED_STEP;
        if self.is_logged.load(Ordering::Relaxed) == is_behind
            || self.is_logged.swap(is_behind, Ordering::Relaxed) == is_behind
        {
            return;
        }
        if is_behind {
            let seconds = behind / 1_000_000;
            log::warn!(
                "the system's clock was set back by {seconds} s; until a restart, time continues from its latest \
                 value"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_written_with_six_digits_and_parsed_unchanged(
            seconds in 0_i64..253_402_300_800, micros in prop_oneof![Just(0), Just(120_000), Just(999_000), 0_i64..1_000_000],
        ) {
            let time = Timestamp::of_micros(seconds * 1_000_000 + micros);
            let text = time.to_string();
            prop_assert_eq!(text.len(), "2026-11-25T20:00:00.000000Z".len());
            prop_assert!(text.ends_with(&format!(".{micros:06}Z")), "{}", text);
            prop_assert_eq!(Timestamp::parse(&text), Some(time));
            prop_assert_eq!(serde_json::to_string(&time).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_day_starts_at_midnight_in_utc() {
        for (time, start) in [
            ("2026-11-27T23:59:59.999999Z", "2026-11-27T00:00:00.000000Z"),
            ("2026-11-27T00:00:00Z", "2026-11-27T00:00:00.000000Z"),
            ("1969-12-31T12:00:00Z", "1969-12-31T00:00:00.000000Z"),
        ] {
            assert_eq!(Timestamp::parse(time).unwrap().start_of_day().to_string(), start);
        }
    }

    #[test]
    fn an_hour_contains_its_start_and_not_its_end() {
        for (time, start) in [
            ("2026-11-27T23:59:59.999999Z", "2026-11-27T23:00:00.000000Z"),
            ("2026-11-28T00:00:00Z", "2026-11-28T00:00:00.000000Z"),
            ("2026-11-28T00:29:00+05:30", "2026-11-27T18:00:00.000000Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:00:00.000000Z"),
        ] {
            let hour = Timestamp::parse(time).unwrap().hour();
            assert_eq!(Timestamp::start_of_hour(hour).to_string(), start, "{time}");
            assert_eq!(Timestamp::start_of_hour(hour).hour(), hour, "{time}");
        }
    }

    const HOUR: i64 = 3_600_000_000;
    const START: i64 = 1_800_000_000_000_000;

    fn time(clock: &MonotonicTime, since_start: i64, set: i64) -> i64 {
        clock.advance_to(Reading { since_1970: START + since_start + set, since_start }) - START
    }

    #[test]
    fn time_is_the_time_of_day_while_the_clock_is_not_set() {
        let clock = MonotonicTime::default();
        for passed in [0, 1, 2, HOUR] {
            assert_eq!(time(&clock, passed, 0), passed);
        }
    }

    #[test]
    fn after_the_clock_is_set_back_time_continues_from_its_latest_value() {
        let clock = MonotonicTime::default();
        assert_eq!(time(&clock, HOUR, 0), HOUR);
        assert_eq!(time(&clock, HOUR, -2 * HOUR), HOUR, "time does not go back");
        assert_eq!(time(&clock, HOUR + 1, -2 * HOUR), HOUR + 1, "and continues");
        assert_eq!(time(&clock, 24 * HOUR, -1000 * HOUR), 24 * HOUR, "also after a second step back");
        assert_eq!(time(&clock, 25 * HOUR, 0), 25 * HOUR, "and is correct when the clock is correct again");
    }

    #[test]
    fn after_the_clock_is_set_forward_time_follows_and_does_not_go_back() {
        let clock = MonotonicTime::default();
        assert_eq!(time(&clock, 0, 0), 0);
        assert_eq!(time(&clock, 1, HOUR), HOUR + 1);
        assert_eq!(time(&clock, 2, 0), HOUR + 2);
        assert_eq!(time(&clock, 3, 2 * HOUR), 2 * HOUR + 3);
    }

    #[test]
    fn each_step_back_is_logged_once() {
        let clock = MonotonicTime::default();
        let is_logged = || clock.is_logged.load(Ordering::Relaxed);
        for (set, expected) in [(0, false), (1 - 1_000_000, false), (-1_000_000, true), (-HOUR, true), (0, false)] {
            time(&clock, 0, set);
            assert_eq!(is_logged(), expected, "{set}");
        }
    }

    #[test]
    fn no_thread_sees_time_go_backwards_while_the_clock_is_set() {
        let (clock, latest) = (MonotonicTime::default(), AtomicI64::new(i64::MIN));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (clock, latest) = (&clock, &latest);
                scope.spawn(move || {
                    for step in 0..20_000 {
                        let seen = latest.load(Ordering::SeqCst);
                        let set = (step * 7_919 + thread * 104_729) % HOUR - HOUR / 2;
                        let now = time(clock, step, set) - step;
                        assert!(now >= seen, "{now} after {seen}");
                        latest.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_stopped_clock_shows_only_the_time_by_which_it_was_advanced() {
        let clock = Clock::stopped();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!((clock.now(), clock.uptime()), (before, Duration::ZERO));
        clock.clone().advance(60);
        assert_eq!((clock.now(), clock.uptime()), (before.plus_seconds(60), Duration::from_secs(60)));
    }

    #[test]
    fn advancing_a_clock_advances_its_clones_and_the_uptime() {
        let clock = Clock::default();
        let (before, uptime) = (clock.clone().now(), clock.uptime());
        clock.advance(60);
        let (passed, run) = (clock.now().0 - before.0, clock.clone().uptime() - uptime);
        assert!(passed >= TimeDelta::seconds(60) && passed < TimeDelta::seconds(90), "{passed}");
        assert!(run >= Duration::from_secs(60) && run < Duration::from_secs(90), "{run:?}");
    }
}
