//! What people who do not own an account can do to it by mails, and what they cannot.

use latchkey::config::Settings;
use serde_json::json;

use super::{
    CHANGED, COMPLETE, CONFIRM, NEW_PASSWORD, RESET, all_sent, change_email, confirm, confirm_reset, mailing, post,
    request_reset, reset_secret, verified_mode, verified_user, verify,
};
use crate::support::app::{PASSWORD, registration};
use crate::support::links::store_link;
use crate::support::smtp::SmtpServer;
use crate::support::{App, Credential};

const ADA: &str = "ada@example.org";
const UNDO: &str = "Restore your e-mail address";
const EVE: &str = "eve@evil.example";

/// Changes the address of an account to another one, and confirms it.
async fn move_account(app: &App, smtp: &SmtpServer, from: &str, to: &str) {
    let user = Credential::Token(app.new_token_of(from).await);
    assert_eq!(change_email(app, &user, to).await.status, 202);
    let mail = smtp.wait_for_mail(to, CONFIRM).await;
    assert_eq!(confirm(app, "/email-change/confirm", mail.secret()).await.status, 204);
    all_sent(app).await;
}

/// Requests a reset of Ada's password from a client address.
async fn request_reset_from(app: &App, client: &str) {
    let body = json!({ "email": ADA });
    let request = app.request("POST", "/password-reset").header("X-Forwarded-For", client);
    assert_eq!(request.json(&body).send().await.status, 202);
    all_sent(app).await;
}

