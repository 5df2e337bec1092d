//! Browser sessions, without secrets.

use super::id::SessionId;
use crate::clock::Timestamp;

/// A browser session of a user.
#[derive(Clone, Debug)]
pub struct Session {
    /// Never reused.
    pub id: SessionId,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// When the session was last used, accurate to a minute.
    pub last_used_at: Timestamp,
    /// The latest end of the session, however much it is used.
    pub expires_at: Timestamp,
    /// The client address of the sign-in.
    pub client: Option<String>,
    /// The `User-Agent` of the sign-in.
    pub user_agent: Option<String>,
}
