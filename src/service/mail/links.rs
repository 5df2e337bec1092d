//! The links in mails: their secrets, their addresses, their lives, and what ends them.

use crate::clock::Timestamp;
use crate::config::{LinkSettings, Settings};
use crate::db::mail::secrets::{self, MailSecret, NewMailSecret};
use crate::db::mail::{Subject, outbox, replaced_emails};
use crate::db::{Conn, users};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{LinkPurpose, MailKind};
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::AppError;
use crate::service::audit::change::Change;

/// The most mails with a link of one kind that an address gets in a day, with those that known networks request. Twice as
/// many links with the same purpose, subject and address are valid for each day of their life, because two kinds of mails
/// can have links with one purpose. So requests by strangers end no link.
pub(super) const MAILS_PER_DAY: usize = 40;
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
    /// The end of the subject, if it has one: no link is valid longer.
    pub(crate) until: Option<Timestamp>,
}

/// A new link. It contains a secret, so it prints as `***`.
pub struct Link {
    /// The id of its row.
    pub(crate) id: i64,
    /// The link without its secret.
    page: String,
    secret: Secret,
    /// Seconds for which the link is valid.
    pub valid_seconds: i64,
}

impl Link {
    /// The link in clear text, for the mail or the command that delivers it.
    pub fn reveal(self) -> String {
        format!("{}{}", self.page, self.secret.reveal())
    }

    /// The secret in clear text, for a page that has proved to be that of the owner.
    pub fn reveal_secret(self) -> String {
        self.secret.reveal()
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
        let LinkTarget { purpose, subject, address, mailed, until } = target;
        let base = self.base.as_deref().ok_or_else(no_page)?;
        let secret = Secret::generate(SecretKind::Mail)?;
        let full = now.plus_seconds(self.valid_seconds(purpose));
        let expires_at = until.map_or(full, |until| until.min(full));
        let valid_seconds = expires_at.seconds() - now.seconds();
        let new = NewMailSecret { purpose, subject, address, mailed, digest: secret.digest(), expires_at };
        let id = secrets::insert(conn, &new, now)?;
        let days = (self.valid_seconds(purpose) + 86_399) / 86_400;
        let most = days.saturating_mul(2 * i64::try_from(MAILS_PER_DAY).unwrap_or(i64::MAX));
        secrets::delete_oldest(conn, (subject, purpose, address), most)?;
        Ok(Link { id, page: format!("{base}#/{}/", purpose.path()), secret, valid_seconds })
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

/// Uses a link that acts on a user, and locks the user. Of parallel uses, one succeeds.
///
/// Errors: [`link_invalid`], also for a disabled user, and for one whose address has changed.
pub(crate) fn redeem(
    change: &mut Change<'_>,
    purpose: LinkPurpose,
    digest: Digest,
) -> Result<(users::User, MailSecret), AppError> {
    let found = secrets::find(change.conn, purpose, digest, change.now)?.ok_or_else(link_invalid)?;
    let Subject::User(user) = found.subject else {
        return Err(link_invalid());
    };
    let user = users::lock(change.conn, user)?.filter(|user| is_applicable(purpose, &found, user));
    let user = user.ok_or_else(link_invalid)?;
    // Another use may have deleted it before the row of the user was locked.
    if !secrets::delete(change.conn, found.id)? {
        return Err(link_invalid());
    }
    Ok((user, found))
}

/// Whether a link can act on its user now.
pub(crate) fn is_applicable(purpose: LinkPurpose, link: &MailSecret, user: &users::User) -> bool {
    let sent_to = match purpose {
        LinkPurpose::PasswordReset | LinkPurpose::EmailVerification => has_key(&link.address, &user.email_key),
        LinkPurpose::EmailChange => {
            user.pending_email.as_deref().is_some_and(|pending| is_same(pending, &link.address))
        }
        LinkPurpose::EmailUndo | LinkPurpose::Registration | LinkPurpose::Invitation => true,
    };
    sent_to && user.disabled_at.is_none()
}

/// Why links of a user end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinksEnd {
    /// The address was verified.
    Verified,
    /// The user does not want another address any more.
    ChangeCancelled,
    /// The password was changed. An attacker may have requested what is pending.
    NewPassword,
    /// The account has another address.
    AddressChanged,
    /// The change with this id, and later ones, were undone.
    Undone(i64),
    /// The owner of the address has proved it. Everything before may be that of a stranger.
    FirstProof,
    /// The account was disabled. Its owner can still undo a change of the address once it is enabled.
    Disabled,
    /// The account is deleted.
    Deleted,
}

impl LinksEnd {
    /// The links that end, apart from those that undo a change of the address.
    fn purposes(self) -> &'static [LinkPurpose] {
        match self {
            Self::Verified => &[LinkPurpose::EmailVerification],
            Self::ChangeCancelled => &[LinkPurpose::EmailChange],
            Self::NewPassword => &[LinkPurpose::PasswordReset, LinkPurpose::EmailChange],
            Self::AddressChanged | Self::Undone(_) | Self::FirstProof | Self::Disabled | Self::Deleted => {
                &[LinkPurpose::PasswordReset, LinkPurpose::EmailVerification, LinkPurpose::EmailChange]
            }
        }
    }

    /// The first change of the address that can no longer be undone.
    const fn first_undone(self) -> Option<i64> {
        match self {
            Self::Undone(from) => Some(from),
            Self::FirstProof | Self::Deleted => Some(0),
            Self::Verified | Self::ChangeCancelled | Self::NewPassword | Self::AddressChanged | Self::Disabled => None,
        }
    }
}

/// Ends links of a user, and mails that would contain such a link when they are sent. If links to a pending address end,
/// that change ends. The row of the user must be locked; `user` is that row before the change.
pub(crate) fn end(change: &mut Change<'_>, user: &users::User, reason: LinksEnd) -> Result<(), AppError> {
    let purposes = reason.purposes();
    secrets::delete_of(change.conn, user.id, purposes)?;
    let has_such_link = |kind: &&MailKind| kind.purpose().is_some_and(|purpose| purposes.contains(&purpose));
    let kinds: Vec<&str> = MailKind::ALL.iter().filter(has_such_link).map(|kind| kind.name()).collect();
    outbox::end_of(change.conn, (user.id, &user.email_key), &kinds, change.now)?;
    if let Some(from) = reason.first_undone() {
        let restorable = replaced_emails::delete_since(change.conn, user.id, from)?;
        secrets::delete_to(change.conn, user.id, LinkPurpose::EmailUndo, &restorable)?;
    }
    if purposes.contains(&LinkPurpose::EmailChange) {
        users::end_email_change(change.conn, user.id)?;
    }
    Ok(())
}

/// Whether two texts are spellings of one address.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    EmailAddress::parse(other).is_some_and(|other| has_key(one, other.key()))
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
    let rule = "links begin with http.public_url (LATCHKEY__HTTP__PUBLIC_URL) if console.enabled is true, or with \
                links.url: set one of them";
    AppError::Internal(rule.into())
}
