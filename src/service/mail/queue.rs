//! The decisions about requested mails: which are sent, to whom, and with which link.

use super::links::{LinkTarget, Links, has_key};
use super::outgoing::MailValues;
use crate::clock::Timestamp;
use crate::db::mail::outbox::{self, Intent};
use crate::db::mail::{Subject, invitations, registrations, replaced_emails};
use crate::db::{Conn, users};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{Language, MailKind};
use crate::error::AppError;

/// Maximum number of requests per transaction.
const BATCH: i64 = 20;
/// Seconds for which a mail is reserved. This is longer than the longest attempt.
const RESERVED_SECONDS: i64 = 360;
/// Seconds after the request at which a mail is given up.
const GIVE_UP_SECONDS: i64 = 86_400;

/// A mail that is reserved for an attempt.
pub(super) struct Attempt {
    pub(super) intent: Intent,
    pub(super) kind: MailKind,
    pub(super) subject: Subject,
    pub(super) to: EmailAddress,
    pub(super) language: Language,
    pub(super) values: MailValues,
}

/// The next mail that is due.
pub(super) enum Next {
    /// There is none.
    Nothing,
    /// It is no longer to be sent.
    Dropped,
    /// It was not sent within a day.
    GivenUp(Intent),
    /// It is to be sent.
    Attempt(Box<Attempt>),
}

/// Accepts or drops some requested mails. Returns how many were decided, and how many of them were dropped.
pub(super) fn accept_batch(conn: &mut Conn, now: Timestamp) -> Result<(usize, usize), AppError> {
    let requested = outbox::lock_requested(conn, BATCH)?;
    let (decided, mut dropped) = (requested.len(), 0);
    for intent in requested {
        match decide(conn, &intent, now)? {
            Some((kind, subject)) if is_within_limits(conn, kind, &intent, now)? => {
                outbox::accept(conn, intent.id, kind.name(), subject, now)?;
            }
            _ => {
                outbox::delete(conn, intent.id)?;
                dropped += 1;
            }
        }
    }
    Ok((decided, dropped))
}

/// The kind of mail that is sent for a request, and its subject; `None` if none is sent.
fn decide(conn: &mut Conn, intent: &Intent, now: Timestamp) -> Result<Option<(MailKind, Subject)>, AppError> {
    let Some(kind) = MailKind::of(&intent.kind) else {
        return Ok(None);
    };
    let holder = users::find_by_email(conn, &intent.address_key)?;
    if holder.as_ref().is_some_and(|holder| holder.disabled_at.is_some()) {
        return Ok(None);
    }
    let holder_subject = holder.as_ref().map(|user| Subject::User(user.id));
    Ok(match (kind, holder_subject) {
        // Whoever owns the address is told that it is taken, and the caller is not.
        (MailKind::Registration | MailKind::EmailChange | MailKind::Invitation, Some(holder))
            if intent.subject != Some(holder) =>
        {
            Some((MailKind::AccountExists, holder))
        }
        // The address is taken: another account can restore it.
        (MailKind::Registration | MailKind::EmailChange | MailKind::Invitation, None)
            if replaced_emails::find(conn, &intent.address_key, now)?
                .is_some_and(|replaced| intent.subject != Some(Subject::User(replaced.user_id))) =>
        {
            None
        }
        (MailKind::EmailVerification, None) => registrations::find_for(conn, &intent.address_key, now)?
            .map(|id| (MailKind::Registration, Subject::Registration(id))),
        (MailKind::EmailVerification, Some(subject)) => {
            let is_verified = holder.is_some_and(|user| user.email_verified_at.is_some());
            (!is_verified).then_some((kind, subject))
        }
        (_, subject) => intent.subject.or(subject).map(|subject| (kind, subject)),
    })
}

/// Whether the address did not get too many mails of this kind.
fn is_within_limits(conn: &mut Conn, kind: MailKind, intent: &Intent, now: Timestamp) -> Result<bool, AppError> {
    let limits = kind.limits();
    let Some(longest) = limits.iter().map(|(seconds, _)| *seconds).max() else {
        return Ok(true);
    };
    let accepted = outbox::accepted_since(conn, kind.name(), &intent.address_key, now.plus_seconds(-longest))?;
    let is_within = |(seconds, most): &(i64, usize)| {
        let since = now.plus_seconds(-*seconds);
        accepted.iter().filter(|at| **at > since).count() < *most
    };
    Ok(limits.iter().all(is_within))
}

