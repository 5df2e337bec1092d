//! A cache of identities in front of the database.
//!
//! An entry is fresh if nothing has changed for its user since its lookup began, and if the cache is certain of this. A
//! change by this process invalidates entries as soon as it is committed. Changes by other processes are read from the
//! change log ([`crate::db::engine::change_log`]). If the log was not read for 0.9 s, the cache is not certain and no
//! entry is fresh.
//!
//! If the database does not answer, an entry that is not fresh only for lack of certainty may be served for a limited
//! time ([`IdentityCache::get_stale`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::domain::id::UserId;
use crate::domain::principal::Identity;
use crate::domain::secret::Digest;

/// Users whose ids are equal modulo the number of slots share a slot: a change of one user causes a lookup for the
/// others. A large cache has one slot for this many entries, so that the share of the entries that a change invalidates
/// does not grow with the cache.
const ENTRIES_PER_SLOT: usize = 8;
/// The least number of slots.
const MIN_SLOTS: usize = 4096;
/// How long entries are fresh after a read of the change log. Every change takes effect within this time.
const FRESH_FOR: Duration = Duration::from_millis(900);
/// Number of past generations whose entries may still be served stale.
const MAX_PAST_GENERATIONS: usize = 16;

/// A bounded number of identities, by the digest of the credential. The credential itself is not stored.
pub struct IdentityCache {
    entries: Option<Cache<Digest, Entry>>,
    /// Number of all changes. The first change has the number 1.
    changes: AtomicU64,
    /// Number of the last change for the users of each slot.
    last_changes: Box<[AtomicU64]>,
    /// Number of gaps in the change log. Entries of an older generation may have missed a change.
    generation: AtomicU64,
    /// The last generations before the current one, and the last `certain_at` of each.
    past_generations: Mutex<VecDeque<(u64, u64)>>,
    /// All changes that other processes committed before this time are known. In microseconds since `started`; 0 before
    /// the first read.
    certain_at: AtomicU64,
    started: Instant,
    counts: Counts,
}

#[derive(Clone)]
struct Entry {
    identity: Arc<Identity>,
    /// The last change of its slot when it was stored.
    last_change: u64,
    /// The generation when its lookup began.
    generation: u64,
}

/// Counters. Every request writes them, so they are on cache lines of their own, apart from fields that are only read.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    uncertain: AtomicU64,
    stale: AtomicU64,
    invalidations: AtomicU64,
}

/// Counts of cache accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Lookups that found a fresh entry.
    pub hits: u64,
    /// Lookups that found no entry, or an invalidated one.
    pub misses: u64,
    /// Lookups that could not use the cache because the change log was not read for 0.9 s.
    pub uncertain: u64,
    /// Stale entries that were served because the database did not answer.
    pub stale: u64,
    /// Changes that invalidated entries.
    pub invalidations: u64,
}

/// The state of the cache when a lookup began.
#[derive(Clone, Copy)]
pub struct Ticket {
    changes: u64,
    generation: u64,
}

impl IdentityCache {
    /// A cache of up to `size` identities. 0 turns it off.
    pub fn new(size: usize) -> Self {
        Self {
            entries: (size > 0).then(|| Cache::new(size)),
            changes: AtomicU64::new(0),
            last_changes: (0..MIN_SLOTS.max(size / ENTRIES_PER_SLOT)).map(|_| AtomicU64::new(0)).collect(),
            generation: AtomicU64::new(0),
            past_generations: Mutex::default(),
            certain_at: AtomicU64::new(0),
            started: Instant::now(),
            counts: Counts::default(),
        }
    }

