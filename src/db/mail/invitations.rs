//! The `invitations` table: invitations that were not accepted.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend, one_locked};
use crate::db::schema::invitations;
use crate::domain::id::{InvitationId, UserId};
use crate::error::AppError;

/// A new row of `invitations`.
#[derive(Insertable)]
#[diesel(table_name = invitations, treat_none_as_default_value = false)]
pub struct NewInvitation<'a> {
    /// The e-mail address as the caller wrote it.
    pub email: &'a str,
    /// The canonical e-mail address.
    pub email_key: &'a str,
    /// The name of the role that the user will have.
    pub role: &'a str,
    /// The code of the language of mails.
    pub locale: &'a str,
    /// The user who invites; `None` for the command line.
    pub invited_by: Option<i64>,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// The end of the invitation.
    pub expires_at: NaiveDateTime,
}

/// A row of `invitations`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = invitations)]
pub struct Invitation {
    /// Never reused.
    #[diesel(deserialize_as = i64)]
    pub id: InvitationId,
    /// The e-mail address as the caller wrote it.
    pub email: String,
    /// The canonical e-mail address.
    pub email_key: String,
    /// The name of the role that the user will have.
    pub role: String,
    /// The code of the language of mails.
    pub locale: String,
    /// The user who invited; `None` for the command line.
    pub invited_by: Option<i64>,
    /// When the invitation was made.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub created_at: Timestamp,
    /// The end of the invitation.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub expires_at: Timestamp,
}

impl Invitation {
    /// The user who invited; `None` for the command line.
    pub fn inviter(&self) -> Option<UserId> {
        self.invited_by.map(UserId)
    }
}

/// Inserts an invitation; `None` if there is one for the address.
pub fn insert(conn: &mut Conn, new: &NewInvitation<'_>) -> Result<Option<Invitation>, AppError> {
    let inserted = on_backend!(conn => diesel::insert_into(invitations::table)
        .values(new)
        .returning(Invitation::as_returning())
        .get_result(conn));
    match inserted {
        Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(None),
        inserted => Ok(Some(inserted?)),
    }
}

/// The invitation for an address.
pub fn find_for(conn: &mut Conn, email_key: &str) -> Result<Option<Invitation>, AppError> {
    let by_address = invitations::table.filter(invitations::email_key.eq(email_key));
    Ok(by_address.select(Invitation::as_select()).get_result(conn).optional()?)
}

/// The invitation with this id.
pub fn find(conn: &mut Conn, id: InvitationId) -> Result<Option<Invitation>, AppError> {
    Ok(invitations::table.find(id.0).select(Invitation::as_select()).get_result(conn).optional()?)
}

/// As [`find`], with the row locked until the transaction ends.
pub fn lock(conn: &mut Conn, id: InvitationId) -> Result<Option<Invitation>, AppError> {
    let by_id = invitations::table.filter(invitations::id.eq(id.0));
    Ok(one_locked!(conn => by_id.select(Invitation::as_select()))?)
}

/// At most `limit` invitations with higher ids than `after`, in the order of their ids.
pub fn list(conn: &mut Conn, after: InvitationId, limit: i64) -> Result<Vec<Invitation>, AppError> {
    let rows = invitations::table.filter(invitations::id.gt(after.0)).order(invitations::id).limit(limit);
    Ok(rows.select(Invitation::as_select()).load(conn)?)
}

/// Sets the end of an invitation, and who has sent it last.
pub fn extend(conn: &mut Conn, id: InvitationId, by: Option<UserId>, until: Timestamp) -> Result<(), AppError> {
    diesel::update(invitations::table.find(id.0))
        .set((invitations::invited_by.eq(by.map(|user| user.0)), invitations::expires_at.eq(until.naive())))
        .execute(conn)?;
    Ok(())
}

/// Deletes an invitation with its links. Returns whether there was one.
pub fn delete(conn: &mut Conn, id: InvitationId) -> Result<bool, AppError> {
    Ok(diesel::delete(invitations::table.find(id.0)).execute(conn)? > 0)
}

/// Deletes the invitation for an address with its links. Returns whether there was one.
pub fn delete_for(conn: &mut Conn, email_key: &str) -> Result<bool, AppError> {
    Ok(diesel::delete(invitations::table.filter(invitations::email_key.eq(email_key))).execute(conn)? > 0)
}

/// Deletes at most `limit` invitations that expired at or before `end`, except rows that are locked. Returns the number
/// of deleted rows.
pub fn delete_expired(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired = invitations::table.filter(invitations::expires_at.le(end.naive()));
    let ids: Vec<i64> =
        free_locked!(conn => expired.order(invitations::expires_at).limit(limit).select(invitations::id))?;
    Ok(diesel::delete(invitations::table.filter(invitations::id.eq_any(ids))).execute(conn)?)
}
