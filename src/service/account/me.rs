//! The caller's own account: read, change and delete it, and change its password.

use std::sync::Arc;

use validator::{Validate, ValidationError};

use crate::db::sessions;
use crate::db::users::{self, UserChange};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::id::SessionId;
use crate::domain::mail::{Language, MailKind};
use crate::domain::password::Password;
use crate::domain::secret::{Secret, SecretKind};
use crate::domain::user::User;
use crate::error::{AppError, FieldError};
use crate::service::Service;
use crate::service::account::creation::{claim_address, email_taken};
use crate::service::account::email_change::request_email_change;
use crate::service::account::registration::check_email_domain;
use crate::service::account::users::{check_email, check_not_own_name, end_credentials_after_new_password};
use crate::service::audit::change::Change;
use crate::service::limits::lockout;
use crate::service::mail::links::{self, LinksEnd};
use crate::service::token::confirmation::MatchedPassword;
use crate::service::validation::{TEXT_MAX, readable, validation_errors};

/// Changes of the caller's account. `None` leaves a field unchanged.
#[derive(Debug, Validate)]
#[validate(schema(function = require_a_change))]
pub struct AccountEdit {
    /// First name. Length: `registration.name_min_length` to [`TEXT_MAX`] characters.
    #[validate(custom(function = readable))]
    pub name: Option<String>,
    /// Family name of at most [`TEXT_MAX`] characters; may be empty.
    #[validate(
        length(max = TEXT_MAX),
        custom(function = readable)
    )]
    pub surname: Option<String>,
    /// E-mail address, unique in its canonical form.
    pub email: Option<String>,
    /// Text of at most [`TEXT_MAX`] characters; may be empty.
    #[validate(length(max = TEXT_MAX), custom(function = readable))]
    pub website: Option<String>,
    /// The code of the language of mails to the user.
    pub language: Option<String>,
    /// Whether the user gets notices about sign-ins.
    pub sign_in_notices: Option<bool>,
    /// Current password. Required to change the e-mail and to turn the notices off.
    pub current_password: Option<Password>,
}

fn require_a_change(edit: &AccountEdit) -> Result<(), ValidationError> {
    let texts = [&edit.name, &edit.surname, &edit.email, &edit.website, &edit.language];
    if texts.iter().all(|field| field.is_none()) && edit.sign_in_notices.is_none() {
        return Err(ValidationError::new("missing").with_message("Send at least one field to change.".into()));
    }
    Ok(())
}

/// Parses the field `language`.
pub(super) fn read_language(code: &str) -> Result<Language, FieldError> {
    Language::of(code).ok_or_else(|| {
        let codes = Language::ALL.map(Language::code).join(" or ");
        FieldError::new("language", "language", format!("Use {codes}."))
    })
}

impl Service {
    /// Returns the caller's account. Errors: [`AppError::Unauthenticated`] if the account was deleted after the guard
    /// accepted the credential.
    pub async fn me(&self, context: &RequestContext) -> Result<User, AppError> {
        let id = context.user()?.user_id;
        self.load_user(move |conn| users::find(conn, id)).await?.ok_or_else(|| context.credential_ended())
    }

