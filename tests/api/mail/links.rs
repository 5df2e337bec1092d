//! What the links of all purposes have in common.

use std::collections::BTreeMap;

use latchkey::domain::secret::{Secret, SecretKind};
use serde_json::{Value, json};

use super::{
    CHANGED, COMPLETE, CONFIRM, INVITATION, NEW_PASSWORD, RESET, VERIFY, change_email, confirm, created_admin, mailing,
    post, request_reset, stable_headers, verified_mode, verify,
};
use crate::support::app::PASSWORD;
use crate::support::smtp::SmtpServer;
use crate::support::{Answer, App, Credential};

/// What a link does, where its secret is sent, and the status of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Purpose {
    name: &'static str,
    path: &'static str,
    success: u16,
    /// Seconds for which a link is valid.
    life: u32,
}

const PURPOSES: [Purpose; 6] = [
    Purpose { name: "password_reset", path: "/password-reset/confirm", success: 204, life: 30 * 60 },
    Purpose { name: "email_verification", path: "/email-verification/confirm", success: 204, life: 24 * 3_600 },
    Purpose { name: "registration", path: "/registration/confirm", success: 201, life: 24 * 3_600 },
    Purpose { name: "email_change", path: "/email-change/confirm", success: 204, life: 60 * 60 },
    Purpose { name: "email_undo", path: "/email-change/undo", success: 200, life: 7 * 86_400 },
    Purpose { name: "invitation", path: "/invitations/accept", success: 201, life: 72 * 3_600 },
];

const ROOT: &str = "root@example.org";

impl Purpose {
    fn acts_on_user(self) -> bool {
        !["registration", "invitation"].contains(&self.name)
    }

    /// Sends the secret of a link as its page does.
    async fn redeem(self, app: &App, secret: &str) -> Answer {
        let body = match self.name {
            "password_reset" => json!({ "secret": secret, "new_password": NEW_PASSWORD }),
            "email_undo" => json!({ "secret": secret }),
            "registration" | "invitation" => {
                json!({ "secret": secret, "name": "Adaline", "surname": "", "password": PASSWORD })
            }
            _ => json!({ "secret": secret, "password": PASSWORD }),
        };
        post(app, self.path, &body).await
    }

    /// Prepares an account, a registration or an invitation, and returns the secret of a link that is sent by mail.
    async fn first_link(self, app: &App, smtp: &SmtpServer, email: &str) -> String {
        if self.acts_on_user() {
            app.create_user(email, "member").await;
        }
        match self.name {
            "email_verification" => smtp.wait_for_mail(email, VERIFY).await.secret().to_owned(),
            "email_undo" => {
                let link = request_change(app, smtp, email).await;
                verify(app, email).await;
                assert_eq!(confirm(app, "/email-change/confirm", &link).await.status, 204);
                smtp.wait_for_mail(email, CHANGED).await.secret().to_owned()
            }
            "invitation" => {
                let invited = app.post("/users/invitations", &root(app).await, &json!({ "email": email })).await;
                assert_eq!(invited.status, 201, "{invited:?}");
                smtp.wait_for_mail(email, INVITATION).await.secret().to_owned()
            }
            _ => self.next_link(app, smtp, email).await,
        }
    }

    /// Requests a link, and returns its secret when it is sent. The change of an address that can be undone cannot be
    /// repeated.
    async fn next_link(self, app: &App, smtp: &SmtpServer, email: &str) -> String {
        let (to, subject) = match self.name {
            "password_reset" => (email.to_owned(), RESET),
            "email_verification" => (email.to_owned(), VERIFY),
            "registration" => (email.to_owned(), COMPLETE),
            "invitation" => (email.to_owned(), INVITATION),
            _ => return request_change(app, smtp, email).await,
        };
        let before = smtp.count(&to, subject);
        let requested = match self.name {
            "password_reset" => request_reset(app, email).await,
            "email_verification" => post(app, "/email-verification", &json!({ "email": email })).await,
            "registration" => app.register(email).await,
            _ => {
                let id = app.database.number(format!("SELECT id FROM invitations WHERE email = '{email}'")).await;
                let path = format!("/users/invitations/{id}/resend");
                app.request("POST", &path).credential(&root(app).await).send().await
            }
        };
        assert!([200, 202].contains(&requested.status), "{requested:?}");
        smtp.wait_for_mails(&to, subject, before + 1).await.secret().to_owned()
    }
}

