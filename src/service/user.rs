//! Users: registration, and what administrators and operators do with accounts.

use validator::Validate;

use super::failures::{self, account_of};
pub use super::rules::TEXT_MAX;
use super::rules::{broken, code_point, no_nul, readable};
use super::throttle::Act;
use super::token::end_credentials;
use super::trail::Change;
use super::{Service, Total, user_search};
use crate::db::account_cleanups::Kind;
use crate::db::users::{self, NewUser};
use crate::db::{access_tokens, known_networks, sign_in_failures};
use crate::domain::audit::{Action, Call, Event, Target};
use crate::domain::email::{self, EmailAddress};
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::domain::role::Role;
use crate::domain::text;
use crate::domain::user::User;
use crate::error::{AppError, Denial, FieldError};

/// Shortest first name in characters (C1).
pub const NAME_MIN: u64 = 5;
/// Most users in one answer.
pub const LIMIT_MAX: i64 = 500;
/// Users in one answer unless asked otherwise.
pub const LIMIT_DEFAULT: i64 = 50;
/// Longest text to search for, in characters.
pub const SEARCH_MAX: u64 = TEXT_MAX;

/// What it takes to register.
#[derive(Debug, Validate)]
pub struct Registration {
    /// First name.
    #[validate(
        length(min = NAME_MIN, max = TEXT_MAX),
        custom(function = readable)
    )]
    pub name: String,
    /// Family name; may be empty.
    #[validate(
        length(max = TEXT_MAX),
        custom(function = readable)
    )]
    pub surname: String,
    /// Unique by its canonical form.
    pub email: String,
    /// Any text.
    #[validate(length(max = TEXT_MAX), custom(function = readable))]
    pub website: String,
    /// Its bounds are settings.
    pub password: Password,
}

/// What an administrator sets; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Administration {
    /// What the user may do.
    pub role: Option<Role>,
    /// Whether the user may not sign in.
    pub disabled: Option<bool>,
}

/// Which users to list.
#[derive(Clone, Debug, Validate)]
pub struct UserQuery {
    /// A whole e-mail address, or part of an e-mail, a name or a surname, in any case; empty for all.
    #[validate(length(max = SEARCH_MAX), custom(function = no_nul))]
    pub search: String,
    /// Those with higher ids.
    #[validate(range(min = 0))]
    pub after: i64,
    /// At most so many.
    #[validate(range(min = 1, max = LIMIT_MAX))]
    pub limit: i64,
    /// Whether to count all of them.
    pub with_total: bool,
}

/// Some users.
#[derive(Debug)]
pub struct UserList {
    /// By id.
    pub items: Vec<User>,
    /// After which user the list goes on, if it does.
    pub next: Option<UserId>,
    /// How many there are in all, if that was asked.
    pub total: Option<Total>,
}

impl Service {
    /// Stores a new user. Errors: [`AppError::Invalid`] names each bad field, [`AppError::Conflict`] a known e-mail.
    pub async fn register(&self, call: Call, registration: Registration, role: Role) -> Result<User, AppError> {
        let email = self.check_registration(&registration)?;
        self.throttle.count(Act::Registration, call.origin.client)?;
        let Registration { name, surname, website, password, .. } = registration;
        // Before anybody looks whether the e-mail is known: who tries out e-mails pays for each.
        let hash = self.hasher.create(call.origin.client, password).await?;
        let stored = self.change(call, Event::of(Action::Register), move |change| {
            let now = change.now.naive();
            let user = users::insert(
                change.conn,
                &NewUser {
                    name: &name,
                    surname: &surname,
                    email: email.as_given(),
                    email_key: email.key(),
                    website: &website,
                    hashed_password: hash.as_str(),
                    created_at: now,
                    updated_at: now,
                    role: role.name(),
                },
            )?;
            let Some(user) = user else {
                if let Some(known) = users::find_by_email(change.conn, email.key())? {
                    change.is_on(Target::User(known.id));
                }
                return Err(email_taken());
            };
            // What others failed at before there was an account is not its owner's.
            sign_in_failures::forget(change.conn, account_of(&user))?;
            change.is_on(Target::User(user.id));
            change.record(|event| event.detail(role.name()))?;
            Ok(user)
        });
        stored.await.map(User::from)
    }

    /// Some of the users who match.
    pub async fn users(&self, query: UserQuery) -> Result<UserList, AppError> {
        query.validate()?;
        let limit = query.limit;
        let (rows, total) = self.db.read_consistent(move |conn| user_search::find(conn, &query)).await?;
        let (items, next) = super::first_of(rows, limit, |user| user.id);
        Ok(UserList { items: items.into_iter().map(User::from).collect(), next, total })
    }

