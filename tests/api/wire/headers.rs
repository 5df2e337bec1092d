//! Response headers for browsers: security headers, CORS and HSTS.

use latchkey::config::Settings;
use serde_json::json;

use crate::support::app::PASSWORD;
use crate::support::{Answer, App, Backend, Credential, Profile, specify};

const API_POLICY: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";

fn assert_security_headers(answer: &Answer, policy: &str) {
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
    async fn every_response_has_security_headers_and_no_api_response_is_stored(app: App) {
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
            assert_security_headers(&answer, API_POLICY);
            assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "Authorization, Cookie, Token"));
        }
        let page = app.get("/docs/", &none).await;
        assert_security_headers(&page, page.header("content-security-policy"));
        let policy = page.header("content-security-policy");
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    }
}

async fn app_with(change: impl FnOnce(&mut Settings)) -> App {
    App::start_with(Backend::Sqlite, Profile::Rfc, change).await.unwrap()
}

#[tokio::test]
async fn pages_of_other_origins_can_read_nothing_unless_the_settings_allow_them() {
    let app = app_with(|settings| {
        settings.http.cors_origins = serde_json::from_str(r#"["https://app.example.com"]"#).unwrap();
    });
    let app = app.await;
    for (origin, allowed) in [
        ("https://app.example.com", "https://app.example.com"),
        ("https://evil.example", ""),
        ("https://app.example.com.evil.example", ""),
        ("https://evil.example/https://app.example.com", ""),
        ("https://other.app.example.com", ""),
        ("https://app.example.com:8443", ""),
        ("http://app.example.com", ""),
        ("null", ""),
    ] {
        let response = app.request("GET", "/health/live").header("Origin", origin).send().await;
        assert_eq!((response.status, response.header("access-control-allow-origin")), (200, allowed));
        let refused = app.request("GET", "/me").header("Origin", origin).send().await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, allowed), "errors, too");
        let preflight = app.request("OPTIONS", "/me").header("Origin", origin);
        let preflight = preflight.header("Access-Control-Request-Method", "PATCH");
        let wanted = "authorization,if-match,x-requested-with";
        let preflight = preflight.header("Access-Control-Request-Headers", wanted).send().await;
        assert_eq!(preflight.header("access-control-allow-origin"), allowed, "{preflight:?}");
        assert_eq!(preflight.status == 200, !allowed.is_empty(), "{preflight:?}");
        assert_eq!(preflight.header("access-control-allow-credentials"), "");
    }
    let without_cors = app_with(|_| ()).await;
    let preflight = without_cors.request("OPTIONS", "/me").header("Origin", "https://app.example.com");
    let preflight = preflight.header("Access-Control-Request-Method", "PATCH").send().await;
    assert!(preflight.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{preflight:?}");
}

/// Raw requests, and the status of each response.
fn requests_of_every_kind() -> Vec<(String, u16)> {
    let line =
        |line: &str, tail: &str| format!("{line} HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n{tail}");
    let json = |body: &str| format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let long = format!("GET /{}", "x".repeat(9_000));
    let many = (0..100).map(|number| format!("X-{number}: x\r\n")).collect::<String>();
    vec![
        (line("GET /health/live", "\r\n"), 200),
        (line("HEAD /health/live", "\r\n"), 200),
        (line("GET /docs", "\r\n"), 308),
        (line("POST /register", &json("{")), 400),
        (line("GET /me", "\r\n"), 401),
        (line("GET /nowhere", "\r\n"), 404),
        (line("PUT /register", "\r\n"), 405),
        (line("POST /register", "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"), 413),
        (line(&long, "\r\n"), 414),
        (line("POST /register", "Content-Length: 2\r\n\r\n{}"), 415),
        (line("POST /register", &json("{}")), 422),
        // The server responds to these before it has parsed a request.
        (line("GET /no where", "\r\n"), 400),
        (line("GET /health/live", "X-\u{1b}: a\r\n\r\n"), 400),
        (line("GET /health/live", &format!("{many}\r\n")), 431),
    ]
}

/// Sends the request `before`, if it is not empty, and `request` on a new connection. Returns the last response.
async fn send_raw(address: std::net::SocketAddr, before: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    if !before.is_empty() {
        stream.write_all(before.as_bytes()).await.unwrap();
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        answer.clear();
    }
    // The server may reject the request before it has read all of it, so an error is ignored.
    let _ = stream.write_all(request.as_bytes()).await;
    let is_complete = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.split("content-length: ").nth(1).and_then(|tail| tail.split("\r\n").next());
        request.starts_with("HEAD") || length.is_none_or(|length| body.len() >= length.parse::<usize>().unwrap())
    };
    while !is_complete(&answer) {
        match stream.read_buf(&mut answer).await {
            Ok(read) if read > 0 => {}
            _ended => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn every_response_has_the_same_headers_wherever_it_is_produced() {
    let origin = "https://app.example.com";
    let app =
        app_with(|settings| settings.http.cors_origins = serde_json::from_str(&json!([origin]).to_string()).unwrap());
    let app = app.await;
    for (request, status) in requests_of_every_kind() {
        for before in ["", "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let answer = send_raw(app.address, before, &request).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer:?}"));
            let context = format!("{request:.100} -> {head}");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{context}");
            for header in [
                "x-content-type-options: nosniff",
                "x-frame-options: DENY",
                "referrer-policy: no-referrer",
                "cross-origin-resource-policy: same-origin",
                "content-security-policy: default-src 'none'",
                "cache-control: no-store",
                "x-request-id: ",
                "date: ",
            ] {
                assert_eq!(head.matches(&format!("\r\n{header}")).count(), 1, "{header}: {context}");
            }
            // These requests fail before their origin is known.
            let is_early = status == 431 || (status == 400 && !request.starts_with("POST"));
            assert_eq!(head.contains(&format!("\r\naccess-control-allow-origin: {origin}")), !is_early, "{context}");
            let has_close_header = head.contains("\r\nconnection: close");
            assert_eq!(has_close_header, is_early || status == 413, "{context}");
            if status >= 400 {
                assert!(head.contains("\r\ncontent-type: application/problem+json"), "{context}");
                let id = head.split("x-request-id: ").nth(1).unwrap().split("\r\n").next().unwrap();
                let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
                assert_eq!((&problem["status"], &problem["request_id"]), (&json!(status), &json!(id)), "{context}");
            }
        }
    }
}

#[tokio::test]
async fn hsts_is_sent_when_a_trusted_proxy_reports_tls() {
    let trusting =
        app_with(|settings| settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.1"]"#).unwrap()).await;
    for (app, proto, expected) in [
        (&trusting, "https", "max-age=31536000"),
        (&trusting, "http", ""),
        (&trusting, "", ""),
        (&app_with(|_| ()).await, "https", ""),
    ] {
        let answer = app.request("GET", "/health/live").header("X-Forwarded-Proto", proto).send().await;
        // Without TLS there is no redirect either.
        assert_eq!((answer.status, answer.header("location")), (200, ""), "{proto:?}");
        assert_eq!(answer.header("strict-transport-security"), expected, "{proto:?}");
    }
}
