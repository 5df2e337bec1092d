//! `[session]`: how long browser sessions live.

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// `[session]`: the limits of browser sessions.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// Minutes without use after which a session ends.
    pub idle_minutes: i64,
    /// Minutes after the sign-in at which a session ends.
    pub lifetime_minutes: i64,
    /// Maximum number of sessions of one user.
    pub max_per_user: usize,
}

impl SessionSettings {
    /// Seconds without use after which a session ends.
    pub fn idle_seconds(self) -> i64 {
        self.idle_minutes * 60
    }

    /// Seconds after the sign-in at which a session ends.
    pub fn lifetime_seconds(self) -> i64 {
        self.lifetime_minutes * 60
    }

    /// Checks the ranges. Errors name the setting that is out of range.
    pub(super) fn check(self) -> Result<(), ConfigError> {
        within("session.lifetime_minutes", self.lifetime_minutes, 5, 43_200)?;
        within("session.idle_minutes", self.idle_minutes, 5, self.lifetime_minutes.min(1_440))?;
        within("session.max_per_user", self.max_per_user, 1, 100)
    }
}
