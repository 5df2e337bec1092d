//! Certificates for tests, and TLS clients that trust one certificate.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Writes a new self-signed certificate for `localhost` and its key to these files.
pub fn write_certificate(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    // Renamed into place, as programs that renew certificates do.
    for (file, text) in [(certificate, generated.cert.pem()), (key, generated.signing_key.serialize_pem())] {
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    }
    generated.cert.der().clone()
}

/// A TLS connection that trusts only the certificate `trusted`. The handshake, and its errors, come with the first use.
pub fn connect(address: &str, trusted: &CertificateDer<'static>) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), TcpStream::connect(address).unwrap())
}
