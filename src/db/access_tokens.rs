//! The `access_tokens` table: one sign-in token per user.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::clock::Timestamp;
use crate::db::cached::Cached;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend};
use crate::db::schema::{access_tokens, users};
use crate::domain::id::{EntryId, UserId};
use crate::domain::scope::Grant;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// The value of the column `scopes` for a token that was not narrowed: all scopes of its user's current role.
const ALL_OF_ROLE: &str = "*";

/// The value of the column `scopes` for a token that was narrowed to `scopes`; `None` for one that was not narrowed.
pub fn stored_scopes(scopes: Option<&Grant>) -> String {
    scopes.map_or_else(|| ALL_OF_ROLE.to_owned(), ToString::to_string)
}

/// A row of `access_tokens`.
#[derive(Insertable)]
#[diesel(table_name = access_tokens)]
pub struct AccessToken {
    /// The owner. This is the primary key: a user has at most one token.
    pub user_id: i64,
    /// The digest of the token, in hex.
    pub access_token: String,
    /// See [`stored_scopes`].
    pub scopes: String,
    /// When the user signed in.
    pub created_at: NaiveDateTime,
    /// When the token expires. It is invalid from this moment on.
    pub expiration_date: NaiveDateTime,
    /// The audit entry of the sign-in.
    pub sign_in_id: i64,
}

/// A token, with the fields of its owner that authentication needs.
pub struct Resolved {
    /// The owner.
    pub user_id: UserId,
    /// The owner's first name.
    pub name: String,
    /// The user's canonical e-mail address.
    pub email: String,
    /// Whether the user proved to receive mails at it.
    pub email_verified: bool,
    /// The audit entry of the sign-in.
    pub sign_in: EntryId,
    /// The name of the owner's role.
    pub role: String,
    /// The scopes to which the token was narrowed at sign-in; `None` for a token that was not narrowed.
    pub narrowed_to: Option<Grant>,
    /// When the owner signed in.
    pub created_at: Timestamp,
    /// When the token expires. It is invalid from this moment on.
    pub expiration_date: Timestamp,
}

/// Stores `token`, and replaces the previous token of its owner.
pub fn replace(conn: &mut Conn, token: &AccessToken) -> Result<(), AppError> {
    on_backend!(conn => Cached(diesel::insert_into(access_tokens::table)
        .values(token)
        .on_conflict(access_tokens::user_id)
        .do_update()
        .set((
            access_tokens::access_token.eq(excluded(access_tokens::access_token)),
            access_tokens::scopes.eq(excluded(access_tokens::scopes)),
            access_tokens::created_at.eq(excluded(access_tokens::created_at)),
            access_tokens::expiration_date.eq(excluded(access_tokens::expiration_date)),
            access_tokens::sign_in_id.eq(excluded(access_tokens::sign_in_id)),
        )))
        .execute(conn))?;
    Ok(())
}

/// The token with this digest and its owner, in one indexed query. The token may have expired. Returns `None` if there
/// is no such token, or if the owner is disabled or deleted.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    type Row = (i64, String, (String, Option<NaiveDateTime>), String, String, NaiveDateTime, NaiveDateTime, i64);
    let row: Option<Row> = access_tokens::table
        .inner_join(users::table)
        .filter(access_tokens::access_token.eq(digest.to_hex()))
        .filter(users::disabled_at.is_null().and(users::deleted_at.is_null()))
        .select((
            users::id,
            users::name,
            (users::email_key, users::email_verified_at),
            users::role,
            access_tokens::scopes,
            access_tokens::created_at,
            access_tokens::expiration_date,
            access_tokens::sign_in_id,
        ))
        .get_result(conn)
        .optional()?;
    Ok(row.map(|(id, name, (email, verified_at), role, scopes, created_at, expiration_date, sign_in)| Resolved {
        user_id: UserId(id),
        name,
        email,
        email_verified: verified_at.is_some(),
        sign_in: EntryId(sign_in),
        role,
        narrowed_to: (scopes != ALL_OF_ROLE).then(|| Grant::from_stored_list(&scopes)),
        created_at: created_at.into(),
        expiration_date: expiration_date.into(),
    }))
}

/// Deletes the token of a user. Returns whether there was one.
pub fn delete_of(conn: &mut Conn, user: UserId) -> Result<bool, AppError> {
    Ok(diesel::delete(access_tokens::table.find(user.0)).execute(conn)? > 0)
}

/// At most `limit` users with higher ids than `after` who have a token, in the order of their ids.
pub fn owners_after(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<UserId>, AppError> {
    let some = access_tokens::table.filter(access_tokens::user_id.gt(after.0)).order(access_tokens::user_id);
    let ids: Vec<i64> = some.limit(limit).select(access_tokens::user_id).load(conn)?;
    Ok(ids.into_iter().map(UserId).collect())
}

/// Deletes the tokens of these users. Returns the number of deleted tokens.
pub fn delete_of_all(conn: &mut Conn, users: &[UserId]) -> Result<usize, AppError> {
    let users = users.iter().map(|user| user.0);
    Ok(diesel::delete(access_tokens::table.filter(access_tokens::user_id.eq_any(users))).execute(conn)?)
}

/// Deletes all tokens. Returns their number.
pub fn delete_all(conn: &mut Conn) -> Result<usize, AppError> {
    Ok(diesel::delete(access_tokens::table).execute(conn)?)
}

/// Deletes at most `limit` tokens that expired at or before `end`, except rows that are locked. Returns the number of
/// deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = access_tokens::table.filter(access_tokens::expiration_date.le(end.naive()));
    let users: Vec<i64> = free_locked!(conn => expired.order(access_tokens::expiration_date)
        .limit(limit)
        .select(access_tokens::user_id))?;
    Ok(diesel::delete(access_tokens::table.filter(access_tokens::user_id.eq_any(users))).execute(conn)?)
}
