//! The hours in which a key was used, until they are counted for statistics.

use crate::clock::Timestamp;
use crate::domain::stats::Counts;

/// The hours in which a key was used and that are not counted yet: the latest, and up to 63 hours before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedHours {
    latest: i64,
    /// Bit 0 is the latest hour, bit 1 the hour before it, and so on.
    bits: u64,
}

impl UsedHours {
    /// The hour of one use.
    pub(super) fn of(at: Timestamp) -> Self {
        Self { latest: at.hour(), bits: 1 }
    }

    /// The hours of both.
    pub(super) fn and(self, other: Self) -> Self {
        let latest = self.latest.max(other.latest);
        Self { latest, bits: self.bits_up_to(latest) | other.bits_up_to(latest) }
    }

    fn bits_up_to(self, latest: i64) -> u64 {
        let shift = u32::try_from(latest - self.latest).ok();
        shift.and_then(|shift| self.bits.checked_shl(shift)).unwrap_or_default()
    }

    /// What the hours add to the statistics, by the start of the hour, oldest first. `stored` is the last use that is
    /// stored: an hour that it does not precede is counted already, by this process or by another.
    pub(super) fn counts_after(self, stored: Option<Timestamp>) -> Vec<(Timestamp, Counts)> {
        let hours = (0..i64::from(u64::BITS)).rev().filter(|age| self.bits >> age & 1 == 1);
        let (mut previous, mut counts) = (stored, Vec::new());
        for start in hours.map(|age| Timestamp::start_of_hour(self.latest - age)) {
            let is_new_since = |start: Timestamp| previous.is_none_or(|previous| previous < start);
            if is_new_since(start) {
                let keys_new_in_day = i64::from(is_new_since(start.start_of_day()));
                counts.push((start, Counts { keys_used: 1, keys_new_in_day, ..Counts::default() }));
                previous = Some(start);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(&format!("2026-{text}:00Z")).unwrap()
    }

    fn used(times: &[&str]) -> UsedHours {
        times.iter().map(|time| UsedHours::of(at(time))).reduce(UsedHours::and).unwrap()
    }

    fn month_to_minute(time: Timestamp) -> String {
        time.to_string().chars().skip(5).take(11).collect()
    }

    /// Each hour that is counted, and whether the key is new in its day.
    fn counted(hours: UsedHours, stored: Option<&str>) -> Vec<(String, bool)> {
        let counts = hours.counts_after(stored.map(at));
        assert!(counts.iter().all(|(_, counts)| counts.keys_used == 1));
        counts.iter().map(|(start, counts)| (month_to_minute(*start), counts.keys_new_in_day == 1)).collect()
    }

    fn expected(hours: &[(&str, bool)]) -> Vec<(String, bool)> {
        hours.iter().map(|(hour, is_new)| ((*hour).to_owned(), *is_new)).collect()
    }

    #[test]
    fn each_hour_counts_once_and_the_first_of_a_day_also_for_the_day() {
        let hours = used(&["11-30T22:10", "12-01T00:05", "11-30T22:50", "12-01T02:00", "11-30T23:59"]);
        let all = [("11-30T22:00", true), ("11-30T23:00", false), ("12-01T00:00", true), ("12-01T02:00", false)];
        assert_eq!(counted(hours, None), expected(&all));
        assert_eq!(counted(hours, Some("11-29T23:59")), expected(&all));
        assert_eq!(counted(hours, Some("11-30T01:00"))[0], ("11-30T22:00".to_owned(), false));
        assert_eq!(counted(hours, Some("11-30T23:00")), expected(&all[2..]), "another process has counted the others");
        assert_eq!(counted(hours, Some("12-01T02:30")), []);
    }

    #[test]
    fn the_latest_64_hours_are_remembered() {
        let last = at("12-03T16:00");
        let hours = (0..100).map(|hour| UsedHours::of(last.plus_seconds(-3_600 * hour)));
        let counts = hours.reduce(UsedHours::and).unwrap().counts_after(None);
        assert_eq!((counts.len(), counts[0].0, counts[63].0), (64, last.plus_seconds(-3_600 * 63), last));
    }
}
