//! Connections, as far as one client may hold them.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

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
    let asked = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while asked.is_ok() && !answer.ends_with(br#"{"status":"ok"}"#) {
        match stream.read_buf(&mut answer).await {
            Ok(read) if read > 0 => {}
            _ended => return false,
        }
    }
    answer.starts_with(b"HTTP/1.1 200 ")
}

#[tokio::test]
async fn a_client_holds_so_many_connections_and_the_next_one_is_cut() {
    let few = |settings: &mut latchkey::config::Settings| settings.server.connections_per_client = 3;
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, few).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = connect("127.0.0.2", app.address).await;
        assert!(is_served(&mut stream).await);
        held.push(stream);
    }
    assert!(!is_served(&mut connect("127.0.0.2", app.address).await).await, "one too many");
    assert!(is_served(&mut connect("127.0.0.3", app.address).await).await, "another client");
    assert!(is_served(&mut held[0]).await, "those that are held live on");

    // The server learns of an end a moment later, and would answer nothing meanwhile.
    drop(held.pop());
    let mut tries = 0;
    while !is_served(&mut connect("127.0.0.2", app.address).await).await {
        tries += 1;
        assert!(tries < 1000, "a connection that has ended does not count");
    }
}

#[tokio::test]
async fn a_client_has_so_many_bytes_under_way_and_the_next_are_refused() {
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
    let write = async |from: &str| rest(&mut send(from, page.len(), &page).await).await;
    // Bodies that never come: a client has 8 MiB, which is 102 of them and too little beside them for a page.
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(send("127.0.0.2", 80 * 1024, "").await);
    }
    let refused = loop {
        assert!(held.len() < 110, "the bytes of a client are bounded");
        held.push(send("127.0.0.2", 80 * 1024, "").await);
        let answer = write("127.0.0.2").await;
        if !answer.starts_with("HTTP/1.1 201 ") {
            break answer;
        }
    };
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("too_much_in_flight"), "{refused}");
    // The server may learn of a head a moment after it was sent.
    assert!((102..=110).contains(&held.len()), "{} bodies are under way", held.len());
    let others = write("127.0.0.3").await;
    assert!(others.starts_with("HTTP/1.1 201 "), "{others}");

    // The server learns of an end a moment later.
    drop(held);
    let mut tries = 0;
    while !write("127.0.0.2").await.starts_with("HTTP/1.1 201 ") {
        tries += 1;
        assert!(tries < 1000, "what is no longer under way does not count");
    }
}

#[tokio::test]
async fn a_trusted_proxy_holds_as_many_connections_as_it_likes() {
    let few = |settings: &mut latchkey::config::Settings| {
        settings.server.connections_per_client = 1;
        settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.2"]"#).unwrap();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, few).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = connect("127.0.0.2", app.address).await;
        assert!(is_served(&mut stream).await);
        held.push(stream);
    }
    assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
}

#[tokio::test]
async fn with_few_files_there_are_few_connections_and_a_warning() {
    let home = tempfile::TempDir::new().unwrap();
    let program = latchkey(home.path(), &[]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 150; exec \"$0\""]).arg(program.get_program()).env_clear();
    command.current_dir(home.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let serving = Serving::start(&mut command);
    serving.line("the system allows 150 open files, so there are 14 connections at most");
    let address = serving.address().parse().unwrap();
    assert!(is_served(&mut connect("127.0.0.1", address).await).await);
}

/// What a connection gets that asks for nothing more, until the server ends it. A reset is an end, too.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let ends = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut said));
    let _ = ends.await.expect("the server ends it");
    String::from_utf8(said).unwrap()
}

/// The answer to this, and whether the connection serves another request after it.
async fn answer_to(stream: &mut TcpStream, said: &str, goes_on: bool) -> (String, bool) {
    stream.write_all(said.as_bytes()).await.unwrap();
    let answer = if goes_on {
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{said}");
        }
        String::from_utf8(answer).unwrap()
    } else {
        rest(stream).await
    };
    (answer.to_lowercase(), is_served(stream).await)
}