/// Requests the change of an address to one that starts with `new-`. Returns the secret of the link that confirms it.
async fn request_change(app: &App, smtp: &SmtpServer, email: &str) -> String {
    let (user, to) = (Credential::Token(app.new_token_of(email).await), format!("new-{email}"));
    let before = smtp.count(&to, CONFIRM);
    assert_eq!(change_email(app, &user, &to).await.status, 202);
    smtp.wait_for_mails(&to, CONFIRM, before + 1).await.secret().to_owned()
}

/// A new sign-in of the admin: the one before ends when the clock is advanced.
async fn root(app: &App) -> Credential {
    Credential::Token(app.new_token_of(ROOT).await)
}

/// Servers on which every purpose can be used.
async fn apps() -> Vec<(App, SmtpServer)> {
    let apps = mailing(verified_mode).await;
    for (app, _) in &apps {
        created_admin(app, ROOT).await;
    }
    apps
}

#[tokio::test]
async fn of_parallel_uses_of_a_link_one_succeeds() {
    for (app, smtp) in apps().await {
        for purpose in PURPOSES {
            let secret = purpose.first_link(&app, &smtp, &format!("{}@example.org", purpose.name)).await;
            let uses = futures_util::future::join_all((0..32).map(|_| purpose.redeem(&app, &secret))).await;
            // A server that is busy has used nothing.
            let statuses: Vec<u16> = uses.iter().map(|answer| answer.status).filter(|status| *status != 503).collect();
            let successes = statuses.iter().filter(|status| **status == purpose.success).count();
            assert_eq!(successes, 1, "{purpose:?}: {statuses:?}");
            assert!(statuses.iter().all(|status| [purpose.success, 410].contains(status)), "{purpose:?}: {statuses:?}");
        }
    }
}

#[tokio::test]
async fn get_and_head_change_nothing_wherever_the_secret_is() {
    for (app, smtp) in apps().await {
        for purpose in PURPOSES {
            let secret = purpose.first_link(&app, &smtp, &format!("{}@example.org", purpose.name)).await;
            let page = purpose.name.replace('_', "-");
            let before = app.database.dump("mail_secrets").await;
            for (path, status) in [
                (format!("{}?secret={secret}", purpose.path), 405),
                (format!("{}/{secret}", purpose.path), 404),
                (format!("/{page}/{secret}"), 404),
                (format!("/console/?secret={secret}"), 200),
                (format!("/console/{page}/{secret}"), 404),
                (format!("/console/%23/{page}/{secret}"), 404),
            ] {
                for method in ["GET", "HEAD"] {
                    assert_eq!(app.request(method, &path).send().await.status, status, "{method} {path}");
                }
            }
            assert_eq!(app.database.dump("mail_secrets").await, before, "{purpose:?}");
            let used = purpose.redeem(&app, &secret).await;
            assert_eq!(used.status, purpose.success, "{purpose:?}: {used:?}");
        }
    }
}

#[tokio::test]
async fn a_link_is_valid_until_its_end() {
    for (app, smtp) in apps().await {
        for purpose in PURPOSES {
            let mut links = Vec::new();
            for number in 0..2 {
                let email = format!("{}{number}@example.org", purpose.name);
                links.push(purpose.first_link(&app, &smtp, &email).await);
            }
            app.clock.advance(purpose.life - 10);
            let used = purpose.redeem(&app, &links[0]).await;
            assert_eq!(used.status, purpose.success, "{purpose:?}, before the end: {used:?}");
            for (wait, when) in [(10, "at the end"), (1, "after the end")] {
                app.clock.advance(wait);
                let refused = purpose.redeem(&app, &links[1]).await;
                assert_eq!(
                    (refused.status, &refused.body["code"]),
                    (410, &json!("link_invalid")),
                    "{purpose:?}, {when}"
                );
            }
        }
    }
}

/// What makes a link useless.
const WAYS: [&str; 6] = ["used", "superseded", "of another address", "disabled", "deleted", "new password"];

