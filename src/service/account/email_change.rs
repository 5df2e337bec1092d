//! The change of an e-mail address: confirmed at the new address, and undone at the old one.

use std::sync::Arc;

use crate::db::account_cleanups::Kind;
use crate::db::mail::{Subject, replaced_emails};
use crate::db::users;
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::password::Password;
use crate::domain::principal::Level;
use crate::error::AppError;
use crate::service::Service;
use crate::service::account::creation::claim_address;
use crate::service::audit::change::Change;
use crate::service::mail::links::{self, Link, LinkTarget, LinksEnd, link_invalid};
use crate::service::mail::{Mail, Recipient};
use crate::service::token::end::{end_credentials, end_sign_ins};

/// Seconds for which a change can be undone: 8 days, the longest delay of a mail and the life of its link.
const RESTORABLE_SECONDS: i64 = 8 * 86_400;
/// Maximum number of changes of an account that can be undone at the same time. Nothing ends the link to an address
/// before its time, so this bounds what one account occupies.
const RESTORABLE_MAX: i64 = 5;

/// Requests the mails of a change to `new`: a link to the new address, and a notice to the present one. A request for
/// another address ends. The row of the user must be locked.
///
/// Errors: [`AppError::Conflict`] after too many changes.
pub(super) fn request_email_change(
    change: &mut Change<'_>,
    mail: &Mail,
    user: &users::User,
    new: &EmailAddress,
) -> Result<(), AppError> {
    if replaced_emails::count_of(change.conn, user.id, change.now)? >= RESTORABLE_MAX {
        return Err(AppError::Conflict {
            code: "too_many_email_changes",
            detail: "The e-mail address was changed too often. Try again in a few days.",
        });
    }
    // The link of an earlier request for the same address stays valid: the limits may drop another mail.
    if !user.pending_email.as_deref().is_some_and(|pending| links::has_key(pending, new.key())) {
        links::end(change, user, LinksEnd::ChangeCancelled)?;
    }
    let recipient = Recipient { address_key: new.key(), address: None, subject: Some(Subject::User(user.id)) };
    mail.send(change, MailKind::EmailChange, &recipient)?;
    mail.notify(change, MailKind::EmailChangeRequested, user)
}

impl Service {
    /// Changes the e-mail address of an account to the pending one, with the secret of a link that was sent there, and
    /// with the password, which proves that the receiver of the mail is the user. This ends the sign-in token and the
    /// sessions; keys stay valid. The old address gets a notice with a link that undoes the change, if it was verified.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones;
    /// [`AppError::Forbidden`] for a wrong password, which counts as a failed sign-in.
    pub async fn confirm_email_change(
        &self,
        context: RequestContext,
        secret: &str,
        password: Password,
    ) -> Result<(), AppError> {
        let purpose = LinkPurpose::EmailChange;
        let (digest, confirmed) = self.link_with_password(&context, purpose, secret, password).await?;
        let (matched, mail) = (confirmed.matched(self.limits.lockout()), self.mail.clone());
        let changed = self.trail.change(context, Event::of(Action::ChangeEmail), move |change| {
            let (before, _) = links::redeem(change, purpose, digest)?;
            change.set_target(Target::User(before.id));
            matched.check_again(change, &before)?;
            let new = before.pending_email.as_deref().and_then(EmailAddress::parse).ok_or_else(link_invalid)?;
            change.set_actor(Actor::link(before.id, Level::of(&change.roles.get(&before.role))));
            set_email(change, &before, &new, LinksEnd::AddressChanged)?;
            let ended = end_sign_ins(change, before.id, None)?;
            // An address that was never verified may be that of a stranger, who must not get the account.
            if before.email_verified_at.is_some() {
                let until = change.now.plus_seconds(RESTORABLE_SECONDS);
                replaced_emails::insert(change.conn, before.id, (&before.email, &before.email_key), until)?;
                let subject = Some(Subject::User(before.id));
                let recipient = Recipient { address_key: &before.email_key, address: Some(&before.email), subject };
                mail.send(change, MailKind::EmailChanged, &recipient)?;
            }
            change.record(|event| event.changed(vec!["email"]).detail(ended.of_user())).map(drop)
        });
        let changed = changed.await;
        drop(confirmed);
        changed
    }

    /// Restores the e-mail address before a change, with the secret of a link that was sent there. As the change was
    /// not that of the owner, it ends the password, the sign-in token, the sessions, the keys that act on the account,
    /// all links and later changes. Returns a link that sets a new password, which is also sent.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones.
    pub async fn undo_email_change(&self, context: RequestContext, secret: &str) -> Result<Link, AppError> {
        let purpose = LinkPurpose::EmailUndo;
        let digest = self.live_link(&context, purpose, secret).await?;
        let (mail, cleanups) = (self.mail.clone(), Arc::clone(self.lifecycle.cleanups()));
        // The person who changed the address may know the password.
        let no_password = self.passwords.unusable();
        self.trail
            .change(context, Event::of(Action::ChangeEmail), move |change| {
                let (before, link) = links::redeem(change, purpose, digest)?;
                change.set_target(Target::User(before.id));
                let old = EmailAddress::parse(&link.address).ok_or_else(link_invalid)?;
                let replaced = replaced_emails::find(change.conn, old.key(), change.now)?;
                let replaced = replaced.filter(|replaced| replaced.user_id == before.id).ok_or_else(link_invalid)?;
                change.set_actor(Actor::link(before.id, Level::of(&change.roles.get(&before.role))));
                set_email(change, &before, &old, LinksEnd::Undone(replaced.id))?;
                users::set_password(change.conn, before.id, &no_password, change.now)?;
                let subject = Subject::User(before.id);
                let purpose = LinkPurpose::PasswordReset;
                let target = LinkTarget { purpose, subject, address: &link.address, mailed: link.mailed, until: None };
                let reset = mail.links().create(change.conn, target, change.now)?;
                let recipient = Recipient { address_key: old.key(), address: None, subject: Some(subject) };
                mail.send(change, MailKind::EmailRestored, &recipient)?;
                change.after_commit(move || cleanups.wake());
                let ended = end_credentials(change, before.id, Kind::ActingKeys, None)?;
                ended.record(change, |event| event.changed(vec!["email", "password"]))?;
                Ok(reset)
            })
            .await
    }
}

/// Sets the address of a user whose row is locked, and ends what `reason` says.
///
/// Errors: [`link_invalid`] if the address is taken.
fn set_email(
    change: &mut Change<'_>,
    user: &users::User,
    email: &EmailAddress,
    reason: LinksEnd,
) -> Result<(), AppError> {
    links::end(change, user, reason)?;
    let after = users::set_email(change.conn, user.id, email, change.now)?.ok_or_else(link_invalid)?;
    claim_address(change, &after).map_err(|error| match error {
        AppError::Conflict { .. } => link_invalid(),
        error => error,
    })
}
