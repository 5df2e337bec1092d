//! The `registrations` table: registrations that wait for the proof of their address.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend, one_locked};
use crate::db::schema::registrations;
use crate::domain::password::PasswordHash;
use crate::error::AppError;

/// A new row of `registrations`.
#[derive(Insertable)]
#[diesel(table_name = registrations)]
pub struct NewRegistration<'a> {
    /// The e-mail address as the caller wrote it.
    pub email: &'a str,
    /// The canonical e-mail address.
    pub email_key: &'a str,
    /// First name.
    pub name: &'a str,
    /// Family name.
    pub surname: &'a str,
    /// Any text.
    pub website: &'a str,
    /// The hash of the password.
    pub hashed_password: &'a str,
    /// The code of the language of mails.
    pub locale: &'a str,
    /// 0.
    pub failures: i64,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// The end of the registration.
    pub expires_at: NaiveDateTime,
}

/// A row of `registrations`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = registrations)]
pub struct Registration {
    /// Never reused.
    pub id: i64,
    /// The e-mail address as the caller wrote it.
    pub email: String,
    /// The canonical e-mail address.
    pub email_key: String,
    /// First name.
    pub name: String,
    /// Family name.
    pub surname: String,
    /// Any text.
    pub website: String,
    /// The hash of the password.
    #[diesel(deserialize_as = String)]
    pub hashed_password: PasswordHash,
    /// The code of the language of mails.
    pub locale: String,
    /// Wrong passwords with the link of this registration.
    pub failures: i64,
    /// When the caller registered.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub created_at: Timestamp,
    /// The end of the registration.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub expires_at: Timestamp,
}

/// Inserts a registration, and deletes the oldest ones for the same address beyond `most`. Returns its id.
pub fn insert(conn: &mut Conn, new: &NewRegistration<'_>, most: i64) -> Result<i64, AppError> {
    let id: i64 = on_backend!(conn => diesel::insert_into(registrations::table)
        .values(new)
        .returning(registrations::id)
        .get_result(conn))?;
    let same = registrations::table.filter(registrations::email_key.eq(new.email_key));
    // SQLite allows OFFSET only after LIMIT.
    let newest_first = same.order(registrations::id.desc()).offset(most).limit(i64::MAX);
    let too_many: Vec<i64> = newest_first.select(registrations::id).load(conn)?;
    if !too_many.is_empty() {
        diesel::delete(registrations::table.filter(registrations::id.eq_any(too_many))).execute(conn)?;
    }
    Ok(id)
}

/// The registration with this id, if it has not expired at `now`.
pub fn find(conn: &mut Conn, id: i64, now: Timestamp) -> Result<Option<Registration>, AppError> {
    let live = registrations::table.find(id).filter(registrations::expires_at.gt(now.naive()));
    Ok(live.select(Registration::as_select()).get_result(conn).optional()?)
}

/// As [`find`], with the row locked until the transaction ends.
pub fn lock(conn: &mut Conn, id: i64, now: Timestamp) -> Result<Option<Registration>, AppError> {
    let live = registrations::table.filter(registrations::id.eq(id)).filter(registrations::expires_at.gt(now.naive()));
    Ok(one_locked!(conn => live.select(Registration::as_select()))?)
}

/// The newest registration for an address that has not expired at `now`.
pub fn newest(conn: &mut Conn, email_key: &str, now: Timestamp) -> Result<Option<Registration>, AppError> {
    let live = registrations::table
        .filter(registrations::email_key.eq(email_key))
        .filter(registrations::expires_at.gt(now.naive()));
    Ok(live.order(registrations::id.desc()).select(Registration::as_select()).get_result(conn).optional()?)
}

/// Sets the number of wrong passwords of a registration whose row is locked.
pub fn set_failures(conn: &mut Conn, id: i64, failures: i64) -> Result<(), AppError> {
    diesel::update(registrations::table.find(id)).set(registrations::failures.eq(failures)).execute(conn)?;
    Ok(())
}

/// Deletes a registration with its links.
pub fn delete(conn: &mut Conn, id: i64) -> Result<(), AppError> {
    diesel::delete(registrations::table.find(id)).execute(conn)?;
    Ok(())
}

/// Deletes all registrations for an address with their links.
pub fn delete_for(conn: &mut Conn, email_key: &str) -> Result<(), AppError> {
    diesel::delete(registrations::table.filter(registrations::email_key.eq(email_key))).execute(conn)?;
    Ok(())
}

/// Deletes at most `limit` registrations that expired at or before `end`, except rows that are locked. Returns the
/// number of deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = registrations::table.filter(registrations::expires_at.le(end.naive()));
    let ids: Vec<i64> =
        free_locked!(conn => expired.order(registrations::expires_at).limit(limit).select(registrations::id))?;
    Ok(diesel::delete(registrations::table.filter(registrations::id.eq_any(ids))).execute(conn)?)
}