/// Reserves the next mail that is due, and makes its link.
pub(super) fn next(conn: &mut Conn, links: &Links, now: Timestamp) -> Result<Next, AppError> {
    let Some(found) = outbox::next_due(conn, now)? else {
        return Ok(Next::Nothing);
    };
    // The row of the user is locked first, as in every other change of a user.
    let recipient = recipient(conn, &found, now)?;
    let Some(intent) = outbox::lock_due(conn, found.id, now)? else {
        // Another process sends it.
        return Ok(Next::Nothing);
    };
    if now >= intent.created_at.plus_seconds(GIVE_UP_SECONDS) {
        outbox::delete(conn, intent.id)?;
        return Ok(Next::GivenUp(intent));
    }
    let parts = recipient.and_then(|(subject, address, locale)| {
        Some((subject, MailKind::of(&intent.kind)?, EmailAddress::parse(&address)?, locale))
    });
    let Some((subject, kind, to, locale)) = parts else {
        outbox::delete(conn, intent.id)?;
        return Ok(Next::Dropped);
    };
    let mut values =
        MailValues { requested_at: Some(intent.created_at), client: intent.client.clone(), ..MailValues::default() };
    if let Some(purpose) = kind.purpose() {
        let target = LinkTarget { purpose, subject, address: to.as_given(), mailed: true };
        let link = links.create(conn, target, now)?;
        (values.valid_seconds, values.link) = (link.valid_seconds, link.reveal());
    }
    outbox::reserve(conn, intent.id, intent.attempts + 1, now.plus_seconds(RESERVED_SECONDS))?;
    let language = Language::of(&locale).unwrap_or_default();
    Ok(Next::Attempt(Box::new(Attempt { intent, kind, subject, to: to.for_smtp(), language, values })))
}

/// The subject of a mail with its row locked, the address and the language; `None` if it is no longer to be sent.
/// Disabled users get no mail.
fn recipient(conn: &mut Conn, intent: &Intent, now: Timestamp) -> Result<Option<(Subject, String, String)>, AppError> {
    let (Some(subject), Some(kind)) = (intent.subject, MailKind::of(&intent.kind)) else {
        return Ok(None);
    };
    let found = match subject {
        Subject::User(user) => {
            let user = users::lock(conn, user)?.filter(|user| user.disabled_at.is_none());
            match user {
                Some(user) => address_of(conn, &user, kind, intent, now)?.map(|address| (address, user.locale)),
                None => None,
            }
        }
        Subject::Registration(id) => {
            registrations::lock(conn, id, now)?.map(|registration| (registration.email, registration.locale))
        }
        Subject::Invitation(id) => {
            let invitation = invitations::lock(conn, id)?.filter(|invitation| now < invitation.expires_at);
            invitation.map(|invitation| (invitation.email, invitation.locale))
        }
    };
    Ok(found.map(|(address, locale)| (subject, address, locale)))
}

/// The address of a user to which a mail goes: always one that is stored. `None` if the account has changed so that the
/// mail is of no use, or its link must not be made.
fn address_of(
    conn: &mut Conn,
    user: &users::User,
    kind: MailKind,
    intent: &Intent,
    now: Timestamp,
) -> Result<Option<String>, AppError> {
    Ok(match kind {
        MailKind::EmailChange => user.pending_email.clone().filter(|pending| has_key(pending, &intent.address_key)),
        MailKind::EmailChanged => replaced_emails::find(conn, &intent.address_key, now)?
            .filter(|replaced| replaced.user_id == user.id)
            .map(|replaced| replaced.email),
        _ if kind.purpose().is_none() => intent.address.clone().or_else(|| Some(user.email.clone())),
        MailKind::EmailVerification if user.email_verified_at.is_some() => None,
        MailKind::EmailVerification | MailKind::PasswordReset if user.email_key != intent.address_key => None,
        _ => Some(user.email.clone()),
    })
}
