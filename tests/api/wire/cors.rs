//! Preflight requests (CORS): what is allowed, and why a request is rejected.

use serde_json::json;

use crate::support::client::Request;
use crate::support::warnings::{warnings_of, watch};
use crate::support::{Answer, App, specify};

const ORIGIN: &str = "https://app.example.com";

async fn apps_with(origins: &[&str]) -> Vec<App> {
    App::start_on_all(|settings| settings.http.cors_origins = serde_json::from_value(json!(origins)).unwrap()).await
}

fn preflight(app: &App, path: &str, origin: &str, method: &str) -> Request {
    app.request("OPTIONS", path).header("Origin", origin).header("Access-Control-Request-Method", method)
}

/// Asserts a rejection whose detail contains `named`.
fn assert_rejected(answer: &Answer, code: &str, named: &[&str]) {
    answer.assert_error(400, code);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    for named in named {
        assert!(answer.text_of("detail").contains(named), "{named}: {answer:?}");
    }
    let shared = answer.headers.keys().find(|name| name.as_str().starts_with("access-control"));
    assert_eq!(shared, None, "{answer:?}");
}

#[tokio::test]
async fn an_allowed_page_may_send_the_headers_of_http_clients_and_tracing_libraries() {
    for app in apps_with(&[ORIGIN]).await {
        let headers = [
            "authorization, content-type, if-match",
            "token",
            "idempotency-key",
            "X-Request-Id",
            "X-Requested-With",
            "traceparent,tracestate",
            "baggage,sentry-trace",
            "",
        ];
        for headers in headers {
            let request = preflight(&app, "/token", ORIGIN, "POST");
            let request =
                if headers.is_empty() { request } else { request.header("Access-Control-Request-Headers", headers) };
            let answer = request.send().await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ORIGIN), "{headers}");
        }
    }
}

#[tokio::test]
async fn a_rejected_preflight_request_names_what_is_not_allowed() {
    for app in apps_with(&[ORIGIN]).await {
        for path in ["/me", "/token", "/page/1", "/nowhere"] {
            let answer = preflight(&app, path, "https://evil.example", "GET").send().await;
            assert_rejected(&answer, "cors_origin", &["\"https://evil.example\"", "http.cors_origins"]);
            let answer = preflight(&app, path, ORIGIN, "PURGE").send().await;
            assert_rejected(&answer, "cors_method", &["\"PURGE\"", "GET, HEAD, POST, PUT, PATCH, DELETE"]);
            let answer = preflight(&app, path, ORIGIN, "GET");
            let answer = answer.header("Access-Control-Request-Headers", "token, X-Unknown, x-other").send().await;
            assert_rejected(&answer, "cors_header", &["\"X-Unknown\"", "x-requested-with", "sentry-trace"]);
        }
    }
}

specify! {
    async fn without_origins_a_preflight_request_is_rejected_with_the_setting_to_change(app: App) {
        for path in ["/me", "/token", "/page/1", "/nowhere"] {
            let answer = preflight(&app, path, ORIGIN, "GET").send().await;
            assert_rejected(&answer, "cors_origin", &["\"https://app.example.com\"", "http.cors_origins"]);
        }
        // A proxy asks about a preflight request to another service.
        let answer = preflight(&app, "/authz", ORIGIN, "GET").send().await;
        assert_eq!(answer.status, app.expected.no_credential, "{answer:?}");
        for header in ["Origin", "Access-Control-Request-Method"] {
            let answer = app.request("OPTIONS", "/me").header(header, "GET").send().await;
            answer.assert_error(405, "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn text_of_the_caller_is_bounded_and_escaped() {
    for app in apps_with(&[ORIGIN]).await {
        let long = "x".repeat(20_000);
        let answer = preflight(&app, "/me", &long, "GET").send().await;
        assert_rejected(&answer, "cors_origin", &[&format!("\"{}...\"", "x".repeat(128))]);
        let answer = preflight(&app, "/me", ORIGIN, &long).send().await;
        assert_rejected(&answer, "cors_method", &["x...\""]);
        let answer = preflight(&app, "/me", ORIGIN, "GET");
        let answer = answer.raw_header("Access-Control-Request-Headers", b"a\"\t\xff\\<script>").send().await;
        assert_rejected(&answer, "cors_header", &[r#""a\"\t\xff\\<script>""#]);
        assert!(answer.text.len() < 2_000, "{answer:?}");
    }
}

#[tokio::test]
async fn the_log_states_why_a_preflight_request_was_rejected_up_to_100_times_a_minute() {
    let app = apps_with(&[ORIGIN]).await.remove(0);
    let ids: Vec<String> = (0..105).map(|number| format!("preflight-{number}")).collect();
    for id in &ids {
        watch(id);
        let answer = preflight(&app, "/me", "https://evil.example", "GET").header("X-Request-Id", id).send().await;
        assert_rejected(&answer, "cors_origin", &[]);
    }
    let logged: Vec<String> = ids.iter().flat_map(|id| warnings_of(id)).collect();
    assert_eq!(logged.len(), 100, "{logged:?}");
    let expected = "WARN preflight request rejected: The setting http.cors_origins does not list the origin \
                    \"https://evil.example\". ";
    assert!(logged.iter().all(|line| line.starts_with(expected)), "{logged:?}");
}
