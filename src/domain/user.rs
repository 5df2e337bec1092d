//! A user, without anything secret.

use super::id::UserId;
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
    /// When the user registered.
    pub created_at: Timestamp,
    /// When the user last changed.
    pub updated_at: Timestamp,
}
