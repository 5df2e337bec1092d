//! `[stats]`: for how long statistics are kept.

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// `[stats]`: the counts of `GET /stats`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatsSettings {
    /// Days for which counts are kept.
    pub retention_days: i64,
}

impl StatsSettings {
    /// Checks the ranges. Errors name the setting that is out of range.
    pub(super) fn check(self) -> Result<(), ConfigError> {
        within("stats.retention_days", self.retention_days, 1, 3_650)
    }
}
