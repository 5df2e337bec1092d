//! Slow clients and large numbers of clients.

use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::Client;
use crate::resources::ProcessResources;
use crate::support::program::{Serving, latchkey};
use crate::support::tls;

const CONNECTIONS: usize = 2_000;
/// Number of client addresses, so that no address exceeds the limit of connections per client.
const ADDRESSES: usize = 4;
/// Maximum time until the server closes a connection that sends its head or body slowly, with a margin for a busy
/// machine.
const MAX_UNTIL_CLOSED: Duration = Duration::from_secs(30);
/// Maximum time until the server closes a connection whose client does not read, with a margin for a busy machine.
const MAX_UNREAD: Duration = Duration::from_secs(60);
/// Maximum response time of other clients.
const MAX_RESPONSE_TIME: Duration = Duration::from_millis(500);

/// Maximum memory of the server with 300 slow readers, in kilobytes.
const MAX_MEMORY: f64 = 100_000.0;

const HEAD: &str = "GET /health/live HTTP/1.1\r\nHost:";
const BODY: &str =
    "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{\"name\":";

async fn connect(from: &str, to: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().unwrap())?;
    socket.connect(to.parse().unwrap()).await
}

/// Whether the server closes the connection in time, even if the client sends a byte each second (`trickles`).
async fn is_closed(mut stream: TcpStream, trickles: bool) -> bool {
    let (mut from, mut to) = stream.split();
    let mut received = Vec::new();
    let trickle = async {
        while trickles && to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(MAX_UNTIL_CLOSED, from.read_to_end(&mut received)) => ended.is_ok(),
        () = trickle => unreachable!("it never ends"),
    }
}

/// The slowest of a number of responses of a guarded route.
async fn slowest_of(requests: u32, client: &Client, token: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let answer = client.request("GET", "/protected-route", token, None).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        slowest = slowest.max(answer.took);
    }
    slowest
}

#[tokio::test]
#[ignore = "takes long"]
async fn slow_and_silent_connections_are_closed_and_do_not_slow_other_clients() {
    rlimit::increase_nofile_limit(8_192).unwrap();
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let from = format!("127.0.0.{}", 2 + number % ADDRESSES);
        let mut stream = connect(&from, client.address()).await.unwrap();
        let kind = number / ADDRESSES % 5;
        stream.write_all(["", HEAD, BODY, HEAD, BODY][kind].as_bytes()).await.unwrap();
        held.push((stream, kind >= 3));
    }
    let closed = tokio::spawn(join_all(held.into_iter().map(|(stream, trickles)| is_closed(stream, trickles))));
    let slowest = slowest_of(1_000, &client, &token).await;
    let closed = closed.await.unwrap();
    let open = closed.iter().filter(|closed| !**closed).count();
    assert_eq!(open, 0, "connections that are still open");
    println!("{CONNECTIONS} held connections: the slowest of 1000 responses took {slowest:?}; all were closed");
    assert!(slowest < MAX_RESPONSE_TIME, "{slowest:?}");
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_flood_of_connections_does_not_slow_other_clients() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let address = client.address().to_owned();
    // A thread opens connections as fast as it can. It closes most at once, and keeps some until too many are open.
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let flood = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut opened, mut kept) = (0u32, Vec::new());
            while is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let Ok(stream) = connect("127.0.0.2", &address).await else { continue };
                opened += 1;
                if opened % 4 == 0 && kept.len() < CONNECTIONS {
                    kept.push(stream);
                }
            }
            opened
        })
    });
    let began = Instant::now();
    let (mut slowest, mut responses) = (Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(4) {
        slowest = slowest.max(slowest_of(10, &client, &token).await);
        responses += 10;
    }
    drop(over);
    let opened = flood.join().unwrap();
    println!(
        "{opened} connections of one client: the slowest of {responses} responses to another one took {slowest:?}"
    );
    assert!(opened > 4_096 && slowest < MAX_RESPONSE_TIME, "{opened} {slowest:?}");
}

/// Requests a long response and does not read it. The connection stays open until it is dropped or the server closes
/// it.
fn request_without_reading(
    address: &str,
    certificate: Option<&CertificateDer<'static>>,
    token: &str,
) -> Box<dyn Write> {
    let request = format!("GET /page/?size=100 HTTP/1.1\r\nHost: localhost\r\nToken: {token}\r\n\r\n");
    let mut stream: Box<dyn Write> = match certificate {
        Some(certificate) => Box::new(tls::connect(address, certificate)),
        None => Box::new(std::net::TcpStream::connect(address).unwrap()),
    };
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    stream
}

async fn unread_connections_are_closed(certificate: Option<CertificateDer<'static>>, home: &TempDir) {
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    // Writes the pages with a server without TLS.
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    for number in 0..100 {
        let page = serde_json::json!({ "title": number.to_string(), "body": "x".repeat(60_000) });
        assert_eq!(client.request("POST", "/page/", &token, Some(page)).await.unwrap().status, 201);
    }
    drop((client, serving));

    let mut command = latchkey(home.path(), &[]);
    if certificate.is_some() {
        command.env("LATCHKEY__TLS__CERTIFICATE", "server.pem").env("LATCHKEY__TLS__KEY", "server.key");
    }
    let serving = Serving::start(&mut command);
    let address = serving.address();
    let sockets = || ProcessResources::of(&serving).sockets;
    let before = sockets();
    let unread: Vec<_> = (0..20).map(|_| request_without_reading(&address, certificate.as_ref(), &token)).collect();
    let sent = Instant::now();
    let mut most = before;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sockets();
        most = most.max(now);
        if most >= before + unread.len() && now + unread.len() <= most {
            break;
        }
        assert!(sent.elapsed() < MAX_UNREAD, "{before} sockets before, at most {most}, now {now}");
    }
    println!(
        "{} clients that never read, TLS {}: disconnected within {:?}",
        unread.len(),
        certificate.is_some(),
        sent.elapsed()
    );
}

