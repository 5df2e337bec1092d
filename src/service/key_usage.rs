//! When a key was last used: gathered in memory, written beside the requests, at most once a minute for each key.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Service;
use crate::clock::Timestamp;
use crate::db::api_keys;
use crate::domain::id::KeyId;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// Seconds between two writes about one key.
const INTERVAL: i64 = 60;
/// Keys whose last use is remembered. The uses of more keys are forgotten, and the log tells.
const KEYS: usize = 100_000;
/// How often somebody looks for what is to be written.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastUse {
    at: Timestamp,
    from: Option<IpAddr>,
    is_written: bool,
    written_at: Option<Timestamp>,
}

/// The last use of each key that was used lately.
#[derive(Default)]
pub(super) struct KeyUsage {
    uses: Mutex<HashMap<KeyId, LastUse>>,
    /// Uses of keys for which there was no room.
    forgotten: AtomicU64,
}

impl KeyUsage {
    /// Notes a use; a few nanoseconds, no waiting.
    pub(super) fn note(&self, key: KeyId, at: Timestamp, from: Option<IpAddr>) {
        let mut uses = self.uses();
        if uses.len() >= KEYS && !uses.contains_key(&key) {
            self.forgotten.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let written_at = uses.get(&key).and_then(|last| last.written_at);
        uses.insert(key, LastUse { at, from, is_written: false, written_at });
    }

    /// What is to be written at `now`. It counts as written; what has been for a while is forgotten.
    fn take_due(&self, now: Timestamp) -> Vec<(KeyId, LastUse)> {
        let mut due = Vec::new();
        let rested = |last: &LastUse| last.written_at.is_none_or(|written| written.plus_seconds(INTERVAL) <= now);
        self.uses().retain(|key, last| {
            if !rested(last) {
                return true;
            }
            if last.is_written {
                return false;
            }
            (last.is_written, last.written_at) = (true, Some(now));
            due.push((*key, *last));
            true
        });
        due
    }

    /// What has not been written, due or not.
    fn take_all(&self) -> Vec<(KeyId, LastUse)> {
        self.uses().drain().filter(|(_, last)| !last.is_written).collect()
    }

    /// Undoes that they count as written, except where there is something newer.
    fn put_back(&self, lost: Vec<(KeyId, LastUse)>) {
        let mut uses = self.uses();
        for (key, last) in lost {
            let current = uses.entry(key).or_insert(last);
            if current.at <= last.at {
                *current = LastUse { is_written: false, written_at: None, ..last };
            }
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<KeyId, LastUse>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uses that are being written. Unwritten ones become due again, also when the process stops during the write.
struct Unwritten<'u> {
    usage: &'u KeyUsage,
    uses: VecDeque<(KeyId, LastUse)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.usage.put_back(self.uses.drain(..).collect());
    }
}

impl Service {
    /// Stores that the current secret with this digest is used for the first time; whether there is such a secret still.
    pub(super) async fn note_first_use(&self, digest: Digest) -> Result<bool, AppError> {
        let noted = self.db.write(move |conn| api_keys::note_first_use(conn, digest)).await;
        noted.map_err(|error| match error {
            // To store it again is no harm.
            AppError::OutcomeUnknown(source) => AppError::Busy(source),
            error => error,
        })
    }

    /// Writes what becomes due, for ever.
    pub async fn keep_key_usage(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.write_key_usage(self.key_usage.take_due(self.clock.now())).await;
            let forgotten = self.key_usage.forgotten.swap(0, Ordering::Relaxed);
            if forgotten > 0 {
                log::warn!("{forgotten} uses of keys are not noted: more than {KEYS} keys were used within a minute");
            }
        }
    }

    /// Writes all that is left, at the end.
    pub async fn flush_key_usage(&self) {
        self.write_key_usage(self.key_usage.take_all()).await;
    }

    async fn write_key_usage(&self, uses: Vec<(KeyId, LastUse)>) {
        let mut unwritten = Unwritten { usage: &self.key_usage, uses: uses.into() };
        while let Some((key, last)) = unwritten.uses.front().copied() {
            // One row in a transaction can never be part of a deadlock.
            let written = self.db.write(move |conn| api_keys::touch(conn, key, last.at, last.from)).await;
            if let Err(error) = written {
                // A database that is away is away for the others, too; the server may be about to stop.
                let count = unwritten.uses.len();
                log::warn!("could not write when {count} keys were last used, trying again: {error}");
                break;
            }
            unwritten.uses.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const KEY: KeyId = KeyId(1);

    fn at(usage: &KeyUsage, now: Timestamp) -> Option<Timestamp> {
        match usage.take_due(now).as_slice() {
            [] => None,
            [(KEY, last)] => Some(last.at),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn a_first_use_is_due_at_once_and_later_ones_once_a_minute() {
        let (usage, start) = (KeyUsage::default(), Clock::default().now());
        assert_eq!(at(&usage, start), None);
        usage.note(KEY, start, None);
        assert_eq!(at(&usage, start), Some(start));
        for second in 1..60 {
            usage.note(KEY, start.plus_seconds(second), None);
            assert_eq!(at(&usage, start.plus_seconds(second)), None, "second {second}");
        }
        assert_eq!(at(&usage, start.plus_seconds(60)), Some(start.plus_seconds(59)));
        assert_eq!(at(&usage, start.plus_seconds(119)), None);
        assert_eq!(at(&usage, start.plus_seconds(121)), None, "and is forgotten");
        assert!(usage.uses().is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_due_again_unless_there_is_something_newer() {
        let (usage, start) = (KeyUsage::default(), Clock::default().now());
        usage.note(KEY, start, None);
        let lost = usage.take_due(start);
        usage.put_back(lost);
        assert_eq!(at(&usage, start), Some(start));

        usage.note(KEY, start.plus_seconds(60), None);
        let lost = usage.take_due(start.plus_seconds(60));
        usage.note(KEY, start.plus_seconds(61), None);
        usage.put_back(lost);
        assert_eq!(at(&usage, start.plus_seconds(120)), Some(start.plus_seconds(61)));
    }

    #[test]
    fn so_many_keys_are_remembered_and_no_more() {
        let (usage, start) = (KeyUsage::default(), Clock::default().now());
        for id in 0..150_000 {
            usage.note(KeyId(id), start, None);
        }
        usage.note(KEY, start.plus_seconds(1), None);
        assert_eq!((usage.uses().len(), usage.forgotten.load(Ordering::Relaxed)), (100_000, 50_000));
    }

    #[test]
    fn nothing_is_lost_at_the_end() {
        let (usage, start) = (KeyUsage::default(), Clock::default().now());
        usage.note(KEY, start, None);
        usage.take_due(start);
        usage.note(KEY, start.plus_seconds(1), None);
        assert_eq!(usage.take_all().len(), 1);
        assert_eq!(usage.take_all().len(), 0);
    }
}
