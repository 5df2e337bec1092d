//! Identities in memory, in front of the database.
//!
//! An entry is fresh while nothing has changed for its user since before it was looked up, and while it is certain that
//! nothing has. What this process changes invalidates entries as soon as it is committed; what others change is read from
//! the change log ([`crate::db::change_log`]). If the log was not read for 0.9 s, no entry is fresh.
//!
//! An entry that is not fresh only because that is not certain may be served for a while if the database does not answer
//! ([`IdentityCache::get_stale`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::domain::id::UserId;
use crate::domain::principal::Identity;
use crate::domain::secret::Digest;

/// Users whose ids are equal modulo this number share a version: a change of one costs the others a lookup, and delays
/// nobody.
const SLOTS: usize = 4096;
/// How long entries are fresh after the change log was read. Every change is seen within this time.
const FRESH_FOR: Duration = Duration::from_millis(900);
/// Generations whose entries may still be served without the database. Of older ones none is.
const GENERATIONS: usize = 16;

/// A bounded number of identities by the digest of what was presented, never by itself.
pub struct IdentityCache {
    entries: Option<Cache<Digest, Entry>>,
    /// How often something has changed for the users of each slot.
    versions: Box<[AtomicU64]>,
    /// How often something has changed for anybody.
    changes: AtomicU64,
    /// How often the change log began anew, so that older entries may have missed a change.
    generation: AtomicU64,
    /// The last generations before this one, and their `certain_at`.
    past: Mutex<VecDeque<(u64, u64)>>,
    /// All changes that others made before are known: in microseconds since `started`; 0 before the first read.
    certain_at: AtomicU64,
    started: Instant,
    counts: Counts,
}

#[derive(Clone)]
struct Entry {
    identity: Arc<Identity>,
    version: u64,
    generation: u64,
}

/// On cache lines of their own: they are written at every request, what stands beside them is only read.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    uncertain: AtomicU64,
    stale: AtomicU64,
    invalidations: AtomicU64,
}

/// How often the cache was of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Answered from memory.
    pub hits: u64,
    /// Not in memory, or invalid.
    pub misses: u64,
    /// Not answered from memory because the change log was not read for too long.
    pub uncertain: u64,
    /// Answered from memory because the database did not answer.
    pub stale: u64,
    /// Changes that invalidated entries.
    pub invalidations: u64,
}

/// What had changed before a lookup began.
#[derive(Clone, Copy)]
pub struct Ticket(u64);

impl IdentityCache {
    /// Room for `size` identities; none at all if 0.
    pub fn new(size: usize) -> Self {
        Self {
            entries: (size > 0).then(|| Cache::new(size)),
            versions: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            changes: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            past: Mutex::default(),
            certain_at: AtomicU64::new(0),
            started: Instant::now(),
            counts: Counts::default(),
        }
    }

    /// The fresh identity of this digest. Expiry is the caller's business.
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

    /// The identity of this digest if no change of its user is known, and if it was fresh within the last `limit`.
    pub fn get_stale(&self, digest: &Digest, limit: Duration) -> Option<Arc<Identity>> {
        let entry = self.entries.as_ref()?.get(digest).filter(|entry| self.is_valid(entry))?;
        let certain_at = if entry.generation == self.generation.load(Ordering::SeqCst) {
            self.certain_at.load(Ordering::SeqCst)
        } else {
            self.past().iter().find(|(generation, _)| *generation == entry.generation)?.1
        };
        let now = micros(self.started.elapsed());
        (certain_at > 0 && now <= certain_at.saturating_add(micros(limit))).then_some(entry.identity)
    }

    /// Counts an identity that is served stale.
    pub fn count_stale(&self) {
        self.counts.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// To be taken before a lookup.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.changes.load(Ordering::SeqCst))
    }

    /// Remembers what a lookup found, unless something has changed since its `ticket`. What was known before is outdated
    /// in any case. It need not be certain: the next read of the log tells of changes since the lookup, or begins a
    /// generation.
    pub fn put(&self, ticket: Ticket, digest: Digest, found: Option<&Arc<Identity>>) {
        let Some(entries) = &self.entries else {
            return;
        };
        if let Some(identity) = found {
            // In this order: whoever changes something counts it in `changes` first.
            let generation = self.generation.load(Ordering::SeqCst);
            let version = self.version(identity.user_id);
            if self.changes.load(Ordering::SeqCst) == ticket.0 {
                return entries.insert(digest, Entry { identity: Arc::clone(identity), version, generation });
            }
        }
        entries.remove(&digest);
    }

