//! Own API keys: keys that users create for their own services and devices.

use serde_json::json;
use validator::{Validate, ValidationError};

use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange, NewKey};
use crate::db::{Conn, issue_requests, users};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::id::{KeyId, UserId};
use crate::domain::key::Key;
use crate::domain::mail::MailKind;
use crate::domain::secret::{Secret, SecretKind};
use crate::error::{AppError, FieldError};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::key::grant::{
    ExternalScopes, KeyRequest, KeyTerms, NAME_MAX, may_grant, may_take_over, read_expiry, read_scopes,
};
use crate::service::key::repetition::{RepeatableRequest, is_repetition, replace_unseen, request_columns, secret_used};
use crate::service::validation::{readable, validation_errors};

/// Maximum number of own keys of a user.
pub const KEYS_MAX: i64 = 100;
/// Maximum overlap of two secrets after a rotation, in seconds: 7 days.
pub const OVERLAP_MAX: i64 = 7 * 86_400;

/// Changes of an own key. `None` leaves a field unchanged.
#[derive(Debug, Validate)]
#[validate(schema(function = require_a_change))]
pub struct KeyEdit {
    /// Name that the owner gives the key. Length: 1 to [`NAME_MAX`] characters.
    #[validate(
        length(min = 1, max = NAME_MAX),
        custom(function = readable)
    )]
    pub name: Option<String>,
    /// Scopes of the key, each once.
    pub scopes: Option<Vec<String>>,
    /// Time from which the key is invalid (RFC 3339), within ten years.
    pub expires_at: Option<String>,
}

fn require_a_change(edit: &KeyEdit) -> Result<(), ValidationError> {
    if edit.name.is_none() && edit.scopes.is_none() && edit.expires_at.is_none() {
        return Err(ValidationError::new("missing").with_message("Send at least one field to change.".into()));
    }
    Ok(())
}

/// A key with its new secret, which is shown only once.
#[derive(Debug)]
pub struct FreshKey {
    /// The key.
    pub key: Key,
    /// The secret in plain text.
    pub secret: Secret,
}

impl Service {
    /// Returns all own keys of the caller, in the order of their ids.
    pub async fn keys(&self, context: &RequestContext) -> Result<Vec<Key>, AppError> {
        let owner = context.user()?.user_id;
        let rows = self.db.read(move |conn| api_keys::list_of(conn, owner, false, KeyId(0), KEYS_MAX)).await?;
        Ok(rows.into_iter().map(Key::from).collect())
    }

    /// Returns an own key of the caller. Errors: [`AppError::NotFound`], also for another user's key.
    pub async fn key(&self, context: &RequestContext, id: KeyId) -> Result<Key, AppError> {
        let owner = context.user()?.user_id;
        let found = self.db.read(move |conn| api_keys::find(conn, id)).await?;
        own_key(found, owner).map(Key::from)
    }

