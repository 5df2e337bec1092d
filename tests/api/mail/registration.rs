//! Registrations that wait for the proof of their address.

use latchkey::config::RegistrationMode;
use serde_json::{Value, json};

use super::{COMPLETE, EXISTS, NEW_PASSWORD, all_sent, mailing, post, stable_headers, verified_mode};
use crate::support::app::{LINK_PAGE, PASSWORD, registration};
use crate::support::links::store_link;
use crate::support::{Answer, App, Credential};

fn completion(secret: &str, password: &str) -> Value {
    json!({ "secret": secret, "name": "Adaline", "surname": "Lovelace", "website": "", "password": password })
}

async fn complete(app: &App, secret: &str) -> Answer {
    post(app, "/registration/confirm", &completion(secret, PASSWORD)).await
}

#[tokio::test]
async fn a_link_of_a_registration_creates_no_account_once_registration_is_closed() {
    for mode in [RegistrationMode::Closed, RegistrationMode::Invited] {
        for (app, _) in mailing(|settings| settings.registration.mode = mode).await {
            let secret = store_link(&app, "registration").await;
            complete(&app, &secret).await.assert_error(403, "registration_closed");
        }
    }
}

/// Registers an address with data that a stranger has chosen.
async fn register_as_stranger(app: &App, email: &str) {
    let mut stranger = registration(email);
    for (field, text) in [("name", "Stranger"), ("surname", "Mallory"), ("website", "evil"), ("password", NEW_PASSWORD)]
    {
        stranger[field] = text.into();
    }
    assert_eq!(post(app, "/register", &stranger).await.status, 202);
}

#[tokio::test]
async fn the_holder_of_the_link_chooses_everything_but_the_address() {
    for (app, smtp) in mailing(verified_mode).await {
        register_as_stranger(&app, "Ada@example.org").await;
        let mail = smtp.wait_for_mail("Ada@example.org", COMPLETE).await;
        assert!(!mail.raw.contains("Stranger"), "{}", mail.text);
        let stored = format!("{:?}", app.database.dump("registrations").await);
        for text in ["Stranger", "Mallory", "evil", "bcrypt"] {
            assert!(!stored.contains(text), "{stored}");
        }
        post(&app, "/registration/confirm", &completion(mail.secret(), "short")).await.assert_error(422, "invalid");
        let own = completion(mail.secret(), "ada@example.org");
        post(&app, "/registration/confirm", &own).await.assert_error(422, "invalid");
        let created = complete(&app, mail.secret()).await;
        assert_eq!((created.status, created.header("location")), (201, "/me"), "{created:?}");
        assert_eq!((&created.body["role"], &created.body["email_verified"]), (&json!("member"), &json!(true)));
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let me = app.get("/me", &ada).await.body;
        assert_eq!(
            (&me["name"], &me["email"], &me["website"]),
            (&json!("Adaline"), &json!("Ada@example.org"), &json!(""))
        );
        assert_eq!(app.sign_in("ada@example.org", NEW_PASSWORD).await.status, app.expected.bad_password);
        complete(&app, mail.secret()).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn any_live_link_of_an_address_completes_its_registration_whoever_requested_it() {
    for (app, smtp) in mailing(verified_mode).await {
        assert_eq!(app.register("ada@example.org").await.status, 202);
        let mail = smtp.wait_for_mail("ada@example.org", COMPLETE).await;
        all_sent(&app).await;
        for _ in 0..8 {
            app.clock.advance(61);
            register_as_stranger(&app, "ada@example.org").await;
            all_sent(&app).await;
        }
        assert_eq!(app.database.number("SELECT count(*) FROM registrations").await, 1);
        assert_eq!(smtp.mails().len(), 5, "five mails in an hour");
        assert_eq!(complete(&app, mail.secret()).await.status, 201, "no stranger ends the first link");
        complete(&app, smtp.mails()[4].secret()).await.assert_error(410, "link_invalid");
        let left = "SELECT (SELECT count(*) FROM registrations) + (SELECT count(*) FROM mail_secrets)";
        assert_eq!(app.database.number(left).await, 0);
    }
}

#[tokio::test]
async fn a_verified_registration_does_not_reveal_accounts_and_tells_their_owner() {
    for (app, smtp) in mailing(verified_mode).await {
        let email = "ada@example.org";
        app.register(email).await;
        let mail = smtp.wait_for_mail(email, COMPLETE).await;
        assert_eq!(complete(&app, mail.secret()).await.status, 201);
        let [taken, new] = [app.register(email).await, app.register("new@example.org").await];
        assert_eq!((taken.status, &taken.text, stable_headers(&taken)), (202, &new.text, stable_headers(&new)));
        let mail = smtp.wait_for_mail(email, EXISTS).await;
        assert!(!mail.text.contains(LINK_PAGE), "{}", mail.text);
        for bad in [json!({ "email": "nobody" }), json!({ "name": "Ada" }), json!({ "email": email, "age": 7 })] {
            post(&app, "/register", &bad).await.assert_error(422, "invalid");
        }
        assert_eq!(post(&app, "/register", &json!({ "email": "short@example.org" })).await.status, 202);
    }
}

#[tokio::test]
async fn a_registration_is_sent_again_on_request() {
    for (app, smtp) in mailing(verified_mode).await {
        assert_eq!(app.register("ada@example.org").await.status, 202);
        all_sent(&app).await;
        app.clock.advance(3_600);
        let before = smtp.mails().len();
        assert_eq!(post(&app, "/email-verification", &json!({ "email": "ada@example.org" })).await.status, 202);
        let mails = smtp.wait_for(before + 1).await;
        assert_eq!(mails[before].subject, COMPLETE);
        assert_eq!(complete(&app, mails[before].secret()).await.status, 201);
    }
}

#[tokio::test]
async fn the_address_of_a_disabled_user_gets_no_link() {
    for (app, smtp) in mailing(verified_mode).await {
        app.register("ada@example.org").await;
        let mail = smtp.wait_for_mail("ada@example.org", COMPLETE).await;
        assert_eq!(complete(&app, mail.secret()).await.status, 201);
        app.database.execute("UPDATE users SET disabled_at = created_at").await;
        app.clock.advance(3_600);
        let before = smtp.mails().len();
        assert_eq!(app.register("ada@example.org").await.status, 202);
        all_sent(&app).await;
        assert_eq!(smtp.mails().len(), before, "{:#?}", smtp.mails().last());
        assert_eq!(app.database.number("SELECT count(*) FROM mail_secrets").await, 0);
    }
}

#[tokio::test]
async fn the_language_of_a_verified_registration_is_that_of_the_browser() {
    for (app, smtp) in mailing(verified_mode).await {
        let request = app.request("POST", "/register").header("Accept-Language", "de-AT,de;q=0.9,en;q=0.5");
        assert_eq!(request.json(&registration("ada@example.org")).send().await.status, 202);
        let mail = smtp.wait_for_mail("ada@example.org", "Registrierung abschlie\u{df}en").await;
        assert_eq!(complete(&app, mail.secret()).await.body["language"], "de", "it is that of the account");
        assert_eq!(app.register("eve@example.org").await.status, 202);
        smtp.wait_for_mail("eve@example.org", COMPLETE).await;
    }
}
