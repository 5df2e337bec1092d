//! Queries by the secret of a key, and records of its use.

use std::net::IpAddr;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::row::{Found, existing, found};
use crate::clock::Timestamp;
use crate::db::engine::connection::{Conn, one_locked};
use crate::db::schema::{api_keys, users};
use crate::domain::id::{KeyId, UserId};
use crate::domain::scope::Grant;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A key that was found by its secret, with the fields of its owner that authentication needs.
pub struct Resolved {
    /// The key.
    pub id: KeyId,
    /// The owner of the key.
    pub owner_id: UserId,
    /// Whether the key was issued to another person.
    pub issued: bool,
    /// The name of the key.
    pub key_name: String,
    /// The owner's first name.
    pub owner_name: String,
    /// The user's canonical e-mail address.
    pub owner_email: String,
    /// Whether the user proved to receive mails at it.
    pub owner_email_verified: bool,
    /// The name of the owner's role.
    pub role: String,
    /// The scopes that the key was granted.
    pub grant: Grant,
    /// When the key was created.
    pub created_at: Timestamp,
    /// Whether the presented secret is the one before the last rotation.
    pub replaced: bool,
    /// Whether the presented secret is the current one, and its first use must be recorded ([`note_first_use`]).
    pub unseen: bool,
    /// When the presented secret expires. It is invalid from this moment on.
    pub expires_at: Option<Timestamp>,
}

/// The key whose current or previous secret has this digest, and its owner, in one query. The secret may have expired.
/// Returns `None` if there is no such key, if it is revoked, or if its owner is disabled or deleted. Each side of the
/// OR uses its own index.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    let digest = digest.to_hex();
    type Email = (String, Option<NaiveDateTime>);
    let row: Option<(Found, String, Email, String)> = existing()
        .filter(api_keys::digest.eq(&digest).or(api_keys::previous_digest.eq(&digest)))
        .filter(users::disabled_at.is_null())
        .select((Found::as_select(), users::name, (users::email_key, users::email_verified_at), users::role))
        .get_result(conn)
        .optional()?;
    let row = row.map(|(key, name, email, role)| (found(key), name, email, role));
    Ok(row.filter(|(key, ..)| key.revoked_at.is_none()).map(|(key, owner_name, (owner_email, verified_at), role)| {
        let replaced = key.digest.as_ref() != Some(&digest);
        let ends = [key.expires_at, key.previous_expires_at.filter(|_| replaced)];
        Resolved {
            id: key.id,
            owner_id: key.owner_id,
            issued: key.issued,
            grant: key.grant(),
            created_at: key.created_at.into(),
            key_name: key.name,
            owner_name,
            owner_email,
            owner_email_verified: verified_at.is_some(),
            role,
            replaced,
            unseen: key.secret_unseen && !replaced,
            expires_at: ends.into_iter().flatten().min().map(Timestamp::from),
        }
    }))
}

/// Records the first use of the current secret with this digest, after which the request that created it can no longer
/// be repeated. Returns whether this is still the current secret of a key.
pub fn note_first_use(conn: &mut Conn, digest: Digest) -> Result<bool, AppError> {
    let by_digest = api_keys::table.filter(api_keys::digest.eq(digest.to_hex()));
    Ok(diesel::update(by_digest).set(api_keys::secret_unseen.eq(false)).execute(conn)? > 0)
}

/// The stored last use of a key; `None` if the key has not been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredUse(pub Option<Timestamp>);

/// The stored last use of a key, which is locked until the transaction ends. Returns `None` if the key is deleted.
pub fn lock_last_use(conn: &mut Conn, id: KeyId) -> Result<Option<StoredUse>, AppError> {
    let by_id = api_keys::table.find(id.0).select(api_keys::last_used_at);
    let found: Option<Option<NaiveDateTime>> = one_locked!(conn => by_id)?;
    Ok(found.map(|at| StoredUse(at.map(Timestamp::from))))
}

/// Records the last use of a key, unless a later one is stored.
pub fn touch(conn: &mut Conn, id: KeyId, at: Timestamp, from: Option<IpAddr>) -> Result<(), AppError> {
    let earlier = api_keys::last_used_at.is_null().or(api_keys::last_used_at.lt(at.naive()));
    diesel::update(api_keys::table.find(id.0).filter(earlier.assume_not_null()))
        .set((api_keys::last_used_at.eq(at.naive()), api_keys::last_used_ip.eq(from.map(|from| from.to_string()))))
        .execute(conn)?;
    Ok(())
}
