//! What ends sessions: sign-out, and everything that ends the sign-in token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use latchkey::config::Settings;
use latchkey::domain::audit::RequestContext;
use latchkey::domain::id::UserId;
use latchkey::server;
use latchkey::service::Service;
use serde_json::json;

use crate::support::app::PASSWORD;
use crate::support::client::SESSION_COOKIE;
use crate::support::{App, Credential, specify};

const NEW_PASSWORD: &str = "another password of hers";

/// The service of the command line, on the database of the app.
async fn command_line(app: &App) -> Service {
    let mut settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    settings.auth.bcrypt_cost = 4;
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Two sessions of a new user, and the user's id.
async fn sessions_of(app: &App, email: &str) -> (Credential, [Credential; 2], i64) {
    let token = app.user(email).await;
    let sessions = [app.session_of(email).await.0, app.session_of(email).await.0];
    for session in &sessions {
        assert_eq!(app.get("/me", session).await.status, 200);
    }
    let id = app.get("/me", &token).await.body["id"].as_i64().unwrap();
    (token, sessions, id)
}

specify! {
    async fn signing_out_ends_the_session_and_clears_the_browser(app: App) {
        let (token, [first, second], _) = sessions_of(&app, "ada@example.org").await;
        for attempt in ["the session", "a session that has ended"] {
            let answer = app.delete("/session", &first).await;
            assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{attempt}: {answer:?}");
            assert_eq!(
                answer.header("set-cookie"),
                format!("{SESSION_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"),
                "{attempt}"
            );
            assert_eq!(answer.header("clear-site-data"), r#""cache", "storage""#, "{attempt}");
            assert_eq!(answer.header("cache-control"), "no-store");
            app.get("/session", &first).await.assert_error(401, "invalid_token");
        }
        for anonymous in [app.delete("/session", &Credential::None).await, app.delete("/session", &Credential::Session("x".into())).await] {
            assert_eq!((anonymous.status, anonymous.header("set-cookie").is_empty()), (204, false), "{anonymous:?}");
        }
        assert_eq!(app.get("/me", &second).await.status, 200);
        app.delete("/session", &token).await.assert_error(403, "session_required");
        assert_eq!(app.get("/me", &token).await.status, 200);
        app.get("/session", &token).await.assert_error(403, "session_required");
        app.get("/session", &Credential::None).await.assert_error(app.expected.no_credential, "not_authenticated");
        let root = app.admin("root@example.org").await;
        let ended = app.trail(&root, "action=session.end").await;
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!((&ended[0]["credential"], &ended[0]["target"]), (&json!("session:1"), &json!("session:1")));
    }

    async fn signing_out_succeeds_also_while_the_session_ends_otherwise(app: App) {
        let (_, [session, _], _) = sessions_of(&app, "ada@example.org").await;
        let answers = join_all((0..8).map(|_| app.delete("/session", &session))).await;
        for answer in answers {
            assert_eq!((answer.status, answer.header("set-cookie").is_empty()), (204, false), "{answer:?}");
        }
    }

    async fn everything_that_ends_the_token_ends_the_sessions(app: App) {
        let root = app.admin("root@example.org").await;
        let cli = Arc::new(command_line(&app).await);
        let (other, [other_session, _], _) = sessions_of(&app, "other@example.org").await;
        let actions = ["password", "password, keys kept", "disable", "delete", "delete by an admin", "end token", "token revoke", "password by the command line"];
        for (number, action) in actions.into_iter().enumerate() {
            let email = format!("user{number}@example.org");
            let (token, sessions, id) = sessions_of(&app, &email).await;
            let password = |revoke_keys: bool| json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD, "revoke_keys": revoke_keys });
            let operator = RequestContext::command_line;
            let status = match action {
                "password" => app.put("/me/password", &token, &password(true)).await.status,
                "password, keys kept" => app.put("/me/password", &token, &password(false)).await.status,
                "disable" => app.patch(&format!("/users/{id}"), &root, &json!({ "disabled": true })).await.status,
                "delete" => app.delete("/me", &token).await.status,
                "delete by an admin" => app.delete(&format!("/users/{id}"), &root).await.status,
                "end token" => app.delete(&format!("/users/{id}/token"), &root).await.status,
                "token revoke" => {
                    let ended = cli.revoke_token(operator(), UserId(id)).await.unwrap();
                    assert_eq!((ended.tokens, ended.sessions), (1, 2));
                    204
                }
                _ => {
                    let new = latchkey::domain::password::Password::new(NEW_PASSWORD.to_owned());
                    cli.reset_password(operator(), UserId(id), new, true).await.unwrap();
                    204
                }
            };
            assert!(status < 300, "{action}: {status}");
            // The command line is another process.
            let started = Instant::now();
            let is_other_process = number >= 6;
            for session in [&token].into_iter().chain(&sessions) {
                while is_other_process && app.get("/me", session).await.status == 200 {
                    assert!(started.elapsed() < Duration::from_secs(10), "{action}: the end is not seen");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            for session in &sessions {
                app.get("/me", session).await.assert_error(401, "invalid_token");
            }
            app.get("/me", &token).await.assert_error(app.expected.bad_token_header, "invalid_token");
            assert_eq!(app.database.number(format!("SELECT count(*) FROM sessions WHERE user_id = {id}")).await, 0, "{action}");
        }
        assert_eq!(app.get("/me", &other_session).await.status, 200, "another user's session stays");
        assert_eq!(app.get("/me", &other).await.status, 200);

        let mut ended = latchkey::service::token::end::EndedSignIns::default();
        let mut next = Some(UserId(0));
        while let Some(after) = next {
            let (batch, last) = cli.revoke_tokens_after(RequestContext::command_line(), after).await.unwrap();
            (ended.tokens, ended.sessions, next) = (ended.tokens + batch.tokens, ended.sessions + batch.sessions, last);
        }
        assert_eq!((ended.tokens, ended.sessions), (2, 2));
        assert_eq!(app.database.number("SELECT count(*) FROM sessions").await, 0);
        let root = Credential::Token(app.new_token_of("root@example.org").await);
        let trail = app.trail(&root, "action=token.revoke&order=oldest").await;
        let details: Vec<&serde_json::Value> = trail.iter().map(|entry| &entry["detail"]).collect();
        assert_eq!(json!(details), json!(["1 token, 2 sessions", "1 token, 2 sessions", "2 tokens, 2 sessions"]));
    }

    async fn a_new_role_ends_the_sessions_and_the_token_works_with_it_at_once(app: App) {
        let root = app.admin("root@example.org").await;
        let (token, sessions, id) = sessions_of(&app, "ada@example.org").await;
        app.get("/users", &token).await.assert_error(403, "insufficient_scope");
        let path = format!("/users/{id}");
        assert_eq!(app.patch(&path, &root, &json!({ "role": "member" })).await.status, 200);
        assert_eq!(app.get("/me", &sessions[0]).await.status, 200, "the role did not change");
        assert_eq!(app.patch(&path, &root, &json!({ "role": "auditor" })).await.status, 200);
        for session in &sessions {
            app.get("/me", session).await.assert_error(401, "invalid_token");
        }
        assert_eq!(app.get("/users", &token).await.status, 200, "the token has the new level");
        let (session, _) = app.session_of("ada@example.org").await;
        assert_eq!(app.get("/users", &session).await.status, 200);
        assert_eq!(app.get("/session", &session).await.body["scopes"], json!(crate::support::scopes::of("auditor")));
        let changed = app.trail(&root, "action=user.role&outcome=success").await;
        assert_eq!(changed[0]["detail"], "member to auditor, 2 sessions");
    }

    async fn a_new_password_renews_the_session_that_sets_it(app: App) {
        let (token, [own, other], _) = sessions_of(&app, "ada@example.org").await;
        let before = app.get("/session", &own).await;
        let wrong = json!({ "current_password": "wrong", "new_password": NEW_PASSWORD });
        let refused = app.put("/me/password", &own, &wrong).await;
        refused.assert_error(403, "wrong_password");
        assert_eq!(refused.header("set-cookie"), "");
        let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
        let answer = app.put("/me/password", &own, &change).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{answer:?}");
        let renewed = Credential::Session(answer.session_secret());
        assert_ne!(renewed.secret(), own.secret());
        for ended in [&own, &other] {
            app.get("/me", ended).await.assert_error(401, "invalid_token");
        }
        app.get("/me", &token).await.assert_error(app.expected.bad_token_header, "invalid_token");
        let after = app.get("/session", &renewed).await;
        assert_eq!((&after.body["id"], &after.body["expires_at"]), (&before.body["id"], &before.body["expires_at"]), "the latest end stays");
        assert_eq!(app.get("/me/sessions", &renewed).await.body["total"], 1);
        assert_eq!(app.begin_session("ada@example.org", NEW_PASSWORD).await.status, 201);
        // With a token there is no session to renew.
        let token = app.sign_in("ada@example.org", NEW_PASSWORD).await.text_of("access_token");
        let back = json!({ "current_password": NEW_PASSWORD, "new_password": PASSWORD });
        let answer = app.put("/me/password", &Credential::Token(token), &back).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (204, ""));
    }

    async fn the_finder_of_a_secret_can_end_its_session(app: App) {
        let (token, [first, second], _) = sessions_of(&app, "ada@example.org").await;
        let revoke = async |secret: &str| app.request("POST", "/revoke").form(&[("token", secret)]).send().await.status;
        for _ in 0..2 {
            assert_eq!(revoke(first.secret()).await, 200);
        }
        app.get("/me", &first).await.assert_error(401, "invalid_token");
        assert_eq!(app.get("/me", &second).await.status, 200);
        assert_eq!(revoke(token.secret()).await, 200);
        assert_eq!(app.get("/me", &second).await.status, 200, "a token is revoked alone");
        let root = app.admin("root@example.org").await;
        let ended = app.trail(&root, "action=session.end").await;
        assert_eq!(ended.len(), 1, "{ended:?}");
        let [actor, credential, target, subject, detail] = ["actor", "credential", "target", "subject", "detail"].map(|name| &ended[0][name]);
        assert_eq!(
            json!([actor, credential, target, subject, detail]),
            json!(["anonymous", "session:1", "session:1", 1, "by possession"])
        );
    }

    async fn a_session_that_ends_during_a_request_changes_nothing(app: App) {
        let (_, [session, _], _) = sessions_of(&app, "ada@example.org").await;
        // The guard uses the cached identity; the change looks at the database again.
        let unlogged = match app.database.backend {
            Backend::Postgres => "SET session_replication_role = replica; DELETE FROM sessions",
            Backend::Sqlite => "DROP TRIGGER sessions_delete_is_seen; DELETE FROM sessions",
        };
        app.database.execute(unlogged).await;
        app.post("/page/", &session, &json!({ "title": "t", "body": "b" })).await.assert_error(401, "invalid_token");
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
    }
}
