//! Requests that make a secret and can be repeated, because their answer may not have arrived: the secret is stored as a
//! digest only, so a repetition replaces it by another one.
//!
//! A request is the same by its `Idempotency-Key` and by what it asks for. It can be repeated for a day, until the
//! secret is first used. The first use is stored before the secret opens anything ([`super::key_usage`]), so no replica
//! replaces a secret that another one has let in.

use super::trail::Change;
use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange};
use crate::domain::id::UserId;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;

/// Seconds that a request can be repeated: a day.
const REPEATABLE: i64 = 86_400;

/// A request that its caller has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedRequest {
    name: String,
    body: String,
}

impl NamedRequest {
    /// The request of this kind on the account of `owner`; `None` if it has no name.
    pub(super) fn new(kind: &str, owner: UserId, name: Option<&str>, body: &str) -> Option<Self> {
        let name = Digest::of(&format!("{kind} {owner} {}", name?)).to_hex();
        Some(Self { name, body: Digest::of(body).to_hex() })
    }

    /// Its name in `issue_requests`, which no client can send as an `Idempotency-Key`.
    pub(super) fn row_name(&self) -> String {
        format!("\u{a7}{}", self.name)
    }

    /// What it asks for.
    pub(super) fn body(&self) -> &str {
        &self.body
    }

    /// Its name, for the columns of a new key.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// What is stored with a new secret that `request` made.
pub(super) fn made_by(request: Option<&NamedRequest>, now: Timestamp) -> KeyChange {
    KeyChange {
        secret_request: Some(request.map(|request| request.name.clone())),
        secret_request_body: Some(request.map(|request| request.body.clone())),
        secret_made_at: Some(request.map(|_| now.naive())),
        secret_unseen: Some(request.is_some()),
        ..KeyChange::default()
    }
}

/// Whether `request` has made the current secret of `key` and is to get another one in its place.
///
/// Errors: [`AppError::Conflict`] if the request asks for something else than before, comes too late, or if the secret
/// has been used.
pub(super) fn is_repetition(key: &ApiKey, request: Option<&NamedRequest>, now: Timestamp) -> Result<bool, AppError> {
    let Some(request) = request.filter(|request| key.secret_request.as_deref() == Some(request.name())) else {
        return Ok(false);
    };
    if key.secret_request_body.as_deref() != Some(request.body()) {
        return Err(repeated_differently());
    }
    if !key.secret_unseen {
        return Err(secret_used());
    }
    if key.secret_made_at.is_none_or(|made_at| Timestamp::from(made_at).plus_seconds(REPEATABLE) <= now) {
        let detail = "A request can be repeated for 24 hours.";
        return Err(AppError::Conflict { code: "repeated_too_late", detail });
    }
    Ok(true)
}

/// Replaces the secret of `key`, or its claim code, by one that was made for a repetition. All else stays: the secret
/// before, the end of its overlap, and until when the request can be repeated.
pub(super) fn replace_unseen(change: &mut Change<'_>, key: &ApiKey, secret: &Secret) -> Result<ApiKey, AppError> {
    let digest = secret.digest().to_hex();
    let replacement = match secret.kind() {
        SecretKind::Claim => KeyChange { claim_digest: Some(digest), ..KeyChange::default() },
        _ => KeyChange { hint: Some(secret.hint()), digest: Some(Some(digest)), ..KeyChange::default() },
    };
    // The first use of a secret takes no lock on the owner, so it may have been stored since the key was read.
    let replaced = api_keys::replace_unseen(change.conn, key.id, &replacement)?.ok_or_else(secret_used)?;
    change.record(|event| event.changed(vec!["secret"]).detail("repeated"))?;
    Ok(replaced)
}

pub(super) fn secret_used() -> AppError {
    let detail = "The secret that this request made has been used or replaced. It is shown no more.";
    AppError::Conflict { code: "secret_used", detail }
}

pub(super) fn repeated_differently() -> AppError {
    let detail = "This order or idempotency key was used for another request. Send the same body, or another name.";
    AppError::Conflict { code: "repeated_differently", detail }
}
