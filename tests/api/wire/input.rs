//! Invalid input never causes a 5xx status or a hang, and nothing of it is stored.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::app::registration;
use crate::support::tour::{accepting, operations};
use crate::support::{App, Credential, specify_mailing};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Sends raw bytes and returns the beginning of the response, which is empty if the server closes the connection.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    // The server may reject the request before all is sent, so an error is ignored.
    let _ = stream.write_all(bytes);
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// [`exchange`] on a thread for blocking calls.
async fn raw(app: &App, bytes: impl Into<Vec<u8>>) -> String {
    let (address, bytes) = (app.address, bytes.into());
    tokio::task::spawn_blocking(move || exchange(address, &bytes)).await.unwrap()
}

/// Sends a request with this request line, these header lines and this body, and returns the status.
fn status_of(address: SocketAddr, first: &[u8], lines: &[Vec<u8>], body: &[u8]) -> u16 {
    let head = lines.iter().flat_map(|line| [line.as_slice(), b"\r\n"].concat()).collect::<Vec<u8>>();
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    let request = [first, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", &head, length.as_bytes(), body].concat();
    let answer = exchange(address, &request);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|tail| tail.get(..3)).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("{} → {answer:?}", request.escape_ascii()))
}

/// Checks a property for 64 random values.
async fn for_any<S: Strategy + 'static>(values: fn() -> S, check: impl Fn(S::Value) + Send + 'static) {
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let run = move || {
        let found = TestRunner::new(config).run(&values(), |value| {
            check(value);
            Ok(())
        });
        found.unwrap_or_else(|error| panic!("{error}"));
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

/// Random bytes without line breaks. Two thirds of them are from `likely`.
fn bytes(likely: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![1 => any::<u8>(), 2 => prop::sample::select(likely)];
    prop::collection::vec(byte.prop_filter("ends a line", |byte| !b"\r\n".contains(byte)), 0..24)
}

/// Header lines with credentials. `{}` stands for a valid token.
fn credential_lines() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = prop::sample::select(vec!["Token", "Authorization"]);
    let template = prop::sample::select(vec![
        "{}",
        "Bearer {}",
        "bearer  {}",
        "Basic {}",
        "Bearer",
        "{},",
        "{} {}",
        "Bearer {}, Bearer {}",
        "Bearer{}",
        "",
        "x{}",
    ]);
    let value = prop_oneof![3 => template.prop_map(|text| text.as_bytes().to_vec()), 1 => bytes(b" ,Bearlkt_:=")];
    prop::collection::vec((name, value), 0..4)
}

/// The body of a registration with a few bytes changed.
fn damaged_registration() -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<prop::sample::Index>(), 0..3_usize, prop::collection::vec(any::<u8>(), 0..3));
    prop::collection::vec(damage, 0..3).prop_map(|damages| {
        let mut body = registration("ada@example.org").to_string().into_bytes();
        for (at, length, bytes) in damages {
            let at = at.index(body.len());
            body.splice(at..(at + length).min(body.len()), bytes);
        }
        body
    })
}

async fn stored(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM users").await
}

