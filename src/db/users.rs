//! The `users` table.

use chrono::NaiveDateTime;
use diesel::dsl::{min, sql};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Bool, Nullable};

use crate::clock::Timestamp;
use crate::db::cached::Cached;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{all_locked, on_backend, one_locked};
use crate::db::schema::users;
use crate::domain::email::EmailAddress;
use crate::domain::id::{KeyId, UserId};
use crate::domain::mail::Language;
use crate::domain::password::PasswordHash;
use crate::domain::role::BuiltInRole;
use crate::domain::roles::Roles;
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
    /// The e-mail address as the user wrote it.
    pub email: String,
    /// The canonical e-mail address, which is unique.
    pub email_key: String,
    /// Any text, not necessarily a URL.
    pub website: String,
    /// The hash in one of the formats that [`PasswordHash`] accepts.
    #[diesel(deserialize_as = String)]
    pub hashed_password: PasswordHash,
    /// When the user registered.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub created_at: Timestamp,
    /// When the user last changed.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub updated_at: Timestamp,
    /// The name of the user's role.
    pub role: String,
    /// When the user was disabled; `None` if the user is enabled.
    pub disabled_at: Option<NaiveDateTime>,
    /// The code of the language of mails to the user.
    pub locale: String,
    /// When the user proved to receive mails at the address.
    pub email_verified_at: Option<NaiveDateTime>,
    /// The address to which the user asked to change.
    pub pending_email: Option<String>,
    /// Whether the user gets notices about sign-ins.
    pub sign_in_notices: bool,
}

impl User {
    /// Whether the user is an admin who is not disabled.
    pub fn is_enabled_admin(&self) -> bool {
        self.role == BuiltInRole::Admin.name() && self.disabled_at.is_none()
    }

    /// The user as a domain type, without the password hash. The role is the one of that name in `roles`.
    /// `sign_in_stopped` comes from the table `sign_in_failures`.
    pub fn into_domain(self, roles: &Roles, sign_in_stopped: bool) -> crate::domain::user::User {
        let role = roles.get(&self.role);
        let (email_verified, sign_in_notices) = (self.email_verified_at.is_some(), self.sign_in_notices);
        let Self {
            id, name, surname, email, pending_email, website, locale, created_at, updated_at, disabled_at, ..
        } = self;
        let (disabled_at, language) = (disabled_at.map(Timestamp::from), Language::of(&locale).unwrap_or_default());
        crate::domain::user::User {
            id,
            name,
            surname,
            email,
            email_verified,
            pending_email,
            website,
            language,
            sign_in_notices,
            role,
            disabled_at,
            sign_in_stopped,
            created_at,
            updated_at,
        }
    }
}

/// A new row of `users`.
#[derive(Insertable)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    /// First name.
    pub name: &'a str,
    /// Family name.
    pub surname: &'a str,
    /// The e-mail address as the user wrote it.
    pub email: &'a str,
    /// The canonical e-mail address.
    pub email_key: &'a str,
    /// Any text.
    pub website: &'a str,
    /// The hash in the current format.
    pub hashed_password: &'a str,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// The current time.
    pub updated_at: NaiveDateTime,
    /// The name of the user's role.
    pub role: &'a str,
    /// The code of the language of mails to the user.
    pub locale: &'a str,
    /// When the user proved to receive mails at the address.
    pub email_verified_at: Option<NaiveDateTime>,
}

/// The columns that an update sets. `None` leaves a column unchanged.
#[derive(AsChangeset)]
#[diesel(table_name = users)]
pub struct UserChange<'a> {
    /// First name.
    pub name: Option<&'a str>,
    /// Family name.
    pub surname: Option<&'a str>,
    /// The e-mail address as the user wrote it.
    pub email: Option<&'a str>,
    /// The canonical e-mail address.
    pub email_key: Option<&'a str>,
    /// Any text.
    pub website: Option<&'a str>,
    /// The code of the language of mails to the user.
    pub locale: Option<&'a str>,
    /// The address to which the user asked to change.
    pub pending_email: Option<&'a str>,
    /// Whether the user gets notices about sign-ins.
    pub sign_in_notices: Option<bool>,
    /// The current time.
    pub updated_at: NaiveDateTime,
}

impl UserChange<'_> {
    /// An update that sets `updated_at` only.
    pub fn none(now: Timestamp) -> Self {
        let updated_at = now.naive();
        Self {
            name: None,
            surname: None,
            email: None,
            email_key: None,
            website: None,
            locale: None,
            pending_email: None,
            sign_in_notices: None,
            updated_at,
        }
    }
}

