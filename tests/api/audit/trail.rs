//! The entries of the audit trail, and the routes that read them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{PASSWORD, STATIC_KEY};
use crate::support::client::Request;
use crate::support::requests::Callers;
use crate::support::tour::{Operation, operations};
use crate::support::{Credential, scopes, specify, specify_mailing};

/// One line with the members of an entry that most tests compare.
fn summary(entry: &Value) -> String {
    let text = |member: &str| match &entry[member] {
        Value::String(string) => string.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(words) => words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join("+"),
        _ => "-".to_owned(),
    };
    let members = [
        "actor",
        "credential",
        "role",
        "action",
        "target",
        "subject",
        "version_before",
        "version_after",
        "changed",
        "outcome",
        "detail",
    ];
    members.map(text).join(" ")
}

specify! {
    async fn every_change_writes_one_entry_with_its_actor_time_and_level(app: App) {
        let root = app.admin("root@example.org").await; // entries 1 and 2
        let ada = app.user("ada@example.org").await; // entries 3 and 4
        let page = json!({ "title": "t", "body": "b" });
        let (key, _) = app.key_of(&ada, &["pages:read", "pages:write"]).await;
        app.post("/page/", &key, &page).await;
        app.put("/page/1", &ada, &json!({ "title": "t", "body": "c" })).await;
        app.patch("/page/1", &ada, &json!({ "title": "u", "body": "d" })).await;
        app.patch("/users/2", &root, &json!({ "role": "admin" })).await;
        app.delete("/page/1", &ada).await;
        app.patch("/me", &ada, &json!({ "surname": "King", "website": "https://example.org" })).await;
        app.patch("/me/keys/1", &ada, &json!({ "name": "new" })).await;
        app.post("/me/keys/1/rotate", &ada, &json!({ "overlap_seconds": 60 })).await;
        app.delete("/me/keys/1", &ada).await;
        let claimed = json!({ "name": "k", "scopes": ["translate:use"], "order": "1", "delivery": "claim" });
        let claim = app.post("/keys", &ada, &claimed).await.text_of("claim");
        app.post("/keys", &ada, &claimed).await; // returns the existing record and changes nothing
        app.post("/keys/claim", &Credential::None, &json!({ "claim": claim })).await;
        app.delete("/keys/2", &ada).await;
        app.delete("/keys/2", &ada).await; // is revoked already, so this changes nothing
        app.delete("/users/2/token", &root).await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        app.put("/me/password", &ada, &json!({ "current_password": PASSWORD, "new_password": "another password" })).await;
        app.patch("/users/2", &root, &json!({ "role": "member", "disabled": true })).await;
        app.patch("/users/2", &root, &json!({ "disabled": false })).await;
        app.delete("/users/2", &root).await;
        app.delete("/token", &root).await;

        let root = Credential::Token(app.new_token_of("root@example.org").await);
        let trail = app.trail(&root, "order=oldest").await;
        let lines: Vec<String> = trail.iter().map(summary).collect();
        assert_eq!(lines, [
            "anonymous none - user.register user:1 1 - -  success member",
            "user:1 password admin user.sign_in user:1 1 - -  success -",
            "anonymous none - user.register user:2 2 - -  success member",
            "user:2 password member user.sign_in user:2 2 - -  success -",
            "user:2 token:4 member key.create key:1 2 - -  success pages:read pages:write",
            "key:1 key:1 member page.create page:1 2 - 1 title+body success -",
            "user:2 token:4 member page.update page:1 2 1 2 body success -",
            "user:2 token:4 member page.update page:1 2 2 3 title+body success -",
            "user:1 token:2 admin user.role user:2 2 - - role success member to admin",
            "user:2 token:4 admin page.delete page:1 2 3 -  success -",
            "user:2 token:4 admin user.update user:2 2 - - surname success -",
            "user:2 token:4 admin key.update key:1 2 - - name success pages:read pages:write",
            "user:2 token:4 admin key.rotate key:1 2 - - secret success overlap 60 s",
            "user:2 token:4 admin key.revoke key:1 2 - -  success -",
            "user:2 token:4 admin key.issue key:2 2 - -  success translate:use",
            "anonymous claim:2 - key.claim key:2 2 - -  success -",
            "user:2 token:4 admin key.revoke key:2 2 - -  success -",
            "user:1 token:2 admin token.revoke token-of-user:2 2 - -  success 1 token",
            "user:2 password admin user.sign_in user:2 2 - -  success -",
            "user:2 token:19 admin user.password user:2 2 - - password success 1 token, 0 own keys, 0 issued keys",
            "user:1 token:2 admin user.role user:2 2 - - role success admin to member",
            "user:1 token:2 admin user.disable user:2 2 - - disabled success no token, 0 own keys, 0 issued keys",
            "user:1 token:2 admin user.enable user:2 2 - - disabled success -",
            "user:1 token:2 admin user.delete user:2 2 - -  success no token, 0 own keys, 0 issued keys",
            "user:1 token:2 admin user.sign_out token-of-user:1 1 - -  success -",
            "user:1 password admin user.sign_in user:1 1 - -  success -",
        ]);
        for entry in &trail {
            assert_eq!(entry["client"], "127.0.0.1", "{entry}");
            assert_eq!(entry["request_id"].as_str().unwrap().len(), 32, "{entry}");
            let at = chrono::DateTime::parse_from_rfc3339(entry["at"].as_str().unwrap()).unwrap();
            assert!((app.clock.now().utc() - at.to_utc()).abs() < chrono::TimeDelta::minutes(1), "{entry}");
        }
        assert_eq!(trail[6]["scopes"], json!(scopes::of("member")));
        assert_eq!(trail[5]["scopes"], json!(["pages:read", "pages:write"]), "the level of the key");
        assert_eq!((&trail[5]["user"], &trail[15]["user"]), (&json!(2), &json!(null)), "the account of the caller");
    }

    async fn failed_and_denied_attempts_are_recorded(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let (key, _) = app.key_of(&eve, &["pages:read"]).await;
        let page = json!({ "title": "t", "body": "b" });
        app.post("/page/", &ada, &page).await;
        app.register("tim@example.org").await;
        app.patch("/users/4", &root, &json!({ "disabled": true })).await;
        let before = app.trail(&root, "").await[0]["id"].clone();

        app.sign_in("ada@example.org", "wrong password").await;
        app.sign_in("unknown@example.org", PASSWORD).await;
        app.sign_in("tim@example.org", "wrong password").await;
        app.sign_in("tim@example.org", PASSWORD).await;
        app.register("ADA@example.org").await;
        app.put("/page/1", &eve, &page).await;
        app.request("PUT", "/page/1").credential(&ada).header("If-Match", "\"7\"").json(&page).send().await;
        app.delete("/page/99", &ada).await;
        app.post("/page/", &key, &page).await;
        app.get("/audit", &ada).await;
        app.get("/audit", &Credential::Token(STATIC_KEY.into())).await;
        app.patch("/users/1", &root, &json!({ "role": "member" })).await;
        app.patch("/users/1", &root, &json!({ "role": "admin", "disabled": true })).await;
        app.delete("/me/keys/1", &ada).await;
        // These have an unknown caller, or no valid input. They are not recorded.
        app.get("/me", &Credential::None).await;
        app.get("/me", &Credential::Token("lkt_nonsense".into())).await;
        app.post("/page/", &ada, &json!({ "title": "" })).await;
        app.post("/keys/claim", &Credential::None, &json!({ "claim": "lkc_nonsense" })).await;

        let trail = app.trail(&root, &format!("order=oldest&after={before}")).await;
        let lines: Vec<String> = trail.iter().map(summary).collect();
        assert_eq!(lines, [
            "anonymous none - user.sign_in user:2 2 - -  failure wrong_password",
            "anonymous none - user.sign_in - - - -  failure unknown_email",
            "anonymous none - user.sign_in user:4 4 - -  failure wrong_password",
            "anonymous none - user.sign_in user:4 4 - -  failure disabled",
            "anonymous none - user.register user:2 2 - -  failure email_taken",
            "user:3 token:6 member page.update page:1 2 - -  denied not_owner",
            "user:2 token:4 member page.update page:1 2 - -  failure stale",
            "user:2 token:4 member page.delete page:99 - - -  failure not_found",
            "key:1 key:1 member request POST /page/ - - -  denied insufficient_scope pages:write",
            "user:2 token:4 member request GET /audit - - -  denied insufficient_scope audit:read",
            "static-key static-key - request GET /audit - - -  denied insufficient_scope audit:read",
            "user:1 token:2 admin user.role user:1 1 - -  failure last_admin",
            "user:1 token:2 admin user.disable user:1 1 - -  failure last_admin",
            "user:2 token:4 member key.revoke key:1 3 - -  failure not_found",
        ]);
    }

    async fn every_refusal_within_a_change_has_an_entry_with_its_code(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        app.register("eve@example.org").await;
        let key = json!({ "name": "k", "scopes": [] });
        let page = json!({ "title": "t", "body": "b" });
        app.post("/page/", &ada, &page).await;
        let issue = async |body: Value| app.post("/keys", &root, &body).await;
        let claimed = |order: &str| json!({ "name": "k", "scopes": [], "order": order, "delivery": "claim" });
        let expiring = json!({ "name": "k", "scopes": [], "expires_at": app.clock.now().plus_seconds(60).to_string() });
        let used = issue(claimed("used")).await.text_of("claim");
        assert_eq!(app.post("/keys/claim", &Credential::None, &json!({ "claim": used })).await.status, 200);
        let revoked = issue(claimed("revoked")).await;
        assert_eq!(app.delete(&format!("/keys/{}", revoked.body["id"]), &root).await.status, 204);
        let expired = issue(claimed("expired")).await.text_of("claim");
        let expired_key = app.post("/me/keys", &ada, &expiring).await.body["id"].clone();
        app.clock.advance(72 * 3600);
        let sign_in = async |email: &str| Credential::Token(app.new_token_of(email).await);
        let (root, ada, eve) =
            (sign_in("root@example.org").await, sign_in("ada@example.org").await, sign_in("eve@example.org").await);
        let create_named =
            || app.request("POST", "/me/keys").credential(&ada).header("Idempotency-Key", "one").json(&key);
        let created = Credential::Token(create_named().send().await.text_of("key"));
        assert_eq!(app.get("/protected-route", &created).await.status, 200, "the secret has been used");
        let (old, rotated) = app.key_of(&ada, &["keys:write"]).await;
        let overlap = json!({ "overlap_seconds": 3600 });
        assert_eq!(app.post(&format!("/me/keys/{rotated}/rotate"), &ada, &overlap).await.status, 200);

        let send = |method: &str, path: &str, caller: &Credential, body: Value| {
            let request = app.request(method, path).credential(caller);
            if body.is_null() { request } else { request.json(&body) }
        };
        let claim = |code: &str| send("POST", "/keys/claim", &Credential::None, json!({ "claim": code }));
        let password = json!({ "current_password": "a wrong password", "new_password": "another password" });
        let email = json!({ "email": "eve@example.org", "current_password": PASSWORD });
        let beyond = json!({ "name": "k", "scopes": ["users:read"] });
        let stale = json!({ "title": "u", "version": 7 });
        let attempts = [
            (claim(&used), 410, "claim_used", "failure claim_used"),
            (claim(&revoked.text_of("claim")), 410, "claim_revoked", "failure claim_revoked"),
            (claim(&expired), 410, "claim_expired", "failure claim_expired"),
            (send("POST", "/keys", &root, json!({ "name": "other", "scopes": [], "order": "used" })), 409,
             "repeated_differently", "failure repeated_differently"),
            (create_named(), 409, "secret_used", "failure secret_used"),
            (send("POST", &format!("/me/keys/{expired_key}/rotate"), &ada, json!({})), 409, "expired",
             "failure expired"),
            (send("PATCH", &format!("/me/keys/{rotated}"), &old, json!({ "name": "n" })), 403, "secret_replaced",
             "denied secret_replaced"),
            (send("POST", "/me/keys", &ada, beyond), 422, "invalid", "failure scope_not_held"),
            (send("PATCH", "/me", &ada, email), 409, "email_taken", "failure email_taken"),
            (send("PUT", "/me/password", &ada, password), 403, "wrong_password", "failure wrong_password"),
            (send("DELETE", "/me", &root, Value::Null), 409, "last_admin", "failure last_admin"),
            (send("PATCH", "/page/1", &ada, stale), 412, "stale", "failure stale"),
            (send("PATCH", "/page/1", &eve, json!({ "title": "u" })), 403, "not_owner", "denied not_owner"),
            (send("DELETE", "/page/99", &ada, Value::Null), 404, "not_found", "failure not_found"),
        ];
        for (request, status, code, entry) in attempts {
            let answer = request.send().await;
            answer.assert_error(status, code);
            let latest = "SELECT outcome || ' ' || detail AS row FROM audit_entries \
                          WHERE id = (SELECT max(id) FROM audit_entries)";
            assert_eq!(app.database.rows(latest).await, [entry]);
        }
    }

    async fn headers_of_a_client_cannot_forge_its_address_user_or_role(app: App) {
        let root = app.admin("root@example.org").await;
        app.register("ada@example.org").await;
        let forged = |request: Request| {
            let headers = [
                ("X-Forwarded-For", "6.6.6.6"),
                ("Forwarded", "for=6.6.6.6"),
                ("X-Real-IP", "6.6.6.6"),
                ("True-Client-IP", "6.6.6.6"),
                ("X-User-Id", "1"),
                ("X-Forwarded-User", "root@example.org"),
                ("X-Remote-User", "root@example.org"),
                ("X-Role", "admin"),
                ("X-Scopes", "users:read"),
                ("X-Original-URL", "/health/live"),
                ("X-HTTP-Method-Override", "DELETE"),
            ];
            headers.iter().fold(request, |request, (name, value)| request.header(name, value))
        };
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let signed_in = forged(app.request("POST", "/token").form(&form)).send().await;
        assert_eq!(signed_in.status, 200, "{signed_in:?}");
        let ada = Credential::Token(signed_in.text_of("access_token"));
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;

        let anonymous = forged(app.request("GET", "/me")).send().await;
        anonymous.assert_error(app.expected.no_credential, "not_authenticated");
        let refused = forged(app.request("GET", "/users").credential(&ada)).send().await;
        refused.assert_error(403, "insufficient_scope");
        for credential in [&ada, &key] {
            let me = forged(app.request("GET", "/me").credential(credential)).send().await;
            assert_eq!((me.status, &me.body["id"], &me.body["role"]), (200, &json!(2), &json!("member")), "{me:?}");
        }
        let trail = app.trail(&root, "actor=user:2&order=oldest").await;
        let lines: Vec<String> = trail.iter().map(summary).collect();
        assert_eq!(lines, [
            "user:2 password member user.sign_in user:2 2 - -  success -",
            "user:2 token:4 member key.create key:1 2 - -  success pages:read",
            "user:2 token:4 member request GET /users - - -  denied insufficient_scope users:read",
        ]);
        for entry in &trail {
            assert_eq!(entry["client"], "127.0.0.1", "{entry}");
        }
    }

    async fn keys_and_pages_ended_by_a_change_of_their_owner_have_their_own_entries(app: App) {
        let root = app.admin("root@example.org").await;
        for number in 2..=4 {
            let email = format!("user{number}@example.org");
            let user = app.admin(&email).await;
            app.key_of(&user, &["pages:read"]).await;
            app.post("/keys", &user, &json!({ "name": "k", "scopes": ["pages:read"] })).await;
            app.post("/keys", &user, &json!({ "name": "k", "scopes": ["translate:use"] })).await;
            app.post("/page/", &user, &json!({ "title": "t", "body": "b" })).await;
            let last = app.trail(&root, "").await[0]["id"].clone();
            match number {
                2 => app.patch("/users/2", &root, &json!({ "disabled": true })).await,
                3 => app.put("/me/password", &user, &json!({ "current_password": PASSWORD, "new_password": "another password" })).await,
                _ => app.delete("/users/4", &root).await,
            };
            let entries = app.trail(&root, &format!("order=oldest&after={last}")).await;
            let lines: Vec<String> = entries.iter().map(|entry| {
                assert_eq!(entry["subject"], number, "{entry}");
                format!("{} {}", entry["action"].as_str().unwrap(), entry["target"].as_str().unwrap())
            }).collect();
            let first = (number - 2) * 3 + 1;
            let revoked = |key: i32| format!("key.revoke key:{key}");
            let (own, acting, external) = (revoked(first), revoked(first + 1), revoked(first + 2));
            let expected = match number {
                2 => vec![own, acting, external, "user.disable user:2".to_owned()],
                3 => vec![own, acting, "user.password user:3".to_owned()],
                _ => {
                    let page = format!("page.delete page:{}", number - 1);
                    vec![own, page, acting, external, "user.delete user:4".to_owned()]
                }
            };
            assert_eq!(lines, expected);
        }
        let history = app.get("/page/3/history", &root).await;
        assert_eq!(history.body["items"][0]["actor"], "user:1", "the actor is the admin who deleted the user");
    }

    async fn setting_the_current_value_is_not_recorded(app: App) {
        let root = app.admin("root@example.org").await;
        app.register("ada@example.org").await;
        let before = app.trail(&root, "").await.len();
        let same = app.patch("/users/2", &root, &json!({ "role": "member", "disabled": false })).await;
        assert_eq!((same.status, &same.body["role"]), (200, &json!("member")));
        assert_eq!(app.trail(&root, "").await.len(), before);
        app.patch("/users/2", &root, &json!({ "role": "auditor", "disabled": false })).await;
        assert_eq!(app.trail(&root, "").await.len(), before + 1, "only the changed field is recorded");
    }

    async fn a_request_without_permission_is_denied_and_recorded_even_if_it_is_malformed(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let of = |method: &str, path: &str| app.request(method, path).credential(&ada);
        let malformed = [
            of("PATCH", "/users/1").body("text/plain", "x"),
            of("PATCH", "/users/1").body("application/json", "{"),
            of("PATCH", "/users/1").json(&json!({ "unknown": 1 })),
            of("PATCH", "/users/abc").json(&json!({ "role": "admin" })),
            of("GET", "/users?limit=abc"),
            of("GET", "/audit?action=x&since=y"),
            of("POST", "/keys").header("Idempotency-Key", "").json(&json!([])),
            of("DELETE", "/users/99"),
        ];
        let count = malformed.len();
        for request in malformed {
            request.send().await.assert_error(403, "insufficient_scope");
        }
        assert_eq!(app.trail(&root, "action=request&outcome=denied").await.len(), count);
    }


    async fn entries_can_only_be_added(app: App) {
        app.register("ada@example.org").await;
        let before = app.database.dump("audit_entries").await;
        assert_eq!(before.len(), 1);
        let columns = "id, at, actor, credential, scopes, action, changed, outcome";
        let values = "1, '2026-01-01 00:00:00', 'x', 'x', '', 'x', '', 'x'";
        let replace = match app.database.backend {
            Backend::Sqlite => format!("INSERT OR REPLACE INTO audit_entries ({columns}) VALUES ({values})"),
            Backend::Postgres => format!("INSERT INTO audit_entries ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values}) ON CONFLICT (id) DO UPDATE SET actor = 'x'"),
        };
        let truncate = (app.database.backend == Backend::Postgres).then_some("TRUNCATE audit_entries");
        for sql in ["UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries", &replace].into_iter().chain(truncate) {
            let error = app.database.sql_error(sql).await.unwrap_or_else(|| panic!("{sql} is accepted"));
            assert!(error.contains("audit_entries is append-only"), "{sql}: {error}");
        }
        let columns = app.database.rows(match app.database.backend {
            Backend::Sqlite => "SELECT name AS row FROM pragma_table_info('audit_entries')",
            Backend::Postgres => {
                "SELECT CAST(column_name AS TEXT) AS row FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = 'audit_entries'"
            }
        }).await;
        assert!(columns.len() > 15, "{columns:?}");
        for column in columns {
            let sql = format!(r#"UPDATE audit_entries SET "{column}" = "{column}""#);
            let error = app.database.sql_error(&sql).await.unwrap_or_else(|| panic!("{sql} is accepted"));
            // PostgreSQL checks identity columns before it runs triggers.
            let is_identity = app.database.backend == Backend::Postgres && column == "id";
            let reason = if is_identity { "can only be updated to DEFAULT" } else { "audit_entries is append-only" };
            assert!(error.contains(reason), "{sql}: {error}");
        }
        assert_eq!(app.database.dump("audit_entries").await, before);
    }

    async fn the_trail_is_filtered_and_paginated(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["pages:write"]).await;
        let page = json!({ "title": "t", "body": "b" });
        app.post("/page/", &ada, &page).await;
        app.clock.advance(3600);
        let middle = app.clock.now().utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        app.post("/page/", &key, &page).await;
        app.put("/page/2", &key, &page).await;
        app.sign_in("ada@example.org", "wrong password").await;
        for (query, count) in [
            ("", 9),
            ("actor=user:2", 3),
            ("actor=key:1", 2),
            ("user=2", 5),
            ("action=page.create", 2),
            ("target=page:2", 2),
            ("outcome=failure", 1),
            (&format!("since={middle}"), 3),
            (&format!("until={middle}"), 6),
            (&format!("user=2&since={middle}&action=page.create"), 1),
            ("actor=various", 0),
            ("target=token-of-user:2", 0),
            ("after=0", 9),
            ("after=0&order=oldest", 9),
            ("after=3", 2),
            ("after=3&order=oldest", 6),
        ] {
            assert_eq!(app.trail(&root, query).await.len(), count, "{query}");
        }
        for order in ["newest", "oldest"] {
            let mut found = Vec::new();
            let mut after = String::new();
            loop {
                let part = app.get(&format!("/audit?limit=4&order={order}{after}"), &root).await;
                found.extend(part.body["items"].as_array().unwrap().iter().map(|entry| entry["id"].as_i64().unwrap()));
                let Some(next) = part.body["next"].as_i64() else { break };
                after = format!("&after={next}");
            }
            let mut expected: Vec<i64> = (1..=9).collect();
            if order == "newest" {
                expected.reverse();
            }
            assert_eq!(found, expected, "{order}");
        }
        for (query, field) in [
            ("limit=0", "limit"), ("limit=501", "limit"), ("after=-1", "after"), ("after=x", "after"), ("user=ada", "user"),
            ("actor=unknown", "actor"), ("actor=user:x", "actor"), ("target=pages:2", "target"), ("target=2", "target"),
            ("action=page.unknown", "action"), ("outcome=maybe", "outcome"), ("order=random", "order"),
            ("since=yesterday", "since"), ("until=2026-01-01", "until"), ("actor=a&actor=b", "actor"),
        ] {
            let answer = app.get(&format!("/audit?{query}"), &root).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), [field], "{query}");
        }
    }

    async fn the_whole_trail_is_streamed_as_ndjson(app: App) {
        let root = app.admin("root@example.org").await;
        app.database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1203) \
             INSERT INTO audit_entries (at, user_id, actor, credential, scopes, action, changed, outcome) \
             SELECT '2026-01-01 00:00:00', 7, 'user:7', 'token:1', '', 'page.create', '', 'success' FROM n",
        ).await;
        for (query, count) in [("actor=user:7", 1203), ("actor=user:7&order=oldest&limit=3", 1203), ("actor=user:8", 0)] {
            let request = app.request("GET", &format!("/audit?{query}")).credential(&root);
            let answer = request.header("Accept", "text/html, application/x-ndjson;q=0.9").send().await;
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
            let entries: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(entries.len(), count, "{query}");
            let mut ids: Vec<i64> = entries.iter().map(|entry| entry["id"].as_i64().unwrap()).collect();
            assert!(ids.is_sorted() == query.contains("oldest") || ids.is_empty(), "{query}");
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "each entry once");
        }
        let request = app.request("GET", "/audit").credential(&root);
        let no_ndjson = request.header("Accept", "application/x-ndjson;q=0, */*");
        assert_eq!(no_ndjson.send().await.header("content-type"), "application/json");
        let wrong = app.request("GET", "/audit?action=x").credential(&root).header("Accept", "application/x-ndjson").send().await;
        wrong.assert_error(422, "invalid");
    }

    async fn the_history_of_a_page_stays_after_its_deletion(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await;
        // This is refused, so it is not in the history.
        app.put("/page/1", &eve, &json!({ "title": "mine", "body": "b" })).await;
        app.patch("/page/1", &ada, &json!({ "title": "u" })).await;
        app.delete("/page/1", &ada).await;
        let history = app.get("/page/1/history?order=oldest", &eve).await;
        assert_eq!(history.status, 200, "{history:?}");
        let entries: Vec<Value> = history.body["items"].as_array().unwrap().iter().map(|entry| {
            json!([entry["actor"], entry["role"], entry["action"], entry["version_before"], entry["version_after"], entry["changed"]])
        }).collect();
        assert_eq!(json!(entries), json!([
            ["user:1", "member", "page.create", null, 1, ["title", "body"]],
            ["user:1", "member", "page.update", 1, 2, ["title"]],
            ["user:1", "member", "page.delete", 2, null, []],
        ]));
        for hidden in ["127.0.0.1", "token:"] {
            assert!(!history.text.contains(hidden), "no addresses and no credentials: {history:?}");
        }
        assert_eq!(app.get("/page/1/history?limit=2", &eve).await.body["next"], history.body["items"][1]["id"]);
        for unknown in ["/page/2/history", "/page/2/history?after=1"] {
            app.get(unknown, &eve).await.assert_error(404, "not_found");
        }
        let last = &history.body["items"][2]["id"];
        let past_the_end = app.get(&format!("/page/1/history?order=oldest&after={last}"), &eve).await;
        assert_eq!((past_the_end.status, &past_the_end.body["items"]), (200, &json!([])));
    }

    async fn users_see_their_own_actions_and_changes_to_their_objects(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await;
        app.patch("/users/2", &root, &json!({ "role": "auditor" })).await;
        app.sign_in("ada@example.org", "wrong password").await;
        let activity = app.get("/me/activity?order=oldest", &ada).await;
        let entries: Vec<Value> = activity.body["items"].as_array().unwrap().iter()
            .map(|entry| json!([entry["actor"], entry["action"], entry["outcome"], entry["client"]])).collect();
        assert_eq!(json!(entries), json!([
            ["anonymous", "user.register", "success", "127.0.0.1"],
            ["user:2", "user.sign_in", "success", "127.0.0.1"],
            ["user:1", "user.role", "success", null], // users do not see the admin's address
            ["anonymous", "user.sign_in", "failure", "127.0.0.1"],
        ]));
        for order in ["newest", "oldest"] {
            let (mut ids, mut after) = (Vec::new(), String::new());
            loop {
                let part = app.get(&format!("/me/activity?limit=1&order={order}{after}"), &ada).await;
                ids.extend(part.body["items"].as_array().unwrap().iter().map(|entry| entry["id"].as_i64().unwrap()));
                let Some(next) = part.body["next"].as_i64() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(ids.len(), 4, "{order}: {ids:?}");
            assert!(ids.is_sorted_by(|one, other| if order == "oldest" { one < other } else { one > other }), "{ids:?}");
        }

        // The response to a user does not reveal who owns a key that the user could not find.
        let tim = app.user("tim@example.org").await;
        let (_, key) = app.key_of(&eve, &[]).await;
        app.delete(&format!("/me/keys/{key}"), &tim).await.assert_error(404, "not_found");
        for (user, subject, client) in [(&tim, Value::Null, json!("127.0.0.1")), (&eve, json!(3), Value::Null)] {
            let latest = app.get("/me/activity?limit=1", user).await.body["items"][0].clone();
            let members = ["actor", "action", "subject", "client"].map(|member| latest[member].clone());
            assert_eq!(members, [json!("user:4"), json!("key.revoke"), subject, client]);
        }
    }
}

