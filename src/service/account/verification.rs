//! Verification of e-mail addresses, and registrations that wait for it.

use crate::db::mail::registrations::{self, NewRegistration};
use crate::db::mail::{Subject, secrets};
use crate::db::sign_in_failures;
use crate::db::users::{self, NewUser};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::password::Password;
use crate::domain::principal::Level;
use crate::domain::role::BuiltInRole;
use crate::error::{AppError, Denial};
use crate::metrics::hourly::CountedEvent;
use crate::service::Service;
use crate::service::account::registration::Registration;
use crate::service::account::users::check_email;
use crate::service::limits::lockout::account_of;
use crate::service::limits::throttle::RateLimit;
use crate::service::mail::Recipient;
use crate::service::mail::links::{self, link_invalid};

/// Maximum number of registrations for one address that wait for its proof.
const REGISTRATIONS_PER_ADDRESS: i64 = 3;
/// Wrong passwords after which the registration of a link is deleted.
const WRONG_PASSWORDS_MAX: i64 = 10;

impl Service {
    /// Requests a mail with a link that verifies an address, if it is that of an account or of a registration that
    /// waits for it. The response and the work are the same for every address.
    ///
    /// Errors: [`AppError::Invalid`] for text that is no address; [`AppError::TooMany`] for too many requests by the
    /// client.
    pub async fn request_verification(&self, context: RequestContext, email: &str) -> Result<(), AppError> {
        let email = check_email(email)?;
        self.limits.throttle().count(RateLimit::Mail, context.client_info.client)?;
        let mail = self.mail.clone();
        self.trail
            .change(context, Event::of(Action::VerifyEmail), move |change| {
                change.needs_no_entry();
                mail.request(change, MailKind::EmailVerification, email.key())
            })
            .await
    }

    /// Verifies the address of an account with the secret of a link.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones.
    pub async fn verify_email(&self, context: RequestContext, secret: &str) -> Result<(), AppError> {
        let digest = self.live_link(&context, LinkPurpose::EmailVerification, secret).await?;
        self.trail
            .change(context, Event::of(Action::VerifyEmail), move |change| {
                let (user, link) = links::redeem(change, LinkPurpose::EmailVerification, digest)?;
                links::require_present_address(&user, &link)?;
                change.set_target(Target::User(user.id));
                change.set_actor(Actor::link(user.id, Level::of(&change.roles.get(&user.role))));
                users::set_verified(change.conn, user.id, Some(change.now))?;
                change.record(|event| event.changed(vec!["email_verified"])).map(drop)
            })
            .await
    }

    /// States that an operator has verified the address of a user. Returns whether it was not verified before.
    ///
    /// Errors: [`AppError::NotFound`].
    pub async fn mark_email_verified(&self, context: RequestContext, id: UserId) -> Result<bool, AppError> {
        let attempt = Event::of(Action::VerifyEmail).on(Target::User(id));
        self.trail
            .administer(context, attempt, id, move |change, user, _| {
                if user.email_verified_at.is_some() {
                    change.needs_no_entry();
                    return Ok(false);
                }
                users::set_verified(change.conn, id, Some(change.now))?;
                change.record(|event| event.changed(vec!["email_verified"]))?;
                Ok(true)
            })
            .await
    }

    /// Stores a registration whose data are valid until its address is proved, and requests a mail. The work is the
    /// same for an address that is taken.
    pub(super) async fn store_registration(
        &self,
        context: RequestContext,
        registration: Registration,
        email: EmailAddress,
    ) -> Result<(), AppError> {
        let language = self.mail.language(context.client_info.language);
        let Registration { name, surname, website, password, .. } = registration;
        let hash = self.passwords.create(context.client_info.client, password).await?;
        let (mail, valid_seconds) = (self.mail.clone(), self.mail.links().valid_seconds(LinkPurpose::Registration));
        self.trail
            .change(context, Event::of(Action::Register), move |change| {
                // The account has an entry when it is created.
                change.needs_no_entry();
                let new = NewRegistration {
                    email: email.as_given(),
                    email_key: email.key(),
                    name: &name,
                    surname: &surname,
                    website: &website,
                    hashed_password: hash.as_str(),
                    locale: language.code(),
                    failures: 0,
                    created_at: change.now.naive(),
                    expires_at: change.now.plus_seconds(valid_seconds).naive(),
                };
                let id = registrations::insert(change.conn, &new, REGISTRATIONS_PER_ADDRESS)?;
                let subject = Some(Subject::Registration(id));
                let recipient = Recipient { address_key: email.key(), address: None, subject };
                mail.send(change, MailKind::Registration, &recipient)
            })
            .await
    }

