//! Token introspection (RFC 7662).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use latchkey::domain::secret::{Secret, SecretKind};
use serde_json::json;

use crate::support::app::STATIC_KEY;
use crate::support::{Answer, App, Backend, Credential, Profile, scopes, specify};

/// The response to the introspection of `token` by `caller`.
async fn introspect(app: &App, caller: &Credential, token: &str) -> Answer {
    app.request("POST", "/introspect").credential(caller).form(&[("token", token)]).send().await
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("any client:{password}")))
}

specify! {
    async fn a_sign_in_token_is_described(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let answer = introspect(&app, &root, ada.secret()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.members(), ["active", "email_verified", "exp", "iat", "scope", "sub", "token_type", "username"]);
        let (iat, exp) = (answer.body["iat"].as_i64().unwrap(), answer.body["exp"].as_i64().unwrap());
        assert_eq!(exp - iat, 86_400);
        assert!((iat - app.clock.now().utc().timestamp()).abs() < 60, "{answer:?}");
        let expected = json!({
            "active": true, "scope": scopes::text_of("member"), "username": "ada@example.org",
            "email_verified": false, "token_type": "Bearer", "exp": exp, "iat": iat, "sub": "user:2",
        });
        assert_eq!(answer.body, expected);
        // The scopes in force follow the role.
        app.patch("/users/2", &root, &json!({ "role": "auditor" })).await;
        assert_eq!(introspect(&app, &root, ada.secret()).await.body["scope"], scopes::text_of("auditor"));
    }

    async fn keys_are_described_with_their_external_scopes(app: App) {
        let root = app.admin("root@example.org").await;
        let service = app.key_of(&root, &["tokens:introspect"]).await.0;
        let request = json!({ "name": "Charles", "scopes": ["translate:use", "pages:read", "a:b"] });
        let issued = app.post("/keys", &root, &request).await.text_of("key");
        let answer = introspect(&app, &service, &issued).await;
        let iat = answer.body["iat"].as_i64().unwrap();
        let expected = json!({
            "active": true, "scope": "pages:read a:b translate:use", "username": "Charles", "token_type": "Bearer",
            "iat": iat, "sub": "key:2",
        });
        assert_eq!(answer.body, expected, "neither the issuer of the key nor an expiry is shown");
        let own = introspect(&app, &service, service.secret()).await;
        assert_eq!((&own.body["sub"], &own.body["username"]), (&json!("key:1"), &json!("root@example.org")), "{own:?}");
        let (bare, _) = app.key_of(&root, &[]).await;
        assert!(!introspect(&app, &service, bare.secret()).await.members().contains(&"scope"));
    }

    async fn the_response_for_an_inactive_token_says_only_that_it_is_inactive(app: App) {
        let root = app.admin("root@example.org").await;
        let (signed_out, disabled) = (app.user("ada@example.org").await, app.user("eve@example.org").await);
        let (revoked, revoked_id) = app.key_of(&root, &[]).await;
        app.delete("/token", &signed_out).await;
        app.patch("/users/3", &root, &json!({ "disabled": true })).await;
        app.delete(&format!("/me/keys/{revoked_id}"), &root).await;
        let claim = app.post("/keys", &root, &json!({ "name": "k", "scopes": [], "delivery": "claim" })).await.text_of("claim");
        let unknown = Secret::generate(SecretKind::ApiKey).unwrap().reveal();
        let long = "a".repeat(7_000);
        for token in [signed_out.secret(), disabled.secret(), revoked.secret(), &claim, &unknown, STATIC_KEY, "eyJhbGciOiJub25lIn0.e30.", "x", &long] {
            for hint in ["access_token", "refresh_token", "whatever"] {
                let fields = [("token", token), ("token_type_hint", hint)];
                let answer = app.request("POST", "/introspect").credential(&root).form(&fields).send().await;
                assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"active":false}"#), "{token}");
                assert_eq!(answer.header("cache-control"), "no-store");
            }
        }
        let joe = app.user("joe@example.org").await;
        app.clock.advance(86_400);
        let root = Credential::Token(app.new_token_of("root@example.org").await);
        assert_eq!(introspect(&app, &root, joe.secret()).await.text, r#"{"active":false}"#);
    }

    async fn a_caller_without_permission_is_an_invalid_client_in_both_profiles(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&root, &["keys:issue"]).await;
        let bearer = r#"Bearer realm="latchkey""#;
        let (bad, lacking) = (format!(r#"{bearer}, error="invalid_token""#), format!(r#"{bearer}, error="insufficient_scope", scope="tokens:introspect""#));
        for (name, value, challenge) in [
            ("Accept", "*/*".to_owned(), bearer),
            ("Authorization", "Digest x".to_owned(), bearer),
            ("Token", "x".to_owned(), &bad),
            ("Authorization", "Bearer x".to_owned(), &bad),
            ("Authorization", basic("x"), r#"Basic realm="latchkey""#),
            ("Authorization", "Basic !!!".to_owned(), r#"Basic realm="latchkey""#),
            ("Authorization", "Basic".to_owned(), r#"Basic realm="latchkey""#),
            ("Token", ada.secret().to_owned(), &lacking),
            ("Authorization", format!("Bearer {}", key.secret()), &lacking),
            ("Authorization", basic(key.secret()), r#"Basic realm="latchkey""#),
            ("Token", STATIC_KEY.to_owned(), &lacking),
        ] {
            let request = app.request("POST", "/introspect").header(name, &value).form(&[("token", root.secret())]);
            let answer = request.send().await;
            answer.assert_error(401, "invalid_client");
            assert_eq!(answer.header("www-authenticate"), challenge, "{name}: {value}");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        let denied = app.trail(&root, "outcome=denied").await;
        let target_and_detail = |entry: &serde_json::Value| (entry["target"].clone(), entry["detail"].clone());
        let expected = (json!("POST /introspect"), json!("insufficient_scope tokens:introspect"));
        let denied: Vec<_> = denied.iter().map(target_and_detail).collect();
        assert_eq!(denied, vec![expected; 4], "refusals of known callers are recorded");
    }

    async fn clients_can_send_the_key_as_a_basic_password(app: App) {
        let root = app.admin("root@example.org").await;
        let (service, _) = app.key_of(&root, &["tokens:introspect"]).await;
        for scheme in [basic(service.secret()), basic(service.secret()).replace("Basic", "bAsIc")] {
            let request = app.request("POST", "/introspect").header("Authorization", &scheme);
            let answer = request.form(&[("token", root.secret())]).send().await;
            assert_eq!((answer.status, &answer.body["sub"]), (200, &json!("user:1")), "{answer:?}");
        }
        let two_credentials = app.request("POST", "/introspect").header("Authorization", &basic(service.secret()));
        let two_credentials = two_credentials.header("Token", root.secret()).form(&[("token", "x")]);
        two_credentials.send().await.assert_error(400, "invalid_request");
        // Other routes ignore Basic, because a proxy may use it.
        let guarded = app.request("GET", "/protected-route").header("Authorization", &basic(service.secret()));
        guarded.send().await.assert_error(app.expected.no_credential, "not_authenticated");
    }

    async fn a_malformed_request_is_an_invalid_request(app: App) {
        let root = app.admin("root@example.org").await;
        let form = "application/x-www-form-urlencoded";
        for body in ["", "token=", "token=a&token=a", "token=a&token_type_hint=b&token_type_hint=c", "token=%ff", "token=%zz", "token=a%00"] {
            let answer = app.request("POST", "/introspect").credential(&root).body(form, body).send().await;
            answer.assert_error(400, "invalid_request");
            assert_eq!(answer.header("cache-control"), "no-store", "{body}");
        }
        let huge = format!("token={}", "canary".repeat(17_000));
        let answer = app.request("POST", "/introspect").credential(&root).body(form, huge).send().await;
        answer.assert_error(413, "invalid_request");
        assert!(!answer.text.contains("canary"));
        for credential in [&Credential::None, &root] {
            let answer = app.get("/introspect", credential).await;
            answer.assert_error(405, "invalid_request");
            assert_eq!(answer.header("allow"), "POST");
        }
    }

    async fn introspection_does_not_count_as_a_use_of_the_key(app: App) {
        let root = app.admin("root@example.org").await;
        let issued = app.post("/keys", &root, &json!({ "name": "issued", "scopes": [] })).await.text_of("key");
        let (probe, _) = app.key_of(&root, &[]).await;
        assert_eq!(introspect(&app, &root, &issued).await.body["active"], true);
        // Last uses are written in batches: when this later use is stored, an earlier one would be stored, too.
        assert_eq!(app.get("/protected-route", &probe).await.status, 200);
        loop {
            let keys = app.get("/me/keys", &root).await;
            if keys.body["items"][0]["last_used_at"].is_string() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(app.get("/keys/1", &root).await.body["last_used_at"], json!(null));
    }
}

#[tokio::test]
async fn the_issuer_is_the_public_url_if_it_is_set() {
    let with_url =
        |settings: &mut latchkey::config::Settings| settings.http.public_url = "https://auth.example.com/".to_owned();
    let app = App::start_with(Backend::Sqlite, Profile::Rfc, with_url).await.unwrap();
    let root = app.admin("root@example.org").await;
    let answer = introspect(&app, &root, root.secret()).await;
    assert_eq!(answer.body["iss"], "https://auth.example.com", "{answer:?}");
}
