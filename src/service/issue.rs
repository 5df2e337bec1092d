//! A purchase becomes a key: issued once for each order, delivered once, to the shop or to whoever claims it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use validator::{Validate, ValidationError};

use super::Service;
use super::grant::{Foreign, KeyRequest, Terms, may_give};
use super::key::{FreshKey, lock_key, may_change_key, revoke};
use super::repeat::{NamedRequest, is_repetition, made_by, repeated_differently, replace_unseen};
use super::rules::{TEXT_MAX, broken, readable};
use super::throttle::Act;
use super::token::generate;
use super::trail::Change;
use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange, NewKey};
use crate::db::{issue_requests, users};
use crate::domain::audit::{Action, By, Call, Event, Target};
use crate::domain::id::{KeyId, UserId};
use crate::domain::key::Key;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;

/// Longest name of an order, in characters.
pub const ORDER_MAX: u64 = TEXT_MAX;
/// Longest metadata, in bytes of JSON without spaces.
pub const METADATA_MAX: usize = 4 * 1024;
/// Seconds that a claim code lives: 72 hours.
const CLAIM_TTL: i64 = 72 * 3_600;
/// Most keys in one answer.
pub const LIMIT_MAX: i64 = 100;
/// Keys in one answer unless asked otherwise.
pub const LIMIT_DEFAULT: i64 = 50;

/// Who gets the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The shop, in the answer.
    Secret,
    /// Whoever shows the claim code, which the shop gets in the answer.
    Claim,
}

impl Delivery {
    /// Every way of delivery.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Claim];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Claim => "claim",
        }
    }
}

/// A key to be issued.
#[derive(Debug, Validate)]
pub struct IssueRequest {
    /// Name, scopes of any name, and expiry.
    pub key: KeyRequest,
    /// The shop's own name for the purchase; the same again is the same key.
    #[validate(
        length(min = 1, max = ORDER_MAX),
        custom(function = readable)
    )]
    pub order: Option<String>,
    /// Whatever the shop wants to remember.
    #[validate(custom(function = small_enough))]
    pub metadata: BTreeMap<String, Value>,
    /// Who gets the secret.
    pub delivery: Delivery,
    /// The caller's name for this request; the same again is the same key.
    pub idempotency_key: Option<String>,
}

fn small_enough(metadata: &BTreeMap<String, Value>) -> Result<(), ValidationError> {
    if json!(metadata).to_string().len() > METADATA_MAX {
        return Err(ValidationError::new("length").with_message("Use at most 4096 bytes of JSON.".into()));
    }
    Ok(())
}

impl IssueRequest {
    /// What tells a repetition from another request: all of it but its name, in one spelling.
    fn digest(&self) -> Digest {
        let [name, scopes, expires_at] = self.key.canonical();
        let mut canonical = json!([name, scopes, expires_at, self.order, self.metadata, self.delivery.name()]);
        canonical.sort_all_objects();
        Digest::of(&canonical.to_string())
    }
}

/// What issuing delivers.
#[derive(Debug)]
pub enum Issued {
    /// A new key, with its secret or its claim code, which is shown this once.
    New {
        /// The key.
        key: Key,
        /// The secret or the claim code.
        secret: Secret,
    },
    /// The key that an earlier request of the same name made, with another secret or claim code in place of the one
    /// that nobody has used.
    Again {
        /// The key.
        key: Key,
        /// The secret or the claim code.
        secret: Secret,
    },
    /// The key that an earlier request made.
    Already(Key),
}

/// Which issued keys.
#[derive(Clone, Debug, Validate)]
pub struct IssuedQuery {
    /// Those for this order.
    #[validate(length(max = ORDER_MAX))]
    pub order: Option<String>,
    /// Those with higher ids.
    #[validate(range(min = 0))]
    pub after: i64,
    /// At most so many.
    #[validate(range(min = 1, max = LIMIT_MAX))]
    pub limit: i64,
}

/// Some issued keys.
#[derive(Debug)]
pub struct IssuedList {
    /// By id.
    pub items: Vec<Key>,
    /// After which key the list goes on, if it does.
    pub next: Option<KeyId>,
}

