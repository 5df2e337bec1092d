//! The links in mails: their secrets, their addresses and their lives.

use crate::clock::Timestamp;
use crate::config::{LinkSettings, Settings};
use crate::db::mail_secrets::{self, NewMailSecret};
use crate::db::{Conn, users};
use crate::domain::mail::LinkPurpose;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;
use crate::service::audit::change::Change;

/// Maximum number of links of one user and purpose that are valid at the same time.
const MAX_LIVE: i64 = 3;

/// Makes links.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    base: Option<String>,
    settings: LinkSettings,
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

    /// Whether the page that links open is known.
    pub(crate) fn have_page(&self) -> bool {
        self.base.is_some()
    }

    /// Makes a link for a user whose row is locked, and stores the digest of its secret.
    ///
    /// Errors: [`AppError::Internal`] if the settings name no page for links.
    pub(crate) fn create(
        &self,
        conn: &mut Conn,
        purpose: LinkPurpose,
        user: &users::User,
        now: Timestamp,
    ) -> Result<Link, AppError> {
        let base = self.base.as_deref().ok_or_else(no_page)?;
        let (secret, valid_seconds) = (Secret::generate(SecretKind::Mail)?, self.valid_seconds(purpose));
        let new = NewMailSecret {
            purpose: purpose.name(),
            user_id: user.id.0,
            address_key: &user.email_key,
            digest: secret.digest().to_hex(),
            created_at: now.naive(),
            expires_at: now.plus_seconds(valid_seconds).naive(),
        };
        mail_secrets::insert(conn, &new, MAX_LIVE)?;
        Ok(Link { url: format!("{base}#/{}/{}", purpose.path(), secret.reveal()), valid_seconds })
    }

    fn valid_seconds(&self, purpose: LinkPurpose) -> i64 {
        match purpose {
            LinkPurpose::PasswordReset => self.settings.password_reset_minutes * 60,
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

/// The one error for every link that cannot be used: unknown, expired, used, of another purpose, or of an account that
/// has another address or is disabled.
pub(crate) fn link_invalid() -> AppError {
    AppError::Gone {
        code: "link_invalid",
        detail: "The link is not valid. It has expired, or was used, or the account has changed. Request a new one.",
    }
}

/// Uses a link: locks its user, and deletes all links of the user with the same purpose. Of parallel uses, one succeeds.
///
/// Errors: [`link_invalid`].
pub(crate) fn redeem(change: &mut Change<'_>, purpose: LinkPurpose, digest: Digest) -> Result<users::User, AppError> {
    let found = mail_secrets::find(change.conn, purpose.name(), digest, change.now)?.ok_or_else(link_invalid)?;
    let user = users::lock(change.conn, found.user_id)?.filter(|user| user.disabled_at.is_none());
    let user = user.filter(|user| user.email_key == found.address_key).ok_or_else(link_invalid)?;
    // Another use may have deleted it before the row of the user was locked.
    if !mail_secrets::delete(change.conn, found.id)? {
        return Err(link_invalid());
    }
    mail_secrets::delete_of(change.conn, user.id, &[purpose.name()])?;
    Ok(user)
}

fn no_page() -> AppError {
    AppError::Internal("set http.public_url, or links.url to the page that links open".into())
}
