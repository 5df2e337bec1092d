//! `[limits]`: how much one client, or one account, may ask for.

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// `[limits]`. `docs/limits.md` says what is counted.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// Failed sign-ins in a row of an account before attempts have to wait.
    pub account_failures: i64,
    /// Seconds that they have to wait at most.
    pub account_delay_max: i64,
    /// Failed sign-ins in a row after which no password opens the account.
    pub account_stop: i64,
    /// Sign-ins that failed, by network.
    pub failed_sign_ins: Limit,
    /// Registrations, by network.
    pub registrations: Limit,
    /// Attempts to claim a key, by network.
    pub claims: Limit,
    /// Tokens and keys that are not good, by network.
    pub invalid_tokens: Limit,
    /// Keys that are made or issued, by user.
    pub new_keys: Limit,
    /// Attempts that are refused, by user and by network.
    pub refusals: Limit,
}

/// How many at once, and how many an hour after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// At once.
    pub burst: u32,
    /// An hour, spread evenly.
    pub per_hour: u32,
}

impl LimitSettings {
    /// Errors name the key that is out of range.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("limits.account_failures", self.account_failures, 1, 1_000)?;
        within("limits.account_delay_max", self.account_delay_max, 1, 86_400)?;
        within("limits.account_stop", self.account_stop, self.account_failures, 1_000_000)?;
        let limits = [
            ("failed_sign_ins", self.failed_sign_ins),
            ("registrations", self.registrations),
            ("claims", self.claims),
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
