//! How mails are sent: what they look like, and what happens when the SMTP server fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use latchkey::config::{Settings, StartTls};
use latchkey::server::Server;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::{RESET, advance, all_sent, mailing, request_reset, reset_secret, settle, wait_until_none};
use crate::support::app::{LINK_PAGE, PASSWORD};
use crate::support::program::{failure, latchkey, out, run};
use crate::support::smtp::{Behaviour, SmtpServer};
use crate::support::{App, Backend, Credential, Profile};

#[tokio::test]
async fn a_mail_has_two_parts_a_link_and_the_stored_address() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("Ada@B\u{fc}cher.example").await;
        let request = json!({ "email": " ADA@xn--bcher-kva.EXAMPLE " });
        assert_eq!(super::post(&app, "/password-reset", &request).await.status, 202);
        let mail = smtp.wait_for_mail("Ada@xn--bcher-kva.example", RESET).await;
        assert_eq!(mail.from, "no-reply@example.org");
        assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
        assert!(mail.header("Message-ID").ends_with("@example.org>"), "{}", mail.raw);
        assert!(mail.header("Date").ends_with("+0000"), "{}", mail.raw);
        assert!(mail.header("Content-Type").starts_with("multipart/alternative"), "{}", mail.raw);
        assert!(mail.header("From").contains("Latchkey"), "{}", mail.raw);
        assert!(mail.link().starts_with(&format!("{LINK_PAGE}#/password-reset/lkm_")), "{}", mail.text);
        let html = mail.html.replace("&#x2f;", "/");
        assert!(html.contains(&format!("<a href=\"{}", mail.link())), "{html}");
        assert!(mail.text.contains("30 minutes") && mail.text.contains("127.0.0.1"), "{}", mail.text);
        assert!(!mail.text.contains("Adaline") && !mail.html.contains("Adaline"), "no text of a caller: {}", mail.text);
    }
}

#[tokio::test]
async fn the_language_of_mails_is_that_of_the_browser_at_registration_and_can_be_changed() {
    for (app, smtp) in mailing(|_| ()).await {
        let body = crate::support::app::registration("ada@example.org");
        let request = app.request("POST", "/register").header("Accept-Language", "de-AT,de;q=0.9,en;q=0.5");
        assert_eq!(request.json(&body).send().await.body["language"], "de");
        smtp.wait_for_mail("ada@example.org", "E-Mail-Adresse best\u{e4}tigen").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        app.patch("/me", &ada, &json!({ "language": "fr" })).await.assert_error(422, "invalid");
        assert_eq!(app.patch("/me", &ada, &json!({ "language": "en" })).await.body["language"], "en");
        reset_secret(&app, &smtp, "ada@example.org").await;
    }
}

#[tokio::test]
async fn no_request_waits_for_a_silent_server_and_the_mail_leaves_later() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        all_sent(&app).await;
        smtp.behave(Behaviour::Silent);
        let began = Instant::now();
        for email in ["ada@example.org", "nobody@example.org"] {
            assert_eq!(request_reset(&app, email).await.status, 202);
        }
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        // The attempt times out.
        settle(&app).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 60).await;
        smtp.wait_for_mail("ada@example.org", RESET).await;
        assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'password_reset'").await, 1);
    }
}