specify_mailing! {
    async fn a_body_that_is_not_json_is_malformed(app: App) {
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

    async fn each_field_accepts_only_its_type(app: App) {
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

    async fn unknown_and_repeated_fields_are_rejected(app: App) {
        for extra in ["id", "is_admin", "role", "hashed_password", "NAME", "name ", "a\",\"code\":\"b", "a\\", "<b>"] {
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
        let root = app.admin("root@example.org").await;
        let nested = r#"{"name":"k","scopes":[],"metadata":{"a":[{"b":1,"b":2}]}}"#;
        let answer = app.request("POST", "/keys").credential(&root).body(JSON, nested).send().await;
        answer.assert_error(422, "invalid");
        assert_eq!(answer.bad_fields(), ["metadata"]);

        // The same holds for every operation that accepts JSON.
        let operations = accepting(JSON);
        for operation in &operations {
            let body = r#"{"id":1,"owner_id":1,"is_admin":true,"created_at":"2026-01-01T00:00:00Z","id":2}"#;
            let request = app.request(&operation.method, &operation.path_to_first()).credential(&root).body(JSON, body);
            let (name, answer) = (operation.name(), request.send().await);
            answer.assert_error(422, "invalid");
            let errors = answer.body["errors"].as_array().unwrap();
            for (field, code) in [
                ("id", "unknown"), ("id", "repeated"), ("owner_id", "unknown"), ("is_admin", "unknown"), ("created_at", "unknown"),
            ] {
                let is_reported = errors.iter().any(|error| error["field"] == field && error["code"] == code);
                assert!(is_reported, "{name}: {field} {code} in {answer:?}");
            }
        }
        assert!(operations.len() >= 12, "{} operations accept JSON", operations.len());
    }

    async fn a_body_requires_its_media_type(app: App) {
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
        // Media types that a form on a page of another origin can send without a preflight.
        let root = app.admin("root@example.org").await;
        let operations = accepting(JSON);
        for operation in &operations {
            for media_type in ["text/plain", FORM, "multipart/form-data; boundary=x"] {
                let request = app.request(&operation.method, &operation.path_to_first()).credential(&root);
                let answer = request.body(media_type, "{}").send().await;
                assert_eq!(answer.status, 415, "{} {media_type}: {answer:?}", operation.name());
            }
        }
        assert!(operations.len() >= 12, "{} operations accept JSON", operations.len());
        for media_type in [
            "application/json; charset=latin1", "application/json;charset=utf-8;charset=utf-16", "application/json;charset",
            "application/json, application/json", "application/json;x=\"", "application /json",
        ] {
            let answer = app.request("POST", "/register").body(media_type, body.clone()).send().await;
            answer.assert_error(415, "unsupported_media_type");
        }
        let two = app.request("POST", "/register").header("Content-Type", JSON).body(JSON, body.clone()).send().await;
        two.assert_error(415, "unsupported_media_type");
        for media_type in [
            "application/json; charset=utf-8", "APPLICATION/JSON", "application/json ;\tCHARSET=\"UTF-8\";", "application/json;x=\"a;b\\\"\"",
        ] {
            let answer = app.request("POST", "/register").body(media_type, body.clone()).send().await;
            assert!([201, 409].contains(&answer.status), "{media_type}: {answer:?}");
        }
    }

    async fn a_content_encoding_is_rejected_on_every_route_before_the_body_is_read(app: App) {
        let root = app.admin("root@example.org").await;
        let mut tried = 0;
        for operation in operations() {
            let Some(kind) = operation.media_types().first().copied() else { continue };
            let (method, path) = (operation.method.as_str(), operation.path_to_first());
            let encodings =
                [("gzip", "gzip"), ("identity, BR", "br"), ("deflate, gzip", "deflate"), ("g(zip", "(unreadable)")];
            // Each attempt waits until the connection closes, so only the first route is tried with all encodings.
            for (encoding, named) in encodings.into_iter().take(if tried == 0 { 4 } else { 1 }) {
                // The body is never sent.
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nHost: x\r\nToken: {}\r\nContent-Type: {kind}\r\nContent-Length: 60\r\n\
                     Content-Encoding: {encoding}\r\n\r\n",
                    root.secret()
                );
                let answer = raw(&app, request).await;
                assert!(answer.starts_with("HTTP/1.1 415 "), "{method} {path} {encoding} → {answer}");
                assert!(answer.to_lowercase().contains("\r\naccept-encoding: identity\r\n"), "{answer}");
                assert!(answer.contains(&format!("content encoding {named} ")), "{answer}");
                let code = if answer.contains("application/problem+json") { "unsupported_content_encoding" } else { "invalid_request" };
                assert!(answer.contains(code), "{answer}");
            }
            tried += 1;
        }
        assert!(tried >= 14, "{tried} operations accept a body");
        for (number, encoding) in ["identity", "Identity", "", " , identity"].into_iter().enumerate() {
            let body = registration(&format!("{number}@example.org")).to_string();
            let answer = app.request("POST", "/register").header("Content-Encoding", encoding).body(JSON, body).send().await;
            assert_eq!(answer.status, 201, "{encoding:?}: {answer:?}");
        }
    }

    async fn a_url_has_a_length_limit(app: App) {
        let path_of = |length: usize| format!("/page/?{}", "x".repeat(length - "/page/?".len()));
        let ada = app.user("ada@example.org").await;
        assert_eq!(app.get(&path_of(8 * 1024), &ada).await.status, 200);
        app.get(&path_of(8 * 1024 + 1), &ada).await.assert_error(414, "uri_too_long");
        app.get(&format!("/{}", "x".repeat(60_000)), &Credential::None).await.assert_error(414, "uri_too_long");
    }

    async fn a_body_has_a_size_limit(app: App) {
        let ada = app.user("ada@example.org").await;
        let padded = |length: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(length - 11));
        app.request("POST", "/register").body(JSON, padded(8 * 1024)).send().await.assert_error(422, "invalid");
        for length in [8 * 1024 + 1, 1024 * 1024] {
            app.request("POST", "/register").body(JSON, padded(length)).send().await.assert_error(413, "too_large");
            app.request("POST", "/token").body(FORM, "x".repeat(length)).send().await.assert_error(413, "invalid_request");
        }
        let page = app.request("POST", "/page/").credential(&ada).body(JSON, padded(80 * 1024 + 1)).send().await;
        page.assert_error(413, "too_large");
        // The limit also holds without a declared length.
        let chunk = "x".repeat(1000);
        let chunked = format!(
            "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(20)
        );
        assert!(raw(&app, chunked).await.starts_with("HTTP/1.1 413 "));
        // A declared gigabyte is rejected before it is sent.
        let declared = b"POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n";
        assert!(raw(&app, declared).await.starts_with("HTTP/1.1 413 "));
    }

    async fn broken_framing_is_a_bad_request(app: App) {
        for head in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: -0\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ] {
            let request = format!("POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n");
            let answer = raw(&app, request).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?} → {answer:?}");
        }
        assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
    }

    async fn unknown_paths_and_methods_return_problem_details(app: App) {
        for path in ["/nothing", "/me/x.css", "/me/", "/me%2f", "/docs/nothing", "/pages"] {
            app.get(path, &Credential::None).await.assert_error(404, "no_such_route");
        }
        // Sent as raw bytes, because clients resolve the dots.
        for path in ["/docs/../Cargo.toml", "/docs/%2e%2e/Cargo.toml", "/docs/..%2fCargo.toml", "/docs/./", "/docs//", "//etc/passwd"] {
            let answer = raw(&app, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path} → {answer:?}");
        }
        for (path, allow) in [
            ("/", "GET, HEAD"),
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

    async fn get_and_head_change_nothing(app: App) {
        let root = app.admin("root@example.org").await;
        app.key_of(&root, &["pages:read"]).await;
        app.post("/keys", &root, &json!({ "name": "issued", "scopes": [] })).await;
        app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await;
        let document = app.get("/openapi.json", &Credential::None).await;
        let (session, _) = app.session_of("root@example.org").await;
        // The last use of a session is written once a minute, so not again below.
        assert_eq!(app.get("/session", &session).await.status, 200);
        while app.database.number("SELECT count(*) FROM sessions WHERE last_used_at > created_at").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut without_get = 0;
        let before = app.database.dump_all().await;
        for (path, operations) in document.body["paths"].as_object().unwrap() {
            let caller = if path == "/session" { &session } else { &root };
            let expected = if operations.get("get").is_some() { 200 } else { 405 };
            without_get += usize::from(expected == 405);
            let path = path.replace("{id}", if path == "/keys/{id}" { "2" } else { "1" });
            for method in ["GET", "HEAD"] {
                let answer = app.request(method, &path).credential(caller).send().await;
                assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            }
        }
        assert!(without_get >= 6, "sign-in, registration and others accept no GET");
        assert_eq!(app.database.dump_all().await, before);
    }

    async fn sql_and_markup_are_stored_and_returned_as_text(app: App) {
        let root = app.admin("root@example.org").await;
        let title = "\"><svg/onload=1>'); DROP TABLE users;--";
        let created = app.post("/page/", &root, &json!({ "title": title, "body": title })).await;
        assert_eq!(created.body["title"], title);
        assert_eq!(app.get("/page/1", &root).await.body["body"], title);
        let mut body = registration("x');DROP TABLE users;--@example.org");
        body["surname"] = json!(title);
        app.post("/register", &Credential::None, &body).await.assert_error(422, "invalid");
        assert_eq!(stored(&app).await, 1);

        // Text is not escaped, unescaped, truncated or normalized, neither when stored nor when returned.
        let text = format!("{title} & &amp; &#60; %41 %2541 \\u0041 \\n ${{7*7}} caf\u{e9} cafe\u{301}");
        let mut body = registration("eve@example.org");
        for field in ["name", "surname", "website"] {
            body[field] = json!(text);
        }
        let registered = app.post("/register", &Credential::None, &body).await;
        let eve = Credential::Token(app.new_token_of("eve@example.org").await);
        let edited = app.patch("/me", &eve, &json!({ "website": text })).await;
        for shown in [&registered, &edited, &app.get("/me", &eve).await, &app.get("/users/2", &root).await] {
            for field in ["name", "surname", "website"] {
                assert_eq!(shown.body[field], text, "{field} of {shown:?}");
            }
        }
        let order = json!({ "name": text, "scopes": [], "order": text, "metadata": { text.as_str(): [text] } });
        let issued = app.post("/keys", &root, &order).await;
        for shown in [&issued, &app.get("/keys/1", &root).await] {
            for field in ["name", "order", "metadata"] {
                assert_eq!(shown.body[field], order[field], "{field} of {shown:?}");
            }
        }
        let named = app.post("/me/keys", &eve, &json!({ "name": text, "scopes": [] })).await;
        assert_eq!((&named.body["name"], &app.get("/me/keys/2", &eve).await.body["name"]), (&json!(text), &json!(text)));
    }

    async fn responses_have_a_content_type_and_are_never_cached(app: App) {
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

    async fn the_documentation_page_loads_and_runs_nothing_from_other_origins(app: App) {
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
        let script = "text/javascript; charset=utf-8";
        for (path, kind) in [
            ("/docs/", "text/html; charset=utf-8"),
            ("/docs/start.js", script),
            ("/docs/page.css", "text/css; charset=utf-8"),
            ("/docs/swagger-ui-bundle.js", script),
            ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
            ("/docs/favicon-32x32.png", "image/png"),
            ("/openapi.json", "application/json"),
        ] {
            let answer = app.request("HEAD", path).send().await;
            assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        }
    }

    async fn arbitrary_headers_grant_access_only_with_one_valid_credential(app: App) {
        let (address, token) = (app.address, app.token_of("ada@example.org").await);
        let check = move |lines: Vec<(&'static str, Vec<u8>)>| {
            let filled = |value: &[u8]| match std::str::from_utf8(value) {
                Ok(text) => text.replace("{}", &token).into_bytes(),
                Err(_) => value.to_vec(),
            };
            let lines: Vec<(&str, Vec<u8>)> = lines.iter().map(|(name, value)| (*name, filled(value))).collect();
            let sent: Vec<Vec<u8>> =
                lines.iter().map(|(name, value)| [name.as_bytes(), b": ", value].concat()).collect();
            let status = status_of(address, b"GET /me", &sent, b"");

            let shown = |name: &str| {
                let values: Vec<&[u8]> =
                    lines.iter().filter(|line| line.0 == name).map(|line| line.1.trim_ascii()).collect();
                (values.len(), values.first().copied().unwrap_or_default())
            };
            let ((tokens, by_token), (authorizations, authorization)) = (shown("Token"), shown("Authorization"));
            let scheme = authorization.split(|byte| *byte == b' ').next().unwrap_or_default();
            let by_bearer = scheme.eq_ignore_ascii_case(b"bearer").then(|| authorization[scheme.len()..].trim_ascii());
            let is_good = |shown: &[u8]| shown == token.as_bytes();
            // A line with control characters is invalid in HTTP.
            let is_parsed = lines.iter().flat_map(|line| &line.1).all(|byte| *byte == b'\t' || !byte.is_ascii_control());
            let is_one = is_parsed && tokens <= 1 && authorizations <= 1;
            let is_accepted = is_one && match by_bearer {
                Some(bearer) => is_good(bearer) && (by_token.is_empty() || is_good(by_token)),
                None => is_good(by_token),
            };
            assert_eq!(status == 200, is_accepted, "{status}: {lines:?}");
            assert!([200, 400, 401, 403].contains(&status), "{status}: {lines:?}");
        };
        for_any(credential_lines, check).await;
    }

    async fn no_body_and_no_query_causes_a_server_error(app: App) {
        let (address, root) = (app.address, app.admin("root@example.org").await);
        let credential = format!("Token: {}", root.secret()).into_bytes();
        let check = move |(json, bytes): (Vec<u8>, Vec<u8>)| {
            let media = |kind: &str| vec![credential.clone(), format!("Content-Type: {kind}").into_bytes()];
            for (first, media_type, body) in [
                ("POST /register", JSON, &json),
                ("POST /register", JSON, &bytes),
                ("POST /page/", JSON, &bytes),
                ("POST /me/keys", JSON, &bytes),
                ("POST /keys", JSON, &bytes),
                ("PATCH /me", JSON, &bytes),
                ("POST /token", FORM, &bytes),
                ("POST /revoke", FORM, &bytes),
                ("POST /introspect", FORM, &bytes),
            ] {
                let status = status_of(address, first.as_bytes(), &media(media_type), body);
                // Some of the changed registrations are still valid.
                let registered = first == "POST /register" && body == &json && [201, 409].contains(&status);
                assert!(registered || (400..500).contains(&status), "{first} → {status}: {}", body.escape_ascii());
                if registered {
                    let fields: Value = serde_json::from_slice(body).unwrap();
                    assert_eq!(fields.as_object().unwrap().len(), 5, "{fields}");
                }
            }
            for path in ["/page/", "/users", "/audit", "/keys", "/me/activity", "/authz"] {
                let query: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_graphic).collect();
                let first = [b"GET ", path.as_bytes(), b"?", &query].concat();
                let status = status_of(address, &first, std::slice::from_ref(&credential), b"");
                assert!(status < 500, "{path} → {status}: {}", query.escape_ascii());
            }
        };
        for_any(|| (damaged_registration(), bytes(b"{}[]\":,\\u0%&=+scopelimt1")), check).await;
    }

    async fn a_password_registered_as_json_signs_in_as_a_form(app: App) {
        let address = app.address;
        let check = move |(number, password): (u64, String)| {
            let mut fields = registration(&format!("u{number}@example.org"));
            fields["password"] = password.as_str().into();
            let json = [format!("Content-Type: {JSON}").into_bytes()];
            let status = status_of(address, b"POST /register", &json, fields.to_string().as_bytes());
            assert_eq!(status, 201, "{fields}");
            let pairs = [("grant_type", "password"), ("username", fields["email"].as_str().unwrap()), ("password", &password)];
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            let kind = [format!("Content-Type: {FORM}").into_bytes()];
            assert_eq!(status_of(address, b"POST /token", &kind, form.as_bytes()), 200, "{form}");
        };
        for_any(|| (any::<u64>(), "([ +%&=\"\\\\\u{1f600}]|[^\0]){17,40}"), check).await;
    }
}
