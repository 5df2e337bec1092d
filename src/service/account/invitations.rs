//! Invitations: an admin or operator invites an address, and the person who receives the link creates the account.

use crate::clock::Timestamp;
use crate::db::mail::Subject;
use crate::db::mail::invitations::{self, NewInvitation};
use crate::db::{Conn, users};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::id::{InvitationId, UserId};
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::role::BuiltInRole;
use crate::domain::roles::Roles;
use crate::error::{AppError, FieldError};
use crate::service::Service;
use crate::service::account::creation::{email_taken, is_taken};
use crate::service::account::me::read_language;
use crate::service::account::users::{can_assign, check_email, may_promote};
use crate::service::audit::change::Change;
use crate::service::lists::first_of;
use crate::service::mail::links::{Link, LinkTarget};
use crate::service::mail::{Mail, Recipient};

/// Maximum number of invitations in one response.
pub const LIMIT_MAX: i64 = 500;
/// Default number of invitations in one response.
pub const LIMIT_DEFAULT: i64 = 50;

/// An invitation.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Never reused.
    pub id: InvitationId,
    /// The invited address.
    pub email: String,
    /// The name of the role that the user will have.
    pub role: String,
    /// The user who invited; `None` for the command line.
    pub invited_by: Option<UserId>,
    /// When the invitation was made.
    pub created_at: Timestamp,
    /// The end of the invitation.
    pub expires_at: Timestamp,
}

impl From<invitations::Invitation> for Invitation {
    fn from(row: invitations::Invitation) -> Self {
        let (id, invited_by) = (row.id, row.inviter());
        let invitations::Invitation { email, role, created_at, expires_at, .. } = row;
        Self { id, email, role, invited_by, created_at, expires_at }
    }
}

/// How an invitation reaches the invited person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitationDelivery {
    /// By a mail.
    Mail,
    /// By the caller, who gets the link.
    Link,
}

impl Service {
    /// Invites an address. Returns the invitation, and its link if `delivery` says so. `language` is the code of that of
    /// the mail. An invitation by the command line takes the place of an earlier one for the address.
    ///
    /// Errors: [`AppError::Invalid`] for text that is no address or no language, and for a role that is not defined or
    /// that the caller cannot give; [`AppError::Conflict`] for an address that has an account or an invitation;
    /// [`AppError::TooMany`] for too many mails to the address.
    pub async fn invite(
        &self,
        context: RequestContext,
        email: &str,
        role: Option<&str>,
        language: Option<&str>,
        delivery: InvitationDelivery,
    ) -> Result<(Invitation, Option<Link>), AppError> {
        let email = check_email(email).and_then(|email| self.mail.check_reachable(&email).map(|()| email));
        let role = self.find_role(role.unwrap_or(BuiltInRole::Member.name()));
        let language = language.map(read_language).transpose();
        let errors = [email.as_ref().err(), role.as_ref().err(), language.as_ref().err()];
        let errors: Vec<FieldError> = errors.into_iter().flatten().cloned().collect();
        let (Ok(email), Ok(role), Ok(language)) = (email, role, language) else {
            return Err(AppError::Invalid(errors));
        };
        let (mail, language) = (self.mail.clone(), self.mail.language(language));
        let member = self.roles.get(BuiltInRole::Member.name());
        self.trail
            .change(context, Event::of(Action::Invite), move |change| {
                may_promote(change, &member, &role)?;
                if is_taken(change.conn, &email, change.now)? {
                    return Err(email_taken());
                }
                // An invitation that cannot be accepted is not listed, so no caller can revoke it. The command line can
                // neither list nor revoke any.
                let is_command_line = change.caller.is_none();
                let mut detail = role.name().to_string();
                if let Some(earlier) = invitations::find_for(change.conn, email.key())?
                    && (is_command_line || !is_acceptable(change.conn, change.roles, &earlier)?)
                {
                    invitations::delete(change.conn, earlier.id)?;
                    detail = format!("{detail}, replaces {}", Target::Invitation(earlier.id));
                }
                let valid_seconds = mail.links().valid_seconds(LinkPurpose::Invitation);
                let new = NewInvitation {
                    email: email.as_given(),
                    email_key: email.key(),
                    role: role.name().as_str(),
                    locale: language.code(),
                    invited_by: change.caller.as_ref().map(|caller| caller.user_id.0),
                    created_at: change.now.naive(),
                    expires_at: change.now.plus_seconds(valid_seconds).naive(),
                };
                let invitation = invitations::insert(change.conn, &new)?.ok_or(AppError::Conflict {
                    code: "already_invited",
                    detail: "This address has an invitation. Send it again, or revoke it.",
                })?;
                change.set_target(Target::Invitation(invitation.id));
                change.record(|event| event.detail(detail))?;
                let link = deliver(change, &mail, &invitation, delivery)?;
                Ok((invitation.into(), link))
            })
            .await
    }

