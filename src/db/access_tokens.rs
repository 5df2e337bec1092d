//! The `access_tokens` table: one sign-in token per user.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::Conn;
use super::cached::Cached;
use super::conn::{free_locked, on_backend};
use super::schema::{access_tokens, users};
use super::users::stored_role;
use crate::clock::Timestamp;
use crate::domain::id::{EntryId, UserId};
use crate::domain::principal::Level;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// In the column `scopes` of a token that was not narrowed: whatever its user's role holds, also after a change of it.
const ALL_OF_ROLE: &str = "*";

/// What the column `scopes` holds for a token that was narrowed to `scopes`, or was not.
pub fn stored_scopes(scopes: Option<ScopeSet>) -> String {
    scopes.map_or_else(|| ALL_OF_ROLE.to_owned(), |scopes| scopes.to_string())
}

/// A row of `access_tokens`.
#[derive(Insertable)]
#[diesel(table_name = access_tokens)]
pub struct AccessToken {
    /// The owner, and the key: a user has one token.
    pub user_id: i64,
    /// The token's digest in hex.
    pub access_token: String,
    /// See [`stored_scopes`].
    pub scopes: String,
    /// When the user signed in.
    pub created_at: NaiveDateTime,
    /// The first moment at which the token is dead.
    pub expiration_date: NaiveDateTime,
    /// The audit entry of the sign-in.
    pub sign_in_id: i64,
}

/// A token with what the guard needs to know of its owner.
pub struct Resolved {
    /// The owner.
    pub user_id: UserId,
    /// The owner's first name.
    pub name: String,
    /// The owner's address.
    pub email: String,
    /// The audit entry of the sign-in.
    pub sign_in: EntryId,
    /// What the token is good for.
    pub level: Level,
    /// Whether it was narrowed at sign-in.
    pub narrowed: bool,
    /// When the owner signed in.
    pub created_at: Timestamp,
    /// The first moment at which the token is dead.
    pub expiration_date: Timestamp,
}

/// Makes `token` its owner's only one.
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

/// The token with this digest, expired or not, and its owner unless disabled: one indexed query.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    type Row = (i64, String, String, String, String, NaiveDateTime, NaiveDateTime, i64);
    let row: Option<Row> = access_tokens::table
        .inner_join(users::table)
        .filter(access_tokens::access_token.eq(digest.to_hex()))
        .filter(users::disabled_at.is_null().and(users::deleted_at.is_null()))
        .select((
            users::id,
            users::name,
            users::email,
            users::role,
            access_tokens::scopes,
            access_tokens::created_at,
            access_tokens::expiration_date,
            access_tokens::sign_in_id,
        ))
        .get_result(conn)
        .optional()?;
    Ok(row.map(|(id, name, email, role, scopes, created_at, expiration_date, sign_in)| {
        let role = stored_role(&role);
        let narrowed = scopes != ALL_OF_ROLE;
        let granted = if narrowed { ScopeSet::from_stored(&scopes) } else { role.scopes() };
        Resolved {
            user_id: UserId(id),
            name,
            email,
            sign_in: EntryId(sign_in),
            level: Level::new(role, granted),
            narrowed,
            created_at: created_at.into(),
            expiration_date: expiration_date.into(),
        }
    }))
}

/// Removes the token of a user; whether there was one.
pub fn delete_of(conn: &mut Conn, user: UserId) -> Result<bool, AppError> {
    Ok(diesel::delete(access_tokens::table.find(user.0)).execute(conn)? > 0)
}

/// Removes the tokens of at most `limit` users with higher ids than `after`; how many, and the last of these users if
/// there may be more. Others may remove some of them meanwhile.
pub fn delete_some(conn: &mut Conn, after: UserId, limit: i64) -> Result<(usize, Option<UserId>), AppError> {
    let some = access_tokens::table.filter(access_tokens::user_id.gt(after.0)).order(access_tokens::user_id);
    let users: Vec<i64> = some.limit(limit).select(access_tokens::user_id).load(conn)?;
    let is_full = i64::try_from(users.len()).is_ok_and(|found| found >= limit);
    let last = users.last().copied().map(UserId).filter(|_| is_full);
    let ended = diesel::delete(access_tokens::table.filter(access_tokens::user_id.eq_any(users))).execute(conn)?;
    Ok((ended, last))
}

/// Removes at most `limit` tokens that had expired at `end`, except those that somebody else is changing; how many.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = access_tokens::table.filter(access_tokens::expiration_date.le(end.naive()));
    let users: Vec<i64> = free_locked!(conn => expired.order(access_tokens::expiration_date)
        .limit(limit)
        .select(access_tokens::user_id))?;
    Ok(diesel::delete(access_tokens::table.filter(access_tokens::user_id.eq_any(users))).execute(conn)?)
}
