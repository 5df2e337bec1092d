//! Issued keys (C10): a shop issues one key for each order, and the secret is delivered once, to the shop or to the
//! buyer who claims it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use validator::{Validate, ValidationError};

use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange, NewKey};
use crate::db::{issue_requests, users};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::id::{KeyId, UserId};
use crate::domain::key::Key;
use crate::domain::mail::MailKind;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::key::grant::{ExternalScopes, KeyRequest, KeyTerms, may_issue};
use crate::service::key::own::{FreshKey, lock_key, may_change_key, revoke};
use crate::service::key::repetition::{
    RepeatableRequest, is_repetition, repeated_differently, replace_unseen, request_columns,
};
use crate::service::limits::throttle::RateLimit;
use crate::service::lists::first_of;
use crate::service::validation::{TEXT_MAX, readable, validation_errors};

/// Maximum length of an order id, in characters.
pub const ORDER_MAX: u64 = TEXT_MAX;
/// Maximum size of the metadata, in bytes of JSON without spaces.
pub const METADATA_MAX: usize = 4 * 1024;
/// Lifetime of a claim code, in seconds: 72 hours.
const CLAIM_TTL: i64 = 72 * 3_600;
/// Maximum number of keys in one response.
pub const LIMIT_MAX: i64 = 100;
/// Default number of keys in one response.
pub const LIMIT_DEFAULT: i64 = 50;

/// How the secret is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The response contains the secret, and the shop passes it on.
    Secret,
    /// The response contains a claim code, which the buyer exchanges for the secret.
    Claim,
}

impl Delivery {
    /// All ways of delivery.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Claim];

    /// The value in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Claim => "claim",
        }
    }
}

/// A request to issue a key.
#[derive(Debug, Validate)]
pub struct IssueRequest {
    /// Name, scopes (Latchkey's own and external ones) and expiry.
    pub key: KeyRequest,
    /// The shop's id of the purchase. The same id again returns the same key.
    #[validate(
        length(min = 1, max = ORDER_MAX),
        custom(function = readable)
    )]
    pub order: Option<String>,
    /// Data of the shop, stored with the key. At most [`METADATA_MAX`] bytes.
    #[validate(custom(function = check_metadata_size))]
    pub metadata: BTreeMap<String, Value>,
    /// How the secret is delivered.
    pub delivery: Delivery,
    /// The `Idempotency-Key` of the request. The same value again returns the same key.
    pub idempotency_key: Option<String>,
}

fn check_metadata_size(metadata: &BTreeMap<String, Value>) -> Result<(), ValidationError> {
    if json!(metadata).to_string().len() > METADATA_MAX {
        return Err(ValidationError::new("length").with_message("Use at most 4096 bytes of JSON.".into()));
    }
    Ok(())
}

impl IssueRequest {
    /// Digest of the request's canonical form without the `Idempotency-Key`, to detect repetitions.
    fn digest(&self) -> Digest {
        let [name, scopes, expires_at] = self.key.canonical();
        let mut canonical = json!([name, scopes, expires_at, self.order, self.metadata, self.delivery.name()]);
        canonical.sort_all_objects();
        Digest::of(&canonical.to_string())
    }
}

/// The result of a request to issue a key.
#[derive(Debug)]
pub enum Issued {
    /// A new key with its secret or claim code, which is shown only once.
    New {
        /// The key.
        key: Key,
        /// The secret or the claim code.
        secret: Secret,
    },
    /// The key of an earlier request with the same `Idempotency-Key`. A new secret or claim code replaces the unused
    /// one.
    Repeated {
        /// The key.
        key: Key,
        /// The secret or the claim code.
        secret: Secret,
    },
    /// The key of an earlier request, without a secret.
    Existing(Key),
}

