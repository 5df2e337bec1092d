//! The list of a user's sessions, and the end of single ones.

use serde_json::json;

use crate::support::{Credential, specify};

specify! {
    async fn users_list_and_end_their_own_sessions(app: App) {
        let token = app.user("ada@example.org").await;
        app.register("eve@example.org").await;
        let (first, first_id) = app.session_of("ada@example.org").await;
        app.clock.advance(1);
        let (second, second_id) = app.session_of("ada@example.org").await;
        let (eve, eve_id) = app.session_of("eve@example.org").await;

        // The listing is a use of the session that asks, which the server may store at any time.
        let by_token = app.get("/me/sessions", &token).await;
        assert_eq!(by_token.body["total"], 2);
        let items = by_token.body["items"].as_array().unwrap();
        let shown: Vec<_> = items.iter().map(|item| (&item["id"], &item["current"])).collect();
        assert_eq!(json!(shown), json!([[second_id, false], [first_id, false]]), "the last used one is first");
        for item in items {
            assert_eq!(item["created_at"], item["last_used_at"], "{item}");
            assert!(item["expires_at"].as_str() > item["created_at"].as_str(), "{item}");
        }
        let listed = app.get("/me/sessions", &first).await;
        assert_eq!((listed.status, listed.members()), (200, vec!["items", "total"]), "{listed:?}");
        assert_eq!(listed.body["total"], 2);
        let items = listed.body["items"].as_array().unwrap();
        let mut shown: Vec<_> =
            items.iter().map(|item| json!([item["id"], item["current"], item["client"]])).collect();
        shown.sort_by_key(|item| item[0].as_i64());
        assert_eq!(json!(shown), json!([[first_id, true, "127.0.0.1"], [second_id, false, "127.0.0.1"]]));

        for id in [eve_id, 999] {
            app.delete(&format!("/me/sessions/{id}"), &first).await.assert_error(404, "not_found");
        }
        for id in ["0", "-1", "01", "x"] {
            app.delete(&format!("/me/sessions/{id}"), &first).await.assert_error(404, "not_found");
        }
        assert_eq!(app.get("/me", &eve).await.status, 200);
        assert_eq!(app.delete(&format!("/me/sessions/{second_id}"), &first).await.status, 204);
        app.get("/me", &second).await.assert_error(401, "invalid_token");
        app.delete(&format!("/me/sessions/{second_id}"), &first).await.assert_error(404, "not_found");
        assert_eq!(app.delete(&format!("/me/sessions/{first_id}"), &token).await.status, 204);
        app.get("/me", &first).await.assert_error(401, "invalid_token");
        assert_eq!(app.get("/me/sessions", &token).await.body, json!({ "items": [], "total": 0 }));

        let root = app.admin("root@example.org").await;
        let ended = app.trail(&root, "action=session.end&outcome=success&order=oldest").await;
        let shown: Vec<_> = ended.iter().map(|entry| (&entry["credential"], &entry["target"], &entry["subject"])).collect();
        assert_eq!(json!(shown[0]), json!([format!("session:{first_id}"), format!("session:{second_id}"), 1]));
        assert_eq!(json!(shown[1]), json!(["token:2", format!("session:{first_id}"), 1]));
        assert_eq!(shown.len(), 2);
    }

    async fn keys_and_narrowed_tokens_see_and_end_no_sessions(app: App) {
        let token = app.user("ada@example.org").await;
        let (session, id) = app.session_of("ada@example.org").await;
        let (key, _) = app.key_of(&token, &["pages:read", "keys:write"]).await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", crate::support::app::PASSWORD), ("scope", "pages:read")];
        let narrowed = app.request("POST", "/token").form(&form).send().await;
        let narrowed = Credential::Token(narrowed.text_of("access_token"));
        for (credential, code) in [(&key, "sign_in_required"), (&narrowed, "insufficient_scope")] {
            app.get("/me/sessions", credential).await.assert_error(403, code);
            app.delete(&format!("/me/sessions/{id}"), credential).await.assert_error(403, code);
        }
        assert_eq!(app.get("/me", &session).await.status, 200);
    }
}
