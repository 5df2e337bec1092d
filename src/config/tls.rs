//! `[tls]`: what the server shows to clients that speak TLS with it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[tls]`. Both files or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate and those between it and the root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

impl TlsSettings {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// Errors name the key that is missing.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let [missing, present] = match (self.is_on(), self.key.as_os_str().is_empty()) {
            (true, true) => ["tls.key", "tls.certificate"],
            (false, false) => ["tls.certificate", "tls.key"],
            _ => return Ok(()),
        };
        let rule = format!("TLS takes two files. Name {missing}, too, or remove {present}.");
        Err(ConfigError::new(present, rule))
    }
}
