//! `[limits]`: limits per client, user and account.

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// `[limits]`: limits, which `docs/limits.md` describes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Whether the limits of this section apply.
    pub enabled: bool,
    /// Failed sign-ins of an account in a row before further attempts are delayed.
    pub account_failures: i64,
    /// Maximum delay of an attempt in seconds.
    pub account_delay_max: i64,
    /// Failed sign-ins in a row after which no password is accepted for the account.
    pub account_stop: i64,
    /// Failed sign-ins per client.
    pub failed_sign_ins: Limit,
    /// Registrations per client.
    pub registrations: Limit,
    /// Attempts to claim a key, per client.
    pub claims: Limit,
    /// Requests for mails, per client.
    pub mails: Limit,
    /// Invalid tokens and keys per client.
    pub invalid_tokens: Limit,
    /// Keys that a user creates or issues.
    pub new_keys: Limit,
    /// Refused attempts per user and per client.
    pub refusals: Limit,
}

/// A limit: a burst, and a rate after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Maximum number at once.
    pub burst: u32,
    /// Number per hour after that, spread evenly.
    pub per_hour: u32,
}

impl LimitSettings {
    /// Checks the ranges. Errors name the setting that is out of range.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("limits.account_failures", self.account_failures, 1, 1_000)?;
        within("limits.account_delay_max", self.account_delay_max, 1, 86_400)?;
        within("limits.account_stop", self.account_stop, self.account_failures, 1_000_000)?;
        let limits = [
            ("failed_sign_ins", self.failed_sign_ins),
            ("registrations", self.registrations),
            ("claims", self.claims),
            ("mails", self.mails),
            ("invalid_tokens", self.invalid_tokens),
            ("new_keys", self.new_keys),
            ("refusals", self.refusals),
        ];
        for (name, limit) in limits {
            within(&format!("limits.{name}.burst"), limit.burst, 1, 1_000_000)?;
            within(&format!("limits.{name}.per_hour"), limit.per_hour, 1, 3_600_000)?;
        }
        Ok(())
    }
}
