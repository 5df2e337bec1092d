//! Notices to users.

use serde_json::json;

use super::{NEW_PASSWORD, all_sent, mailing, verified_user};
use crate::support::app::PASSWORD;
use crate::support::{App, Credential};

fn count(smtp: &crate::support::smtp::SmtpServer, subject: &str) -> usize {
    smtp.mails().iter().filter(|mail| mail.subject == subject).count()
}

/// Signs in with a client address that a trusted proxy states.
async fn sign_in_from(app: &App, address: &str, password: &str) -> u16 {
    let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", password)];
    app.request("POST", "/token").header("X-Forwarded-For", address).form(&form).send().await.status
}

#[tokio::test]
async fn a_new_password_and_a_new_key_are_noticed_once_an_hour() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        for _ in 0..3 {
            app.key_of(&ada, &[]).await;
        }
        smtp.wait_for_mail("ada@example.org", "An API key was created").await;
        all_sent(&app).await;
        assert_eq!(count(&smtp, "An API key was created"), 1);
        app.clock.advance(3_601);
        app.key_of(&ada, &[]).await;
        all_sent(&app).await;
        assert_eq!(count(&smtp, "An API key was created"), 2);
        let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
        assert_eq!(app.put("/me/password", &ada, &body).await.status, 204);
        smtp.wait_for_mail("ada@example.org", "Your password was changed").await;
    }
}

#[tokio::test]
async fn sign_ins_after_failures_and_from_new_networks_are_noticed_unless_the_user_turned_it_off() {
    let settings = |settings: &mut latchkey::config::Settings| {
        settings.limits.enabled = true;
        settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
    };
    for (app, smtp) in mailing(settings).await {
        verified_user(&app, "ada@example.org").await;
        let (network, failures) = ("A sign-in from a new network", "A sign-in after several failed ones");
        assert_eq!(sign_in_from(&app, "192.0.2.1", PASSWORD).await, 200);
        assert_eq!(sign_in_from(&app, "192.0.2.200", PASSWORD).await, 200, "the same place");
        all_sent(&app).await;
        assert_eq!(count(&smtp, network), 0, "the first place is no news");
        assert_eq!(sign_in_from(&app, "198.51.100.1", PASSWORD).await, 200);
        smtp.wait_for_mail("ada@example.org", network).await;

        for _ in 0..5 {
            assert_ne!(sign_in_from(&app, "198.51.100.1", "a wrong password").await, 200);
        }
        app.clock.advance(60);
        assert_eq!(sign_in_from(&app, "198.51.100.1", PASSWORD).await, 200);
        smtp.wait_for_mail("ada@example.org", failures).await;

        app.clock.advance(3_601);
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let without_password = app.patch("/me", &ada, &json!({ "sign_in_notices": false })).await;
        assert_eq!(without_password.bad_fields(), ["current_password"], "a token alone does not silence them");
        let off = json!({ "sign_in_notices": false, "current_password": PASSWORD });
        assert_eq!(app.patch("/me", &ada, &off).await.body["sign_in_notices"], false);
        let again = app.patch("/me", &ada, &json!({ "sign_in_notices": false })).await;
        assert_eq!(again.status, 200, "they are off already: {again:?}");
        all_sent(&app).await;
        let before = count(&smtp, network);
        assert_eq!(sign_in_from(&app, "203.0.113.1", PASSWORD).await, 200);
        all_sent(&app).await;
        assert_eq!(count(&smtp, network), before);
    }
}

#[tokio::test]
async fn no_spelling_of_an_address_keeps_notices_from_its_owner() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "kate@example.org").await;
        let kate = Credential::Token(app.new_token_of("kate@example.org").await);
        // The Kelvin sign, which is a spelling of the letter k.
        let spelled = super::change_email(&app, &kate, "\u{212a}ate@example.org").await;
        assert_eq!((spelled.status, &spelled.body["email"]), (200, &json!("\u{212a}ate@example.org")));
        assert_eq!(super::change_email(&app, &kate, "eve@evil.example").await.status, 202);
        smtp.wait_for_mail("kate@example.org", "A change of your e-mail address was requested").await;
        let mail = smtp.wait_for_mail("eve@evil.example", "Confirm your new e-mail address").await;
        assert_eq!(super::confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        let link = smtp.wait_for_mail("kate@example.org", "Your e-mail address was changed").await;
        let undone = super::post(&app, "/email-change/undo", &json!({ "secret": link.secret() })).await;
        assert_eq!(undone.status, 200, "{undone:?}");
    }
}

#[tokio::test]
async fn the_owner_of_a_stopped_account_is_told() {
    let settings = |settings: &mut latchkey::config::Settings| {
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
        smtp.wait_for_mail("ada@example.org", "Sign-ins to your account are stopped").await;
    }
}