    /// The user with this id.
    pub async fn user(&self, id: UserId) -> Result<User, AppError> {
        let found = self.db.read(move |conn| users::find(conn, id)).await?;
        found.map(User::from).ok_or(AppError::NotFound("user"))
    }

    /// The user with this e-mail address.
    pub async fn user_by_email(&self, email: &EmailAddress) -> Result<User, AppError> {
        let key = email.key().to_owned();
        let found = self.db.read(move |conn| users::find_by_email(conn, &key)).await?;
        found.map(User::from).ok_or(AppError::NotFound("user"))
    }

    /// Sets role and state of a user. To disable a user ends their token and all their keys, for good.
    ///
    /// Errors: [`AppError::NotFound`]; [`AppError::Conflict`] if no enabled admin would be left.
    pub async fn administer_user(&self, call: Call, id: UserId, set: Administration) -> Result<User, AppError> {
        let state = set.disabled.map(|disabled| if disabled { Action::Disable } else { Action::Enable });
        let Some(first) = set.role.map(|_| Action::SetRole).or(state) else {
            return Err(FieldError::new("", "missing", "Send a role, disabled, or both.").into());
        };
        let changed = self.administer(call, Event::of(first).on(Target::User(id)), id, move |change, user, admins| {
            let role = set.role.unwrap_or_else(|| user.role());
            let was_disabled = user.disabled_at.is_some();
            let disabled = set.disabled.unwrap_or(was_disabled);
            if role == user.role()
                && let Some(action) = state
            {
                change.is_an_attempt_at(action);
            }
            if user.is_enabled_admin() && admins == 0 && (role != Role::Admin || disabled) {
                return Err(last_admin());
            }
            may_administer(change, id)?;
            may_promote(change, user.role(), role)?;
            let freed = set.disabled == Some(false) && failures::forget_all(change.conn, &user)?;
            if freed && !was_disabled {
                let detail = "failed sign-ins forgotten";
                change.record(|event| Event { action: Action::Enable, ..event.detail(detail) })?;
            }
            if role == user.role() && disabled == was_disabled {
                change.leave_as_is();
                return Ok(user);
            }
            if role != user.role() {
                let detail = format!("{} to {role}", user.role());
                change
                    .record(|event| Event { action: Action::SetRole, ..event.changed(vec!["role"]).detail(detail) })?;
            }
            if disabled != was_disabled {
                let tell = |action| move |event: Event| Event { action, ..event.changed(vec!["disabled"]) };
                if disabled {
                    end_credentials(change, id, Kind::IssuedKeys)?.record(change, tell(Action::Disable))?;
                } else {
                    change.record(tell(Action::Enable))?;
                }
            }
            let disabled_at = disabled.then(|| user.disabled_at.unwrap_or(change.now.naive()));
            users::administer(change.conn, id, role, disabled_at, change.now)
        });
        let changed = changed.await.map(User::from);
        self.wake_cleanup();
        changed
    }

    /// Gives a user a new password and ends their sign-in token, and the keys that act for them if `revoke_keys`.
    pub async fn reset_password(
        &self,
        call: Call,
        id: UserId,
        password: Password,
        revoke_keys: bool,
    ) -> Result<(), AppError> {
        self.check_password("password", &password)?;
        let hash = self.hasher.create(call.origin.client, password.clone()).await?;
        let attempt = Event::of(Action::SetPassword).on(Target::User(id));
        let changed = self.administer(call, attempt, id, move |change, user, _| {
            not_their_own("password", &password, [&user.email, &user.name, &user.surname])?;
            failures::forget_all(change.conn, &user)?;
            users::set_password(change.conn, id, &hash, change.now)?;
            end_after_new_password(change, id, revoke_keys)
        });
        let changed = changed.await;
        self.wake_cleanup();
        changed
    }

    /// Removes a user with all that belongs to them. Their id stays in the audit trail.
    ///
    /// Errors: [`AppError::NotFound`]; [`AppError::Conflict`] if no enabled admin would be left.
    pub async fn delete_user(&self, call: Call, id: UserId) -> Result<(), AppError> {
        let attempt = Event::of(Action::DeleteUser).on(Target::User(id));
        let deleted = self.administer(call, attempt, id, move |change, user, admins| {
            may_administer(change, id)?;
            if user.is_enabled_admin() && admins == 0 {
                return Err(last_admin());
            }
            failures::forget_all(change.conn, &user)?;
            known_networks::forget(change.conn, id)?;
            end_credentials(change, id, Kind::Account)?.record(change, |event| event)
        });
        let deleted = deleted.await;
        self.wake_erasure();
        deleted
    }

