//! The `replaced_emails` table: addresses that a change has replaced, and that their owners can restore.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::free_locked;
use crate::db::schema::replaced_emails;
use crate::domain::id::UserId;
use crate::error::AppError;

/// A row of `replaced_emails`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = replaced_emails)]
pub struct ReplacedEmail {
    /// Never reused; higher for a later change.
    pub id: i64,
    /// The user who had the address.
    #[diesel(deserialize_as = i64)]
    pub user_id: UserId,
    /// The e-mail address as the user wrote it.
    pub email: String,
    /// Until when it can be restored.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub expires_at: Timestamp,
}

/// Stores the address of a user that a change replaces. The address must be that of the user.
pub fn insert(
    conn: &mut Conn,
    user: UserId,
    (email, email_key): (&str, &str),
    expires_at: Timestamp,
) -> Result<(), AppError> {
    // That of an earlier change has expired, or the user had the address again.
    delete_for(conn, email_key)?;
    let row = (
        replaced_emails::user_id.eq(user.0),
        replaced_emails::email.eq(email),
        replaced_emails::email_key.eq(email_key),
        replaced_emails::expires_at.eq(expires_at.naive()),
    );
    diesel::insert_into(replaced_emails::table).values(row).execute(conn)?;
    Ok(())
}

/// The change that replaced this address, if it can still be undone at `now`.
pub fn find(conn: &mut Conn, email_key: &str, now: Timestamp) -> Result<Option<ReplacedEmail>, AppError> {
    let live = replaced_emails::table
        .filter(replaced_emails::email_key.eq(email_key))
        .filter(replaced_emails::expires_at.gt(now.naive()));
    Ok(live.select(ReplacedEmail::as_select()).get_result(conn).optional()?)
}

/// The number of addresses that a user can restore at `now`.
pub fn count_of(conn: &mut Conn, user: UserId, now: Timestamp) -> Result<i64, AppError> {
    let of_user = replaced_emails::table.filter(replaced_emails::user_id.eq(user.0));
    Ok(of_user.filter(replaced_emails::expires_at.gt(now.naive())).count().get_result(conn)?)
}

/// Deletes all addresses: no change can be undone.
pub fn delete_all(conn: &mut Conn) -> Result<(), AppError> {
    diesel::delete(replaced_emails::table).execute(conn)?;
    Ok(())
}

/// Deletes the row for an address.
pub fn delete_for(conn: &mut Conn, email_key: &str) -> Result<(), AppError> {
    diesel::delete(replaced_emails::table.filter(replaced_emails::email_key.eq(email_key))).execute(conn)?;
    Ok(())
}

/// Deletes the addresses of a user that changes with ids of at least `from` replaced, and returns them.
pub fn delete_since(conn: &mut Conn, user: UserId, from: i64) -> Result<Vec<String>, AppError> {
    let later = replaced_emails::table.filter(replaced_emails::user_id.eq(user.0)).filter(replaced_emails::id.ge(from));
    let emails: Vec<String> = later.select(replaced_emails::email).load(conn)?;
    diesel::delete(later).execute(conn)?;
    Ok(emails)
}

/// Deletes at most `limit` addresses that expired at or before `end`, except rows that are locked. Returns the number of
/// deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = replaced_emails::table.filter(replaced_emails::expires_at.le(end.naive()));
    let ids: Vec<i64> =
        free_locked!(conn => expired.order(replaced_emails::expires_at).limit(limit).select(replaced_emails::id))?;
    Ok(diesel::delete(replaced_emails::table.filter(replaced_emails::id.eq_any(ids))).execute(conn)?)
}