/// Selects issued keys for a list.
#[derive(Clone, Debug, Validate)]
pub struct IssuedQuery {
    /// Only the key of this order.
    #[validate(length(max = ORDER_MAX))]
    pub order: Option<String>,
    /// Only keys with a higher id.
    #[validate(range(min = 0))]
    pub after: i64,
    /// Maximum number of keys to return.
    #[validate(range(min = 1, max = LIMIT_MAX))]
    pub limit: i64,
}

/// One part of a list of issued keys.
#[derive(Debug)]
pub struct IssuedList {
    /// The keys, in the order of their ids.
    pub items: Vec<Key>,
    /// The last key of this part, if there are more keys after it.
    pub next: Option<KeyId>,
}

impl Service {
    /// Issues a key on the caller's account. Errors: as [`Self::issue_key_for`], and [`AppError::TooMany`].
    pub async fn issue_key(&self, context: RequestContext, request: IssueRequest) -> Result<Issued, AppError> {
        let owner = context.user()?.user_id;
        self.limits.throttle().count_key(owner)?;
        self.issue_key_for(context, owner, request).await
    }

    /// Issues a key on the account of `owner`. The same order or `Idempotency-Key` again returns the same key.
    ///
    /// Errors: [`AppError::Invalid`]; [`AppError::NotFound`] for the owner; [`AppError::Conflict`] for a disabled
    /// owner, or for the same order or `Idempotency-Key` with another body.
    pub async fn issue_key_for(
        &self,
        context: RequestContext,
        owner: UserId,
        request: IssueRequest,
    ) -> Result<Issued, AppError> {
        let errors = validation_errors(&request);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        // The expiry may have passed since the first request, so errors of the terms apply to new keys only.
        let terms = KeyTerms::read(&request.key, ExternalScopes::Any, self.clock.now());
        if let (Err(errors), None, None) = (&terms, &request.order, &request.idempotency_key) {
            return Err(AppError::Invalid(errors.clone()));
        }
        let secret = Secret::generate(match request.delivery {
            Delivery::Secret => SecretKind::ApiKey,
            Delivery::Claim => SecretKind::Claim,
        })?;
        let (hint, digest) = (secret.hint(), secret.digest().to_hex());
        let repeatable =
            RepeatableRequest::new("issue", owner, request.idempotency_key.as_deref(), &request.digest().to_hex());
        let mail = self.mail.clone();
        let issued = self.trail.change(context, Event::of(Action::IssueKey).owned_by(owner), move |change| {
            // The lock on the owner's row ensures that parallel repetitions create one key.
            let row = users::lock(change.conn, owner)?.ok_or(AppError::NotFound("user"))?;
            if row.disabled_at.is_some() {
                let detail = "The user is disabled, so the key would be too. Enable the user first.";
                return Err(AppError::Conflict { code: "owner_disabled", detail });
            }
            let request_digest = request.digest().to_hex();
            if let Some(earlier) = earlier_key(change, owner, &request, &request_digest)? {
                let is_allowed = |terms: &KeyTerms| may_issue(change, terms, &row.role).is_ok();
                // A new secret for a revoked key would be useless.
                let is_repeat = earlier.revoked_at.is_none()
                    && terms.as_ref().is_ok_and(is_allowed)
                    && is_repetition(&earlier, repeatable.as_ref(), change.now)
                        .is_ok_and(|is_repetition| is_repetition);
                return if is_repeat {
                    Ok(Issued::Repeated { key: replace_unseen(change, &earlier, &secret)?.into(), secret })
                } else {
                    change.needs_no_entry();
                    Ok(Issued::Existing(earlier.into()))
                };
            }
            let terms = terms.map_err(AppError::Invalid)?;
            may_issue(change, &terms, &row.role)?;
            let by_claim = request.delivery == Delivery::Claim;
            let new = NewKey {
                issued: true,
                name: request.key.name,
                scopes: terms.grant.own.to_string(),
                foreign_scopes: terms.grant.external_names(),
                hint: (!by_claim).then_some(hint),
                digest: (!by_claim).then(|| digest.clone()),
                expires_at: terms.expires_at.map(Timestamp::naive),
                order_id: request.order,
                request_digest: Some(request_digest.clone()),
                metadata: Some(json!(request.metadata).to_string()),
                claim_expires_at: by_claim.then(|| change.now.plus_seconds(CLAIM_TTL).naive()),
                claim_digest: by_claim.then_some(digest),
                secret_request: repeatable.as_ref().map(|repeatable| repeatable.name().to_owned()),
                secret_request_body: repeatable.as_ref().map(|repeatable| repeatable.body().to_owned()),
                secret_made_at: repeatable.as_ref().map(|_| change.now.naive()),
                secret_unseen: repeatable.is_some(),
                ..NewKey::blank(owner, change.now)
            };
            let key = api_keys::insert(change.conn, &new)?;
            if let Some(name) = &request.idempotency_key {
                issue_requests::insert(change.conn, owner, name, &request_digest, key.id, change.now)?;
            }
            change.set_target(Target::Key(key.id));
            change.record(|event| event.detail(terms.grant.to_string()))?;
            // A thief with a sign-in can make a key that outlives it. Programs that sell keys use a key themselves.
            let by_sign_in = change.caller.as_ref().is_some_and(|caller| caller.key().is_none());
            if by_sign_in
                && !terms.grant.own.is_empty()
                && let Some(user) = change.caller_row.take()
            {
                mail.notify(change, MailKind::KeyCreated, &user)?;
            }
            Ok(Issued::New { key: key.into(), secret })
        });
        issued.await
    }

