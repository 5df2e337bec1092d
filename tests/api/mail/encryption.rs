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

/// A certification authority in PEM, and a server with a certificate of it for `localhost`.
fn authority() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let private = PrivateKeyDer::from_pem_slice(leaf_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn a_connection_is_encrypted_with_starttls_or_no_mail_is_sent() {
    let (authority, acceptor) = authority();
    let home = TempDir::new().unwrap();
    let file = home.path().join("authority.crt");
    std::fs::write(&file, authority).unwrap();
    for (is_offered, trusted) in [(true, true), (true, false), (false, true)] {
        let encryption = if is_offered { Encryption::StartTls(acceptor.clone()) } else { Encryption::None };
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
        let expected = usize::from(is_offered && trusted);
        assert_eq!(smtp.mails().len(), expected, "offered: {is_offered}, trusted: {trusted}");
        assert!(smtp.mails().iter().all(|mail| mail.encrypted));
        let waiting = app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await;
        assert_eq!(waiting, 1 - i64::try_from(expected).unwrap(), "the mail waits");
    }
}

#[tokio::test]
async fn a_connection_can_be_encrypted_from_the_start() {
    let (authority, acceptor) = authority();
    let home = TempDir::new().unwrap();
    let file = home.path().join("authority.crt");
    std::fs::write(&file, authority).unwrap();
    for (backend, trusted) in [(Backend::Sqlite, true), (Backend::Postgres, true), (Backend::Sqlite, false)] {
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
        assert_eq!(encrypted, if trusted { vec![true] } else { Vec::new() }, "trusted: {trusted}");
        let waiting = app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await;
        assert_eq!(waiting, i64::from(!trusted), "the mail waits");
    }
}
