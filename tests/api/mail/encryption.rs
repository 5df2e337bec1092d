//! Encrypted connections to the SMTP server.

use std::sync::Arc;

use latchkey::config::{Settings, StartTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::settle;
use crate::support::smtp::{Encryption, SmtpServer};
use crate::support::{App, Backend, Profile};

/// A certification authority in PEM, and servers with a certificate of it for `localhost` and for another host.
fn authority() -> (String, [TlsAcceptor; 2]) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server = |host: &str| {
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        let private = PrivateKeyDer::from_pem_slice(leaf_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
        TlsAcceptor::from(Arc::new(config))
    };
    (authority.pem(), ["localhost", "other.example"].map(server))
}

#[tokio::test]
async fn a_connection_is_encrypted_with_starttls_or_no_mail_is_sent() {
    let (authority, [right, other]) = authority();
    let home = TempDir::new().unwrap();
    let file = home.path().join("authority.crt");
    std::fs::write(&file, authority).unwrap();
    for (offered, trusted, is_sent) in
        [(Some(&right), true, true), (Some(&right), false, false), (Some(&other), true, false), (None, true, false)]
    {
        let encryption = offered.map_or(Encryption::None, |acceptor| Encryption::StartTls(acceptor.clone()));
        let smtp = SmtpServer::start_with(encryption).await;
        let settings = |settings: &mut Settings| {
            smtp.configure(settings);
            settings.mail.url = format!("smtp://localhost:{}", smtp.address.port()).try_into().unwrap();
            settings.mail.starttls = StartTls::Required;
            settings.mail.ca_file = if trusted { file.display().to_string() } else { String::new() };
        };
        let app = App::start_with(Backend::Sqlite, Profile::Fastapi, settings).await.unwrap();
        app.register("ada@example.org").await;
        settle(&app).await;
        let expected = usize::from(is_sent);
        assert_eq!(smtp.mails().len(), expected, "offered: {}, trusted: {trusted}", offered.is_some());
        assert!(smtp.mails().iter().all(|mail| mail.encrypted));
        let waiting = app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await;
        assert_eq!(waiting, 1 - i64::try_from(expected).unwrap(), "the mail waits");
    }
}

#[tokio::test]
async fn a_connection_can_be_encrypted_from_the_start() {
    let (authority, [right, other]) = authority();
    let home = TempDir::new().unwrap();
    let file = home.path().join("authority.crt");
    std::fs::write(&file, authority).unwrap();
    for (backend, acceptor, trusted, is_sent) in [
        (Backend::Sqlite, &right, true, true),
        (Backend::Postgres, &right, true, true),
        (Backend::Sqlite, &right, false, false),
        (Backend::Sqlite, &other, true, false),
    ] {
        let smtp = SmtpServer::start_with(Encryption::Tls(acceptor.clone())).await;
        let settings = |settings: &mut Settings| {
            smtp.configure(settings);
            settings.mail.url = format!("smtps://localhost:{}", smtp.address.port()).try_into().unwrap();
            settings.mail.starttls = StartTls::Required;
            settings.mail.ca_file = if trusted { file.display().to_string() } else { String::new() };
        };
        let Some(app) = App::start_with(backend, Profile::Fastapi, settings).await else { continue };
        app.register("ada@example.org").await;
        settle(&app).await;
        let encrypted: Vec<bool> = smtp.mails().iter().map(|mail| mail.encrypted).collect();
        assert_eq!(encrypted, if is_sent { vec![true] } else { Vec::new() }, "trusted: {trusted}");
        let waiting = app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await;
        assert_eq!(waiting, i64::from(!is_sent), "the mail waits");
    }
}
