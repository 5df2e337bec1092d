//! The management of accounts by admins and on the command line.

use std::sync::Arc;

use validator::Validate;

use crate::db::account_cleanups::Kind;
use crate::db::mail::outbox;
use crate::db::users;
use crate::db::{Conn, known_networks, sessions};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::email::{self, EmailAddress};
use crate::domain::id::{SessionId, UserId};
use crate::domain::mail::MailKind;
use crate::domain::password::Password;
use crate::domain::role::BuiltInRole;
use crate::domain::roles::{Role, Roles};
use crate::domain::scope::Scope;
use crate::domain::text;
use crate::domain::user::User;
use crate::error::{AppError, Denial, FieldError};
use crate::service::Service;
use crate::service::account::creation::forget_candidates;
use crate::service::account::user_search::{self, UserQuery};
use crate::service::audit::change::Change;
use crate::service::key::grant::grantable;
use crate::service::limits::lockout;
use crate::service::lists::{Total, first_of};
use crate::service::mail::links::{self, LinksEnd};
use crate::service::token::end::{end_credentials, end_sign_ins};
pub use crate::service::validation::TEXT_MAX;
use crate::service::validation::code_point;

/// Changes of a user by an admin. `None` leaves a field unchanged.
#[derive(Clone, Debug, Default)]
pub struct Administration {
    /// The name of the user's role.
    pub role: Option<String>,
    /// Whether the user is disabled and cannot sign in.
    pub disabled: Option<bool>,
}

/// One part of a list of users.
#[derive(Debug)]
pub struct UserList {
    /// The users, in the order of their ids.
    pub items: Vec<User>,
    /// The last user of this part, if there are more users after it.
    pub next: Option<UserId>,
    /// The number of all matching users, if it was requested.
    pub total: Option<Total>,
}

impl Service {
    /// Returns one part of the list of matching users. Errors: [`AppError::Invalid`] for values out of range.
    pub async fn users(&self, query: UserQuery) -> Result<UserList, AppError> {
        query.validate()?;
        let (limit, policy, now) = (query.limit, self.limits.lockout(), self.clock.now());
        let found = self.db.read_consistent(move |conn| {
            let (rows, total) = user_search::find(conn, &query)?;
            let (items, next) = first_of(rows, limit, |user| user.id);
            let stopped = lockout::stopped(conn, policy, &items, now)?;
            Ok((items, next, total, stopped))
        });
        let (items, next, total, stopped) = found.await?;
        let into_domain = |user: users::User| {
            let is_stopped = stopped.contains(&user.id);
            user.into_domain(&self.roles, is_stopped)
        };
        Ok(UserList { items: items.into_iter().map(into_domain).collect(), next, total })
    }

    /// Returns the user with this id. Errors: [`AppError::NotFound`].
    pub async fn user(&self, id: UserId) -> Result<User, AppError> {
        self.load_user(move |conn| users::find(conn, id)).await?.ok_or(AppError::NotFound("user"))
    }

    /// Returns the user with this e-mail address. Errors: [`AppError::NotFound`].
    pub async fn user_by_email(&self, email: &EmailAddress) -> Result<User, AppError> {
        let key = email.key().to_owned();
        self.load_user(move |conn| users::find_by_email(conn, &key)).await?.ok_or(AppError::NotFound("user"))
    }

    /// Loads a user with `find`, and the state of their sign-ins.
    pub(super) async fn load_user<F>(&self, find: F) -> Result<Option<User>, AppError>
    where
        F: FnOnce(&mut Conn) -> Result<Option<users::User>, AppError> + Send + 'static,
    {
        let (policy, now) = (self.limits.lockout(), self.clock.now());
        let found = self.db.read(move |conn| {
            let user = find(conn)?;
            user.map(|user| lockout::with_stop(conn, policy, user, now)).transpose()
        });
        Ok(found.await?.map(|(user, is_stopped)| user.into_domain(&self.roles, is_stopped)))
    }

