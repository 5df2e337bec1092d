//! Invitations.

use latchkey::config::{RegistrationMode, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{INVITATION, all_sent, change_email, confirm, created_admin, mailing, post, verified_user};
use crate::support::app::{LINK_PAGE, PASSWORD};
use crate::support::program::{Serving, latchkey, out, run};
use crate::support::smtp::SmtpServer;
use crate::support::{Answer, App, Credential, specify_database};

fn acceptance(secret: &str) -> Value {
    json!({ "secret": secret, "name": "Adaline", "surname": "Lovelace", "website": "", "password": PASSWORD })
}

async fn accept(app: &App, secret: &str) -> Answer {
    post(app, "/invitations/accept", &acceptance(secret)).await
}

async fn resend(app: &App, root: &Credential, id: &Value) -> Answer {
    app.request("POST", &format!("/users/invitations/{id}/resend")).credential(root).send().await
}

#[tokio::test]
async fn an_invited_person_creates_an_account_with_the_role_of_the_invitation() {
    for mode in [RegistrationMode::Invited, RegistrationMode::Closed] {
        accept_in(mode).await;
    }
}

/// Accepts an invitation in a mode in which nobody can register.
async fn accept_in(mode: RegistrationMode) {
    for (app, smtp) in mailing(|settings: &mut Settings| settings.registration.mode = mode).await {
        let root = created_admin(&app, "root@example.org").await;
        app.register("ada@example.org").await.assert_error(403, "registration_closed");
        let invited =
            app.post("/users/invitations", &root, &json!({ "email": "Ada@example.org", "role": "auditor" })).await;
        assert_eq!((invited.status, &invited.body["email"]), (201, &json!("Ada@example.org")), "{invited:?}");
        assert_eq!(invited.header("location"), format!("/users/invitations/{}", invited.body["id"]));
        let mail = smtp.wait_for_mail("Ada@example.org", INVITATION).await;
        let mut bad = acceptance(mail.secret());
        bad["name"] = "".into();
        post(&app, "/invitations/accept", &bad).await.assert_error(422, "invalid");
        let accepted = accept(&app, mail.secret()).await;
        assert_eq!((accepted.status, &accepted.body["role"]), (201, &json!("auditor")), "{accepted:?}");
        assert_eq!(
            (&accepted.body["email"], &accepted.body["email_verified"]),
            (&json!("Ada@example.org"), &json!(true))
        );
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
        accept(&app, mail.secret()).await.assert_error(410, "link_invalid");
        assert_eq!(app.get("/users/invitations", &root).await.body["items"], json!([]));
    }
}

#[tokio::test]
async fn invitations_are_listed_sent_again_and_revoked() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        let body = json!({ "email": "ada@example.org" });
        let id = app.post("/users/invitations", &root, &body).await.body["id"].clone();
        app.post("/users/invitations", &root, &body).await.assert_error(409, "already_invited");
        app.post("/users/invitations", &root, &json!({ "email": "root@example.org" }))
            .await
            .assert_error(409, "email_taken");
        app.post("/users/invitations", &root, &json!({ "email": "x", "role": "y" })).await.assert_error(422, "invalid");
        let first = smtp.wait_for_mail("ada@example.org", INVITATION).await;
        app.clock.advance(73 * 3_600);
        accept(&app, first.secret()).await.assert_error(410, "link_invalid");
        let root = Credential::Token(app.new_token_of("root@example.org").await);
        let before = smtp.mails().len();
        let again = resend(&app, &root, &id).await;
        assert_eq!(again.status, 200, "{again:?}");
        let second = smtp.wait_for(before + 1).await.pop().unwrap();
        let listed = app.get("/users/invitations", &root).await;
        assert_eq!((&listed.body["items"][0], &listed.body["next"]), (&again.body, &json!(null)));
        assert_eq!(app.delete(&format!("/users/invitations/{id}"), &root).await.status, 204);
        accept(&app, second.secret()).await.assert_error(410, "link_invalid");
        app.delete(&format!("/users/invitations/{id}"), &root).await.assert_error(404, "not_found");
        resend(&app, &root, &id).await.assert_error(404, "not_found");
    }
}

