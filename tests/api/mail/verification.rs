//! Verification of e-mail addresses, and registrations that wait for it.

use latchkey::config::{RegistrationMode, Settings};
use serde_json::json;

use super::{NEW_PASSWORD, VERIFY, all_sent, mailing, post, verified_user};
use crate::support::app::{PASSWORD, registration};
use crate::support::{App, Credential};

const COMPLETE: &str = "Complete your registration";

fn verified_mode(settings: &mut Settings) {
    settings.registration.mode = RegistrationMode::Verified;
}

async fn confirm_registration(app: &App, secret: &str, password: &str) -> crate::support::Answer {
    post(app, "/registration/confirm", &json!({ "secret": secret, "password": password })).await
}

#[tokio::test]
async fn a_link_verifies_the_address() {
    for (app, smtp) in mailing(|_| ()).await {
        let ada = app.user("Ada@example.org").await;
        let mail = smtp.wait_for_mail("Ada@example.org", VERIFY).await;
        assert_eq!(app.get("/me", &ada).await.body["email_verified"], false);
        let authorized = app.get("/authz", &ada).await;
        let headers = ["remote-email", "remote-email-verified"].map(|name| authorized.header(name).to_owned());
        assert_eq!(headers, ["ada@example.org", "false"], "the address is canonical");
        let body = json!({ "secret": mail.secret() });
        assert_eq!(post(&app, "/email-verification/confirm", &body).await.status, 204);
        assert_eq!(app.get("/me", &ada).await.body["email_verified"], true);
        assert_eq!(app.get("/authz", &ada).await.header("remote-email-verified"), "true");
        let root = app.admin("root@example.org").await;
        let state = app.request("POST", "/introspect").credential(&root).form(&[("token", ada.secret())]).send().await;
        assert_eq!((&state.body["email_verified"], &state.body["username"]), (&json!(true), &json!("ada@example.org")));
        post(&app, "/email-verification/confirm", &body).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn a_verified_address_gets_no_further_link() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        all_sent(&app).await;
        let before = smtp.mails().len();
        app.clock.advance(61);
        assert_eq!(post(&app, "/email-verification", &json!({ "email": "ada@example.org" })).await.status, 202);
        all_sent(&app).await;
        assert_eq!(smtp.mails().len(), before);
    }
}

