//! What operators read about mails: errors of settings and servers, the log, the metrics, and the templates.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use latchkey::metrics::TextFormat;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::{all_sent, fill_outbox, mailing, post, request_reset, settle, verified_user, wait_until, wait_until_none};
use crate::support::App;
use crate::support::app::LINK_PAGE;
use crate::support::program::{Serving, failure, latchkey, out, run};
use crate::support::smtp::{Behaviour, Encryption, SmtpServer};

/// A command with settings of mails, the last of which override earlier ones.
fn command(home: &Path, arguments: &[&str], url: &str, settings: &[(&str, &str)]) -> Command {
    let mut command = latchkey(home, arguments);
    command.env("LATCHKEY__MAIL__URL", url).env("LATCHKEY__MAIL__FROM", "no-reply@example.org");
    command.env("LATCHKEY__LINKS__URL", LINK_PAGE);
    command.envs(settings.iter().map(|(name, value)| (format!("LATCHKEY__MAIL__{name}"), *value)));
    command
}

/// What `latchkey mail test` says about a server that does not take the mail.
async fn refusal(url: &str, settings: &[(&str, &str)]) -> String {
    let home = TempDir::new().unwrap();
    let mut command = command(home.path(), &["mail", "test", "ada@example.org"], url, settings);
    let output = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    failure(&output).trim_end().to_owned()
}

