//! Token revocation (RFC 7009). The secret is sufficient to revoke it, so anyone who finds a leaked secret can do so.

use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange};
use crate::db::{Conn, access_tokens, sessions, users};
use crate::domain::audit::{Action, Actor, Caller, Event, RequestContext, Target};
use crate::domain::id::{KeyId, SessionId, UserId};
use crate::domain::principal::{Credential, Identity};
use crate::domain::secret::{Digest, SecretKind};
use crate::error::{AppError, Denial};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::identity::authenticate::Purpose;
use crate::service::key::own::{lock_key, revoke};
use crate::service::limits::throttle::RateLimit;

/// Audit detail of a revocation by the secret itself.
const BY_POSSESSION: &str = "by possession";

/// Audit detail of a revocation of the previous secret only, after which the key keeps its current secret.
const PREVIOUS_BY_POSSESSION: &str = "by possession, only the secret before the last rotation";

/// An active token, session secret, key or claim code.
struct ResolvedSecret {
    kind: SecretKind,
    digest: Digest,
    owner: UserId,
    /// What the secret belongs to.
    object: Revocable,
    /// The actor of the audit entry for an anonymous caller.
    holder: Actor,
}

/// What a revocation ends.
#[derive(Clone, Copy)]
enum Revocable {
    /// The sign-in token of the owner.
    Token,
    Session(SessionId),
    Key(KeyId),
}

impl Service {
    /// Revokes the token, session secret, key or claim code `secret`. The previous secret of a rotated key revokes only
    /// itself, not the current one. An unknown or inactive secret counts against the limits of the client, and the call
    /// succeeds (RFC 7009, section 2.2).
    ///
    /// Errors: [`AppError::Forbidden`] for a credential of another account; [`AppError::TooMany`] for too many unknown
    /// secrets.
    pub async fn revoke_secret(&self, context: RequestContext, secret: &str) -> Result<(), AppError> {
        let Some(resolved) = self.resolve_secret(secret).await? else {
            return self.limits.throttle().count(RateLimit::InvalidToken, context.client_info.client);
        };
        let attempt = match resolved.object {
            Revocable::Token => Event::of(Action::RevokeToken).on(Target::Token(resolved.owner)),
            Revocable::Session(id) => Event::of(Action::EndSession).on(Target::Session(id)).owned_by(resolved.owner),
            Revocable::Key(key) => Event::of(Action::RevokeKey).on(Target::Key(key)).owned_by(resolved.owner),
        };
        let is_anonymous = matches!(context.caller, Caller::Anonymous);
        if !is_anonymous && context.identity().map(|identity| identity.user_id) != Some(resolved.owner) {
            return Err(self.trail.record_failure(&context, attempt, AppError::Forbidden(Denial::NotOwner)).await);
        }
        self.trail
            .change(context, attempt, move |change| {
                change.set_detail(BY_POSSESSION);
                if is_anonymous {
                    change.set_actor(resolved.holder.clone());
                }
                resolved.end(change)
            })
            .await
    }

    async fn resolve_secret(&self, secret: &str) -> Result<Option<ResolvedSecret>, AppError> {
        let (digest, now) = (Digest::of(secret), self.clock.now());
        let Some(kind) = SecretKind::of(secret) else {
            return Ok(None);
        };
        if kind == SecretKind::Claim {
            let key = self.db.read(move |conn| claimable(conn, digest, now)).await?;
            return Ok(key.map(|key| ResolvedSecret::claim_code(&key, digest)));
        }
        let holder = self.identities.holder(kind, digest, now, Purpose::Change).await?;
        Ok(holder.map(|identity| ResolvedSecret::credential(&identity)))
    }
}

impl ResolvedSecret {
    fn credential(identity: &Identity) -> Self {
        let (kind, digest, owner) = (identity.kind(), identity.digest, identity.user_id);
        let object = match identity.credential {
            Credential::Token(_) => Revocable::Token,
            Credential::Session(session) => Revocable::Session(session),
            Credential::OwnKey(key) | Credential::IssuedKey(key) => Revocable::Key(key),
        };
        Self { kind, digest, owner, object, holder: Actor::holder(identity) }
    }

    fn claim_code(key: &ApiKey, digest: Digest) -> Self {
        let (kind, owner) = (SecretKind::Claim, key.owner_id);
        Self { kind, digest, owner, object: Revocable::Key(key.id), holder: Actor::claim(key.id) }
    }

    /// Revokes the secret, unless it is no longer active. A replaced secret revokes only itself.
    fn end(&self, change: &mut Change<'_>) -> Result<(), AppError> {
        users::lock(change.conn, self.owner)?;
        let (is_active, replaced) = match self.kind {
            SecretKind::Claim => (claimable(change.conn, self.digest, change.now)?.is_some(), false),
            kind => {
                let found = change.resolver.identify(change.conn, kind, self.digest)?;
                let found = found.filter(|found| found.is_valid_at(change.now));
                (found.is_some(), found.is_some_and(|found| found.replaced))
            }
        };
        match self.object {
            _ if !is_active => {
                change.needs_no_entry();
                Ok(())
            }
            Revocable::Key(key) if replaced => end_previous_secret(change, key),
            Revocable::Key(key) => {
                let key = lock_key(change, key)?;
                revoke(change, &key)
            }
            Revocable::Token => {
                access_tokens::delete_of(change.conn, self.owner)?;
                change.record(|event| event).map(drop)
            }
            Revocable::Session(session) => {
                sessions::delete(change.conn, self.owner, session)?;
                change.record(|event| event).map(drop)
            }
        }
    }
}

/// Revokes the secret of a key from before its last rotation.
fn end_previous_secret(change: &mut Change<'_>, key: KeyId) -> Result<(), AppError> {
    let ended = KeyChange { previous_digest: Some(None), previous_expires_at: Some(None), ..KeyChange::default() };
    api_keys::update(change.conn, key, &ended)?;
    change.set_detail(PREVIOUS_BY_POSSESSION);
    change.record(|event| event.changed(vec!["previous_secret"])).map(drop)
}

/// Returns the key of a claim code that is not used, expired or revoked.
fn claimable(conn: &mut Conn, code: Digest, now: Timestamp) -> Result<Option<ApiKey>, AppError> {
    let is_claimable = |key: &ApiKey| {
        let has_expired = [key.claim_expires_at, key.expires_at].into_iter().flatten().any(|end| end <= now.naive());
        key.revoked_at.is_none() && key.claimed_at.is_none() && !has_expired
    };
    Ok(api_keys::find_by_claim(conn, code)?.filter(is_claimable))
}
