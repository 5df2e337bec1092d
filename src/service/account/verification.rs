//! Verification of e-mail addresses.

use crate::db::users;
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::id::UserId;
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::password::Password;
use crate::domain::principal::Level;
use crate::error::AppError;
use crate::service::Service;
use crate::service::account::users::check_email;
use crate::service::limits::throttle::RateLimit;
use crate::service::mail::links::{self, LinksEnd};

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

    /// Verifies the address of an account with the secret of a link, and with the password, which proves that the receiver
    /// of the mail is the user: a stranger may have registered the address.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones;
    /// [`AppError::Forbidden`] for a wrong password, which counts as a failed sign-in.
    pub async fn verify_email(
        &self,
        context: RequestContext,
        secret: &str,
        password: Password,
    ) -> Result<(), AppError> {
        let purpose = LinkPurpose::EmailVerification;
        let (digest, confirmed) = self.link_with_password(&context, purpose, secret, password).await?;
        let matched = confirmed.matched(self.limits.lockout());
        let verified = self.trail.change(context, Event::of(Action::VerifyEmail), move |change| {
            let (user, _) = links::redeem(change, purpose, digest)?;
            change.set_target(Target::User(user.id));
            matched.check_again(change, &user)?;
            change.set_actor(Actor::link(user.id, Level::of(&change.roles.get(&user.role))));
            users::set_verified(change.conn, user.id, Some(change.now))?;
            links::end(change, &user, LinksEnd::Verified)?;
            change.record(|event| event.changed(vec!["email_verified"])).map(drop)
        });
        let verified = verified.await;
        drop(confirmed);
        verified
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
                links::end(change, &user, LinksEnd::Verified)?;
                change.record(|event| event.changed(vec!["email_verified"]))?;
                Ok(true)
            })
            .await
    }
}
