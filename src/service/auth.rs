//! From a presented credential to a [`Principal`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::throttle::Act;
use super::{Caller, Service, set_caller};
use crate::clock::Timestamp;
use crate::db::{Conn, access_tokens, api_keys};
use crate::domain::principal::{Credential, Identity, Level, Principal};
use crate::domain::secret::{Digest, SecretKind};
use crate::error::{AppError, Carrier, Reason};

/// The longest credential that is looked at, in bytes (standards: G7).
const MAX_LENGTH: usize = 512;
/// How long a read waits for the lookup of a credential for which there is a stale entry.
const STALE_AFTER: Duration = Duration::from_millis(500);
/// By how much the clocks of replicas may differ, in seconds.
const CLOCKS_DIFFER: i64 = 60;

/// What a caller does with the answer to who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reads, or lets others decide: while the database does not answer, a cached credential may do.
    Read,
    /// Changes something.
    Change,
}

impl Service {
    /// Who presents `credential`, from `client`. What cannot be one of our secrets is refused without a query.
    ///
    /// Errors: [`AppError::Unauthenticated`] for a credential that is malformed, unknown, expired or revoked, without
    /// saying which; [`AppError::TooMany`] after too many such; [`AppError::Busy`] when the database cannot tell.
    pub async fn authenticate(
        &self,
        credential: &str,
        carrier: Carrier,
        client: Option<IpAddr>,
        purpose: Purpose,
    ) -> Result<Principal, AppError> {
        let refused = || match self.throttle.count(Act::InvalidToken, client) {
            Ok(()) => AppError::Unauthenticated(Reason::BadCredential(carrier)),
            Err(too_many) => too_many,
        };
        if credential.len() > MAX_LENGTH {
            return Err(refused());
        }
        let digest = Digest::of(credential);
        if self.constant_key.is_some_and(|key| key == digest) {
            return Ok(Principal::ConstantKey);
        }
        let now = self.clock.now();
        let identity = self.holder(credential, digest, now, purpose).await?.ok_or_else(refused)?;
        set_caller(match identity.credential {
            Credential::IssuedKey(key) => Caller::IssuedKey(key),
            Credential::Token(_) | Credential::OwnKey(_) => Caller::User(identity.user_id),
        });
        if let Some(key) = identity.key() {
            self.key_usage.note(key, now, client);
        }
        Ok(Principal::User(identity, carrier))
    }

    /// Whose secret this is, with this digest, if it is a token or key that lives: by memory, or by the database. What
    /// the latter finds is remembered, so wrong ones push nothing out.
    pub(super) async fn holder(
        &self,
        secret: &str,
        digest: Digest,
        now: Timestamp,
        purpose: Purpose,
    ) -> Result<Option<Arc<Identity>>, AppError> {
        let Some(kind) = SecretKind::of(secret) else {
            return Ok(None);
        };
        let found = match self.cache.get(&digest) {
            Some(identity) => Some(identity),
            // Boxed, so that requests that are answered from memory do not carry its future along.
            None => Box::pin(self.look_up(kind, digest, purpose)).await?,
        };
        Ok(found.filter(|identity| identity.lives_at(now)))
    }

    /// Looks a credential up in the database. While that does not answer, a stale entry of the cache will do for a read.
    async fn look_up(
        &self,
        kind: SecretKind,
        digest: Digest,
        purpose: Purpose,
    ) -> Result<Option<Arc<Identity>>, AppError> {
        let has_stale = self.stale(&digest, purpose).is_some();
        if has_stale && self.outage.is_on() {
            if self.outage.takes_probe() {
                self.probe(kind, digest);
            }
            return Ok(self.serve_stale(&digest, purpose));
        }
        if !has_stale {
            return self.look_up_now(kind, digest).await;
        }
        let asked = self.outage.now();
        let mut answer = self.look_up_soon(kind, digest).await;
        // Another lookup that was answered meanwhile, or a change log that is read again, says that the database is back.
        if is_busy(&answer) && (self.outage.answered_since(asked) || self.stale(&digest, purpose).is_none()) {
            answer = self.look_up_soon(kind, digest).await;
        }
        match answer {
            Err(AppError::Busy(cause)) => {
                let stale = self.serve_stale(&digest, purpose).ok_or(AppError::Busy(cause))?;
                self.outage.begin();
                Ok(Some(stale))
            }
            answer => answer,
        }
    }

    /// Looks a credential up for which there is a stale entry.
    async fn look_up_soon(&self, kind: SecretKind, digest: Digest) -> Result<Option<Arc<Identity>>, AppError> {
        let answer = tokio::time::timeout(STALE_AFTER, self.look_up_now(kind, digest)).await;
        answer.unwrap_or_else(|_| Err(AppError::Busy("the lookup of a credential takes too long".into())))
    }

    /// Looks a credential up in the database, and remembers what it finds.
    async fn look_up_now(&self, kind: SecretKind, digest: Digest) -> Result<Option<Arc<Identity>>, AppError> {
        let ticket = self.cache.ticket();
        let found = self.seen(self.lookups.find(kind, digest).await?).await?;
        self.cache.put(ticket, digest, found.as_ref());
        self.outage.lookup_answered();
        Ok(found)
    }

