//! The limits of mails: by address, by client, by account, and of all that wait.

use std::collections::BTreeSet;

use latchkey::config::{Limit, Settings};
use latchkey::server::Server;
use serde_json::json;

use super::{
    EXISTS, NEW_PASSWORD, PASSWORD_CHANGED, RESET, VERIFY, all_sent, fill_outbox, mailing, post, request_reset,
    verified_mode, verified_user, wait_until_none,
};
use crate::support::app::{LINK_PAGE, PASSWORD, registration};
use crate::support::smtp::SmtpServer;
use crate::support::{Answer, App, Backend, Credential, Profile};

#[tokio::test]
async fn changes_of_the_address_are_limited_by_account_and_by_client() {
    let settings = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.limits.mails = Limit { burst: 3, per_hour: 60 };
        settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
    };
    for (app, smtp) in mailing(settings).await {
        verified_user(&app, "ada@example.org").await;
        verified_user(&app, "eve@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let eve = Credential::Token(app.new_token_of("eve@example.org").await);
        let change = async |user: &Credential, client: &str, email: &str| -> Answer {
            let body = json!({ "email": email, "current_password": PASSWORD });
            app.request("PATCH", "/me").credential(user).header("X-Forwarded-For", client).json(&body).send().await
        };
        for number in 0..3 {
            let present = change(&ada, "192.0.2.1", "Ada@example.org").await;
            assert_eq!(present.status, 200, "the present address causes no mail: {present:?}");
            let stranger = format!("stranger{number}@example.com");
            assert_eq!(change(&ada, "192.0.2.1", &stranger).await.status, 202);
            // A later request would drop the mail of an earlier one.
            all_sent(&app).await;
        }
        for (user, client) in [(&ada, "198.51.100.1"), (&eve, "192.0.2.1")] {
            let refused = change(user, client, "stranger@example.com").await;
            refused.assert_error(429, "too_many_requests");
            assert_eq!(refused.header("retry-after"), "60");
        }
        assert_eq!(change(&eve, "203.0.113.1", "stranger@example.com").await.status, 202);
        all_sent(&app).await;
        app.clock.advance(61);
        assert_eq!(change(&ada, "198.51.100.1", "other@example.com").await.status, 202);
        all_sent(&app).await;
        let to_strangers = smtp.mails().iter().filter(|mail| mail.to.ends_with("@example.com")).count();
        assert_eq!(to_strangers, 5);
    }
}

#[tokio::test]
async fn a_deleted_account_keeps_the_limits_of_its_address_and_no_personal_data() {
    for (app, smtp) in mailing(|_| ()).await {
        let dump = async || app.database.dump("outbox").await.join("\n");
        for round in 0..3 {
            assert_eq!(app.register("ada@example.org").await.status, 201);
            all_sent(&app).await;
            let ada = Credential::Token(app.new_token_of("ada@example.org").await);
            let body = json!({ "email": format!("next{round}@example.org"), "current_password": PASSWORD });
            assert_eq!(app.patch("/me", &ada, &body).await.status, 202);
            all_sent(&app).await;
            assert!(dump().await.contains("@example.org"));
            assert_eq!(app.delete("/me", &ada).await.status, 204);
            let rows = dump().await;
            assert!(!rows.is_empty() && !rows.contains('@') && !rows.contains("127.0.0.1"), "{rows}");
        }
        let verifications = || smtp.count("ada@example.org", VERIFY);
        assert_eq!(verifications(), 1, "one in a minute");
        app.clock.advance(61);
        app.register("ada@example.org").await;
        all_sent(&app).await;
        assert_eq!(verifications(), 2);
        app.clock.advance(26 * 3_600);
        app.service.lifecycle().purge().run_once().await.unwrap();
        assert_eq!(dump().await, "", "after 25 hours nothing is left");
    }
}

#[tokio::test]
async fn a_mail_that_waits_is_not_sent_after_its_account_is_deleted() {
    for (app, smtp) in mailing(|_| ()).await {
        let ada = app.user("ada@example.org").await;
        all_sent(&app).await;
        smtp.behave(crate::support::smtp::Behaviour::Reply("450 later"));
        request_reset(&app, "ada@example.org").await;
        super::settle(&app).await;
        assert_eq!(app.delete("/me", &ada).await.status, 204);
        assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await, 0);
        smtp.behave(crate::support::smtp::Behaviour::Accept);
        super::advance(&app, 61).await;
        app.register("ada@example.org").await;
        all_sent(&app).await;
        assert_eq!(smtp.count("ada@example.org", RESET), 0);
    }
}

/// The number of audit entries that `requests` cause once their mails are sent.
async fn entries(app: &App, requests: impl Future<Output = Answer>) -> (u16, i64) {
    let count = "SELECT count(*) FROM audit_entries";
    let before = app.database.number(count).await;
    let status = requests.await.status;
    all_sent(app).await;
    (status, app.database.number(count).await - before)
}