    /// Creates an own key of the caller with scopes that the caller's credential holds. With an `idempotency_key`, the
    /// same request again returns the same key with a new secret.
    ///
    /// Errors: [`AppError::Invalid`]; [`AppError::Conflict`] for more than [`KEYS_MAX`] keys, or a request that can no
    /// longer be repeated; [`AppError::TooMany`].
    pub async fn create_key(
        &self,
        context: RequestContext,
        request: KeyRequest,
        idempotency_key: Option<&str>,
    ) -> Result<FreshKey, AppError> {
        let terms = KeyTerms::read(&request, ExternalScopes::OfRoles(&self.roles), self.clock.now());
        let terms = terms.map_err(AppError::Invalid)?;
        let (owner, secret) = (context.user()?.user_id, Secret::generate(SecretKind::ApiKey)?);
        self.limits.throttle().count_key(owner)?;
        let repeatable =
            RepeatableRequest::new("create", owner, idempotency_key, &json!(request.canonical()).to_string());
        let mail = self.mail.clone();
        let created = self.trail.change(context, Event::of(Action::CreateKey).owned_by(owner), move |change| {
            may_grant(change, &terms)?;
            if let Some(repeatable) = &repeatable
                && let Some((key, _)) = issue_requests::find(change.conn, owner, &repeatable.row_name())?
            {
                change.set_target(Target::Key(key.id));
                if !is_repetition(&key, Some(repeatable), change.now)? {
                    return Err(secret_used());
                }
                // The key may have got more scopes or a later expiry since the first request.
                may_take_over(change, &key, &key.grant(), key.expires_at.map(Timestamp::from))?;
                return Ok(FreshKey { key: replace_unseen(change, &key, &secret)?.into(), secret });
            }
            // The owner's row is locked, so parallel requests cannot exceed the limit.
            if api_keys::count_own(change.conn, owner)? >= KEYS_MAX {
                let detail = "A user can have at most 100 keys. Delete one first.";
                return Err(AppError::Conflict { code: "key_limit", detail });
            }
            let new = NewKey {
                name: request.name,
                scopes: terms.grant.own.to_string(),
                foreign_scopes: terms.grant.external_names(),
                expires_at: terms.expires_at.map(Timestamp::naive),
                hint: Some(secret.hint()),
                digest: Some(secret.digest().to_hex()),
                secret_request: repeatable.as_ref().map(|repeatable| repeatable.name().to_owned()),
                secret_request_body: repeatable.as_ref().map(|repeatable| repeatable.body().to_owned()),
                secret_made_at: repeatable.as_ref().map(|_| change.now.naive()),
                secret_unseen: repeatable.is_some(),
                ..NewKey::blank(owner, change.now)
            };
            let key = api_keys::insert(change.conn, &new)?;
            if let Some(repeatable) = &repeatable {
                issue_requests::insert(
                    change.conn,
                    owner,
                    &repeatable.row_name(),
                    repeatable.body(),
                    key.id,
                    change.now,
                )?;
            }
            change.set_target(Target::Key(key.id));
            change.record(|event| event.detail(terms.grant.to_string()))?;
            if let Some(user) = change.caller_row.take() {
                mail.notify(change, MailKind::KeyCreated, &user)?;
            }
            Ok(FreshKey { key: key.into(), secret })
        });
        created.await
    }

    /// Changes an own key of the caller. A change of scopes or expiry requires all scopes that the key holds
    /// afterwards.
    ///
    /// Errors: [`AppError::Invalid`]; [`AppError::NotFound`]; [`AppError::Forbidden`] for the key's own replaced
    /// secret.
    pub async fn edit_key(&self, context: RequestContext, id: KeyId, edit: KeyEdit) -> Result<Key, AppError> {
        let mut errors = validation_errors(&edit);
        let external = ExternalScopes::OfRoles(&self.roles);
        let grant = edit.scopes.as_deref().map(|scopes| read_scopes(scopes, external)).transpose();
        let grant = grant.map_err(|error| errors.push(error)).ok().flatten();
        let expires_at = edit.expires_at.as_deref().map(|text| read_expiry(text, self.clock.now())).transpose();
        let expires_at = expires_at.map_err(|error| errors.push(error)).ok().flatten();
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let owner = context.user()?.user_id;
        let changed = self.trail.change(context, Event::of(Action::EditKey).on(Target::Key(id)), move |change| {
            let before = lock_own_key(change, owner, id)?;
            if grant.is_some() || expires_at.is_some() {
                let grant = grant.clone().unwrap_or_else(|| before.grant());
                may_take_over(change, &before, &grant, expires_at.or(before.expires_at.map(Timestamp::from)))?;
            }
            let after = api_keys::update(
                change.conn,
                id,
                &KeyChange {
                    name: edit.name,
                    scopes: grant.as_ref().map(|grant| grant.own.to_string()),
                    foreign_scopes: grant.map(|grant| grant.external_names()),
                    expires_at: expires_at.map(Timestamp::naive),
                    ..KeyChange::default()
                },
            )?;
            let fields = [
                ("name", before.name != after.name),
                ("scopes", before.grant() != after.grant()),
                ("expires_at", before.expires_at != after.expires_at),
            ];
            change.record(|event| event.changed_where(fields).detail(after.grant().to_string()))?;
            Ok(after)
        });
        changed.await.map(Key::from)
    }