    /// The fresh identity of this digest. The caller must check its expiry.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Identity>> {
        let is_certain = self.is_certain();
        let entries = self.entries.as_ref().filter(|_| is_certain);
        let found = entries
            .and_then(|entries| entries.get(digest))
            .filter(|entry| self.is_valid(entry) && entry.generation == self.generation.load(Ordering::SeqCst));
        let count = match found {
            Some(_) => &self.counts.hits,
            None if is_certain => &self.counts.misses,
            None => &self.counts.uncertain,
        };
        count.fetch_add(1, Ordering::Relaxed);
        found.map(|entry| entry.identity)
    }

    /// The identity of this digest if no change of its user is known and it was fresh within the last `limit`.
    pub fn get_stale(&self, digest: &Digest, limit: Duration) -> Option<Arc<Identity>> {
        let entry = self.entries.as_ref()?.get(digest).filter(|entry| self.is_valid(entry))?;
        let certain_at = if entry.generation == self.generation.load(Ordering::SeqCst) {
            self.certain_at.load(Ordering::SeqCst)
        } else {
            self.past_generations().iter().find(|(generation, _)| *generation == entry.generation)?.1
        };
        let now = micros(self.started.elapsed());
        (certain_at > 0 && now <= certain_at.saturating_add(micros(limit))).then_some(entry.identity)
    }

    /// Counts an identity that is served stale.
    pub fn count_stale(&self) {
        self.counts.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Call this before a lookup, and pass the result to [`put`](Self::put).
    pub fn ticket(&self) -> Ticket {
        Ticket { changes: self.changes.load(Ordering::SeqCst), generation: self.generation.load(Ordering::SeqCst) }
    }

    /// Stores the result of a lookup, unless its user has changed since its `ticket`. A previous entry is replaced or
    /// removed in any case. The cache need not be certain: the next read of the log returns the changes since the
    /// lookup, or begins a generation. A result of an older generation is not fresh, but may be served stale.
    pub fn put(&self, ticket: Ticket, digest: Digest, found: Option<&Arc<Identity>>) {
        let Some(entries) = &self.entries else {
            return;
        };
        if let Some(identity) = found {
            // A change whose number is not in the slot yet invalidates the entry later.
            let last_change = self.last_change(identity.user_id);
            if last_change <= ticket.changes {
                let entry = Entry { identity: Arc::clone(identity), last_change, generation: ticket.generation };
                return entries.insert(digest, entry);
            }
        }
        entries.remove(&digest);
    }

    /// Invalidates the entries of a user.
    pub fn invalidate(&self, user: UserId) {
        let number = self.count_change();
        if let Some(last_change) = self.last_changes.get(self.slot(user)) {
            last_change.fetch_max(number, Ordering::SeqCst);
        }
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// Invalidates all entries.
    pub fn invalidate_all(&self) {
        let number = self.count_change();
        for last_change in &self.last_changes {
            last_change.fetch_max(number, Ordering::SeqCst);
        }
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the freshness of all entries, because changes by other processes may have been missed.
    pub fn begin_generation(&self) {
        let mut past = self.past_generations();
        let generation = self.generation.fetch_add(1, Ordering::SeqCst);
        past.push_back((generation, self.certain_at.load(Ordering::SeqCst)));
        if past.len() > MAX_PAST_GENERATIONS {
            past.pop_front();
        }
    }

    /// States that all changes that other processes committed before `certain` are known.
    pub fn set_certain_since(&self, certain: Instant) {
        self.certain_at.store(micros(certain.saturating_duration_since(self.started)).max(1), Ordering::SeqCst);
    }

    /// Whether the cache is in use.
    pub fn is_on(&self) -> bool {
        self.entries.is_some()
    }

    /// The counts since the start.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.counts.hits.load(Ordering::Relaxed),
            misses: self.counts.misses.load(Ordering::Relaxed),
            uncertain: self.counts.uncertain.load(Ordering::Relaxed),
            stale: self.counts.stale.load(Ordering::Relaxed),
            invalidations: self.counts.invalidations.load(Ordering::Relaxed),
        }
    }

    fn is_certain(&self) -> bool {
        let certain_at = self.certain_at.load(Ordering::SeqCst);
        certain_at > 0 && micros(self.started.elapsed()) < certain_at + micros(FRESH_FOR)
    }

    /// Counts a change and returns its number.
    fn count_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether no change of the user is known since the lookup.
    fn is_valid(&self, entry: &Entry) -> bool {
        self.last_change(entry.identity.user_id) == entry.last_change
    }

    fn slot(&self, user: UserId) -> usize {
        usize::try_from(user.0).unwrap_or(0) % self.last_changes.len()
    }

    fn last_change(&self, user: UserId) -> u64 {
        self.last_changes.get(self.slot(user)).map_or(0, |number| number.load(Ordering::SeqCst))
    }

    fn past_generations(&self) -> MutexGuard<'_, VecDeque<(u64, u64)>> {
        self.past_generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::id::EntryId;
    use crate::domain::principal::{Credential, Level};
    use crate::domain::roles::Roles;

    pub(crate) const ADA: UserId = UserId(1);
    pub(crate) const EVE: UserId = UserId(2);

    /// The digest of a credential of this user, and the identity that it resolves to.
    pub(crate) fn identity(user_id: UserId) -> (Digest, Arc<Identity>) {
        let digest = Digest::of(&user_id.to_string());
        let level = Level::of(&Roles::default().get("member"));
        let identity = Identity {
            user_id,
            name: "Adaline".to_owned(),
            email: Some("ada@example.org".to_owned()),
            email_verified: true,
            credential: Credential::Token(EntryId(1)),
            digest,
            level,
            narrowed: false,
            replaced: false,
            unseen: false,
            issued_at: Clock::default().now(),
            expires_at: None,
            idle_at: None,
        };
        (digest, Arc::new(identity))
    }

    /// An empty cache of a process that has just read the change log.
    pub(crate) fn current_cache() -> IdentityCache {
        let cache = IdentityCache::new(100);
        cache.set_certain_since(Instant::now());
        cache
    }

    #[test]
    fn a_change_invalidates_the_entries_of_its_user_only() {
        let cache = current_cache();
        for user in [ADA, EVE] {
            let (digest, identity) = identity(user);
            cache.put(cache.ticket(), digest, Some(&identity));
            assert!(cache.get(&digest).is_some());
        }
        cache.invalidate(ADA);
        assert!(cache.get(&identity(ADA).0).is_none());
        assert!(cache.get(&identity(EVE).0).is_some());
        cache.invalidate_all();
        assert!(cache.get(&identity(EVE).0).is_none());
        let counts = CacheCounts { hits: 3, misses: 2, invalidations: 2, ..CacheCounts::default() };
        assert_eq!(cache.counts(), counts);
    }

    #[test]
    fn users_share_slots_in_proportion_to_the_size_of_the_cache() {
        let last = |size| {
            let cache = IdentityCache::new(size);
            (1..).find(|id| cache.slot(UserId(*id)) == 0).unwrap()
        };
        assert_eq!([0, 1, 100_000].map(last), [4096, 4096, 12_500]);
    }

    #[test]
    fn a_result_that_changed_during_its_lookup_is_not_cached() {
        let cache = current_cache();
        let (digest, found) = identity(ADA);
        let ticket = cache.ticket();
        cache.invalidate(ADA);
        cache.put(ticket, digest, Some(&found));
        assert!(cache.get(&digest).is_none());
        cache.put(cache.ticket(), digest, Some(&found));
        assert!(cache.get(&digest).is_some());
        let ticket = cache.ticket();
        cache.invalidate_all();
        cache.put(ticket, digest, Some(&found));
        assert!(cache.get(&digest).is_none());
    }

    #[test]
    fn changes_of_other_users_during_a_lookup_neither_keep_its_result_out_nor_remove_the_previous_one() {
        const LIMIT: Duration = Duration::from_secs(5);
        let cache = current_cache();
        let (digest, found) = identity(ADA);
        let ticket = cache.ticket();
        cache.invalidate(EVE);
        cache.put(ticket, digest, Some(&found));
        assert!(cache.get(&digest).is_some());
        cache.begin_generation();
        let ticket = cache.ticket();
        cache.invalidate(EVE);
        cache.begin_generation();
        cache.put(ticket, digest, Some(&found));
        assert!(cache.get(&digest).is_none(), "a change may have been missed since the lookup");
        assert!(cache.get_stale(&digest, LIMIT).is_some(), "the next lookup may fail");
    }

    #[test]
    fn no_entry_is_fresh_unless_the_change_log_was_read_recently() {
        let (digest, found) = identity(ADA);
        let mut cache = IdentityCache::new(100);
        cache.started -= Duration::from_secs(10);
        cache.put(cache.ticket(), digest, Some(&found));
        assert!(cache.get(&digest).is_none(), "the log has not been read yet");
        cache.set_certain_since(Instant::now());
        cache.put(cache.ticket(), digest, Some(&found));
        assert!(cache.get(&digest).is_some());
        cache.set_certain_since(Instant::now() - Duration::from_millis(500));
        assert!(cache.get(&digest).is_some());
        // A change must take effect within a second (docs/decisions/08-fresh-identities.md).
        cache.set_certain_since(Instant::now() - Duration::from_millis(950));
        assert!(cache.get(&digest).is_none(), "the last read is too long ago");
        cache.set_certain_since(Instant::now());
        cache.begin_generation();
        assert!(cache.get(&digest).is_none(), "a change may have been missed");
        assert_eq!(cache.counts(), CacheCounts { hits: 2, misses: 1, uncertain: 2, ..CacheCounts::default() });
        assert!(!IdentityCache::new(0).is_on());
    }

    #[test]
    fn an_entry_without_a_known_change_can_be_served_stale_within_the_limit() {
        const LIMIT: Duration = Duration::from_secs(5);
        let mut cache = IdentityCache::new(100);
        cache.started -= Duration::from_secs(100);
        cache.set_certain_since(Instant::now());
        for user in [ADA, EVE] {
            let (digest, identity) = identity(user);
            cache.put(cache.ticket(), digest, Some(&identity));
        }
        let (ada, eve) = (identity(ADA).0, identity(EVE).0);
        cache.set_certain_since(Instant::now() - Duration::from_secs(4));
        assert!(cache.get(&ada).is_none() && cache.get_stale(&ada, LIMIT).is_some());
        cache.begin_generation();
        cache.set_certain_since(Instant::now());
        assert!(cache.get(&ada).is_none(), "not fresh until the next lookup");
        assert!(cache.get_stale(&ada, LIMIT).is_some(), "the lookup may fail");
        assert!(cache.get_stale(&ada, Duration::from_secs(3)).is_none(), "it was last certain four seconds ago");
        cache.invalidate(ADA);
        assert!(cache.get_stale(&ada, LIMIT).is_none(), "a change is known");
        cache.put(cache.ticket(), eve, None);
        assert!(cache.get_stale(&eve, LIMIT).is_none(), "the database no longer contains it");
    }
}
