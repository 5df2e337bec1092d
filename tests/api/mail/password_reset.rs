//! Password reset with a link in a mail, or one that an operator makes.

use serde_json::json;
use tempfile::TempDir;

use super::{
    NEW_PASSWORD, all_sent, assert_password, confirm_reset, mailing, post, request_reset, reset_secret, verified_user,
};
use crate::support::app::PASSWORD;
use crate::support::program::{latchkey, out, run};
use crate::support::{Credential, specify, specify_database};

#[tokio::test]
async fn a_link_sets_a_new_password_and_ends_what_the_old_one_has_opened() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = app.admin("root@example.org").await;
        verified_user(&app, "ada@example.org").await;
        let token = Credential::Token(app.new_token_of("ada@example.org").await);
        let (session, _) = app.session_of("ada@example.org").await;
        let (key, _) = app.key_of(&token, &["pages:read"]).await;
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        for credential in [&token, &session, &key] {
            assert_eq!(app.get("/me", credential).await.status, 200, "a request ends nothing");
        }
        confirm_reset(&app, &secret, "short").await.assert_error(422, "invalid");
        confirm_reset(&app, &secret, "ada@example.org").await.assert_error(422, "invalid");
        let confirmed = confirm_reset(&app, &secret, NEW_PASSWORD).await;
        assert_eq!((confirmed.status, confirmed.text.as_str()), (204, ""), "it does not sign in: {confirmed:?}");
        assert_eq!(confirmed.header("set-cookie"), "");
        for credential in [&token, &session, &key] {
            assert_ne!(app.get("/me", credential).await.status, 200, "{credential:?}");
        }
        assert_password(&app, "ada@example.org", NEW_PASSWORD).await;
        confirm_reset(&app, &secret, "a third password").await.assert_error(410, "link_invalid");
        smtp.wait_for_mail("ada@example.org", "Your password was changed").await;
        let entry = &app.trail(&root, "action=user.password_reset&outcome=success").await[0];
        assert_eq!((&entry["actor"], &entry["credential"]), (&json!("user:2"), &json!("link")), "{entry}");
        assert_eq!(entry["changed"], json!(["password"]));
    }
}

#[tokio::test]
async fn of_parallel_uses_of_a_link_one_succeeds() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        let uses = (0..32).map(|number| {
            let (app, secret) = (&app, secret.clone());
            async move { confirm_reset(app, &secret, &format!("{NEW_PASSWORD} {number}")).await.status }
        });
        let mut statuses = futures_util::future::join_all(uses).await;
        statuses.retain(|status| *status != 503);
        assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [204, 410].contains(status)), "{statuses:?}");
    }
}

#[tokio::test]
async fn every_link_that_is_not_valid_gets_the_same_answer() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = app.admin("root@example.org").await;
        let mut secrets = vec![String::new(), "lkm_x".to_owned(), app.token_of("tim@example.org").await];
        for purpose in ["email_verification", "email_change", "email_undo", "invitation", "registration"] {
            secrets.push(crate::support::links::store_link(&app, purpose).await);
        }
        for (number, change) in
            ["used", "superseded", "expired", "disabled", "password", "e-mail", "deleted"].iter().enumerate()
        {
            let email = format!("user{number}@example.org");
            verified_user(&app, &email).await;
            let user = Credential::Token(app.new_token_of(&email).await);
            let secret = reset_secret(&app, &smtp, &email).await;
            let id = app.get("/me", &user).await.body["id"].clone();
            match *change {
                "used" => assert_eq!(confirm_reset(&app, &secret, NEW_PASSWORD).await.status, 204),
                "superseded" => {
                    app.clock.advance(61);
                    let newer = reset_secret(&app, &smtp, &email).await;
                    assert_eq!(confirm_reset(&app, &newer, NEW_PASSWORD).await.status, 204);
                }
                "expired" => {
                    let past = "UPDATE mail_secrets SET expires_at = '2020-01-01 00:00:00'";
                    app.database.execute(format!("{past} WHERE user_id = {id}")).await;
                }
                "disabled" => {
                    let disabled = app.patch(&format!("/users/{id}"), &root, &json!({ "disabled": true })).await;
                    assert_eq!(disabled.status, 200, "{disabled:?}");
                }
                "password" => {
                    let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
                    assert_eq!(app.put("/me/password", &user, &body).await.status, 204);
                }
                "e-mail" => {
                    let set = "UPDATE users SET email = 'other@example.org', email_key = 'other@example.org'";
                    app.database.execute(format!("{set} WHERE id = {id}")).await;
                }
                _ => assert_eq!(app.delete("/me", &user).await.status, 204),
            }
            secrets.push(secret);
        }
        let mut answers = Vec::new();
        for secret in &secrets {
            let mut answer = confirm_reset(&app, secret, "yet another password").await;
            answer.assert_error(410, "link_invalid");
            answer.body["request_id"] = json!(null);
            answers.push(answer.body);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    }
}