specify_mailing! {
    async fn a_request_that_cannot_be_recorded_fails_and_changes_nothing(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        app.register("eve@example.org").await;
        let session = app.begin_session("eve@example.org", PASSWORD).await;
        let session = Credential::Session(session.session_secret());
        let callers = Callers { client: &app, member: &ada, admin: &root, email: "eve@example.org" };
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", "wrong password")];
        let mut attempts = vec![
            app.request("POST", "/token").form(&form),
            app.request("POST", "/revoke").form(&[("token", ada.secret())]),
            app.request("DELETE", "/users/2/token").credential(&root),
            app.request("DELETE", "/session").credential(&session),
            app.request("GET", "/audit").credential(&ada), // is denied, and the denial is recorded
        ];
        for name in operations().iter().map(Operation::name) {
            // `POST /introspect` changes nothing. The others are in the list above.
            let listed = ["POST /introspect", "POST /revoke", "DELETE /users/{id}/token", "DELETE /session"];
            // A request for a mail has no entry: the mail has one when it is sent.
            let without_entry = ["POST /password-reset", "POST /email-verification"];
            let is_listed = listed.iter().chain(&without_entry).any(|listed| *listed == name);
            if !is_listed && !name.starts_with("GET ") {
                attempts.push(callers.permitted(&name).await);
            }
        }
        app.database.execute(match app.database.backend {
            Backend::Sqlite => {
                "CREATE TRIGGER trail_is_full BEFORE INSERT ON audit_entries \
                 BEGIN SELECT RAISE(ABORT, 'trail is full'); END"
            }
            Backend::Postgres => {
                "CREATE FUNCTION trail_is_full() RETURNS trigger LANGUAGE plpgsql \
                 AS $$ BEGIN RAISE EXCEPTION 'trail is full'; END $$; \
                 CREATE TRIGGER trail_is_full BEFORE INSERT ON audit_entries \
                 FOR EACH ROW EXECUTE FUNCTION trail_is_full()"
            }
        }).await;
        // The last use of a session is written once a minute, so not again below.
        assert_eq!(app.get("/me", &session).await.status, 200);
        while app.database.number("SELECT count(*) FROM sessions WHERE last_used_at > created_at").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The task that sends mails would try to send those of the accounts above.
        app.database.execute("DELETE FROM outbox").await;
        let before = app.database.dump_all().await;
        for (number, attempt) in attempts.into_iter().enumerate() {
            let answer = attempt.send().await;
            assert!(answer.status >= 500, "attempt {number}: {answer:?}");
            assert!(!answer.text.contains("trail is full"), "{answer:?}");
        }
        assert_eq!(app.database.dump_all().await, before);
        assert_eq!(app.get("/me", &root).await.status, 200, "requests without changes still succeed");
    }
}