    /// The address of a registration, or all that is wrong with it at once.
    fn check_registration(&self, registration: &Registration) -> Result<EmailAddress, AppError> {
        let mut errors = broken(&registration);
        let email = check_email(&registration.email).map_err(|error| errors.push(error)).ok();
        errors.extend(self.check_password("password", &registration.password).err());
        let Registration { name, surname, email: given, password, .. } = registration;
        errors.extend(not_their_own("password", password, [given, name, surname]).err());
        match email {
            Some(email) if errors.is_empty() => Ok(email),
            _ => Err(AppError::Invalid(errors)),
        }
    }

    /// Whether a new password, from the field of this name, is within its bounds.
    pub(super) fn check_password(&self, field: &str, password: &Password) -> Result<(), FieldError> {
        let (least, most) = (self.settings.password_min_length, self.settings.password_max_length);
        if password.has_nul() {
            return Err(FieldError::new(field, "nul", "The NUL character is not allowed."));
        }
        if !(least..=most).contains(&password.length()) {
            return Err(FieldError::new(field, "length", format!("Use {least} to {most} characters.")));
        }
        if password.is_common() || password.is("latchkey") {
            let rule = "This password is one of those that are tried first. Use another one.";
            return Err(FieldError::new(field, "common", rule));
        }
        Ok(())
    }
}

/// Whether a new password is something else than what everybody may know of its user: e-mail, name, surname.
pub(super) fn not_their_own(field: &str, password: &Password, known: [&str; 3]) -> Result<(), FieldError> {
    let local = known[0].split_once('@').map_or("", |(local, _)| local);
    if known.into_iter().chain([local]).any(|text| !text.is_empty() && password.is(text)) {
        let rule = "The password may not be the e-mail address or the name.";
        return Err(FieldError::new(field, "own_name", rule));
    }
    Ok(())
}

/// The address that the field `email` holds.
pub(super) fn check_email(given: &str) -> Result<EmailAddress, FieldError> {
    EmailAddress::parse(given).ok_or_else(|| {
        let unseen = given.trim_ascii().chars().find(|character| text::is_unseen(*character));
        let rule = match unseen {
            Some(unseen) => format!("Remove the invisible character {}.", code_point(unseen)),
            None => format!("Use a valid e-mail address of at most {} characters.", email::MAX_LENGTH),
        };
        FieldError::new("email", "email", rule)
    })
}

/// Ends and records what a new password ends: the token, and if `revoke_keys`, the keys that act on Latchkey's data on the user's
/// account. Keys that were issued to others with scopes of the shop's own stay: they belong to whoever holds them.
pub(super) fn end_after_new_password(change: &mut Change<'_>, user: UserId, revoke_keys: bool) -> Result<(), AppError> {
    if revoke_keys {
        let ended = end_credentials(change, user, Kind::ActingKeys)?;
        return ended.record(change, |event| event.changed(vec!["password"]));
    }
    access_tokens::delete_of(change.conn, user)?;
    change.record(|event| event.changed(vec!["password"]).detail("keys kept")).map(drop)
}

pub(super) fn email_taken() -> AppError {
    AppError::Conflict { code: "email_taken", detail: "A user with this e-mail already exists." }
}

/// One's own account takes a token with all that its role holds, by whatever route.
fn may_administer(change: &Change<'_>, user: UserId) -> Result<(), AppError> {
    match &change.caller {
        Some(caller) if caller.user_id == user && caller.narrowed => Err(AppError::Forbidden(Denial::Narrowed)),
        _ => Ok(()),
    }
}

/// Nobody gives a power that their credential has not got, by way of a role.
fn may_promote(change: &Change<'_>, from: Role, to: Role) -> Result<(), AppError> {
    let Some(caller) = &change.caller else {
        return Ok(());
    };
    let beyond = to.scopes().without(from.scopes()).without(caller.level.scopes);
    if beyond.is_empty() {
        return Ok(());
    }
    Err(FieldError::new("role", "scope_not_held", format!("Not yours to give: {beyond}.")).into())
}

fn last_admin() -> AppError {
    AppError::Conflict { code: "last_admin", detail: "This is the last admin. Make somebody else one first." }
}