    /// Sets the role of a user, and disables or enables the user. A new role ends the sessions of the user. Disabling
    /// permanently revokes the sign-in token, the sessions and all keys of the user. Enabling also ends a lockout.
    ///
    /// Errors: [`AppError::NotFound`]; [`AppError::Conflict`] if no enabled admin would be left; [`AppError::Invalid`]
    /// for a role that is not defined, or that has scopes which the caller cannot give; [`AppError::Forbidden`] for the
    /// caller's own account with a narrowed credential.
    pub async fn administer_user(
        &self,
        context: RequestContext,
        id: UserId,
        set: Administration,
    ) -> Result<User, AppError> {
        let state = set.disabled.map(|disabled| if disabled { Action::Disable } else { Action::Enable });
        let requested = set.role.map(|name| self.find_role(&name)).transpose()?;
        let Some(first) = requested.as_ref().map(|_| Action::SetRole).or(state) else {
            return Err(FieldError::new("", "missing", "Send a role, disabled, or both.").into());
        };
        let (cleanups, policy) = (Arc::clone(self.lifecycle.cleanups()), self.limits.lockout());
        let changed =
            self.trail.administer(context, Event::of(first).on(Target::User(id)), id, move |change, user, admins| {
                let current = change.roles.get(&user.role);
                let role = requested.unwrap_or_else(|| current.clone());
                let (before, after) = (current.name().as_str(), role.name().as_str());
                let was_disabled = user.disabled_at.is_some();
                let disabled = set.disabled.unwrap_or(was_disabled);
                if before == after
                    && let Some(action) = state
                {
                    change.set_action(action);
                }
                if user.is_enabled_admin() && admins == 0 && (after != BuiltInRole::Admin.name() || disabled) {
                    return Err(last_admin());
                }
                may_administer(change, id)?;
                may_promote(change, &current, &role)?;
                let lockout_ended = set.disabled == Some(false) && lockout::forget_all(change.conn, &user)?;
                if lockout_ended && !was_disabled {
                    let detail = "failed sign-ins forgotten";
                    change.record(|event| Event { action: Action::Enable, ..event.detail(detail) })?;
                }
                if before == after && disabled == was_disabled {
                    change.needs_no_entry();
                    return lockout::with_stop(change.conn, policy, user, change.now);
                }
                if before != after {
                    // A new level requires a new secret (ASVS 5.0, 7.2.4). The token is for programs, and keeps
                    // working.
                    let ended = sessions::delete_of(change.conn, id, None)?;
                    let sessions = if ended > 0 { format!(", {ended} sessions") } else { String::new() };
                    let detail = format!("{before} to {after}{sessions}");
                    change.record(|event| Event {
                        action: Action::SetRole,
                        ..event.changed(vec!["role"]).detail(detail)
                    })?;
                }
                if disabled != was_disabled {
                    let state_event = |action| move |event: Event| Event { action, ..event.changed(vec!["disabled"]) };
                    if disabled {
                        change.after_commit(move || cleanups.wake());
                        links::end(change, &user, LinksEnd::Disabled)?;
                        end_credentials(change, id, Kind::IssuedKeys, None)?
                            .record(change, state_event(Action::Disable))?;
                    } else {
                        change.record(state_event(Action::Enable))?;
                    }
                }
                let disabled_at = disabled.then(|| user.disabled_at.unwrap_or(change.now.naive()));
                let user = users::administer(change.conn, id, after, disabled_at, change.now)?;
                lockout::with_stop(change.conn, policy, user, change.now)
            });
        changed.await.map(|(user, is_stopped)| user.into_domain(&self.roles, is_stopped))
    }

    /// Ends the lockout of a user after failed sign-ins. Returns whether there were failed sign-ins.
    ///
    /// Errors: [`AppError::NotFound`].
    pub async fn unlock_user(&self, context: RequestContext, id: UserId) -> Result<bool, AppError> {
        let attempt = Event::of(Action::Unlock).on(Target::User(id));
        self.trail
            .administer(context, attempt, id, move |change, user, _| {
                may_administer(change, id)?;
                let is_changed = lockout::forget_all(change.conn, &user)?;
                if is_changed {
                    change.record(|event| event)?;
                } else {
                    change.needs_no_entry();
                }
                Ok(is_changed)
            })
            .await
    }

