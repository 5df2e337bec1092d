//! How the program ends.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Credential;
use crate::support::app::registration;
use crate::support::program::{Serving, latchkey, out, run};

/// A request whose body is still to come.
async fn begin_registration(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{}", &body[..10]).as_bytes()).await.unwrap();
    // An answer to a later request: the earlier one has been taken up by then.
    assert!(get(address, "/health/live").await.starts_with("HTTP/1.1 200 "));
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // Whatever becomes of the connection after the answer.
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
async fn told_to_stop_it_is_not_ready_finishes_what_arrives_cuts_what_does_not_and_ends_in_time() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "4");
    let address = serving.address();
    let body = registration("ada@example.org").to_string();
    let mut arrives = begin_registration(&address, &body).await;
    let held = begin_registration(&address, &body).await;
    let idle = TcpStream::connect(&address).await.unwrap();

    let told = Instant::now();
    serving.signal("-TERM");
    serving.line("stopping, for at most 4 s");
    let ready = get(&address, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("retry-after: 1"), "{ready}");
    assert!(get(&address, "/health/live").await.starts_with("HTTP/1.1 200 "), "who comes all the same is served");
    let mut kept = TcpStream::connect(&address).await.unwrap();
    kept.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_all(kept).await.contains("\r\nconnection: close\r\n"), "and told to come no more");

    arrives.write_all(&body.as_bytes()[10..]).await.unwrap();
    let answer = read_all(arrives).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let answer = read_all(held).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"busy\""), "{answer}");
    assert_eq!(read_all(idle).await, "");

    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    assert!(serving.rest().iter().any(|line| line.ends_with("stopped")));
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn told_twice_or_to_be_quick_it_ends_at_once() {
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
        let held = begin_registration(&address, &registration("ada@example.org").to_string()).await;
        serving.signal(first);
        if let Some(second) = second {
            serving.line("stopping, for at most 300 s");
            serving.signal(second);
        }
        serving.line("stopping at once");
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{first} {second:?}");
        assert_eq!(read_all(held).await, "");
        assert!(serving.rest().iter().any(|line| line.ends_with("stopped")), "{first} {second:?}");
    }
}

#[tokio::test]
async fn interrupted_it_stops_in_steps() {
    let home = TempDir::new().unwrap();
    let mut serving = serving(&home, "4");
    let address = serving.address();
    let body = registration("ada@example.org").to_string();
    let mut arrives = begin_registration(&address, &body).await;
    serving.signal("-INT");
    serving.line("stopping, for at most 4 s");
    assert!(get(&address, "/health/ready").await.starts_with("HTTP/1.1 503 "));
    arrives.write_all(&body.as_bytes()[10..]).await.unwrap();
    let answer = read_all(arrives).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn signals_without_a_meaning_are_logged_and_change_nothing() {
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

/// The last use of a key is written beside requests, and at the end.
#[tokio::test]
async fn however_it_is_told_to_stop_the_last_writes_are_made() {
    for signals in [["-TERM"].as_slice(), &["-INT"], &["-QUIT"], &["-TERM", "-TERM"]] {
        let home = TempDir::new().unwrap();
        let mut serving = serving(&home, "4");
        let client = serving.client();
        client.register("ada@example.org").await;
        let ada = Credential::Token(client.new_token_of("ada@example.org").await);
        let (key, _) = client.key_of(&ada, &["pages:read"]).await;
        assert_eq!(client.get("/page/", &key).await.status, 200);
        serving.signal(signals[0]);
        if let Some(second) = signals.get(1) {
            serving.line("stopping, for at most");
            serving.signal(second);
        }
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{signals:?}");
        let keys = run(&mut latchkey(home.path(), &["key", "list", "--json"]));
        assert!(!out(&keys).contains("\"last_used_at\":null"), "{signals:?}: {keys:?}");
    }
}

#[tokio::test]
async fn told_to_stop_it_writes_how_many_requests_were_refused() {
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
