//! Sign-in with a browser (`POST /session`).

use futures_util::future::join_all;
use latchkey::domain::secret::Digest;
use serde_json::{Value, json};

use crate::support::app::PASSWORD;
use crate::support::client::SESSION_COOKIE;
use crate::support::{Answer, App, Credential, scopes, specify};

/// The text of a response without the id of its request.
fn without_id(answer: &Answer) -> String {
    answer.text.replace(answer.header("x-request-id"), "")
}

/// The request of a program, which sends none of the headers of a browser.
async fn sign_in(app: &App, body: &Value) -> Answer {
    app.post("/session", &Credential::None, body).await
}

specify! {
    async fn the_correct_password_sets_a_cookie_and_returns_the_session(app: App) {
        app.register("ada@example.org").await;
        let answer = app.begin_session(" Ada@example.org ", PASSWORD).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let secret = answer.session_secret();
        assert!(secret.starts_with("lks_") && secret.len() == 53, "{secret}");
        assert_eq!(
            answer.header("set-cookie"),
            format!("{SESSION_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict"),
            "without Max-Age and Expires, it ends with the browser"
        );
        assert_eq!((answer.header("cache-control"), answer.header("location")), ("no-store", "/session"));
        assert_eq!(answer.members(), ["created_at", "expires_at", "id", "idle_seconds", "scopes", "user"]);
        assert_eq!((&answer.body["id"], &answer.body["idle_seconds"]), (&json!(1), &json!(3600)));
        assert_eq!(json!(scopes::of("member")), answer.body["scopes"]);

        let session = Credential::Session(secret);
        assert_eq!(app.get("/me", &session).await.body, answer.body["user"]);
        let read = app.get("/session", &session).await;
        assert_eq!((read.status, &read.body), (200, &answer.body));
        assert_eq!(read.header("cache-control"), "no-store");
    }

    async fn each_input_gets_its_response(app: App) {
        app.register("ada@example.org").await;
        let body = json!({ "email": "ada@example.org", "password": PASSWORD });
        assert_eq!(sign_in(&app, &body).await.status, 201, "a program sends no headers of a browser");
        for (wrong, fields) in [
            (json!({}), vec!["email", "password"]),
            (json!({ "email": "ada@example.org" }), vec!["password"]),
            (json!({ "email": "", "password": "" }), vec!["email", "password"]),
            (json!({ "email": "a".repeat(255), "password": "a".repeat(513) }), vec!["email", "password"]),
            (json!({ "email": "a\0@example.org", "password": "a\0" }), vec!["email", "password"]),
            (json!({ "email": 1, "password": [PASSWORD] }), vec!["email", "password"]),
            (json!({ "email": "ada@example.org", "password": PASSWORD, "scope": "pages:read" }), vec!["scope"]),
        ] {
            let answer = sign_in(&app, &wrong).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), fields, "{wrong}");
            assert_eq!(answer.header("set-cookie"), "", "{wrong}");
        }
        let post = || app.request("POST", "/session");
        post().body("application/json", "{").send().await.assert_error(400, "malformed_json");
        let form = [("email", "ada@example.org"), ("password", PASSWORD)];
        post().form(&form).send().await.assert_error(415, "unsupported_media_type");
        post().body("text/plain", body.to_string()).send().await.assert_error(415, "unsupported_media_type");
        post().bare_body(body.to_string()).send().await.assert_error(415, "unsupported_media_type");
        post().body("application/json", " ".repeat(8193)).send().await.assert_error(413, "too_large");
        for method in ["PUT", "PATCH"] {
            let answer = app.request(method, "/session").json(&body).send().await;
            answer.assert_error(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), "DELETE, GET, HEAD, POST");
        }
    }

    async fn a_wrong_password_and_an_unknown_email_get_the_same_response(app: App) {
        app.register("ada@example.org").await;
        let wrong = app.begin_session("ada@example.org", "a wrong password").await;
        wrong.assert_error(401, "invalid_grant");
        assert_eq!(wrong.header("www-authenticate"), r#"Bearer realm="latchkey""#);
        assert_eq!(wrong.header("set-cookie"), "");
        app.register("eve@example.org").await;
        app.database.execute("UPDATE users SET disabled_at = '2026-01-01 00:00:00' WHERE id = 2").await;
        for other in ["joe@example.org", "not an address", "' OR '1'='1", "ada@example.org\u{200b}", "eve@example.org"] {
            let answer = app.begin_session(other, PASSWORD).await;
            assert_eq!((answer.status, without_id(&answer)), (401, without_id(&wrong)), "{other:?}");
            assert_eq!(answer.header("www-authenticate"), wrong.header("www-authenticate"));
        }
        assert_eq!(app.database.number("SELECT count(*) FROM sessions").await, 0);
    }

    async fn sessions_and_the_token_do_not_touch_each_other(app: App) {
        app.register("ada@example.org").await;
        let token = Credential::Token(app.new_token_of("ada@example.org").await);
        let (first, _) = app.session_of("ada@example.org").await;
        let (second, _) = app.session_of("ada@example.org").await;
        assert_eq!(app.get("/me", &token).await.status, 200, "POST /session keeps the token");
        let renewed = Credential::Token(app.new_token_of("ada@example.org").await);
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 1);
        app.get("/me", &token).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.delete("/token", &renewed).await.status, 204);
        for session in [&first, &second] {
            assert_eq!(app.get("/me", session).await.status, 200, "POST and DELETE /token keep the sessions");
        }
    }

    async fn the_database_holds_digests_and_no_secret(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        let stored = app.database.rows("SELECT digest AS row FROM sessions").await;
        assert_eq!(stored, [Digest::of(session.secret()).to_hex()]);
    }

    async fn a_sign_in_ends_the_session_of_its_cookie(app: App) {
        app.register("ada@example.org").await;
        app.register("eve@example.org").await;
        let body = |email: &str| json!({ "email": email, "password": PASSWORD });
        let (first, _) = app.session_of("ada@example.org").await;
        assert_eq!(app.get("/me", &first).await.status, 200);
        let wrong = json!({ "email": "ada@example.org", "password": "a wrong password" });
        app.post("/session", &first, &wrong).await.assert_error(401, "invalid_grant");
        assert_eq!(app.get("/me", &first).await.status, 200, "a failed sign-in ends nothing");

        let again = app.post("/session", &first, &body("ada@example.org")).await;
        assert_eq!(again.status, 201, "{again:?}");
        let second = Credential::Session(again.session_secret());
        assert_ne!(first.secret(), second.secret());
        app.get("/me", &first).await.assert_error(401, "invalid_token");
        // Also of another user: the browser now belongs to Eve.
        let other = app.post("/session", &second, &body("eve@example.org")).await;
        app.get("/me", &second).await.assert_error(401, "invalid_token");
        let eve = Credential::Session(other.session_secret());
        assert_eq!(app.get("/me", &eve).await.text_of("email"), "eve@example.org");

        // A secret that an attacker has planted is not taken over.
        for planted in ["lks_planted", eve.secret()] {
            let answer = app.post("/session", &Credential::Session(planted.to_owned()), &body("ada@example.org")).await;
            assert_ne!(answer.session_secret(), planted);
            app.get("/me", &Credential::Session(planted.to_owned())).await.assert_error(401, "invalid_token");
        }
        let root = app.admin("root@example.org").await;
        let ended: Vec<String> = app.trail(&root, "action=session.end&order=oldest").await.iter()
            .map(|entry| format!("{} {} {} {}", entry["actor"], entry["target"], entry["subject"], entry["detail"]))
            .collect();
        let detail = r#""replaced by another sign-in""#;
        assert_eq!(ended, [
            format!(r#""user:1" "session:1" 1 {detail}"#),
            format!(r#""user:2" "session:2" 1 {detail}"#),
            format!(r#""user:1" "session:3" 2 {detail}"#),
        ]);
    }

    async fn an_eleventh_session_ends_the_one_that_was_not_used_for_longest(app: App) {
        app.register("ada@example.org").await;
        app.register("eve@example.org").await;
        let (eve, _) = app.session_of("eve@example.org").await;
        let mut sessions = Vec::new();
        for _ in 0..10 {
            sessions.push(app.session_of("ada@example.org").await);
            app.clock.advance(1);
        }
        for (session, _) in &sessions {
            assert_eq!(app.get("/me", session).await.status, 200);
        }
        // Only stored uses count, and the server stores them every second.
        app.service.identities().last_uses().flush().await;
        let later = "UPDATE sessions SET last_used_at = '2099-01-01 00:00:00'";
        app.database.execute(format!("{later} WHERE id = {}", sessions[0].1)).await;
        app.session_of("ada@example.org").await;
        assert_eq!(app.get("/me", &sessions[0].0).await.status, 200, "it was used last");
        app.get("/me", &sessions[1].0).await.assert_error(401, "invalid_token");
        // A session that has expired goes first, although it was used later.
        app.database.execute(format!("{later}, expires_at = '2026-01-01 00:00:00' WHERE id = {}", sessions[5].1)).await;
        app.session_of("ada@example.org").await;
        for (session, id) in &sessions[2..] {
            let expected = if *id == sessions[5].1 { 401 } else { 200 };
            assert_eq!(app.get("/me", session).await.status, expected, "{id}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM sessions WHERE user_id = 1").await, 10);
        assert_eq!(app.get("/me", &eve).await.status, 200);
        let root = app.admin("root@example.org").await;
        let ended = app.trail(&root, "action=session.end").await;
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!((&ended[0]["target"], &ended[0]["detail"]), (&json!(format!("session:{}", sessions[1].1)), &json!("too many sessions")));
    }

    async fn parallel_sign_ins_leave_as_many_sessions_as_a_user_can_have(app: App) {
        app.register("ada@example.org").await;
        let answers = join_all((0..14).map(|_| app.begin_session("ada@example.org", PASSWORD))).await;
        assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
        let mut open = 0;
        for answer in &answers {
            let session = Credential::Session(answer.session_secret());
            open += i32::from(app.get("/me", &session).await.status == 200);
        }
        assert_eq!(open, 10);
    }

    async fn sign_ins_are_recorded(app: App) {
        app.register("ada@example.org").await;
        app.begin_session("ada@example.org", "a wrong password").await.assert_error(401, "invalid_grant");
        app.begin_session("joe@example.org", "a wrong password").await.assert_error(401, "invalid_grant");
        let (session, _) = app.session_of("ada@example.org").await;
        assert_eq!(app.patch("/me", &session, &json!({ "website": "elsewhere" })).await.status, 200);
        let root = app.admin("root@example.org").await;
        let trail = app.trail(&root, "order=oldest").await;
        let shown: Vec<String> = trail.iter().skip(1).take(4)
            .map(|entry| {
                let text = |name: &str| entry[name].as_str().map_or_else(|| entry[name].to_string(), str::to_owned);
                ["actor", "credential", "action", "target", "subject", "outcome", "detail"].map(text).join(" ")
            })
            .collect();
        assert_eq!(shown, [
            "anonymous none user.sign_in user:1 1 failure wrong_password",
            "anonymous none user.sign_in null null failure unknown_email",
            "user:1 password session.create session:1 1 success null",
            "user:1 session:1 user.update user:1 1 success null",
        ]);
        assert_eq!(json!(trail[3]["scopes"]), json!(trail[4]["scopes"]), "the level of the session");
    }

    async fn the_name_of_the_browser_is_kept_short_and_printable(app: App) {
        app.register("ada@example.org").await;
        let body = json!({ "email": "ada@example.org", "password": PASSWORD });
        let long = format!("  Browser\t{}\u{e9}", "x".repeat(300));
        for (given, kept) in [
            (&b"Browser/1.0"[..], Some("Browser/1.0".to_owned())),
            (long.as_bytes(), Some(format!("Browser{}", "x".repeat(248)))),
            (b"caf\xe9 <b>", Some("caf\u{fffd} <b>".to_owned())),
            (b" \t ", None),
            (b"", None),
        ] {
            let answer = app.request("POST", "/session").raw_header("User-Agent", given).json(&body).send().await;
            let session = Credential::Session(answer.session_secret());
            let listed = app.get("/me/sessions", &session).await;
            assert_eq!(listed.body["items"][0]["user_agent"].as_str(), kept.as_deref(), "{listed:?}");
        }
    }
}
