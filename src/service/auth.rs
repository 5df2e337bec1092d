//! From a presented credential to a [`Principal`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::throttle::Act;
use super::{Caller, Service, set_caller};
use crate::clock::Timestamp;
use crate::db::{Conn, access_tokens, api_keys};
use crate::domain::principal::{Credential, Identity, Level, Principal};
use crate::domain::secret::{Digest, SecretKind};
use crate::error::{AppError, Carrier, Reason};

/// The longest credential that is looked at, in bytes (standards: G7).
const MAX_LENGTH: usize = 512;
/// By how much the clocks of replicas may differ, in seconds.
const CLOCKS_DIFFER: i64 = 60;

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
        let identity = self.holder(credential, digest, now).await?.ok_or_else(refused)?;
        set_caller(Caller::User(identity.user_id));
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
    ) -> Result<Option<Arc<Identity>>, AppError> {
        let Some(kind) = SecretKind::of(secret) else {
            return Ok(None);
        };
        let found = match self.cache.get(&digest) {
            Some(identity) => Some(identity),
            None => {
                let ticket = self.cache.ticket();
                let found = self.lookups.find(kind, digest).await?;
                let found = self.seen(found).await?;
                if let Some(identity) = &found {
                    self.cache.put(ticket, digest, identity);
                }
                found
            }
        };
        Ok(found.filter(|identity| identity.lives_at(now)))
    }
}

impl Service {
    /// The same, after the first use of a secret is stored if that matters. Somebody may have replaced it meanwhile.
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