    /// Sets a user's password and revokes the sign-in token, the sessions and, if `revoke_keys`, the keys that act on
    /// the account: own keys, and issued keys with Latchkey's own scopes. Ends a lockout of the account.
    ///
    /// Errors: [`AppError::Invalid`] for an unacceptable password; [`AppError::NotFound`].
    pub async fn reset_password(
        &self,
        context: RequestContext,
        id: UserId,
        password: Password,
        revoke_keys: bool,
    ) -> Result<User, AppError> {
        self.check_password("password", &password)?;
        let hash = self.passwords.create(context.client_info.client, password.clone()).await?;
        let attempt = Event::of(Action::SetPassword).on(Target::User(id));
        let mail = self.mail.clone();
        let (cleanups, policy) = (Arc::clone(self.lifecycle.cleanups()), self.limits.lockout());
        let changed = self.trail.administer(context, attempt, id, move |change, user, _| {
            check_not_own_name("password", &password, [&user.email, &user.name, &user.surname])?;
            lockout::forget_all(change.conn, &user)?;
            users::set_password(change.conn, id, &hash, change.now)?;
            mail.notify(change, MailKind::PasswordChanged, &user)?;
            change.after_commit(move || cleanups.wake());
            end_credentials_after_new_password(change, &user, revoke_keys, None)?;
            let after = users::find(change.conn, id)?.ok_or(AppError::NotFound("user"))?;
            lockout::with_stop(change.conn, policy, after, change.now)
        });
        let (user, is_stopped) = changed.await?;
        Ok(user.into_domain(&self.roles, is_stopped))
    }

    /// Deletes a user with everything that the user owns. The user's id stays in the audit trail.
    ///
    /// Errors: [`AppError::NotFound`]; [`AppError::Conflict`] if no enabled admin would be left;
    /// [`AppError::Forbidden`] for the caller's own account with a narrowed credential.
    pub async fn delete_user(&self, context: RequestContext, id: UserId) -> Result<(), AppError> {
        let attempt = Event::of(Action::DeleteUser).on(Target::User(id));
        let cleanups = Arc::clone(self.lifecycle.cleanups());
        self.trail
            .administer(context, attempt, id, move |change, user, admins| {
                may_administer(change, id)?;
                if user.is_enabled_admin() && admins == 0 {
                    return Err(last_admin());
                }
                lockout::forget_all(change.conn, &user)?;
                known_networks::delete_of(change.conn, id)?;
                links::end(change, &user, LinksEnd::Deleted)?;
                forget_candidates(change.conn, &user.email_key)?;
                outbox::delete_of(change.conn, id, &user.email_key)?;
                change.after_commit(move || cleanups.wake_erasure());
                end_credentials(change, id, Kind::Account, None)?.record(change, |event| event)
            })
            .await
    }

    /// Checks the length of a new password, and rejects common passwords and the name of the service (ASVS 5.0, 6.2.1,
    /// 6.2.4 and 6.2.11). `field` is the field name of the error.
    pub(crate) fn check_password(&self, field: &str, password: &Password) -> Result<(), FieldError> {
        let (min, max) = (self.settings.password_min_length, self.settings.password_max_length);
        if password.has_nul() {
            return Err(FieldError::new(field, "nul", "The NUL character is not allowed."));
        }
        if !(min..=max).contains(&password.length()) {
            return Err(FieldError::new(field, "length", format!("Use {min} to {max} characters.")));
        }
        if password.is_common() || password.is("latchkey") {
            let rule = "This password is too common. Choose another one.";
            return Err(FieldError::new(field, "common", rule));
        }
        Ok(())
    }
}

