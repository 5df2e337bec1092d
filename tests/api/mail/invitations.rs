//! Invitations.

use latchkey::config::{RegistrationMode, Settings};
use serde_json::{Value, json};

use super::{mailing, post};
use crate::support::app::PASSWORD;
use crate::support::{Answer, App, Credential};

const INVITATION: &str = "Invitation to auth.example.org";

fn invited_mode(settings: &mut Settings) {
    settings.registration.mode = RegistrationMode::Invited;
}

async fn root(app: &App) -> Credential {
    let context = latchkey::domain::audit::RequestContext::command_line();
    let user = latchkey::service::account::registration::Registration {
        name: "Augusta".to_owned(),
        surname: String::new(),
        email: "root@example.org".to_owned(),
        website: String::new(),
        password: latchkey::domain::password::Password::new(PASSWORD.to_owned()),
    };
    app.service.create_user(context, user, Some("admin")).await.unwrap();
    Credential::Token(app.new_token_of("root@example.org").await)
}

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
    for (app, smtp) in mailing(invited_mode).await {
        let root = root(&app).await;
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
        let root = root(&app).await;
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
async fn of_parallel_acceptances_one_succeeds() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = root(&app).await;
        app.post("/users/invitations", &root, &json!({ "email": "ada@example.org" })).await;
        let mail = smtp.wait_for_mail("ada@example.org", INVITATION).await;
        let statuses = futures_util::future::join_all((0..32).map(|_| accept(&app, mail.secret()))).await;
        let created = statuses.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(created, 1, "{statuses:#?}");
        assert!(statuses.iter().all(|answer| [201, 410, 503].contains(&answer.status)), "{statuses:#?}");
    }
}

#[tokio::test]
async fn a_caller_cannot_invite_to_a_role_that_it_cannot_give() {
    for (app, _smtp) in mailing(|_| ()).await {
        let root = root(&app).await;
        let (key, _) = app.key_of(&root, &["users:write", "users:read"]).await;
        let refused =
            app.post("/users/invitations", &key, &json!({ "email": "ada@example.org", "role": "admin" })).await;
        refused.assert_error(422, "invalid");
        assert_eq!(app.post("/users/invitations", &key, &json!({ "email": "ada@example.org" })).await.status, 201);
    }
}
