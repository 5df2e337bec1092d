//! The log: access lines, errors, audit entries, panics and their format.

use std::process::Command;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, TimeDelta};
use latchkey::clock::Clock;
use latchkey::config::LogFormat;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::app::{PASSWORD, registration};
use crate::support::client::{Client, Request};
use crate::support::program::{Serving, latchkey, out, run};
use crate::support::{Credential, specify_database};

/// Sends these requests to a server with one worker; returns the request ids of the access lines.
async fn logged_ids(every: &str, requests: &[(&str, &str)]) -> Vec<String> {
    let home = TempDir::new().unwrap();
    let mut command: Command = latchkey(home.path(), &[]);
    command.env("LATCHKEY__LOG__ACCESS_EVERY", every).env("LATCHKEY__SERVER__WORKERS", "1");
    let mut serving = Serving::start(&mut command);
    let (address, http) = (serving.address(), reqwest::Client::builder().no_proxy().build().unwrap());
    for (id, path) in requests {
        http.get(format!("http://{address}{path}")).header("X-Request-Id", *id).send().await.unwrap();
    }
    serving.signal("-QUIT");
    serving.child.wait().unwrap();
    let lines = serving.remaining_lines().into_iter().filter(|line| line.contains("latchkey::access"));
    lines.map(|line| line.split_once("request_id=").unwrap().1.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn failed_requests_are_always_logged_and_successful_ones_at_the_configured_rate() {
    let (live, missing) = ("/health/live", "/nowhere");
    let requests = [("a", live), ("b", live), ("c", missing), ("d", live), ("e", "/me"), ("f", live)];
    for (every, logged) in [("1", "a b c d e f"), ("2", "a c d e"), ("3", "a c e f"), ("0", "c e")] {
        let expected: Vec<&str> = logged.split(' ').collect();
        assert_eq!(logged_ids(every, &requests).await, expected, "every {every}");
    }
}

/// The bytes of an HTTP request with `Connection: close`.
fn raw_request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends a request; returns the status line of the response.
async fn exchange(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The connection may be reset after the response.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn requests_cannot_inject_log_lines() {
    let line = "%0d%0a[2026-01-01T00:00:00Z%20ERROR%20latchkey]%20forged";
    let record = "%0a{%22level%22:%22ERROR%22,%22message%22:%22forged%22}";
    let form = format!("grant_type=password&username=ada{line}&password=x");
    let mut user = registration("ada@example.org");
    user["name"] = json!("Adaline\u{2028}forged");
    let odd_ids = "X-Request-Id: a\tforged\r\nX-Request-Id: \u{2028}forged\r\n";
    let (form_type, json_type) =
        ("Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: application/json\r\n");
    let requests = [
        (raw_request("GET", &format!("/nowhere{line}"), "", ""), 404),
        (raw_request("GET", &format!("/nowhere{record}"), "", ""), 404),
        (raw_request("GET", "/nowhere%1b[31m%e2%80%a8%c2%85forged", "", ""), 404),
        (raw_request("GET", &format!("/me?{line}"), "", ""), 403),
        (raw_request("GET", "/health/live", odd_ids, ""), 200),
        (raw_request("POST", "/token", form_type, &form), 401),
        (raw_request("POST", "/register", json_type, &user.to_string()), 422),
        // The HTTP parser rejects these, and no line is logged.
        (raw_request("GET", "/nowhere\n[2026-01-01T00:00:00Z\tERROR\tlatchkey]\tforged", "", ""), 400),
        (raw_request("GET", "/nowhere\u{1b}[31mforged", "", ""), 400),
        (raw_request("GET", "/nowhere\u{2028}\u{85}forged", "", ""), 400),
        (raw_request("GET", "/health/live", "X-Request-Id: a\u{1b}[31mforged\r\n", ""), 400),
    ];
    for format in ["text", "json"] {
        let home = TempDir::new().unwrap();
        let mut serving = Serving::start(latchkey(home.path(), &[]).env("LATCHKEY__LOG__FORMAT", format));
        let address = serving.address();
        for (request, status) in &requests {
            let answer = exchange(&address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} → {answer:?}");
        }
        serving.signal("-QUIT");
        serving.child.wait().unwrap();

        let log = serving.remaining_lines();
        let (access, others): (Vec<&String>, Vec<&String>) =
            log.iter().partition(|line| line.contains("latchkey::access"));
        let served = requests.iter().filter(|(_, status)| *status != 400).count();
        assert_eq!(access.len(), served, "{access:#?}");
        assert!(!others.iter().any(|line| line.contains("forged")), "{others:#?}");
        for line in &log {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
            match format {
                "json" => assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}"),
                _ => assert!(line.starts_with("[20"), "{line}"),
            }
        }
    }
}

/// Asserts a time in UTC of the last five minutes.
fn assert_is_recent_utc(time: &str) {
    let at = DateTime::parse_from_rfc3339(time).unwrap_or_else(|error| panic!("{time:?}: {error}"));
    let age = Clock::default().now().utc() - at.to_utc();
    assert!(time.ends_with('Z') && age.abs() < TimeDelta::minutes(5), "{time}");
}

specify_database! {
    async fn the_cause_of_an_internal_error_is_logged_and_not_returned(database: Database) {
        let home = TempDir::new().unwrap();
        let mut serving = Serving::start(latchkey(home.path(), &[]).env("DATABASE_URL", &database.url));
        let (address, http) = (serving.address(), reqwest::Client::builder().no_proxy().build().unwrap());
        let register = async |id: &str| {
            let request = Request::new(http.post(format!("http://{address}/register"))).header("X-Request-Id", id);
            request.json(&registration(&format!("{id}@example.org"))).send().await
        };
        assert_eq!(register("complete").await.status, 201);
        let failures = [
            ("constraint", "CREATE UNIQUE INDEX audit_entries_once ON audit_entries (action)", "audit_entries"),
            ("renamed", "ALTER TABLE users RENAME TO users_elsewhere", "users"),
        ];
        for (id, sql, cause) in failures {
            database.execute(sql).await;
            let answer = register(id).await;
            answer.assert_error(500, "internal");
            assert!(!format!("{answer:?}").contains(cause), "{answer:?}");
        }
        serving.signal("-QUIT");
        serving.child.wait().unwrap();

        let log = serving.remaining_lines();
        for (id, _, cause) in failures {
            let field = format!(" request_id={id}");
            let (access, causes): (Vec<&String>, Vec<&String>) =
                log.iter().filter(|line| line.contains(&field)).partition(|line| line.contains("latchkey::access"));
            assert!(access.len() == 1 && access[0].contains("status=500"), "{access:?}");
            assert!(causes.len() == 1 && causes[0].contains("ERROR") && causes[0].contains(cause), "{causes:?}");
        }
        let complete: Vec<&String> = log.iter().filter(|line| line.contains("request_id=complete")).collect();
        assert!(complete.len() == 2 && complete[0].contains("latchkey::audit") && complete[1].contains("latchkey::access"));
    }

    async fn each_audit_entry_of_a_request_is_one_log_line(database: Database) {
        let home = TempDir::new().unwrap();
        let mut command = latchkey(home.path(), &[]);
        command.env("DATABASE_URL", &database.url).env("LATCHKEY__LOG__FORMAT", "json");
        let mut serving = Serving::start(command.env("LATCHKEY__LOG__ACCESS_EVERY", "0"));
        let (address, http) = (serving.address(), reqwest::Client::builder().no_proxy().build().unwrap());
        let send = async |method: &str, path: &str, ada: &Credential, body: Value| {
            let request = http.request(method.parse().unwrap(), format!("http://{address}{path}"));
            Request::new(request).credential(ada).json(&body).send().await
        };
        let sign_in = async |password: &str| {
            let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", password)];
            Request::new(http.post(format!("http://{address}/token"))).form(&form).send().await
        };
        send("POST", "/register", &Credential::None, registration("ada@example.org")).await;
        sign_in("a wrong password").await;
        let ada = Credential::Token(sign_in(PASSWORD).await.text_of("access_token"));
        send("POST", "/me/keys", &ada, json!({ "name": "k", "scopes": [] })).await;
        send("GET", "/users", &ada, json!({})).await.assert_error(403, "insufficient_scope");
        send("DELETE", "/page/1", &ada, json!({})).await.assert_error(404, "not_found");
        let change = json!({ "current_password": PASSWORD, "new_password": "another password" });
        assert_eq!(send("PUT", "/me/password", &ada, change).await.status, 204);
        serving.signal("-QUIT");
        serving.child.wait().unwrap();

        let values = |line: &Value, target: &str| {
            let members = ["request_id", "action", "outcome", "actor", "credential", "detail", target];
            members.map(|member| line[member].as_str().unwrap_or_default().to_owned())
        };
        let log = serving.remaining_lines();
        let lines = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["target"] == "latchkey::audit").map(|line| values(&line, "on"));
        let mut command = latchkey(home.path(), &["audit", "list", "--oldest", "--json"]);
        let trail = out(&run(command.env("DATABASE_URL", &database.url)));
        let trail = trail.lines().map(|line| values(&serde_json::from_str(line).unwrap(), "target"));
        let trail: Vec<_> = trail.collect();
        assert!(trail.len() >= 8, "{trail:?}");
        assert_eq!(lines.collect::<Vec<_>>(), trail);
    }

    async fn an_audit_entry_is_logged_although_its_client_has_gone(database: Database) {
        let home = TempDir::new().unwrap();
        let mut command = latchkey(home.path(), &[]);
        command.env("DATABASE_URL", &database.url).env("LATCHKEY__LIMITS__ENABLED", "false");
        let mut serving = Serving::start(&mut command);
        let address = serving.address();
        let client = Client::new(&format!("http://{address}"));
        client.register("ada@example.org").await;
        let token = client.new_token_of("ada@example.org").await;
        let body = json!({ "title": "t", "body": "b" }).to_string();
        // A change, and a denied request.
        let requests = [
            format!("POST /page/ HTTP/1.1\r\nHost: x\r\nToken: {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            format!("GET /users HTTP/1.1\r\nHost: x\r\nToken: {token}\r\n\r\n"),
        ];
        for number in 0..120_u64 {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            // The server notices at once.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            stream.write_all(requests[usize::from(number % 2 == 1)].as_bytes()).await.unwrap();
            // The client leaves before, during and after the transaction.
            tokio::time::sleep(Duration::from_micros(150 * (number % 20))).await;
        }
        serving.signal("-TERM");
        serving.child.wait().unwrap();
        let log = serving.remaining_lines();
        for action in ["page.create", "request"] {
            let stored = database.number(format!("SELECT COUNT(*) AS number FROM audit_entries WHERE action = '{action}' AND request_id IS NOT NULL")).await;
            let logged = log.iter().filter(|line| line.contains("latchkey::audit") && line.contains(&format!(" action={action} ")));
            assert_eq!(i64::try_from(logged.count()).unwrap(), stored, "{action}");
            assert!(stored > 0, "{action}");
        }
    }

    async fn times_are_in_utc_in_every_time_zone(database: Database) {
        let home = TempDir::new().unwrap();
        let with_japanese_time = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("TZ", "JST-9").env("PGTZ", "JST-9");
            command
        };
        for format in ["text", "json"] {
            let mut serving = Serving::start(with_japanese_time(&[]).env("LATCHKEY__LOG__FORMAT", format));
            let (address, http) = (serving.address(), reqwest::Client::builder().no_proxy().build().unwrap());
            let request = |method: &str, path: &str| {
                Request::new(http.request(method.parse().unwrap(), format!("http://{address}{path}")))
            };
            let email = format!("{format}@example.org");
            let registered = request("POST", "/register").json(&registration(&email)).send().await;
            let form = [("grant_type", "password"), ("username", email.as_str()), ("password", PASSWORD)];
            let signed_in = request("POST", "/token").form(&form).send().await;
            let ada = Credential::Token(signed_in.text_of("access_token"));
            let end = Clock::default().now().plus_seconds(3_600).utc();
            let end_in_japan = end.with_timezone(&FixedOffset::east_opt(9 * 3_600).unwrap()).to_rfc3339();
            let key = json!({ "name": "k", "scopes": [], "expires_at": end_in_japan });
            let key = request("POST", "/me/keys").credential(&ada).json(&key).send().await;
            let activity = request("GET", "/me/activity").credential(&ada).send().await;
            serving.signal("-QUIT");
            serving.child.wait().unwrap();

            for time in [registered.text_of("created_at"), registered.text_of("updated_at"), key.text_of("created_at")] {
                assert_is_recent_utc(&time);
            }
            let expires_at = key.text_of("expires_at");
            assert!(expires_at.ends_with('Z'), "{expires_at}");
            assert_eq!(DateTime::parse_from_rfc3339(&expires_at).unwrap().to_utc(), end);
            let entries = activity.body["items"].as_array().unwrap();
            assert_eq!(entries.len(), 3, "{activity:?}");
            for entry in entries {
                assert_is_recent_utc(entry["at"].as_str().unwrap());
            }
            let log = serving.remaining_lines();
            assert!(log.len() >= 4, "{log:?}");
            for line in log {
                match format {
                    "json" => assert_is_recent_utc(serde_json::from_str::<Value>(&line).unwrap()["time"].as_str().unwrap()),
                    _ => assert_is_recent_utc(line.trim_start_matches('[').split(' ').next().unwrap()),
                }
            }
        }
        let listed = out(&run(&mut with_japanese_time(&["audit", "list", "--json"])));
        assert_eq!(listed.lines().count(), 6, "{listed}");
        for line in listed.lines() {
            assert_is_recent_utc(serde_json::from_str::<Value>(line).unwrap()["at"].as_str().unwrap());
        }
    }
}

/// The environment variable with the data of the panic, which the test sets for its child process.
const PANIC_DATA: &str = "LATCHKEY_TEST_PANIC_DATA";

#[test]
fn a_panic_is_one_line_and_quotes_no_data() {
    // The panic hook applies to the whole process, so this test runs itself in a child process.
    if let Ok(data) = std::env::var(PANIC_DATA) {
        let guard = latchkey::logging::start(LogFormat::Json).unwrap();
        let copy = data.clone();
        assert!(std::thread::spawn(move || assert!(data.is_empty(), "no row for {data}")).join().is_err());
        assert!(std::thread::spawn(move || assert!(copy.is_empty(), "a fixed text")).join().is_err());
        drop(guard);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "operations::log::a_panic_is_one_line_and_quotes_no_data"]).env_remove("RUST_LOG");
    let output = run(child.env(PANIC_DATA, "hunter2"));
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
    assert_eq!(messages, ["panicked: its message may quote data", "panicked: a fixed text"]);
    for line in &lines {
        assert_eq!((&line["level"], &line["target"]), (&json!("ERROR"), &json!("latchkey::panic")), "{line}");
        assert!(line["place"].as_str().unwrap().contains("tests/api/operations/log.rs:"), "{line}");
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_an_unread_log() {
    let home = TempDir::new().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut serving = latchkey(home.path(), &[]).env("LATCHKEY__SERVER__LISTEN", &address).spawn().unwrap();
    while !run(latchkey(home.path(), &["health"]).env("LATCHKEY__SERVER__LISTEN", &address)).status.success() {
        assert!(serving.try_wait().unwrap().is_none(), "the server runs");
    }
    // Enough lines to fill the buffer of the pipe.
    let (http, id) = (reqwest::Client::builder().no_proxy().build().unwrap(), "x".repeat(128));
    for _ in 0..600 {
        let answer =
            http.get(format!("http://{address}/health/live")).header("X-Request-Id", &id).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(Command::new("kill").arg(serving.id().to_string()).status().unwrap().success());
    assert_eq!(serving.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn log_lines_about_rejected_requests_are_limited_per_client_and_the_others_are_counted() {
    let home = TempDir::new().unwrap();
    let mut serving = Serving::start(&mut latchkey(home.path(), &[]));
    let address = serving.address();
    let path = format!("/{}", "x".repeat(8_000));
    let method = "X".repeat(1_000);
    for number in 0..130 {
        let request = match number % 3 {
            0 => raw_request("GET", &path, "", ""),
            1 => raw_request("GET", &format!("{path}{path}"), "", ""),
            _ => raw_request(&method, "/authz", &format!("X-Forwarded-Uri: {path}\r\n"), ""),
        };
        assert!(exchange(&address, &request).await.starts_with("HTTP/1.1 4"));
    }
    serving.signal("-INT");
    serving.child.wait().unwrap();
    let log = serving.remaining_lines();
    let rejections = log.iter().filter(|line| line.contains("latchkey::access] request "));
    assert_eq!(rejections.count(), 100, "{log:#?}");
    assert!(log.iter().all(|line| line.len() < 600), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("30 more refusals of 127.0.0.1 in the last 60 s")), "{log:#?}");
}
