//! Authenticates callers: resolves a presented credential to a [`Principal`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::{AuthSettings, SessionSettings};
use crate::db::{Caller, Db, set_caller};
use crate::domain::principal::{Credential, Identity, Principal};
use crate::domain::roles::Roles;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::{AppError, CredentialHeader, Reason};
use crate::service::identity::cache::IdentityCache;
use crate::service::identity::last_use::{LastUses, UsedCredential};
use crate::service::identity::lookup::Lookups;
use crate::service::identity::outage::Outage;
use crate::service::identity::resolve::Resolver;
use crate::service::limits::Limits;
use crate::service::limits::throttle::RateLimit;

/// Maximum length of a credential in bytes. A longer one is rejected before it is hashed.
const MAX_LENGTH: usize = 512;
/// Time-out of a lookup in the database if the cache has a stale entry that can be served instead.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);

/// What the credential is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A read, or a decision for another service. A stale cache entry may be used while the database does not answer.
    Read,
    /// A change. A stale cache entry is never used.
    Change,
}

/// Authenticates callers, with a cache in front of the database.
pub struct Identities {
    clock: Clock,
    resolver: Resolver,
    static_key: Option<Digest>,
    serve_stale_seconds: u64,
    limits: Arc<Limits>,
    cache: Arc<IdentityCache>,
    lookups: Arc<Lookups>,
    outage: Arc<Outage>,
    last_uses: Arc<LastUses>,
}

impl Identities {
    /// Applies the settings. The cache is empty.
    pub(crate) fn new(
        db: &Db,
        clock: Clock,
        (settings, session): (&AuthSettings, SessionSettings),
        roles: Roles,
        limits: Arc<Limits>,
    ) -> Self {
        let resolver = Resolver::new(roles, session);
        Self {
            static_key: settings.api_key_token.get().map(Digest::of),
            serve_stale_seconds: settings.serve_stale_seconds,
            limits,
            cache: Arc::new(IdentityCache::new(settings.cache_size)),
            lookups: Lookups::new(db.clone(), resolver.clone()),
            resolver,
            outage: Arc::new(Outage::new()),
            last_uses: Arc::new(LastUses::new(db.clone(), clock.clone())),
            clock,
        }
    }

    /// What resolves secrets to identities.
    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The cached identities.
    pub fn cache(&self) -> &Arc<IdentityCache> {
        &self.cache
    }

    /// The state of the database, as far as lookups show it.
    pub(crate) fn outage(&self) -> &Outage {
        &self.outage
    }

    /// The last uses of keys and sessions.
    pub fn last_uses(&self) -> &LastUses {
        &self.last_uses
    }

    /// Resolves `credential`, which `client` presents in the header `carrier`. A malformed credential is rejected
    /// without a query, and so is the secret of a session outside of its cookie, or another credential in it.
    ///
    /// Errors: [`AppError::Unauthenticated`] for a credential that is malformed, unknown, expired or revoked (the error
    /// does not reveal which); [`AppError::TooMany`] after too many of these from one client; [`AppError::Busy`] if the
    /// database does not answer.
    pub async fn authenticate(
        &self,
        credential: &str,
        carrier: CredentialHeader,
        client: Option<IpAddr>,
        purpose: Purpose,
    ) -> Result<Principal, AppError> {
        let reject = || match self.limits.throttle().count(RateLimit::InvalidToken, client) {
            Ok(()) => AppError::Unauthenticated(Reason::BadCredential(carrier)),
            Err(too_many) => too_many,
        };
        if credential.len() > MAX_LENGTH {
            return Err(reject());
        }
        let (digest, is_cookie) = (Digest::of(credential), carrier == CredentialHeader::Cookie);
        if self.static_key.is_some_and(|key| key == digest) && !is_cookie {
            return Ok(Principal::StaticKey);
        }
        let kind = SecretKind::of(credential).filter(|kind| is_cookie == (*kind == SecretKind::Session));
        let Some(kind) = kind else {
            return Err(reject());
        };
        let now = self.clock.now();
        let identity = self.holder(kind, digest, now, purpose).await?.ok_or_else(reject)?;
        set_caller(match identity.credential {
            Credential::IssuedKey(key) => Caller::IssuedKey(key),
            Credential::Token(_) | Credential::Session(_) | Credential::OwnKey(_) => Caller::User(identity.user_id),
        });
        match identity.credential {
            Credential::Token(_) => {}
            Credential::Session(session) => self.last_uses.note(UsedCredential::Session(session), now, client),
            Credential::OwnKey(key) | Credential::IssuedKey(key) => {
                self.last_uses.note(UsedCredential::Key(key), now, client);
            }
        }
        Ok(Principal::User(identity, carrier))
    }

