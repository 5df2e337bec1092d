//! Password reset with a link in a mail, or one that an operator makes.

use serde_json::json;
use tempfile::TempDir;

use super::{
    NEW_PASSWORD, PASSWORD_CHANGED, RESET, all_sent, assert_password, confirm_reset, mailing, post, request_reset,
    reset_secret, verified_user,
};
use crate::support::app::PASSWORD;
use crate::support::program::{failure, latchkey, out, run};
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
        smtp.wait_for_mail("ada@example.org", PASSWORD_CHANGED).await;
        let entry = &app.trail(&root, "action=user.password_reset&outcome=success").await[0];
        assert_eq!((&entry["actor"], &entry["credential"]), (&json!("user:2"), &json!("link")), "{entry}");
        assert_eq!(entry["changed"], json!(["password"]));
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
async fn only_the_address_of_an_account_that_is_not_disabled_gets_a_mail() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, "ada@example.org").await;
        app.register("eve@example.org").await;
        all_sent(&app).await;
        app.database.execute("UPDATE users SET disabled_at = created_at WHERE email = 'eve@example.org'").await;
        let before = smtp.mails().len();
        for path in ["/password-reset", "/email-verification"] {
            for email in ["ada@example.org", "eve@example.org", "nobody@example.org"] {
                assert_eq!(post(&app, path, &json!({ "email": email })).await.status, 202);
            }
            post(&app, path, &json!({ "email": "no address" })).await.assert_error(422, "invalid");
        }
        all_sent(&app).await;
        assert_eq!(smtp.mails().len(), before + 1, "{:#?}", smtp.mails());
        assert_eq!(smtp.count("ada@example.org", RESET), 1, "the address is verified already");
        let left = app.database.number("SELECT count(*) FROM outbox WHERE address_key = 'nobody@example.org'").await;
        assert_eq!(left, 0, "requests for unknown addresses are not kept");
    }
}

#[tokio::test]
async fn requests_are_limited_by_client() {
    for (app, _smtp) in mailing(|settings| settings.limits.enabled = true).await {
        let paths = ["/password-reset", "/email-verification"];
        for (path, number) in paths.into_iter().cycle().zip(0..10) {
            let body = json!({ "email": format!("user{number}@example.org") });
            assert_eq!(post(&app, path, &body).await.status, 202);
        }
        for path in paths {
            let refused = post(&app, path, &json!({ "email": "nobody@example.org" })).await;
            refused.assert_error(429, "too_many_requests");
        }
        app.clock.advance(120);
        assert_eq!(request_reset(&app, "nobody@example.org").await.status, 202);
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
        let invitation = "INSERT INTO invitations (email, email_key, role, locale, invited_by, created_at, expires_at)
            SELECT 'ada@example.org', 'ada@example.org', 'member', 'en', id, created_at, created_at FROM users";
        app.database.execute(invitation).await;
        let resent = app.post("/users/invitations/1/resend", &root, &json!({})).await;
        resent.assert_error(404, "not_configured");
        let extended = "SELECT count(*) FROM invitations WHERE expires_at > created_at";
        assert_eq!(app.database.number(extended).await, 0);
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
        let mut without_page = command(&["user", "reset-link", "ada@example.org"]);
        let error = failure(&run(without_page.env("LATCHKEY__HTTP__PUBLIC_URL", "")));
        assert!(error.contains("links begin with http.public_url (LATCHKEY__HTTP__PUBLIC_URL)"), "{error}");
        let link = out(&run(&mut command(&["user", "reset-link", "ADA@example.org"])));
        assert!(link.starts_with("https://auth.example.org/console/#/password-reset/lkm_"), "{link}");
        assert_eq!(database.number("SELECT count(*) FROM audit_entries WHERE action = 'link.create'").await, 1);
        let verified = out(&run(&mut command(&["user", "verify-email", "ada@example.org"])));
        assert_eq!(verified, "verified ada@example.org\n");
        // Again, because the first link was lost.
        for _ in 0..2 {
            let invited = out(&run(&mut command(&["user", "invite", "eve@example.org", "--language", "de"])));
            assert!(invited.starts_with("https://auth.example.org/console/#/invitation/lkm_"), "{invited}");
        }
        for (table, condition) in [("invitations", "locale = 'de'"), ("mail_secrets", "purpose = 'invitation'")] {
            let count = format!("SELECT count(*) FROM {table} WHERE {condition}");
            assert_eq!(database.number(count).await, 1, "{table}");
        }
        let create = ["user", "create", "bob@example.org", "--name", "Robert", "--verified", "--json"];
        let created = out(&crate::support::program::with_input(&mut command(&create), PASSWORD));
        assert!(created.contains("\"email_verified\":true"), "{created}");
    }
}
