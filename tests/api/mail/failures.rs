//! What happens to a mail when the SMTP server refuses it, is slow, or when the process stops.

use std::time::Duration;

use latchkey::config::Settings;
use tempfile::TempDir;

use super::{
    PASSWORD_CHANGED, RESET, VERIFY, advance, all_sent, mailing, request_reset, settle, short_timeouts, wait_until_none,
};
use crate::support::App;
use crate::support::app::PASSWORD;
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
            let before = smtp.count("ada@example.org", RESET);
            smtp.behave(behaviour.clone());
            request_reset(&app, "ada@example.org").await;
            settle(&app).await;
            assert_eq!(app.database.number(OPEN).await, 1, "{behaviour:?}");
            smtp.behave(Behaviour::Accept);
            advance(&app, 61).await;
            all_sent(&app).await;
            assert_eq!(smtp.count("ada@example.org", RESET), before + 1, "{behaviour:?}");
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
                app.register(&format!("slow{number}@slow.example")).await;
            }
            // Two mails to one domain are sent at the same time.
            wait_until_none(&app, "attempts = 0 AND id <= 2").await;
            app.register("ada@example.org").await;
            smtp.wait_for_mail("ada@example.org", VERIFY).await;
            let slow = app.database.number(format!("{OPEN} AND address_key LIKE 'slow%'")).await;
            assert_eq!(slow, 3, "the server has not answered for them yet: {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn a_time_out_within_the_transaction_defers_only_that_mail() {
    for (app, smtp) in mailing(short_timeouts).await {
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
    for (app, smtp) in mailing(short_timeouts).await {
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
    let settings = |settings: &mut Settings| {
        short_timeouts(settings);
        settings.mail.answer_timeout = 20;
    };
    for (app, smtp) in mailing(settings).await {
        // Longer than the time-out of the other steps.
        smtp.behave(Behaviour::AnswerLater("ada", Duration::from_millis(2_500)));
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
async fn settle_some(app: &App) {
    wait_until_none(app, "accepted_at IS NULL").await;
    wait_until_none(app, "(SELECT max(attempts) FROM outbox) = 0").await;
    app.service.mail_delivery().finished().await;
}

/// A command of a server with its own database, which sends its mails to `smtp`.
fn command(home: &TempDir, smtp: &SmtpServer, arguments: &[&str]) -> std::process::Command {
    let mut command = latchkey(home.path(), arguments);
    smtp.configure_command(&mut command);
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
    smtp.wait_for_mail("ada@example.org", PASSWORD_CHANGED).await;
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

#[tokio::test]
async fn mails_that_were_requested_while_the_server_is_down_leave_later_and_once() {
    for (app, mut smtp) in mailing(|_| ()).await {
        smtp.go_down().await;
        for number in 0..3 {
            assert_eq!(app.register(&format!("user{number}@example.org")).await.status, 201);
        }
        settle_some(&app).await;
        for _ in 0..3 {
            let before = app.database.number("SELECT sum(attempts) FROM outbox").await;
            advance(&app, 31).await;
            wait_until_none(&app, &format!("(SELECT sum(attempts) FROM outbox) = {before}")).await;
            app.service.mail_delivery().finished().await;
        }
        assert_eq!(app.database.number(OPEN).await, 3, "no mail is given up");
        smtp.go_up();
        advance(&app, 3_601).await;
        all_sent(&app).await;
        let sent: Vec<usize> = (0..3).map(|number| smtp.count(&format!("user{number}@example.org"), VERIFY)).collect();
        assert_eq!(sent, [1, 1, 1]);
        advance(&app, 86_400).await;
        settle(&app).await;
        assert_eq!(smtp.mails().len(), 3);
    }
}

/// Waits until a mail was attempted `number` times, and the outcome is stored.
async fn attempted(app: &App, number: usize) {
    wait_until_none(app, &format!("attempts < {number}")).await;
    app.service.mail_delivery().finished().await;
}

/// The number of mails that are due between these numbers of seconds from now.
async fn due_within(app: &App, from: i64, to: i64) -> i64 {
    let [from, to] = [from, to].map(|seconds| app.clock.now().plus_seconds(seconds).naive());
    app.database.number(format!("{OPEN} AND due_at > '{from}' AND due_at <= '{to}'")).await
}

#[tokio::test]
async fn the_pause_between_attempts_doubles_up_to_an_hour() {
    for (app, smtp) in mailing(|_| ()).await {
        smtp.behave(Behaviour::Reply("450 4.2.1 later"));
        app.register("ada@example.org").await;
        for (attempt, pause) in (1..).zip([30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]) {
            attempted(&app, attempt).await;
            assert_eq!(due_within(&app, pause - 10, pause).await, 1, "after attempt {attempt}");
            advance(&app, u32::try_from(pause).unwrap()).await;
        }
    }
}

#[tokio::test]
async fn a_mail_is_given_up_a_day_after_its_request() {
    for (app, smtp) in mailing(|_| ()).await {
        smtp.behave(Behaviour::Reply("450 4.2.1 later"));
        app.register("ada@example.org").await;
        attempted(&app, 1).await;
        advance(&app, 86_400 - 60).await;
        attempted(&app, 2).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 61).await;
        all_sent(&app).await;
        assert_eq!(app.database.number("SELECT count(*) FROM outbox").await, 0);
        assert_eq!(smtp.mails().len(), 0, "{:#?}", smtp.mails());
    }
}
