//! What is logged of a request.

use std::process::Command;

use chrono::{DateTime, FixedOffset, TimeDelta};
use latchkey::clock::Clock;
use latchkey::config::LogFormat;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{PASSWORD, registration};
use crate::support::client::Request;
use crate::support::program::{Serving, latchkey, out, run};
use crate::support::{Credential, specify_database};

/// The request ids of the access lines that these requests leave, on one thread.
async fn lines_of(every: &str, requests: &[(&str, &str)]) -> Vec<String> {
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
    let lines = serving.rest().into_iter().filter(|line| line.contains("latchkey::access"));
    lines.map(|line| line.split_once("request_id=").unwrap().1.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn of_requests_that_succeed_as_many_are_logged_as_the_settings_say_and_all_that_fail() {
    let (live, missing) = ("/health/live", "/nowhere");
    let requests = [("a", live), ("b", live), ("c", missing), ("d", live), ("e", "/me"), ("f", live)];
    for (every, logged) in [("1", "a b c d e f"), ("2", "a c d e"), ("3", "a c e f"), ("0", "c e")] {
        let expected: Vec<&str> = logged.split(' ').collect();
        assert_eq!(lines_of(every, &requests).await, expected, "every {every}");
    }
}

/// A request as it goes over the wire, after which the connection is closed.
fn wire(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// The status line that the server answers.
async fn exchange(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whatever becomes of the connection after the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn no_request_writes_log_lines_of_its_own() {
    let line = "%0d%0a[2026-01-01T00:00:00Z%20ERROR%20latchkey]%20forged";
    let record = "%0a{%22level%22:%22ERROR%22,%22message%22:%22forged%22}";
    let form = format!("grant_type=password&username=ada{line}&password=x");
    let mut user = registration("ada@example.org");
    user["name"] = json!("Adaline\u{2028}forged");
    let odd_ids = "X-Request-Id: a\tforged\r\nX-Request-Id: \u{2028}forged\r\n";
    let (form_type, json_type) =
        ("Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: application/json\r\n");
    let requests = [
        (wire("GET", &format!("/nowhere{line}"), "", ""), 404),
        (wire("GET", &format!("/nowhere{record}"), "", ""), 404),
        (wire("GET", "/nowhere%1b[31m%e2%80%a8%c2%85forged", "", ""), 404),
        (wire("GET", &format!("/me?{line}"), "", ""), 403),
        (wire("GET", "/health/live", odd_ids, ""), 200),
        (wire("POST", "/token", form_type, &form), 401),
        (wire("POST", "/register", json_type, &user.to_string()), 422),
        // The parser refuses these, and leaves no line.
        (wire("GET", "/nowhere\n[2026-01-01T00:00:00Z\tERROR\tlatchkey]\tforged", "", ""), 400),
        (wire("GET", "/nowhere\u{1b}[31mforged", "", ""), 400),
        (wire("GET", "/nowhere\u{2028}\u{85}forged", "", ""), 400),
        (wire("GET", "/health/live", "X-Request-Id: a\u{1b}[31mforged\r\n", ""), 400),
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

        let log = serving.rest();
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

/// Checks that this is a time in UTC that is not long ago.
fn assert_is_now_in_utc(time: &str) {
    let at = DateTime::parse_from_rfc3339(time).unwrap_or_else(|error| panic!("{time:?}: {error}"));
    let age = Clock::default().now().utc() - at.to_utc();
    assert!(time.ends_with('Z') && age.abs() < TimeDelta::minutes(5), "{time}");
}

specify_database! {
    async fn a_failure_is_logged_with_the_cause_that_its_caller_is_not_told(database: Database) {
        let home = TempDir::new().unwrap();
        let mut serving = Serving::start(latchkey(home.path(), &[]).env("DATABASE_URL", &database.url));
        let (address, http) = (serving.address(), reqwest::Client::builder().no_proxy().build().unwrap());
        let register = async |id: &str| {
            let request = Request::new(http.post(format!("http://{address}/register"))).header("X-Request-Id", id);
            request.json(&registration(&format!("{id}@example.org"))).send().await
        };
        assert_eq!(register("whole").await.status, 201);
        let troubles = [
            ("broken", "CREATE UNIQUE INDEX audit_entries_once ON audit_entries (action)", "audit_entries"),
            ("changed", "ALTER TABLE users RENAME TO users_elsewhere", "users"),
        ];
        for (id, sql, cause) in troubles {
            database.execute(sql).await;
            let answer = register(id).await;
            answer.assert_error(500, "internal");
            assert!(!format!("{answer:?}").contains(cause), "{answer:?}");
        }
        serving.signal("-QUIT");
        serving.child.wait().unwrap();

        let log = serving.rest();
        for (id, _, cause) in troubles {
            let about = format!(" request_id={id}");
            let (access, causes): (Vec<&String>, Vec<&String>) =
                log.iter().filter(|line| line.contains(&about)).partition(|line| line.contains("latchkey::access"));
            assert!(access.len() == 1 && access[0].contains("status=500"), "{access:?}");
            assert!(causes.len() == 1 && causes[0].contains("ERROR") && causes[0].contains(cause), "{causes:?}");
        }
        let whole: Vec<&String> = log.iter().filter(|line| line.contains("request_id=whole")).collect();
        assert!(whole.len() == 2 && whole[0].contains("latchkey::audit") && whole[1].contains("latchkey::access"));
    }

    async fn each_entry_of_the_trail_that_a_request_left_is_one_log_line(database: Database) {
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

        let told = |line: &Value, target: &str| {
            let members = ["request_id", "action", "outcome", "actor", "credential", "detail", target];
            members.map(|member| line[member].as_str().unwrap_or_default().to_owned())
        };
        let log = serving.rest();
        let lines = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["target"] == "latchkey::audit").map(|line| told(&line, "on"));
        let mut command = latchkey(home.path(), &["audit", "list", "--oldest", "--json"]);
        let trail = out(&run(command.env("DATABASE_URL", &database.url)));
        let trail = trail.lines().map(|line| told(&serde_json::from_str(line).unwrap(), "target"));
        let trail: Vec<_> = trail.collect();
        assert!(trail.len() >= 8, "{trail:?}");
        assert_eq!(lines.collect::<Vec<_>>(), trail);
    }

    async fn times_are_in_utc_wherever_the_server_stands(database: Database) {
        let home = TempDir::new().unwrap();
        let in_japan = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("TZ", "JST-9").env("PGTZ", "JST-9");
            command
        };
        for format in ["text", "json"] {
            let mut serving = Serving::start(in_japan(&[]).env("LATCHKEY__LOG__FORMAT", format));
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
                assert_is_now_in_utc(&time);
            }
            let expires_at = key.text_of("expires_at");
            assert!(expires_at.ends_with('Z'), "{expires_at}");
            assert_eq!(DateTime::parse_from_rfc3339(&expires_at).unwrap().to_utc(), end);
            let entries = activity.body["items"].as_array().unwrap();
            assert_eq!(entries.len(), 3, "{activity:?}");
            for entry in entries {
                assert_is_now_in_utc(entry["at"].as_str().unwrap());
            }
            let log = serving.rest();
            assert!(log.len() >= 4, "{log:?}");
            for line in log {
                match format {
                    "json" => assert_is_now_in_utc(serde_json::from_str::<Value>(&line).unwrap()["time"].as_str().unwrap()),
                    _ => assert_is_now_in_utc(line.trim_start_matches('[').split(' ').next().unwrap()),
                }
            }
        }
        let listed = out(&run(&mut in_japan(&["audit", "list", "--json"])));
        assert_eq!(listed.lines().count(), 6, "{listed}");
        for line in listed.lines() {
            assert_is_now_in_utc(serde_json::from_str::<Value>(line).unwrap()["at"].as_str().unwrap());
        }
    }
}

/// Tells a process that it is the one that panics, and about what.
const PANICS_ABOUT: &str = "LATCHKEY_TEST_PANICS_ABOUT";

#[test]
fn a_panic_is_one_line_and_quotes_no_data() {
    // The hook for panics is the whole process's, so this test runs itself in one of its own.
    if let Ok(data) = std::env::var(PANICS_ABOUT) {
        let kept = latchkey::logging::start(LogFormat::Json).unwrap();
        let same = data.clone();
        assert!(std::thread::spawn(move || assert!(data.is_empty(), "no row for {data}")).join().is_err());
        assert!(std::thread::spawn(move || assert!(same.is_empty(), "a fixed text")).join().is_err());
        drop(kept);
        return;
    }
    let mut itself = Command::new(std::env::current_exe().unwrap());
    itself.args(["--exact", "log::a_panic_is_one_line_and_quotes_no_data"]).env_remove("RUST_LOG");
    let ended = run(itself.env(PANICS_ABOUT, "hunter2"));
    assert!(ended.status.success(), "{ended:?}");
    let log = String::from_utf8(ended.stderr).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
    assert_eq!(told, ["panicked: its message may quote data", "panicked: a fixed text"]);
    for line in &lines {
        assert_eq!((&line["level"], &line["target"]), (&json!("ERROR"), &json!("latchkey::panic")), "{line}");
        assert!(line["place"].as_str().unwrap().contains("tests/api/log.rs:"), "{line}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_keeps_nobody_waiting() {
    let home = TempDir::new().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut serving = latchkey(home.path(), &[]).env("LATCHKEY__SERVER__LISTEN", &free).spawn().unwrap();
    while !run(latchkey(home.path(), &["health"]).env("LATCHKEY__SERVER__LISTEN", &free)).status.success() {
        assert!(serving.try_wait().unwrap().is_none(), "it serves");
    }
    // So many lines that what the system keeps for a reader is full.
    let (http, id) = (reqwest::Client::builder().no_proxy().build().unwrap(), "x".repeat(128));
    for _ in 0..600 {
        let answer = http.get(format!("http://{free}/health/live")).header("X-Request-Id", &id).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(Command::new("kill").arg(serving.id().to_string()).status().unwrap().success());
    assert_eq!(serving.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn lines_about_one_client_s_refusals_are_few_and_short_and_the_rest_is_counted() {
    let home = TempDir::new().unwrap();
    let mut serving = Serving::start(&mut latchkey(home.path(), &[]));
    let address = serving.address();
    let path = format!("/{}", "x".repeat(8_000));
    let method = "X".repeat(1_000);
    for number in 0..130 {
        let request = match number % 3 {
            0 => wire("GET", &path, "", ""),
            1 => wire("GET", &format!("{path}{path}"), "", ""),
            _ => wire(&method, "/authz", &format!("X-Forwarded-Uri: {path}\r\n"), ""),
        };
        assert!(exchange(&address, &request).await.starts_with("HTTP/1.1 4"));
    }
    serving.signal("-INT");
    serving.child.wait().unwrap();
    let log = serving.rest();
    let refusals = log.iter().filter(|line| line.contains("latchkey::access] request "));
    assert_eq!(refusals.count(), 100, "{log:#?}");
    assert!(log.iter().all(|line| line.len() < 600), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("30 more refusals of 127.0.0.1 in the last 60 s")), "{log:#?}");
}
