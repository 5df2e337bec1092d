//! Administration of users (`/users`), roles and levels.

use serde_json::{Value, json};

use crate::support::app::PASSWORD;
use crate::support::{Answer, Credential, specify};

/// The e-mail addresses in a list of users.
fn emails(list: &Answer) -> Vec<&str> {
    list.body["items"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap()).collect()
}

specify! {
    async fn users_are_listed_searched_and_counted(app: App) {
        let root = app.admin("root@example.org").await;
        for number in 1..=5 {
            app.register(&format!("user_{number}@example.org")).await;
        }
        app.register("Percent%@example.org").await;
        let list = app.get("/users", &root).await;
        assert_eq!((list.body["items"].as_array().unwrap().len(), &list.body["next"], &list.body["total"]), (7, &json!(null), &json!(null)));
        assert_eq!(list.body["items"][0]["role"], "admin");

        let mut found = Vec::new();
        let mut next = json!(0);
        while !next.is_null() {
            let list = app.get(&format!("/users?limit=2&search=USER_&total=true&after={next}"), &root).await;
            assert_eq!(list.body["total"], 5);
            found.extend(emails(&list).into_iter().map(str::to_owned));
            next = list.body["next"].clone();
        }
        assert_eq!(found, (1..=5).map(|number| format!("user_{number}@example.org")).collect::<Vec<_>>());

        for (search, count) in [("%25", 1), ("_", 5), ("%5C", 0), ("lovelace", 7), ("ADALINE", 7), ("root@", 1), ("nobody", 0), ("'%20OR%201=1", 0)] {
            assert_eq!(emails(&app.get(&format!("/users?search={search}"), &root).await).len(), count, "{search}");
        }
        for query in ["limit=0", "limit=501", "after=-1", "total=yes", "total=1", "search=%00", "limit=1&limit=2"] {
            app.get(&format!("/users?{query}"), &root).await.assert_error(422, "invalid");
        }
    }

    async fn a_complete_email_finds_only_its_user_in_any_spelling(app: App) {
        let root = app.admin("root@example.org").await;
        for email in ["ada@example.org", "zada@example.org", "ada@example.org.uk"] {
            app.register(email).await;
        }
        for search in ["ada@example.org", "ADA@EXAMPLE.ORG"] {
            let list = app.get(&format!("/users?search={search}&total=true"), &root).await;
            assert_eq!((emails(&list), &list.body["total"]), (vec!["ada@example.org"], &json!(1)), "{list:?}");
            assert_eq!(emails(&app.get(&format!("/users?search={search}&after=2"), &root).await), [""; 0]);
        }
        let list = app.get("/users?search=da@example.or", &root).await;
        assert_eq!(emails(&list), ["ada@example.org", "zada@example.org", "ada@example.org.uk"], "a part of an address");
    }

    async fn letters_beyond_ascii_are_found_in_any_case(app: App) {
        let root = app.admin("root@example.org").await;
        for (name, email) in [("\u{d6}d\u{f6}n von Horv\u{e1}th", "one@example.org"), ("\u{410}\u{43d}\u{43d}\u{430} K.", "two@example.org")] {
            let mut body = crate::support::app::registration(email);
            body["name"] = json!(name);
            assert_eq!(app.post("/register", &Credential::None, &body).await.status, 201);
        }
        for (search, found) in [("\u{f6}d\u{d6}N", "one@example.org"), ("HORV\u{c1}TH", "one@example.org"), ("\u{430}\u{41d}\u{41d}\u{410}", "two@example.org")] {
            assert_eq!(emails(&app.get(&format!("/users?search={search}"), &root).await), [found], "{search}");
        }
    }

    async fn with_many_users_a_search_uses_an_index_or_is_too_broad(app: App) {
        let root = app.admin("root@example.org").await;
        let then = "2026-01-01 00:00:00";
        for first in (1..12_000).step_by(2_000) {
            app.database.execute(format!(
                "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first} + 1999)
                 INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at)
                 SELECT 'Many' || i, '', 'many' || i || '@example.org', 'many' || i || '@example.org', '', '', '{then}', '{then}' FROM n"
            )).await;
        }
        app.database.execute(
            "UPDATE users SET name = '\u{d6}d\u{f6}n%_', surname = 'x' WHERE email_key IN ('many11000@example.org', 'many11999@example.org')"
        ).await;
        let find = async |query: &str| app.get(&format!("/users?{query}"), &root).await;
        assert_eq!(emails(&find("search=many11998").await), ["many11998@example.org"]);
        let (one, other) = ("many11000@example.org", "many11999@example.org");
        for search in ["\u{f6}D\u{d6}n", "N%25_", "D\u{f6}n%25"] {
            let list = find(&format!("search={search}&limit=1&total=true")).await;
            assert_eq!((emails(&list), &list.body["total"]), (vec![one], &json!(2)), "{search}: {list:?}");
            let next_page = find(&format!("search={search}&limit=1&after={}", list.body["next"])).await;
            assert_eq!((emails(&next_page), &next_page.body["next"]), (vec![other], &Value::Null), "{search}");
        }
        assert_eq!(emails(&find("search=nowhere").await), [""; 0]);
        for broad in ["example", "a"] {
            let list = find(&format!("search={broad}")).await;
            assert_eq!((list.status, emails(&list).len()), (200, 50), "a text that many users match requires no index");
        }
        assert_eq!(find("search=example&total=true").await.body["total"], 10_000);
        assert_eq!(find("total=true").await.body["total"], 10_000);
        for broad in ["search=%C3%96d", "search=zz", "search=zz&total=true"] {
            let list = find(broad).await;
            list.assert_error(422, "invalid");
            assert_eq!(list.body["errors"][0]["code"], "search_too_broad", "{list:?}");
        }
        app.database.execute("DELETE FROM users WHERE email_key = 'many11000@example.org'").await;
        assert_eq!(emails(&find("search=\u{f6}d\u{f6}n").await), [other]);
    }

    async fn a_count_that_times_out_is_not_exact_and_does_not_fail_the_search(app: App) {
        let root = app.admin("root@example.org").await;
        // More users than are compared without the index.
        app.database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5001)
             INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at)
             SELECT 'Many', '', 'many' || i || '@example.org', 'many' || i || '@example.org', '', '', '2026-01-01 00:00:00', '2026-01-01 00:00:00' FROM n"
        ).await;
        if app.database.backend == Backend::Postgres {
            app.database.execute(
                "CREATE OR REPLACE FUNCTION user_search_fold(searched TEXT) RETURNS TEXT LANGUAGE plpgsql VOLATILE AS
                 'BEGIN PERFORM pg_sleep(2); RETURN lower(searched); END'"
            ).await;
        }
        let list = app.get("/users?search=many&limit=1&total=true", &root).await;
        let total = if app.database.backend == Backend::Postgres { 10_000 } else { 5_001 };
        assert_eq!((list.status, emails(&list), &list.body["total"]), (200, vec!["many1@example.org"], &json!(total)), "{list:?}");
    }

    async fn disabling_a_user_revokes_all_credentials_and_enabling_restores_none(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        let (own, _) = app.key_of(&ada, &["pages:read"]).await;
        let issued = app.post("/keys", &ada, &json!({ "name": "k", "scopes": ["pages:read"], "order": "1" })).await;
        let issued_key = Credential::Token(issued.text_of("key"));
        let claim = app.post("/keys", &ada, &json!({ "name": "k", "scopes": [], "order": "2", "delivery": "claim" })).await;
        let claim = json!({ "claim": claim.text_of("claim") });

        let disabled = app.patch("/users/2", &root, &json!({ "disabled": true })).await;
        assert_eq!((disabled.status, &disabled.body["disabled"]), (200, &json!(true)), "{disabled:?}");
        let assert_all_rejected = async || {
            for credential in [&ada, &own, &issued_key] {
                app.get("/protected-route", credential).await.assert_error(app.expected.bad_token_header, "invalid_token");
            }
            app.post("/keys/claim", &Credential::None, &claim).await.assert_error(410, "claim_revoked");
        };
        assert_all_rejected().await;
        let disabled = app.sign_in("ada@example.org", PASSWORD).await;
        let wrong = app.sign_in("ada@example.org", "wrong password").await;
        assert_eq!((disabled.status, &disabled.body), (app.expected.bad_password, &wrong.body), "the response does not state why");

        let enabled = app.patch("/users/2", &root, &json!({ "disabled": false })).await;
        assert_eq!(enabled.body["disabled"], false);
        assert_all_rejected().await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        assert_eq!(app.get("/me/keys", &ada).await.body["items"], json!([]));
        assert!(app.get("/keys?order=1", &ada).await.body["items"][0]["revoked_at"].is_string());
    }

    async fn the_last_admin_cannot_be_removed(app: App) {
        let root = app.admin("root@example.org").await;
        let demoted = json!({ "role": "member" });
        let disabled = json!({ "disabled": true });
        let assert_last_admin = async |root: &Credential| {
            for body in [&demoted, &disabled, &json!({ "role": "auditor", "disabled": false })] {
                app.patch("/users/1", root, body).await.assert_error(409, "last_admin");
            }
            app.delete("/users/1", root).await.assert_error(409, "last_admin");
            app.delete("/me", root).await.assert_error(409, "last_admin");
        };
        assert_last_admin(&root).await;
        app.admin("ada@example.org").await;
        assert_eq!(app.patch("/users/2", &root, &disabled).await.status, 200);
        assert_last_admin(&root).await; // a disabled admin does not count
        assert_eq!(app.patch("/users/1", &root, &json!({ "role": "admin", "disabled": false })).await.status, 200);
        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": false })).await.status, 200);
        assert_eq!(app.delete("/me", &root).await.status, 204, "another admin is left");
    }

    async fn invalid_changes_and_unknown_users_are_rejected(app: App) {
        let root = app.admin("root@example.org").await;
        for (body, field) in [
            (json!({}), ""),
            (json!({ "role": "emperor" }), "role"),
            (json!({ "role": 1 }), "role"),
            (json!({ "disabled": "yes" }), "disabled"),
            (json!({ "email": "new@example.org" }), "email"),
        ] {
            let answer = app.patch("/users/1", &root, &body).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), [field], "{body}");
        }
        app.get("/users/99", &root).await.assert_error(404, "not_found");
        app.patch("/users/99", &root, &json!({ "role": "admin" })).await.assert_error(404, "not_found");
        app.delete("/users/99", &root).await.assert_error(404, "not_found");
        app.delete("/users/99/token", &root).await.assert_error(404, "not_found");
        app.get("/users/1.0", &root).await.assert_error(404, "not_found");
    }

    async fn a_narrowed_credential_cannot_change_its_own_account(app: App) {
        let root = app.admin("root@example.org").await;
        app.admin("other@example.org").await;
        let (key, _) = app.key_of(&root, &["users:read", "users:write"]).await;
        let issued = json!({ "name": "k", "scopes": ["users:read", "users:write"] });
        let issued = Credential::Token(app.post("/keys", &root, &issued).await.text_of("key"));
        let form = [
            ("grant_type", "password"),
            ("username", "root@example.org"),
            ("password", PASSWORD),
            ("scope", "users:read users:write"),
        ];
        let narrowed = app.request("POST", "/token").form(&form).send().await;
        let narrowed = Credential::Token(narrowed.text_of("access_token"));
        for caller in [&key, &issued, &narrowed] {
            assert_eq!(app.get("/users/1", caller).await.status, 200);
            for body in [json!({ "role": "admin" }), json!({ "role": "member" }), json!({ "disabled": false })] {
                let answer = app.patch("/users/1", caller, &body).await;
                assert_eq!(answer.status, 403, "{body}: {answer:?}");
            }
            assert_eq!(app.delete("/users/1", caller).await.status, 403);
        }
        let role = app.database.rows("SELECT role AS row FROM users WHERE id = 1").await;
        assert_eq!(role, ["admin"]);
    }

    async fn cached_credentials_of_a_disabled_user_are_rejected_at_the_next_request(app: App) {
        let root = app.admin("root@example.org").await;
        for number in 2..12 {
            let email = format!("user{number}@example.org");
            let user = app.user(&email).await;
            let (key, _) = app.key_of(&user, &["pages:read"]).await;
            for caller in [&user, &key] {
                assert_eq!(app.get("/page/", caller).await.status, 200);
                assert_eq!(app.get("/page/", caller).await.status, 200, "the second request uses the cache");
            }
            let disabled = app.patch(&format!("/users/{number}"), &root, &json!({ "disabled": true })).await;
            assert_eq!(disabled.status, 200, "{disabled:?}");
            for caller in [&user, &key] {
                app.get("/page/", caller).await.assert_error(app.expected.bad_token_header, "invalid_token");
            }
        }
    }

    async fn an_admin_can_revoke_the_token_of_a_user(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &[]).await;
        assert_eq!(app.delete("/users/2/token", &root).await.status, 204);
        app.get("/me", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/me", &key).await.status, 200, "API keys stay valid");
        assert_eq!(app.delete("/users/2/token", &root).await.status, 204, "the request can be repeated");
    }

    async fn a_token_has_the_requested_scopes_and_at_most_those_of_the_role(app: App) {
        app.user("ada@example.org").await;
        let form = |scope: &'static str| {
            [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD), ("scope", scope)]
        };
        let sign_in = async |scope: &'static str| app.request("POST", "/token").form(&form(scope)).send().await;
        for excessive in ["users:read", "pages:read audit:read", "keys:issue"] {
            let answer = sign_in(excessive).await;
            answer.assert_error(400, "invalid_scope");
            assert!(answer.text_of("detail").contains(excessive.rsplit(' ').next().unwrap()), "{answer:?}");
        }
        let narrowed = sign_in("keys:read pages:read").await;
        assert_eq!(narrowed.body["scope"], "pages:read keys:read");
        let narrowed = Credential::Token(narrowed.text_of("access_token"));
        assert_eq!(app.get("/me/keys", &narrowed).await.status, 200);
        app.post("/me/keys", &narrowed, &json!({ "name": "k", "scopes": [] })).await.assert_error(403, "insufficient_scope");
        let wrong = [("grant_type", "password"), ("username", "ada@example.org"), ("password", "wrong"), ("scope", "users:read")];
        let wrong = app.request("POST", "/token").form(&wrong).send().await;
        wrong.assert_error(app.expected.bad_password, "invalid_grant");
    }

    async fn a_role_change_applies_to_the_next_request(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        let roles = [("auditor", 200, 403), ("member", 403, 403), ("admin", 200, 204)];
        for (role, reads, writes) in roles {
            let change: Value = json!({ "role": role });
            assert_eq!(app.patch("/users/2", &root, &change).await.body["role"], role);
            assert_eq!(app.get("/users", &ada).await.status, reads, "{role}");
            assert_eq!(app.delete("/users/1/token", &ada).await.status, writes, "{role}");
        }
    }
}
