//! `[audit]`: which entries of the audit trail are kept.

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// `[audit]`: how long the server keeps entries, which `docs/audit.md` describes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// Days for which entries are kept. 0 keeps all.
    pub retention_days: i64,
    /// Entries of failed attempts of anonymous callers that are kept.
    pub anonymous_failures_kept: i64,
}

impl AuditSettings {
    /// Checks the ranges. Errors name the setting that is out of range.
    pub(super) fn check(self) -> Result<(), ConfigError> {
        within("audit.retention_days", self.retention_days, 0, 36_500)?;
        within("audit.anonymous_failures_kept", self.anonymous_failures_kept, 1_000, 1_000_000_000)
    }
}
