//! Mails: requests are stored in the database, and a background task sends them. No request waits for the SMTP server.

pub mod delivery;
pub mod links;
pub mod outgoing;
mod smtp;
mod templates;

use std::sync::Arc;

use self::delivery::Delivery;
use self::links::Links;
use crate::db::outbox::{self, NewIntent};
use crate::db::users;
use crate::domain::id::UserId;
use crate::domain::mail::{Language, MailKind};
use crate::error::AppError;
use crate::service::audit::change::Change;

/// What use cases need to request mails and to make links.
#[derive(Clone)]
pub(crate) struct Mail {
    delivery: Arc<Delivery>,
    links: Links,
    default_language: Language,
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
        self.store(change, kind, address_key, None)
    }

    /// Requests a mail to a user. Does nothing if no SMTP server is set.
    pub(crate) fn notify(&self, change: &mut Change<'_>, kind: MailKind, user: &users::User) -> Result<(), AppError> {
        self.store(change, kind, &user.email_key, Some(user.id))
    }

    fn store(
        &self,
        change: &mut Change<'_>,
        kind: MailKind,
        address_key: &str,
        user: Option<UserId>,
    ) -> Result<(), AppError> {
        if !self.is_configured() {
            return Ok(());
        }
        let (now, client) = (change.now.naive(), change.client().map(|client| client.to_string()));
        let new = NewIntent {
            kind: kind.name(),
            address_key,
            user_id: user.map(|user| user.0),
            client,
            created_at: now,
            due_at: now,
            attempts: 0,
        };
        outbox::insert(change.conn, &new)?;
        let delivery = Arc::clone(&self.delivery);
        change.after_commit(move || delivery.wake());
        Ok(())
    }
}
