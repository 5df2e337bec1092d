//! Verification of e-mail addresses.

use latchkey::config::Settings;
use serde_json::json;

use super::{NEW_PASSWORD, VERIFY, all_sent, confirm, confirm_reset, mailing, post, reset_secret, verified_user};
use crate::support::Credential;
use crate::support::app::PASSWORD;

const CONFIRM: &str = "/email-verification/confirm";

#[tokio::test]
async fn a_link_verifies_the_address() {
    for (app, smtp) in mailing(|_| ()).await {
        let ada = app.user("Ada@example.org").await;
        let mail = smtp.wait_for_mail("Ada@example.org", VERIFY).await;
        assert_eq!(app.get("/me", &ada).await.body["email_verified"], false);
        let authorized = app.get("/authz", &ada).await;
        let headers = ["remote-email", "remote-email-verified"].map(|name| authorized.header(name).to_owned());
        assert_eq!(headers, ["ada@example.org", "false"], "the address is canonical");
        assert!(mail.text.contains("with your password"), "{}", mail.text);
        assert_eq!(confirm(&app, CONFIRM, mail.secret()).await.status, 204);
        assert_eq!(app.get("/me", &ada).await.body["email_verified"], true);
        assert_eq!(app.get("/authz", &ada).await.header("remote-email-verified"), "true");
        let root = app.admin("root@example.org").await;
        let state = app.request("POST", "/introspect").credential(&root).form(&[("token", ada.secret())]).send().await;
        assert_eq!((&state.body["email_verified"], &state.body["username"]), (&json!(true), &json!("ada@example.org")));
        confirm(&app, CONFIRM, mail.secret()).await.assert_error(410, "link_invalid");
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
        all_sent(&app).await;
        app.clock.advance(61);
        let wrong = app.sign_in("ada@example.org", "a wrong password").await;
        assert_eq!(wrong.status, app.expected.bad_password, "only the right password learns more: {wrong:?}");
        app.sign_in("ada@example.org", PASSWORD).await.assert_error(400, "email_not_verified");
        app.begin_session("ada@example.org", PASSWORD).await.assert_error(403, "email_not_verified");
        let refused = "action = 'user.sign_in' AND outcome = 'failure' AND detail = 'email_not_verified'";
        let entries = format!("SELECT count(*) FROM audit_entries WHERE {refused}");
        assert_eq!(app.database.number(entries).await, 2);
        all_sent(&app).await;
        let mails = smtp.wait_for(2).await;
        assert_eq!(mails.len(), 2, "the link is sent again, once in a minute");
        assert_eq!(confirm(&app, CONFIRM, mails[1].secret()).await.status, 204);
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn a_verification_requires_the_password_of_the_account_beside_the_link() {
    for (app, smtp) in mailing(|settings| settings.limits.enabled = true).await {
        // Eve registers the address of Ada, who opens the link.
        let eve = app.user("ada@example.org").await;
        let mail = smtp.wait_for_mail("ada@example.org", VERIFY).await;
        let by_ada = json!({ "secret": mail.secret(), "password": NEW_PASSWORD });
        post(&app, CONFIRM, &by_ada).await.assert_error(403, "wrong_password");
        assert_eq!(app.database.number("SELECT sum(failures) FROM sign_in_failures").await, 1, "a failed sign-in");
        assert_eq!(app.get("/me", &eve).await.body["email_verified"], false);
        // Ada gets the account with a reset, which verifies the address.
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        assert_eq!(confirm_reset(&app, &secret, NEW_PASSWORD).await.status, 204);
        assert_ne!(app.get("/me", &eve).await.status, 200);
        let ada = Credential::Token(app.sign_in("ada@example.org", NEW_PASSWORD).await.text_of("access_token"));
        assert_eq!(app.get("/me", &ada).await.body["email_verified"], true);
        post(&app, CONFIRM, &by_ada).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn parallel_verifications_give_no_extra_password_guesses() {
    for (app, smtp) in mailing(|settings| settings.limits.enabled = true).await {
        app.register("ada@example.org").await;
        let mail = smtp.wait_for_mail("ada@example.org", VERIFY).await;
        let guess = |number| {
            let body = json!({ "secret": mail.secret(), "password": format!("a wrong password {number}") });
            let app = &app;
            async move { post(app, CONFIRM, &body).await }
        };
        let answers = futures_util::future::join_all((0..20).map(guess)).await;
        assert!(answers.iter().all(|answer| [403, 429, 503].contains(&answer.status)), "{answers:#?}");
        // A guess that found the server busy is not counted, and gave no answer.
        for number in 20..25 {
            let answer = guess(number).await;
            assert!([403, 429].contains(&answer.status), "{answer:?}");
        }
        let failures = app.database.number("SELECT max(failures) FROM sign_in_failures").await;
        assert!((5..=6).contains(&failures), "the account must wait after five failures: {failures}");
        let right = confirm(&app, CONFIRM, mail.secret()).await;
        assert!([403, 429].contains(&right.status), "as at a sign-in: {right:?}");
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
