//! The `mail_secrets` table: the secrets of links, as digests.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Subject;
use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend};
use crate::db::schema::mail_secrets;
use crate::domain::id::UserId;
use crate::domain::mail::LinkPurpose;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A new link.
pub struct NewMailSecret<'a> {
    /// What the link does.
    pub purpose: LinkPurpose,
    /// On what it acts.
    pub subject: Subject,
    /// The address to which the link is sent.
    pub address: &'a str,
    /// Whether a mail delivers the link.
    pub mailed: bool,
    /// The digest of the secret.
    pub digest: Digest,
    /// The end of the link.
    pub expires_at: Timestamp,
}

/// A new row of `mail_secrets`.
#[derive(Insertable)]
#[diesel(table_name = mail_secrets, treat_none_as_default_value = false)]
struct NewRow<'a> {
    purpose: &'static str,
    user_id: Option<i64>,
    registration_id: Option<i64>,
    invitation_id: Option<i64>,
    address: &'a str,
    mailed: bool,
    digest: String,
    created_at: NaiveDateTime,
    expires_at: NaiveDateTime,
}

/// A link that has not expired.
#[derive(Clone, Debug)]
pub struct MailSecret {
    /// Never reused.
    pub id: i64,
    /// On what the link acts.
    pub subject: Subject,
    /// The address to which the link was sent.
    pub address: String,
    /// Whether a mail delivered the link.
    pub mailed: bool,
}

/// Inserts a link. Returns its id.
pub fn insert(conn: &mut Conn, new: &NewMailSecret<'_>, now: Timestamp) -> Result<i64, AppError> {
    let (user_id, registration_id, invitation_id) = new.subject.columns();
    let row = NewRow {
        purpose: new.purpose.name(),
        user_id,
        registration_id,
        invitation_id,
        address: new.address,
        mailed: new.mailed,
        digest: new.digest.to_hex(),
        created_at: now.naive(),
        expires_at: new.expires_at.naive(),
    };
    let insert = diesel::insert_into(mail_secrets::table).values(row).returning(mail_secrets::id);
    Ok(on_backend!(conn => insert.get_result(conn))?)
}

/// Deletes the oldest links of a subject with this purpose that were sent to this address, beyond the newest `most`.
pub fn delete_oldest(
    conn: &mut Conn,
    (subject, purpose, address): (Subject, LinkPurpose, &str),
    most: i64,
) -> Result<(), AppError> {
    let same = mail_secrets::purpose.eq(purpose.name()).and(mail_secrets::address.eq(address));
    // SQLite allows OFFSET only after LIMIT.
    macro_rules! beyond {
        ($column:ident, $id:expr) => {
            mail_secrets::table
                .filter(mail_secrets::$column.eq($id))
                .filter(same)
                .order(mail_secrets::id.desc())
                .offset(most)
                .limit(i64::MAX)
                .select(mail_secrets::id)
                .load::<i64>(conn)?
        };
    }
    let too_many = match subject {
        Subject::User(user) => beyond!(user_id, user.0),
        Subject::Registration(registration) => beyond!(registration_id, registration),
        Subject::Invitation(invitation) => beyond!(invitation_id, invitation.0),
    };
    if !too_many.is_empty() {
        diesel::delete(mail_secrets::table.filter(mail_secrets::id.eq_any(too_many))).execute(conn)?;
    }
    Ok(())
}

/// The link with this digest and purpose, if it has not expired at `now`.
pub fn find(
    conn: &mut Conn,
    purpose: LinkPurpose,
    digest: Digest,
    now: Timestamp,
) -> Result<Option<MailSecret>, AppError> {
    type Columns = (i64, Option<i64>, Option<i64>, Option<i64>, String, bool);
    let row: Option<Columns> = mail_secrets::table
        .filter(mail_secrets::digest.eq(digest.to_hex()))
        .filter(mail_secrets::purpose.eq(purpose.name()))
        .filter(mail_secrets::expires_at.gt(now.naive()))
        .select((
            mail_secrets::id,
            mail_secrets::user_id,
            mail_secrets::registration_id,
            mail_secrets::invitation_id,
            mail_secrets::address,
            mail_secrets::mailed,
        ))
        .get_result(conn)
        .optional()?;
    Ok(row.and_then(|(id, user, registration, invitation, address, mailed)| {
        Some(MailSecret { id, subject: Subject::of((user, registration, invitation))?, address, mailed })
    }))
}

/// Deletes a link. Returns whether there was one.
pub fn delete(conn: &mut Conn, id: i64) -> Result<bool, AppError> {
    Ok(diesel::delete(mail_secrets::table.find(id)).execute(conn)? > 0)
}

/// Deletes the links of a user with these purposes.
pub fn delete_of(conn: &mut Conn, user: UserId, purposes: &[LinkPurpose]) -> Result<(), AppError> {
    let names: Vec<&str> = purposes.iter().map(|purpose| purpose.name()).collect();
    let of_user = mail_secrets::table.filter(mail_secrets::user_id.eq(user.0));
    diesel::delete(of_user.filter(mail_secrets::purpose.eq_any(names))).execute(conn)?;
    Ok(())
}

/// Deletes the links of a user with this purpose that were sent to one of these addresses.
pub fn delete_to(conn: &mut Conn, user: UserId, purpose: LinkPurpose, addresses: &[String]) -> Result<(), AppError> {
    let of_user = mail_secrets::table.filter(mail_secrets::user_id.eq(user.0));
    let to = mail_secrets::address.eq_any(addresses);
    diesel::delete(of_user.filter(mail_secrets::purpose.eq(purpose.name())).filter(to)).execute(conn)?;
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