    /// Completes a registration: with the secret of its link, which proves the address, and with its password, which
    /// proves that the owner of the address registered.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::Forbidden`] for a wrong password;
    /// [`AppError::TooMany`] for too many invalid links or wrong passwords.
    pub async fn confirm_registration(
        &self,
        context: RequestContext,
        secret: &str,
        password: Password,
    ) -> Result<(), AppError> {
        let client = context.client_info.client;
        self.limits.throttle().check(RateLimit::FailedSignIn, client)?;
        let (purpose, now) = (LinkPurpose::Registration, self.clock.now());
        let digest = self.live_link(&context, purpose, secret).await?;
        let found =
            self.db.read(move |conn| match secrets::find(conn, purpose, digest, now)?.map(|link| link.subject) {
                Some(Subject::Registration(id)) => registrations::find(conn, id, now),
                _ => Ok(None),
            });
        let found = found.await?.ok_or_else(link_invalid)?;
        let matches = self.passwords.verify(client, Some(found.hashed_password.clone()), password).await?;
        let id = found.id;
        if !matches {
            self.limits.throttle().count(RateLimit::FailedSignIn, client)?;
            return Err(self.count_wrong_password(context, id).await.err().unwrap_or_else(wrong_password));
        }
        self.trail
            .change(context, Event::of(Action::Register), move |change| {
                let registration = registrations::lock(change.conn, id, change.now)?.ok_or_else(link_invalid)?;
                // The link of another use of the same registration ends with it.
                secrets::find(change.conn, purpose, digest, change.now)?.ok_or_else(link_invalid)?;
                let (now, member) = (change.now.naive(), change.roles.get(BuiltInRole::Member.name()));
                let new = NewUser {
                    name: &registration.name,
                    surname: &registration.surname,
                    email: &registration.email,
                    email_key: &registration.email_key,
                    website: &registration.website,
                    hashed_password: registration.hashed_password.as_str(),
                    created_at: now,
                    updated_at: now,
                    role: member.name().as_str(),
                    locale: &registration.locale,
                    email_verified_at: Some(now),
                };
                let user = users::insert(change.conn, &new)?.ok_or_else(link_invalid)?;
                sign_in_failures::delete(change.conn, account_of(&user))?;
                registrations::delete_for(change.conn, &user.email_key)?;
                change.set_target(Target::User(user.id));
                change.set_actor(Actor::link(user.id, Level::of(&member)));
                change.record(|event| event.detail(member.name().as_str())).map(drop)
            })
            .await?;
        self.metrics.hourly().add(CountedEvent::Registration);
        Ok(())
    }

    /// Counts a wrong password for a registration. Deletes the registration after too many.
    async fn count_wrong_password(&self, context: RequestContext, id: i64) -> Result<(), AppError> {
        self.trail
            .change(context, Event::of(Action::Register), move |change| {
                change.needs_no_entry();
                let Some(registration) = registrations::lock(change.conn, id, change.now)? else {
                    return Ok(());
                };
                match registration.failures + 1 {
                    failures if failures >= WRONG_PASSWORDS_MAX => registrations::delete(change.conn, id),
                    failures => registrations::set_failures(change.conn, id, failures),
                }
            })
            .await
    }
}

fn wrong_password() -> AppError {
    AppError::Forbidden(Denial::WrongPassword)
}
