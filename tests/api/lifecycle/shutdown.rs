//! The graceful and the immediate stop of the server.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Credential;
use crate::support::app::registration;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey, out, run};

/// Sends the head of a registration and the first 10 bytes of its body.
async fn begin_registration(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{}", &body[..10]).as_bytes()).await.unwrap();
    // The response to a later request shows that the server has accepted the earlier one.
    assert!(get(address, "/health/live").await.starts_with("HTTP/1.1 200 "));
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // The connection may be reset after the response.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_all(stream).await
}

fn serving(home: &TempDir, timeout: &str) -> Serving {
    let mut command = latchkey(home.path(), &[]);
    Serving::start(command.env("LATCHKEY__SERVER__SHUTDOWN_TIMEOUT", timeout))
}

#[tokio::test]
async fn sigterm_finishes_requests_that_arrive_and_cancels_the_others_in_time() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "10");
    let address = serving.address();
    let body = registration("ada@example.org").to_string();
    let mut completed = begin_registration(&address, &body).await;
    let stalled = begin_registration(&address, &body).await;
    let idle = TcpStream::connect(&address).await.unwrap();

    let signaled = Instant::now();
    serving.signal("-TERM");
    serving.line("stopping within 10 s");
    let ready = get(&address, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("retry-after: 1"), "{ready}");
    assert!(get(&address, "/health/live").await.starts_with("HTTP/1.1 200 "), "new requests are still served");
    let mut keep_alive = TcpStream::connect(&address).await.unwrap();
    keep_alive.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(
        read_all(keep_alive).await.contains("\r\nconnection: close\r\n"),
        "the server closes the connection after the response"
    );

    completed.write_all(&body.as_bytes()[10..]).await.unwrap();
    let answer = read_all(completed).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let answer = read_all(stalled).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"busy\""), "{answer}");
    assert_eq!(read_all(idle).await, "");

    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    assert!(signaled.elapsed() < Duration::from_secs(10), "{:?}", signaled.elapsed());
    assert!(serving.remaining_lines().iter().any(|line| line.ends_with("stopped")));
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn a_second_signal_or_sigquit_stops_the_server_immediately() {
    for (first, second) in [
        ("-TERM", Some("-TERM")),
        ("-TERM", Some("-INT")),
        ("-INT", Some("-TERM")),
        ("-INT", Some("-QUIT")),
        ("-QUIT", None),
    ] {
        let home = TempDir::new().unwrap();
        let mut serving = serving(&home, "300");
        let address = serving.address();
        let stalled = begin_registration(&address, &registration("ada@example.org").to_string()).await;
        serving.signal(first);
        if let Some(second) = second {
            serving.line("stopping within 300 s");
            serving.signal(second);
        }
        serving.line("stopping immediately");
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{first} {second:?}");
        assert_eq!(read_all(stalled).await, "");
        assert!(serving.remaining_lines().iter().any(|line| line.ends_with("stopped")), "{first} {second:?}");
    }
}

#[tokio::test]
async fn sigint_stops_the_server_gracefully() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "30");
    let address = serving.address();
    let body = registration("ada@example.org").to_string();
    let mut completed = begin_registration(&address, &body).await;
    serving.signal("-INT");
    serving.line("stopping within 30 s");
    assert!(get(&address, "/health/ready").await.starts_with("HTTP/1.1 503 "));
    completed.write_all(&body.as_bytes()[10..]).await.unwrap();
    let answer = read_all(completed).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn other_signals_are_logged_and_ignored() {
    let home = TempDir::new().unwrap();
    let serving = serving(&home, "4");
    let address = serving.address();
    for signal in ["HUP", "USR1", "USR2"] {
        serving.signal(&format!("-{signal}"));
        serving.line(&format!("SIG{signal} changes nothing"));
    }
    serving.signal("-PIPE");
    assert!(get(&address, "/health/live").await.starts_with("HTTP/1.1 200 "));
}

/// The names of the files in a directory, sorted.
fn files(home: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(home.path()).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The last use of a key is written in the background, and when the server stops.
#[tokio::test]
async fn every_stop_signal_writes_what_is_pending_and_leaves_one_complete_sqlite_file() {
    for signals in [["-TERM"].as_slice(), &["-INT"], &["-QUIT"], &["-TERM", "-TERM"]] {
        let home = TempDir::new().unwrap();
        let mut serving = serving(&home, "4");
        let client = serving.client();
        client.register("ada@example.org").await;
        let ada = Credential::Token(client.new_token_of("ada@example.org").await);
        let (key, _) = client.key_of(&ada, &["pages:read"]).await;
        // Parallel requests open several connections.
        let requests = (0..8).map(|_| client.get("/page/", &key));
        assert!(futures_util::future::join_all(requests).await.iter().all(|answer| answer.status == 200));
        assert_eq!(files(&home), ["latchkey.db", "latchkey.db-shm", "latchkey.db-wal"]);
        serving.signal(signals[0]);
        if let Some(second) = signals.get(1) {
            serving.line("stopping within");
            serving.signal(second);
        }
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{signals:?}");
        assert_eq!(files(&home), ["latchkey.db"], "{signals:?}");
        assert!(!serving.remaining_lines().iter().any(|line| line.contains("WARN")), "{signals:?}");

        // The file alone contains every change.
        let copy = TempDir::new().unwrap();
        std::fs::copy(home.path().join("latchkey.db"), copy.path().join("latchkey.db")).unwrap();
        assert!(out(&run(&mut latchkey(copy.path(), &["user", "list"]))).contains("ada@example.org"));
        let keys = out(&run(&mut latchkey(copy.path(), &["key", "list", "--json"])));
        assert!(!keys.contains("\"last_used_at\":null"), "{signals:?}: {keys}");
        assert_eq!(files(&copy), ["latchkey.db"], "commands leave one file, too");
    }
}

#[tokio::test]
async fn a_stop_empties_the_write_ahead_log_although_another_program_uses_the_database() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "4");
    let client = serving.client();
    client.register("ada@example.org").await;
    let database = Database::at(&format!("sqlite://{}", home.path().join("latchkey.db").display()));
    let db = database.open();
    db.schema_state().await.unwrap();
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
    let log = home.path().join("latchkey.db-wal");
    assert_eq!(std::fs::metadata(&log).unwrap().len(), 0, "all changes are in the file");
    drop(db);
    assert_eq!(files(&home), ["latchkey.db"]);
}

#[tokio::test]
async fn stopping_writes_the_count_of_repeated_denials() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "4");
    let client = serving.client();
    let ada = client.user("ada@example.org").await;
    for _ in 0..25 {
        assert_eq!(client.get("/users", &ada).await.status, 403);
    }
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
    let list = out(&run(&mut latchkey(home.path(), &["audit", "list", "--json"])));
    assert!(list.contains("insufficient_scope users:read, repeated 5 times"), "{list}");
}

/// The kernel resets connections that are established and not accepted when the socket closes, so the server accepts them
/// first. A client that cannot connect can use another replica. A client that sent a request cannot know whether it was
/// processed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_request_on_an_established_connection_is_answered_until_the_socket_closes() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "4");
    let address = serving.address();
    let client = |_| {
        let address = address.clone();
        tokio::spawn(async move {
            let mut answered = 0;
            while let Ok(mut stream) = TcpStream::connect(&address).await {
                stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                assert!(answer.starts_with(b"HTTP/1.1 200 "), "after {answered} responses: {answer:?}");
                answered += 1;
            }
            answered
        })
    };
    let clients: Vec<_> = (0..16).map(client).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    serving.signal("-TERM");
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}