#[tokio::test]
async fn a_reset_on_an_account_that_was_never_verified_ends_everything_that_was_created_before() {
    for (app, smtp) in mailing(|_| ()).await {
        let eve = app.user_of_role("ada@example.org", "admin").await;
        let issued = app.post("/keys", &eve, &json!({ "name": "issued", "scopes": ["translate:use"] })).await;
        let issued = Credential::Token(issued.text_of("key"));
        assert_eq!(app.get("/authz", &issued).await.status, 200);
        assert_eq!(app.get("/me", &eve).await.body["email_verified"], false);
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        assert_eq!(confirm_reset(&app, &secret, NEW_PASSWORD).await.status, 204);
        assert_ne!(app.get("/authz", &issued).await.status, 200, "keys with external scopes end, too");
        let ada = app.sign_in("ada@example.org", NEW_PASSWORD).await.text_of("access_token");
        let me = app.get("/me", &Credential::Token(ada)).await;
        assert_eq!(me.body["email_verified"], true, "the link proves the address");
    }
}

#[tokio::test]
async fn a_reset_on_an_account_that_was_never_verified_leaves_no_settings_of_a_stranger() {
    for (app, smtp) in mailing(|settings| settings.limits.enabled = true).await {
        let eve = app.user("ada@example.org").await;
        let set = json!({
            "language": "de", "sign_in_notices": false, "email": "eve@evil.example", "current_password": PASSWORD,
        });
        assert_eq!(app.patch("/me", &eve, &set).await.status, 202);
        let change = smtp.wait_for_mail("eve@evil.example", "Neue E-Mail-Adresse bestätigen").await;
        assert_ne!(app.database.number("SELECT count(*) FROM known_networks").await, 0);
        request_reset(&app, "ada@example.org").await;
        let mail = smtp.wait_for_mail("ada@example.org", "Neues Passwort setzen").await;
        assert_eq!(confirm_reset(&app, mail.secret(), NEW_PASSWORD).await.status, 204);
        assert_eq!(app.database.number("SELECT count(*) FROM known_networks").await, 0);
        let ada = Credential::Token(app.sign_in("ada@example.org", NEW_PASSWORD).await.text_of("access_token"));
        let me = app.get("/me", &ada).await.body;
        assert_eq!((&me["language"], &me["sign_in_notices"]), (&json!("en"), &json!(true)));
        assert_eq!(me["pending_email"], json!(null));
        let body = json!({ "secret": change.secret(), "password": NEW_PASSWORD });
        post(&app, "/email-change/confirm", &body).await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn a_reset_frees_a_stopped_account() {
    for (app, smtp) in mailing(|settings| settings.limits.enabled = true).await {
        verified_user(&app, "ada@example.org").await;
        let digest = latchkey::domain::secret::Digest::of("ada@example.org").to_hex();
        let insert = "INSERT INTO sign_in_failures (account, failures, first_at, last_at)";
        let times = "'2020-01-01 00:00:00', '2099-01-01 00:00:00'";
        app.database.execute(format!("{insert} VALUES ('{digest}', 1000, {times})")).await;
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, app.expected.bad_password);
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        assert_eq!(confirm_reset(&app, &secret, NEW_PASSWORD).await.status, 204);
        assert_eq!(app.sign_in("ada@example.org", NEW_PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn known_and_unknown_addresses_cannot_be_told_apart() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        app.register("eve@example.org").await;
        all_sent(&app).await;
        app.database.execute("UPDATE users SET disabled_at = created_at WHERE email = 'eve@example.org'").await;
        let before = smtp.mails().len();
        for path in ["/password-reset", "/email-verification"] {
            let mut answers = Vec::new();
            for email in ["ada@example.org", "eve@example.org", "nobody@example.org"] {
                let answer = post(&app, path, &json!({ "email": email })).await;
                let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                answers.push((answer.status, answer.text.clone(), names));
            }
            assert_eq!(answers[0].0, 202);
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
            post(&app, path, &json!({ "email": "no address" })).await.assert_error(422, "invalid");
        }
        all_sent(&app).await;
        assert_eq!(
            smtp.wait_for(before + 1).await.len(),
            before + 1,
            "only the known address gets a mail, and is verified"
        );
        let left = app.database.number("SELECT count(*) FROM outbox WHERE address_key = 'nobody@example.org'").await;
        assert_eq!(left, 0, "requests for unknown addresses are not kept");
    }
}

#[tokio::test]
async fn requests_are_limited_by_client() {
    for (app, _smtp) in mailing(|settings| settings.limits.enabled = true).await {
        for number in 0..10 {
            assert_eq!(request_reset(&app, &format!("user{number}@example.org")).await.status, 202);
        }
        request_reset(&app, "nobody@example.org").await.assert_error(429, "too_many_requests");
        app.clock.advance(120);
        assert_eq!(request_reset(&app, "nobody@example.org").await.status, 202);
    }
}

#[tokio::test]
async fn get_and_head_of_a_confirmation_change_nothing() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        let secret = reset_secret(&app, &smtp, "ada@example.org").await;
        for method in ["GET", "HEAD"] {
            for path in [
                "/password-reset/confirm".to_owned(),
                format!("/password-reset/confirm/{secret}"),
                "/console/".to_owned(),
            ] {
                app.request(method, &path).send().await;
            }
        }
        assert_eq!(confirm_reset(&app, &secret, NEW_PASSWORD).await.status, 204);
    }
}

specify! {
    async fn a_form_cannot_confirm_a_link(app: App) {
        let form = app.request("POST", "/password-reset/confirm").form(&[("secret", "x"), ("new_password", "y")]);
        form.send().await.assert_error(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn without_an_smtp_server_requests_are_not_configured_and_links_work() {
    for (app, _smtp) in mailing(|settings| settings.mail = latchkey::config::Settings::defaults().unwrap().mail).await {
        let root = app.admin("root@example.org").await;
        for path in ["/password-reset", "/email-verification"] {
            post(&app, path, &json!({ "email": "root@example.org" })).await.assert_error(404, "not_configured");
            post(&app, path, &json!("whatever")).await.assert_error(404, "not_configured");
        }
        let body = json!({ "email": "ada@example.org" });
        app.post("/users/invitations", &root, &body).await.assert_error(404, "not_configured");
        let link =
            app.service.create_reset_link(latchkey::domain::audit::RequestContext::command_line(), 1.into()).await;
        let link = link.unwrap().reveal();
        let secret = link.rsplit_once('/').unwrap().1;
        assert_eq!(confirm_reset(&app, secret, NEW_PASSWORD).await.status, 204);
        assert_eq!(app.database.number("SELECT count(*) FROM outbox").await, 0);
        let verified = "SELECT count(*) FROM users WHERE email_verified_at IS NOT NULL";
        assert_eq!(app.database.number(verified).await, 0, "a link that an operator delivers proves no address");
    }
}

specify_database! {
    async fn the_command_line_prints_a_link(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("LATCHKEY__HTTP__PUBLIC_URL", "https://auth.example.org");
            command
        };
        let create = ["user", "create", "ada@example.org", "--name", "Adaline"];
        out(&crate::support::program::with_input(&mut command(&create), PASSWORD));
        let link = out(&run(&mut command(&["user", "reset-link", "ADA@example.org"])));
        assert!(link.starts_with("https://auth.example.org/console/#/password-reset/lkm_"), "{link}");
        assert_eq!(database.number("SELECT count(*) FROM audit_entries WHERE action = 'link.create'").await, 1);
        let verified = out(&run(&mut command(&["user", "verify-email", "ada@example.org"])));
        assert_eq!(verified, "verified ada@example.org\n");
        let invited = out(&run(&mut command(&["user", "invite", "eve@example.org"])));
        assert!(invited.starts_with("https://auth.example.org/console/#/invitation/lkm_"), "{invited}");
    }
}
