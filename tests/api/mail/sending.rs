//! How mails are sent: what they look like, and what happens when the SMTP server fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use latchkey::config::Settings;
use latchkey::metrics::TextFormat;
use latchkey::server::Server;
use serde_json::json;
use tempfile::TempDir;

use super::{
    RESET, VERIFY, advance, all_sent, mailing, request_reset, reset_secret, settle, short_timeouts, wait_until,
    wait_until_none,
};
use crate::support::app::LINK_PAGE;
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
    for (app, smtp) in mailing(short_timeouts).await {
        app.register("ada@example.org").await;
        all_sent(&app).await;
        smtp.behave(Behaviour::Silent);
        let began = Instant::now();
        for email in ["ada@example.org", "nobody@example.org"] {
            assert_eq!(request_reset(&app, email).await.status, 202);
        }
        assert!(began.elapsed() < Duration::from_millis(1_900), "{:?}", began.elapsed());
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
            let before = smtp.count("ada@example.org", RESET);
            smtp.behave(behaviour);
            request_reset(&app, "ada@example.org").await;
            settle(&app).await;
            smtp.behave(Behaviour::Accept);
            advance(&app, 61).await;
            all_sent(&app).await;
            assert_eq!(smtp.count("ada@example.org", RESET), before + copies + 1);
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
            assert_eq!(smtp.count("ada@example.org", RESET), sent, "after {wait} s");
        }
        let live = "SELECT count(*) FROM mail_secrets WHERE purpose = 'password_reset'";
        assert_eq!(app.database.number(live).await, i64::try_from(sent).unwrap(), "no request ends an earlier link");
    }
}

#[tokio::test]
async fn a_faulty_template_fails_the_start_with_file_and_line() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("password_reset.en.txt"), "Subject: x\n\n{{ link }\n").unwrap();
    let (smtp, mut serve) = (SmtpServer::start().await, latchkey(home.path(), &["serve"]));
    smtp.configure_command(&mut serve);
    serve.env("LATCHKEY__MAIL__TEMPLATES", ".");
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
        smtp.configure_command(&mut command);
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
async fn the_address_of_the_smtp_server_can_be_in_a_file_because_it_may_contain_a_password() {
    let (smtp, home) = (SmtpServer::start().await, TempDir::new().unwrap());
    std::fs::write(home.path().join("url"), format!("smtp://{}\n", smtp.address)).unwrap();
    let mut command = latchkey(home.path(), &["mail", "test", "ada@example.org"]);
    smtp.configure_command(&mut command);
    command.env_remove("LATCHKEY__MAIL__URL").env("LATCHKEY__MAIL__URL_FILE", "url");
    out(&finished(command).await);
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test]
async fn replies_go_to_the_address_of_the_settings() {
    for reply_to in ["", "Support <help@example.org>"] {
        let settings = |settings: &mut Settings| settings.mail.reply_to = reply_to.to_owned().try_into().unwrap();
        for (app, smtp) in mailing(settings).await {
            app.register("ada@example.org").await;
            let mail = smtp.wait_for_mail("ada@example.org", VERIFY).await;
            assert_eq!(mail.header("Reply-To"), reply_to);
        }
    }
}

/// The value of each metric about mails, without zeros.
async fn mail_metrics(app: &App) -> BTreeMap<String, u64> {
    let text = app.service.metrics_text(TextFormat::Prometheus).await.unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("latchkey_mails_")?.rsplit_once(' '));
    let values = lines.map(|(name, value)| (name.replace("total{outcome=", "").replace(['"', '}'], ""), value));
    values.map(|(name, value)| (name, value.parse().unwrap())).filter(|(_, value)| *value > 0).collect()
}

#[tokio::test]
async fn metrics_count_mails_by_outcome_and_those_that_wait() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        all_sent(&app).await;
        let refused = Behaviour::Reply("550 5.1.1 no such user");
        let deferred = Behaviour::Reply("450 4.2.1 later");
        for (wait, behaviour, [sent, dropped, failed, deferred, waiting]) in [
            (61, Behaviour::Accept, [2, 0, 0, 0, 0]),
            (0, Behaviour::Accept, [2, 1, 0, 0, 0]),
            (61, refused, [2, 1, 1, 0, 0]),
            (61, deferred, [2, 1, 1, 1, 1]),
            (61, Behaviour::Accept, [4, 1, 1, 1, 0]),
        ] {
            app.clock.advance(wait);
            smtp.behave(behaviour);
            request_reset(&app, "ada@example.org").await;
            settle(&app).await;
            let pairs = [
                ("sent", sent),
                ("dropped", dropped),
                ("failed", failed),
                ("deferred", deferred),
                ("waiting", waiting),
            ];
            let expected =
                pairs.into_iter().filter(|(_, value)| *value > 0).map(|(name, value)| (name.to_owned(), value));
            let expected: BTreeMap<String, u64> = expected.collect();
            // The number of those that wait is read after the next decision.
            wait_until(async || {
                app.service.mail_delivery().wake();
                mail_metrics(&app).await == expected
            })
            .await;
        }
    }
}
