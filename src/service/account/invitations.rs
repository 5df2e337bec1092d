//! Invitations: an admin or operator invites an address, and whoever receives the link creates the account.

use crate::clock::Timestamp;
use crate::db::mail::invitations::{self, NewInvitation};
use crate::db::mail::{Subject, registrations, secrets};
use crate::db::sign_in_failures;
use crate::db::users::{self, NewUser};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::id::{InvitationId, UserId};
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::password::Password;
use crate::domain::principal::Level;
use crate::domain::role::BuiltInRole;
use crate::domain::user::User;
use crate::error::{AppError, FieldError};
use crate::metrics::hourly::CountedEvent;
use crate::service::Service;
use crate::service::account::registration::{Registration, email_taken};
use crate::service::account::users::{check_email, may_promote};
use crate::service::audit::change::Change;
use crate::service::limits::lockout::account_of;
use crate::service::lists::first_of;
use crate::service::mail::links::{Link, LinkTarget, link_invalid};
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

/// The data of a user who accepts an invitation.
#[derive(Debug)]
pub struct Acceptance {
    /// First name.
    pub name: String,
    /// Family name.
    pub surname: String,
    /// Any text.
    pub website: String,
    /// The password.
    pub password: Password,
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
    /// Invites an address. Returns the invitation, and its link if `delivery` says so.
    ///
    /// Errors: [`AppError::Invalid`] for text that is no address, and for a role that is not defined or that the caller
    /// cannot give; [`AppError::Conflict`] for an address that has an account or an invitation.
    pub async fn invite(
        &self,
        context: RequestContext,
        email: &str,
        role: Option<&str>,
        delivery: InvitationDelivery,
    ) -> Result<(Invitation, Option<Link>), AppError> {
        let (email, role) = (check_email(email), self.find_role(role.unwrap_or(BuiltInRole::Member.name())));
        let errors: Vec<FieldError> = email.as_ref().err().into_iter().chain(role.as_ref().err()).cloned().collect();
        let (Ok(email), Ok(role)) = (email, role) else {
            return Err(AppError::Invalid(errors));
        };
        let (mail, language) = (self.mail.clone(), self.mail.language(None));
        let member = self.roles.get(BuiltInRole::Member.name());
        self.trail
            .change(context, Event::of(Action::Invite), move |change| {
                may_promote(change, &member, &role)?;
                if users::find_by_email(change.conn, email.key())?.is_some() {
                    return Err(email_taken());
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
                change.record(|event| event.detail(role.name().as_str()))?;
                let link = deliver(change, &mail, &invitation, delivery)?;
                Ok((invitation.into(), link))
            })
            .await
    }

    /// Returns at most `limit` invitations with ids higher than `after`, and the id after which the list continues.
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
        let rows = self.db.read(move |conn| invitations::list(conn, InvitationId(after), limit + 1)).await?;
        let (rows, next) = first_of(rows, limit, |row| row.id);
        Ok((rows.into_iter().map(Invitation::from).collect(), next))
    }

    /// Sends an invitation again, and extends it. Earlier links stay valid until one of them is used.
    ///
    /// Errors: [`AppError::NotFound`].
    pub async fn resend_invitation(
        &self,
        context: RequestContext,
        id: InvitationId,
        delivery: InvitationDelivery,
    ) -> Result<(Invitation, Option<Link>), AppError> {
        let mail = self.mail.clone();
        self.trail
            .change(context, Event::of(Action::Invite).on(Target::Invitation(id)), move |change| {
                let found = invitations::lock(change.conn, id)?.ok_or(AppError::NotFound("invitation"))?;
                let expires_at = change.now.plus_seconds(mail.links().valid_seconds(LinkPurpose::Invitation));
                invitations::extend(change.conn, id, expires_at)?;
                change.record(|event| event.detail("sent again"))?;
                let invitation = invitations::Invitation { expires_at, ..found };
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

    /// Creates the account of an invitation, with the secret of its link. The address is verified.
    ///
    /// Errors: [`AppError::Invalid`] names each bad field; [`AppError::Gone`] for every link that is not valid, also if
    /// the address has an account by now; [`AppError::TooMany`] for too many invalid ones.
    pub async fn accept_invitation(
        &self,
        context: RequestContext,
        secret: &str,
        acceptance: Acceptance,
    ) -> Result<User, AppError> {
        let Acceptance { name, surname, website, password } = acceptance;
        let mut registration = Registration { name, surname, email: String::new(), website, password };
        let errors = self.errors_of_person(&registration);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let purpose = LinkPurpose::Invitation;
        let digest = self.live_link(&context, purpose, secret).await?;
        let now = self.clock.now();
        let found =
            self.db.read(move |conn| match secrets::find(conn, purpose, digest, now)?.map(|link| link.subject) {
                Some(Subject::Invitation(id)) => invitations::find(conn, id),
                _ => Ok(None),
            });
        let invitation = found.await?.ok_or_else(link_invalid)?;
        registration.email.clone_from(&invitation.email);
        let email = self.check_registration(&registration, None, None)?;
        let Registration { name, surname, website, password, .. } = registration;
        let hash = self.passwords.create(context.client_info.client, password).await?;
        let id = invitation.id;
        let accepted = self.trail.change(context, Event::of(Action::Register), move |change| {
            let found = invitations::lock(change.conn, id)?.filter(|found| change.now < found.expires_at);
            let found = found.ok_or_else(link_invalid)?;
            secrets::find(change.conn, purpose, digest, change.now)?.ok_or_else(link_invalid)?;
            let now = change.now.naive();
            let new = NewUser {
                name: &name,
                surname: &surname,
                email: email.as_given(),
                email_key: email.key(),
                website: &website,
                hashed_password: hash.as_str(),
                created_at: now,
                updated_at: now,
                role: &found.role,
                locale: &found.locale,
                email_verified_at: Some(now),
            };
            let user = users::insert(change.conn, &new)?.ok_or_else(link_invalid)?;
            sign_in_failures::delete(change.conn, account_of(&user))?;
            invitations::delete(change.conn, id)?;
            registrations::delete_for(change.conn, &user.email_key)?;
            change.set_target(Target::User(user.id));
            change.set_actor(Actor::link(user.id, Level::of(&change.roles.get(&user.role))));
            change.record(|event| event.detail(format!("{}, {}", user.role, Target::Invitation(id))))?;
            Ok(user)
        });
        let user = accepted.await?;
        self.metrics.hourly().add(CountedEvent::Registration);
        Ok(user.into_domain(&self.roles, false))
    }
}

/// Sends a mail with the link of an invitation, or makes the link.
fn deliver(
    change: &mut Change<'_>,
    mail: &Mail,
    invitation: &invitations::Invitation,
    delivery: InvitationDelivery,
) -> Result<Option<Link>, AppError> {
    let subject = Subject::Invitation(invitation.id);
    match delivery {
        InvitationDelivery::Mail => {
            let recipient = Recipient { address_key: &invitation.email_key, address: None, subject: Some(subject) };
            mail.send(change, MailKind::Invitation, &recipient).map(|()| None)
        }
        InvitationDelivery::Link => {
            let target =
                LinkTarget { purpose: LinkPurpose::Invitation, subject, address: &invitation.email, mailed: false };
            mail.links().create(change.conn, target, change.now).map(Some)
        }
    }
}
