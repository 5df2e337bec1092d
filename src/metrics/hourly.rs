//! Counts of events by the hour in which they happen. A background task moves them to the database, for `GET /stats`.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::domain::stats::Counts;

/// Counts by hour, in hours since 1970.
pub type CountsByHour = BTreeMap<i64, Counts>;

/// An event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedEvent {
    /// A sign-in returned a credential.
    SignInSucceeded,
    /// A sign-in was rejected.
    SignInFailed,
    /// A limit refused a sign-in.
    SignInThrottled,
    /// A user registered.
    Registration,
    /// The guard allowed a request.
    RequestAuthorized,
    /// The guard refused a request.
    RequestRefused,
}

/// Counts events in memory. Counting takes no lock, except for the first event of an hour.
#[derive(Debug, Default)]
pub struct HourlyCounters {
    clock: Clock,
    /// The latest hours with an even and with an odd number. So an event at the end of an hour and one at the start of the
    /// next never change the same counts.
    even: Slot,
    odd: Slot,
    /// Counts of the hours before those of the slots, and counts that could not be written.
    earlier: Mutex<CountsByHour>,
}

/// The counts of one hour, on a cache line of their own: other values stay in the caches of all cores.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    hour: AtomicI64,
    sign_ins_succeeded: AtomicI64,
    sign_ins_failed: AtomicI64,
    sign_ins_throttled: AtomicI64,
    registrations: AtomicI64,
    requests_authorized: AtomicI64,
    requests_refused: AtomicI64,
    hash_queue_max: AtomicI64,
}

impl Slot {
    fn count_of(&self, event: CountedEvent) -> &AtomicI64 {
        match event {
            CountedEvent::SignInSucceeded => &self.sign_ins_succeeded,
            CountedEvent::SignInFailed => &self.sign_ins_failed,
            CountedEvent::SignInThrottled => &self.sign_ins_throttled,
            CountedEvent::Registration => &self.registrations,
            CountedEvent::RequestAuthorized => &self.requests_authorized,
            CountedEvent::RequestRefused => &self.requests_refused,
        }
    }

    /// Moves the counts to those of earlier hours. `counts` is locked, so the hour of the slot does not change.
    fn move_to(&self, counts: &mut CountsByHour) {
        let take = |count: &AtomicI64| count.swap(0, Ordering::Relaxed);
        let taken = Counts {
            sign_ins_succeeded: take(&self.sign_ins_succeeded),
            sign_ins_failed: take(&self.sign_ins_failed),
            sign_ins_throttled: take(&self.sign_ins_throttled),
            registrations: take(&self.registrations),
            requests_authorized: take(&self.requests_authorized),
            requests_refused: take(&self.requests_refused),
            hash_queue_max: take(&self.hash_queue_max),
            ..Counts::default()
        };
        if taken != Counts::default() {
            counts.entry(self.hour.load(Ordering::Relaxed)).or_default().add(taken);
        }
    }
}

impl HourlyCounters {
    /// All counts are 0.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Counts an event.
    pub fn add(&self, event: CountedEvent) {
        self.slot().count_of(event).fetch_add(1, Ordering::Relaxed);
    }

    /// Records that this many password hashes wait for a thread.
    pub fn hashes_wait(&self, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.slot().hash_queue_max.fetch_max(number, Ordering::Relaxed);
    }

    /// Removes and returns all counts.
    pub fn take(&self) -> CountsByHour {
        let mut earlier = self.earlier();
        self.even.move_to(&mut earlier);
        self.odd.move_to(&mut earlier);
        mem::take(&mut earlier)
    }

    /// Adds counts that [`take`](Self::take) returned and that were not written.
    pub fn put_back(&self, unwritten: CountsByHour) {
        let mut earlier = self.earlier();
        for (hour, counts) in unwritten {
            earlier.entry(hour).or_default().add(counts);
        }
    }

    /// The slot of the current hour.
    fn slot(&self) -> &Slot {
        let hour = self.clock.now().hour();
        let slot = if hour & 1 == 0 { &self.even } else { &self.odd };
        // A thread that sees the new hour must also see the counts at 0.
        if slot.hour.load(Ordering::Acquire) != hour {
            self.begin_hour(slot, hour);
        }
        slot
    }

    /// Moves the counts of the hour that used the slot before.
    #[cold]
    fn begin_hour(&self, slot: &Slot, hour: i64) {
        let mut earlier = self.earlier();
        slot.move_to(&mut earlier);
        slot.hour.store(hour, Ordering::Release);
    }

    fn earlier(&self) -> MutexGuard<'_, CountsByHour> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(counts: &CountsByHour) -> Vec<(i64, i64)> {
        counts.iter().map(|(hour, counts)| (*hour, counts.sign_ins_failed)).collect()
    }

    #[test]
    fn each_event_belongs_to_the_hour_in_which_it_happens() {
        let counters = HourlyCounters::default();
        let first = counters.clock.now().hour();
        let hours = [0, 1, 2, 3, 5, 29, 54];
        let mut passed = 0;
        for hour in hours {
            counters.clock.advance(u32::try_from((hour - passed) * 3_600).unwrap());
            passed = hour;
            (0..=hour).for_each(|_| counters.add(CountedEvent::SignInFailed));
        }
        let expected: Vec<_> = hours.map(|hour| (first + hour, hour + 1)).into();
        // The hour can end during this test.
        let later: Vec<_> = expected.iter().map(|(hour, count)| (hour + 1, *count)).collect();
        let counted = failed(&counters.take());
        assert!(counted == expected || counted == later, "{counted:?}");
        assert_eq!(counters.take(), CountsByHour::new(), "they are returned once");
    }

    #[test]
    fn counts_that_are_put_back_are_added_and_the_longest_queue_stays() {
        let counters = HourlyCounters::default();
        counters.add(CountedEvent::Registration);
        counters.hashes_wait(7);
        let unwritten = counters.take();
        counters.add(CountedEvent::Registration);
        counters.add(CountedEvent::RequestAuthorized);
        counters.hashes_wait(5);
        counters.put_back(unwritten);
        let mut all = Counts::default();
        counters.take().into_values().for_each(|counts| all.add(counts));
        let expected = Counts { registrations: 2, requests_authorized: 1, hash_queue_max: 7, ..Counts::default() };
        assert_eq!(all, expected);
    }

    #[test]
    fn no_event_is_lost_or_counted_twice_while_counts_are_taken_and_hours_begin() {
        const EACH: i64 = 50_000;
        let counters = HourlyCounters::default();
        let mut all = Counts::default();
        std::thread::scope(|scope| {
            let threads = [CountedEvent::RequestAuthorized, CountedEvent::RequestRefused].map(|event| {
                let counters = &counters;
                scope.spawn(move || (0..EACH).for_each(|_| counters.add(event)))
            });
            while threads.iter().any(|thread| !thread.is_finished()) {
                counters.clock.advance(3_600);
                counters.take().into_values().for_each(|counts| all.add(counts));
            }
        });
        counters.take().into_values().for_each(|counts| all.add(counts));
        assert_eq!((all.requests_authorized, all.requests_refused), (EACH, EACH));
    }
}