#[tokio::test]
async fn a_temporary_refusal_is_tried_again_with_another_secret_and_a_permanent_one_is_final() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = app.admin("root@example.org").await;
        app.register("ada@example.org").await;
        all_sent(&app).await;
        smtp.behave(Behaviour::Reply("450 4.2.1 try later"));
        request_reset(&app, "ada@example.org").await;
        settle(&app).await;
        let links = "SELECT count(*) FROM mail_secrets WHERE purpose = 'password_reset'";
        assert_eq!(app.database.number(links).await, 0, "the link of an attempt that failed");
        smtp.behave(Behaviour::ReplyToData("451 4.3.0 later"));
        advance(&app, 31).await;
        wait_until_none(&app, "done_at IS NULL AND attempts < 2").await;
        settle(&app).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 120).await;
        smtp.wait_for_mail("ada@example.org", RESET).await;
        let attempts = app.database.number("SELECT attempts FROM outbox WHERE kind = 'password_reset'").await;
        assert_eq!(attempts, 3);

        smtp.behave(Behaviour::Reply("550 5.1.1 <ada@example.org>: no such user"));
        app.clock.advance(61);
        request_reset(&app, "ada@example.org").await;
        all_sent(&app).await;
        assert_eq!(app.database.number("SELECT attempts FROM outbox ORDER BY id DESC LIMIT 1").await, 1);
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        app.key_of(&ada, &[]).await;
        all_sent(&app).await;
        let entries = app.trail(&root, "action=mail.send&outcome=failure").await;
        assert_eq!((&entries[0]["target"], &entries[0]["detail"]), (&json!("user:2"), &json!("key_created")));
        smtp.behave(Behaviour::Accept);
        app.clock.advance(3_601);
        app.key_of(&ada, &[]).await;
        all_sent(&app).await;
        let sent = app.trail(&root, "action=mail.send&outcome=success").await;
        assert_eq!((&sent[0]["actor"], &sent[0]["target"]), (&json!("server"), &json!("user:2")));
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_leads_to_another_attempt() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        all_sent(&app).await;
        for (behaviour, copies) in [(Behaviour::CutInData, 0), (Behaviour::CutAfterData, 1)] {
            app.clock.advance(3_700);
            let before = super::resets(&smtp, "ada@example.org");
            smtp.behave(behaviour);
            request_reset(&app, "ada@example.org").await;
            settle(&app).await;
            smtp.behave(Behaviour::Accept);
            advance(&app, 61).await;
            all_sent(&app).await;
            assert_eq!(super::resets(&smtp, "ada@example.org"), before + copies + 1);
        }
    }
}

#[tokio::test]
async fn a_rejected_password_of_the_smtp_server_keeps_the_mail() {
    let settings = |settings: &mut Settings| {
        let url = settings.mail.url.to_string().replace("smtp://", "smtp://ada:secret@");
        settings.mail.url = url.try_into().unwrap();
    };
    for (app, smtp) in mailing(settings).await {
        smtp.behave(Behaviour::Authenticate("AGFkYQB3cm9uZw=="));
        app.register("ada@example.org").await;
        settle(&app).await;
        assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await, 1);
        smtp.behave(Behaviour::Authenticate("AGFkYQBzZWNyZXQ="));
        advance(&app, 120).await;
        assert_eq!(smtp.wait_for(1).await.len(), 1);
    }
}

#[tokio::test]
async fn workers_in_parallel_send_each_mail_once() {
    for (app, smtp) in mailing(|_| ()).await {
        for number in 0..5 {
            app.register(&format!("user{number}@example.org")).await;
        }
        let runs = futures_util::future::join_all((0..8).map(|_| app.service.mail_delivery().run()));
        tokio::select! {
            _ = runs => {}
            () = all_sent(&app) => {}
        }
        assert_eq!(smtp.mails().len(), 5, "{:#?}", smtp.mails());
    }
}

#[tokio::test]
async fn two_servers_on_one_database_send_each_mail_once() {
    let smtp = SmtpServer::start().await;
    let configure = |settings: &mut Settings| smtp.configure(settings);
    let Some(app) = App::start_with(Backend::Postgres, Profile::Fastapi, configure).await else { return };
    let mut settings = Settings::defaults().unwrap();
    settings.server.listen = "127.0.0.1:0".parse().unwrap();
    settings.database = app.database.settings();
    settings.links.url = LINK_PAGE.to_owned();
    smtp.configure(&mut settings);
    let other = Server::start(&settings, app.clock.clone()).await.unwrap();
    let (handle, service) = (other.handle(), other.service());
    tokio::spawn(other.run());
    for number in 0..10 {
        app.register(&format!("user{number}@example.org")).await;
        service.mail_delivery().wake();
    }
    all_sent(&app).await;
    assert_eq!(smtp.mails().len(), 10);
    drop(handle.stop(false));
}

