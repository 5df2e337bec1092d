//! The `registrations` table: addresses that wait for their proof.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend, one_locked};
use crate::db::schema::registrations;
use crate::error::AppError;

/// A new row of `registrations`.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = registrations)]
pub struct NewRegistration<'a> {
    /// The e-mail address as the caller wrote it.
    pub email: &'a str,
    /// The canonical e-mail address.
    pub email_key: &'a str,
    /// The code of the language of mails.
    pub locale: &'a str,
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
    /// The code of the language of mails.
    pub locale: String,
    /// The end of the registration.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub expires_at: Timestamp,
}

/// Stores a registration. An earlier one for the same address becomes this one, and its links stay valid. Returns its
/// id.
pub fn upsert(conn: &mut Conn, new: &NewRegistration<'_>) -> Result<i64, AppError> {
    Ok(on_backend!(conn => diesel::insert_into(registrations::table)
        .values(new)
        .on_conflict(registrations::email_key)
        .do_update()
        .set(new)
        .returning(registrations::id)
        .get_result(conn))?)
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

/// The id of the registration for an address, if it has not expired at `now`.
pub fn find_for(conn: &mut Conn, email_key: &str, now: Timestamp) -> Result<Option<i64>, AppError> {
    let live = registrations::table
        .filter(registrations::email_key.eq(email_key))
        .filter(registrations::expires_at.gt(now.naive()));
    Ok(live.select(registrations::id).get_result(conn).optional()?)
}

/// Deletes the registration for an address with its links. Returns whether there was one.
pub fn delete_for(conn: &mut Conn, email_key: &str) -> Result<bool, AppError> {
    Ok(diesel::delete(registrations::table.filter(registrations::email_key.eq(email_key))).execute(conn)? > 0)
}

/// Deletes at most `limit` registrations that expired at or before `end`, except rows that are locked. Returns the
/// number of deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = registrations::table.filter(registrations::expires_at.le(end.naive()));
    let ids: Vec<i64> =
        free_locked!(conn => expired.order(registrations::expires_at).limit(limit).select(registrations::id))?;
    Ok(diesel::delete(registrations::table.filter(registrations::id.eq_any(ids))).execute(conn)?)
}
