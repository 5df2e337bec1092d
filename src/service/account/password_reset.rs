//! Password reset: a link in a mail, or one that an operator makes, sets a new password.

use std::sync::Arc;

use crate::db::account_cleanups::Kind;
use crate::db::mail::Subject;
use crate::db::{known_networks, users};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::id::UserId;
use crate::domain::mail::{Language, LinkPurpose, MailKind};
use crate::domain::password::{Password, PasswordHash};
use crate::domain::principal::Level;
use crate::error::AppError;
use crate::service::Service;
use crate::service::account::users::{check_email, check_not_own_name};
use crate::service::audit::change::Change;
use crate::service::limits::lockout;
use crate::service::limits::throttle::RateLimit;
use crate::service::mail::links::{self, Link, LinkTarget, LinksEnd};
use crate::service::token::end::end_credentials;

impl Service {
    /// Requests a mail with a link that sets a new password. The response and the work are the same for every address.
    ///
    /// Errors: [`AppError::Invalid`] for text that is no address; [`AppError::TooMany`] for too many requests by the
    /// client.
    pub async fn request_password_reset(&self, context: RequestContext, email: &str) -> Result<(), AppError> {
        let email = check_email(email)?;
        self.limits.throttle().count(RateLimit::Mail, context.client_info.client)?;
        let mail = self.mail.clone();
        self.trail
            .change(context, Event::of(Action::ResetPassword), move |change| {
                // The mail has an entry when it is sent. One here would fill the trail with requests of strangers.
                change.needs_no_entry();
                mail.request(change, MailKind::PasswordReset, email.key())
            })
            .await
    }

    /// Makes a link that sets a new password of a user, for an operator who delivers it.
    ///
    /// Errors: [`AppError::NotFound`]; [`AppError::Conflict`] for a disabled user; [`AppError::Internal`] if the
    /// settings name no page for links.
    pub async fn create_reset_link(&self, context: RequestContext, id: UserId) -> Result<Link, AppError> {
        let (links, purpose) = (self.mail.links().clone(), LinkPurpose::PasswordReset);
        self.trail
            .administer(context, Event::of(Action::CreateLink).on(Target::User(id)), id, move |change, user, _| {
                if user.disabled_at.is_some() {
                    let detail = "The user is disabled. Enable the user first.";
                    return Err(AppError::Conflict { code: "user_disabled", detail });
                }
                let subject = Subject::User(user.id);
                let target = LinkTarget { purpose, subject, address: &user.email, mailed: false, until: None };
                let link = links.create(change.conn, target, change.now)?;
                change.record(|event| event.detail(purpose.name()))?;
                Ok(link)
            })
            .await
    }

    /// Sets a new password with the secret of a link. This ends the sign-in token, the sessions, the own keys, the
    /// issued keys with scopes of Latchkey (all of them if the link is the first proof of the address), a lockout and
    /// all other such links. It does not sign in. `language` is that of the browser, if it states one: an account whose
    /// address was never verified gets it.
    ///
    /// Errors: [`AppError::Invalid`] for an unacceptable password; [`AppError::Gone`] for every link that is not valid;
    /// [`AppError::TooMany`] for too many invalid ones.
    pub async fn reset_password_with_link(
        &self,
        context: RequestContext,
        secret: &str,
        new: Password,
        language: Option<Language>,
    ) -> Result<(), AppError> {
        let client = context.client_info.client;
        self.check_password("new_password", &new)?;
        let purpose = LinkPurpose::PasswordReset;
        // A hash is computed only for a link that exists.
        let digest = self.live_link(&context, purpose, secret).await?;
        let hash = self.passwords.create(client, new.clone()).await?;
        let (mail, cleanups) = (self.mail.clone(), Arc::clone(self.lifecycle.cleanups()));
        let language = mail.language(language);
        self.trail
            .change(context, Event::of(Action::ResetPassword), move |change| {
                let (user, link) = links::redeem(change, purpose, digest)?;
                let level = Level::of(&change.roles.get(&user.role));
                change.set_target(Target::User(user.id));
                check_not_own_name("new_password", &new, [&user.email, &user.name, &user.surname])?;
                change.set_actor(Actor::link(user.id, level));
                set_password(change, &user, &hash, (link.mailed, language.code()))?;
                change.after_commit(move || cleanups.wake());
                mail.notify(change, MailKind::PasswordChanged, &user)
            })
            .await
    }
}

/// Sets the password, and ends what the old one has given access to. If the link was mailed and the address was not
/// verified before, it is the first proof of the address: a stranger may have registered it. Then the address is
/// verified, all issued keys and all links end, the known networks are deleted, notices are on, and `locale` is the
/// language of mails. Name, surname, website and pages stay.
fn set_password(
    change: &mut Change<'_>,
    user: &users::User,
    hash: &PasswordHash,
    (is_mailed, locale): (bool, &str),
) -> Result<(), AppError> {
    lockout::forget_all(change.conn, user)?;
    users::set_password(change.conn, user.id, hash, change.now)?;
    let is_first_proof = is_mailed && user.email_verified_at.is_none();
    let (kind, reason) = match is_first_proof {
        true => (Kind::IssuedKeys, LinksEnd::FirstProof),
        false => (Kind::ActingKeys, LinksEnd::NewPassword),
    };
    if is_first_proof {
        users::set_verified(change.conn, user.id, Some(change.now))?;
        users::reset_preferences(change.conn, user.id, locale)?;
        known_networks::delete_of(change.conn, user.id)?;
    }
    links::end(change, user, reason)?;
    let ended = end_credentials(change, user.id, kind, None)?;
    let fields = [
        ("password", true),
        ("email_verified", is_first_proof),
        ("pending_email", user.pending_email.is_some()),
        ("language", is_first_proof && user.locale != locale),
        ("sign_in_notices", is_first_proof && !user.sign_in_notices),
    ];
    ended.record(change, |event| event.changed_where(fields))
}
