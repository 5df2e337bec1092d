//! The change of an e-mail address.

use serde_json::json;

use super::{CHANGED, CONFIRM, EXISTS, all_sent, change_email, confirm, mailing, post, verified_user};
use crate::support::Credential;
use crate::support::app::PASSWORD;

#[tokio::test]
async fn a_new_address_is_pending_until_its_owner_confirms_it() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;
        let changed = change_email(&app, &ada, "Ada@new.example").await;
        assert_eq!((changed.status, &changed.body["email"]), (202, &json!("ada@example.org")), "{changed:?}");
        assert_eq!(changed.body["pending_email"], "Ada@new.example");
        smtp.wait_for_mail("ada@example.org", "A change of your e-mail address was requested").await;
        let mail = smtp.wait_for_mail("Ada@new.example", CONFIRM).await;
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200, "nothing has changed yet");
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        assert_ne!(app.get("/me", &ada).await.status, 200, "the sign-in has ended");
        let me = app.get("/me", &key).await;
        assert_eq!(me.status, 200, "keys stay");
        assert_eq!((&me.body["email"], &me.body["email_verified"]), (&json!("Ada@new.example"), &json!(true)));
        assert_eq!(me.body["pending_email"], json!(null));
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, app.expected.bad_password);
        assert_eq!(app.sign_in("ada@new.example", PASSWORD).await.status, 200);
        confirm(&app, "/email-change/confirm", mail.secret()).await.assert_error(410, "link_invalid");
        smtp.wait_for_mail("ada@example.org", CHANGED).await;
    }
}

#[tokio::test]
async fn a_later_request_replaces_an_earlier_one_and_the_present_address_ends_it() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        change_email(&app, &ada, "one@new.example").await;
        let one = smtp.wait_for_mail("one@new.example", CONFIRM).await;
        change_email(&app, &ada, "two@new.example").await;
        let two = smtp.wait_for_mail("two@new.example", CONFIRM).await;
        confirm(&app, "/email-change/confirm", one.secret()).await.assert_error(410, "link_invalid");
        let ended = change_email(&app, &ada, "ada@example.org").await;
        assert_eq!((ended.status, &ended.body["pending_email"]), (200, &json!(null)));
        confirm(&app, "/email-change/confirm", two.secret()).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn a_repeated_request_within_a_minute_keeps_the_first_link() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        change_email(&app, &ada, "ada@new.example").await;
        let mail = smtp.wait_for_mail("ada@new.example", CONFIRM).await;
        assert_eq!(change_email(&app, &ada, "Ada@New.example").await.status, 202);
        all_sent(&app).await;
        assert_eq!(smtp.count("ada@new.example", CONFIRM), 1, "one mail in a minute");
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        assert_eq!(app.sign_in("ada@new.example", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn a_change_requires_the_password_of_the_account_beside_the_link() {
    for (app, smtp) in mailing(|settings| settings.limits.enabled = true).await {
        verified_user(&app, "eve@example.org").await;
        let eve = Credential::Token(app.new_token_of("eve@example.org").await);
        change_email(&app, &eve, "ada@example.org").await;
        let mail = smtp.wait_for_mail("ada@example.org", CONFIRM).await;
        assert!(mail.text.contains("with your password"), "{}", mail.text);
        let by_ada = json!({ "secret": mail.secret(), "password": "the password of Ada" });
        for _ in 0..2 {
            let refused = post(&app, "/email-change/confirm", &by_ada).await;
            refused.assert_error(403, "wrong_password");
        }
        assert_eq!(
            app.database.number("SELECT sum(failures) FROM sign_in_failures").await,
            2,
            "failed sign-ins of Eve"
        );
        assert_eq!(app.get("/me", &eve).await.body["email"], "eve@example.org");
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204, "the link is not used up");
    }
}

#[tokio::test]
async fn a_taken_address_gets_the_same_answer_and_its_owner_is_told() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        verified_user(&app, "eve@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let taken = change_email(&app, &ada, "eve@example.org").await;
        assert_eq!((taken.status, &taken.body["pending_email"]), (202, &json!("eve@example.org")));
        smtp.wait_for_mail("eve@example.org", EXISTS).await;
        all_sent(&app).await;
        assert!(smtp.mails().iter().all(|mail| mail.subject != CONFIRM));
    }
}

#[tokio::test]
async fn an_address_that_is_taken_before_the_confirmation_is_not_given_away() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        change_email(&app, &ada, "eve@example.org").await;
        let mail = smtp.wait_for_mail("eve@example.org", CONFIRM).await;
        verified_user(&app, "eve@example.org").await;
        confirm(&app, "/email-change/confirm", mail.secret()).await.assert_error(410, "link_invalid");
        assert_eq!(app.get("/me", &ada).await.body["email"], "ada@example.org");
    }
}

#[tokio::test]
async fn without_an_smtp_server_the_address_changes_at_once_and_is_not_verified() {
    for (app, _smtp) in mailing(|settings| settings.mail = latchkey::config::Settings::defaults().unwrap().mail).await {
        verified_user(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let changed = change_email(&app, &ada, "ada@new.example").await;
        assert_eq!((changed.status, &changed.body["email"]), (200, &json!("ada@new.example")));
        assert_eq!((&changed.body["pending_email"], &changed.body["email_verified"]), (&json!(null), &json!(false)));
    }
}