    fn stale(&self, digest: &Digest, purpose: Purpose) -> Option<Arc<Identity>> {
        let limit = self.settings.serve_stale_seconds;
        if purpose == Purpose::Change || limit == 0 {
            return None;
        }
        self.cache.get_stale(digest, Duration::from_secs(limit))
    }

    /// The stale identity, if there still is one, because the database does not answer.
    fn serve_stale(&self, digest: &Digest, purpose: Purpose) -> Option<Arc<Identity>> {
        let stale = self.stale(digest, purpose)?;
        self.cache.count_stale();
        Some(stale)
    }

    /// Finds out beside the requests whether the database answers again.
    fn probe(&self, kind: SecretKind, digest: Digest) {
        let (lookups, outage) = (Arc::clone(&self.lookups), Arc::clone(&self.outage));
        tokio::spawn(async move {
            if lookups.find(kind, digest).await.is_ok() {
                outage.lookup_answered();
            }
        });
    }
}

fn is_busy<T>(answer: &Result<T, AppError>) -> bool {
    matches!(answer, Err(AppError::Busy(_)))
}

impl Service {
    /// What a lookup found, after the first use of a secret is stored if that matters. Somebody may have replaced it meanwhile.
    async fn seen(&self, found: Option<Arc<Identity>>) -> Result<Option<Arc<Identity>>, AppError> {
        match found {
            Some(identity) if identity.unseen => {
                let lives = self.note_first_use(identity.digest).await?;
                Ok(lives.then(|| Arc::new(Identity { unseen: false, ..Identity::clone(&identity) })))
            }
            found => Ok(found),
        }
    }
}

/// Whose secret has this digest, expired or not.
pub(super) fn identify(conn: &mut Conn, kind: SecretKind, digest: Digest) -> Result<Option<Identity>, AppError> {
    match kind {
        SecretKind::SignIn => {
            let found = access_tokens::resolve(conn, digest)?;
            Ok(found.map(|found| Identity {
                user_id: found.user_id,
                name: found.name,
                email: Some(found.email),
                credential: Credential::Token(found.sign_in),
                digest,
                level: found.level,
                foreign: BTreeSet::new(),
                narrowed: found.narrowed,
                replaced: false,
                unseen: false,
                issued_at: found.created_at,
                expires_at: Some(found.expiration_date),
            }))
        }
        SecretKind::ApiKey => {
            let found = api_keys::resolve(conn, digest)?;
            Ok(found.map(|found| {
                // Whoever bought a key need not know who sold it.
                let (credential, name, email) = match found.issued {
                    true => (Credential::IssuedKey(found.id), found.key_name, None),
                    false => (Credential::OwnKey(found.id), found.owner_name, Some(found.owner_email)),
                };
                Identity {
                    user_id: found.owner_id,
                    name,
                    email,
                    credential,
                    digest,
                    level: Level::new(found.role, found.grant.own),
                    foreign: found.grant.foreign,
                    narrowed: true,
                    replaced: found.replaced,
                    unseen: found.unseen,
                    issued_at: found.created_at,
                    expires_at: found.expires_at,
                }
            }))
        }
        // A claim code opens nothing but its claim.
        SecretKind::Claim => Ok(None),
    }
}

impl Identity {
    /// Whether it has not expired, nor come from the future. A token lives for so long from its sign-in, so one that a
    /// clock ahead of this one gave out would outlive that; a key ends on the day that was asked for.
    pub(super) fn lives_at(&self, now: Timestamp) -> bool {
        let has_begun = self.key().is_some() || self.issued_at <= now.plus_seconds(CLOCKS_DIFFER);
        has_begun && self.expires_at.is_none_or(|end| now < end)
    }

    /// The kind of the secret that was presented.
    pub(super) fn kind(&self) -> SecretKind {
        match self.credential {
            Credential::Token(_) => SecretKind::SignIn,
            Credential::OwnKey(_) | Credential::IssuedKey(_) => SecretKind::ApiKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity_cache::tests::{ADA, identity};
    use super::*;
    use crate::clock::Clock;
    use crate::domain::id::KeyId;

    #[test]
    fn a_credential_lives_until_the_moment_of_its_end_and_a_token_not_before_its_beginning() {
        let now = Clock::default().now();
        let ada =
            Identity { issued_at: now, expires_at: Some(now.plus_seconds(60)), ..Identity::clone(&identity(ADA).1) };
        let lives = |identity: &Identity, seconds: &[i64]| -> Vec<bool> {
            seconds.iter().map(|seconds| identity.lives_at(now.plus_seconds(*seconds))).collect()
        };
        assert_eq!(lives(&ada, &[0, 59, 60, 61]), [true, true, false, false]);
        // The clocks of replicas may differ by a minute.
        let early = [-61, -60];
        assert_eq!(lives(&ada, &early), [false, true]);
        for credential in [Credential::OwnKey(KeyId(1)), Credential::IssuedKey(KeyId(1))] {
            let key = Identity { credential, ..ada.clone() };
            assert_eq!(lives(&key, &early), [true, true]);
        }
        assert_eq!(lives(&Identity { expires_at: None, ..ada }, &[60, 1_000_000_000]), [true, true]);
    }
}
