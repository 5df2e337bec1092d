//! The change of an e-mail address: confirmed at the new address, and undone at the old one.

use std::sync::Arc;

use crate::db::account_cleanups::Kind;
use crate::db::mail::{Subject, secrets};
use crate::db::{sign_in_failures, users};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::principal::Level;
use crate::error::AppError;
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::limits::lockout::account_of;
use crate::service::mail::links::{self, has_key, link_invalid};
use crate::service::mail::{Mail, Recipient};
use crate::service::token::end::{end_credentials, end_sign_ins};

/// Requests the mails of a change to `new`: a link to the new address, and a notice to the present one. A link of an
/// earlier request ends. The row of the user must be locked.
pub(super) fn request_email_change(
    change: &mut Change<'_>,
    mail: &Mail,
    user: &users::User,
    new: &EmailAddress,
) -> Result<(), AppError> {
    secrets::delete_of(change.conn, user.id, LinkPurpose::EmailChange)?;
    let recipient = Recipient { address_key: new.key(), address: None, subject: Some(Subject::User(user.id)) };
    mail.send(change, MailKind::EmailChange, &recipient)?;
    mail.notify(change, MailKind::EmailChangeRequested, user)
}

impl Service {
    /// Changes the e-mail address of an account to the pending one, with the secret of a link that was sent there. This
    /// ends the sign-in token and the sessions; keys stay valid. The old address gets a notice with a link that undoes
    /// the change.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones.
    pub async fn confirm_email_change(&self, context: RequestContext, secret: &str) -> Result<(), AppError> {
        let purpose = LinkPurpose::EmailChange;
        let digest = self.live_link(&context, purpose, secret).await?;
        let mail = self.mail.clone();
        self.trail
            .change(context, Event::of(Action::ChangeEmail), move |change| {
                let (before, link) = links::redeem(change, purpose, digest)?;
                change.set_target(Target::User(before.id));
                let new = before.pending_email.as_deref().and_then(EmailAddress::parse);
                let new = new.filter(|new| has_key(&link.address, new.key())).ok_or_else(link_invalid)?;
                change.set_actor(Actor::link(before.id, Level::of(&change.roles.get(&before.role))));
                set_email(change, &before, &new)?;
                let ended = end_sign_ins(change, before.id, None)?;
                let recipient = Recipient {
                    address_key: &before.email_key,
                    address: Some(&before.email),
                    subject: Some(Subject::User(before.id)),
                };
                mail.send(change, MailKind::EmailChanged, &recipient)?;
                change.record(|event| event.changed(vec!["email"]).detail(ended.of_user())).map(drop)
            })
            .await
    }

    /// Restores the e-mail address before a change, with the secret of a link that was sent there. As the change was
    /// not that of the owner, it ends the sign-in token, the sessions, the keys that act on the account and all links,
    /// and sends a link that sets a new password.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones.
    pub async fn undo_email_change(&self, context: RequestContext, secret: &str) -> Result<(), AppError> {
        let purpose = LinkPurpose::EmailUndo;
        let digest = self.live_link(&context, purpose, secret).await?;
        let (mail, cleanups) = (self.mail.clone(), Arc::clone(self.lifecycle.cleanups()));
        self.trail
            .change(context, Event::of(Action::ChangeEmail), move |change| {
                let (before, link) = links::redeem(change, purpose, digest)?;
                change.set_target(Target::User(before.id));
                let old = EmailAddress::parse(&link.address).ok_or_else(link_invalid)?;
                change.set_actor(Actor::link(before.id, Level::of(&change.roles.get(&before.role))));
                set_email(change, &before, &old)?;
                secrets::delete_all_of(change.conn, before.id)?;
                mail.request(change, MailKind::PasswordReset, old.key())?;
                change.after_commit(move || cleanups.wake());
                let ended = end_credentials(change, before.id, Kind::ActingKeys, None)?;
                ended.record(change, |event| event.changed(vec!["email"]))
            })
            .await
    }
}

/// Sets the address of a user whose row is locked, and ends the links to the old one.
///
/// Errors: [`link_invalid`] if the address is in use.
fn set_email(change: &mut Change<'_>, user: &users::User, email: &EmailAddress) -> Result<(), AppError> {
    let after = users::set_email(change.conn, user.id, email, change.now)?.ok_or_else(link_invalid)?;
    sign_in_failures::delete(change.conn, account_of(&after))?;
    secrets::delete_of(change.conn, user.id, LinkPurpose::PasswordReset)?;
    secrets::delete_of(change.conn, user.id, LinkPurpose::EmailVerification)
}
