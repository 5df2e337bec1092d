//! API keys that users make for themselves: for services and devices, as many as needed.

use serde_json::json;
use validator::{Validate, ValidationError};

use super::Service;
use super::grant::{Foreign, KeyRequest, NAME_MAX, Terms, may_give, may_take_over, read_expiry, read_scopes};
use super::repeat::{NamedRequest, is_repetition, made_by, replace_unseen, secret_used};
use super::rules::{broken, readable};
use super::token::generate;
use super::trail::Change;
use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey, KeyChange, NewKey};
use crate::db::{Conn, issue_requests, users};
use crate::domain::audit::{Action, Call, Event, Target};
use crate::domain::id::{KeyId, UserId};
use crate::domain::key::Key;
use crate::domain::secret::{Secret, SecretKind};
use crate::error::{AppError, FieldError};

/// Most keys that a user may have made for themselves.
pub const KEYS_MAX: i64 = 100;
/// Longest overlap of two secrets after a rotation, in seconds: 7 days.
pub const OVERLAP_MAX: i64 = 7 * 86_400;

/// What a change of a key sets; `None` leaves it.
#[derive(Debug, Validate)]
#[validate(schema(function = something_to_change))]
pub struct KeyEdit {
    /// What its owner calls it.
    #[validate(
        length(min = 1, max = NAME_MAX),
        custom(function = readable)
    )]
    pub name: Option<String>,
    /// What it may do, each scope once.
    pub scopes: Option<Vec<String>>,
    /// The first moment at which it is dead (RFC 3339).
    pub expires_at: Option<String>,
}

fn something_to_change(edit: &KeyEdit) -> Result<(), ValidationError> {
    if edit.name.is_none() && edit.scopes.is_none() && edit.expires_at.is_none() {
        return Err(ValidationError::new("missing").with_message("Send at least one field to change.".into()));
    }
    Ok(())
}

/// A key with its secret, which is shown this once.
#[derive(Debug)]
pub struct FreshKey {
    /// The key.
    pub key: Key,
    /// Its secret in clear.
    pub secret: Secret,
}

impl Service {
    /// The keys that the caller made for themselves: all of them, by id.
    pub async fn keys(&self, call: &Call) -> Result<Vec<Key>, AppError> {
        let owner = call.user()?.user_id;
        let rows = self.db.read(move |conn| api_keys::list_of(conn, owner, false, KeyId(0), KEYS_MAX)).await?;
        Ok(rows.into_iter().map(Key::from).collect())
    }

    /// One of them. Somebody else's is not found.
    pub async fn key(&self, call: &Call, id: KeyId) -> Result<Key, AppError> {
        let owner = call.user()?.user_id;
        let found = self.db.read(move |conn| api_keys::find(conn, id)).await?;
        own_key(found, owner).map(Key::from)
    }

    /// Makes a key for the caller, with scopes that the caller's credential holds.
    ///
    /// Errors: [`AppError::Invalid`]; [`AppError::Conflict`] beyond [`KEYS_MAX`] keys.
    pub async fn create_key(
        &self,
        call: Call,
        request: KeyRequest,
        idempotency_key: Option<&str>,
    ) -> Result<FreshKey, AppError> {
        let terms = Terms::read(&request, Foreign::Refused, self.clock.now()).map_err(AppError::Invalid)?;
        let (owner, secret) = (call.user()?.user_id, generate(SecretKind::ApiKey)?);
        let role = call.user()?.level.role;
        self.throttle.count_key(owner)?;
        let named = NamedRequest::new("create", owner, idempotency_key, &json!(request.canonical()).to_string());
        let created = self.change(call, Event::of(Action::CreateKey).owned_by(owner), move |change| {
            may_give(change, &terms, Foreign::Refused, role)?;
            if let Some(named) = &named
                && let Some((key, _)) = issue_requests::find(change.conn, owner, &named.row_name())?
            {
                change.is_on(Target::Key(key.id));
                if !is_repetition(&key, Some(named), change.now)? {
                    return Err(secret_used());
                }
                // It may hold more, or live longer, than it did.
                may_take_over(change, &key, &key.grant(), key.expires_at.map(Timestamp::from))?;
                return Ok(FreshKey { key: replace_unseen(change, &key, &secret)?.into(), secret });
            }
            // The owner's row is locked, so parallel creations count one after the other.
            if api_keys::count_own(change.conn, owner)? >= KEYS_MAX {
                let detail = "A user has at most 100 keys. Delete one first.";
                return Err(AppError::Conflict { code: "key_limit", detail });
            }
            let new = NewKey {
                name: request.name,
                scopes: terms.grant.own.to_string(),
                expires_at: terms.expires_at.map(Timestamp::naive),
                hint: Some(secret.hint()),
                digest: Some(secret.digest().to_hex()),
                secret_request: named.as_ref().map(|named| named.name().to_owned()),
                secret_request_body: named.as_ref().map(|named| named.body().to_owned()),
                secret_made_at: named.as_ref().map(|_| change.now.naive()),
                secret_unseen: named.is_some(),
                ..NewKey::blank(owner, change.now)
            };
            let key = api_keys::insert(change.conn, &new)?;
            if let Some(named) = &named {
                issue_requests::insert(change.conn, owner, &named.row_name(), named.body(), key.id, change.now)?;
            }
            change.is_on(Target::Key(key.id));
            change.record(|event| event.detail(terms.grant.to_string()))?;
            Ok(FreshKey { key: key.into(), secret })
        });
        created.await
    }

