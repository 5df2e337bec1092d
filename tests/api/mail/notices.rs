//! Notices to users.

use latchkey::config::Settings;
use latchkey::domain::audit::RequestContext;
use latchkey::domain::secret::Digest;
use serde_json::json;

use super::{
    CHANGED, CONFIRM, EXISTS, NEW_KEY, PASSWORD_CHANGED, all_sent, change_email, confirm, confirm_reset, mailing,
    verified_user,
};
use crate::support::app::PASSWORD;
use crate::support::{App, Credential};

/// Signs in with a client address that a trusted proxy states.
async fn sign_in_from(app: &App, address: &str, password: &str) -> u16 {
    let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", password)];
    app.request("POST", "/token").header("X-Forwarded-For", address).form(&form).send().await.status
}

/// Signs in after five failed attempts.
async fn sign_in_after_failures(app: &App) {
    for _ in 0..5 {
        assert_ne!(sign_in_from(app, "192.0.2.1", "a wrong password").await, 200);
    }
    app.clock.advance(60);
    assert_eq!(sign_in_from(app, "192.0.2.1", PASSWORD).await, 200);
}

const ADA: &str = "ada@example.org";
const STOPPED: &str = "Sign-ins to your account are stopped";
const NETWORK: &str = "A sign-in from a new network";
const FAILURES: &str = "A sign-in after several failed ones";

/// The notices that an address gets at most once an hour.
const NOTICES: [&str; 7] = [PASSWORD_CHANGED, NEW_KEY, REQUESTED, EXISTS, STOPPED, FAILURES, NETWORK];
const REQUESTED: &str = "A change of your e-mail address was requested";

/// Does for the `number`th time what the owner of the account is told with this notice.
async fn cause(app: &App, notice: &str, number: u32) {
    let ada = async || Credential::Token(app.new_token_of(ADA).await);
    match notice {
        PASSWORD_CHANGED => {
            let link = app.service.create_reset_link(RequestContext::command_line(), 1.into()).await.unwrap().reveal();
            let (_, secret) = link.rsplit_once('/').unwrap();
            assert_eq!(confirm_reset(app, secret, PASSWORD).await.status, 204);
        }
        NEW_KEY => drop(app.key_of(&ada().await, &[]).await),
        REQUESTED => {
            let requested = change_email(app, &ada().await, &format!("new{number}@example.org")).await;
            assert_eq!(requested.status, 202);
        }
        EXISTS => {
            let eve = Credential::Token(app.new_token_of("eve@example.org").await);
            assert_eq!(change_email(app, &eve, ADA).await.status, 202);
        }
        FAILURES => sign_in_after_failures(app).await,
        NETWORK => assert_eq!(sign_in_from(app, &format!("198.51.{number}.1"), PASSWORD).await, 200),
        STOPPED => {
            // All failures but the last one of those that stop the account.
            let digest = Digest::of(ADA).to_hex();
            let times = "'2020-01-01 00:00:00', '2020-01-01 00:00:00'";
            let insert = "INSERT INTO sign_in_failures (account, failures, first_at, last_at)";
            let sql = format!("DELETE FROM sign_in_failures; {insert} VALUES ('{digest}', 2, {times})");
            app.database.execute(sql).await;
            assert_ne!(app.sign_in(ADA, "a wrong password").await.status, 200);
        }
        other => panic!("{other} is no notice"),
    }
}

#[tokio::test]
async fn each_notice_is_sent_at_most_once_an_hour() {
    for notice in NOTICES {
        let settings = |settings: &mut Settings| {
            settings.limits.enabled = [FAILURES, STOPPED].contains(&notice);
            settings.limits.account_stop = if notice == FAILURES { 1_000 } else { 3 };
            settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
        };
        for (app, smtp) in mailing(settings).await {
            for address in [ADA, "eve@example.org"] {
                verified_user(&app, address).await;
            }
            assert_eq!(sign_in_from(&app, "192.0.2.1", PASSWORD).await, 200);
            all_sent(&app).await;
            for (number, (wait, expected)) in (1..).zip([(0, 1), (61, 1), (0, 1), (3_600, 2), (0, 2)]) {
                app.clock.advance(wait);
                cause(&app, notice, number).await;
                all_sent(&app).await;
                assert_eq!(smtp.count(ADA, notice), expected, "{notice}, at time {number}");
            }
        }
    }
}