/// Makes a link useless. Returns whether the way applies to its purpose.
async fn spoil(app: &App, smtp: &SmtpServer, purpose: Purpose, way: &str, (email, secret): (&str, &str)) -> bool {
    let id = format!("SELECT id FROM users WHERE email IN ('{email}', 'new-{email}')");
    match (way, purpose.name) {
        ("used", _) => assert_eq!(purpose.redeem(app, secret).await.status, purpose.success),
        ("superseded", "email_undo") => return false,
        ("superseded", _) => {
            app.clock.advance(61);
            let newer = purpose.next_link(app, smtp, email).await;
            assert_eq!(purpose.redeem(app, &newer).await.status, purpose.success);
        }
        ("of another address", "registration" | "invitation") => app.create_user(email, "member").await,
        ("of another address", "email_change") => {
            let user = Credential::Token(app.new_token_of(email).await);
            assert_eq!(change_email(app, &user, &format!("other-{email}")).await.status, 202);
        }
        ("of another address", "email_undo") => {
            let of_root = format!("UPDATE replaced_emails SET user_id = 1 WHERE email = '{email}'");
            app.database.execute(of_root).await;
        }
        ("of another address", _) => {
            let set = format!("UPDATE users SET email = 'other-{email}', email_key = 'other-{email}'");
            app.database.execute(format!("{set} WHERE email = '{email}'")).await;
        }
        ("deleted", "invitation") => {
            let id = app.database.number(format!("SELECT id FROM invitations WHERE email = '{email}'")).await;
            let revoked = app.delete(&format!("/users/invitations/{id}"), &root(app).await).await;
            assert_eq!(revoked.status, 204, "{revoked:?}");
        }
        ("disabled" | "deleted", "registration" | "invitation") => return false,
        ("disabled", _) => {
            let path = format!("/users/{}", app.database.number(id).await);
            let disabled = app.patch(&path, &root(app).await, &json!({ "disabled": true })).await;
            assert_eq!(disabled.status, 200, "{disabled:?}");
        }
        ("deleted", _) => {
            let path = format!("/users/{}", app.database.number(id).await);
            assert_eq!(app.delete(&path, &root(app).await).await.status, 204);
        }
        ("new password", "password_reset" | "email_change") => {
            let user = Credential::Token(app.new_token_of(email).await);
            let body = json!({ "current_password": PASSWORD, "new_password": "a third password" });
            assert_eq!(app.put("/me/password", &user, &body).await.status, 204);
        }
        _ => return false,
    }
    true
}

/// A response without what differs at each request.
fn comparable(mut answer: Answer) -> (u16, Value, BTreeMap<String, String>) {
    answer.body["request_id"] = json!(null);
    let headers = stable_headers(&answer);
    (answer.status, answer.body, headers)
}

#[tokio::test]
async fn every_link_that_is_not_valid_gets_the_same_response_at_every_route() {
    for (app, smtp) in apps().await {
        let tim = app.create_user("tim@example.org", "member");
        tim.await;
        let token = app.new_token_of("tim@example.org").await;
        let unknown = Secret::generate(SecretKind::Mail).unwrap().reveal();
        let mut refused = Vec::new();
        for purpose in PURPOSES {
            for secret in ["", "lkm_x", &token, &unknown] {
                refused.push((format!("{purpose:?}, {secret:?}"), purpose.redeem(&app, secret).await));
            }
            let own = purpose.first_link(&app, &smtp, &format!("{}@example.org", purpose.name)).await;
            for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
                refused.push((format!("{purpose:?} at {}", other.path), other.redeem(&app, &own).await));
            }
            let used = purpose.redeem(&app, &own).await;
            assert_eq!(used.status, purpose.success, "{purpose:?}: no other route uses it up: {used:?}");
            for (number, way) in WAYS.into_iter().enumerate() {
                let email = format!("{}{number}@example.org", purpose.name);
                let secret = purpose.first_link(&app, &smtp, &email).await;
                if spoil(&app, &smtp, purpose, way, (&email, &secret)).await {
                    refused.push((format!("{purpose:?}, {way}"), purpose.redeem(&app, &secret).await));
                }
            }
            let expired = purpose.first_link(&app, &smtp, &format!("expired-{}@example.org", purpose.name)).await;
            app.clock.advance(purpose.life);
            refused.push((format!("{purpose:?}, expired"), purpose.redeem(&app, &expired).await));
        }
        refused[0].1.assert_error(410, "link_invalid");
        let mut answers = refused.into_iter().map(|(what, answer)| (what, comparable(answer)));
        let (_, first) = answers.next().unwrap();
        for (what, answer) in answers {
            assert_eq!(answer, first, "{what}");
        }
    }
}