    /// Drops what is known of a user.
    pub fn invalidate(&self, user: UserId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if let Some(version) = self.versions.get(slot(user)) {
            version.fetch_add(1, Ordering::SeqCst);
        }
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops everything.
    pub fn invalidate_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        for version in &self.versions {
            version.fetch_add(1, Ordering::SeqCst);
        }
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing that is known is fresh any more: changes by others may have been missed.
    pub fn begin_generation(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let mut past = self.past();
        let generation = self.generation.fetch_add(1, Ordering::SeqCst);
        past.push_back((generation, self.certain_at.load(Ordering::SeqCst)));
        if past.len() > GENERATIONS {
            past.pop_front();
        }
    }

    /// All changes by others that were committed before `certain` are known.
    pub fn is_certain_since(&self, certain: Instant) {
        self.certain_at.store(micros(certain.saturating_duration_since(self.started)).max(1), Ordering::SeqCst);
    }

    /// Whether it is in use at all.
    pub fn is_on(&self) -> bool {
        self.entries.is_some()
    }

    /// How often it was of use.
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

    /// Whether no change of its user is known.
    fn is_valid(&self, entry: &Entry) -> bool {
        self.version(entry.identity.user_id) == entry.version
    }

    fn version(&self, user: UserId) -> u64 {
        self.versions.get(slot(user)).map_or(0, |version| version.load(Ordering::SeqCst))
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<(u64, u64)>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot(user: UserId) -> usize {
    usize::try_from(user.0).unwrap_or(0) % SLOTS
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::id::EntryId;
    use crate::domain::principal::{Credential, Level};
    use crate::domain::role::Role;

    pub(in crate::service) const ADA: UserId = UserId(1);
    pub(in crate::service) const EVE: UserId = UserId(2);

    /// The digest of a credential of this user, and the identity that it resolves to.
    pub(in crate::service) fn identity(user_id: UserId) -> (Digest, Arc<Identity>) {
        let digest = Digest::of(&user_id.to_string());
        let level = Level::new(Role::Member, Role::Member.scopes());
        let identity = Identity {
            user_id,
            name: "Adaline".to_owned(),
            email: Some("ada@example.org".to_owned()),
            credential: Credential::Token(EntryId(1)),
            digest,
            level,
            foreign: BTreeSet::new(),
            narrowed: false,
            replaced: false,
            unseen: false,
            issued_at: Clock::default().now(),
            expires_at: None,
        };
        (digest, Arc::new(identity))
    }

    /// An empty cache that has just read the change log.
    pub(in crate::service) fn certain() -> IdentityCache {
        let cache = IdentityCache::new(100);
        cache.is_certain_since(Instant::now());
        cache
    }

    #[test]
    fn a_change_ends_what_is_known_of_its_user_and_of_nobody_else() {
        let cache = certain();
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
    fn what_changed_during_its_lookup_is_not_remembered() {
        let cache = certain();
        let (digest, found) = identity(ADA);
        let ticket = cache.ticket();
        cache.invalidate(ADA);
        cache.put(ticket, digest, Some(&found));
        assert!(cache.get(&digest).is_none());
        cache.put(cache.ticket(), digest, Some(&found));
        assert!(cache.get(&digest).is_some());
    }

    #[test]
    fn nothing_is_fresh_unless_the_change_log_was_read_a_moment_ago() {
        let (digest, found) = identity(ADA);
        let mut cache = IdentityCache::new(100);
        cache.started -= Duration::from_secs(10);
        cache.put(cache.ticket(), digest, Some(&found));
        assert!(cache.get(&digest).is_none(), "the log has not been read yet");
        cache.is_certain_since(Instant::now());
        cache.put(cache.ticket(), digest, Some(&found));
        assert!(cache.get(&digest).is_some());
        cache.is_certain_since(Instant::now() - Duration::from_millis(500));
        assert!(cache.get(&digest).is_some());
        // Half a second for the reader to notice, at most, and all in all a second (DESIGN, decision 8).
        cache.is_certain_since(Instant::now() - Duration::from_millis(950));
        assert!(cache.get(&digest).is_none(), "the last read is too long ago");
        cache.is_certain_since(Instant::now());
        cache.begin_generation();
        assert!(cache.get(&digest).is_none(), "a change may have been missed");
        assert_eq!(cache.counts(), CacheCounts { hits: 2, misses: 1, uncertain: 2, ..CacheCounts::default() });
        assert!(!IdentityCache::new(0).is_on());
    }

    #[test]
    fn what_is_not_known_to_have_changed_can_be_served_stale_for_a_while() {
        const LIMIT: Duration = Duration::from_secs(5);
        let mut cache = IdentityCache::new(100);
        cache.started -= Duration::from_secs(100);
        cache.is_certain_since(Instant::now());
        for user in [ADA, EVE] {
            let (digest, identity) = identity(user);
            cache.put(cache.ticket(), digest, Some(&identity));
        }
        let (ada, eve) = (identity(ADA).0, identity(EVE).0);
        cache.is_certain_since(Instant::now() - Duration::from_secs(4));
        assert!(cache.get(&ada).is_none() && cache.get_stale(&ada, LIMIT).is_some());
        cache.begin_generation();
        cache.is_certain_since(Instant::now());
        assert!(cache.get(&ada).is_none(), "not fresh until it is looked up");
        assert!(cache.get_stale(&ada, LIMIT).is_some(), "the lookup may fail");
        assert!(cache.get_stale(&ada, Duration::from_secs(3)).is_none(), "it was certain four seconds ago");
        cache.invalidate(ADA);
        assert!(cache.get_stale(&ada, LIMIT).is_none(), "it is known to have changed");
        cache.put(cache.ticket(), eve, None);
        assert!(cache.get_stale(&eve, LIMIT).is_none(), "the database knows it no more");
    }
}
