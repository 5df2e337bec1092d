//! Authorization server metadata (RFC 8414).

use serde_json::json;

use crate::support::{Answer, App, Backend, Credential, Profile, scopes};

const PATH: &str = "/.well-known/oauth-authorization-server";

async fn app_at(public_url: &str) -> App {
    App::start_with(Backend::Sqlite, Profile::Fastapi, |settings| settings.http.public_url = public_url.to_owned())
        .await
        .unwrap()
}

async fn metadata(app: &App) -> Answer {
    app.get(PATH, &Credential::None).await
}

#[tokio::test]
async fn the_metadata_lists_the_endpoints_and_their_authentication_methods() {
    for public_url in ["https://example.com/auth", "https://example.com/auth/"] {
        let app = app_at(public_url).await;
        let answer = metadata(&app).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "max-age=3600");
        let expected = json!({
            "issuer": "https://example.com/auth",
            "token_endpoint": "https://example.com/auth/token",
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint": "https://example.com/auth/revoke",
            "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "introspection_endpoint": "https://example.com/auth/introspect",
            "introspection_endpoint_auth_methods_supported": ["Bearer", "client_secret_basic"],
            "grant_types_supported": ["password"],
            "scopes_supported": scopes::of("admin"),
            "service_documentation": "https://example.com/auth/docs/",
        });
        assert_eq!(answer.body, expected);
    }
}

#[tokio::test]
async fn request_headers_do_not_change_the_metadata() {
    let app = app_at("https://auth.example.com").await;
    let plain = metadata(&app).await;
    for (name, value) in [
        ("Host", "evil.test"),
        ("X-Forwarded-Host", "evil.test"),
        ("Forwarded", "host=evil.test;proto=http"),
        ("Token", "invalid"),
    ] {
        let answer = app.request("GET", PATH).header(name, value).send().await;
        assert_eq!((answer.status, answer.text.as_str()), (200, plain.text.as_str()), "{name}");
    }
    let head = app.request("HEAD", PATH).send().await;
    assert_eq!((head.status, head.text.as_str(), head.header("cache-control")), (200, "", "max-age=3600"));
    let post = app.request("POST", PATH).send().await;
    post.assert_error(405, "method_not_allowed");
    assert_eq!(post.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn without_a_public_url_the_metadata_is_not_found_and_the_error_names_the_setting() {
    let app = app_at("").await;
    let answer = metadata(&app).await;
    answer.assert_error(404, "not_configured");
    assert!(answer.text_of("detail").contains("http.public_url"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
}