#[tokio::test]
async fn a_sign_in_can_require_a_verified_address() {
    for (app, smtp) in mailing(|settings| settings.auth.require_verified_email = true).await {
        app.register("ada@example.org").await;
        smtp.wait_for_mail("ada@example.org", VERIFY).await;
        app.clock.advance(61);
        let wrong = app.sign_in("ada@example.org", "a wrong password").await;
        assert_eq!(wrong.status, app.expected.bad_password, "only the right password learns more: {wrong:?}");
        app.sign_in("ada@example.org", PASSWORD).await.assert_error(400, "email_not_verified");
        app.begin_session("ada@example.org", PASSWORD).await.assert_error(403, "email_not_verified");
        all_sent(&app).await;
        let mails = smtp.wait_for(2).await;
        assert_eq!(mails.len(), 2, "the link is sent again, once in a minute");
        let body = json!({ "secret": mails[1].secret() });
        assert_eq!(post(&app, "/email-verification/confirm", &body).await.status, 204);
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn a_verified_registration_creates_the_account_with_link_and_password() {
    for (app, smtp) in mailing(verified_mode).await {
        let registered = app.register("ada@example.org").await;
        assert_eq!((registered.status, registered.text.as_str()), (202, ""));
        let mail = smtp.wait_for_mail("ada@example.org", COMPLETE).await;
        assert!(!mail.text.contains("Adaline"), "{}", mail.text);
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, app.expected.bad_password);
        confirm_registration(&app, mail.secret(), "a wrong password").await.assert_error(403, "wrong_password");
        assert_eq!(confirm_registration(&app, mail.secret(), PASSWORD).await.status, 204);
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let me = app.get("/me", &ada).await;
        assert_eq!((&me.body["name"], &me.body["email_verified"]), (&json!("Adaline"), &json!(true)));
        confirm_registration(&app, mail.secret(), PASSWORD).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn a_registration_of_a_stranger_does_not_get_the_account() {
    for (app, smtp) in mailing(verified_mode).await {
        // Eve registers the address of Ada with a password of her own, and Ada registers later.
        let mut eve = registration("ada@example.org");
        eve["password"] = NEW_PASSWORD.into();
        assert_eq!(post(&app, "/register", &eve).await.status, 202);
        let of_eve = smtp.wait_for_mail("ada@example.org", COMPLETE).await;
        app.clock.advance(61);
        assert_eq!(app.register("ada@example.org").await.status, 202);
        all_sent(&app).await;
        let mails = smtp.wait_for(2).await;
        confirm_registration(&app, of_eve.secret(), PASSWORD).await.assert_error(403, "wrong_password");
        assert_eq!(confirm_registration(&app, mails[1].secret(), PASSWORD).await.status, 204);
        confirm_registration(&app, of_eve.secret(), NEW_PASSWORD).await.assert_error(410, "link_invalid");
        assert_eq!(app.sign_in("ada@example.org", NEW_PASSWORD).await.status, app.expected.bad_password);
    }
}

#[tokio::test]
async fn a_verified_registration_does_not_reveal_accounts_and_tells_their_owner() {
    for (app, smtp) in mailing(verified_mode).await {
        let email = "ada@example.org";
        app.register(email).await;
        let mail = smtp.wait_for_mail(email, COMPLETE).await;
        assert_eq!(confirm_registration(&app, mail.secret(), PASSWORD).await.status, 204);
        let [taken, new] = [app.register(email).await, app.register("new@example.org").await];
        assert_eq!((taken.status, &taken.text, taken.headers.len()), (202, &new.text, new.headers.len()));
        let mail = smtp.wait_for_mail(email, "You already have an account").await;
        assert!(!mail.text.contains(crate::support::app::LINK_PAGE), "{}", mail.text);
    }
}

#[tokio::test]
async fn ten_wrong_passwords_end_a_registration() {
    for (app, smtp) in mailing(verified_mode).await {
        app.register("ada@example.org").await;
        let mail = smtp.wait_for_mail("ada@example.org", COMPLETE).await;
        for _ in 0..10 {
            confirm_registration(&app, mail.secret(), "a wrong password").await.assert_error(403, "wrong_password");
        }
        confirm_registration(&app, mail.secret(), PASSWORD).await.assert_error(410, "link_invalid");
        assert_eq!(app.database.number("SELECT count(*) FROM registrations").await, 0);
    }
}

#[tokio::test]
async fn a_registration_is_sent_again_on_request_and_at_most_three_wait_for_one_address() {
    for (app, smtp) in mailing(verified_mode).await {
        for _ in 0..5 {
            assert_eq!(app.register("ada@example.org").await.status, 202);
            app.clock.advance(61);
        }
        assert_eq!(app.database.number("SELECT count(*) FROM registrations").await, 3);
        all_sent(&app).await;
        app.clock.advance(3_600);
        let before = smtp.mails().len();
        assert_eq!(post(&app, "/email-verification", &json!({ "email": "ada@example.org" })).await.status, 202);
        let mails = smtp.wait_for(before + 1).await;
        assert_eq!(mails[before].subject, COMPLETE);
        assert_eq!(confirm_registration(&app, mails[before].secret(), PASSWORD).await.status, 204);
        assert_eq!(app.database.number("SELECT count(*) FROM registrations").await, 0);
    }
}

#[test]
fn settings_that_require_mails_require_an_smtp_server() {
    let load = |name: &str, value: &str| {
        Settings::load(None, [(format!("LATCHKEY__{name}"), value.to_owned())])
            .map(drop)
            .map_err(|error| error.to_string())
    };
    for (name, value) in [("REGISTRATION__MODE", "verified"), ("AUTH__REQUIRE_VERIFIED_EMAIL", "true")] {
        assert!(load(name, value).unwrap_err().contains("This requires mails. Set mail.url"), "{name}");
    }
    assert!(load("REGISTRATION__MODE", "invited").is_ok());
}
