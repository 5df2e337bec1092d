//! The only place that asks for the time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Serialize, Serializer};

/// A point in time in UTC, cut to microseconds: the precision that both databases keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The same point as chrono's type. Answers and logs are written by [`fmt::Display`] alone.
    pub fn utc(self) -> DateTime<Utc> {
        self.0
    }

    /// What every time looks like that is written: always six digits of a second, so that text sorts as time does.
    pub const PATTERN: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$";

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.timestamp()
    }

    fn of_micros(since_1970: i64) -> Self {
        Self(DateTime::from_timestamp_micros(since_1970).unwrap_or(DateTime::<Utc>::MAX_UTC))
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

/// RFC 3339 in UTC, as [`Timestamp::PATTERN`] says.
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

/// The source of time, which never goes backwards: when the system's clock is set back, time goes on from where it was,
/// at the pace of the monotonic clock, until the process ends. So no such step lengthens the life of anything.
///
/// Clones share one state, so a test that advances its clock moves the whole server.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// What tests have let pass, in microseconds.
    advanced: AtomicU64,
    pace: Pace,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Shared { started: Instant::now(), advanced: AtomicU64::new(0), pace: Pace::default() }))
    }
}

impl Clock {
    /// The present.
    pub fn now(&self) -> Timestamp {
        // The time of day first: a pause between the two must not look like a clock that was set forward.
        let since_1970 = time_of_day();
        let since_start = micros(self.0.started.elapsed());
        let advanced = i64::try_from(self.0.advanced.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        Timestamp::of_micros(self.0.pace.time(Reading { since_1970, since_start }).saturating_add(advanced))
    }

    /// How long this clock has run, whatever becomes of the time of day.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed() + Duration::from_micros(self.0.advanced.load(Ordering::Relaxed))
    }

    /// Lets `seconds` pass for this clock and its clones, for tests. There is no way back.
    pub fn advance(&self, seconds: u32) {
        self.0.advanced.fetch_add(u64::from(seconds) * 1_000_000, Ordering::Relaxed);
    }
}

/// The time of day as the system tells it, in microseconds since 1970. It may go backwards; log lines use it, because they
/// stand beside those of other programs.
pub fn time_of_day() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or_else(|before| -micros(before.duration()), micros)
}

/// By way of seconds, because `as_micros` divides 128 bits.
fn micros(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000).saturating_add(i64::from(duration.subsec_micros()))
}

/// What the system's two clocks say, in microseconds.
#[derive(Clone, Copy)]
struct Reading {
    /// The time of day, which anybody may set.
    since_1970: i64,
    /// The monotonic clock, which nobody can.
    since_start: i64,
}

/// Makes one time of two clocks: the later of the time of day, and of any earlier one plus what has passed since.
#[derive(Debug)]
struct Pace {
    /// The most by which the time of day was ever ahead of the time since the start.
    lead: AtomicI64,
    /// Whether the log knows that the time of day is behind.
    told: AtomicBool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { lead: AtomicI64::new(i64::MIN), told: AtomicBool::new(false) }
    }
}

impl Pace {
    /// A step back that is worth a line in the log, in microseconds.
    const STEP: i64 = 1_000_000;

    /// Microseconds since 1970.
    fn time(&self, reading: Reading) -> i64 {
        let lead = reading.since_1970.saturating_sub(reading.since_start);
        let mut most = self.lead.load(Ordering::Relaxed);
        // Seldom: whoever only reads does not take the line of memory from the others.
        if lead > most {
            most = self.lead.fetch_max(lead, Ordering::Relaxed).max(lead);
        }
        self.tell(most.saturating_sub(lead));
        reading.since_start.saturating_add(most)
    }

    /// Tells the log once for each time that the time of day falls behind.
    fn tell(&self, behind: i64) {
        let is_behind = behind >= Self::STEP;
        if self.told.load(Ordering::Relaxed) == is_behind || self.told.swap(is_behind, Ordering::Relaxed) == is_behind {
            return;
        }
        if is_behind {
            let seconds = behind / 1_000_000;
            log::warn!(
                "the system's clock was set back by {seconds} s; until a restart time goes on from where it was"
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
        fn a_time_is_written_with_six_digits_and_read_as_it_was(
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

    const HOUR: i64 = 3_600_000_000;
    const START: i64 = 1_800_000_000_000_000;

    fn time(pace: &Pace, since_start: i64, set: i64) -> i64 {
        pace.time(Reading { since_1970: START + since_start + set, since_start }) - START
    }

    #[test]
    fn time_is_the_time_of_day_while_nobody_sets_it() {
        let pace = Pace::default();
        for passed in [0, 1, 2, HOUR] {
            assert_eq!(time(&pace, passed, 0), passed);
        }
    }

    #[test]
    fn set_back_time_goes_on_from_where_it_was_at_its_pace() {
        let pace = Pace::default();
        assert_eq!(time(&pace, HOUR, 0), HOUR);
        assert_eq!(time(&pace, HOUR, -2 * HOUR), HOUR, "it stands where it was");
        assert_eq!(time(&pace, HOUR + 1, -2 * HOUR), HOUR + 1, "and goes on");
        assert_eq!(time(&pace, 24 * HOUR, -1000 * HOUR), 24 * HOUR, "however often it is set back");
        assert_eq!(time(&pace, 25 * HOUR, 0), 25 * HOUR, "and is right when it is right again");
    }

    #[test]
    fn set_forward_time_follows_and_does_not_come_back() {
        let pace = Pace::default();
        assert_eq!(time(&pace, 0, 0), 0);
        assert_eq!(time(&pace, 1, HOUR), HOUR + 1);
        assert_eq!(time(&pace, 2, 0), HOUR + 2);
        assert_eq!(time(&pace, 3, 2 * HOUR), 2 * HOUR + 3);
    }

    #[test]
    fn each_step_back_is_told_once() {
        let pace = Pace::default();
        let told = || pace.told.load(Ordering::Relaxed);
        for (set, expected) in [(0, false), (1 - 1_000_000, false), (-1_000_000, true), (-HOUR, true), (0, false)] {
            time(&pace, 0, set);
            assert_eq!(told(), expected, "{set}");
        }
    }

    #[test]
    fn no_thread_sees_time_go_backwards_whatever_is_set_meanwhile() {
        let (pace, latest) = (Pace::default(), AtomicI64::new(i64::MIN));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (pace, latest) = (&pace, &latest);
                scope.spawn(move || {
                    for step in 0..20_000 {
                        let seen = latest.load(Ordering::SeqCst);
                        let set = (step * 7_919 + thread * 104_729) % HOUR - HOUR / 2;
                        let now = time(pace, step, set) - step;
                        assert!(now >= seen, "{now} after {seen}");
                        latest.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn what_a_test_lets_pass_moves_all_clones_and_both_clocks() {
        let clock = Clock::default();
        let (before, uptime) = (clock.clone().now(), clock.uptime());
        clock.advance(60);
        let (passed, run) = (clock.now().0 - before.0, clock.clone().uptime() - uptime);
        assert!(passed >= TimeDelta::seconds(60) && passed < TimeDelta::seconds(90), "{passed}");
        assert!(run >= Duration::from_secs(60) && run < Duration::from_secs(90), "{run:?}");
    }
}
