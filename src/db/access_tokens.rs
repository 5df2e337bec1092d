//! The `access_tokens` table: one sign-in token per user.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::Conn;
use super::conn::{first_locked, on_backend};
use super::schema::{access_tokens, users};
use crate::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A row of `access_tokens`.
#[derive(Insertable)]
#[diesel(table_name = access_tokens)]
pub struct AccessToken {
    /// The owner, and the key: a user has one token.
    pub user_id: i64,
    /// The token's digest in hex.
    pub access_token: String,
    /// Scope names separated by spaces.
    pub scopes: String,
    /// When the user signed in.
    pub created_at: NaiveDateTime,
    /// The first moment at which the token is dead.
    pub expiration_date: NaiveDateTime,
}

/// A token with what the guard needs to know of its owner.
pub struct Resolved {
    /// The owner.
    pub user_id: UserId,
    /// The owner's first name.
    pub name: String,
    /// What the token may be used for.
    pub scopes: ScopeSet,
    /// The first moment at which the token is dead.
    pub expiration_date: Timestamp,
}

/// Makes `token` its owner's only one.
pub fn replace(conn: &mut Conn, token: &AccessToken) -> Result<(), AppError> {
    on_backend!(conn => diesel::insert_into(access_tokens::table)
        .values(token)
        .on_conflict(access_tokens::user_id)
        .do_update()
        .set((
            access_tokens::access_token.eq(excluded(access_tokens::access_token)),
            access_tokens::scopes.eq(excluded(access_tokens::scopes)),
            access_tokens::created_at.eq(excluded(access_tokens::created_at)),
            access_tokens::expiration_date.eq(excluded(access_tokens::expiration_date)),
        ))
        .execute(conn))?;
    Ok(())
}

/// The token with this digest, expired or not, and its owner: one indexed query.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    let row: Option<(i64, String, String, NaiveDateTime)> = access_tokens::table
        .inner_join(users::table)
        .filter(access_tokens::access_token.eq(digest.to_hex()))
        .select((users::id, users::name, access_tokens::scopes, access_tokens::expiration_date))
        .first(conn)
        .optional()?;
    Ok(row.map(|(id, name, scopes, expiration_date)| Resolved {
        user_id: UserId(id),
        name,
        scopes: ScopeSet::from_stored(&scopes),
        expiration_date: expiration_date.into(),
    }))
}

/// Whether the token with this digest is still there; if so, it stays until the transaction ends, and so does its owner.
pub fn lock(conn: &mut Conn, digest: Digest) -> Result<bool, AppError> {
    let by_digest = access_tokens::table.filter(access_tokens::access_token.eq(digest.to_hex()));
    let owner: Option<i64> = first_locked!(conn => by_digest.select(access_tokens::user_id))?;
    Ok(owner.is_some())
}

/// Removes the token with this digest.
pub fn delete(conn: &mut Conn, digest: Digest) -> Result<(), AppError> {
    diesel::delete(access_tokens::table.filter(access_tokens::access_token.eq(digest.to_hex()))).execute(conn)?;
    Ok(())
}

/// Removes the token of a user.
pub fn delete_of(conn: &mut Conn, user: UserId) -> Result<(), AppError> {
    diesel::delete(access_tokens::table.find(user.0)).execute(conn)?;
    Ok(())
}