    /// Exchanges a claim code for the key's secret, which is generated by this call and shown only once. With an
    /// `idempotency_key`, the same request again returns a new secret until the secret is first used.
    ///
    /// Errors: [`AppError::NotFound`] for an unknown code; [`AppError::Gone`] for a code that has been used or has
    /// expired, or whose key is revoked; [`AppError::TooMany`].
    pub async fn claim_key(
        &self,
        context: RequestContext,
        code: &str,
        idempotency_key: Option<&str>,
    ) -> Result<FreshKey, AppError> {
        self.limits.throttle().count(RateLimit::Claim, context.client_info.client)?;
        let unknown = || AppError::NotFound("claim");
        if SecretKind::of(code) != Some(SecretKind::Claim) {
            return Err(unknown());
        }
        let code = Digest::of(code);
        let found = self.db.read(move |conn| api_keys::find_by_claim(conn, code)).await?.ok_or_else(unknown)?;
        let repeatable = RepeatableRequest::new("claim", found.owner_id, idempotency_key, &code.to_hex());
        let secret = Secret::generate(SecretKind::ApiKey)?;
        let attempt = Event::of(Action::ClaimKey).on(Target::Key(found.id)).owned_by(found.owner_id);
        let claimed = self.trail.change(context, attempt, move |change| {
            let key = lock_key(change, found.id)?;
            // A repeated issue request may have replaced the code since it was found.
            if key.claim_digest.as_deref() != Some(code.to_hex().as_str()) {
                return Err(unknown());
            }
            change.set_actor(Actor::claim(key.id));
            let now = change.now.naive();
            let gone = |code, detail| Err(AppError::Gone { code, detail });
            if key.revoked_at.is_some() {
                return gone("claim_revoked", "The key has been revoked.");
            }
            // Another `Idempotency-Key` returns the same error as none, and reveals nothing about the first claim.
            let is_repeat =
                is_repetition(&key, repeatable.as_ref(), change.now).is_ok_and(|is_repetition| is_repetition);
            if key.claimed_at.is_some() && !is_repeat {
                return gone("claim_used", "The key has already been claimed. Its secret is shown only once.");
            }
            if [key.claim_expires_at, key.expires_at].into_iter().flatten().any(|end| end <= now) {
                return gone("claim_expired", "The claim code or its key has expired.");
            }
            if key.claimed_at.is_some() {
                return Ok(FreshKey { key: replace_unseen(change, &key, &secret)?.into(), secret });
            }
            let claimed = api_keys::update(
                change.conn,
                key.id,
                &KeyChange {
                    hint: Some(secret.hint()),
                    digest: Some(Some(secret.digest().to_hex())),
                    claimed_at: Some(now),
                    ..request_columns(repeatable.as_ref(), change.now)
                },
            )?;
            change.record(|event| event)?;
            Ok(FreshKey { key: claimed.into(), secret })
        });
        claimed.await
    }

