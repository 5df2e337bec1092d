//! A user, without anything secret.

use super::id::UserId;
use super::role::Role;
use crate::clock::Timestamp;

/// A user as others may see them.
#[derive(Clone, Debug)]
pub struct User {
    /// Never reused.
    pub id: UserId,
    /// First name.
    pub name: String,
    /// Family name.
    pub surname: String,
    /// As the user wrote it.
    pub email: String,
    /// Any text.
    pub website: String,
    /// What the user may do.
    pub role: Role,
    /// Since when the user may not sign in, if so.
    pub disabled_at: Option<Timestamp>,
    /// When the user registered.
    pub created_at: Timestamp,
    /// When the user last changed.
    pub updated_at: Timestamp,
}