#[tokio::test]
async fn a_connection_that_is_about_to_end_says_so_and_one_that_does_not_goes_on() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let json = "Content-Type: application/json\r\n";
    for (request, goes_on) in [
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
            let (answer, went_on) = answer_to(&mut stream, &request, goes_on).await;
            let about = format!("{request:.100}: {answer}");
            assert_eq!(went_on, goes_on, "{about}");
            // A client of HTTP/1.0 expects nothing else.
            let says_close = answer.contains("\r\nconnection: close\r\n") || request.contains("HTTP/1.0");
            assert_eq!(says_close, !goes_on, "{about}");
            assert!(!answer.contains("connection: upgrade"), "{about}");
        }
    }
}

/// What stands once in each answer.
const EACH_ANSWER: &str = "\r\nx-request-id: ";

/// All that the server says on a connection of its own after these bytes, until it ends the connection.
async fn all_answers_to(address: SocketAddr, said: &str) -> String {
    let mut stream = connect("127.0.0.1", address).await;
    stream.write_all(said.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

/// A whole request that makes a user, and its body.
fn registration_of(email: &str) -> (String, String) {
    let body = registration(email).to_string();
    let head = "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    (format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()), body)
}

#[tokio::test]
async fn what_follows_a_request_with_broken_framing_is_not_run() {
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
    // Only the body is broken, so the request may have been answered before it was read.
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
    let told = attempts.iter().map(|(attempt, least)| {
        let said = format!("{attempt}{smuggled}");
        async move { (all_answers_to(address, &said).await, attempt, *least) }
    });
    for (answers, attempt, least) in futures_util::future::join_all(told).await {
        let about = format!("{attempt}: {answers}");
        let count = answers.matches(EACH_ANSWER).count();
        assert!((least..=1).contains(&count), "{about}");
        // Only what is broken in the head is the fault of the request, whatever it asks for.
        assert!(least == 0 || answers.starts_with("HTTP/1.1 400 "), "{about}");
        assert!(count == 0 || answers.starts_with("HTTP/1.1 4"), "{about}");
        assert!(count == 0 || answers.to_lowercase().contains("\r\nconnection: close\r\n"), "{about}");
    }
    assert_eq!(app.database.number("SELECT count(*) FROM users").await, 0);

    // The same bytes are a body in a body, and a request after one.
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let length = smuggled.len();
    for (framed, users) in [
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{smuggled}"), 0),
        (format!("GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{smuggled}"), 0),
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"), 0),
        (smuggled, 1),
    ] {
        let mut stream = connect("127.0.0.1", address).await;
        let (answer, went_on) = answer_to(&mut stream, &framed, true).await;
        assert_eq!((answer.matches(EACH_ANSWER).count(), went_on), (1, true), "{framed}: {answer}");
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, users, "{framed}: {answer}");
    }
}

#[tokio::test]
async fn an_idle_connection_of_a_trusted_proxy_lives_longer_than_others() {
    let settings = |settings: &mut latchkey::config::Settings| {
        settings.server.keep_alive = 1;
        settings.http.proxy_keep_alive = 60;
        settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.2"]"#).unwrap();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, settings).await.unwrap();
    let (mut proxy, mut other) = (connect("127.0.0.2", app.address).await, connect("127.0.0.3", app.address).await);
    assert!(is_served(&mut proxy).await && is_served(&mut other).await);
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0, "it is closed when it has been idle");
    assert!(is_served(&mut proxy).await);
}

#[tokio::test]
async fn a_slow_head_is_refused_and_a_trusted_proxy_may_open_connections_before_it_needs_them() {
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
    let mut proxys_head = connect(proxy, app.address).await;
    proxys_head.write_all(b"GET").await.unwrap();

    let mut unused_by_proxy = connect(proxy, app.address).await;
    // The end of a refused body is not the beginning of a request.
    let mut drained = connect(proxy, app.address).await;
    drained.write_all(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (answer, is_served_on) = answer_to(&mut drained, "hello", true).await;
    assert!(answer.starts_with("http/1.1 404 ") && is_served_on, "{answer}");

    for mut slow in [unused, first, later, proxys_head] {
        let said = rest(&mut slow).await;
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{said:?}"));
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"slow_request".into(), &408.into()), "{said}");
    }
    assert!(is_served(&mut unused_by_proxy).await && is_served(&mut drained).await, "neither waits for a head");
}
