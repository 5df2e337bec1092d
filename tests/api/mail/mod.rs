//! Mails and the links in them, against an SMTP server.

mod delays;
mod email_change;
mod encryption;
mod failures;
mod invitations;
mod limits;
mod links;
mod notices;
mod operator;
mod password_reset;
mod purge;
mod registration;
mod sending;
mod strangers;
mod takeover;
mod unknown_addresses;
mod verification;

use std::collections::BTreeMap;

use latchkey::config::{RegistrationMode, Settings};
use serde_json::{Value, json};

use crate::support::app::PASSWORD;
use crate::support::smtp::SmtpServer;
use crate::support::{Answer, App, Backend, Credential, Profile};

const RESET: &str = "Set a new password";
const VERIFY: &str = "Verify your e-mail address";
const COMPLETE: &str = "Complete your registration";
const CONFIRM: &str = "Confirm your new e-mail address";
const CHANGED: &str = "Your e-mail address was changed";
const INVITATION: &str = "Invitation to auth.example.org";
const EXISTS: &str = "You already have an account";
const NEW_KEY: &str = "An API key was created or renewed";
const PASSWORD_CHANGED: &str = "Your password was changed";
const NEW_PASSWORD: &str = "another correct horse";

/// Servers on both databases, one in each profile, that send their mails to an SMTP server.
async fn mailing(change: impl Fn(&mut Settings)) -> Vec<(App, SmtpServer)> {
    let mut apps = Vec::new();
    for (backend, profile) in [(Backend::Sqlite, Profile::Fastapi), (Backend::Postgres, Profile::Rfc)] {
        let smtp = SmtpServer::start().await;
        let settings = |settings: &mut Settings| {
            smtp.configure(settings);
            change(settings);
        };
        if let Some(app) = App::start_with_stopped_clock(backend, profile, settings).await {
            apps.push((app, smtp));
        }
    }
    apps
}

/// Makes the server give up soon on an SMTP server that does not answer.
fn short_timeouts(settings: &mut Settings) {
    settings.mail.connect_timeout = 2;
    settings.mail.send_timeout = 2;
    settings.mail.answer_timeout = 2;
}

/// The mode of registration that requires the proof of an address.
fn verified_mode(settings: &mut Settings) {
    settings.registration.mode = RegistrationMode::Verified;
}

/// Sends a request without a credential.
async fn post(app: &App, path: &str, body: &Value) -> Answer {
    app.post(path, &Credential::None, body).await
}

async fn request_reset(app: &App, email: &str) -> Answer {
    post(app, "/password-reset", &json!({ "email": email })).await
}

/// Sends the secret of a link with the password of the registration.
async fn confirm(app: &App, path: &str, secret: &str) -> Answer {
    post(app, path, &json!({ "secret": secret, "password": PASSWORD })).await
}

/// Requests another address.
async fn change_email(app: &App, user: &Credential, email: &str) -> Answer {
    app.patch("/me", user, &json!({ "email": email, "current_password": PASSWORD })).await
}

async fn confirm_reset(app: &App, secret: &str, password: &str) -> Answer {
    post(app, "/password-reset/confirm", &json!({ "secret": secret, "new_password": password })).await
}

/// The secret of a link that resets the password of a registered user.
async fn reset_secret(app: &App, smtp: &SmtpServer, email: &str) -> String {
    let before = smtp.count(email, RESET);
    assert_eq!(request_reset(app, email).await.status, 202);
    smtp.wait_for_mails(email, RESET, before + 1).await.secret().to_owned()
}

/// Waits until the server has decided about all requests, and no attempt to send one is due or in progress. Valid up to
/// the second attempt.
async fn settle(app: &App) {
    wait_until_none(app, "done_at IS NULL AND (accepted_at IS NULL OR attempts = 0)").await;
    app.service.mail_delivery().finished().await;
}

/// Waits until the server has sent all mails.
async fn all_sent(app: &App) {
    wait_until_none(app, "done_at IS NULL").await;
}

async fn wait_until_none(app: &App, condition: &str) {
    for _ in 0..400 {
        if app.database.number(format!("SELECT count(*) FROM outbox WHERE {condition}")).await == 0 {
            return;
        }
        app.service.mail_delivery().wake();
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("mails are left: {:#?}", app.database.dump("outbox").await);
}

/// Waits until a condition holds.
async fn wait_until(condition: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the condition does not come true");
}

/// Advances the clock, and makes the server look for mails that are due.
async fn advance(app: &App, seconds: u32) {
    app.clock.advance(seconds);
    app.service.mail_delivery().wake();
}

/// Creates an admin in every mode of registration.
async fn created_admin(app: &App, email: &str) -> Credential {
    app.create_user(email, "admin").await;
    Credential::Token(app.new_token_of(email).await)
}

/// Registers a user with a verified address.
async fn verified_user(app: &App, email: &str) {
    assert_eq!(app.register(email).await.status, 201);
    verify(app, email).await;
}

/// Fills the outbox with as many waiting mails as may wait. They are not due.
async fn fill_outbox(app: &App) {
    app.database
        .execute(
            "INSERT INTO outbox (kind, address_key, address_digest, user_id, created_at, accepted_at, due_at, attempts,
                 unanswered)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
             SELECT 'email_verification', 'x@example.org', 'x', 1, created_at, created_at, '2099-01-01 00:00:00', 1, FALSE
             FROM n, users WHERE users.id = 1",
        )
        .await;
}

/// Records that an address is verified.
async fn verify(app: &App, email: &str) {
    app.database.execute(format!("UPDATE users SET email_verified_at = created_at WHERE email = '{email}'")).await;
}

/// The headers of a response, without those that differ at each request.
fn stable_headers(answer: &Answer) -> BTreeMap<String, String> {
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}")));
    headers.filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str())).collect()
}

/// Asserts that a user can sign in with this password, and not with the one of the registration if it is another.
async fn assert_password(app: &App, email: &str, password: &str) {
    assert_eq!(app.sign_in(email, password).await.status, 200);
    if password != PASSWORD {
        assert_eq!(app.sign_in(email, PASSWORD).await.status, app.expected.bad_password);
    }
}
