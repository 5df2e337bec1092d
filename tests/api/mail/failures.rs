//! What happens to a mail when the SMTP server refuses it, is slow, or when the process stops.

use std::time::Duration;

use latchkey::config::Settings;
use tempfile::TempDir;

use super::{VERIFY, advance, all_sent, mailing, request_reset, resets, settle, wait_until_none};
use crate::support::app::{LINK_PAGE, PASSWORD};
use crate::support::program::{Serving, latchkey, out, with_input};
use crate::support::smtp::{Behaviour, SmtpServer};

const OPEN: &str = "SELECT count(*) FROM outbox WHERE done_at IS NULL";

#[tokio::test]
async fn a_refusal_before_the_recipient_is_temporary_whatever_its_code() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        all_sent(&app).await;
        for behaviour in [
            Behaviour::Greet("554 5.3.2 no mails now"),
            Behaviour::ReplyToHello("550 5.7.1 not you"),
            Behaviour::ReplyToSender("553 5.1.8 not this sender"),
        ] {
            app.clock.advance(3_601);
            let before = resets(&smtp, "ada@example.org");
            smtp.behave(behaviour.clone());
            request_reset(&app, "ada@example.org").await;
            settle(&app).await;
            assert_eq!(app.database.number(OPEN).await, 1, "{behaviour:?}");
            smtp.behave(Behaviour::Accept);
            advance(&app, 61).await;
            all_sent(&app).await;
            assert_eq!(resets(&smtp, "ada@example.org"), before + 1, "{behaviour:?}");
        }
    }
}

