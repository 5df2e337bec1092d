//! `[auth]`: passwords, tokens and the static key.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, within};
use crate::domain::password::checksum::MAX_LANES;

/// `[auth]`: passwords and tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// Lifetime of a sign-in token in seconds.
    pub token_ttl: i64,
    /// bcrypt cost of new password hashes.
    pub bcrypt_cost: u32,
    /// Threads that hash passwords. 0 means one per processor core.
    pub hash_threads: usize,
    /// Hashes that each thread computes at the same time.
    pub hash_lanes: usize,
    /// Maximum number of hashes that wait for a thread.
    pub hash_queue: usize,
    /// Minimum length of a new password in characters.
    pub password_min_length: usize,
    /// Maximum length of a new password in characters.
    pub password_max_length: usize,
    /// Whether a sign-in requires a verified e-mail address.
    pub require_verified_email: bool,
    /// Maximum number of tokens, sessions and API keys in the cache. 0 disables the cache.
    pub cache_size: usize,
    /// Seconds for which cached credentials are accepted for reads while the database does not answer.
    pub serve_stale_seconds: u64,
    /// The static key. Empty if there is none.
    #[serde(default)]
    pub api_key_token: StaticKey,
}

impl AuthSettings {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("auth.token_ttl", self.token_ttl, 1, 31_536_000)?;
        within("auth.bcrypt_cost", self.bcrypt_cost, 10, 31)?;
        within("auth.hash_threads", self.hash_threads, 0, 256)?;
        within("auth.hash_lanes", self.hash_lanes, 1, MAX_LANES)?;
        within("auth.hash_queue", self.hash_queue, 1, 100_000)?;
        within("auth.password_min_length", self.password_min_length, 8, 512)?;
        within("auth.password_max_length", self.password_max_length, self.password_min_length, 512)?;
        within("auth.cache_size", self.cache_size, 0, 10_000_000)?;
        within("auth.serve_stale_seconds", self.serve_stale_seconds, 0, 3_600)?;
        if self.serve_stale_seconds > 0 && self.cache_size == 0 {
            let rule =
                "This serves cached credentials, but auth.cache_size is 0. Set auth.cache_size, or set this to 0.";
            return Err(ConfigError::new("auth.serve_stale_seconds", rule));
        }
        let key = self.api_key_token.get().unwrap_or("unset");
        if key.len() > 512 || !key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            let rule = "Use 1 to 512 visible ASCII characters, without a comma.";
            return Err(ConfigError::new("auth.api_key_token", rule));
        }
        Ok(())
    }
}

/// The static key (`auth.api_key_token`). It prints as `***`. An empty value means no key.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct StaticKey(String);

impl StaticKey {
    /// The key, if one is set.
    pub fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

impl From<&str> for StaticKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl Serialize for StaticKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}
