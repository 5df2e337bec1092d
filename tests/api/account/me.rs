//! A user reads, changes and deletes their own account under `/me`.

use serde_json::json;

use crate::support::app::{PASSWORD, STATIC_KEY};
use crate::support::{App, Credential, scopes, specify};

const NEW_PASSWORD: &str = "another battery staple";

async fn put_password(app: &App, caller: &Credential, body: serde_json::Value) -> crate::support::Answer {
    app.put("/me/password", caller, &body).await
}

specify! {
    async fn users_change_their_own_data(app: App) {
        let ada = app.user("ada@example.org").await;
        app.clock.advance(10);
        let before = app.get("/me", &ada).await.body;
        let changed = app.patch("/me", &ada, &json!({ "name": "Augusta", "website": "" })).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        assert_eq!((&changed.body["name"], &changed.body["website"]), (&json!("Augusta"), &json!("")));
        assert_eq!(changed.body["surname"], before["surname"], "an absent field is unchanged");
        assert_eq!(changed.body["created_at"], before["created_at"]);
        assert_ne!(changed.body["updated_at"], before["updated_at"]);
        assert_eq!(app.get("/me", &ada).await.body, changed.body);
        assert_eq!(app.get("/protected-route", &ada).await.body["hello"], "Augusta");
    }

    async fn invalid_changes_are_refused_field_by_field(app: App) {
        let ada = app.user("ada@example.org").await;
        for (body, fields) in [
            (json!({}), vec![""]),
            (json!({ "current_password": PASSWORD }), vec![""]),
            (json!({ "name": "Ada", "surname": "a\nb", "website": "w".repeat(256) }), vec!["name", "surname", "website"]),
            (json!({ "email": "invalid" }), vec!["current_password", "email"]),
            (json!({ "email": "new@example.org" }), vec!["current_password"]),
            (json!({ "password": PASSWORD }), vec!["password"]),
            (json!({ "role": "admin" }), vec!["role"]),
            (json!({ "id": 7, "name": null }), vec!["id", "name"]),
        ] {
            let answer = app.patch("/me", &ada, &body).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), fields, "{body}");
        }
        assert_eq!(app.get("/me", &ada).await.body["role"], "member");
    }

    async fn a_new_email_requires_the_current_password_and_must_be_unique(app: App) {
        let ada = app.user("ada@example.org").await;
        app.register("eve@example.org").await;
        let email = |email: &str, password: &str| json!({ "email": email, "current_password": password });
        app.patch("/me", &ada, &email("new@example.org", "wrong password")).await.assert_error(403, "wrong_password");
        app.patch("/me", &ada, &email("EVE@example.org", PASSWORD)).await.assert_error(409, "email_taken");
        assert_eq!(app.patch("/me", &ada, &email("ADA@example.org", PASSWORD)).await.body["email"], "ADA@example.org");
        assert_eq!(app.patch("/me", &ada, &email("new@example.org", PASSWORD)).await.status, 200);
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, app.expected.bad_password);
        assert_eq!(app.sign_in("NEW@example.org", PASSWORD).await.status, 200);
        assert_eq!(app.register("ada@example.org").await.status, 201, "the old address can be registered again");
    }

    async fn a_new_password_revokes_the_token_and_own_keys(app: App) {
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;
        let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
        assert_eq!(put_password(&app, &ada, body).await.status, 204);
        let stored = app.database.rows("SELECT hashed_password AS row FROM users").await;
        assert!(stored[0].starts_with("$bcrypt-sha256$v=2,t=2b,r=4$"), "{stored:?}");
        for revoked in [&ada, &key] {
            app.get("/page/", revoked).await.assert_error(app.expected.bad_token_header, "invalid_token");
        }
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, app.expected.bad_password);
        assert_eq!(app.sign_in("ada@example.org", NEW_PASSWORD).await.status, 200);
    }

    async fn a_new_password_keeps_keys_with_external_scopes_only_and_on_request_all_keys(app: App) {
        let root = app.admin("root@example.org").await;
        let (own, _) = app.key_of(&root, &["pages:read"]).await;
        let issue = async |scope: &str| {
            let issued = app.post("/keys", &root, &json!({ "name": "k", "scopes": [scope] })).await;
            Credential::Token(issued.text_of("key"))
        };
        let (external, acting) = (issue("translate:use").await, issue("pages:read").await);
        let issue_claim = async |scope: &str| {
            let body = json!({ "name": "k", "scopes": [scope], "delivery": "claim" });
            json!({ "claim": app.post("/keys", &root, &body).await.text_of("claim") })
        };
        let (external_claim, acting_claim) = (issue_claim("translate:use").await, issue_claim("pages:read").await);
        let keep = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD, "revoke_keys": false });
        assert_eq!(put_password(&app, &root, keep).await.status, 204);
        app.get("/me", &root).await.assert_error(app.expected.bad_token_header, "invalid_token");
        for kept in [&own, &acting] {
            assert_eq!(app.get("/page/", kept).await.status, 200);
        }

        let signed_in = app.sign_in("root@example.org", NEW_PASSWORD).await;
        let root = Credential::Token(signed_in.text_of("access_token"));
        let all = json!({ "current_password": NEW_PASSWORD, "new_password": PASSWORD });
        assert_eq!(put_password(&app, &root, all).await.status, 204);
        for revoked in [&own, &acting] {
            app.get("/page/", revoked).await.assert_error(app.expected.bad_token_header, "invalid_token");
        }
        assert_eq!(app.get("/protected-route", &external).await.status, 200, "it does not act for the owner");
        app.post("/keys/claim", &Credential::None, &acting_claim).await.assert_error(410, "claim_revoked");
        assert_eq!(app.post("/keys/claim", &Credential::None, &external_claim).await.status, 200);
    }

    async fn a_wrong_current_password_changes_nothing_and_counts_as_a_failed_sign_in(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let wrong = json!({ "current_password": "wrong password", "new_password": NEW_PASSWORD });
        put_password(&app, &ada, wrong).await.assert_error(403, "wrong_password");
        let missing = json!({ "new_password": NEW_PASSWORD });
        let null = json!({ "new_password": NEW_PASSWORD, "current_password": null });
        for body in [missing, null] {
            let answer = put_password(&app, &ada, body).await;
            assert_eq!((answer.status, answer.bad_fields()), (422, vec!["current_password"]), "{answer:?}");
        }
        assert_eq!(app.get("/me", &ada).await.status, 200, "the token is still valid");
        let failed = app.trail(&root, "action=user.sign_in&outcome=failure").await;
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!((&failed[0]["target"], &failed[0]["detail"]), (&json!("user:2"), &json!("wrong_password")));
        assert_eq!(failed[0]["actor"], "user:2", "the entry names the user of the token");
        // The password is unchanged.
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let short = json!({ "current_password": PASSWORD, "new_password": "short" });
        let answer = put_password(&app, &ada, short).await;
        answer.assert_error(422, "invalid");
        assert_eq!(answer.bad_fields(), ["new_password"]);
    }

    async fn a_deleted_account_loses_its_credentials_and_pages_and_its_ids_are_never_reused(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await;
        assert_eq!(app.delete("/me", &ada).await.status, 204);
        for revoked in [&ada, &key] {
            app.get("/protected-route", revoked).await.assert_error(app.expected.bad_token_header, "invalid_token");
        }
        for table in ["pages", "api_keys"] {
            assert_eq!(app.database.number(format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
        }
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, app.expected.bad_password);
        let entries = app.trail(&root, "user=2").await;
        assert!(entries.iter().any(|entry| entry["action"] == "page.create"), "the audit entries stay: {entries:?}");
        assert_eq!(entries[0]["action"], "user.delete");
        assert_eq!(app.register("ada@example.org").await.body["id"], 3, "ids are never reused");
        let new_ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let (_, key) = app.key_of(&new_ada, &["pages:read"]).await;
        let page = app.post("/page/", &new_ada, &json!({ "title": "t", "body": "b" })).await;
        assert_eq!((key, &page.body["id"]), (2, &json!(2)), "ids of keys and pages are never reused either");
    }

    async fn account_changes_require_a_sign_in_token_with_all_scopes(app: App) {
        let root = app.admin("root@example.org").await;
        let (key, _) = app.key_of(&root, &["pages:read", "keys:read", "keys:write", "users:write"]).await;
        let issued = app.post("/keys", &root, &json!({ "name": "issued", "scopes": ["pages:read"] })).await;
        let issued = Credential::Bearer(issued.text_of("key"));
        app.register("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD), ("scope", "pages:read")];
        let narrowed = app.request("POST", "/token").form(&form).send().await;
        let narrowed = Credential::Bearer(narrowed.text_of("access_token"));
        let static_key = Credential::Token(STATIC_KEY.to_owned());
        let password = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
        for (caller, code) in [
            (&key, "sign_in_required"),
            (&issued, "sign_in_required"),
            (&narrowed, "insufficient_scope"),
            (&static_key, "user_required"),
        ] {
            app.patch("/me", caller, &json!({ "surname": "x" })).await.assert_error(403, code);
            app.delete("/me", caller).await.assert_error(403, code);
            app.get("/me/activity", caller).await.assert_error(403, code);
            let answer = put_password(&app, caller, password.clone()).await;
            answer.assert_error(403, code);
            assert!(answer.header("www-authenticate").contains("error=\"insufficient_scope\""), "{answer:?}");
        }
        for (caller, status) in [(&key, 200), (&narrowed, 200), (&issued, 403), (&static_key, 403)] {
            assert_eq!(app.get("/me", caller).await.status, status, "{caller:?}");
        }
        let all = &scopes::text_of("member");
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD), ("scope", all)];
        let all_scopes = app.request("POST", "/token").form(&form).send().await;
        let all_scopes = Credential::Token(all_scopes.text_of("access_token"));
        app.delete("/me", &all_scopes).await.assert_error(403, "insufficient_scope");
        app.get("/me", &narrowed).await.assert_error(app.expected.bad_bearer, "invalid_token");
        assert_eq!(app.delete("/token", &all_scopes).await.status, 204, "any sign-in token can revoke itself");
        app.delete("/token", &key).await.assert_error(403, "insufficient_scope");
    }
}
