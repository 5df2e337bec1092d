//! The links in mails: their secrets, their addresses and their lives.

use crate::clock::Timestamp;
use crate::config::{LinkSettings, Settings};
use crate::db::mail::Subject;
use crate::db::mail::secrets::{self, MailSecret, NewMailSecret};
use crate::db::{Conn, users};
use crate::domain::email::EmailAddress;
use crate::domain::mail::LinkPurpose;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;
use crate::service::audit::change::Change;

/// Maximum number of links with the same purpose and subject that are valid at the same time.
const MAX_LIVE: i64 = 3;
/// Seconds for which a link that restores the old address is valid: 7 days.
const UNDO_SECONDS: i64 = 7 * 86_400;

/// Makes links.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    base: Option<String>,
    settings: LinkSettings,
}

/// On what a new link acts, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkTarget<'a> {
    pub(crate) purpose: LinkPurpose,
    pub(crate) subject: Subject,
    /// The address to which the link is sent.
    pub(crate) address: &'a str,
    /// Whether a mail delivers the link.
    pub(crate) mailed: bool,
}

/// A new link. It contains a secret, so it prints as `***`.
pub struct Link {
    url: String,
    /// Seconds for which the link is valid.
    pub valid_seconds: i64,
}

impl Link {
    /// The link in clear text, for the mail or the command that delivers it.
    pub fn reveal(self) -> String {
        self.url
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Links {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { base: settings.links.base(settings), settings: settings.links.clone() }
    }

    /// Makes a link, and stores the digest of its secret. If it acts on a user, the row of the user must be locked.
    ///
    /// Errors: [`AppError::Internal`] if the settings name no page for links.
    pub(crate) fn create(&self, conn: &mut Conn, target: LinkTarget<'_>, now: Timestamp) -> Result<Link, AppError> {
        let LinkTarget { purpose, subject, address, mailed } = target;
        let base = self.base.as_deref().ok_or_else(no_page)?;
        let (secret, valid_seconds) = (Secret::generate(SecretKind::Mail)?, self.valid_seconds(purpose));
        let expires_at = now.plus_seconds(valid_seconds);
        let new = NewMailSecret { purpose, subject, address, mailed, digest: secret.digest(), expires_at };
        secrets::insert(conn, &new, now, MAX_LIVE)?;
        Ok(Link { url: format!("{base}#/{}/{}", purpose.path(), secret.reveal()), valid_seconds })
    }

    /// Seconds for which a new link is valid.
    pub(crate) fn valid_seconds(&self, purpose: LinkPurpose) -> i64 {
        match purpose {
            LinkPurpose::PasswordReset => self.settings.password_reset_minutes * 60,
            LinkPurpose::EmailVerification | LinkPurpose::Registration => self.settings.verification_hours * 3_600,
            LinkPurpose::EmailChange => self.settings.email_change_minutes * 60,
            LinkPurpose::EmailUndo => UNDO_SECONDS,
            LinkPurpose::Invitation => self.settings.invitation_hours * 3_600,
        }
    }
}

/// The digest of the secret of a link. Errors: that of a link which is not valid.
pub(crate) fn digest_of(secret: &str) -> Result<Digest, AppError> {
    match SecretKind::of(secret) {
        Some(SecretKind::Mail) => Ok(Digest::of(secret)),
        _ => Err(link_invalid()),
    }
}

/// Uses a link that acts on a user: locks the user, and deletes all links of the user with the same purpose. Of
/// parallel uses, one succeeds.
///
/// Errors: [`link_invalid`], also for a disabled user.
pub(crate) fn redeem(
    change: &mut Change<'_>,
    purpose: LinkPurpose,
    digest: Digest,
) -> Result<(users::User, MailSecret), AppError> {
    let found = secrets::find(change.conn, purpose, digest, change.now)?.ok_or_else(link_invalid)?;
    let Subject::User(user) = found.subject else {
        return Err(link_invalid());
    };
    let user = users::lock(change.conn, user)?.filter(|user| user.disabled_at.is_none());
    let user = user.ok_or_else(link_invalid)?;
    // Another use may have deleted it before the row of the user was locked.
    if !secrets::delete(change.conn, found.id)? {
        return Err(link_invalid());
    }
    secrets::delete_of(change.conn, user.id, purpose)?;
    Ok((user, found))
}

/// Fails unless a link was sent to the present address of its user.
pub(crate) fn require_present_address(user: &users::User, link: &MailSecret) -> Result<(), AppError> {
    if has_key(&link.address, &user.email_key) { Ok(()) } else { Err(link_invalid()) }
}

/// Whether `key` is the canonical form of an address.
pub(crate) fn has_key(address: &str, key: &str) -> bool {
    EmailAddress::parse(address).is_some_and(|address| address.key() == key)
}

/// The one error for every link that cannot be used: unknown, expired, used, of another purpose, or of an account that
/// has another address or is disabled.
pub(crate) fn link_invalid() -> AppError {
    AppError::Gone {
        code: "link_invalid",
        detail: "The link is not valid. It has expired, or was used, or the account has changed. Request a new one.",
    }
}

fn no_page() -> AppError {
    AppError::Internal("set http.public_url, or links.url to the page that links open".into())
}
