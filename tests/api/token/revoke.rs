//! Revocation of a secret by its holder (`POST /revoke`, RFC 7009).

use latchkey::domain::secret::{Secret, SecretKind};
use serde_json::{Value, json};

use crate::support::app::STATIC_KEY;
use crate::support::{Answer, App, Backend, Credential, Profile, specify};

async fn revoke(app: &App, token: &str) -> Answer {
    app.request("POST", "/revoke").form(&[("token", token)]).send().await
}

/// Asserts 200 with an empty body.
fn assert_done(answer: &Answer) {
    assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
}

/// A secret that was never issued.
fn unknown_secret(kind: SecretKind) -> String {
    Secret::generate(kind).unwrap().reveal()
}

specify! {
    async fn an_access_token_can_be_revoked_by_its_holder(app: App) {
        let (root, ada) = (app.admin("root@example.org").await, app.user("ada@example.org").await);
        assert_eq!(app.get("/me", &ada).await.status, 200);
        let hints = [("token", ada.secret()), ("token_type_hint", "refresh_token"), ("client_id", "ignored")];
        assert_done(&app.request("POST", "/revoke").form(&hints).send().await);
        app.get("/me", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_done(&revoke(&app, ada.secret()).await);

        let entries = app.trail(&root, "action=token.revoke").await;
        assert_eq!(entries.len(), 1, "the second request revokes nothing: {entries:?}");
        let entry = &entries[0];
        assert_eq!((&entry["actor"], &entry["user"], &entry["subject"]), (&json!("anonymous"), &Value::Null, &json!(2)));
        assert_eq!((&entry["target"], &entry["detail"]), (&json!("token-of-user:2"), &json!("by possession")));
        assert!(entry["credential"].as_str().unwrap().starts_with("token:"), "the credential that was presented: {entry}");
        let own = app.get("/me/activity", &Credential::Token(app.new_token_of("ada@example.org").await)).await;
        assert!(own.text.contains("by possession"), "the owner sees the entry: {own:?}");
    }

    async fn an_api_key_can_be_revoked_by_its_holder(app: App) {
        let root = app.admin("root@example.org").await;
        let (own, own_id) = app.key_of(&root, &["pages:read"]).await;
        let issued = app.post("/keys", &root, &json!({ "name": "sold", "scopes": ["translate:use"], "order": "1" })).await;
        let (issued, issued_id) = (Credential::Bearer(issued.text_of("key")), issued.body["id"].clone());
        for key in [&own, &issued] {
            assert_eq!(app.get("/protected-route", key).await.status, 200);
            assert_done(&revoke(&app, key.secret()).await);
            assert_eq!(app.get("/protected-route", key).await.body["code"], "invalid_token");
            assert_done(&revoke(&app, key.secret()).await);
        }
        app.get(&format!("/me/keys/{own_id}"), &root).await.assert_error(404, "not_found");
        let record = app.get(&format!("/keys/{issued_id}"), &root).await;
        assert!(record.body["revoked_at"].is_string(), "the record is kept: {record:?}");
        let entries = app.trail(&root, "action=key.revoke").await;
        assert_eq!(entries.len(), 2, "{entries:?}");
        for (entry, id) in entries.iter().zip([issued_id, json!(own_id)]) {
            let key = json!(format!("key:{id}"));
            assert_eq!((&entry["target"], &entry["credential"]), (&key, &key), "{entry}");
            assert_eq!((&entry["actor"], &entry["subject"]), (&json!("anonymous"), &json!(1)), "{entry}");
            assert_eq!(entry["detail"], "by possession");
        }
        assert_eq!(app.get("/me", &root).await.status, 200, "the other credentials of the owner stay valid");
    }

    async fn revoking_the_replaced_secret_leaves_the_current_one_valid(app: App) {
        let root = app.admin("root@example.org").await;
        let (old, id) = app.key_of(&root, &[]).await;
        let rotate = format!("/me/keys/{id}/rotate");
        let new = Credential::Bearer(app.post(&rotate, &root, &json!({ "overlap_seconds": 60 })).await.text_of("key"));
        assert_eq!(app.get("/me", &old).await.status, 200);
        assert_done(&revoke(&app, old.secret()).await);
        app.get("/me", &old).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/me", &new).await.status, 200, "the old secret does not revoke the key");
        let record = app.get(&format!("/me/keys/{id}"), &root).await;
        assert!(record.body["previous_expires_at"].is_null(), "{record:?}");
        let entry = &app.trail(&root, "action=key.revoke").await[0];
        assert_eq!(entry["changed"], json!(["previous_secret"]), "{entry}");
        assert_eq!(entry["detail"], "by possession, only the secret before the last rotation", "{entry}");
        assert_done(&revoke(&app, old.secret()).await);
        assert_eq!(app.trail(&root, "action=key.revoke").await.len(), 1);

        let newest = app.post(&rotate, &root, &json!({ "overlap_seconds": 60 })).await.text_of("key");
        app.clock.advance(61);
        assert_done(&revoke(&app, new.secret()).await);
        assert_eq!(app.get("/me", &Credential::Bearer(newest.clone())).await.status, 200, "after the overlap the old secret revokes nothing");
        assert_done(&revoke(&app, &newest).await);
        assert_eq!(app.get("/me", &Credential::Bearer(newest)).await.status, 401);
        app.get(&format!("/me/keys/{id}"), &root).await.assert_error(404, "not_found");
    }

    async fn revoking_the_current_secret_revokes_the_replaced_one_too(app: App) {
        let ada = app.user("ada@example.org").await;
        let (old, id) = app.key_of(&ada, &[]).await;
        let body = json!({ "overlap_seconds": 60 });
        let new = app.post(&format!("/me/keys/{id}/rotate"), &ada, &body).await.text_of("key");
        assert_done(&revoke(&app, &new).await);
        app.get("/me", &old).await.assert_error(app.expected.bad_token_header, "invalid_token");
    }

    async fn revoking_a_claim_code_revokes_its_key_and_a_used_code_revokes_nothing(app: App) {
        let root = app.admin("root@example.org").await;
        let order = |name: &str| json!({ "name": name, "scopes": [], "order": name, "delivery": "claim" });
        let leaked = app.post("/keys", &root, &order("leaked")).await.text_of("claim");
        assert_done(&revoke(&app, &leaked).await);
        app.post("/keys/claim", &Credential::None, &json!({ "claim": leaked })).await.assert_error(410, "claim_revoked");
        let entries = app.trail(&root, "action=key.revoke").await;
        assert_eq!((&entries[0]["credential"], &entries[0]["detail"]), (&json!("claim:1"), &json!("by possession")));

        let used = app.post("/keys", &root, &order("used")).await.text_of("claim");
        let key = app.post("/keys/claim", &Credential::None, &json!({ "claim": used })).await.text_of("key");
        assert_done(&revoke(&app, &used).await);
        assert_eq!(app.get("/protected-route", &Credential::Token(key)).await.status, 200);
        let late = app.post("/keys", &root, &order("late")).await.text_of("claim");
        app.clock.advance(73 * 3600);
        assert_done(&revoke(&app, &late).await);
        let root = Credential::Token(app.new_token_of("root@example.org").await);
        assert_eq!(app.trail(&root, "action=key.revoke").await.len(), 1);
    }

    async fn revoking_an_unknown_or_expired_secret_returns_200(app: App) {
        let ada = app.user("ada@example.org").await;
        let long = "a".repeat(7_000);
        for other in [
            "x", "lkt_", "eyJhbGciOiJub25lIn0.e30.", STATIC_KEY, &long, "\u{fffd}", &ada.secret().to_lowercase(),
            &unknown_secret(SecretKind::SignIn), &unknown_secret(SecretKind::ApiKey), &unknown_secret(SecretKind::Claim),
        ] {
            assert_done(&revoke(&app, other).await);
        }
        assert_eq!(app.get("/protected-route", &Credential::Token(STATIC_KEY.into())).await.status, 200);
        app.clock.advance(86_400);
        assert_done(&revoke(&app, ada.secret()).await);
        let root = app.admin("root@example.org").await;
        assert_eq!(app.trail(&root, "action=token.revoke").await.len(), 0, "nothing was revoked");
    }

    async fn a_malformed_request_is_an_invalid_request(app: App) {
        let form = "application/x-www-form-urlencoded";
        for body in ["", "token=", "token_type_hint=access_token", "token=a&token=a", "token=a&token_type_hint=b&token_type_hint=b", "token=%ff", "token=%zz", "token=a%00"] {
            let answer = app.request("POST", "/revoke").body(form, body).send().await;
            answer.assert_error(400, "invalid_request");
            assert_eq!(answer.header("cache-control"), "no-store", "{body}");
        }
        let ada = app.user("ada@example.org").await;
        let query = format!("/revoke?token={}", ada.secret());
        app.request("POST", &query).form(&[]).send().await.assert_error(400, "invalid_request");
        assert_eq!(app.get("/me", &ada).await.status, 200, "a token in the query is ignored");
        app.request("POST", "/revoke").body("application/json", "{\"token\":\"x\"}").send().await.assert_error(415, "invalid_request");
        let huge = format!("token={}", "canary".repeat(17_000));
        let answer = app.request("POST", "/revoke").body(form, huge).send().await;
        answer.assert_error(413, "invalid_request");
        assert!(!answer.text.contains("canary"));
        for method in ["GET", "PUT", "DELETE"] {
            let answer = app.request(method, "/revoke").send().await;
            answer.assert_error(405, "invalid_request");
            assert_eq!(answer.header("allow"), "POST", "{method}");
        }
    }

    async fn an_optional_credential_must_be_valid_and_of_the_same_account(app: App) {
        let (root, ada, eve) = (app.admin("root@example.org").await, app.user("ada@example.org").await, app.user("eve@example.org").await);
        let (key, key_id) = app.key_of(&ada, &[]).await;
        let send = |credential: &Credential, token: &str| {
            app.request("POST", "/revoke").credential(credential).form(&[("token", token)]).send()
        };
        for (bad, challenge) in [
            (("Token", "x".to_owned()), r#"Bearer realm="latchkey", error="invalid_token""#),
            (("Authorization", format!("Bearer {}", unknown_secret(SecretKind::ApiKey))), r#"Bearer realm="latchkey", error="invalid_token""#),
            (("Authorization", "Basic c2hvcDp4".to_owned()), r#"Basic realm="latchkey""#),
            (("Authorization", "Basic !".to_owned()), r#"Basic realm="latchkey""#),
        ] {
            let request = app.request("POST", "/revoke").header(bad.0, &bad.1).form(&[("token", ada.secret())]);
            let answer = request.send().await;
            answer.assert_error(401, "invalid_client");
            assert_eq!(answer.header("www-authenticate"), challenge, "{bad:?}");
        }
        for other in [&root, &eve, &Credential::Token(STATIC_KEY.into())] {
            send(other, key.secret()).await.assert_error(400, "unauthorized_client");
        }
        let ambiguous = app.request("POST", "/revoke").header("Token", "x").header("Authorization", "Bearer y");
        ambiguous.form(&[("token", "x")]).send().await.assert_error(400, "invalid_request");
        let denied = app.trail(&root, "outcome=denied").await;
        assert_eq!(denied.len(), 3, "{denied:?}");
        assert!(denied.iter().all(|entry| entry["detail"] == "not_owner" && entry["target"] == format!("key:{key_id}")), "{denied:?}");
        assert_eq!(app.get("/me", &key).await.status, 200, "the key is valid");

        assert_done(&send(&eve, &unknown_secret(SecretKind::ApiKey)).await);
        assert_done(&send(&ada, key.secret()).await);
        assert_done(&send(&ada, ada.secret()).await);
        assert_ne!(app.get("/me", &ada).await.status, 200);
        let entry = &app.trail(&root, "action=key.revoke&outcome=success").await[0];
        assert_eq!((&entry["actor"], &entry["detail"]), (&json!("user:2"), &json!("by possession")), "{entry}");
    }
}

#[tokio::test]
async fn guesses_are_limited_per_client_and_valid_secrets_can_always_be_revoked() {
    for (backend, profile) in [(Backend::Sqlite, Profile::Fastapi), (Backend::Postgres, Profile::Rfc)] {
        let limited = |settings: &mut latchkey::config::Settings| {
            settings.limits.enabled = true;
            settings.limits.invalid_tokens = latchkey::config::Limit { burst: 2, per_hour: 60 };
        };
        let Some(app) = App::start_with_stopped_clock(backend, profile, limited).await else { continue };
        let ada = app.user("ada@example.org").await;
        for guess in ["x", &unknown_secret(SecretKind::SignIn)] {
            assert_done(&revoke(&app, guess).await);
        }
        let answer = revoke(&app, &unknown_secret(SecretKind::Claim)).await;
        answer.assert_error(429, "too_many_requests");
        assert_eq!(answer.header("retry-after"), "60");
        assert_done(&revoke(&app, ada.secret()).await);
        assert_ne!(app.get("/me", &ada).await.status, 200);
    }
}

#[tokio::test]
async fn a_revocation_that_cannot_be_recorded_does_not_happen() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let ada = app.user("ada@example.org").await;
    app.database.execute("ALTER TABLE audit_entries RENAME TO audit_entries_away").await;
    let answer = revoke(&app, ada.secret()).await;
    assert!(answer.status >= 500, "{answer:?}");
    app.database.execute("ALTER TABLE audit_entries_away RENAME TO audit_entries").await;
    assert_eq!(app.get("/me", &ada).await.status, 200, "the token is still valid");
}