#[tokio::test]
#[ignore = "takes long"]
async fn clients_that_never_read_their_responses_are_disconnected() {
    unread_connections_are_closed(None, &TempDir::new().unwrap()).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn clients_that_never_read_their_responses_are_disconnected_with_tls() {
    let home = TempDir::new().unwrap();
    let certificate = tls::write_certificate(&home.path().join("server.pem"), &home.path().join("server.key"));
    unread_connections_are_closed(Some(certificate), &home).await;
}

/// Requests the longest possible list, on a connection whose receive buffer holds a few kilobytes.
async fn request_list(address: &str, token: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request =
        format!("GET /page/?size=100 HTTP/1.1\r\nHost: localhost\r\nToken: {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads at this rate, in bytes per second, until the end. Returns the bytes, and whether they are the whole response.
async fn read_slowly(mut stream: TcpStream, rate: usize) -> (Vec<u8>, bool) {
    let (mut read, mut buffer) = (Vec::new(), vec![0; rate / 10]);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(bytes) => read.extend_from_slice(&buffer[..bytes]),
            Err(_reset) => return (read, false),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let text = String::from_utf8_lossy(&read);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let is_whole = length == Some(body.len());
    (read, is_whole)
}

/// A hundred pages of line breaks, each of which is two bytes in JSON.
async fn write_pages(client: &Client, token: &str) {
    for number in 0..100 {
        let page = serde_json::json!({ "title": number.to_string(), "body": "\n".repeat(39_000) });
        assert_eq!(client.request("POST", "/page/", token, Some(page)).await.unwrap().status, 201);
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn three_hundred_readers_at_4600_bytes_a_second_use_little_memory_and_are_disconnected() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    write_pages(&client, &token).await;
    let began = Instant::now();
    let readers: Vec<_> = (0..300)
        .map(|_| {
            let (address, token) = (client.address().to_owned(), token.clone());
            tokio::spawn(async move { read_slowly(request_list(&address, &token).await, 4_600).await })
        })
        .collect();
    let mut most = 0.0_f64;
    while readers.iter().any(|reader| !reader.is_finished()) {
        most = most.max(ProcessResources::of(&serving).kilobytes);
        assert!(began.elapsed() < MAX_UNREAD, "some are still connected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut kinds = [0; 3];
    for reader in readers {
        let (read, is_whole) = reader.await.unwrap();
        let is_rejected = read.starts_with(b"HTTP/1.1 429 ") || read.starts_with(b"HTTP/1.1 503 ");
        kinds[if is_rejected {
            0
        } else if is_whole {
            1
        } else {
            2
        }] += 1;
    }
    println!(
        "300 slow readers: at most {most} kB, finished after {:?}; rejected, complete, disconnected: {kinds:?}",
        began.elapsed()
    );
    assert!(most <= MAX_MEMORY, "{most} kB");
    assert!(kinds[1] == 0 && kinds[0] > 0 && kinds[2] > 0, "{kinds:?}");
    assert_eq!(
        client.request("GET", "/page/?size=100", &token, None).await.unwrap().status,
        200,
        "the memory is free again"
    );
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_client_that_reads_30_kilobytes_a_second_gets_its_response() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    write_pages(&client, &token).await;
    let sent = Instant::now();
    let (read, is_whole) = read_slowly(request_list(client.address(), &token).await, 30_000).await;
    println!("{} bytes at 30 kB/s took {:?}", read.len(), sent.elapsed());
    assert!(is_whole && read.len() > 100_000, "{}", read.len());
}

#[tokio::test]
#[ignore = "takes long"]
async fn the_second_request_of_a_connection_has_the_same_time_limits_as_the_first() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let address = serving.address();
    let live = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = "POST /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n";
    for (first, second) in [(live, HEAD), (live, BODY), (chunked, "")] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
        stream.write_all(second.as_bytes()).await.unwrap();
        assert!(is_closed(stream, true).await, "{first:?} {second:?}");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn rejected_requests_with_long_paths_do_not_fill_the_log() {
    let home = TempDir::new().unwrap();
    let log = home.path().join("log");
    let mut command = latchkey(home.path(), &[]);
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    command.env("LATCHKEY__SERVER__LISTEN", &listen).stderr(std::fs::File::create(&log).unwrap());
    let mut serving = command.spawn().unwrap();
    while std::net::TcpStream::connect(&listen).is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let request = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(8_000));
    let flood = |_| {
        let (listen, request) = (listen.clone(), request.clone());
        tokio::spawn(async move {
            let (mut stream, mut responses) = (TcpStream::connect(listen).await.unwrap(), 0);
            let until = Instant::now() + Duration::from_secs(10);
            while Instant::now() < until {
                stream.write_all(request.as_bytes()).await.unwrap();
                assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
                responses += 1;
            }
            responses
        })
    };
    let responses: u32 = join_all((0..16).map(flood)).await.into_iter().map(Result::unwrap).sum();
    let written = std::fs::metadata(&log).unwrap().len();
    println!("{responses} rejected requests with paths of 8000 bytes in 10 s wrote {written} bytes of log");
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert!(responses > 1_000 && written < 200_000, "{responses} {written}");
}