#[tokio::test]
async fn the_numbers_of_audit_entries_do_not_show_whether_an_address_has_an_account() {
    for (app, smtp) in mailing(verified_mode).await {
        for address in ["root@example.org", "known@example.org", "taken@example.org"] {
            app.create_user(address, "member").await;
        }
        let root = Credential::Token(app.new_token_of("root@example.org").await);
        all_sent(&app).await;
        app.clock.advance(3_601);
        for path in ["/password-reset", "/email-verification", "/register"] {
            let mut found = BTreeSet::new();
            for address in ["known@example.org", "unknown@example.org"] {
                let body = if path == "/register" { registration(address) } else { json!({ "email": address }) };
                found.insert(entries(&app, post(&app, path, &body)).await);
            }
            assert_eq!(found.into_iter().collect::<Vec<_>>(), [(202, 0)], "{path}");
        }
        let mut found = BTreeSet::new();
        for address in ["taken@example.org", "free@example.org"] {
            let body = json!({ "email": address, "current_password": PASSWORD });
            app.clock.advance(3_601);
            found.insert(entries(&app, app.patch("/me", &root, &body)).await);
        }
        assert_eq!(found.len(), 1, "a change to an address that is taken, and to a free one: {found:?}");
        smtp.wait_for_mail("known@example.org", RESET).await;
        smtp.wait_for_mail("known@example.org", EXISTS).await;
        smtp.wait_for_mail("taken@example.org", EXISTS).await;
    }
}

#[tokio::test]
async fn two_servers_on_one_database_keep_the_limit_of_an_address_together() {
    let smtp = SmtpServer::start().await;
    let configure = |settings: &mut Settings| smtp.configure(settings);
    let Some(app) = App::start_with(Backend::Postgres, Profile::Fastapi, configure).await else { return };
    let mut settings = Settings::defaults().unwrap();
    settings.server.listen = "127.0.0.1:0".parse().unwrap();
    settings.database = app.database.settings();
    settings.limits.enabled = false;
    settings.links.url = LINK_PAGE.to_owned();
    smtp.configure(&mut settings);
    let other = Server::start(&settings, app.clock.clone()).await.unwrap();
    let (handle, address) = (other.handle(), other.address());
    let client = crate::support::client::Client::new(&format!("http://{address}"));
    tokio::spawn(other.run());
    for round in 0..6 {
        let email = format!("user{round}@example.org");
        app.register(&email).await;
        all_sent(&app).await;
        let requests = (0..16).map(|number| {
            let (server, body) = (if number % 2 == 0 { &*app } else { &client }, json!({ "email": email }));
            async move { server.post("/password-reset", &Credential::None, &body).await.status }
        });
        let statuses = futures_util::future::join_all(requests).await;
        assert_eq!(statuses, [202; 16]);
        all_sent(&app).await;
        assert_eq!(smtp.count(&email, RESET), 1);
    }
    drop(handle.stop(false));
}

#[tokio::test]
async fn accounts_that_are_deleted_while_their_mails_are_decided_about_leave_no_mail_behind() {
    for (app, smtp) in mailing(|_| ()).await {
        for round in 0..5 {
            let email = format!("user{round}@example.org");
            let user = app.user(&email).await;
            let body = json!({ "email": email });
            let requests = (0..6).map(|_| post(&app, "/password-reset", &body));
            let deleted = async { app.delete("/me", &user).await.status };
            let (answers, deleted) = tokio::join!(futures_util::future::join_all(requests), deleted);
            assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
            assert_eq!(deleted, 204);
            all_sent(&app).await;
            assert!(smtp.count(&email, RESET) <= 1);
            let left = app.database.dump("outbox").await.join("\n");
            assert!(!left.is_empty() && !left.contains('@'), "{left}");
        }
    }
}

#[tokio::test]
async fn when_too_many_mails_wait_those_that_strangers_can_cause_are_dropped_and_notices_are_kept() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        all_sent(&app).await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        fill_outbox(&app).await;
        assert_eq!(request_reset(&app, "ada@example.org").await.status, 202);
        wait_until_none(&app, "accepted_at IS NULL").await;
        let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
        assert_eq!(app.put("/me/password", &ada, &body).await.status, 204);
        smtp.wait_for_mail("ada@example.org", PASSWORD_CHANGED).await;
        wait_until_none(&app, "done_at IS NULL AND due_at < '2098-01-01'").await;
        assert_eq!(smtp.count("ada@example.org", RESET), 0);
        assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await, 10_000);

        app.database.execute("DELETE FROM outbox WHERE due_at > '2098-01-01'").await;
        request_reset(&app, "ada@example.org").await;
        smtp.wait_for_mail("ada@example.org", RESET).await;
    }
}

#[tokio::test]
async fn an_address_gets_twenty_mails_of_a_kind_in_a_day() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        // Five in an hour.
        for number in 1..=22 {
            app.clock.advance(721);
            assert_eq!(request_reset(&app, "ada@example.org").await.status, 202);
            all_sent(&app).await;
            assert_eq!(smtp.count("ada@example.org", RESET), number.min(20));
        }
        app.clock.advance(86_400 - 21 * 721 + 10);
        request_reset(&app, "ada@example.org").await;
        smtp.wait_for_mails("ada@example.org", RESET, 21).await;
    }
}