    /// Changes a key of the caller's. Another scope or expiry takes all that the key may then do.
    pub async fn edit_key(&self, call: Call, id: KeyId, edit: KeyEdit) -> Result<Key, AppError> {
        let mut errors = broken(&edit);
        let grant = edit.scopes.as_deref().map(|scopes| read_scopes(scopes, Foreign::Refused)).transpose();
        let grant = grant.map_err(|error| errors.push(error)).ok().flatten();
        let expires_at = edit.expires_at.as_deref().map(|text| read_expiry(text, self.clock.now())).transpose();
        let expires_at = expires_at.map_err(|error| errors.push(error)).ok().flatten();
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let owner = call.user()?.user_id;
        let changed = self.change(call, Event::of(Action::EditKey).on(Target::Key(id)), move |change| {
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
                    scopes: grant.map(|grant| grant.own.to_string()),
                    expires_at: expires_at.map(Timestamp::naive),
                    ..KeyChange::default()
                },
            )?;
            let fields = [
                ("name", before.name != after.name),
                ("scopes", before.scopes != after.scopes),
                ("expires_at", before.expires_at != after.expires_at),
            ];
            change.record(|event| event.changed_where(fields).detail(after.grant().to_string()))?;
            Ok(after)
        });
        changed.await.map(Key::from)
    }

    /// Gives a key of the caller's a new secret. The old one works for `overlap` seconds more.
    pub async fn rotate_key(
        &self,
        call: Call,
        id: KeyId,
        overlap: Option<i64>,
        idempotency_key: Option<&str>,
    ) -> Result<FreshKey, AppError> {
        let owner = call.user()?.user_id;
        let body = format!("{id} {}", overlap.unwrap_or(0));
        // A key that rotates itself may repeat that with its replaced secret; it must not repeat a rotation by its owner.
        let is_itself = call.identity().is_some_and(|identity| identity.key() == Some(id));
        let kind = if is_itself { "rotate-itself" } else { "rotate" };
        let named = NamedRequest::new(kind, owner, idempotency_key, &body);
        self.rotate(call, id, overlap, named, move |change| find_own_key(change, owner, id)).await
    }

    /// Gives any key a new secret, for operators.
    pub async fn rotate_any_key(&self, call: Call, id: KeyId, overlap: Option<i64>) -> Result<FreshKey, AppError> {
        self.rotate(call, id, overlap, None, move |change| lock_key(change, id)).await
    }

    async fn rotate(
        &self,
        call: Call,
        id: KeyId,
        overlap: Option<i64>,
        named: Option<NamedRequest>,
        find: impl FnOnce(&mut Change<'_>) -> Result<ApiKey, AppError> + Send + 'static,
    ) -> Result<FreshKey, AppError> {
        let overlap = overlap.unwrap_or(0);
        if !(0..=OVERLAP_MAX).contains(&overlap) {
            return Err(FieldError::new("overlap_seconds", "range", format!("Use 0 to {OVERLAP_MAX}.")).into());
        }
        let secret = generate(SecretKind::ApiKey)?;
        let rotated = self.change(call, Event::of(Action::RotateKey).on(Target::Key(id)), move |change| {
            let before = find(change)?;
            let is_again = is_repetition(&before, named.as_ref(), change.now)?;
            // A key that rotated itself repeats that by the secret that it has left, which may do no more than that.
            let is_itself = change.caller.as_ref().is_some_and(|caller| caller.key() == Some(id));
            if !(is_again && is_itself) {
                may_change_key(change, id)?;
                may_take_over(change, &before, &before.grant(), before.expires_at.map(Timestamp::from))?;
            }
            rotatable(&before, change.now)?;
            if is_again {
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
                    ..made_by(named.as_ref(), change.now)
                },
            )?;
            change.record(|event| event.changed(vec!["secret"]).detail(format!("overlap {overlap} s")))?;
            Ok(FreshKey { key: after.into(), secret })
        });
        rotated.await
    }

    /// Ends a key of the caller's.
    pub async fn revoke_key(&self, call: Call, id: KeyId) -> Result<(), AppError> {
        let owner = call.user()?.user_id;
        self.change(call, Event::of(Action::RevokeKey).on(Target::Key(id)), move |change| {
            let key = lock_own_key(change, owner, id)?;
            revoke(change, &key)
        })
        .await
    }

    /// Ends any key, for operators.
    pub async fn revoke_any_key(&self, call: Call, id: KeyId) -> Result<(), AppError> {
        self.change(call, Event::of(Action::RevokeKey).on(Target::Key(id)), move |change| {
            let key = lock_key(change, id)?;
            revoke(change, &key)
        })
        .await
    }

    /// Keys after `after`, of one user or of all, at most `limit`, for operators.
    pub async fn all_keys(&self, of: Option<UserId>, after: KeyId, limit: i64) -> Result<Vec<Key>, AppError> {
        let rows = self.db.read(move |conn| match of {
            Some(owner) => all_of(conn, owner, after, limit),
            None => api_keys::list(conn, after, limit),
        });
        Ok(rows.await?.into_iter().map(Key::from).collect())
    }
}

