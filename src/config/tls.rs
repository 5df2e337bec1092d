//! `[tls]`: the certificate of the server.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[tls]`: the files of the certificate. Both or neither are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The PEM file with the certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// The PEM file with the private key.
    pub key: PathBuf,
}

impl TlsSettings {
    /// Whether the listener uses TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// Checks that both files are set, or neither. Errors name the setting that is set.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let [missing, present] = match (self.is_on(), self.key.as_os_str().is_empty()) {
            (true, true) => ["tls.key", "tls.certificate"],
            (false, false) => ["tls.certificate", "tls.key"],
            _ => return Ok(()),
        };
        let rule = format!("TLS requires two files. Set {missing} too, or remove {present}.");
        Err(ConfigError::new(present, rule))
    }
}
