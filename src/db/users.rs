//! The `users` table.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::conn::{first_locked, on_backend};
use super::schema::users;
use crate::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::password::PasswordHash;
use crate::error::AppError;

/// A row of `users`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct User {
    /// Never reused.
    #[diesel(deserialize_as = i64)]
    pub id: UserId,
    /// First name.
    pub name: String,
    /// Family name.
    pub surname: String,
    /// As the user wrote it.
    pub email: String,
    /// What decides whether two addresses are one.
    pub email_key: String,
    /// Any text.
    pub website: String,
    /// In one of the forms that [`PasswordHash`] reads.
    #[diesel(deserialize_as = String)]
    pub hashed_password: PasswordHash,
    /// When the user registered.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub created_at: Timestamp,
    /// When the user last changed.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub updated_at: Timestamp,
}

impl From<User> for crate::domain::user::User {
    fn from(row: User) -> Self {
        let User { id, name, surname, email, website, created_at, updated_at, .. } = row;
        Self { id, name, surname, email, website, created_at, updated_at }
    }
}

/// A row to be.
#[derive(Insertable)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    /// First name.
    pub name: &'a str,
    /// Family name.
    pub surname: &'a str,
    /// As the user wrote it.
    pub email: &'a str,
    /// Canonical.
    pub email_key: &'a str,
    /// Any text.
    pub website: &'a str,
    /// In today's form.
    pub hashed_password: &'a str,
    /// Now.
    pub created_at: NaiveDateTime,
    /// Now.
    pub updated_at: NaiveDateTime,
}

/// Stores a user; `None` if the e-mail is taken. The row decides, so parallel attempts leave one winner.
pub fn insert(conn: &mut Conn, new: &NewUser<'_>) -> Result<Option<User>, AppError> {
    let user = on_backend!(conn => diesel::insert_into(users::table)
        .values(new)
        .on_conflict(users::email_key)
        .do_nothing()
        .returning(User::as_returning())
        .get_result(conn)
        .optional())?;
    Ok(user)
}

/// The user with this canonical e-mail.
pub fn find_by_email(conn: &mut Conn, email_key: &str) -> Result<Option<User>, AppError> {
    Ok(users::table.filter(users::email_key.eq(email_key)).select(User::as_select()).first(conn).optional()?)
}

/// The user with this id.
pub fn find(conn: &mut Conn, id: UserId) -> Result<Option<User>, AppError> {
    Ok(users::table.find(id.0).select(User::as_select()).first(conn).optional()?)
}

/// The stored hash of a user, who stays as found until the transaction ends.
pub fn lock_password(conn: &mut Conn, id: UserId) -> Result<Option<PasswordHash>, AppError> {
    let hash: Option<String> = first_locked!(conn => users::table.find(id.0).select(users::hashed_password))?;
    Ok(hash.map(PasswordHash::from))
}

/// Replaces the password of a user.
pub fn set_password(conn: &mut Conn, id: UserId, hash: &PasswordHash, now: Timestamp) -> Result<(), AppError> {
    diesel::update(users::table.find(id.0))
        .set((users::hashed_password.eq(hash.as_str()), users::updated_at.eq(now.naive())))
        .execute(conn)?;
    Ok(())
}

/// Stores the same password in today's form; for its user nothing has changed.
pub fn renew_hash(conn: &mut Conn, id: UserId, hash: &PasswordHash) -> Result<(), AppError> {
    diesel::update(users::table.find(id.0)).set(users::hashed_password.eq(hash.as_str())).execute(conn)?;
    Ok(())
}

/// All users after `after`, by id, at most `limit`.
pub fn list(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<User>, AppError> {
    let rows = users::table.filter(users::id.gt(after.0)).order(users::id).limit(limit);
    Ok(rows.select(User::as_select()).load(conn)?)
}

/// Removes a user with all that belongs to them.
pub fn delete(conn: &mut Conn, id: UserId) -> Result<(), AppError> {
    diesel::delete(users::table.find(id.0)).execute(conn)?;
    Ok(())
}