    /// Returns one part of the list of keys that were issued on the caller's account. Errors: [`AppError::Invalid`].
    pub async fn issued_keys(&self, context: &RequestContext, query: IssuedQuery) -> Result<IssuedList, AppError> {
        query.validate()?;
        let (owner, limit) = (context.user()?.user_id, query.limit);
        let rows = self
            .db
            .read(move |conn| match &query.order {
                Some(order) => {
                    let found = api_keys::find_by_order(conn, owner, order)?;
                    Ok(found.into_iter().filter(|key| key.id.0 > query.after).collect())
                }
                None => api_keys::list_of(conn, owner, true, KeyId(query.after), query.limit + 1),
            })
            .await?;
        let (items, next) = first_of(rows, limit, |key| key.id);
        Ok(IssuedList { items: items.into_iter().map(Key::from).collect(), next })
    }

    /// Returns a key that was issued on the caller's account. Errors: [`AppError::NotFound`], also for another user's
    /// key.
    pub async fn issued_key(&self, context: &RequestContext, id: KeyId) -> Result<Key, AppError> {
        let owner = context.user()?.user_id;
        let found = self.db.read(move |conn| api_keys::find(conn, id)).await?;
        issued_by(found, owner).map(Key::from)
    }

    /// Revokes a key that was issued on the caller's account; its record stays. Errors: [`AppError::NotFound`];
    /// [`AppError::Forbidden`] for the key's own replaced secret.
    pub async fn revoke_issued_key(&self, context: RequestContext, id: KeyId) -> Result<(), AppError> {
        let owner = context.user()?.user_id;
        self.trail
            .change(context, Event::of(Action::RevokeKey).on(Target::Key(id)), move |change| {
                may_change_key(change, id)?;
                let found = api_keys::find(change.conn, id)?;
                if let Some(key) = &found {
                    change.set_subject(key.owner_id);
                }
                revoke(change, &issued_by(found, owner)?)
            })
            .await
    }
}

/// Returns `key` if it was issued on the account of `owner`. Errors: [`AppError::NotFound`].
fn issued_by(key: Option<ApiKey>, owner: UserId) -> Result<ApiKey, AppError> {
    key.filter(|key| key.issued && key.owner_id == owner).ok_or(AppError::NotFound("key"))
}

/// Returns the key of an earlier request with the same `Idempotency-Key` or order.
///
/// Errors: [`AppError::Conflict`] if that request had another body.
fn earlier_key(
    change: &mut Change<'_>,
    owner: UserId,
    request: &IssueRequest,
    request_digest: &str,
) -> Result<Option<ApiKey>, AppError> {
    let check_same_body = |change: &mut Change<'_>, key: &ApiKey, digest: Option<&str>| {
        change.set_target(Target::Key(key.id));
        if digest == Some(request_digest) {
            return Ok(());
        }
        Err(repeated_differently())
    };
    if let Some(name) = &request.idempotency_key
        && let Some((key, digest)) = issue_requests::find(change.conn, owner, name)?
    {
        check_same_body(change, &key, Some(&digest))?;
        return Ok(Some(key));
    }
    let Some(order) = &request.order else {
        return Ok(None);
    };
    let found = api_keys::find_by_order(change.conn, owner, order)?;
    if let Some(key) = &found {
        check_same_body(change, key, key.request_digest.as_deref())?;
        if let Some(name) = &request.idempotency_key {
            issue_requests::insert(change.conn, owner, name, request_digest, key.id, change.now)?;
        }
    }
    Ok(found)
}