/// Rejects a new password that is the user's e-mail address, its local part, name or surname. `personal` holds e-mail,
/// name and surname.
pub(crate) fn check_not_own_name(field: &str, password: &Password, personal: [&str; 3]) -> Result<(), FieldError> {
    let local = personal[0].split_once('@').map_or("", |(local, _)| local);
    if personal.into_iter().chain([local]).any(|text| !text.is_empty() && password.is(text)) {
        let rule = "The password must not be your e-mail address or your name.";
        return Err(FieldError::new(field, "own_name", rule));
    }
    Ok(())
}

/// Parses the field `email`. Errors: the field error for an invalid address.
pub(crate) fn check_email(given: &str) -> Result<EmailAddress, FieldError> {
    EmailAddress::parse(given).ok_or_else(|| {
        let unseen = given.trim_ascii().chars().find(|character| text::is_invisible(*character));
        let rule = match unseen {
            Some(unseen) => format!("Remove the invisible character {}.", code_point(unseen)),
            None => format!("Use a valid e-mail address of at most {} characters.", email::MAX_LENGTH),
        };
        FieldError::new("email", "email", rule)
    })
}

/// Revokes the credentials that a new password ends, and records the change: the sign-in token, the sessions except
/// `kept` and, if `revoke_keys`, own keys and issued keys with Latchkey's own scopes. Issued keys with external scopes
/// only stay active for their buyers. Links end that the old password could have requested. The row of the user must be
/// locked.
pub(crate) fn end_credentials_after_new_password(
    change: &mut Change<'_>,
    user: &users::User,
    revoke_keys: bool,
    kept: Option<SessionId>,
) -> Result<(), AppError> {
    links::end(change, user, LinksEnd::NewPassword)?;
    let fields = [("password", true), ("pending_email", user.pending_email.is_some())];
    if revoke_keys {
        let ended = end_credentials(change, user.id, Kind::ActingKeys, kept)?;
        return ended.record(change, |event| event.changed_where(fields));
    }
    end_sign_ins(change, user.id, kept)?;
    change.record(|event| event.changed_where(fields).detail("keys kept")).map(drop)
}

/// Rejects a narrowed credential that would change its own account: that requires a token with all scopes of the role.
fn may_administer(change: &Change<'_>, user: UserId) -> Result<(), AppError> {
    match &change.caller {
        Some(caller) if caller.user_id == user && caller.narrowed => Err(AppError::Forbidden(Denial::Narrowed)),
        _ => Ok(()),
    }
}

/// Rejects a role that adds scopes which the caller cannot grant, as for keys, or which the caller's own role does not
/// hold: an issued key can hold any external scope. The command line has no limit.
pub(super) fn may_promote(change: &Change<'_>, from: &Role, to: &Role) -> Result<(), AppError> {
    let Some(caller) = &change.caller else {
        return Ok(());
    };
    let held = change.roles.get(caller.level.role.as_str());
    let assignable = grantable(caller).intersection(held.scopes());
    let beyond = to.scopes().without(from.scopes()).without(&assignable);
    if beyond.is_empty() {
        return Ok(());
    }
    let advice = match beyond.external.is_empty() {
        true => "",
        false => " The settings state the external scopes of your role. The command line can assign every role.",
    };
    let message = format!("Your credential cannot give: {beyond}.{advice}");
    Err(FieldError::new("role", "scope_not_held", message).into())
}

/// Whether a user with the role `assigner` may give new users the role `to`: it holds `users:write`, and every scope that a
/// member lacks.
pub(super) fn can_assign(roles: &Roles, assigner: &str, to: &str) -> bool {
    let (assigner, to, member) = (roles.get(assigner), roles.get(to), roles.get(BuiltInRole::Member.name()));
    let beyond = to.scopes().without(member.scopes()).without(assigner.scopes());
    assigner.scopes().contains(Scope::UsersWrite) && beyond.is_empty()
}

pub(crate) fn last_admin() -> AppError {
    AppError::Conflict { code: "last_admin", detail: "This is the last admin. Make another user an admin first." }
}