    /// The identity of the token, session or key with this digest that is valid at `now`, from the cache or from the
    /// database. The cache stores only credentials that exist, so unknown ones cannot evict entries. A session that
    /// seems idle is read again, because its last use may have been stored since.
    ///
    /// Errors: [`AppError::Busy`] if the database does not answer.
    pub(crate) async fn holder(
        &self,
        kind: SecretKind,
        digest: Digest,
        now: Timestamp,
        purpose: Purpose,
    ) -> Result<Option<Arc<Identity>>, AppError> {
        let found = match self.cache.get(&digest).filter(|identity| !identity.is_idle_at(now)) {
            Some(identity) => Some(identity),
            // Boxed to keep the future small for requests that hit the cache.
            None => Box::pin(self.look_up_or_serve_stale(kind, digest, purpose)).await?,
        };
        Ok(found.filter(|identity| identity.is_valid_at(now)))
    }

    /// Looks up a credential in the database. For a read, a stale cache entry replaces it while the database does not
    /// answer.
    async fn look_up_or_serve_stale(
        &self,
        kind: SecretKind,
        digest: Digest,
        purpose: Purpose,
    ) -> Result<Option<Arc<Identity>>, AppError> {
        let has_stale = self.find_stale(&digest, purpose).is_some();
        if has_stale && self.outage.is_on() {
            if self.outage.claim_probe() {
                self.probe(kind, digest);
            }
            return Ok(self.serve_stale(&digest, purpose));
        }
        if !has_stale {
            return self.look_up(kind, digest).await;
        }
        let started = self.outage.now();
        let mut found = self.look_up_with_timeout(kind, digest).await;
        // If another lookup succeeded since, or the change log is read again, the database is available: try once more.
        if is_busy(&found) && (self.outage.answered_since(started) || self.find_stale(&digest, purpose).is_none()) {
            found = self.look_up_with_timeout(kind, digest).await;
        }
        match found {
            Err(AppError::Busy(cause)) => {
                let stale = self.serve_stale(&digest, purpose).ok_or(AppError::Busy(cause))?;
                self.outage.begin();
                Ok(Some(stale))
            }
            found => found,
        }
    }

    /// Looks up a credential for which the cache has a stale entry.
    async fn look_up_with_timeout(&self, kind: SecretKind, digest: Digest) -> Result<Option<Arc<Identity>>, AppError> {
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, self.look_up(kind, digest)).await;
        found.unwrap_or_else(|_| Err(AppError::Busy("the lookup of a credential timed out".into())))
    }

    /// Looks up a credential in the database and caches the result.
    async fn look_up(&self, kind: SecretKind, digest: Digest) -> Result<Option<Arc<Identity>>, AppError> {
        let ticket = self.cache.ticket();
        let found = self.store_first_use(self.lookups.find(kind, digest).await?).await?;
        self.cache.put(ticket, digest, found.as_ref());
        self.outage.lookup_answered();
        Ok(found)
    }

    /// The stale identity that may be served for this purpose, if there is one.
    fn find_stale(&self, digest: &Digest, purpose: Purpose) -> Option<Arc<Identity>> {
        let limit = self.serve_stale_seconds;
        if purpose == Purpose::Change || limit == 0 {
            return None;
        }
        let found = self.cache.get_stale(digest, Duration::from_secs(limit))?;
        let now = self.clock.now();
        Some(found).filter(|identity| !identity.is_idle_at(now))
    }

    /// Like [`find_stale`](Self::find_stale), and counts it.
    fn serve_stale(&self, digest: &Digest, purpose: Purpose) -> Option<Arc<Identity>> {
        let stale = self.find_stale(digest, purpose)?;
        self.cache.count_stale();
        Some(stale)
    }

    /// Checks in the background whether the database answers again.
    fn probe(&self, kind: SecretKind, digest: Digest) {
        let (lookups, outage) = (Arc::clone(&self.lookups), Arc::clone(&self.outage));
        tokio::spawn(async move {
            if lookups.find(kind, digest).await.is_ok() {
                outage.lookup_answered();
            }
        });
    }
}

fn is_busy<T>(result: &Result<T, AppError>) -> bool {
    matches!(result, Err(AppError::Busy(_)))
}

impl Identities {
    /// Stores the first use of a found secret if that has not been stored yet. Returns `None` if the secret has been
    /// replaced in the meantime.
    async fn store_first_use(&self, found: Option<Arc<Identity>>) -> Result<Option<Arc<Identity>>, AppError> {
        match found {
            Some(identity) if identity.unseen => {
                let is_current = self.last_uses.note_first_use(identity.digest).await?;
                Ok(is_current.then(|| Arc::new(Identity { unseen: false, ..Identity::clone(&identity) })))
            }
            found => Ok(found),
        }
    }
}
