//! Whoever holds a secret may end it (RFC 7009): its owner, or somebody who found it where it should not be.

use super::Service;
use super::auth::Purpose;
use super::auth::identify;
use super::key::{lock_key, revoke};
use super::throttle::Act;
use super::trail::Change;
use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange};
use crate::db::{Conn, access_tokens, users};
use crate::domain::audit::{Action, By, Call, Caller, Event, Target};
use crate::domain::id::{KeyId, UserId};
use crate::domain::principal::Identity;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::{AppError, Denial};

/// How the trail tells that the secret itself was enough.
const BY_POSSESSION: &str = "by possession";

/// The same, where the key lives on by its current secret.
const PREVIOUS_BY_POSSESSION: &str = "by possession, only the secret before the last rotation";

/// A secret that lives.
struct ResolvedSecret {
    kind: SecretKind,
    digest: Digest,
    owner: UserId,
    /// The key that it is for, unless it is a sign-in token.
    key: Option<KeyId>,
    /// Whoever shows it.
    holder: By,
}

impl Service {
    /// Ends the token, key or claim code that `secret` is. The secret before the last rotation of a key ends alone: whoever
    /// found it does not end the current one. What is none that lives counts against the client, and that is
    /// all: there is nothing to tell them.
    ///
    /// Errors: [`AppError::Forbidden`] for a caller whose credential is of another account, [`AppError::TooMany`].
    pub async fn revoke_secret(&self, call: Call, secret: &str) -> Result<(), AppError> {
        let Some(resolved) = self.resolve_secret(secret).await? else {
            return self.throttle.count(Act::InvalidToken, call.origin.client);
        };
        let attempt = match resolved.key {
            Some(key) => Event::of(Action::RevokeKey).on(Target::Key(key)).owned_by(resolved.owner),
            None => Event::of(Action::RevokeToken).on(Target::Token(resolved.owner)),
        };
        let is_stranger = matches!(call.caller, Caller::Anonymous);
        if !is_stranger && call.identity().map(|identity| identity.user_id) != Some(resolved.owner) {
            return Err(self.turned_down(&call, attempt, AppError::Forbidden(Denial::NotOwner)).await);
        }
        self.change(call, attempt, move |change| {
            change.adds(BY_POSSESSION);
            if is_stranger {
                change.is_by(resolved.holder.clone());
            }
            resolved.end(change)
        })
        .await
    }

    async fn resolve_secret(&self, secret: &str) -> Result<Option<ResolvedSecret>, AppError> {
        let (digest, now) = (Digest::of(secret), self.clock.now());
        if SecretKind::of(secret) == Some(SecretKind::Claim) {
            let key = self.db.read(move |conn| claimable(conn, digest, now)).await?;
            return Ok(key.map(|key| ResolvedSecret::code(&key, digest)));
        }
        let holder = self.holder(secret, digest, now, Purpose::Change).await?;
        Ok(holder.map(|identity| ResolvedSecret::credential(&identity)))
    }
}

impl ResolvedSecret {
    fn credential(identity: &Identity) -> Self {
        let (kind, digest, owner) = (identity.kind(), identity.digest, identity.user_id);
        Self { kind, digest, owner, key: identity.key(), holder: By::holder(identity) }
    }

    fn code(key: &ApiKey, digest: Digest) -> Self {
        let (kind, owner) = (SecretKind::Claim, key.owner_id);
        Self { kind, digest, owner, key: Some(key.id), holder: By::claim(key.id) }
    }

    /// Ends it, unless it has ended meanwhile: a secret that was replaced takes nothing along.
    fn end(&self, change: &mut Change<'_>) -> Result<(), AppError> {
        users::lock(change.conn, self.owner)?;
        let (lives, replaced) = match self.kind {
            SecretKind::Claim => (claimable(change.conn, self.digest, change.now)?.is_some(), false),
            kind => {
                let found = identify(change.conn, kind, self.digest)?.filter(|found| found.lives_at(change.now));
                (found.is_some(), found.is_some_and(|found| found.replaced))
            }
        };
        match self.key {
            _ if !lives => {
                change.leave_as_is();
                Ok(())
            }
            Some(key) if replaced => end_previous_secret(change, key),
            Some(key) => {
                let key = lock_key(change, key)?;
                revoke(change, &key)
            }
            None => {
                access_tokens::delete_of(change.conn, self.owner)?;
                change.record(|event| event).map(drop)
            }
        }
    }
}

/// Ends the secret before the last rotation of a key.
fn end_previous_secret(change: &mut Change<'_>, key: KeyId) -> Result<(), AppError> {
    let ended = KeyChange { previous_digest: Some(None), previous_expires_at: Some(None), ..KeyChange::default() };
    api_keys::update(change.conn, key, &ended)?;
    change.adds(PREVIOUS_BY_POSSESSION);
    change.record(|event| event.changed(vec!["previous_secret"])).map(drop)
}

/// The key that this claim code is still good for.
fn claimable(conn: &mut Conn, code: Digest, now: Timestamp) -> Result<Option<ApiKey>, AppError> {
    let is_good = |key: &ApiKey| {
        let has_ended = [key.claim_expires_at, key.expires_at].into_iter().flatten().any(|end| end <= now.naive());
        key.revoked_at.is_none() && key.claimed_at.is_none() && !has_ended
    };
    Ok(api_keys::find_by_claim(conn, code)?.filter(is_good))
}