/// The keys of a user, of both kinds, by id: each kind by its index.
fn all_of(conn: &mut Conn, owner: UserId, after: KeyId, limit: i64) -> Result<Vec<ApiKey>, AppError> {
    let mut keys = api_keys::list_of(conn, owner, false, after, limit)?;
    keys.extend(api_keys::list_of(conn, owner, true, after, limit)?);
    keys.sort_by_key(|key| key.id);
    keys.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(keys)
}

fn own_key(key: Option<ApiKey>, owner: UserId) -> Result<ApiKey, AppError> {
    key.filter(|key| key.owner_id == owner && !key.issued).ok_or(AppError::NotFound("key"))
}

/// The caller's own key with this id, for a change. The caller's row is locked, so nobody else changes the key; it may be
/// used.
fn lock_own_key(change: &mut Change<'_>, owner: UserId, id: KeyId) -> Result<ApiKey, AppError> {
    may_change_key(change, id)?;
    find_own_key(change, owner, id)
}

fn find_own_key(change: &mut Change<'_>, owner: UserId, id: KeyId) -> Result<ApiKey, AppError> {
    let found = api_keys::find(change.conn, id)?;
    if let Some(key) = &found {
        change.concerns(key.owner_id);
    }
    own_key(found, owner)
}

/// Refuses a secret that was rotated out and would change its own key.
pub(super) fn may_change_key(change: &Change<'_>, id: KeyId) -> Result<(), AppError> {
    let caller = change.caller.as_ref();
    caller.map_or(Ok(()), |caller| caller.may_change_key(id)).map_err(AppError::Forbidden)
}

/// The key with this id, whose owner is locked until the transaction ends, so nobody else changes it; it may be used.
pub(super) fn lock_key(change: &mut Change<'_>, id: KeyId) -> Result<ApiKey, AppError> {
    let find = |conn: &mut Conn| api_keys::find(conn, id)?.ok_or(AppError::NotFound("key"));
    let owner = find(change.conn)?.owner_id;
    change.concerns(owner);
    users::lock(change.conn, owner)?;
    find(change.conn)
}

fn rotatable(key: &ApiKey, now: Timestamp) -> Result<(), AppError> {
    let conflict = |code, detail| Err(AppError::Conflict { code, detail });
    if key.revoked_at.is_some() {
        return conflict("revoked", "The key is revoked.");
    }
    if key.expires_at.is_some_and(|end| end <= now.naive()) {
        return conflict("expired", "The key has expired. Make a new one, or set a later expiry first.");
    }
    if key.digest.is_none() {
        return conflict("unclaimed", "The key has not been claimed, so there is no secret to replace.");
    }
    Ok(())
}

/// Ends a key. One that was issued stays as a receipt, so that its order is not filled twice.
pub(super) fn revoke(change: &mut Change<'_>, key: &ApiKey) -> Result<(), AppError> {
    if key.revoked_at.is_some() {
        change.leave_as_is();
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

/// Ends all keys that a user has made for themselves, whose row is locked; how many there were.
pub(super) fn end_own_keys(change: &mut Change<'_>, owner: UserId) -> Result<usize, AppError> {
    let ended = api_keys::own_ids(change.conn, owner)?;
    let event = |id: &KeyId| Event::of(Action::RevokeKey).on(Target::Key(*id)).owned_by(owner);
    change.record_each(&ended.iter().map(event).collect::<Vec<_>>())?;
    api_keys::delete_all(change.conn, &ended)?;
    Ok(ended.len())
}
