//! Identities in memory, in front of the database: the speed of the one with the truth of the other.
//!
//! An entry holds while nothing has changed for its user since before it was looked up. What this process changes ends
//! entries as soon as it is committed; what others change, by whatever program, is told by a feed ([`crate::db::feed`]).
//! While the feed is silent nothing is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::domain::id::UserId;
use crate::domain::principal::Identity;
use crate::domain::secret::Digest;

/// Users share counters by their ids; to end the entries of one ends those of the others, which does no harm.
const SLOTS: usize = 4096;
/// How long after the feed was last certain its news may be relied on. Every change is seen within this time.
const TRUST: Duration = Duration::from_millis(900);

/// A bounded number of identities by the digest of what was presented, never by itself.
pub struct IdentityCache {
    entries: Option<Cache<Digest, (Arc<Identity>, u64)>>,
    /// How often something has changed for the users of each slot.
    versions: Box<[AtomicU64]>,
    /// How often something has changed for anybody.
    changes: AtomicU64,
    /// In microseconds since `started`; 0 without a feed.
    trusted_until: AtomicU64,
    started: Instant,
    counts: Counts,
}

/// On cache lines of their own: they are written at every request, what stands beside them is only read.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    invalidations: AtomicU64,
}

/// How often the cache was of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCounts {
    /// Answered from memory.
    pub hits: u64,
    /// Answered by the database.
    pub misses: u64,
    /// Changes that ended entries.
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
            trusted_until: AtomicU64::new(0),
            started: Instant::now(),
            counts: Counts::default(),
        }
    }

    /// Whose this is, if that is known and still holds. Expiry is the caller's business.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Identity>> {
        let found = self.trusted().and_then(|entries| entries.get(digest));
        let found = found.filter(|(identity, version)| self.version(identity.user_id) == *version);
        let count = if found.is_some() { &self.counts.hits } else { &self.counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found.map(|(identity, _)| identity)
    }

    /// To be taken before a lookup.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.changes.load(Ordering::SeqCst))
    }

    /// Remembers what a lookup found, unless something has changed since its `ticket`.
    pub fn put(&self, ticket: Ticket, digest: Digest, identity: &Arc<Identity>) {
        let Some(entries) = self.trusted() else {
            return;
        };
        // In this order: whoever changes something counts it in `changes` first.
        let version = self.version(identity.user_id);
        if self.changes.load(Ordering::SeqCst) == ticket.0 {
            entries.insert(digest, (Arc::clone(identity), version));
        }
    }

    /// Forgets what is known of a user.
    pub fn forget(&self, user: UserId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if let Some(version) = self.versions.get(slot(user)) {
            version.fetch_add(1, Ordering::SeqCst);
        }
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        for version in &self.versions {
            version.fetch_add(1, Ordering::SeqCst);
        }
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    /// All that others had changed before `certain` is known.
    pub fn trust(&self, certain: Instant) {
        let until = (certain + TRUST).saturating_duration_since(self.started);
        self.trusted_until.store(micros(until), Ordering::SeqCst);
    }

    /// Nothing is known of what others change.
    pub fn distrust(&self) {
        self.trusted_until.store(0, Ordering::SeqCst);
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
            invalidations: self.counts.invalidations.load(Ordering::Relaxed),
        }
    }

    fn trusted(&self) -> Option<&Cache<Digest, (Arc<Identity>, u64)>> {
        let entries = self.entries.as_ref()?;
        let now = micros(self.started.elapsed());
        (now < self.trusted_until.load(Ordering::SeqCst)).then_some(entries)
    }

    fn version(&self, user: UserId) -> u64 {
        self.versions.get(slot(user)).map_or(0, |version| version.load(Ordering::SeqCst))
    }
}

fn slot(user: UserId) -> usize {
    usize::try_from(user.0).unwrap_or(0) % SLOTS
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::id::EntryId;
    use crate::domain::principal::{Credential, Level};
    use crate::domain::role::Role;

    const ADA: UserId = UserId(1);
    const EVE: UserId = UserId(2);

    fn identity(user_id: UserId) -> (Digest, Arc<Identity>) {
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

    fn trusted() -> IdentityCache {
        let cache = IdentityCache::new(100);
        cache.trust(Instant::now());
        cache
    }

    #[test]
    fn a_change_ends_what_is_known_of_its_user_and_of_nobody_else() {
        let cache = trusted();
        for user in [ADA, EVE] {
            let (digest, identity) = identity(user);
            cache.put(cache.ticket(), digest, &identity);
            assert!(cache.get(&digest).is_some());
        }
        cache.forget(ADA);
        assert!(cache.get(&identity(ADA).0).is_none());
        assert!(cache.get(&identity(EVE).0).is_some());
        cache.forget_all();
        assert!(cache.get(&identity(EVE).0).is_none());
        assert_eq!(cache.counts(), CacheCounts { hits: 3, misses: 2, invalidations: 2 });
    }

    #[test]
    fn what_changed_during_its_lookup_is_not_remembered() {
        let cache = trusted();
        let (digest, found) = identity(ADA);
        let ticket = cache.ticket();
        cache.forget(ADA);
        cache.put(ticket, digest, &found);
        assert!(cache.get(&digest).is_none());
        cache.put(cache.ticket(), digest, &found);
        assert!(cache.get(&digest).is_some());
    }

    #[test]
    fn without_a_feed_that_is_certain_nothing_is_remembered() {
        let (digest, found) = identity(ADA);
        let cache = IdentityCache::new(100);
        cache.put(cache.ticket(), digest, &found);
        assert!(cache.get(&digest).is_none(), "nobody has listened yet");
        cache.trust(Instant::now());
        cache.put(cache.ticket(), digest, &found);
        assert!(cache.get(&digest).is_some());
        cache.distrust();
        assert!(cache.get(&digest).is_none(), "nobody listens any more");
        cache.trust(Instant::now() - TRUST);
        assert!(cache.get(&digest).is_none(), "the last news is too old");
        assert!(!IdentityCache::new(0).is_on());
    }
}
