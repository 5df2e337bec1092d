//! TLS on the listener of the API, by rustls: TLS 1.2 and 1.3, with forward secrecy and authenticated encryption only
//! (ASVS 5.0, 12.1.1 and 12.1.2).

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme, StreamOwned};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsSettings;

/// Maximum number of bytes that are read from a file.
const FILE_MAX: u64 = 1024 * 1024;
/// The interval between checks of the files for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {file}: {cause}. Name a file in PEM that this process may read.")]
    File {
        /// The setting that names the file.
        key: &'static str,
        /// The name of the file.
        file: String,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// A file has the wrong content.
    #[error("{file} contains no {wanted} in PEM. {hint}")]
    Pem {
        /// The setting that names the file.
        key: &'static str,
        /// The name of the file.
        file: String,
        /// The required content.
        wanted: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Certificate and key do not match, or the type of the key is not supported.
    #[error("tls.certificate and tls.key cannot be used: {0}. Name the files of one pair.")]
    Unusable(#[from] rustls::Error),
}

impl TlsError {
    /// The setting that the error is about, if it is only one.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::File { key, .. } | Self::Pem { key, .. } => Some(key),
            Self::Unusable(_) => None,
        }
    }
}

/// The certificate of the server with its key. It is loaded again when the files change.
#[derive(Debug)]
pub struct Certificate {
    settings: TlsSettings,
    current: RwLock<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    /// The digest of the contents of both files.
    digest: [u8; 32],
}

impl Certificate {
    /// Loads the files. Returns `None` if the settings name none.
    ///
    /// Errors: a file cannot be read or used.
    pub fn load(settings: &TlsSettings) -> Result<Option<Arc<Self>>, TlsError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let current = RwLock::new(read(settings)?.load(settings)?);
        Ok(Some(Arc::new(Self { settings: settings.clone(), current })))
    }

    /// An acceptor that uses the current certificate for each new connection.
    ///
    /// Errors: rustls rejects the configuration.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }

    /// Checks the files for changes and loads changed ones. Never returns. If they cannot be used, this is logged once
    /// and the previous certificate stays in use.
    pub async fn reload_changed_files(&self) {
        let mut rejected = None;
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let (digest, renewed) = match read(&self.settings) {
                Ok(files) if files.digest == self.current.read().unwrap_or_else(PoisonError::into_inner).digest => {
                    rejected = None;
                    continue;
                }
                Ok(files) => (Some(files.digest), files.load(&self.settings)),
                Err(error) => (None, Err(error)),
            };
            match renewed {
                Ok(loaded) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                    rejected = None;
                    log::info!("the TLS certificate has been renewed");
                }
                // The files are replaced one after the other, so they may not match at the time of a check.
                Err(error) if rejected != Some(digest) => {
                    rejected = Some(digest);
                    let setting = error.setting().unwrap_or("tls");
                    log::warn!("the TLS certificate was not renewed: {setting}: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// The contents of both files. The private key is kept only until it is loaded.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    digest: [u8; 32],
}

fn read(settings: &TlsSettings) -> Result<Files, TlsError> {
    let read = |key, file: &Path| {
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
        match opened {
            Ok(_) => Ok(bytes),
            Err(cause) => Err(TlsError::File { key, file: file.display().to_string(), cause }),
        }
    };
    let (certificate, key) = (read("tls.certificate", &settings.certificate)?, read("tls.key", &settings.key)?);
    let digest = Sha256::new().chain_update(&certificate).chain_update(&key).finalize().into();
    Ok(Files { certificate, key, digest })
}

impl Files {
    fn load(self, settings: &TlsSettings) -> Result<Loaded, TlsError> {
        let missing = |key, file: &Path, wanted, hint| {
            let file = file.display().to_string();
            TlsError::Pem { key, file, wanted, hint }
        };
        let contains = |bytes: &[u8], label: &str| String::from_utf8_lossy(bytes).contains(label);
        let no_certificate = || {
            let hint = match contains(&self.certificate, "PRIVATE KEY-----") {
                true => "It contains a private key, which belongs in tls.key.",
                false => "It must begin with the server's certificate, under the label CERTIFICATE.",
            };
            missing("tls.certificate", &settings.certificate, "certificate", hint)
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(no_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let key = key.map_err(|_unreadable| {
            let hint = if contains(&self.key, "ENCRYPTED") {
                "It is encrypted. Remove the passphrase (openssl pkey -in FILE -out NEW)."
            } else if contains(&self.key, "BEGIN CERTIFICATE") {
                "It contains a certificate, which belongs in tls.certificate."
            } else {
                "It must contain the key of the certificate, under the label PRIVATE KEY."
            };
            missing("tls.key", &settings.key, "private key", hint)
        })?;
        Ok(Loaded { key: Arc::new(CertifiedKey::from_der(chain, key, &provider())?), digest: self.digest })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Opens a TLS connection over `stream`. The server must present the certificate of these settings. Its name and issuer
/// are not checked.
///
/// Errors: the files cannot be read or used.
pub fn connect_pinned(
    settings: &TlsSettings,
    stream: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, TlsError> {
    let expected = read(settings)?.load(settings)?.key;
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCertificate(expected)))
        .with_no_client_auth();
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream))
}

#[derive(Debug)]
struct PinnedCertificate(Arc<CertifiedKey>);

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.0.cert.first() == Some(presented) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Why a handshake with a server failed, if an operator can change something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// No trusted authority has issued the certificate.
    UnknownAuthority,
    /// The certificate is that of an authority.
    AuthorityAsServer,
    /// What the server sends is not TLS.
    NoTls,
}

impl HandshakeFault {
    /// The fault among the causes of an error.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // `source` of an I/O error skips the error that it contains.
            let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let found = match io {
                Some(inner) => inner.downcast_ref::<rustls::Error>(),
                None => error.downcast_ref::<rustls::Error>(),
            };
            match found {
                Some(rustls::Error::InvalidMessage(_)) => return Some(Self::NoTls),
                Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
                    return Some(Self::UnknownAuthority);
                }
                // The error of the verifier has no type that is public here.
                Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)))
                    if other.to_string() == "CaUsedAsEndEntity" =>
                {
                    return Some(Self::AuthorityAsServer);
                }
                _ => next = error.source(),
            }
        }
        None
    }
}
