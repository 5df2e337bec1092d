//! Repetition of requests that create a secret, with `Idempotency-Key`, for clients that have lost the response.

use serde_json::{Value, json};

use crate::support::{Answer, App, Backend, Credential, Profile, specify};

/// Sends a POST request with an `Idempotency-Key`.
async fn post_idempotent(app: &App, path: &str, caller: &Credential, name: &str, body: &Value) -> Answer {
    app.request("POST", path).credential(caller).header("Idempotency-Key", name).json(body).send().await
}

/// The API key in a response.
fn key(answer: &Answer) -> Credential {
    Credential::Token(answer.text_of("key"))
}

/// Whether the guard accepts the credential.
async fn is_accepted(app: &App, key: &Credential) -> bool {
    app.get("/protected-route", key).await.status == 200
}

specify! {
    async fn a_rotation_can_be_repeated_until_the_new_secret_is_used(app: App) {
        let root = app.admin("root@example.org").await;
        let (old, id) = app.key_of(&root, &["pages:read"]).await;
        let (path, body) = (format!("/me/keys/{id}/rotate"), json!({ "overlap_seconds": 600 }));
        let lost = post_idempotent(&app, &path, &root, "one", &body).await;
        app.clock.advance(60);
        let again = post_idempotent(&app, &path, &root, "one", &body).await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!(again.body["previous_expires_at"], lost.body["previous_expires_at"], "the overlap is the same");
        assert_eq!([is_accepted(&app, &old).await, is_accepted(&app, &key(&lost)).await, is_accepted(&app, &key(&again)).await], [true, false, true]);
        let shown = app.get(&format!("/me/keys/{id}"), &root).await.text_of("hint");
        assert_eq!(shown, format!("lkk_\u{2026}{}", &key(&again).secret()[49..]), "the hint belongs to the latest secret");
        post_idempotent(&app, &path, &root, "one", &json!({})).await.assert_error(409, "repeated_differently");
        post_idempotent(&app, &path, &root, "one", &body).await.assert_error(409, "secret_used");
        assert!(is_accepted(&app, &key(&again)).await, "a late repetition changes nothing");
        let details: Vec<Value> = app.trail(&root, "action=key.rotate&outcome=success&order=oldest").await.iter().map(|entry| entry["detail"].clone()).collect();
        assert_eq!(details, ["overlap 600 s", "repeated"]);

        let other = post_idempotent(&app, &path, &root, "two", &body).await;
        assert!(is_accepted(&app, &key(&other)).await && is_accepted(&app, &key(&again)).await && !is_accepted(&app, &old).await);
        let unnamed = app.post(&path, &root, &body).await;
        assert!(is_accepted(&app, &key(&unnamed)).await && !is_accepted(&app, &key(&again)).await, "another rotation");
    }

    async fn a_repeated_key_creation_creates_one_key(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = json!({ "name": "k", "scopes": ["pages:read"] });
        let lost = post_idempotent(&app, "/me/keys", &ada, "one", &body).await;
        let again = post_idempotent(&app, "/me/keys", &ada, "one", &body).await;
        assert_eq!((again.status, &again.body["id"], again.header("location")), (201, &lost.body["id"], "/me/keys/1"));
        assert_eq!([is_accepted(&app, &key(&lost)).await, is_accepted(&app, &key(&again)).await], [false, true]);
        post_idempotent(&app, "/me/keys", &ada, "one", &body).await.assert_error(409, "secret_used");
        post_idempotent(&app, "/me/keys", &ada, "one", &json!({ "name": "k", "scopes": [] })).await.assert_error(409, "repeated_differently");
        assert_eq!(app.get("/me/keys", &ada).await.body["items"].as_array().unwrap().len(), 1);
        let eve = app.user("eve@example.org").await;
        assert_eq!(post_idempotent(&app, "/me/keys", &eve, "one", &body).await.body["id"], 2, "idempotency keys are separate per account");
        let stored = app.database.dump("api_keys").await.join(" ");
        assert!(!stored.contains(&again.text_of("key")[4..]), "no secret is stored");
    }

    async fn a_repetition_makes_no_new_secret_for_a_revoked_key(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        let body = json!({ "name": "k", "scopes": ["pages:read"] });
        let lost = post_idempotent(&app, "/keys", &ada, "one", &body).await;
        assert_eq!(lost.status, 201);
        for disabled in [true, false] {
            assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": disabled })).await.status, 200);
        }
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let again = post_idempotent(&app, "/keys", &ada, "one", &body).await;
        assert_eq!((again.status, &again.body["id"], &again.body["key"]), (200, &lost.body["id"], &json!(null)));
        assert!(again.body["revoked_at"].is_string(), "{again:?}");
    }

    async fn a_request_can_be_repeated_for_a_day(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = json!({ "name": "k", "scopes": [] });
        post_idempotent(&app, "/me/keys", &ada, "one", &body).await;
        app.clock.advance(86_000);
        assert_eq!(post_idempotent(&app, "/me/keys", &ada, "one", &body).await.status, 201);
        app.clock.advance(400);
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        post_idempotent(&app, "/me/keys", &ada, "one", &body).await.assert_error(409, "repeated_too_late");
    }

    async fn a_claim_can_be_repeated_only_with_its_idempotency_key(app: App) {
        let root = app.admin("root@example.org").await;
        let order = json!({ "name": "k", "scopes": [], "delivery": "claim" });
        let claim = json!({ "claim": app.post("/keys", &root, &order).await.text_of("claim") });
        let lost = post_idempotent(&app, "/keys/claim", &Credential::None, "one", &claim).await;
        post_idempotent(&app, "/keys/claim", &Credential::None, "two", &claim).await.assert_error(410, "claim_used");
        app.post("/keys/claim", &Credential::None, &claim).await.assert_error(410, "claim_used");
        let again = post_idempotent(&app, "/keys/claim", &Credential::None, "one", &claim).await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!([is_accepted(&app, &key(&lost)).await, is_accepted(&app, &key(&again)).await], [false, true]);
        post_idempotent(&app, "/keys/claim", &Credential::None, "one", &claim).await.assert_error(410, "claim_used");
        assert!(is_accepted(&app, &key(&again)).await);
        assert_eq!(app.trail(&root, "action=key.claim&outcome=success").await[0]["detail"], "repeated");
    }

    async fn a_repeated_issue_returns_a_new_secret_or_claim_code(app: App) {
        let root = app.admin("root@example.org").await;
        for delivery in ["secret", "claim"] {
            let body = json!({ "name": "k", "scopes": ["a:b"], "delivery": delivery, "order": delivery });
            let lost = post_idempotent(&app, "/keys", &root, delivery, &body).await;
            let again = post_idempotent(&app, "/keys", &root, delivery, &body).await;
            assert_eq!((again.status, &again.body["id"]), (200, &lost.body["id"]), "{again:?}");
            if delivery == "claim" {
                let code = |answer: &Answer| json!({ "claim": answer.text_of("claim") });
                app.post("/keys/claim", &Credential::None, &code(&lost)).await.assert_error(404, "not_found");
                assert_eq!(app.post("/keys/claim", &Credential::None, &code(&again)).await.status, 200);
            } else {
                assert_eq!([is_accepted(&app, &key(&lost)).await, is_accepted(&app, &key(&again)).await], [false, true]);
            }
            let late = post_idempotent(&app, "/keys", &root, delivery, &body).await;
            assert_eq!((late.status, &late.body["key"], &late.body["claim"]), (200, &Value::Null, &Value::Null), "{late:?}");
            let by_order = app.post("/keys", &root, &body).await;
            assert_eq!((by_order.status, &by_order.body["key"], &by_order.body["claim"]), (200, &Value::Null, &Value::Null));
        }
    }

    async fn a_repetition_requires_the_permissions_of_the_first_request(app: App) {
        let root = app.admin("root@example.org").await;
        let (weak, _) = app.key_of(&root, &["keys:read", "keys:write"]).await;
        let (_, strong) = app.key_of(&root, &["users:read"]).await;
        let path = format!("/me/keys/{strong}/rotate");
        post_idempotent(&app, &path, &root, "one", &json!({})).await;
        post_idempotent(&app, &path, &weak, "one", &json!({})).await.assert_error(422, "invalid");
        let body = json!({ "name": "k", "scopes": ["users:read"] });
        post_idempotent(&app, "/me/keys", &root, "two", &body).await;
        post_idempotent(&app, "/me/keys", &weak, "two", &body).await.assert_error(422, "invalid");
    }

    async fn a_rotation_by_the_owner_cannot_be_repeated_with_the_replaced_secret(app: App) {
        let ada = app.user("ada@example.org").await;
        let (old, id) = app.key_of(&ada, &["keys:write"]).await;
        let (path, overlap) = (format!("/me/keys/{id}/rotate"), json!({ "overlap_seconds": 3600 }));
        let rotate = |caller: &Credential| {
            app.request("POST", &path).credential(caller).header("Idempotency-Key", "one").json(&overlap)
        };
        let new = Credential::Token(rotate(&ada).send().await.text_of("key"));
        rotate(&old).send().await.assert_error(403, "secret_replaced");
        assert_eq!(app.get("/me", &new).await.status, 200);
    }

    async fn a_repetition_returns_no_secret_of_a_key_with_more_scopes_than_the_caller(app: App) {
        let root = app.admin("root@example.org").await;
        let (weak, _) = app.key_of(&root, &["keys:write", "pages:read"]).await;
        let body = json!({ "name": "k", "scopes": ["pages:read"] });
        let make = |caller: &Credential| {
            app.request("POST", "/me/keys").credential(caller).header("Idempotency-Key", "one").json(&body)
        };
        let made = make(&root).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        let stronger = json!({ "scopes": ["pages:read", "users:write"] });
        let path = format!("/me/keys/{}", made.body["id"]);
        assert_eq!(app.patch(&path, &root, &stronger).await.status, 200);
        let again = make(&weak).send().await;
        assert_eq!((again.status, &again.body["key"]), (422, &json!(null)), "{again:?}");
        assert_eq!(make(&root).send().await.status, 201, "a caller with the same scopes can repeat it");
    }

    async fn a_key_that_rotated_itself_can_repeat_the_rotation_with_its_old_secret(app: App) {
        let root = app.admin("root@example.org").await;
        let (old, id) = app.key_of(&root, &["keys:write"]).await;
        let (path, body) = (format!("/me/keys/{id}/rotate"), json!({ "overlap_seconds": 60 }));
        let lost = post_idempotent(&app, &path, &old, "one", &body).await;
        post_idempotent(&app, &path, &old, "two", &body).await.assert_error(403, "secret_replaced");
        let again = post_idempotent(&app, &path, &old, "one", &body).await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!([is_accepted(&app, &key(&lost)).await, is_accepted(&app, &key(&again)).await], [false, true]);
        post_idempotent(&app, &path, &old, "one", &body).await.assert_error(409, "secret_used");
    }
}

#[tokio::test]
async fn a_secret_used_on_one_replica_is_not_replaced_by_another() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Fastapi).await else { continue };
        let settings = latchkey::config::Settings {
            database: app.database.settings(),
            ..latchkey::config::Settings::defaults().unwrap()
        };
        let replica = latchkey::server::open_service(&settings, app.clock.clone()).await.unwrap();
        let ada = app.user("ada@example.org").await;
        let body = json!({ "name": "k", "scopes": [] });
        let lost = post_idempotent(&app, "/me/keys", &ada, "one", &body).await.text_of("key");
        let latest = post_idempotent(&app, "/me/keys", &ada, "one", &body).await.text_of("key");
        assert!(replica.introspect(&lost).await.unwrap().is_none());
        assert!(replica.introspect(&latest).await.unwrap().is_some(), "introspection counts as use");
        post_idempotent(&app, "/me/keys", &ada, "one", &body).await.assert_error(409, "secret_used");
    }
}
