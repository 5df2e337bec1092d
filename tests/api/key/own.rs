//! A user's API keys: creation, scopes, changes, rotation, expiry and last use.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::PASSWORD;
use crate::support::{Answer, App, Credential, specify, specify_database};

async fn rotate(app: &App, owner: &Credential, id: i64, body: Value) -> Answer {
    app.post(&format!("/me/keys/{id}/rotate"), owner, &body).await
}

specify_database! {
    async fn a_last_use_never_goes_backwards(database: Database) {
        use latchkey::db::api_keys::touch;
        use latchkey::domain::id::KeyId;

        let db = database.open();
        db.migrate_up().await.unwrap();
        database.execute(
            "INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at) \
             VALUES ('Adaline', '', 'a', 'a', '', '', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
        ).await;
        database.execute(
            "INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, created_at) \
             VALUES (1, FALSE, 'k', '', '', '2026-01-01 00:00:00')",
        ).await;
        let now = latchkey::clock::Clock::default().now();
        for (seconds, address) in [(0, 1), (60, 2), (30, 3)] {
            let from = Some([192, 0, 2, address].into());
            db.write(move |conn| touch(conn, KeyId(1), now.plus_seconds(seconds), from)).await.unwrap();
        }
        assert_eq!(database.rows("SELECT last_used_ip AS row FROM api_keys").await, ["192.0.2.2"]);
    }
}

/// A time on the server's clock, `seconds` from now.
fn in_seconds(app: &App, seconds: i64) -> String {
    app.clock.now().plus_seconds(seconds).utc().to_rfc3339()
}