#[tokio::test]
async fn slow_recipients_delay_no_other_mail() {
    let slow = Behaviour::AnswerLater("slow", Duration::from_secs(30));
    for behaviour in [Behaviour::SilentFor("slow"), slow] {
        for (app, smtp) in mailing(|settings| settings.mail.answer_timeout = 30).await {
            smtp.behave(behaviour.clone());
            for number in 0..3 {
                app.register(&format!("slow{number}@example.org")).await;
            }
            wait_until_none(&app, "attempts = 0").await;
            app.register("ada@example.org").await;
            smtp.wait_for_mail("ada@example.org", VERIFY).await;
            let slow = app.database.number(format!("{OPEN} AND address_key LIKE 'slow%'")).await;
            assert_eq!(slow, 3, "the server has not answered for them yet: {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn a_time_out_within_the_transaction_defers_only_that_mail() {
    for (app, smtp) in mailing(|_| ()).await {
        smtp.behave(Behaviour::SilentFor("slow"));
        app.register("slow@example.org").await;
        settle(&app).await;
        // The clock stands still, so a pause of all mails would not end.
        app.register("ada@example.org").await;
        smtp.wait_for_mail("ada@example.org", VERIFY).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 31).await;
        smtp.wait_for_mail("slow@example.org", VERIFY).await;
    }
}

#[tokio::test]
async fn a_mail_without_an_answer_is_sent_once_more_with_the_same_message_id() {
    for (app, smtp) in mailing(|_| ()).await {
        smtp.behave(Behaviour::AnswerLater("ada", Duration::from_secs(30)));
        app.register("ada@example.org").await;
        settle(&app).await;
        assert_eq!(app.database.number(OPEN).await, 1);
        for _ in 0..5 {
            advance(&app, 3_601).await;
            all_sent(&app).await;
        }
        let mails = smtp.mails();
        assert_eq!(mails.len(), 2, "{mails:#?}");
        assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
        assert_ne!(mails[0].secret(), mails[1].secret());
    }
}

#[tokio::test]
async fn an_answer_that_is_late_but_within_its_own_time_out_counts() {
    for (app, smtp) in mailing(|settings| settings.mail.answer_timeout = 20).await {
        // Longer than the time-out of the other steps.
        smtp.behave(Behaviour::AnswerLater("ada", Duration::from_millis(1_500)));
        app.register("ada@example.org").await;
        all_sent(&app).await;
        assert_eq!((smtp.mails().len(), app.database.number("SELECT max(attempts) FROM outbox").await), (1, 1));
    }
}

#[tokio::test]
async fn while_the_server_cannot_be_used_one_mail_at_a_time_tries_it() {
    for (app, smtp) in mailing(|_| ()).await {
        smtp.behave(Behaviour::Greet("421 4.3.2 overloaded"));
        for number in 0..8 {
            app.register(&format!("user{number}@example.org")).await;
        }
        settle_some(&app).await;
        let tried = app.database.number("SELECT count(*) FROM outbox WHERE attempts > 0").await;
        assert!((1..=4).contains(&tried), "{tried} mails were tried");
        advance(&app, 6).await;
        wait_until_none(&app, &format!("(SELECT sum(attempts) FROM outbox) = {tried}")).await;
        app.service.mail_delivery().finished().await;
        let later = app.database.number("SELECT sum(attempts) FROM outbox").await;
        assert_eq!(later, tried + 1, "one after the pause");
        smtp.behave(Behaviour::Accept);
        advance(&app, 120).await;
        all_sent(&app).await;
        assert_eq!(smtp.mails().len(), 8);
    }
}

/// Waits until all requests are accepted and no attempt is in progress, although some mails were not tried.
async fn settle_some(app: &crate::support::App) {
    wait_until_none(app, "accepted_at IS NULL").await;
    wait_until_none(app, "(SELECT max(attempts) FROM outbox) = 0").await;
    app.service.mail_delivery().finished().await;
}

/// A command of a server with its own database, which sends its mails to `smtp`.
fn command(home: &TempDir, smtp: &SmtpServer, arguments: &[&str]) -> std::process::Command {
    let mut command = latchkey(home.path(), arguments);
    command.env("LATCHKEY__MAIL__URL", format!("smtp://{}", smtp.address)).env("LATCHKEY__LINKS__URL", LINK_PAGE);
    command.env("LATCHKEY__MAIL__STARTTLS", "none").env("LATCHKEY__MAIL__FROM", "no-reply@example.org");
    command.env("LATCHKEY__SERVER__SHUTDOWN_DELAY", "0").env("LATCHKEY__SERVER__SHUTDOWN_TIMEOUT", "20");
    command
}

/// Stops a server with SIGTERM, while the SMTP server of the test goes on. Returns the rest of its log.
async fn stopped(mut serving: Serving) -> Vec<String> {
    let stop = move || {
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());
        serving.remaining_lines()
    };
    tokio::task::spawn_blocking(stop).await.unwrap()
}

#[tokio::test]
async fn a_stop_waits_for_the_mail_that_is_being_sent() {
    let (home, smtp) = (TempDir::new().unwrap(), SmtpServer::start().await);
    let serving = Serving::start(&mut command(&home, &smtp, &[]));
    let client = serving.client();
    smtp.behave(Behaviour::AnswerLater("ada", Duration::from_secs(3)));
    assert_eq!(client.register("ada@example.org").await.status, 201);
    assert_eq!(smtp.wait_for(1).await.len(), 1, "the server waits for the answer");
    let log = stopped(serving).await;
    assert!(log.iter().any(|line| line.contains("mail email_verification to user:1 sent in")), "{log:#?}");

    let serving = Serving::start(&mut command(&home, &smtp, &[]));
    serving.address();
    out(&with_input(&mut command(&home, &smtp, &["user", "set-password", "ada@example.org"]), PASSWORD));
    smtp.wait_for_mail("ada@example.org", "Your password was changed").await;
    assert_eq!(smtp.mails().len(), 2, "the first mail is not sent again");
}

#[tokio::test]
async fn an_answer_that_quotes_a_link_does_not_bring_its_secret_into_the_log() {
    let (home, smtp) = (TempDir::new().unwrap(), SmtpServer::start().await);
    smtp.behave(Behaviour::Quote);
    let serving = Serving::start(command(&home, &smtp, &[]).env("RUST_LOG", "trace"));
    let client = serving.client();
    assert_eq!(client.register("ada@example.org").await.status, 201);
    smtp.wait_for(1).await;
    let log = stopped(serving).await;
    let line = log.iter().find(|line| line.contains("was not accepted at attempt 1")).unwrap();
    assert!(line.contains("451") && line.contains("refused, it contains ***"), "{line}");
    let log = log.join("\n");
    assert!(!log.contains("lkm_") && !log.contains(&smtp.mails()[0].secret()[10..30]), "{log}");
}

#[tokio::test]
async fn a_mail_is_reserved_for_longer_than_an_attempt_may_take() {
    for (app, smtp) in mailing(|settings: &mut Settings| settings.mail.answer_timeout = 60).await {
        smtp.behave(Behaviour::AnswerLater("ada", Duration::from_secs(30)));
        app.register("ada@example.org").await;
        smtp.wait_for(1).await;
        let end = app.clock.now().plus_seconds(63).naive();
        let reserved = format!("SELECT count(*) FROM outbox WHERE done_at IS NULL AND due_at > '{end}'");
        assert_eq!(app.database.number(reserved).await, 1);
    }
}