/// A certificate for `localhost` that signs itself, in PEM, and a server that presents it.
fn self_signed(is_authority: bool) -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = if is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    (certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn a_server_without_encryption_or_with_an_untrusted_certificate_is_explained() {
    let plain = SmtpServer::start().await;
    let error = refusal(&format!("smtp://{}", plain.address), &[]).await;
    let advice =
        "use smtps:// if one of its ports speaks TLS from the start, or mail.starttls = \"none\" in a trusted network";
    let url = format!("latchkey: smtp://{}", plain.address);
    assert_eq!(error, format!("{url}: the server does not offer STARTTLS: {advice}"));

    let (_, acceptor) = self_signed(false);
    let smtp = SmtpServer::start_with(Encryption::StartTls(acceptor)).await;
    let error = refusal(&format!("smtp://localhost:{}", smtp.address.port()), &[]).await;
    let cause = ": Connection error: invalid peer certificate: UnknownIssuer; mail.ca_file names a file with the \
                 certificates of further authorities";
    assert!(error.ends_with(cause) && error.matches("Connection error").count() == 1, "{error}");

    let (authority, acceptor) = self_signed(true);
    let smtp = SmtpServer::start_with(Encryption::StartTls(acceptor)).await;
    let home = TempDir::new().unwrap();
    let file = home.path().join("authority.crt").display().to_string();
    std::fs::write(&file, authority).unwrap();
    let error = refusal(&format!("smtp://localhost:{}", smtp.address.port()), &[("CA_FILE", &file)]).await;
    let cause = ": the server presents the certificate of an authority as its own: issue one for it with CA:FALSE";
    assert!(error.ends_with(cause), "{error}");
}

#[tokio::test]
async fn the_wrong_scheme_for_a_port_is_recognized() {
    let smtp = SmtpServer::start().await;
    let error = refusal(&format!("smtps://{}", smtp.address), &[]).await;
    assert!(error.ends_with(". Does this port begin without TLS? Then write smtp://"), "{error}");
    // A server with TLS waits for the client to begin.
    smtp.behave(Behaviour::Silent);
    let times = [("CONNECT_TIMEOUT", "1"), ("SEND_TIMEOUT", "1")];
    let error = refusal(&format!("smtp://{}", smtp.address), &times).await;
    let hint = ": no answer within 1 s. Does this port speak TLS from the start? Then write smtps://";
    assert!(error.ends_with(hint), "{error}");
    smtp.behave(Behaviour::Greet("\u{15}\u{3}\u{3}\u{0}\u{2}\u{2}\u{32}"));
    let error = refusal(&format!("smtp://{}", smtp.address), &[]).await;
    assert!(error.ends_with(" Does this port speak TLS from the start? Then write smtps://"), "{error}");
}

#[tokio::test]
async fn a_refusal_names_the_step_or_the_setting() {
    let smtp = SmtpServer::start().await;
    let url = format!("smtp://{}", smtp.address);
    for (behaviour, expected) in [
        (
            Behaviour::ReplyToSender("553 5.1.8 not this sender"),
            "sender (mail.from): the server answered 553 5.1.8 not this sender. Set mail.from to an address from which \
             the server accepts mails",
        ),
        (
            Behaviour::ReplyToSender("450 4.1.8 <no-reply@example.org> later"),
            "sender (mail.from): the server answered 450 4.1.8 *** later",
        ),
        (
            Behaviour::Reply("550 5.1.1 <ada@example.org>: no such user"),
            "recipient: the server answered 550 5.1.1 *** no such user",
        ),
        (Behaviour::Reply("451 4.7.1 greylisted"), "recipient: the server answered 451 4.7.1 greylisted"),
        (Behaviour::ReplyToData("554 5.7.1 spam"), "the server answered 554 5.7.1 spam"),
        (Behaviour::Greet("554 5.3.2 no mails now"), "the server answered 554 5.3.2 no mails now"),
        (
            Behaviour::ReplyToSender("530 5.7.0 must issue STARTTLS first"),
            "the server requires encryption (smtps://, or mail.starttls = \"required\") or a user and a password in \
             mail.url: the server answered 530 5.7.0 must issue STARTTLS first",
        ),
    ] {
        smtp.behave(behaviour);
        let error = refusal(&url, &[("STARTTLS", "none")]).await;
        assert_eq!(error, format!("latchkey: {url}: {expected}"));
    }
    let url = url.replace("smtp://", "smtp://ada:wrong@");
    smtp.behave(Behaviour::Authenticate("AGFkYQBzZWNyZXQ="));
    let error = refusal(&url, &[("STARTTLS", "none")]).await;
    let explanation = ": the server rejects the user or the password of mail.url: the server answered 535 5.7.8 ";
    assert!(error.contains(explanation) && !error.contains("wrong@"), "{error}");
    smtp.behave(Behaviour::ReplyToHello("250 no extensions"));
    let error = refusal(&url, &[("STARTTLS", "none")]).await;
    assert!(error.contains(": the server does not offer to sign in with a user and a password: "), "{error}");
}

/// Runs a server that registers Ada. Returns its log up to a line with `text`.
async fn log_until(home: &TempDir, url: &str, text: &'static str) -> Vec<String> {
    let serving = Serving::start(&mut command(home.path(), &[], url, &[("STARTTLS", "none")]));
    let started = tokio::task::spawn_blocking(move || (serving.lines_until("documentation on", LIMIT), serving));
    let (mut log, serving) = started.await.unwrap();
    let line = log.iter().find_map(|line| line.split_once("listening on http://")).unwrap();
    let client = crate::support::client::Client::new(&format!("http://{}", line.1));
    assert_eq!(client.register("ada@example.org").await.status, 201);
    if !text.is_empty() {
        log.extend(tokio::task::spawn_blocking(move || serving.lines_until(text, LIMIT)).await.unwrap());
    }
    log
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

#[tokio::test]
async fn the_log_names_the_server_and_the_setting_to_change() {
    let smtp = SmtpServer::start().await;
    let url = format!("smtp://{}", smtp.address);
    smtp.behave(Behaviour::Greet("421 4.3.2 overloaded"));
    let log = log_until(&TempDir::new().unwrap(), &url, "cannot use the SMTP server").await;
    let started = format!("mails are sent by {} as no-reply@example.org", smtp.address);
    assert_eq!(log.iter().filter(|line| line.contains(&started)).count(), 1, "{log:#?}");
    let cause = format!("will try again: {}: the server answered 421 4.3.2 overloaded", smtp.address);
    assert!(log.last().unwrap().contains(&cause), "{log:#?}");

    smtp.behave(Behaviour::ReplyToSender("553 5.1.8 not this sender"));
    let log = log_until(&TempDir::new().unwrap(), &url, "was not accepted at attempt 1").await;
    let line = log.last().unwrap();
    let advice = "will try again: sender (mail.from): the server answered 553 5.1.8 not this sender. Set mail.from to ";
    assert!(line.contains(advice) && !line.contains("permanent"), "{line}");

    let log = log_until(&TempDir::new().unwrap(), "", "").await;
    assert!(log.iter().all(|line| !line.contains("mails are sent")), "{log:#?}");
}

#[test]
fn a_file_without_certificates_and_a_faulty_template_stop_the_start_before_migrations_and_the_command_config() {
    let home = TempDir::new().unwrap();
    std::fs::create_dir(home.path().join("texts")).unwrap();
    std::fs::write(home.path().join("texts/registration.de.txt"), "Subject: x\n\nNo link.\n").unwrap();
    std::fs::write(home.path().join("empty.crt"), "").unwrap();
    std::fs::write(home.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    for (name, value, setting, part) in [
        ("CA_FILE", "empty.crt", "mail.ca_file", "cannot use empty.crt: it contains no certificate"),
        ("CA_FILE", "key.pem", "mail.ca_file", "cannot use key.pem: it contains no certificate"),
        ("CA_FILE", "missing.pem", "mail.ca_file", "cannot use missing.pem: "),
        ("TEMPLATES", "texts", "mail.templates", "texts/registration.de.txt: the text must contain {{ link }}"),
    ] {
        for arguments in [["config"], ["serve"]] {
            let url = "smtp://mail.example.org";
            let error = failure(&run(&mut command(home.path(), &arguments, url, &[(name, value)])));
            let start = format!("latchkey: settings: {setting} (LATCHKEY__MAIL__{name}): ");
            assert!(error.starts_with(&start) && error.contains(part), "{error}");
        }
    }
    let mut files: Vec<String> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["empty.crt", "key.pem", "texts"], "no database was made");
    let valid = out(&run(&mut command(home.path(), &["config"], "smtp://mail.example.org", &[])));
    assert!(valid.contains("smtp://mail.example.org:587"), "{valid}");
}

#[test]
fn the_command_line_writes_the_templates_and_replaces_no_file() {
    let home = TempDir::new().unwrap();
    let written = out(&run(&mut latchkey(home.path(), &["mail", "templates", "a/texts"])));
    let folder = home.path().join("a/texts");
    let count = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(written, format!("wrote {count} templates to a/texts; remove those that you do not change\n"));
    let layout = std::fs::read_to_string(folder.join("layout.html")).unwrap();
    assert_eq!(layout, include_str!("../../../assets/mail/layout.html"));
    let settings = [("TEMPLATES", "a/texts")];
    out(&run(&mut command(home.path(), &["config"], "smtp://mail.example.org", &settings)));

    for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name() != "invitation.en.txt" {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let error = failure(&run(&mut latchkey(home.path(), &["mail", "templates", "a/texts"])));
    let start = "latchkey: a/texts/invitation.en.txt exists already, and is not overwritten. ";
    assert!(error.starts_with(start), "{error}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing was written");

    let json = out(&run(&mut latchkey(home.path(), &["mail", "templates", "b", "--json"])));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({ "written": count }));
    std::fs::write(home.path().join("file"), "").unwrap();
    let error = failure(&run(&mut latchkey(home.path(), &["mail", "templates", "file"])));
    assert!(error.starts_with("latchkey: cannot write file: "), "{error}");
}

/// The number of mails that were counted with this outcome.
async fn counted(app: &App, outcome: &str) -> usize {
    let text = app.service.metrics_text(TextFormat::Prometheus).await.unwrap();
    let start = format!("latchkey_mails_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn only_mails_that_a_limit_drops_count_as_dropped() {
    for (app, _smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        all_sent(&app).await;
        for email in ["nobody@example.org", "ada@example.org"] {
            let verify = json!({ "email": email });
            assert_eq!(post(&app, "/email-verification", &verify).await.status, 202);
        }
        request_reset(&app, "nobody@example.org").await;
        request_reset(&app, "ada@example.org").await;
        all_sent(&app).await;
        assert_eq!(counted(&app, "dropped").await, 0, "nothing is to be sent for an unknown or a verified address");
        // The metrics follow the rows.
        app.service.mail_delivery().finished().await;
        let sent = counted(&app, "sent").await;
        request_reset(&app, "ada@example.org").await;
        request_reset(&app, "nobody@example.org").await;
        all_sent(&app).await;
        wait_until(async || counted(&app, "dropped").await == 1).await;
        assert_eq!(counted(&app, "sent").await, sent);

        app.clock.advance(61);
        fill_outbox(&app).await;
        request_reset(&app, "ada@example.org").await;
        request_reset(&app, "nobody@example.org").await;
        wait_until_none(&app, "accepted_at IS NULL").await;
        for _ in 0..40 {
            if counted(&app, "dropped").await == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        assert_eq!(counted(&app, "dropped").await, 2, "a mail beyond the largest number that wait");
        settle(&app).await;
    }
}