#[tokio::test]
async fn sign_ins_after_failures_and_from_new_networks_are_noticed_unless_the_user_turned_it_off() {
    let settings = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
    };
    for (app, smtp) in mailing(settings).await {
        verified_user(&app, "ada@example.org").await;
        assert_eq!(sign_in_from(&app, "192.0.2.1", PASSWORD).await, 200);
        assert_eq!(sign_in_from(&app, "192.0.2.200", PASSWORD).await, 200, "the same place");
        all_sent(&app).await;
        assert_eq!(smtp.count(ADA, NETWORK), 0, "the first place is no news");
        assert_eq!(sign_in_from(&app, "198.51.100.1", PASSWORD).await, 200);
        smtp.wait_for_mail(ADA, NETWORK).await;
        sign_in_after_failures(&app).await;
        smtp.wait_for_mail(ADA, FAILURES).await;

        app.clock.advance(3_601);
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let without_password = app.patch("/me", &ada, &json!({ "sign_in_notices": false })).await;
        assert_eq!(without_password.bad_fields(), ["current_password"], "a token alone does not silence them");
        let off = json!({ "sign_in_notices": false, "current_password": PASSWORD });
        assert_eq!(app.patch("/me", &ada, &off).await.body["sign_in_notices"], false);
        let again = app.patch("/me", &ada, &json!({ "sign_in_notices": false })).await;
        assert_eq!(again.status, 200, "they are off already: {again:?}");
        all_sent(&app).await;
        let before = [NETWORK, FAILURES].map(|notice| smtp.count(ADA, notice));
        assert_eq!(sign_in_from(&app, "203.0.113.1", PASSWORD).await, 200);
        sign_in_after_failures(&app).await;
        all_sent(&app).await;
        assert_eq!([NETWORK, FAILURES].map(|notice| smtp.count(ADA, notice)), before);
    }
}

#[tokio::test]
async fn a_network_is_new_again_after_ninety_days_without_a_sign_in_from_there() {
    let settings = |settings: &mut Settings| {
        settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
    };
    for (app, smtp) in mailing(settings).await {
        verified_user(&app, ADA).await;
        assert_eq!(sign_in_from(&app, "192.0.2.1", PASSWORD).await, 200);
        for (days, expected) in [(89, 0), (89, 0), (91, 1), (1, 1)] {
            app.clock.advance(days * 86_400);
            app.service.lifecycle().purge().run_once().await.unwrap();
            assert_eq!(sign_in_from(&app, "192.0.2.1", PASSWORD).await, 200);
            all_sent(&app).await;
            assert_eq!(smtp.count(ADA, NETWORK), expected, "after {days} days");
        }
    }
}

#[tokio::test]
async fn networks_are_known_from_sign_ins_before_an_smtp_server_is_set() {
    let without_mails = |settings: &mut Settings| settings.mail = Settings::defaults().unwrap().mail;
    for (app, _smtp) in mailing(without_mails).await {
        app.user(ADA).await;
        assert_eq!(app.database.number("SELECT count(*) FROM known_networks WHERE is_place").await, 1);
        assert_eq!(app.database.number("SELECT count(*) FROM outbox").await, 0);
    }
}

#[tokio::test]
async fn a_key_that_a_sign_in_issues_is_noticed_if_it_acts_on_the_account() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = app.admin(ADA).await;
        let (shop, _) = app.key_of(&root, &["keys:issue", "pages:read"]).await;
        all_sent(&app).await;
        for (number, (issuer, scope, expected)) in
            (1..).zip([(&root, "translate:use", 1), (&shop, "pages:read", 1), (&root, "pages:read", 2)])
        {
            app.clock.advance(3_601);
            let body = json!({ "name": format!("key {number}"), "scopes": [scope] });
            assert_eq!(app.post("/keys", issuer, &body).await.status, 201);
            all_sent(&app).await;
            assert_eq!(smtp.count(ADA, NEW_KEY), expected, "{scope}");
        }
    }
}

#[tokio::test]
async fn no_spelling_of_an_address_keeps_notices_from_its_owner() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "kate@example.org").await;
        let kate = Credential::Token(app.new_token_of("kate@example.org").await);
        // The Kelvin sign, which is a spelling of the letter k.
        let spelled = change_email(&app, &kate, "\u{212a}ate@example.org").await;
        assert_eq!((spelled.status, &spelled.body["email"]), (200, &json!("\u{212a}ate@example.org")));
        assert_eq!(change_email(&app, &kate, "eve@evil.example").await.status, 202);
        smtp.wait_for_mail("kate@example.org", REQUESTED).await;
        let mail = smtp.wait_for_mail("eve@evil.example", CONFIRM).await;
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        let link = smtp.wait_for_mail("kate@example.org", CHANGED).await;
        let undone = super::post(&app, "/email-change/undo", &json!({ "secret": link.secret() })).await;
        assert_eq!(undone.status, 200, "{undone:?}");
    }
}

#[tokio::test]
async fn the_owner_of_a_stopped_account_is_told() {
    let settings = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.limits.account_failures = 1;
        settings.limits.account_stop = 3;
        settings.limits.account_delay_max = 1;
    };
    for (app, smtp) in mailing(settings).await {
        verified_user(&app, "ada@example.org").await;
        for _ in 0..2 {
            app.sign_in("ada@example.org", "a wrong password").await;
            app.clock.advance(2);
        }
        app.clock.advance(3_700);
        app.sign_in("ada@example.org", "a wrong password").await;
        app.service.mail_delivery().wake();
        smtp.wait_for_mail("ada@example.org", STOPPED).await;
    }
}