    /// Replaces the secret of an own key of the caller. The old secret stays valid for `overlap` seconds: 0 (default)
    /// to [`OVERLAP_MAX`].
    ///
    /// Errors: [`AppError::Invalid`]; [`AppError::NotFound`]; [`AppError::Conflict`] for a revoked or expired key, or a
    /// request that can no longer be repeated; [`AppError::Forbidden`] for the key's own replaced secret.
    pub async fn rotate_key(
        &self,
        context: RequestContext,
        id: KeyId,
        overlap: Option<i64>,
        idempotency_key: Option<&str>,
    ) -> Result<FreshKey, AppError> {
        let owner = context.user()?.user_id;
        let body = format!("{id} {}", overlap.unwrap_or(0));
        // A key can repeat its own rotation with its replaced secret, but not a rotation by its owner.
        let is_itself = context.identity().is_some_and(|identity| identity.key() == Some(id));
        let kind = if is_itself { "rotate-itself" } else { "rotate" };
        let repeatable = RepeatableRequest::new(kind, owner, idempotency_key, &body);
        self.rotate(context, id, overlap, repeatable, move |change| find_own_key(change, owner, id)).await
    }

    /// Replaces the secret of any key, for operators. Errors: as [`Self::rotate_key`].
    pub async fn rotate_any_key(
        &self,
        context: RequestContext,
        id: KeyId,
        overlap: Option<i64>,
    ) -> Result<FreshKey, AppError> {
        self.rotate(context, id, overlap, None, move |change| lock_key(change, id)).await
    }

