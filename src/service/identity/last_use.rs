//! The last use of each key and session, and the number of keys that are used in each hour. Uses are collected in memory
//! and written in the background, at most once a minute for each of them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::used_hours::UsedHours;
use crate::clock::{Clock, Timestamp};
use crate::db::{Conn, Db, api_keys, hourly_counts, sessions};
use crate::domain::id::{KeyId, SessionId};
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::logging::repeated::RepeatedFailure;

/// Minimum time between two writes for one key or session, in seconds.
const INTERVAL: i64 = 60;
/// Maximum number of keys and sessions with an unwritten or recent use. Uses of further ones are dropped, and a warning
/// is logged.
const MAX_CREDENTIALS: usize = 100_000;
/// Interval at which due uses are written.
const TICK: Duration = Duration::from_secs(1);

/// A credential whose last use is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UsedCredential {
    /// A key, own or issued.
    Key(KeyId),
    /// A browser session.
    Session(SessionId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastUse {
    at: Timestamp,
    from: Option<IpAddr>,
    /// The hours of the uses that are not written.
    hours: UsedHours,
    is_written: bool,
    written_at: Option<Timestamp>,
}

/// Records when keys and sessions were last used, and from where keys were.
pub struct LastUses {
    db: Db,
    clock: Clock,
    recent: RecentUses,
    /// Held during a write.
    writing: tokio::sync::Mutex<()>,
    failure: RepeatedFailure,
}

#[derive(Default)]
struct RecentUses {
    uses: Mutex<HashMap<UsedCredential, LastUse>>,
    /// Number of uses that were dropped because [`MAX_CREDENTIALS`] was reached.
    dropped: AtomicU64,
}

impl RecentUses {
    /// Records a use in memory. Does not wait for the database.
    fn note(&self, used: UsedCredential, at: Timestamp, from: Option<IpAddr>) {
        let mut uses = self.uses();
        if uses.len() >= MAX_CREDENTIALS && !uses.contains_key(&used) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (last, hour) = (uses.get(&used), UsedHours::of(at));
        let hours = last.filter(|last| !last.is_written).map_or(hour, |last| last.hours.and(hour));
        let written_at = last.and_then(|last| last.written_at);
        uses.insert(used, LastUse { at, from, hours, is_written: false, written_at });
    }

    /// The uses that are due at `now`. They are marked as written. Those without a use since their last write
    /// are removed.
    fn take_due(&self, now: Timestamp) -> Vec<(UsedCredential, LastUse)> {
        let mut due = Vec::new();
        let is_due = |last: &LastUse| last.written_at.is_none_or(|written| written.plus_seconds(INTERVAL) <= now);
        self.uses().retain(|used, last| {
            if !is_due(last) {
                return true;
            }
            if last.is_written {
                return false;
            }
            (last.is_written, last.written_at) = (true, Some(now));
            due.push((*used, *last));
            true
        });
        due
    }

    /// Removes all uses, and returns those that have not been written.
    fn take_all(&self) -> Vec<(UsedCredential, LastUse)> {
        self.uses().drain().filter(|(_, last)| !last.is_written).collect()
    }

    /// Marks uses as not written. If there is a newer use, only their hours are kept.
    fn put_back(&self, unwritten: Vec<(UsedCredential, LastUse)>) {
        let mut uses = self.uses();
        for (used, last) in unwritten {
            let current = uses.entry(used).or_insert(last);
            let hours = if current.is_written { last.hours } else { current.hours.and(last.hours) };
            if current.at <= last.at {
                *current = LastUse { is_written: false, written_at: None, ..last };
            }
            current.hours = hours;
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<UsedCredential, LastUse>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uses that are being written. Dropping this makes the unwritten ones due again, also if the write is cancelled.
struct Unwritten<'u> {
    usage: &'u RecentUses,
    uses: VecDeque<(UsedCredential, LastUse)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.usage.put_back(self.uses.drain(..).collect());
    }
}

impl LastUses {
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        Self {
            db,
            clock,
            recent: RecentUses::default(),
            writing: tokio::sync::Mutex::default(),
            failure: RepeatedFailure::new("write the last use of keys and sessions"),
        }
    }

    /// Records a use in memory. Does not wait for the database.
    pub(crate) fn note(&self, used: UsedCredential, at: Timestamp, from: Option<IpAddr>) {
        self.recent.note(used, at, from);
    }

    /// Stores the first use of the secret with this digest. Returns whether the secret is still the current one of its
    /// key.
    pub(crate) async fn note_first_use(&self, digest: Digest) -> Result<bool, AppError> {
        let stored = self.db.write(move |conn| api_keys::note_first_use(conn, digest)).await;
        stored.map_err(|error| match error {
            // The write can be repeated safely.
            AppError::OutcomeUnknown(source) => AppError::Busy(source),
            error => error,
        })
    }

    /// Writes due uses every second. Never returns.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.write(|recent| recent.take_due(self.clock.now())).await;
            let dropped = self.recent.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                log::warn!(
                    "dropped {dropped} uses: more than {MAX_CREDENTIALS} keys and sessions were used within a minute"
                );
            }
        }
    }

    /// Writes all remaining uses. Call this when the process stops.
    pub async fn flush(&self) {
        self.write(RecentUses::take_all).await;
    }

    /// Writes the uses that `take` returns. One call at a time, so that [`flush`](Self::flush) also waits for those that
    /// another call is writing.
    async fn write(&self, take: impl FnOnce(&RecentUses) -> Vec<(UsedCredential, LastUse)>) {
        let _writing = self.writing.lock().await;
        let uses = take(&self.recent);
        let mut unwritten = Unwritten { usage: &self.recent, uses: uses.into() };
        while let Some((used, last)) = unwritten.uses.front().copied() {
            // One row per transaction, and then hours in ascending order, cannot cause a deadlock.
            let written = self.db.write(move |conn| match used {
                UsedCredential::Key(key) => store_key(conn, key, last),
                UsedCredential::Session(session) => sessions::touch(conn, session, last.at),
            });
            if let Err(error) = written.await {
                // The other writes would fail, too, and must not delay a shutdown.
                self.failure.failed(&error);
                break;
            }
            self.failure.succeeded();
            unwritten.uses.pop_front();
        }
    }
}