#[tokio::test]
async fn a_caller_cannot_invite_to_a_role_that_it_cannot_give() {
    for (app, _smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        let (key, _) = app.key_of(&root, &["users:write", "users:read"]).await;
        let refused =
            app.post("/users/invitations", &key, &json!({ "email": "ada@example.org", "role": "admin" })).await;
        refused.assert_error(422, "invalid");
        assert_eq!(app.post("/users/invitations", &key, &json!({ "email": "ada@example.org" })).await.status, 201);
    }
}

#[tokio::test]
async fn beyond_the_limits_an_invitation_is_refused_so_that_no_mail_is_lost_silently() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        let body = json!({ "email": "ada@example.org", "language": "de" });
        let id = app.post("/users/invitations", &root, &body).await.body["id"].clone();
        for _ in 0..4 {
            assert_eq!(resend(&app, &root, &id).await.status, 200);
        }
        // The mails may not be sent yet, and count nevertheless.
        let refused = resend(&app, &root, &id).await;
        assert_eq!((refused.status, refused.header("ratelimit-limit")), (429, "5"), "{refused:?}");
        assert!((3_500..=3_600).contains(&refused.header("retry-after").parse::<i64>().unwrap()), "{refused:?}");
        all_sent(&app).await;
        assert_eq!(app.delete(&format!("/users/invitations/{id}"), &root).await.status, 204);
        assert_eq!(app.post("/users/invitations", &root, &body).await.status, 429);
        let mails = smtp.mails().into_iter().filter(|mail| mail.to == "ada@example.org");
        assert!(mails.clone().count() == 5 && mails.clone().all(|mail| mail.subject.starts_with("Einladung")));
        app.clock.advance(3_601);
        assert_eq!(app.post("/users/invitations", &root, &body).await.status, 201);
        let unknown = json!({ "email": "eve@example.org", "language": "fr" });
        assert_eq!(app.post("/users/invitations", &root, &unknown).await.bad_fields(), ["language"]);
    }
}

async fn invite(app: &App, by: &Credential, email: &str, role: &str) -> Value {
    let invited = app.post("/users/invitations", by, &json!({ "email": email, "role": role })).await;
    assert_eq!(invited.status, 201, "{invited:?}");
    invited.body["id"].clone()
}

#[tokio::test]
async fn an_invitation_ends_with_a_registration_of_its_address_and_with_the_deletion_of_its_account() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        invite(&app, &root, "bob@example.org", "admin").await;
        let mail = smtp.wait_for_mail("bob@example.org", INVITATION).await;
        let bob = app.user("bob@example.org").await;
        assert_eq!(app.get("/users/invitations", &root).await.body["items"], json!([]));
        accept(&app, mail.secret()).await.assert_error(410, "link_invalid");
        // As a request at the same time as the registration would leave it.
        let insert = "INSERT INTO invitations (email, email_key, role, locale, created_at, expires_at) VALUES";
        let values =
            "('bob@example.org', 'bob@example.org', 'admin', 'en', '2020-01-01 00:00:00', '2100-01-01 00:00:00')";
        app.database.execute(format!("{insert} {values}")).await;
        assert_eq!(app.delete("/me", &bob).await.status, 204);
        assert_eq!(app.database.number("SELECT count(*) FROM invitations").await, 0);
    }
}

#[tokio::test]
async fn an_invitation_ends_when_an_account_changes_to_its_address() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        verified_user(&app, "bob@example.org").await;
        let bob = Credential::Token(app.new_token_of("bob@example.org").await);
        change_email(&app, &bob, "bob@new.example").await;
        let mail = smtp.wait_for_mail("bob@new.example", super::CONFIRM).await;
        invite(&app, &root, "bob@new.example", "auditor").await;
        let invitation = smtp.wait_for_mail("bob@new.example", INVITATION).await;
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        accept(&app, invitation.secret()).await.assert_error(410, "link_invalid");
        assert_eq!(app.database.number("SELECT count(*) FROM invitations").await, 0);
    }
}