    async fn rotate(
        &self,
        context: RequestContext,
        id: KeyId,
        overlap: Option<i64>,
        repeatable: Option<RepeatableRequest>,
        find: impl FnOnce(&mut Change<'_>) -> Result<ApiKey, AppError> + Send + 'static,
    ) -> Result<FreshKey, AppError> {
        let overlap = overlap.unwrap_or(0);
        if !(0..=OVERLAP_MAX).contains(&overlap) {
            return Err(FieldError::new("overlap_seconds", "range", format!("Use 0 to {OVERLAP_MAX}.")).into());
        }
        let (secret, mail) = (Secret::generate(SecretKind::ApiKey)?, self.mail.clone());
        let rotated = self.trail.change(context, Event::of(Action::RotateKey).on(Target::Key(id)), move |change| {
            let before = find(change)?;
            let is_repeat = is_repetition(&before, repeatable.as_ref(), change.now)?;
            // A key may repeat its own rotation with its replaced secret, which must not do anything else to the key.
            let is_itself = change.caller.as_ref().is_some_and(|caller| caller.key() == Some(id));
            if !(is_repeat && is_itself) {
                may_change_key(change, id)?;
                may_take_over(change, &before, &before.grant(), before.expires_at.map(Timestamp::from))?;
            }
            check_rotatable(&before, change.now)?;
            if is_repeat {
                return Ok(FreshKey { key: replace_unseen(change, &before, &secret)?.into(), secret });
            }
            let overlaps = overlap > 0;
            let after = api_keys::update(
                change.conn,
                id,
                &KeyChange {
                    hint: Some(secret.hint()),
                    digest: Some(Some(secret.digest().to_hex())),
                    previous_digest: Some(before.digest.filter(|_| overlaps)),
                    previous_expires_at: Some(overlaps.then(|| change.now.plus_seconds(overlap).naive())),
                    ..request_columns(repeatable.as_ref(), change.now)
                },
            )?;
            change.record(|event| event.changed(vec!["secret"]).detail(format!("overlap {overlap} s")))?;
            // The new secret of a key that its owner rotates may be that of a thief with a token.
            if let Some(user) = change.caller_row.take().filter(|user| !is_itself && user.id == after.owner_id) {
                mail.notify(change, MailKind::KeyCreated, &user)?;
            }
            Ok(FreshKey { key: after.into(), secret })
        });
        rotated.await
    }

    /// Revokes an own key of the caller. Errors: [`AppError::NotFound`]; [`AppError::Forbidden`] for the key's own
    /// replaced secret.
    pub async fn revoke_key(&self, context: RequestContext, id: KeyId) -> Result<(), AppError> {
        let owner = context.user()?.user_id;
        self.trail
            .change(context, Event::of(Action::RevokeKey).on(Target::Key(id)), move |change| {
                let key = lock_own_key(change, owner, id)?;
                revoke(change, &key)
            })
            .await
    }

    /// Revokes any key, for operators. Errors: [`AppError::NotFound`].
    pub async fn revoke_any_key(&self, context: RequestContext, id: KeyId) -> Result<(), AppError> {
        self.trail
            .change(context, Event::of(Action::RevokeKey).on(Target::Key(id)), move |change| {
                let key = lock_key(change, id)?;
                revoke(change, &key)
            })
            .await
    }

    /// Returns at most `limit` keys after `after`, of one user or of all users, for operators.
    pub async fn all_keys(&self, of: Option<UserId>, after: KeyId, limit: i64) -> Result<Vec<Key>, AppError> {
        let rows = self.db.read(move |conn| match of {
            Some(owner) => all_keys_of(conn, owner, after, limit),
            None => api_keys::list(conn, after, limit),
        });
        Ok(rows.await?.into_iter().map(Key::from).collect())
    }
}

/// Returns own and issued keys of a user, in the order of their ids. Each kind has its own index.
fn all_keys_of(conn: &mut Conn, owner: UserId, after: KeyId, limit: i64) -> Result<Vec<ApiKey>, AppError> {
    let mut keys = api_keys::list_of(conn, owner, false, after, limit)?;
    keys.extend(api_keys::list_of(conn, owner, true, after, limit)?);
    keys.sort_by_key(|key| key.id);
    keys.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(keys)
}

/// Returns `key` if it is an own key of `owner`. Errors: [`AppError::NotFound`].
fn own_key(key: Option<ApiKey>, owner: UserId) -> Result<ApiKey, AppError> {
    key.filter(|key| key.owner_id == owner && !key.issued).ok_or(AppError::NotFound("key"))
}

/// Finds an own key of the caller for a change. The lock on the caller's row prevents concurrent changes of the key,
/// but not its use.
fn lock_own_key(change: &mut Change<'_>, owner: UserId, id: KeyId) -> Result<ApiKey, AppError> {
    may_change_key(change, id)?;
    find_own_key(change, owner, id)
}

fn find_own_key(change: &mut Change<'_>, owner: UserId, id: KeyId) -> Result<ApiKey, AppError> {
    let found = api_keys::find(change.conn, id)?;
    if let Some(key) = &found {
        change.set_subject(key.owner_id);
    }
    own_key(found, owner)
}

/// Rejects a secret that a rotation has replaced if it would change its own key.
pub(crate) fn may_change_key(change: &Change<'_>, id: KeyId) -> Result<(), AppError> {
    let caller = change.caller.as_ref();
    caller.map_or(Ok(()), |caller| caller.may_change_key(id)).map_err(AppError::Forbidden)
}

/// Finds a key and locks its owner's row until the transaction ends. The lock prevents concurrent changes of the key,
/// but not its use.
pub(crate) fn lock_key(change: &mut Change<'_>, id: KeyId) -> Result<ApiKey, AppError> {
    let find = |conn: &mut Conn| api_keys::find(conn, id)?.ok_or(AppError::NotFound("key"));
    let owner = find(change.conn)?.owner_id;
    change.set_subject(owner);
    users::lock(change.conn, owner)?;
    find(change.conn)
}

/// Rejects a rotation of a revoked, expired or unclaimed key.
fn check_rotatable(key: &ApiKey, now: Timestamp) -> Result<(), AppError> {
    let conflict = |code, detail| Err(AppError::Conflict { code, detail });
    if key.revoked_at.is_some() {
        return conflict("revoked", "The key is revoked.");
    }
    if key.expires_at.is_some_and(|end| end <= now.naive()) {
        return conflict("expired", "The key has expired. Create a new one, or set a later expiry first.");
    }
    if key.digest.is_none() {
        return conflict("unclaimed", "The key has not been claimed, so there is no secret to replace.");
    }
    Ok(())
}

/// Revokes a key. The record of an issued key stays, so that its order is not issued twice; an own key is deleted.
pub(crate) fn revoke(change: &mut Change<'_>, key: &ApiKey) -> Result<(), AppError> {
    if key.revoked_at.is_some() {
        change.needs_no_entry();
        return Ok(());
    }
    if key.issued {
        let revoked_at = Some(change.now.naive());
        api_keys::update(change.conn, key.id, &KeyChange { revoked_at, ..KeyChange::default() })?;
    } else {
        api_keys::delete(change.conn, key.id)?;
    }
    change.record(|event| event).map(drop)
}

/// Deletes all own keys of a user and returns their number. The user's row must be locked.
pub(crate) fn end_own_keys(change: &mut Change<'_>, owner: UserId) -> Result<usize, AppError> {
    let ended = api_keys::own_ids(change.conn, owner)?;
    let event = |id: &KeyId| Event::of(Action::RevokeKey).on(Target::Key(*id)).owned_by(owner);
    change.record_each(&ended.iter().map(event).collect::<Vec<_>>())?;
    api_keys::delete_all(change.conn, &ended)?;
    Ok(ended.len())
}