#[tokio::test]
async fn an_address_that_was_never_verified_cannot_undo_a_change_and_is_free_afterwards() {
    for (app, smtp) in mailing(|_| ()).await {
        // Eve registers the address of Ada, or mistypes her own.
        app.register(ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        assert_eq!(smtp.count(ADA, CHANGED), 0);
        assert_eq!(app.database.number("SELECT count(*) FROM replaced_emails").await, 0);
        assert_eq!(app.register(ADA).await.status, 201);
    }
}

#[tokio::test]
async fn the_owner_of_a_replaced_address_who_asks_for_a_new_password_gets_the_undo_link_again() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        let first = smtp.wait_for_mail(ADA, CHANGED).await;
        for (wait, expected) in [(0, 1), (0, 1), (61, 2)] {
            app.clock.advance(wait);
            assert_eq!(request_reset(&app, ADA).await.status, 202);
            all_sent(&app).await;
            assert_eq!((smtp.count(ADA, UNDO), smtp.count(ADA, RESET)), (expected, 0));
        }
        // Days later, strangers have requested as many as they could.
        for _ in 0..5 {
            app.clock.advance(86_400);
            for _ in 0..22 {
                assert_eq!(request_reset(&app, ADA).await.status, 202);
                app.clock.advance(721);
            }
            all_sent(&app).await;
        }
        let later = smtp.mails().into_iter().rfind(|mail| mail.subject == UNDO).unwrap();
        assert!(later.text.contains("hours") && !later.text.contains("7 days"), "{}", later.text);
        let undone = post(&app, "/email-change/undo", &json!({ "secret": first.secret() })).await;
        assert_eq!(undone.status, 200, "the first link is still valid: {undone:?}");
        post(&app, "/email-change/undo", &json!({ "secret": later.secret() })).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn the_undo_is_followed_by_a_mail_also_if_a_stranger_has_used_up_the_mails_of_the_address() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        for _ in 0..5 {
            drop(reset_secret(&app, &smtp, ADA).await);
            app.clock.advance(61);
        }
        move_account(&app, &smtp, ADA, EVE).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        assert_eq!(post(&app, "/email-change/undo", &json!({ "secret": link.secret() })).await.status, 200);
        // The page of the undo was closed before it set a password.
        let mail = smtp.wait_for_mail(ADA, "Your e-mail address was restored").await;
        assert_eq!(confirm_reset(&app, mail.secret(), NEW_PASSWORD).await.status, 204);
        assert_eq!(app.sign_in(ADA, NEW_PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn strangers_do_not_use_up_the_resets_of_a_user_who_has_signed_in_from_the_network() {
    let settings = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
    };
    for (app, smtp) in mailing(settings).await {
        verified_user(&app, ADA).await;
        let form = [("grant_type", "password"), ("username", ADA), ("password", PASSWORD)];
        let from_home = app.request("POST", "/token").header("X-Forwarded-For", "192.0.2.7").form(&form);
        assert_eq!(from_home.send().await.status, 200);
        for number in 0..7 {
            request_reset_from(&app, &format!("203.0.113.{number}")).await;
            app.clock.advance(61);
        }
        assert_eq!(smtp.count(ADA, RESET), 5, "strangers share the limits of the address");
        for expected in [6, 6] {
            request_reset_from(&app, "192.0.2.7").await;
            assert_eq!(smtp.count(ADA, RESET), expected, "the known network has limits of its own");
        }
    }
}

#[tokio::test]
async fn whoever_makes_many_networks_known_does_not_flood_the_address() {
    let settings = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.http.trusted_proxies = vec!["127.0.0.1".to_owned()].try_into().unwrap();
    };
    for is_verified in [false, true] {
        for (app, smtp) in mailing(settings).await {
            app.register(ADA).await;
            if is_verified {
                verify(&app, ADA).await;
            }
            for number in 0..16 {
                let client = format!("203.0.113.{number}");
                let form = [("grant_type", "password"), ("username", ADA), ("password", PASSWORD)];
                let signed_in = app.request("POST", "/token").header("X-Forwarded-For", &client).form(&form);
                assert_eq!(signed_in.send().await.status, 200);
                request_reset_from(&app, &client).await;
            }
            let expected = if is_verified { 10 } else { 1 };
            assert_eq!(smtp.count(ADA, RESET), expected, "verified: {is_verified}");
            for of_the_day in if is_verified { [20, 30, 40, 40].as_slice() } else { &[] } {
                app.clock.advance(3_601);
                for number in 0..12 {
                    request_reset_from(&app, &format!("203.0.113.{number}")).await;
                }
                assert_eq!(smtp.count(ADA, RESET), *of_the_day);
            }
        }
    }
}

#[tokio::test]
async fn an_account_has_the_spelling_of_the_link_and_the_language_of_whoever_opens_it() {
    for (app, smtp) in mailing(verified_mode).await {
        post(&app, "/register", &json!({ "email": "Ada@example.org" })).await;
        let mail = smtp.wait_for_mail("Ada@example.org", COMPLETE).await;
        let stranger = app.request("POST", "/register").header("Accept-Language", "de");
        assert_eq!(stranger.json(&json!({ "email": "aDA@EXAMPLE.org" })).send().await.status, 202);
        let body = json!({ "secret": mail.secret(), "name": "Adaline", "password": PASSWORD });
        let completed = app.request("POST", "/registration/confirm").header("Accept-Language", "en").json(&body);
        let completed = completed.send().await;
        let member = |name: &str| completed.body[name].clone();
        assert_eq!(
            (completed.status, member("email"), member("language")),
            (201, json!("Ada@example.org"), json!("en"))
        );
    }
}

#[tokio::test]
async fn a_replaced_address_gets_no_link_of_a_registration_that_it_cannot_complete() {
    for (app, smtp) in mailing(verified_mode).await {
        app.create_user(ADA, "member").await;
        verify(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        assert_eq!(app.register(ADA).await.status, 202);
        assert_eq!(post(&app, "/email-verification", &json!({ "email": ADA })).await.status, 202);
        all_sent(&app).await;
        assert_eq!(smtp.count(ADA, COMPLETE), 0);
    }
}

#[tokio::test]
async fn a_registration_is_not_completed_if_its_domain_is_no_longer_allowed() {
    let settings = |settings: &mut Settings| {
        verified_mode(settings);
        settings.registration.email_domains = serde_json::from_value(json!(["example.com"])).unwrap();
    };
    for (app, _smtp) in mailing(settings).await {
        let secret = store_link(&app, "registration").await;
        let body = json!({ "secret": secret, "name": "Adaline", "password": PASSWORD });
        assert_eq!(post(&app, "/registration/confirm", &body).await.bad_fields(), ["email"]);
    }
}

#[tokio::test]
async fn an_address_that_no_mail_can_reach_is_refused_if_mails_are_sent() {
    for (app, _smtp) in mailing(|_| ()).await {
        let ada = app.user(ADA).await;
        let root = app.admin("root@example.org").await;
        for email in ["a..b@example.org", ".a@example.org", "Zo\u{eb}@example.org"] {
            for answer in [
                post(&app, "/register", &registration(email)).await,
                change_email(&app, &ada, email).await,
                app.post("/users/invitations", &root, &json!({ "email": email })).await,
            ] {
                assert_eq!(answer.bad_fields(), ["email"], "{answer:?}");
            }
        }
    }
}