/// All users who are not deleted. The row of a deleted user remains until the cleanup has removed all rows that refer
/// to it. Every query for users must start from this one; `tests/arch.rs` checks that.
#[diesel::dsl::auto_type]
pub(crate) fn existing() -> _ {
    users::table.filter(users::deleted_at.is_null())
}

/// Inserts a user; `None` if the e-mail address is in use. The unique index decides, so only one of several parallel
/// attempts succeeds.
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

/// The user with this canonical e-mail address.
pub fn find_by_email(conn: &mut Conn, email_key: &str) -> Result<Option<User>, AppError> {
    Ok(existing().filter(users::email_key.eq(email_key)).select(User::as_select()).get_result(conn).optional()?)
}

/// The user with this canonical e-mail address. An unknown address costs the same work, because the row of another user
/// is read in its place: the response time must not reveal whether an address is registered.
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

/// The user with this id, with the row locked until the transaction ends. Every transaction that changes something of a
/// user takes this lock first, so such transactions run one at a time per user.
pub fn lock(conn: &mut Conn, id: UserId) -> Result<Option<User>, AppError> {
    Ok(one_locked!(conn => existing().filter(users::id.eq(id.0)).select(User::as_select()))?)
}

/// The ids of all enabled admins. The condition is literally that of the partial index, so both planners use it.
#[diesel::dsl::auto_type]
fn enabled_admins() -> _ {
    let is_enabled_admin: diesel::expression::SqlLiteral<Bool> = sql::<Bool>("role = 'admin' AND disabled_at IS NULL");
    users::table.filter(is_enabled_admin).select(users::id)
}

/// The users with these ids and all enabled admins, with the rows locked until the transaction ends. The rows are
/// locked in the order of their ids, so that two admins who change each other do not deadlock.
pub fn lock_with_admins(conn: &mut Conn, ids: &[UserId]) -> Result<Vec<User>, AppError> {
    let mut ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    ids.extend(enabled_admins().load::<i64>(conn)?);
    Ok(all_locked!(conn => existing()
        .filter(users::id.eq_any(&ids))
        .order(users::id)
        .select(User::as_select()))?)
}

/// Updates a user and returns the new row; `None` if the new e-mail address is in use.
pub fn update(conn: &mut Conn, id: UserId, change: &UserChange<'_>) -> Result<Option<User>, AppError> {
    let updated = on_backend!(conn => Cached(diesel::update(users::table.find(id.0))
        .set(change)
        .returning(User::as_returning()))
        .get_result(conn));
    match updated {
        // `email_key` is the only unique column among those that change.
        Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(None),
        updated => Ok(Some(updated?)),
    }
}

/// Sets the role and the state of a user, and returns the new row.
pub fn administer(
    conn: &mut Conn,
    id: UserId,
    role: &str,
    disabled_at: Option<NaiveDateTime>,
    now: Timestamp,
) -> Result<User, AppError> {
    let set = (users::role.eq(role), users::disabled_at.eq(disabled_at), users::updated_at.eq(now.naive()));
    Ok(on_backend!(conn => diesel::update(users::table.find(id.0))
        .set(set)
        .returning(User::as_returning())
        .get_result(conn))?)
}

/// Replaces the password hash of a user and sets `updated_at`.
pub fn set_password(conn: &mut Conn, id: UserId, hash: &PasswordHash, now: Timestamp) -> Result<(), AppError> {
    diesel::update(users::table.find(id.0))
        .set((users::hashed_password.eq(hash.as_str()), users::updated_at.eq(now.naive())))
        .execute(conn)?;
    Ok(())
}

/// Ends a change of the e-mail address that is pending.
pub fn end_email_change(conn: &mut Conn, id: UserId) -> Result<(), AppError> {
    diesel::update(users::table.find(id.0)).set(users::pending_email.eq(None::<String>)).execute(conn)?;
    Ok(())
}

/// Sets the e-mail address of a user, which is verified. Returns the new row; `None` if the address is in use.
pub fn set_email(conn: &mut Conn, id: UserId, email: &EmailAddress, now: Timestamp) -> Result<Option<User>, AppError> {
    set_verified(conn, id, Some(now))?;
    let (email, email_key) = (Some(email.as_given()), Some(email.key()));
    update(conn, id, &UserChange { email, email_key, ..UserChange::none(now) })
}

