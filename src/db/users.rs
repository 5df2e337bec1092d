//! The `users` table.

use chrono::NaiveDateTime;
use diesel::dsl::{min, sql};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Bool, Nullable};

use super::Conn;
use super::cached::Cached;
use super::conn::{all_locked, on_backend, one_locked};
use super::schema::users;
use crate::clock::Timestamp;
use crate::domain::id::{KeyId, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::role::Role;
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
    /// A role's name.
    pub role: String,
    /// Since when the user may not sign in, if so.
    pub disabled_at: Option<NaiveDateTime>,
}

impl User {
    /// What the user may do.
    pub fn role(&self) -> Role {
        stored_role(&self.role)
    }

    /// Whether this is somebody who can administer others.
    pub fn is_enabled_admin(&self) -> bool {
        self.role() == Role::Admin && self.disabled_at.is_none()
    }
}

/// The role of this name. One that no longer exists is the least.
pub(super) fn stored_role(name: &str) -> Role {
    Role::named(name).unwrap_or(Role::Member)
}

impl From<User> for crate::domain::user::User {
    fn from(row: User) -> Self {
        let role = row.role();
        let User { id, name, surname, email, website, created_at, updated_at, disabled_at, .. } = row;
        let disabled_at = disabled_at.map(Timestamp::from);
        Self { id, name, surname, email, website, role, disabled_at, created_at, updated_at }
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
    /// A role's name.
    pub role: &'a str,
}

/// What a change writes; `None` leaves a column as it is.
#[derive(AsChangeset)]
#[diesel(table_name = users)]
pub struct UserChange<'a> {
    /// First name.
    pub name: Option<&'a str>,
    /// Family name.
    pub surname: Option<&'a str>,
    /// As the user wrote it.
    pub email: Option<&'a str>,
    /// Canonical.
    pub email_key: Option<&'a str>,
    /// Any text.
    pub website: Option<&'a str>,
    /// Now.
    pub updated_at: NaiveDateTime,
}

impl UserChange<'_> {
    /// A change of nothing but the time.
    pub fn none(now: Timestamp) -> Self {
        let updated_at = now.naive();
        Self { name: None, surname: None, email: None, email_key: None, website: None, updated_at }
    }
}

/// The users who exist. A deleted user does not, although the row stays until all that was theirs is removed. Every query
/// for users begins here (`tests/arch.rs`).
#[diesel::dsl::auto_type]
pub(super) fn existing() -> _ {
    users::table.filter(users::deleted_at.is_null())
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
    Ok(existing().filter(users::email_key.eq(email_key)).select(User::as_select()).get_result(conn).optional()?)
}

/// The same, after the same work whether or not there is one: somebody else's row is read in place of none, or the time
/// would tell.
pub fn find_by_email_evenly(conn: &mut Conn, email_key: &str) -> Result<Option<User>, AppError> {
    let others = diesel::alias!(users as others);
    let (key, id) = (others.field(users::email_key), others.field(users::id));
    let known = others.filter(key.eq(email_key)).select(id.nullable()).single_value();
    let first = others.select(min(id)).single_value();
    let found = existing()
        .filter(users::id.nullable().eq(coalesce(known, first)))
        .select(User::as_select())
        .get_result(conn)
        .optional()?;
    Ok(found.filter(|user: &User| user.email_key == email_key))
}

/// The user with this id.
pub fn find(conn: &mut Conn, id: UserId) -> Result<Option<User>, AppError> {
    Ok(existing().filter(users::id.eq(id.0)).select(User::as_select()).get_result(conn).optional()?)
}

/// The user with this id, who stays as found until the transaction ends. It is the first lock of every transaction
/// that changes something of this user's, so two of them take turns.
pub fn lock(conn: &mut Conn, id: UserId) -> Result<Option<User>, AppError> {
    Ok(one_locked!(conn => existing().filter(users::id.eq(id.0)).select(User::as_select()))?)
}

/// The ids of all enabled admins, in the words of the index that holds them.
#[diesel::dsl::auto_type]
fn enabled_admins() -> _ {
    let in_office: diesel::expression::SqlLiteral<Bool> = sql::<Bool>("role = 'admin' AND disabled_at IS NULL");
    users::table.filter(in_office).select(users::id)
}

/// The users with these ids and all enabled admins, who stay as found until the transaction ends. They are locked by
/// id, so that two administrators who change each other take turns, too.
pub fn lock_with_admins(conn: &mut Conn, ids: &[UserId]) -> Result<Vec<User>, AppError> {
    let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    ids.extend(enabled_admins().load::<i64>(conn)?);
    Ok(all_locked!(conn => existing()
        .filter(users::id.eq_any(&ids))
        .order(users::id)
        .select(User::as_select()))?)
}