/// Stores the last use of a key, and counts it in the hours of its uses. The lock on the key ensures that several
/// processes count it once.
fn store_key(conn: &mut Conn, key: KeyId, last: LastUse) -> Result<(), AppError> {
    let Some(stored) = api_keys::lock_last_use(conn, key)? else { return Ok(()) };
    api_keys::touch(conn, key, last.at, last.from)?;
    last.hours.counts_after(stored.0).into_iter().try_for_each(|(hour, counts)| hourly_counts::add(conn, hour, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: UsedCredential = UsedCredential::Key(KeyId(1));

    fn at(usage: &RecentUses, now: Timestamp) -> Option<Timestamp> {
        match usage.take_due(now).as_slice() {
            [] => None,
            [(KEY, last)] => Some(last.at),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn a_first_use_is_due_at_once_and_later_ones_once_a_minute() {
        let (usage, start) = (RecentUses::default(), Clock::default().now());
        assert_eq!(at(&usage, start), None);
        usage.note(KEY, start, None);
        assert_eq!(at(&usage, start), Some(start));
        for second in 1..60 {
            usage.note(KEY, start.plus_seconds(second), None);
            assert_eq!(at(&usage, start.plus_seconds(second)), None, "second {second}");
        }
        assert_eq!(at(&usage, start.plus_seconds(60)), Some(start.plus_seconds(59)));
        assert_eq!(at(&usage, start.plus_seconds(119)), None);
        assert_eq!(at(&usage, start.plus_seconds(121)), None, "the key is removed");
        assert!(usage.uses().is_empty());
    }

    #[test]
    fn a_use_that_could_not_be_written_is_due_again_unless_there_is_a_newer_one() {
        let (usage, start) = (RecentUses::default(), Clock::default().now());
        usage.note(KEY, start, None);
        let unwritten = usage.take_due(start);
        usage.put_back(unwritten);
        assert_eq!(at(&usage, start), Some(start));

        usage.note(KEY, start.plus_seconds(60), None);
        let unwritten = usage.take_due(start.plus_seconds(60));
        usage.note(KEY, start.plus_seconds(61), None);
        usage.put_back(unwritten);
        assert_eq!(at(&usage, start.plus_seconds(120)), Some(start.plus_seconds(61)));
    }

    #[test]
    fn at_most_100_000_keys_are_kept_and_further_uses_are_dropped() {
        let (usage, start) = (RecentUses::default(), Clock::default().now());
        for id in 0..150_000 {
            usage.note(UsedCredential::Key(KeyId(id)), start, None);
        }
        usage.note(KEY, start.plus_seconds(1), None);
        assert_eq!((usage.uses().len(), usage.dropped.load(Ordering::Relaxed)), (100_000, 50_000));
    }

    #[test]
    fn the_last_flush_writes_uses_that_are_not_due() {
        let (usage, start) = (RecentUses::default(), Clock::default().now());
        usage.note(KEY, start, None);
        usage.take_due(start);
        usage.note(KEY, start.plus_seconds(1), None);
        assert_eq!(usage.take_all().len(), 1);
        assert_eq!(usage.take_all().len(), 0);
    }
}
