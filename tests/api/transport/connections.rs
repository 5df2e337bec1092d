//! Limits on the connections and request bodies of one client, time-outs of connections, and the framing of requests.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::app::registration;
use crate::support::program::{Serving, latchkey};
use crate::support::{App, Backend, Credential, Profile};

async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether the server still serves this connection.
async fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let sent = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while sent.is_ok() && !answer.ends_with(br#"{"status":"ok"}"#) {
        match stream.read_buf(&mut answer).await {
            Ok(read) if read > 0 => {}
            _ended => return false,
        }
    }
    answer.starts_with(b"HTTP/1.1 200 ")
}

#[tokio::test]
async fn connections_of_a_client_are_limited_and_the_next_one_is_closed() {
    let configure = |settings: &mut latchkey::config::Settings| settings.server.connections_per_client = 3;
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, configure).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = connect("127.0.0.2", app.address).await;
        assert!(is_served(&mut stream).await);
        held.push(stream);
    }
    assert!(!is_served(&mut connect("127.0.0.2", app.address).await).await, "one too many");
    assert!(is_served(&mut connect("127.0.0.3", app.address).await).await, "another client");
    assert!(is_served(&mut held[0]).await, "existing connections stay open");

    // The server notices the end of a connection a moment later. Until then it closes new connections.
    drop(held.pop());
    let mut tries = 0;
    while !is_served(&mut connect("127.0.0.2", app.address).await).await {
        tries += 1;
        assert!(tries < 1000, "a closed connection does not count");
    }
}

#[tokio::test]
async fn body_bytes_in_flight_of_a_client_are_limited_and_the_next_are_refused() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let ada = app.user("ada@example.org").await;
    let send = async |from: &str, length: usize, body: &str| {
        let mut stream = connect(from, app.address).await;
        let head = format!(
            "POST /page/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nToken: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n",
            ada.secret()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        stream
    };
    let page = json!({ "title": "t", "body": "b".repeat(40_000) }).to_string();
    let write = async |from: &str| read_until_closed(&mut send(from, page.len(), &page).await).await;
    // Announce bodies that are never sent. The 8 MiB of a client hold 102 of them and leave too little for a page.
    let fill = async || {
        let (mut held, mut answer) = (Vec::new(), "HTTP/1.1 201 ".to_owned());
        while held.len() < 110 && answer.starts_with("HTTP/1.1 201 ") {
            held.push(send("127.0.0.2", 80 * 1024, "").await);
            if held.len() > 100 {
                answer = write("127.0.0.2").await;
            }
        }
        (held, answer)
    };
    // The server drops a body after 10 s, so an attempt that took too long on a busy machine is repeated.
    let (held, refused) = loop {
        let began = Instant::now();
        let filled = fill().await;
        if began.elapsed() < Duration::from_secs(8) {
            break filled;
        }
    };
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("too_much_in_flight"), "{refused}");
    // The server may read a head a moment after it was sent.
    assert!((102..=110).contains(&held.len()), "{} bodies are in flight", held.len());
    let others = write("127.0.0.3").await;
    assert!(others.starts_with("HTTP/1.1 201 "), "{others}");

    // The server notices the end of a connection a moment later.
    drop(held);
    let mut tries = 0;
    while !write("127.0.0.2").await.starts_with("HTTP/1.1 201 ") {
        tries += 1;
        assert!(tries < 1000, "bodies of closed connections do not count");
    }
}

#[tokio::test]
async fn connections_of_a_trusted_proxy_are_not_limited() {
    let configure = |settings: &mut latchkey::config::Settings| {
        settings.server.connections_per_client = 1;
        settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.2"]"#).unwrap();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, configure).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = connect("127.0.0.2", app.address).await;
        assert!(is_served(&mut stream).await);
        held.push(stream);
    }
    assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
}

#[tokio::test]
async fn a_low_open_file_limit_lowers_the_connection_limit_and_logs_a_warning() {
    let home = tempfile::TempDir::new().unwrap();
    let program = latchkey(home.path(), &[]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 150; exec \"$0\""]).arg(program.get_program()).env_clear();
    command.current_dir(home.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let serving = Serving::start(&mut command);
    serving.line("the system allows 150 open files, so at most 14 connections are possible");
    let address = serving.address().parse().unwrap();
    assert!(is_served(&mut connect("127.0.0.1", address).await).await);
}

