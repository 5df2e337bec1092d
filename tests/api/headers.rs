//! What browsers are told of every answer.

use latchkey::config::Settings;
use serde_json::json;

use crate::support::app::PASSWORD;
use crate::support::{Answer, App, Backend, Credential, Profile, specify};

const API_POLICY: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";

fn assert_shielded(answer: &Answer, policy: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("content-security-policy", policy),
        ("server", ""),
        ("set-cookie", ""),
        ("strict-transport-security", ""),
        ("access-control-allow-origin", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name} of {answer:?}");
    }
}

specify! {
    async fn every_answer_is_shielded_and_nothing_of_ours_is_stored(app: App) {
        let ada = app.user("ada@example.org").await;
        let none = Credential::None;
        for answer in [
            app.sign_in("ada@example.org", "a wrong password").await,
            app.register("eve@example.org").await,
            app.register("eve@example.org").await,
            app.get("/me", &ada).await,
            app.get("/me", &none).await,
            app.get("/health/live", &none).await,
            app.get("/nowhere", &none).await,
            app.request("PATCH", "/register").send().await,
            app.post("/register", &none, &json!({})).await,
            app.request("POST", "/register").body("text/plain", "").send().await,
            app.sign_in("ada@example.org", PASSWORD).await,
        ] {
            assert_shielded(&answer, API_POLICY);
            assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "Authorization, Token"));
        }
        let page = app.get("/docs/", &none).await;
        assert_shielded(&page, page.header("content-security-policy"));
        let policy = page.header("content-security-policy");
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    }
}

async fn with(change: impl FnOnce(&mut Settings)) -> App {
    App::start_with(Backend::Sqlite, Profile::Rfc, change).await.unwrap()
}

#[tokio::test]
async fn pages_of_other_origins_may_read_nothing_unless_the_settings_name_them() {
    let app =
        with(|settings| settings.http.cors_origins = serde_json::from_str("\"https://app.example.com\"").unwrap());
    let app = app.await;
    for (origin, allowed) in [("https://app.example.com", "https://app.example.com"), ("https://evil.example", "")] {
        let asked = app.request("GET", "/health/live").header("Origin", origin).send().await;
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, allowed));
        let refused = app.request("GET", "/me").header("Origin", origin).send().await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, allowed), "errors, too");
        let preflight = app.request("OPTIONS", "/me").header("Origin", origin);
        let preflight = preflight.header("Access-Control-Request-Method", "PATCH");
        let preflight = preflight.header("Access-Control-Request-Headers", "authorization,if-match").send().await;
        assert_eq!(preflight.header("access-control-allow-origin"), allowed, "{preflight:?}");
        assert_eq!(preflight.status == 200, !allowed.is_empty(), "{preflight:?}");
        assert_eq!(preflight.header("access-control-allow-credentials"), "");
    }
    let closed = with(|_| ()).await;
    let preflight = closed.request("OPTIONS", "/me").header("Origin", "https://app.example.com");
    let preflight = preflight.header("Access-Control-Request-Method", "PATCH").send().await;
    assert!(preflight.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{preflight:?}");
}

#[tokio::test]
async fn browsers_are_told_to_stay_with_tls_when_a_trusted_proxy_speaks_it() {
    let trusting =
        with(|settings| settings.http.trusted_proxies = serde_json::from_str("\"127.0.0.1\"").unwrap()).await;
    for (app, proto, told) in [
        (&trusting, "https", "max-age=31536000"),
        (&trusting, "http", ""),
        (&trusting, "", ""),
        (&with(|_| ()).await, "https", ""),
    ] {
        let answer = app.request("GET", "/health/live").header("X-Forwarded-Proto", proto).send().await;
        assert_eq!(answer.header("strict-transport-security"), told, "{proto:?}");
    }
}