    /// Changes the caller's own data. An e-mail requires the current password, and a new one must be of
    /// `registration.email_domains`. If mails are sent, the e-mail changes when its owner has confirmed the new one;
    /// until then that is the pending e-mail of the returned user. The present e-mail as the new one ends a pending
    /// change. Turning notices about sign-ins off requires the current password, too: otherwise a person who has found a
    /// token could use it unnoticed.
    ///
    /// Errors: [`AppError::Invalid`] names each bad field, [`AppError::Conflict`] an e-mail that is taken,
    /// [`AppError::Forbidden`] a wrong password, [`AppError::TooMany`] too many mails to new addresses.
    pub async fn edit_account(&self, context: RequestContext, edit: AccountEdit) -> Result<User, AppError> {
        let mut errors: Vec<FieldError> =
            edit.name.as_deref().and_then(|name| self.check_name(name).err()).into_iter().collect();
        errors.extend(validation_errors(&edit));
        let email = match edit.email.as_deref().map(check_email) {
            Some(Err(error)) => {
                errors.push(error);
                None
            }
            email => email.and_then(Result::ok),
        };
        let language = match edit.language.as_deref().map(read_language) {
            Some(Err(error)) => {
                errors.push(error);
                None
            }
            language => language.and_then(Result::ok),
        };
        if edit.email.is_some() && edit.current_password.is_none() {
            errors.push(FieldError::new("current_password", "missing", "A new e-mail requires the current password."));
        }
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let (user, present) = context.user().map(|caller| (caller.user_id, caller.email.clone()))?;
        let is_new = email.as_ref().is_some_and(|email| present.as_deref() != Some(email.key()));
        if let Some(email) = email.as_ref().filter(|_| is_new && self.mail.is_configured()) {
            self.mail.check_reachable(email)?;
            self.limits.throttle().count_mail_of_user(user, context.client_info.client)?;
        }
        let confirmed = match edit.current_password.clone() {
            Some(password) => Some(self.confirm_password(&context, user, password).await?),
            None => None,
        };
        let lockout = self.limits.lockout();
        let matched = confirmed.as_ref().map(|confirmed| confirmed.matched(lockout));
        let (domains, mail) = (self.registration.email_domains.clone(), self.mail.clone());
        let changed = self.trail.change(context, Event::of(Action::EditUser).on(Target::User(user)), move |change| {
            let before = confirmed_row(change, matched.as_ref())?;
            if before.sign_in_notices && edit.sign_in_notices == Some(false) && matched.is_none() {
                let rule = "To turn the notices off requires the current password.";
                return Err(FieldError::new("current_password", "missing", rule).into());
            }
            let new = email.as_ref().filter(|email| email.key() != before.email_key);
            new.map_or(Ok(()), |email| check_email_domain(email, &domains))?;
            let pending = new.filter(|_| mail.is_configured());
            if let Some(email) = pending {
                request_email_change(change, &mail, &before, email)?;
            } else if email.is_some() {
                let reason = if new.is_some() { LinksEnd::AddressChanged } else { LinksEnd::ChangeCancelled };
                links::end(change, &before, reason)?;
            }
            let email = email.as_ref().filter(|_| pending.is_none());
            let after = users::update(
                change.conn,
                user,
                &UserChange {
                    name: edit.name.as_deref(),
                    surname: edit.surname.as_deref(),
                    email: email.map(EmailAddress::as_given),
                    email_key: email.map(EmailAddress::key),
                    pending_email: pending.map(EmailAddress::as_given),
                    website: edit.website.as_deref(),
                    locale: language.map(Language::code),
                    sign_in_notices: edit.sign_in_notices,
                    ..UserChange::none(change.now)
                },
            )?
            .ok_or_else(email_taken)?;
            let is_other = before.email_key != after.email_key;
            if is_other {
                claim_address(change, &after)?;
                users::set_verified(change.conn, user, None)?;
            }
            let after = users::User { email_verified_at: after.email_verified_at.filter(|_| !is_other), ..after };
            let fields = [
                ("name", before.name != after.name),
                ("surname", before.surname != after.surname),
                ("email", before.email != after.email),
                ("website", before.website != after.website),
                ("pending_email", before.pending_email != after.pending_email),
                ("language", before.locale != after.locale),
                ("sign_in_notices", before.sign_in_notices != after.sign_in_notices),
            ];
            change.record(|event| event.changed_where(fields))?;
            lockout::with_stop(change.conn, lockout, after, change.now)
        });
        let changed = changed.await.map(|(user, is_stopped)| user.into_domain(&self.roles, is_stopped));
        drop(confirmed);
        changed
    }

    /// Replaces the caller's password and revokes the sign-in token, the sessions and, if `revoke_keys`, the keys that
    /// act on the account: own keys, and issued keys with Latchkey's own scopes. A session that makes the change stays
    /// valid with the returned new secret.
    ///
    /// Errors: [`AppError::Invalid`] for an unacceptable new password, [`AppError::Forbidden`] for a wrong current one.
    pub async fn change_password(
        &self,
        context: RequestContext,
        current: Password,
        new: Password,
        revoke_keys: bool,
    ) -> Result<Option<Secret>, AppError> {
        self.check_password("new_password", &new)?;
        let (user, session) = context.user().map(|caller| (caller.user_id, caller.session()))?;
        let confirmed = self.confirm_password(&context, user, current).await?;
        let hash = self.passwords.create(context.client_info.client, new.clone()).await?;
        let matched = confirmed.matched(self.limits.lockout());
        let (mail, cleanups) = (self.mail.clone(), Arc::clone(self.lifecycle.cleanups()));
        let changed =
            self.trail.change(context, Event::of(Action::SetPassword).on(Target::User(user)), move |change| {
                let row = confirmed_row(change, Some(&matched))?;
                check_not_own_name("new_password", &new, [&row.email, &row.name, &row.surname])?;
                lockout::forget_all(change.conn, &row)?;
                users::set_password(change.conn, user, &hash, change.now)?;
                change.after_commit(move || cleanups.wake());
                mail.notify(change, MailKind::PasswordChanged, &row)?;
                end_credentials_after_new_password(change, &row, revoke_keys, session)?;
                session.map(|session| renew_session(change, session)).transpose()
            });
        let changed = changed.await;
        drop(confirmed);
        changed
    }

    /// Deletes the caller's account with everything that it owns. Errors: see [`Self::delete_user`].
    pub async fn delete_account(&self, context: RequestContext) -> Result<(), AppError> {
        let user = context.user()?.user_id;
        self.delete_user(context, user).await
    }
}

/// Gives a session a new secret, so that the old one is of no use to someone who has found it.
fn renew_session(change: &mut Change<'_>, session: SessionId) -> Result<Secret, AppError> {
    let secret = Secret::generate(SecretKind::Session)?;
    sessions::renew(change.conn, session, secret.digest())?;
    Ok(secret)
}

/// Returns the caller's locked row. Errors: that of a wrong password, if `matched` is no longer the current one.
fn confirmed_row(change: &mut Change<'_>, matched: Option<&MatchedPassword>) -> Result<users::User, AppError> {
    let row = change.caller_row.take().ok_or(AppError::NotFound("user"))?;
    matched.map_or(Ok(()), |matched| matched.check_again(change, &row))?;
    Ok(row)
}
