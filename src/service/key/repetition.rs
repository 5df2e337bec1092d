//! Repeatable requests that create a secret, for clients that did not receive the response. Only the digest of a secret
//! is stored, so a repetition replaces the secret.
//!
//! Two requests are the same if `Idempotency-Key` and content are equal. A request can be repeated for 24 hours, until
//! the secret is first used. The first use is stored before the secret gives access
//! ([`crate::service::identity::last_use`]), so no replica replaces a secret that another one has accepted.

use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange};
use crate::domain::id::UserId;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;
use crate::service::audit::trail::Change;

/// Seconds for which a request can be repeated: 24 hours.
const REPEAT_WINDOW: i64 = 86_400;

/// A request with an `Idempotency-Key`, as digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepeatableRequest {
    name: String,
    body: String,
}

impl RepeatableRequest {
    /// The request of this kind on the account of `owner`. Returns `None` without an `Idempotency-Key` (`name`).
    pub(crate) fn new(kind: &str, owner: UserId, name: Option<&str>, body: &str) -> Option<Self> {
        let name = Digest::of(&format!("{kind} {owner} {}", name?)).to_hex();
        Some(Self { name, body: Digest::of(body).to_hex() })
    }

    /// Its name in the table `issue_requests`. The prefix cannot occur in an `Idempotency-Key`.
    pub(crate) fn row_name(&self) -> String {
        format!("\u{a7}{}", self.name)
    }

    /// Digest of the request's content.
    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    /// Digest of the request's kind, owner and `Idempotency-Key`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The columns that `request` sets together with a new secret.
pub(crate) fn request_columns(request: Option<&RepeatableRequest>, now: Timestamp) -> KeyChange {
    KeyChange {
        secret_request: Some(request.map(|request| request.name.clone())),
        secret_request_body: Some(request.map(|request| request.body.clone())),
        secret_made_at: Some(request.map(|_| now.naive())),
        secret_unseen: Some(request.is_some()),
        ..KeyChange::default()
    }
}

/// Whether `request` repeats the request that created the current secret of `key`, and may replace that secret.
///
/// Errors: [`AppError::Conflict`] if the repetition has other content or comes too late, or if the secret has been
/// used.
pub(crate) fn is_repetition(
    key: &ApiKey,
    request: Option<&RepeatableRequest>,
    now: Timestamp,
) -> Result<bool, AppError> {
    let Some(request) = request.filter(|request| key.secret_request.as_deref() == Some(request.name())) else {
        return Ok(false);
    };
    if key.secret_request_body.as_deref() != Some(request.body()) {
        return Err(repeated_differently());
    }
    if !key.secret_unseen {
        return Err(secret_used());
    }
    if key.secret_made_at.is_none_or(|made_at| Timestamp::from(made_at).plus_seconds(REPEAT_WINDOW) <= now) {
        let detail = "The first request was more than 24 hours ago. A request can be repeated for 24 hours.";
        return Err(AppError::Conflict { code: "repeated_too_late", detail });
    }
    Ok(true)
}

/// Replaces the unused secret or claim code of `key` for a repeated request. The previous secret, the end of its
/// overlap and the time until which the request can be repeated do not change.
///
/// Errors: [`AppError::Conflict`] if the secret has been used in the meantime.
pub(crate) fn replace_unseen(change: &mut Change<'_>, key: &ApiKey, secret: &Secret) -> Result<ApiKey, AppError> {
    let digest = secret.digest().to_hex();
    let replacement = match secret.kind() {
        SecretKind::Claim => KeyChange { claim_digest: Some(digest), ..KeyChange::default() },
        _ => KeyChange { hint: Some(secret.hint()), digest: Some(Some(digest)), ..KeyChange::default() },
    };
    // The first use of a secret does not lock the owner's row, so it may have been stored since the key was read.
    let replaced = api_keys::replace_unseen(change.conn, key.id, &replacement)?.ok_or_else(secret_used)?;
    change.record(|event| event.changed(vec!["secret"]).detail("repeated"))?;
    Ok(replaced)
}

pub(crate) fn secret_used() -> AppError {
    let detail = "The secret of this request has been used or replaced, and cannot be shown again.";
    AppError::Conflict { code: "secret_used", detail }
}

pub(crate) fn repeated_differently() -> AppError {
    let detail = "This order or idempotency key was used for another request. Send the same body, or use another one.";
    AppError::Conflict { code: "repeated_differently", detail }
}
