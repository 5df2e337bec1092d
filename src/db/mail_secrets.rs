//! The `mail_secrets` table: the secrets of links in mails, as digests.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::free_locked;
use crate::db::schema::mail_secrets;
use crate::domain::id::UserId;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A new row of `mail_secrets`.
#[derive(Insertable)]
#[diesel(table_name = mail_secrets)]
pub struct NewMailSecret<'a> {
    /// The name of what the link does.
    pub purpose: &'a str,
    /// The user whose account the link changes.
    pub user_id: i64,
    /// The canonical address to which the link is sent.
    pub address_key: &'a str,
    /// The digest of the secret, in hex.
    pub digest: String,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// The end of the link.
    pub expires_at: NaiveDateTime,
}

/// A link that has not expired.
#[derive(Clone, Debug)]
pub struct MailSecret {
    /// Never reused.
    pub id: i64,
    /// The user whose account the link changes.
    pub user_id: UserId,
    /// The canonical address to which the link was sent.
    pub address_key: String,
}

/// Inserts a secret, and deletes the oldest ones of the same user and purpose beyond `most`.
pub fn insert(conn: &mut Conn, new: &NewMailSecret<'_>, most: i64) -> Result<(), AppError> {
    diesel::insert_into(mail_secrets::table).values(new).execute(conn)?;
    let same =
        mail_secrets::table.filter(mail_secrets::user_id.eq(new.user_id)).filter(mail_secrets::purpose.eq(new.purpose));
    // SQLite allows OFFSET only after LIMIT.
    let newest_first = same.order(mail_secrets::id.desc()).offset(most).limit(i64::MAX);
    let too_many: Vec<i64> = newest_first.select(mail_secrets::id).load(conn)?;
    if !too_many.is_empty() {
        diesel::delete(mail_secrets::table.filter(mail_secrets::id.eq_any(too_many))).execute(conn)?;
    }
    Ok(())
}

/// The link with this digest and purpose, if it has not expired at `now`.
pub fn find(conn: &mut Conn, purpose: &str, digest: Digest, now: Timestamp) -> Result<Option<MailSecret>, AppError> {
    let row: Option<(i64, i64, String)> = mail_secrets::table
        .filter(mail_secrets::digest.eq(digest.to_hex()))
        .filter(mail_secrets::purpose.eq(purpose))
        .filter(mail_secrets::expires_at.gt(now.naive()))
        .select((mail_secrets::id, mail_secrets::user_id, mail_secrets::address_key))
        .get_result(conn)
        .optional()?;
    Ok(row.map(|(id, user, address_key)| MailSecret { id, user_id: UserId(user), address_key }))
}

/// Deletes a link. Returns whether there was one.
pub fn delete(conn: &mut Conn, id: i64) -> Result<bool, AppError> {
    Ok(diesel::delete(mail_secrets::table.find(id)).execute(conn)? > 0)
}

/// Deletes the links of a user with these purposes. Returns their number.
pub fn delete_of(conn: &mut Conn, user: UserId, purposes: &[&str]) -> Result<usize, AppError> {
    let of_user = mail_secrets::table
        .filter(mail_secrets::user_id.eq(user.0))
        .filter(mail_secrets::purpose.eq_any(purposes.to_vec()));
    Ok(diesel::delete(of_user).execute(conn)?)
}

/// Deletes the links of a user.
pub fn delete_all_of(conn: &mut Conn, user: UserId) -> Result<(), AppError> {
    diesel::delete(mail_secrets::table.filter(mail_secrets::user_id.eq(user.0))).execute(conn)?;
    Ok(())
}

/// Deletes all links. Returns their number.
pub fn delete_all(conn: &mut Conn) -> Result<usize, AppError> {
    Ok(diesel::delete(mail_secrets::table).execute(conn)?)
}

/// Deletes at most `limit` links that expired at or before `end`, except rows that are locked. Returns the number of
/// deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = mail_secrets::table.filter(mail_secrets::expires_at.le(end.naive()));
    let ids: Vec<i64> =
        free_locked!(conn => expired.order(mail_secrets::expires_at).limit(limit).select(mail_secrets::id))?;
    Ok(diesel::delete(mail_secrets::table.filter(mail_secrets::id.eq_any(ids))).execute(conn)?)
}