/// Sets the language of mails, and turns all notices on.
pub fn reset_preferences(conn: &mut Conn, id: UserId, locale: &str) -> Result<(), AppError> {
    diesel::update(users::table.find(id.0))
        .set((users::locale.eq(locale), users::sign_in_notices.eq(true)))
        .execute(conn)?;
    Ok(())
}

/// Sets when the user proved to receive mails at the address.
pub fn set_verified(conn: &mut Conn, id: UserId, at: Option<Timestamp>) -> Result<(), AppError> {
    let at = at.map(Timestamp::naive);
    diesel::update(users::table.find(id.0)).set(users::email_verified_at.eq(at)).execute(conn)?;
    Ok(())
}

/// Replaces the hash of the same password by one in the current format. `updated_at` is unchanged.
pub fn renew_hash(conn: &mut Conn, id: UserId, hash: &PasswordHash) -> Result<(), AppError> {
    diesel::update(users::table.find(id.0)).set(users::hashed_password.eq(hash.as_str())).execute(conn)?;
    Ok(())
}

diesel::define_sql_function! {
    /// The first argument that is not null.
    fn coalesce(one: Nullable<BigInt>, other: Nullable<BigInt>) -> Nullable<BigInt>;
}

/// At most `limit` users with higher ids than `after`, in the order of their ids.
pub fn list(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<User>, AppError> {
    let rows = existing().filter(users::id.gt(after.0)).order(users::id).limit(limit);
    Ok(rows.select(User::as_select()).load(conn)?)
}

/// The users with these ids, in the order of their ids. Unknown ids are ignored.
pub fn find_all(conn: &mut Conn, ids: &[UserId]) -> Result<Vec<User>, AppError> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = existing().filter(users::id.eq_any(ids)).order(users::id);
    Ok(rows.select(User::as_select()).load(conn)?)
}

/// The number of users; `None` if there are more than `most`.
pub fn count_up_to(conn: &mut Conn, most: i64) -> Result<Option<i64>, AppError> {
    // No order, so that the planner can use the smallest index.
    let some: Vec<i64> = existing().select(users::id).limit(most + 1).load(conn)?;
    Ok(count_within(&some, most))
}

/// The number of ids, of which at most one more than `most` was loaded; `None` if there are more than `most`.
pub(crate) fn count_within(ids: &[i64], most: i64) -> Option<i64> {
    i64::try_from(ids.len()).ok().filter(|count| *count <= most)
}

/// The id up to which the issued keys of a user have ended; with `acting`, those with scopes of Latchkey's own.
pub fn issued_ended_through(conn: &mut Conn, id: UserId, acting: bool) -> Result<KeyId, AppError> {
    let ended = (users::issued_ended_through, users::acting_ended_through);
    let (issued, acted): (i64, i64) = users::table.find(id.0).select(ended).get_result(conn)?;
    Ok(KeyId(if acting { issued.max(acted) } else { issued }))
}

/// Ends the issued keys of a user with ids up to `through`, as of `at`; with `acting`, only those with scopes of
/// Latchkey's own. Only the row of the user changes: queries for keys apply it, and the cleanup updates the rows of the
/// keys later.
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

/// Marks a user as deleted. This frees the e-mail address and removes all personal data from the row. The row remains
/// until the cleanup has removed all rows that refer to it.
pub fn mark_deleted(conn: &mut Conn, id: UserId, at: Timestamp) -> Result<(), AppError> {
    let at = at.naive();
    diesel::update(users::table.find(id.0))
        .set((
            users::name.eq(""),
            users::surname.eq(""),
            users::email.eq(""),
            // The column is unique, and no e-mail address has this form.
            users::email_key.eq(format!("deleted:{id}")),
            users::pending_email.eq(None::<String>),
            users::email_verified_at.eq(None::<NaiveDateTime>),
            users::website.eq(""),
            users::hashed_password.eq(""),
            users::role.eq(BuiltInRole::Member.name()),
            users::disabled_at.eq(at),
            users::deleted_at.eq(at),
            users::updated_at.eq(at),
        ))
        .execute(conn)?;
    Ok(())
}

/// Deletes the row of a user, and by foreign keys all rows that refer to it.
pub fn delete(conn: &mut Conn, id: UserId) -> Result<(), AppError> {
    diesel::delete(users::table.find(id.0)).execute(conn)?;
    Ok(())
}