specify! {
    async fn a_key_is_created_shown_once_and_used(app: App) {
        let ada = app.user("ada@example.org").await;
        let created = app.post("/me/keys", &ada, &json!({ "name": "ci \u{1f511}", "scopes": ["pages:write", "pages:read"] })).await;
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!(created.header("location"), "/me/keys/1");
        assert_eq!(created.body["scopes"], json!(["pages:read", "pages:write"]));
        for empty in ["expires_at", "last_used_at", "last_used_ip", "previous_expires_at"] {
            assert!(created.body[empty].is_null(), "{empty}");
        }
        let secret = created.text_of("key");
        assert_eq!((secret.len(), &secret[..4]), (53, "lkk_"));
        assert_eq!(created.body["hint"], format!("lkk_\u{2026}{}", &secret[49..]));

        let read = app.get("/me/keys/1", &ada).await;
        let mut expected = created.body.clone();
        expected.as_object_mut().unwrap().remove("key");
        assert_eq!(read.body, expected, "the secret is shown once");
        assert_eq!(app.get("/me/keys", &ada).await.body["items"], json!([expected]));

        for key in [Credential::Token(secret.clone()), Credential::Bearer(secret.clone())] {
            assert_eq!(app.get("/protected-route", &key).await.body["hello"], "Adaline");
            assert_eq!(app.post("/page/", &key, &json!({ "title": "t", "body": "" })).await.body["owner"], 1);
        }
        let stored = app.database.rows("SELECT digest AS row FROM api_keys").await;
        assert_eq!(stored, [latchkey::domain::secret::Digest::of(&secret).to_hex()], "a digest is all that is stored");
    }

    async fn many_keys_are_valid_beside_one_token(app: App) {
        let ada = app.user("ada@example.org").await;
        let (one, first) = app.key_of(&ada, &["pages:read"]).await;
        let (other, _) = app.key_of(&ada, &["pages:read"]).await;
        let again = Credential::Token(app.new_token_of("ada@example.org").await);
        for key in [&one, &other, &again] {
            assert_eq!(app.get("/page/", key).await.status, 200, "a new sign-in does not affect keys");
        }
        assert_eq!(app.delete(&format!("/me/keys/{first}"), &again).await.status, 204);
        app.get("/page/", &one).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/page/", &other).await.status, 200);
        app.get(&format!("/me/keys/{first}"), &again).await.assert_error(404, "not_found");
        app.delete(&format!("/me/keys/{first}"), &again).await.assert_error(404, "not_found");
    }

    async fn invalid_keys_are_refused_field_by_field(app: App) {
        let ada = app.user("ada@example.org").await;
        let (ten_years, more) = (in_seconds(&app, 3_652 * 86_400 - 60), in_seconds(&app, 3_653 * 86_400));
        let key = |field: &str, value: Value| {
            let mut key = json!({ "name": "k", "scopes": ["pages:read"] });
            key[field] = value;
            key
        };
        for (body, fields) in [
            (json!({}), vec!["name", "scopes"]),
            (key("name", json!("")), vec!["name"]),
            (key("name", json!("a\u{7}b")), vec!["name"]),
            (key("name", json!("line\nbreak")), vec!["name"]),
            (key("name", json!("n".repeat(256))), vec!["name"]),
            (key("scopes", json!("pages:read")), vec!["scopes"]),
            (key("scopes", json!([7])), vec!["scopes"]),
            (key("scopes", json!([""])), vec!["scopes"]),
            (key("scopes", json!(["pages:read pages:write"])), vec!["scopes"]),
            (key("scopes", json!(["pages:read", "pages:read"])), vec!["scopes"]),
            (key("scopes", json!(["translate:use"])), vec!["scopes"]),
            (key("scopes", json!(["users:write"])), vec!["scopes"]),
            (key("expires_at", json!("tomorrow")), vec!["expires_at"]),
            (key("expires_at", json!("2026-01-01T00:00:00Z")), vec!["expires_at"]),
            (key("expires_at", json!(in_seconds(&app, 0))), vec!["expires_at"]),
            (key("expires_at", json!(more)), vec!["expires_at"]),
            (key("expires_at", json!("2030-01-01 00:00:00")), vec!["expires_at"]),
            (key("order", json!("1")), vec!["order"]),
        ] {
            let answer = app.post("/me/keys", &ada, &body).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), fields, "{body}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys").await, 0);
        assert_eq!(app.post("/me/keys", &ada, &key("expires_at", json!(ten_years))).await.status, 201);
    }

    async fn a_key_grants_no_scope_that_its_creator_lacks(app: App) {
        let root = app.admin("root@example.org").await;
        let (keeper, _) = app.key_of(&root, &["keys:read", "keys:write"]).await;
        let beyond = app.post("/me/keys", &keeper, &json!({ "name": "k", "scopes": ["keys:read", "users:write"] })).await;
        beyond.assert_error(422, "invalid");
        assert_eq!(beyond.body["errors"][0]["code"], "scope_not_held");
        let (_, id) = app.key_of(&keeper, &["keys:read"]).await;
        let widened = app.patch(&format!("/me/keys/{id}"), &keeper, &json!({ "scopes": ["audit:read"] })).await;
        widened.assert_error(422, "invalid");
        assert_eq!(app.get(&format!("/me/keys/{id}"), &root).await.body["scopes"], json!(["keys:read"]));

        let form = [("username", "root@example.org"), ("password", PASSWORD), ("grant_type", "password"), ("scope", "keys:write pages:read")];
        let narrowed = app.request("POST", "/token").form(&form).send().await;
        assert_eq!(narrowed.body["scope"], "pages:read keys:write");
        let narrowed = Credential::Token(narrowed.text_of("access_token"));
        for beyond in ["pages:write", "keys:write"] {
            let answer = app.post("/me/keys", &narrowed, &json!({ "name": "k", "scopes": [beyond] })).await;
            answer.assert_error(422, "invalid");
        }
        app.key_of(&narrowed, &["pages:read"]).await;
    }

    async fn a_key_cannot_take_over_a_stronger_key_or_extend_an_expiry(app: App) {
        let root = app.admin("root@example.org").await;
        let end = in_seconds(&app, 3600);
        let (strong, _) = app.key_of(&root, &["users:read", "users:write"]).await;
        let weak = json!({ "name": "weak", "scopes": ["keys:read", "keys:write", "pages:read"], "expires_at": end });
        let weak = Credential::Token(app.post("/me/keys", &root, &weak).await.text_of("key"));
        rotate(&app, &weak, 1, json!({})).await.assert_error(422, "invalid");
        for edit in [json!({ "expires_at": in_seconds(&app, 7200) }), json!({ "scopes": ["users:read"] })] {
            app.patch("/me/keys/1", &weak, &edit).await.assert_error(422, "invalid");
        }
        assert_eq!(app.get("/users", &strong).await.status, 200);
        assert_eq!(app.patch("/me/keys/1", &weak, &json!({ "name": "renamed" })).await.status, 200);

        let later = app.patch("/me/keys/2", &weak, &json!({ "expires_at": in_seconds(&app, 7200) })).await;
        assert_eq!((later.status, later.bad_fields()), (422, vec!["expires_at"]), "a key cannot extend its own expiry");
        let sooner = json!({ "expires_at": in_seconds(&app, 1800) });
        assert_eq!(app.patch("/me/keys/2", &weak, &sooner).await.status, 200);
        let key = |scopes: Value, end: Value| json!({ "name": "k", "scopes": scopes, "expires_at": end });
        for (body, field) in [
            (json!({ "name": "k", "scopes": ["pages:read"] }), "expires_at"),
            (key(json!(["pages:read"]), json!(in_seconds(&app, 3000))), "expires_at"),
            (key(json!(["keys:write"]), json!(in_seconds(&app, 60))), "scopes"),
        ] {
            let answer = app.post("/me/keys", &weak, &body).await;
            assert_eq!((answer.status, answer.bad_fields()), (422, vec![field]), "{answer:?}");
        }
        let child = key(json!(["pages:read"]), json!(in_seconds(&app, 60)));
        assert_eq!(app.post("/me/keys", &weak, &child).await.status, 201);
        let endless = app.post("/me/keys", &weak, &json!({ "name": "k", "scopes": [] })).await;
        assert_eq!((endless.status, endless.bad_fields()), (422, vec!["expires_at"]), "an expiry is required also without scopes");
        app.key_of(&root, &["pages:read"]).await; // key 4
        rotate(&app, &weak, 4, json!({})).await.assert_error(422, "invalid");
        let itself = rotate(&app, &weak, 2, json!({})).await;
        assert_eq!(itself.status, 200, "a key may replace its own secret: {itself:?}");
    }

    async fn the_secret_before_a_rotation_cannot_change_its_key(app: App) {
        let root = app.admin("root@example.org").await;
        let (leaked, id) = app.key_of(&root, &["keys:read", "keys:write", "pages:write"]).await;
        // In the second round, the key expires before the overlap ends. The old secret then expires with the key.
        let path = format!("/me/keys/{id}");
        let fresh = rotate(&app, &root, id, json!({ "overlap_seconds": 3600 })).await.text_of("key");
        for end in [None, Some(in_seconds(&app, 1800))] {
            if let Some(end) = end {
                assert_eq!(app.patch(&path, &root, &json!({ "expires_at": end })).await.status, 200);
            }
            rotate(&app, &leaked, id, json!({})).await.assert_error(403, "secret_replaced");
            for edit in [json!({ "name": "mine" }), json!({ "scopes": [] }), json!({ "expires_at": in_seconds(&app, 1) })] {
                app.patch(&path, &leaked, &edit).await.assert_error(403, "secret_replaced");
            }
            app.delete(&path, &leaked).await.assert_error(403, "secret_replaced");
        }
        assert_eq!(app.post("/page/", &leaked, &json!({ "title": "t", "body": "" })).await.status, 201, "the old secret still works");
        assert_eq!(app.get(&path, &leaked).await.status, 200);
        let (_, other) = app.key_of(&root, &[]).await;
        assert_eq!(app.delete(&format!("/me/keys/{other}"), &leaked).await.status, 204, "it can still delete other keys");
        assert_eq!(rotate(&app, &Credential::Token(fresh), id, json!({})).await.status, 200, "the new secret can");

        let body = json!({ "name": "shop", "scopes": ["keys:issue"] });
        let shop = app.post("/keys", &root, &body).await;
        let (secret, shop) = (Credential::Token(shop.text_of("key")), shop.body["id"].as_i64().unwrap());
        let overlap = app.clock.now().plus_seconds(60).utc().format("%Y-%m-%d %H:%M:%S").to_string();
        app.database.execute(format!(
            "UPDATE api_keys SET previous_digest = digest, digest = 'x', previous_expires_at = '{overlap}' WHERE id = {shop}"
        )).await;
        app.clock.advance(1);
        let answer = app.delete(&format!("/keys/{shop}"), &secret).await;
        answer.assert_error(403, "secret_replaced");
    }

    async fn no_scope_is_granted_in_advance_of_a_promotion(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let (_, id) = app.key_of(&ada, &["pages:read"]).await;
        let widened = app.patch(&format!("/me/keys/{id}"), &ada, &json!({ "scopes": ["users:write"] })).await;
        assert_eq!((widened.status, widened.bad_fields()), (422, vec!["scopes"]));

        let (writer, _) = app.key_of(&root, &["users:write"]).await;
        let promoted = app.patch("/users/2", &writer, &json!({ "role": "admin" })).await;
        assert_eq!((promoted.status, promoted.bad_fields()), (422, vec!["role"]), "a key grants no role with more scopes than its own");
        assert_eq!(app.patch("/users/2", &writer, &json!({ "disabled": true })).await.status, 200);
        app.delete("/users/1", &writer).await.assert_error(403, "insufficient_scope");
        assert_eq!(app.patch("/users/2", &root, &json!({ "role": "admin" })).await.status, 200);
    }

    async fn an_issued_key_cannot_manage_the_keys_of_its_owner(app: App) {
        let root = app.admin("root@example.org").await;
        app.key_of(&root, &["users:read"]).await;
        let body = json!({ "name": "issued", "scopes": ["keys:read", "keys:write"] });
        let issued = Credential::Token(app.post("/keys", &root, &body).await.text_of("key"));
        app.get("/me/keys", &issued).await.assert_error(403, "user_required");
        app.post("/me/keys", &issued, &json!({ "name": "k", "scopes": [] })).await.assert_error(403, "user_required");
        rotate(&app, &issued, 1, json!({})).await.assert_error(403, "user_required");
        app.delete("/me/keys/1", &issued).await.assert_error(403, "user_required");

        let body = json!({ "name": "shop", "scopes": ["keys:issue"] });
        let shop = Credential::Token(app.post("/keys", &root, &body).await.text_of("key"));
        let spare = app.post("/keys", &shop, &body).await;
        assert_eq!((spare.status, spare.bad_fields()), (422, vec!["scopes"]), "the key of a shop cannot issue another key of a shop");
    }

    async fn the_permissions_of_a_key_follow_the_role_of_its_owner_at_once(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["users:read", "pages:read", "pages:write"]).await;
        let page = json!({ "title": "t", "body": "" });
        let set = async |role: &str| app.patch("/users/2", &root, &json!({ "role": role })).await.status;
        assert_eq!(app.get("/users", &key).await.status, 200);
        assert_eq!(app.get("/users", &ada).await.status, 200);

        assert_eq!(set("member").await, 200);
        for caller in [&key, &ada] {
            let denied = app.get("/users", caller).await;
            denied.assert_error(403, "insufficient_scope");
            assert!(denied.header("www-authenticate").contains("scope=\"users:read\""), "{denied:?}");
            assert_eq!(app.post("/page/", caller, &page).await.status, 201);
        }
        assert_eq!(set("auditor").await, 200);
        assert_eq!(app.get("/users", &key).await.status, 200, "the key was granted the scope, and the role includes it again");
        app.post("/page/", &key, &page).await.assert_error(403, "insufficient_scope");
    }

    async fn a_key_is_changed(app: App) {
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;
        let end = in_seconds(&app, 3600);
        let changed = app.patch("/me/keys/1", &ada, &json!({ "name": "new name", "scopes": [], "expires_at": end })).await;
        assert_eq!((changed.status, &changed.body["name"], &changed.body["scopes"]), (200, &json!("new name"), &json!([])), "{changed:?}");
        app.get("/page/", &key).await.assert_error(403, "insufficient_scope");
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "this route requires no scope");
        app.clock.advance(3600);
        app.get("/protected-route", &key).await.assert_error(app.expected.bad_token_header, "invalid_token");
        app.patch("/me/keys/1", &ada, &json!({})).await.assert_error(422, "invalid");
        let later = json!({ "expires_at": in_seconds(&app, 60) });
        assert_eq!(app.patch("/me/keys/1", &ada, &later).await.status, 200);
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "a later expiry makes the key valid again");
    }

    async fn another_users_key_returns_404(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let (key, id) = app.key_of(&ada, &["pages:read"]).await;
        for id in [id, 99] {
            let path = format!("/me/keys/{id}");
            app.get(&path, &eve).await.assert_error(404, "not_found");
            app.patch(&path, &eve, &json!({ "name": "mine" })).await.assert_error(404, "not_found");
            app.delete(&path, &eve).await.assert_error(404, "not_found");
            rotate(&app, &eve, id, json!({})).await.assert_error(404, "not_found");
        }
        assert_eq!(app.get("/me/keys", &eve).await.body["items"], json!([]));
        assert_eq!(app.get("/page/", &key).await.status, 200);
    }

    async fn rotation_without_overlap_ends_the_old_secret_at_once(app: App) {
        let ada = app.user("ada@example.org").await;
        let (old, id) = app.key_of(&ada, &["pages:read"]).await;
        let hint = app.get(&format!("/me/keys/{id}"), &ada).await.text_of("hint");
        let rotated = rotate(&app, &ada, id, json!({})).await;
        assert_eq!(rotated.status, 200, "{rotated:?}");
        assert_eq!((&rotated.body["id"], &rotated.body["previous_expires_at"]), (&json!(id), &json!(null)));
        assert_ne!(rotated.text_of("hint"), hint);
        app.get("/page/", &old).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/page/", &Credential::Token(rotated.text_of("key"))).await.status, 200);
    }

    async fn rotation_with_overlap_lets_both_secrets_work_until_it_ends(app: App) {
        let ada = app.user("ada@example.org").await;
        let (first, id) = app.key_of(&ada, &["pages:read"]).await;
        let rotated = rotate(&app, &ada, id, json!({ "overlap_seconds": 604_800 })).await;
        let second = Credential::Token(rotated.text_of("key"));
        assert!(rotated.body["previous_expires_at"].is_string());
        app.clock.advance(86_000); // within the lifetime of the sign-in token
        for secret in [&first, &second] {
            assert_eq!(app.get("/page/", secret).await.status, 200);
        }
        let rotated = rotate(&app, &ada, id, json!({ "overlap_seconds": 60 })).await;
        let third = Credential::Token(rotated.text_of("key"));
        app.get("/page/", &first).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/page/", &second).await.status, 200, "two secrets at most");
        app.clock.advance(60);
        app.get("/page/", &second).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/page/", &third).await.status, 200);
        for wrong in [json!(-1), json!(604_801), json!("60"), json!(1.5)] {
            let answer = rotate(&app, &ada, id, json!({ "overlap_seconds": wrong })).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), ["overlap_seconds"]);
        }
        assert_eq!(app.get("/page/", &third).await.status, 200, "a refused rotation changes nothing");
    }

    async fn an_expired_key_is_invalid_and_cannot_be_rotated(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = json!({ "name": "short", "scopes": ["pages:read"], "expires_at": in_seconds(&app, 60) });
        let key = Credential::Token(app.post("/me/keys", &ada, &body).await.text_of("key"));
        app.clock.advance(50);
        assert_eq!(app.get("/page/", &key).await.status, 200);
        app.clock.advance(10);
        app.get("/page/", &key).await.assert_error(app.expected.bad_token_header, "invalid_token");
        rotate(&app, &ada, 1, json!({})).await.assert_error(409, "expired");
        assert_eq!(app.get("/me/keys/1", &ada).await.status, 200, "its owner can still read it");
    }

    async fn a_user_has_at_most_a_hundred_keys(app: App) {
        let ada = app.user("ada@example.org").await;
        for _ in 0..100 {
            app.key_of(&ada, &[]).await;
        }
        let body = json!({ "name": "one too many", "scopes": [] });
        app.post("/me/keys", &ada, &body).await.assert_error(409, "key_limit");
        let refused = "SELECT count(*) FROM audit_entries WHERE action = 'key.create' AND detail = 'key_limit'";
        assert_eq!(app.database.number(refused).await, 1);
        assert_eq!(app.get("/me/keys", &ada).await.body["items"].as_array().unwrap().len(), 100);
        assert_eq!(app.delete("/me/keys/50", &ada).await.status, 204);
        assert_eq!(app.post("/me/keys", &ada, &body).await.status, 201);
    }

    async fn the_last_use_is_visible_soon_and_written_once_a_minute(app: App) {
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;
        let last_use = async || {
            let key = app.get("/me/keys/1", &ada).await.body;
            key["last_used_at"].as_str().map(|at| (at.to_owned(), key["last_used_ip"].clone()))
        };
        // The server's clock decides when a write is due. The server checks it once per second of real time.
        let changed_from = async |before: Option<(String, Value)>| {
            for _ in 0..100 {
                let now = last_use().await;
                if now != before {
                    return now.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("the last use stays {before:?}");
        };
        assert_eq!(last_use().await, None);
        assert_eq!(app.get("/page/", &key).await.status, 200);
        let first = changed_from(None).await;
        assert_eq!(first.1, "127.0.0.1");
        let later = app.clock.now();
        assert_eq!(app.get("/page/", &key).await.status, 200);
        app.clock.advance(61);
        let second = changed_from(Some(first)).await;
        let second = chrono::DateTime::parse_from_rfc3339(&second.0).unwrap();
        assert!((later.utc() - second.to_utc()).abs() < chrono::TimeDelta::seconds(30), "the time of the use, not of the write");
    }
}
