//! Mails: requests are stored in the database, and a background task sends them. No request waits for the SMTP server.

pub mod built_in;
pub mod delivery;
mod failure;
pub mod links;
pub mod outgoing;
mod pace;
mod queue;
mod smtp;
mod template_check;
mod templates;

use std::net::IpAddr;
use std::sync::Arc;

use self::delivery::Delivery;
use self::links::Links;
use self::queue::MailsTo;
use crate::clock::Timestamp;
use crate::db::mail::Subject;
use crate::db::mail::outbox::{self, NewIntent};
use crate::db::{Conn, users};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{Language, MailKind};
use crate::error::{AppError, FieldError};
use crate::service::audit::change::Change;

/// What use cases need to request mails and to make links.
#[derive(Clone)]
pub(crate) struct Mail {
    delivery: Arc<Delivery>,
    links: Links,
    default_language: Language,
}

/// To whom a mail goes, and what it is about.
pub(crate) struct Recipient<'a> {
    /// The canonical address.
    pub(crate) address_key: &'a str,
    /// The address of a notice, which goes there even if the account gets another one before it is sent.
    pub(crate) address: Option<&'a str>,
    /// What the mail is about, if it is known.
    pub(crate) subject: Option<Subject>,
}

impl<'a> Recipient<'a> {
    /// The holder of an address, if it has one.
    pub(crate) fn unknown(address_key: &'a str) -> Self {
        Self { address_key, address: None, subject: None }
    }
}

impl Mail {
    pub(crate) fn new(delivery: Arc<Delivery>, links: Links, default_language: Language) -> Self {
        Self { delivery, links, default_language }
    }

    /// Whether an SMTP server is set.
    pub(crate) fn is_configured(&self) -> bool {
        self.delivery.is_configured()
    }

    /// The links in mails.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// The task that sends mails.
    pub(crate) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// The language of a new user: that of the browser, or the default.
    pub(crate) fn language(&self, requested: Option<Language>) -> Language {
        requested.unwrap_or(self.default_language)
    }

    /// Requests a mail for an address that may belong to no account. The work does not depend on that. Does nothing if
    /// no SMTP server is set.
    pub(crate) fn request(&self, change: &mut Change<'_>, kind: MailKind, address_key: &str) -> Result<(), AppError> {
        self.send(change, kind, &Recipient::unknown(address_key))
    }

    /// Requests a mail to a user, unless the user has turned off such mails. Does nothing if no SMTP server is set.
    pub(crate) fn notify(&self, change: &mut Change<'_>, kind: MailKind, user: &users::User) -> Result<(), AppError> {
        if kind.is_optional() && !user.sign_in_notices {
            return Ok(());
        }
        let (address, subject) = (Some(user.email.as_str()), Some(Subject::User(user.id)));
        self.send(change, kind, &Recipient { address_key: &user.email_key, address, subject })
    }

    /// Whether mails can reach an address. Errors: SMTP cannot transport it.
    pub(crate) fn check_reachable(&self, email: &EmailAddress) -> Result<(), FieldError> {
        if self.is_configured() && !smtp::can_reach(email) {
            let rule = "No mail can be sent to this address. Use one with common letters and single dots before the @.";
            return Err(FieldError::new("email", "email", rule));
        }
        Ok(())
    }

    /// Whether a mail of this kind to this address would be sent. For callers who may know that.
    ///
    /// Errors: [`AppError::TooMany`] if the limits per address would drop it.
    pub(crate) fn check_limits(
        &self,
        change: &mut Change<'_>,
        kind: MailKind,
        address_key: &str,
    ) -> Result<(), AppError> {
        let requested = outbox::count_requested(change.conn, kind.name(), address_key)?;
        let requested = usize::try_from(requested).unwrap_or_default();
        let mails = MailsTo { kind, address_key, network: None };
        let reached = queue::reached_limit(change.conn, &mails, kind.limits(), requested, change.now)?;
        let Some((most, seconds)) = reached else { return Ok(()) };
        let limit = u32::try_from(most).unwrap_or(u32::MAX);
        Err(AppError::TooMany { limit, retry_after: u64::try_from(seconds).unwrap_or_default().max(1) })
    }

    /// Requests a mail. Does nothing if no SMTP server is set.
    pub(crate) fn send(
        &self,
        change: &mut Change<'_>,
        kind: MailKind,
        recipient: &Recipient<'_>,
    ) -> Result<(), AppError> {
        let client = change.client();
        self.store(change.conn, kind, recipient, client, change.now)?;
        let delivery = Arc::clone(&self.delivery);
        change.after_commit(move || delivery.wake());
        Ok(())
    }

    /// As [`send`](Self::send), in a transaction that records a failure. The task finds the mail within seconds.
    pub(crate) fn store(
        &self,
        conn: &mut Conn,
        kind: MailKind,
        recipient: &Recipient<'_>,
        client: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), AppError> {
        if !self.is_configured() {
            return Ok(());
        }
        let Recipient { address_key, address, subject } = *recipient;
        let client = client.map(|client| client.to_string());
        outbox::insert(conn, &NewIntent { kind: kind.name(), address_key, address, subject, client }, now)
    }
}