impl Service {
    /// Issues a key on the caller's account.
    pub async fn issue_key(&self, call: Call, request: IssueRequest) -> Result<Issued, AppError> {
        let owner = call.user()?.user_id;
        self.throttle.count_key(owner)?;
        self.issue_key_for(call, owner, request).await
    }

    /// Issues a key on the account of `owner`. The same order or idempotency key again is the same key; with another
    /// body it is a conflict.
    pub async fn issue_key_for(&self, call: Call, owner: UserId, request: IssueRequest) -> Result<Issued, AppError> {
        let wrong = broken(&request);
        if !wrong.is_empty() {
            return Err(AppError::Invalid(wrong));
        }
        // An expiry may have passed since the first request, so what is wrong here matters to a new key only.
        let terms = Terms::read(&request.key, Foreign::Allowed, self.clock.now());
        if let (Err(errors), None, None) = (&terms, &request.order, &request.idempotency_key) {
            return Err(AppError::Invalid(errors.clone()));
        }
        let secret = generate(match request.delivery {
            Delivery::Secret => SecretKind::ApiKey,
            Delivery::Claim => SecretKind::Claim,
        })?;
        let (hint, digest) = (secret.hint(), secret.digest().to_hex());
        let named = NamedRequest::new("issue", owner, request.idempotency_key.as_deref(), &request.digest().to_hex());
        let issued = self.change(call, Event::of(Action::IssueKey).owned_by(owner), move |change| {
            // The owner's row is locked, so of parallel repetitions the first one makes the key.
            let row = users::lock(change.conn, owner)?.ok_or(AppError::NotFound("user"))?;
            if row.disabled_at.is_some() {
                let detail = "The user is disabled, and so would be the key.";
                return Err(AppError::Conflict { code: "owner_disabled", detail });
            }
            let request_digest = request.digest().to_hex();
            if let Some(known) = known(change, owner, &request, &request_digest)? {
                let allowed = |terms: &Terms| may_give(change, terms, Foreign::Allowed, row.role()).is_ok();
                // A new secret of a key that has ended would open nothing.
                let is_again = known.revoked_at.is_none()
                    && terms.as_ref().is_ok_and(allowed)
                    && is_repetition(&known, named.as_ref(), change.now).is_ok_and(|is_repetition| is_repetition);
                return if is_again {
                    Ok(Issued::Again { key: replace_unseen(change, &known, &secret)?.into(), secret })
                } else {
                    change.leave_as_is();
                    Ok(Issued::Already(known.into()))
                };
            }
            let terms = terms.map_err(AppError::Invalid)?;
            may_give(change, &terms, Foreign::Allowed, row.role())?;
            let claimed = request.delivery == Delivery::Claim;
            let new = NewKey {
                issued: true,
                name: request.key.name,
                scopes: terms.grant.own.to_string(),
                foreign_scopes: terms.grant.foreign_names(),
                hint: (!claimed).then_some(hint),
                digest: (!claimed).then(|| digest.clone()),
                expires_at: terms.expires_at.map(Timestamp::naive),
                order_id: request.order,
                request_digest: Some(request_digest.clone()),
                metadata: Some(json!(request.metadata).to_string()),
                claim_expires_at: claimed.then(|| change.now.plus_seconds(CLAIM_TTL).naive()),
                claim_digest: claimed.then_some(digest),
                secret_request: named.as_ref().map(|named| named.name().to_owned()),
                secret_request_body: named.as_ref().map(|named| named.body().to_owned()),
                secret_made_at: named.as_ref().map(|_| change.now.naive()),
                secret_unseen: named.is_some(),
                ..NewKey::blank(owner, change.now)
            };
            let key = api_keys::insert(change.conn, &new)?;
            if let Some(name) = &request.idempotency_key {
                issue_requests::insert(change.conn, owner, name, &request_digest, key.id, change.now)?;
            }
            change.is_on(Target::Key(key.id));
            change.record(|event| event.detail(terms.grant.to_string()))?;
            Ok(Issued::New { key: key.into(), secret })
        });
        issued.await
    }

