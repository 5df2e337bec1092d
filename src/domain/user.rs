//! Users, without secrets.

use super::id::UserId;
use super::mail::Language;
use super::roles::Role;
use crate::clock::Timestamp;

/// A user, without the password hash.
#[derive(Clone, Debug)]
pub struct User {
    /// Never reused.
    pub id: UserId,
    /// The first name.
    pub name: String,
    /// The family name.
    pub surname: String,
    /// The e-mail address as entered.
    pub email: String,
    /// Whether the user proved to receive mails at the address.
    pub email_verified: bool,
    /// The address to which the user asked to change. It is not proved.
    pub pending_email: Option<String>,
    /// Free text.
    pub website: String,
    /// The language of mails to the user.
    pub language: Language,
    /// Whether the user gets notices about sign-ins.
    pub sign_in_notices: bool,
    /// The role, which determines the scopes. It may be undefined.
    pub role: Role,
    /// Since when the user is disabled. `None` if the user is not.
    pub disabled_at: Option<Timestamp>,
    /// Whether sign-ins from unknown networks, or from a known one, are stopped after too many failed ones.
    pub sign_in_stopped: bool,
    /// When the user registered.
    pub created_at: Timestamp,
    /// When the user's data last changed.
    pub updated_at: Timestamp,
}
