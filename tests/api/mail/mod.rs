//! Mails and the links in them, against an SMTP server.

mod delays;
mod email_change;
mod failures;
mod invitations;
mod limits;
mod notices;
mod operator;
mod password_reset;
mod registration;
mod sending;
mod takeover;
mod verification;

use latchkey::config::Settings;
use latchkey::domain::audit::RequestContext;
use latchkey::domain::password::Password;
use latchkey::service::account::creation::Person;
use latchkey::service::account::registration::Registration;
use serde_json::{Value, json};

use crate::support::app::PASSWORD;
use crate::support::smtp::SmtpServer;
use crate::support::{Answer, App, Backend, Credential, Profile};

const RESET: &str = "Set a new password";
const VERIFY: &str = "Verify your e-mail address";
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
        if let Some(app) = App::start_with(backend, profile, settings).await {
            apps.push((app, smtp));
        }
    }
    apps
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
    let before = resets(smtp, email);
    assert_eq!(request_reset(app, email).await.status, 202);
    for _ in 0..400 {
        if resets(smtp, email) > before {
            return smtp.wait_for_mail(email, RESET).await.secret().to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("no mail to {email}: {:#?}", smtp.mails());
}

fn resets(smtp: &SmtpServer, email: &str) -> usize {
    smtp.mails().iter().filter(|mail| mail.to == email && mail.subject == RESET).count()
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

/// Advances the clock, and makes the server look for mails that are due.
async fn advance(app: &App, seconds: u32) {
    app.clock.advance(seconds);
    app.service.mail_delivery().wake();
}

/// Creates an admin in every mode of registration.
async fn created_admin(app: &App, email: &str) -> Credential {
    let person = Person {
        name: "Augusta".to_owned(),
        surname: String::new(),
        website: String::new(),
        password: Password::new(PASSWORD.to_owned()),
    };
    let user = Registration { person, email: email.to_owned() };
    app.service.create_user(RequestContext::command_line(), user, Some("admin")).await.unwrap();
    Credential::Token(app.new_token_of(email).await)
}

/// Registers a user with a verified address.
async fn verified_user(app: &App, email: &str) {
    assert_eq!(app.register(email).await.status, 201);
    app.database.execute(format!("UPDATE users SET email_verified_at = created_at WHERE email = '{email}'")).await;
}

/// Asserts that a user can sign in with this password, and not with the one of the registration if it is another.
async fn assert_password(app: &App, email: &str, password: &str) {
    assert_eq!(app.sign_in(email, password).await.status, 200);
    if password != PASSWORD {
        assert_eq!(app.sign_in(email, PASSWORD).await.status, app.expected.bad_password);
    }
}