/// Reads until the server closes the connection. A reset counts as closed.
async fn read_until_closed(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut received));
    let _ = closed.await.expect("the server closes the connection");
    String::from_utf8(received).unwrap()
}

/// Sends a request and returns the response in lower case, and whether the connection serves another request after it.
async fn exchange(stream: &mut TcpStream, request: &str, stays_open: bool) -> (String, bool) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = if stays_open {
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{request}");
        }
        String::from_utf8(answer).unwrap()
    } else {
        read_until_closed(stream).await
    };
    (answer.to_lowercase(), is_served(stream).await)
}

#[tokio::test]
async fn connection_close_is_sent_exactly_when_the_connection_ends() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let json = "Content-Type: application/json\r\n";
    for (request, stays_open) in [
        ("GET /authz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), true),
        ("POST /authz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_owned(), true),
        ("POST /authz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(), true),
        (format!("POST /me/keys HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 2\r\n\r\n{{}}"), true),
        (format!("POST /register HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 2\r\n\r\n{{}}"), true),
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 9000\r\n\r\n{}", "x".repeat(9_000)), true),
        (format!("POST /register HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 9999999\r\n\r\n{{}}"), false),
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 20\r\n\r\n{{}}"), false),
        ("GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n".to_owned(), false),
        ("GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(), false),
        ("GET /health/live HTTP/1.0\r\n\r\n".to_owned(), false),
        ("GET /no where HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), false),
    ] {
        for is_new in [true, false] {
            let mut stream = connect("127.0.0.1", app.address).await;
            assert!(is_new || is_served(&mut stream).await);
            let (answer, stayed_open) = exchange(&mut stream, &request, stays_open).await;
            let context = format!("{request:.100}: {answer}");
            assert_eq!(stayed_open, stays_open, "{context}");
            // A client with HTTP/1.0 expects the connection to close.
            let has_close_header = answer.contains("\r\nconnection: close\r\n") || request.contains("HTTP/1.0");
            assert_eq!(has_close_header, !stays_open, "{context}");
            assert!(!answer.contains("connection: upgrade"), "{context}");
        }
    }
}

/// A text that occurs once in each response.
const RESPONSE_MARKER: &str = "\r\nx-request-id: ";

/// Sends these bytes on a new connection, and returns all responses until the server closes the connection.
async fn all_responses_to(address: SocketAddr, bytes: &str) -> String {
    let mut stream = connect("127.0.0.1", address).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    read_until_closed(&mut stream).await
}

/// A complete request that registers a user, and its body.
fn registration_of(email: &str) -> (String, String) {
    let body = registration(email).to_string();
    let head = "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    (format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()), body)
}

#[tokio::test]
async fn bytes_after_a_request_with_broken_framing_are_not_run() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let address = app.address;
    let (smuggled, body) = registration_of("smuggled@example.org");
    let mut attempts = Vec::new();
    for (version, head) in [
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("1.1", "Content-Length: 0\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("1.1", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: identity, chunked"),
        ("1.1", "Transfer-Encoding: chunked, identity"),
        ("1.1", "Transfer-Encoding: identity"),
        ("1.1", "Transfer-Encoding: xchunked"),
        ("1.1", "Transfer-Encoding:"),
        ("1.1", "Transfer-Encoding : chunked"),
        ("1.1", "Transfer-Encoding: \u{b}chunked"),
        ("1.1", "X: x\r\n Transfer-Encoding: chunked"),
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.1", "Content-Length: 0\r\nContent-Length: 500"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 5"),
        ("1.1", "Content-Length : 5"),
        ("1.1", "Content-Length: +5"),
        ("1.1", "Content-Length: 0x5"),
        ("1.1", "Content-Length: 18446744073709551616"),
    ] {
        attempts.push((format!("POST /nowhere HTTP/{version}\r\nHost: x\r\n{head}\r\n\r\n"), 1));
    }
    // Only the body is malformed. The server may respond before it reads the body, or close without a response.
    let length = body.len();
    for chunks in [
        format!("{length:x}g\r\n{body}\r\n0\r\n\r\n"),
        format!("0x{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("-{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!(" {length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{length:x} {length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
        format!("\r\n{body}\r\n0\r\n\r\n"),
        format!("{length:x}\n{body}\r\n0\r\n\r\n"),
        format!("{length:x}\r{body}\r\n0\r\n\r\n"),
        format!("{length:x};a\n{body}\r\n0\r\n\r\n"),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", length - 1),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", length + 1),
        format!("{length:x}\r\n{body}0\r\n\r\n"),
    ] {
        for path in ["/register", "/nowhere"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
            attempts.push((format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"), 0));
        }
    }
    let exchanges = attempts.iter().map(|(attempt, least)| {
        let bytes = format!("{attempt}{smuggled}");
        async move { (all_responses_to(address, &bytes).await, attempt, *least) }
    });
    for (answers, attempt, least) in futures_util::future::join_all(exchanges).await {
        let context = format!("{attempt}: {answers}");
        let count = answers.matches(RESPONSE_MARKER).count();
        assert!((least..=1).contains(&count), "{context}");
        // A malformed head gives 400 on every route.
        assert!(least == 0 || answers.starts_with("HTTP/1.1 400 "), "{context}");
        assert!(count == 0 || answers.starts_with("HTTP/1.1 4"), "{context}");
        assert!(count == 0 || answers.to_lowercase().contains("\r\nconnection: close\r\n"), "{context}");
    }
    assert_eq!(app.database.number("SELECT count(*) FROM users").await, 0);

    // With valid framing, the same bytes inside a body are not run, and as a separate request they are.
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let length = smuggled.len();
    for (framed, users) in [
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{smuggled}"), 0),
        (format!("GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{smuggled}"), 0),
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"), 0),
        (smuggled, 1),
    ] {
        let mut stream = connect("127.0.0.1", address).await;
        let (answer, stayed_open) = exchange(&mut stream, &framed, true).await;
        assert_eq!((answer.matches(RESPONSE_MARKER).count(), stayed_open), (1, true), "{framed}: {answer}");
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, users, "{framed}: {answer}");
    }
}

#[tokio::test]
async fn an_idle_connection_of_a_trusted_proxy_stays_open_longer_than_others() {
    let settings = |settings: &mut latchkey::config::Settings| {
        settings.server.keep_alive = 1;
        settings.http.proxy_keep_alive = 60;
        settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.2"]"#).unwrap();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, settings).await.unwrap();
    let (mut proxy, mut other) = (connect("127.0.0.2", app.address).await, connect("127.0.0.3", app.address).await);
    assert!(is_served(&mut proxy).await && is_served(&mut other).await);
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0, "the idle connection is closed");
    assert!(is_served(&mut proxy).await);
}

#[tokio::test]
async fn a_slow_head_is_refused_and_a_trusted_proxy_can_keep_unused_connections_open() {
    let settings = |settings: &mut latchkey::config::Settings| {
        settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.2"]"#).unwrap();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, settings).await.unwrap();
    let (client, proxy) = ("127.0.0.3", "127.0.0.2");
    let unused = connect(client, app.address).await;
    let mut first = connect(client, app.address).await;
    first.write_all(b"GET /health/live HTTP/1.1\r\nHo").await.unwrap();
    let mut later = connect(client, app.address).await;
    assert!(is_served(&mut later).await);
    later.write_all(b"GET /health/live HTTP/1.1\r\nHo").await.unwrap();
    let mut proxy_head = connect(proxy, app.address).await;
    proxy_head.write_all(b"GET").await.unwrap();

    let mut unused_by_proxy = connect(proxy, app.address).await;
    // The rest of a refused body does not count as the beginning of a request head.
    let mut drained = connect(proxy, app.address).await;
    drained.write_all(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (answer, stayed_open) = exchange(&mut drained, "hello", true).await;
    assert!(answer.starts_with("http/1.1 404 ") && stayed_open, "{answer}");

    for mut slow in [unused, first, later, proxy_head] {
        let response = read_until_closed(&mut slow).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"slow_request".into(), &408.into()), "{response}");
    }
    assert!(
        is_served(&mut unused_by_proxy).await && is_served(&mut drained).await,
        "neither connection has begun a head"
    );
}