    /// Exchanges a claim code for the key's secret, which comes into being now and is shown this once, or to the same
    /// request again while nobody has used it.
    ///
    /// Errors: [`AppError::NotFound`] for what is no code of ours, [`AppError::Gone`] for one that has been used, has
    /// expired, or whose key was revoked.
    pub async fn claim_key(&self, call: Call, code: &str, idempotency_key: Option<&str>) -> Result<FreshKey, AppError> {
        self.throttle.count(Act::Claim, call.origin.client)?;
        let unknown = || AppError::NotFound("claim");
        if SecretKind::of(code) != Some(SecretKind::Claim) {
            return Err(unknown());
        }
        let code = Digest::of(code);
        let found = self.db.read(move |conn| api_keys::find_by_claim(conn, code)).await?.ok_or_else(unknown)?;
        let named = NamedRequest::new("claim", found.owner_id, idempotency_key, &code.to_hex());
        let secret = generate(SecretKind::ApiKey)?;
        let attempt = Event::of(Action::ClaimKey).on(Target::Key(found.id)).owned_by(found.owner_id);
        let claimed = self.change(call, attempt, move |change| {
            let key = lock_key(change, found.id)?;
            change.is_by(By::claim(key.id));
            let now = change.now.naive();
            let gone = |code, detail| Err(AppError::Gone { code, detail });
            if key.revoked_at.is_some() {
                return gone("claim_revoked", "The key has been revoked.");
            }
            // Who has another name for the request is told no more than who has none.
            let is_again = is_repetition(&key, named.as_ref(), change.now).is_ok_and(|is_repetition| is_repetition);
            if key.claimed_at.is_some() && !is_again {
                return gone("claim_used", "The key has been claimed already; its secret is shown only once.");
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
                    ..made_by(named.as_ref(), change.now)
                },
            )?;
            change.record(|event| event)?;
            Ok(FreshKey { key: claimed.into(), secret })
        });
        claimed.await
    }

    /// Some of the keys that were issued on the caller's account.
    pub async fn issued_keys(&self, call: &Call, query: IssuedQuery) -> Result<IssuedList, AppError> {
        query.validate()?;
        let (owner, limit) = (call.user()?.user_id, query.limit);
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
        let (items, next) = super::first_of(rows, limit, |key| key.id);
        Ok(IssuedList { items: items.into_iter().map(Key::from).collect(), next })
    }

    /// One of them. Somebody else's is not found.
    pub async fn issued_key(&self, call: &Call, id: KeyId) -> Result<Key, AppError> {
        let owner = call.user()?.user_id;
        let found = self.db.read(move |conn| api_keys::find(conn, id)).await?;
        issued_by(found, owner).map(Key::from)
    }

    /// Ends one of them; its record stays.
    pub async fn revoke_issued_key(&self, call: Call, id: KeyId) -> Result<(), AppError> {
        let owner = call.user()?.user_id;
        self.change(call, Event::of(Action::RevokeKey).on(Target::Key(id)), move |change| {
            may_change_key(change, id)?;
            let found = api_keys::find(change.conn, id)?;
            if let Some(key) = &found {
                change.concerns(key.owner_id);
            }
            revoke(change, &issued_by(found, owner)?)
        })
        .await
    }
}

fn issued_by(key: Option<ApiKey>, owner: UserId) -> Result<ApiKey, AppError> {
    key.filter(|key| key.issued && key.owner_id == owner).ok_or(AppError::NotFound("key"))
}

/// The key that an earlier request of the same name or for the same order made.
fn known(
    change: &mut Change<'_>,
    owner: UserId,
    request: &IssueRequest,
    request_digest: &str,
) -> Result<Option<ApiKey>, AppError> {
    let same = |change: &mut Change<'_>, key: &ApiKey, earlier: Option<&str>| {
        change.is_on(Target::Key(key.id));
        if earlier == Some(request_digest) {
            return Ok(());
        }
        Err(repeated_differently())
    };
    if let Some(name) = &request.idempotency_key
        && let Some((key, earlier)) = issue_requests::find(change.conn, owner, name)?
    {
        same(change, &key, Some(&earlier))?;
        return Ok(Some(key));
    }
    let Some(order) = &request.order else {
        return Ok(None);
    };
    let found = api_keys::find_by_order(change.conn, owner, order)?;
    if let Some(key) = &found {
        same(change, key, key.request_digest.as_deref())?;
        if let Some(name) = &request.idempotency_key {
            issue_requests::insert(change.conn, owner, name, request_digest, key.id, change.now)?;
        }
    }
    Ok(found)
}