#[tokio::test]
async fn an_address_gets_a_limited_number_of_mails_and_the_answers_do_not_change() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        all_sent(&app).await;
        let mut sent = 0;
        for (wait, expected) in [(0, 1), (0, 0), (59, 0), (2, 1), (61, 1), (61, 1), (61, 1), (61, 0), (3_600, 1)] {
            app.clock.advance(wait);
            assert_eq!(request_reset(&app, "ada@example.org").await.status, 202);
            all_sent(&app).await;
            sent += expected;
            assert_eq!(super::resets(&smtp, "ada@example.org"), sent, "after {wait} s");
        }
        let live = "SELECT count(*) FROM mail_secrets WHERE purpose = 'password_reset'";
        assert_eq!(app.database.number(live).await, i64::try_from(sent).unwrap(), "no request ends an earlier link");
    }
}

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
    for (tls, trusted) in [(Some(acceptor.clone()), true), (Some(acceptor), false), (None, true)] {
        let (is_offered, smtp) = (tls.is_some(), SmtpServer::start_with(tls).await);
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
async fn a_faulty_template_fails_the_start_with_file_and_line() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("password_reset.en.txt"), "Subject: x\n\n{{ link }\n").unwrap();
    let mut serve = latchkey(home.path(), &["serve"]);
    let from =
        [("URL", "smtp://127.0.0.1:9"), ("STARTTLS", "none"), ("FROM", "no-reply@example.org"), ("TEMPLATES", ".")];
    for (name, value) in from {
        serve.env(format!("LATCHKEY__MAIL__{name}"), value);
    }
    serve.env("LATCHKEY__LINKS__URL", LINK_PAGE);
    let error = failure(&run(&mut serve));
    assert!(error.contains("mail.templates") && error.contains("password_reset.en.txt, line 3: "), "{error}");
}

/// Runs a command while the SMTP server of the test answers.
async fn finished(mut command: std::process::Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

#[tokio::test]
async fn the_command_line_sends_a_test_mail_and_shows_what_the_server_answers() {
    let (smtp, home) = (SmtpServer::start().await, TempDir::new().unwrap());
    let command = |address: &str| {
        let mut command = latchkey(home.path(), &["mail", "test", address]);
        command.env("LATCHKEY__MAIL__URL", format!("smtp://{}", smtp.address));
        command.env("LATCHKEY__MAIL__STARTTLS", "none").env("LATCHKEY__MAIL__FROM", "no-reply@example.org");
        command.env("LATCHKEY__LINKS__URL", LINK_PAGE);
        command
    };
    let sent = out(&finished(command("ada@example.org")).await);
    assert!(sent.starts_with(&format!("sent a test mail to ada@example.org by smtp://{} in ", smtp.address)), "{sent}");
    let mails = smtp.mails();
    assert_eq!((mails.len(), mails[0].subject.as_str()), (1, "Test mail from auth.example.org"));
    smtp.behave(Behaviour::Reply("550 5.7.1 relaying denied"));
    let error = failure(&finished(command("ada@example.org")).await);
    assert!(error.contains("550") && error.contains("relaying denied"), "{error}");
    assert!(failure(&finished(command("ada")).await).contains("is not an e-mail address"));
    let unset = failure(&run(&mut latchkey(home.path(), &["mail", "test", "ada@example.org"])));
    assert!(unset.contains("mail.url is not set"), "{unset}");
}

#[tokio::test]
async fn the_log_and_the_database_contain_no_secret_of_a_link() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        for (table, rows) in app.database.dump_all().await {
            assert!(rows.iter().all(|row| !row.contains(&secret)), "{table}");
        }
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
    }
}