#[tokio::test]
async fn an_invitation_is_of_no_use_when_its_inviter_can_no_longer_give_the_role() {
    for change in ["disabled", "demoted", "deleted"] {
        for (app, smtp) in mailing(|_| ()).await {
            let root = created_admin(&app, "root@example.org").await;
            let inviter = created_admin(&app, "inviter@example.org").await;
            let id = app.get("/me", &inviter).await.body["id"].clone();
            let invitation = invite(&app, &inviter, "mallory@example.org", "admin").await;
            let mail = smtp.wait_for_mail("mallory@example.org", INVITATION).await;
            let path = format!("/users/{id}");
            let status = match change {
                "disabled" => app.patch(&path, &root, &json!({ "disabled": true })).await.status,
                "demoted" => app.patch(&path, &root, &json!({ "role": "auditor" })).await.status,
                _ => app.delete(&path, &root).await.status,
            };
            assert!([200, 204].contains(&status), "{change}");
            accept(&app, mail.secret()).await.assert_error(410, "link_invalid");
            let listed = app.get("/users/invitations", &root).await;
            assert_eq!(listed.body["items"], json!([]), "{change}");
            // Another admin can invite the address, or send the invitation again.
            if change == "demoted" {
                invite(&app, &root, "mallory@example.org", "member").await;
                accept(&app, mail.secret()).await.assert_error(410, "link_invalid");
            } else {
                let again = resend(&app, &root, &invitation).await;
                assert_eq!((again.status, &again.body["invited_by"]), (200, &json!(1)), "{again:?}");
                assert_eq!(accept(&app, mail.secret()).await.status, 201);
            }
        }
    }
}

#[tokio::test]
async fn an_invitation_is_sent_again_only_by_a_caller_who_can_give_its_role() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        let (key, _) = app.key_of(&root, &["users:write", "users:read"]).await;
        let id = invite(&app, &root, "ada@example.org", "admin").await;
        all_sent(&app).await;
        app.clock.advance(61);
        let before = smtp.mails().len();
        resend(&app, &key, &id).await.assert_error(422, "invalid");
        all_sent(&app).await;
        assert_eq!(smtp.mails().len(), before);
    }
}

specify_database! {
    async fn the_command_line_invites_with_a_mail_or_prints_the_link(database: Database) {
        database.open().migrate_up().await.unwrap();
        let (smtp, home) = (SmtpServer::start().await, TempDir::new().unwrap());
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            smtp.configure_command(&mut command);
            command.env("DATABASE_URL", &database.url);
            command
        };
        let printed = out(&run(&mut command(&["user", "invite", "tim@example.org", "--print-link"])));
        assert!(printed.starts_with(&format!("{LINK_PAGE}#/invitation/lkm_")), "{printed}");
        assert_eq!(database.number("SELECT count(*) FROM outbox").await, 0);
        let invited = out(&run(&mut command(&["user", "invite", "ada@example.org", "--role", "auditor"])));
        assert!(invited.contains("a running server sends the mail") && !invited.contains("lkm_"), "{invited}");
        assert_eq!(database.number("SELECT count(*) FROM outbox WHERE kind = 'invitation'").await, 1);
        let serving = Serving::start(&mut command(&[]));
        let client = serving.client();
        let mail = smtp.wait_for_mail("ada@example.org", INVITATION).await;
        let accepted = client.post("/invitations/accept", &Credential::None, &acceptance(mail.secret())).await;
        assert_eq!((accepted.status, &accepted.body["role"]), (201, &json!("auditor")), "{accepted:?}");
        let secret = printed.trim_end().rsplit_once('/').unwrap().1;
        let accepted = client.post("/invitations/accept", &Credential::None, &acceptance(secret)).await;
        assert_eq!((accepted.status, &accepted.body["email"]), (201, &json!("tim@example.org")), "{accepted:?}");
    }
}
