//! The `sessions` table: browser sessions of users.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::cached::Cached;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend};
use crate::db::schema::{sessions, users};
use crate::domain::id::{SessionId, UserId};
use crate::domain::secret::Digest;
use crate::domain::session::Session;
use crate::error::AppError;

/// A row of `sessions`, without the digest.
#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
struct Row {
    id: i64,
    created_at: NaiveDateTime,
    last_used_at: NaiveDateTime,
    expires_at: NaiveDateTime,
    client: Option<String>,
    user_agent: Option<String>,
}

impl From<Row> for Session {
    fn from(row: Row) -> Self {
        Self {
            id: SessionId(row.id),
            created_at: row.created_at.into(),
            last_used_at: row.last_used_at.into(),
            expires_at: row.expires_at.into(),
            client: row.client,
            user_agent: row.user_agent,
        }
    }
}

/// A new row of `sessions`.
#[derive(Insertable)]
#[diesel(table_name = sessions, treat_none_as_default_value = false)]
pub struct NewSession<'a> {
    /// The user who signed in.
    pub user_id: i64,
    /// The digest of the secret, in hex.
    pub digest: String,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// The current time.
    pub last_used_at: NaiveDateTime,
    /// The latest end of the session.
    pub expires_at: NaiveDateTime,
    /// The client address.
    pub client: Option<String>,
    /// The `User-Agent` of the browser.
    pub user_agent: Option<&'a str>,
}

/// A session, with the fields of its user that authentication needs.
pub struct Resolved {
    /// The session.
    pub id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The user's first name.
    pub name: String,
    /// The user's canonical e-mail address.
    pub email: String,
    /// Whether the user proved to receive mails at it.
    pub email_verified: bool,
    /// The name of the user's role.
    pub role: String,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// When the session was last used, accurate to a minute.
    pub last_used_at: Timestamp,
    /// The latest end of the session. It is invalid from this moment on.
    pub expires_at: Timestamp,
}

/// Inserts a session.
pub fn insert(conn: &mut Conn, new: &NewSession<'_>) -> Result<SessionId, AppError> {
    let insert = Cached(diesel::insert_into(sessions::table).values(new).returning(sessions::id));
    let id: i64 = on_backend!(conn => insert.get_result(conn))?;
    Ok(SessionId(id))
}

/// The session whose secret has this digest and its user, in one indexed query. The session may have expired. Returns
/// `None` if there is no such session, or if the user is disabled or deleted.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    type Email = (String, Option<NaiveDateTime>);
    type Found = (i64, i64, String, Email, String, NaiveDateTime, NaiveDateTime, NaiveDateTime);
    let row: Option<Found> = sessions::table
        .inner_join(users::table)
        .filter(sessions::digest.eq(digest.to_hex()))
        .filter(users::disabled_at.is_null().and(users::deleted_at.is_null()))
        .select((
            sessions::id,
            users::id,
            users::name,
            (users::email_key, users::email_verified_at),
            users::role,
            sessions::created_at,
            sessions::last_used_at,
            sessions::expires_at,
        ))
        .get_result(conn)
        .optional()?;
    Ok(row.map(|(id, user, name, (email, verified_at), role, created_at, last_used_at, expires_at)| Resolved {
        id: SessionId(id),
        user_id: UserId(user),
        name,
        email,
        email_verified: verified_at.is_some(),
        role,
        created_at: created_at.into(),
        last_used_at: last_used_at.into(),
        expires_at: expires_at.into(),
    }))
}

/// All sessions of a user, the last used one first. Some may have expired.
pub fn list(conn: &mut Conn, user: UserId) -> Result<Vec<Session>, AppError> {
    let of_user = sessions::table.filter(sessions::user_id.eq(user.0));
    let newest_first = of_user.order((sessions::last_used_at.desc(), sessions::id.desc()));
    Ok(newest_first.select(Row::as_select()).load(conn)?.into_iter().map(Session::from).collect())
}

/// Records the last use of a session, unless a later one is stored.
pub fn touch(conn: &mut Conn, id: SessionId, at: Timestamp) -> Result<(), AppError> {
    diesel::update(sessions::table.find(id.0).filter(sessions::last_used_at.lt(at.naive())))
        .set(sessions::last_used_at.eq(at.naive()))
        .execute(conn)?;
    Ok(())
}

/// Replaces the secret of a session by one with this digest.
pub fn renew(conn: &mut Conn, id: SessionId, digest: Digest) -> Result<(), AppError> {
    diesel::update(sessions::table.find(id.0)).set(sessions::digest.eq(digest.to_hex())).execute(conn)?;
    Ok(())
}

/// Deletes the session whose secret has this digest. Returns the session and its user, if there was one.
pub fn delete_by_digest(conn: &mut Conn, digest: Digest) -> Result<Option<(SessionId, UserId)>, AppError> {
    let by_digest = sessions::table.filter(sessions::digest.eq(digest.to_hex()));
    let row: Option<(i64, i64)> = on_backend!(conn => diesel::delete(by_digest)
        .returning((sessions::id, sessions::user_id))
        .get_result(conn)
        .optional())?;
    Ok(row.map(|(id, user)| (SessionId(id), UserId(user))))
}

/// Deletes a session of this user. Returns whether there was one.
pub fn delete(conn: &mut Conn, user: UserId, id: SessionId) -> Result<bool, AppError> {
    let of_user = sessions::table.find(id.0).filter(sessions::user_id.eq(user.0));
    Ok(diesel::delete(of_user).execute(conn)? > 0)
}

/// Deletes all sessions of a user, except `kept`. Returns their number.
pub fn delete_of(conn: &mut Conn, user: UserId, kept: Option<SessionId>) -> Result<usize, AppError> {
    // No row has the id 0.
    let kept = kept.map_or(0, |kept| kept.0);
    let of_user = sessions::table.filter(sessions::user_id.eq(user.0).and(sessions::id.ne(kept)));
    Ok(diesel::delete(of_user).execute(conn)?)
}

/// At most `limit` users with higher ids than `after` who have sessions, in the order of their ids.
pub fn users_after(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<UserId>, AppError> {
    let some = sessions::table.filter(sessions::user_id.gt(after.0)).order(sessions::user_id);
    let ids: Vec<i64> = some.limit(limit).select(sessions::user_id).distinct().load(conn)?;
    Ok(ids.into_iter().map(UserId).collect())
}

/// Deletes the sessions of these users. Returns the number of deleted sessions.
pub fn delete_of_all(conn: &mut Conn, users: &[UserId]) -> Result<usize, AppError> {
    let users = users.iter().map(|user| user.0);
    Ok(diesel::delete(sessions::table.filter(sessions::user_id.eq_any(users))).execute(conn)?)
}

/// Deletes all sessions. Returns their number.
pub fn delete_all(conn: &mut Conn) -> Result<usize, AppError> {
    Ok(diesel::delete(sessions::table).execute(conn)?)
}

/// Deletes at most `limit` sessions that expired at or before `end`, except rows that are locked. Returns the number of
/// deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = sessions::table.filter(sessions::expires_at.le(end.naive()));
    let ids: Vec<i64> = free_locked!(conn => expired.order(sessions::expires_at).limit(limit).select(sessions::id))?;
    Ok(diesel::delete(sessions::table.filter(sessions::id.eq_any(ids))).execute(conn)?)
}