/// Changes a user and answers what they have become; `None` if the new e-mail is taken.
pub fn update(conn: &mut Conn, id: UserId, change: &UserChange<'_>) -> Result<Option<User>, AppError> {
    let updated = on_backend!(conn => Cached(diesel::update(users::table.find(id.0))
        .set(change)
        .returning(User::as_returning()))
        .get_result(conn));
    match updated {
        // Of the columns that change, only the e-mail is unique.
        Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(None),
        updated => Ok(Some(updated?)),
    }
}

/// Sets role and state of a user and answers what they have become.
pub fn administer(
    conn: &mut Conn,
    id: UserId,
    role: Role,
    disabled_at: Option<NaiveDateTime>,
    now: Timestamp,
) -> Result<User, AppError> {
    let set = (users::role.eq(role.name()), users::disabled_at.eq(disabled_at), users::updated_at.eq(now.naive()));
    Ok(on_backend!(conn => diesel::update(users::table.find(id.0))
        .set(set)
        .returning(User::as_returning())
        .get_result(conn))?)
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

diesel::define_sql_function! {
    /// The first of them that is not null.
    fn coalesce(one: Nullable<BigInt>, other: Nullable<BigInt>) -> Nullable<BigInt>;
}

/// The users after `after`, by id, at most `limit`.
pub fn list(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<User>, AppError> {
    let rows = existing().filter(users::id.gt(after.0)).order(users::id).limit(limit);
    Ok(rows.select(User::as_select()).load(conn)?)
}

/// Those of the users with these ids that there are, by id.
pub fn find_all(conn: &mut Conn, ids: &[UserId]) -> Result<Vec<User>, AppError> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = existing().filter(users::id.eq_any(ids)).order(users::id);
    Ok(rows.select(User::as_select()).load(conn)?)
}

/// How many users there are; `None` if more than `most`.
pub fn count_up_to(conn: &mut Conn, most: i64) -> Result<Option<i64>, AppError> {
    // Without an order, so that the smallest index answers.
    let some: Vec<i64> = existing().select(users::id).limit(most + 1).load(conn)?;
    Ok(i64::try_from(some.len()).ok().filter(|count| *count <= most))
}

/// Up to which key those that a user issued have ended, of those with scopes of Latchkey's own if `acting`.
pub fn issued_ended_through(conn: &mut Conn, id: UserId, acting: bool) -> Result<KeyId, AppError> {
    let ended = (users::issued_ended_through, users::acting_ended_through);
    let (issued, acted): (i64, i64) = users::table.find(id.0).select(ended).get_result(conn)?;
    Ok(KeyId(if acting { issued.max(acted) } else { issued }))
}

/// States that the issued keys of a user up to this one ended at `at`, those that hold scopes of Latchkey's own if
/// `acting`, or else all: their rows need not be touched for that.
pub fn end_issued(conn: &mut Conn, id: UserId, acting: bool, through: KeyId, at: Timestamp) -> Result<(), AppError> {
    let user = diesel::update(users::table.find(id.0));
    let (through, at) = (through.0, at.naive());
    if acting {
        user.set((users::acting_ended_through.eq(through), users::acting_ended_at.eq(at))).execute(conn)?;
    } else {
        user.set((users::issued_ended_through.eq(through), users::issued_ended_at.eq(at))).execute(conn)?;
    }
    Ok(())
}

/// Makes a user one who does not exist: their address is free, and nothing personal is left in the row, which remains
/// until all that refers to it is removed.
pub fn mark_deleted(conn: &mut Conn, id: UserId, at: Timestamp) -> Result<(), AppError> {
    let at = at.naive();
    diesel::update(users::table.find(id.0))
        .set((
            users::name.eq(""),
            users::surname.eq(""),
            users::email.eq(""),
            // Unique, and no e-mail address.
            users::email_key.eq(format!("deleted:{id}")),
            users::website.eq(""),
            users::hashed_password.eq(""),
            users::role.eq(Role::Member.name()),
            users::disabled_at.eq(at),
            users::deleted_at.eq(at),
            users::updated_at.eq(at),
        ))
        .execute(conn)?;
    Ok(())
}

/// Removes the row of a user, and whatever still refers to it.
pub fn delete(conn: &mut Conn, id: UserId) -> Result<(), AppError> {
    diesel::delete(users::table.find(id.0)).execute(conn)?;
    Ok(())
}
