//! Bad input never gives 5xx, never hangs, and stores nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::registration;
use crate::support::{App, Credential, specify};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Sends bytes as they are and reads until the server answers or closes.
async fn raw(app: &App, bytes: impl Into<Vec<u8>>) -> String {
    let (address, bytes) = (app.address, bytes.into());
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        // The server may refuse before all is sent.
        let _ = stream.write_all(&bytes);
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

async fn stored(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM users").await
}

specify! {
    async fn what_is_not_json_is_malformed(app: App) {
        let deep = format!("{{\"name\":{}", "[".repeat(100_000));
        let nested = format!("{{\"name\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let surrogate = r#"{"name":"\ud800"}"#.to_owned();
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (body, status) in [
            (b"".to_vec(), 400),
            (b"{".to_vec(), 400),
            (b"{}{}".to_vec(), 400),
            (b"{'name':1}".to_vec(), 400),
            (b"\xef\xbb\xbf{}".to_vec(), 400),
            (utf16, 400),
            (b"{\"name\":\"\xff\"}".to_vec(), 400),
            (b"{\"name\":1e999}".to_vec(), 400),
            (surrogate.into_bytes(), 400),
            (nested.into_bytes(), 400),
            (deep.into_bytes(), 413),
        ] {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let answer = app.request("POST", "/register").body(JSON, body).send().await;
            assert_eq!(answer.status, status, "{shown:?} → {answer:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
        for body in ["[]", "null", "1", "\"text\""] {
            let answer = app.request("POST", "/register").body(JSON, body).send().await;
            answer.assert_error(422, "invalid");
        }
        assert_eq!(stored(&app).await, 0);
        let ada = app.user("ada@example.org").await;
        let within_the_limit = format!("{{\"title\":{}", "[".repeat(70_000));
        let answer = app.request("POST", "/page/").credential(&ada).body(JSON, within_the_limit).send().await;
        answer.assert_error(400, "malformed_json");
    }

    async fn each_field_takes_its_type_only(app: App) {
        let bad: [Value; 9] = [
            json!(null), json!(1), json!(1.5), json!(true), json!([]), json!({}), json!({ "$gt": "" }), json!(["text"]),
            json!("nul\0inside the text"),
        ];
        for field in ["name", "surname", "email", "website", "password"] {
            for value in &bad {
                let mut body = registration("ada@example.org");
                body[field] = value.clone();
                let answer = app.post("/register", &Credential::None, &body).await;
                answer.assert_error(422, "invalid");
                assert_eq!(answer.bad_fields(), [field], "{value}");
            }
        }
        assert_eq!(stored(&app).await, 0);
    }

    async fn unknown_and_repeated_fields_are_refused(app: App) {
        for extra in ["id", "is_admin", "role", "hashed_password", "NAME", "name "] {
            let mut body = registration("ada@example.org");
            body[extra] = json!("x");
            let answer = app.post("/register", &Credential::None, &body).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), [extra]);
        }
        let twice = registration("ada@example.org").to_string().replacen('{', r#"{"email":"eve@example.org","#, 1);
        let answer = app.request("POST", "/register").body(JSON, twice).send().await;
        answer.assert_error(422, "invalid");
        assert_eq!(answer.bad_fields(), ["email"]);
        assert_eq!(stored(&app).await, 0);
    }

    async fn a_body_says_what_it_is(app: App) {
        let body = registration("ada@example.org").to_string();
        for media_type in ["text/plain", FORM, "application/jsonx", "application/problem+json", "json", ""] {
            let answer = app.request("POST", "/register").body(media_type, body.clone()).send().await;
            answer.assert_error(415, "unsupported_media_type");
        }
        let answer = app.request("POST", "/register").bare_body(body.clone()).send().await;
        answer.assert_error(415, "unsupported_media_type");
        for media_type in ["text/plain", JSON, "multipart/form-data; boundary=x"] {
            let answer = app.request("POST", "/token").body(media_type, "grant_type=password").send().await;
            answer.assert_error(415, "invalid_request");
        }
        for media_type in ["application/json; charset=utf-8", "APPLICATION/JSON"] {
            let answer = app.request("POST", "/register").body(media_type, body.clone()).send().await;
            assert!([201, 409].contains(&answer.status), "{media_type}: {answer:?}");
        }
    }

    async fn an_address_has_a_limit(app: App) {
        let path = |length: usize| format!("/page/?{}", "x".repeat(length - "/page/?".len()));
        let ada = app.user("ada@example.org").await;
        assert_eq!(app.get(&path(8 * 1024), &ada).await.status, 200);
        app.get(&path(8 * 1024 + 1), &ada).await.assert_error(414, "uri_too_long");
        app.get(&format!("/{}", "x".repeat(60_000)), &Credential::None).await.assert_error(414, "uri_too_long");
    }

    async fn a_body_has_a_limit(app: App) {
        let ada = app.user("ada@example.org").await;
        let padded = |length: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(length - 11));
        app.request("POST", "/register").body(JSON, padded(8 * 1024)).send().await.assert_error(422, "invalid");
        for length in [8 * 1024 + 1, 1024 * 1024] {
            app.request("POST", "/register").body(JSON, padded(length)).send().await.assert_error(413, "too_large");
            app.request("POST", "/token").body(FORM, "x".repeat(length)).send().await.assert_error(413, "invalid_request");
        }
        let page = app.request("POST", "/page/").credential(&ada).body(JSON, padded(80 * 1024 + 1)).send().await;
        page.assert_error(413, "too_large");
        // Without a declared length, the limit holds all the same.
        let chunk = "x".repeat(1000);
        let chunked = format!(
            "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(20)
        );
        assert!(raw(&app, chunked).await.starts_with("HTTP/1.1 413 "));
        // A declared gigabyte is refused before it is sent.
        let declared = b"POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n";
        assert!(raw(&app, declared).await.starts_with("HTTP/1.1 413 "));
    }

    async fn broken_framing_is_a_bad_request(app: App) {
        for head in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ] {
            let request = format!("POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n");
            let answer = raw(&app, request).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?} → {answer:?}");
        }
        assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
    }

    async fn unknown_addresses_and_methods_are_problems(app: App) {
        for path in ["/", "/nothing", "/me/x.css", "/me/", "/me%2f", "/docs/nothing", "/docs/../Cargo.toml", "/pages"] {
            app.get(path, &Credential::None).await.assert_error(404, "no_such_route");
        }
        for (path, allow) in [
            ("/register", "POST"),
            ("/token", "DELETE, POST"),
            ("/me", "DELETE, GET, HEAD, PATCH"),
            ("/keys/claim", "POST"),
            ("/users/1/token", "DELETE"),
            ("/protected-route", "GET, HEAD"),
            ("/page/", "GET, HEAD, POST"),
            ("/page", "GET, HEAD, POST"),
            ("/page/1", "DELETE, GET, HEAD, PATCH, PUT"),
            ("/health/live", "GET, HEAD"),
            ("/docs/", "GET, HEAD"),
            ("/openapi.json", "GET, HEAD"),
        ] {
            for method in ["TRACE", "OPTIONS", "PROPFIND"] {
                let answer = app.request(method, path).send().await;
                let code = if path == "/token" { "invalid_request" } else { "method_not_allowed" };
                answer.assert_error(405, code);
                assert_eq!(answer.header("allow"), allow, "{method} {path}");
            }
        }
        let ada = app.user("ada@example.org").await;
        let answer = app.request("POST", "/me").credential(&ada).send().await;
        answer.assert_error(405, "method_not_allowed");
    }

    async fn reading_changes_nothing(app: App) {
        let root = app.admin("root@example.org").await;
        app.key_of(&root, &["pages:read"]).await;
        app.post("/keys", &root, &json!({ "name": "sold", "scopes": [] })).await;
        app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await;
        let everything = async || {
            let mut rows = Vec::new();
            for table in app.database.tables().await {
                rows.extend(app.database.dump(&table).await);
            }
            rows
        };
        let document = app.get("/openapi.json", &Credential::None).await;
        let before = everything().await;
        let mut refused = 0;
        for (path, operations) in document.body["paths"].as_object().unwrap() {
            let expected = if operations.get("get").is_some() { 200 } else { 405 };
            refused += usize::from(expected == 405);
            let path = path.replace("{id}", if path == "/keys/{id}" { "2" } else { "1" });
            for method in ["GET", "HEAD"] {
                let answer = app.request(method, &path).credential(&root).send().await;
                assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            }
        }
        assert!(refused >= 6, "signing in, registering and the like are not for reading");
        assert_eq!(everything().await, before);
    }

    async fn sql_and_markup_are_just_text(app: App) {
        let ada = app.user("ada@example.org").await;
        let title = "\"><svg/onload=1>\u{2028}'); DROP TABLE users;--";
        let created = app.post("/page/", &ada, &json!({ "title": title, "body": title })).await;
        assert_eq!(created.body["title"], title);
        assert_eq!(app.get("/page/1", &ada).await.body["body"], title);
        let mut body = registration("x');DROP TABLE users;--@example.org");
        body["surname"] = json!(title);
        app.post("/register", &Credential::None, &body).await.assert_error(422, "invalid");
        assert_eq!(stored(&app).await, 1);
    }

    async fn answers_are_typed_and_never_cached(app: App) {
        let ada = app.user("ada@example.org").await;
        for (method, path) in [
            ("GET", "/me"), ("GET", "/nothing"), ("PUT", "/me"), ("POST", "/register"), ("POST", "/token"),
            ("GET", "/page/9"), ("GET", "/page/"), ("GET", "/health/ready"),
        ] {
            let request = app.request(method, path).credential(&ada).header("Origin", "https://evil.example");
            let answer = request.send().await;
            assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path}");
            assert!(answer.header("content-type").starts_with("application/"), "{method} {path}: {answer:?}");
            assert_eq!(answer.header("server"), "");
            assert_eq!(answer.header("set-cookie"), "");
            let shared = answer.headers.keys().find(|name| name.as_str().starts_with("access-control"));
            assert_eq!(shared, None, "{method} {path}");
        }
    }

    async fn the_one_page_of_ours_loads_and_runs_nothing_from_elsewhere(app: App) {
        let page = app.get("/docs/", &Credential::None).await;
        let policy: Vec<&str> = page.header("content-security-policy").split(';').map(str::trim).collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(&directive), "{directive} in {policy:?}");
        }
    }
}