    /// Returns at most `limit` invitations with ids higher than `after`, and the id after which the list continues. It has
    /// fewer if inviters have lost their rights: their invitations cannot be accepted.
    ///
    /// Errors: [`AppError::Invalid`] for values out of range.
    pub async fn invitations(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Invitation>, Option<InvitationId>), AppError> {
        if after < 0 {
            return Err(FieldError::new("after", "range", "Use 0 or more.").into());
        }
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(FieldError::new("limit", "range", format!("Use 1 to {LIMIT_MAX}.")).into());
        }
        let roles = self.roles.clone();
        let found = self.db.read(move |conn| {
            let rows = invitations::list(conn, InvitationId(after), limit + 1)?;
            let (rows, next) = first_of(rows, limit, |row| row.id);
            let mut inviters: Vec<UserId> = rows.iter().filter_map(invitations::Invitation::inviter).collect();
            inviters.sort_unstable();
            inviters.dedup();
            let inviters = users::find_all(conn, &inviters)?;
            Ok((rows, next, inviters))
        });
        let (mut rows, next, inviters) = found.await?;
        rows.retain(|row| {
            let of_row = |inviter: UserId| inviters.iter().find(|user| user.id == inviter);
            row.inviter().is_none_or(|inviter| may_still_invite(&roles, of_row(inviter), row))
        });
        Ok((rows.into_iter().map(Invitation::from).collect(), next))
    }

    /// Sends an invitation again, and extends it. The caller becomes the inviter. Earlier links stay valid until one of
    /// them is used.
    ///
    /// Errors: [`AppError::NotFound`]; [`AppError::Invalid`] for a role that the caller cannot give;
    /// [`AppError::TooMany`] for too many mails to the address.
    pub async fn resend_invitation(
        &self,
        context: RequestContext,
        id: InvitationId,
        delivery: InvitationDelivery,
    ) -> Result<(Invitation, Option<Link>), AppError> {
        let (mail, member) = (self.mail.clone(), self.roles.get(BuiltInRole::Member.name()));
        self.trail
            .change(context, Event::of(Action::Invite).on(Target::Invitation(id)), move |change| {
                let found = invitations::lock(change.conn, id)?.ok_or(AppError::NotFound("invitation"))?;
                let expires_at = change.now.plus_seconds(mail.links().valid_seconds(LinkPurpose::Invitation));
                may_promote(change, &member, &change.roles.get(&found.role))?;
                let inviter = change.caller.as_ref().map(|caller| caller.user_id);
                invitations::extend(change.conn, id, inviter, expires_at)?;
                change.record(|event| event.detail("sent again"))?;
                let invited_by = inviter.map(|inviter| inviter.0);
                let invitation = invitations::Invitation { invited_by, expires_at, ..found };
                let link = deliver(change, &mail, &invitation, delivery)?;
                Ok((invitation.into(), link))
            })
            .await
    }

    /// Revokes an invitation with its links. Errors: [`AppError::NotFound`].
    pub async fn revoke_invitation(&self, context: RequestContext, id: InvitationId) -> Result<(), AppError> {
        self.trail
            .change(context, Event::of(Action::RevokeInvitation).on(Target::Invitation(id)), move |change| {
                if !invitations::delete(change.conn, id)? {
                    return Err(AppError::NotFound("invitation"));
                }
                change.record(|event| event).map(drop)
            })
            .await
    }
}

/// Whether an invitation can be accepted now: who has sent it last must still have the right to. Rights of a time before
/// must not create accounts. The command line has every right.
pub(super) fn is_acceptable(
    conn: &mut Conn,
    roles: &Roles,
    invitation: &invitations::Invitation,
) -> Result<bool, AppError> {
    let Some(inviter) = invitation.inviter() else {
        return Ok(true);
    };
    let inviter = users::find(conn, inviter)?;
    Ok(may_still_invite(roles, inviter.as_ref(), invitation))
}

fn may_still_invite(roles: &Roles, inviter: Option<&users::User>, invitation: &invitations::Invitation) -> bool {
    let inviter = inviter.filter(|inviter| inviter.disabled_at.is_none());
    inviter.is_some_and(|inviter| can_assign(roles, &inviter.role, &invitation.role))
}

/// Sends a mail with the link of an invitation, or makes the link.
///
/// Errors: [`AppError::TooMany`] if the limits per address would drop the mail.
fn deliver(
    change: &mut Change<'_>,
    mail: &Mail,
    invitation: &invitations::Invitation,
    delivery: InvitationDelivery,
) -> Result<Option<Link>, AppError> {
    let subject = Subject::Invitation(invitation.id);
    match delivery {
        InvitationDelivery::Mail => {
            mail.check_limits(change, MailKind::Invitation, &invitation.email_key)?;
            let recipient = Recipient { address_key: &invitation.email_key, address: None, subject: Some(subject) };
            mail.send(change, MailKind::Invitation, &recipient).map(|()| None)
        }
        InvitationDelivery::Link => {
            let (purpose, until) = (LinkPurpose::Invitation, Some(invitation.expires_at));
            let target = LinkTarget { purpose, subject, address: &invitation.email, mailed: false, until };
            mail.links().create(change.conn, target, change.now).map(Some)
        }
    }
}
