//! Clients that are slow on purpose, or very many.

use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::Client;
use crate::held::Held;
use crate::support::program::{Serving, latchkey};
use crate::support::tls;

const CONNECTIONS: usize = 2_000;
/// Addresses that they come from, so that none has more than one client may.
const ADDRESSES: usize = 4;
/// The longest that the program waits for a head or a body, and room for a busy machine.
const CUT_AFTER: Duration = Duration::from_secs(30);
/// The longest that it waits for clients to read, and room for a busy machine.
const UNREAD_FOR: Duration = Duration::from_secs(60);
/// What nobody notices.
const UNHURT: Duration = Duration::from_millis(500);

/// What 300 slow readers may cost, in kilobytes.
const MEMORY: f64 = 100_000.0;

const HEAD: &str = "GET /health/live HTTP/1.1\r\nHost:";
const BODY: &str =
    "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{\"name\":";

async fn connect(from: &str, to: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().unwrap())?;
    socket.connect(to.parse().unwrap()).await
}

/// Whether the server ends the connection in time, whatever it says before, although a byte is said each second.
async fn is_cut(mut stream: TcpStream, trickles: bool) -> bool {
    let (mut from, mut to) = stream.split();
    let mut said = Vec::new();
    let trickle = async {
        while trickles && to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(CUT_AFTER, from.read_to_end(&mut said)) => ended.is_ok(),
        () = trickle => unreachable!("it never ends"),
    }
}

/// The slowest of so many answers of the guard.
async fn slowest_of(requests: u32, client: &Client, token: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let answer = client.ask("GET", "/protected-route", token, None).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        slowest = slowest.max(answer.took);
    }
    slowest
}

#[tokio::test]
#[ignore = "takes long"]
async fn connections_that_trickle_or_say_nothing_are_cut_and_hurt_nobody() {
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
    let cut = tokio::spawn(join_all(held.into_iter().map(|(stream, trickles)| is_cut(stream, trickles))));
    let slowest = slowest_of(1_000, &client, &token).await;
    let cut = cut.await.unwrap();
    assert!(cut.iter().all(|cut| *cut), "{} of {CONNECTIONS} are still open", cut.iter().filter(|cut| !**cut).count());
    println!("{CONNECTIONS} held connections: the slowest of 1000 answers took {slowest:?}; all were cut");
    assert!(slowest < UNHURT, "{slowest:?}");
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_flood_of_connections_hurts_nobody_else() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let address = client.address().to_owned();
    // From a thread of its own, as fast as it can: most are closed at once, and some are kept until too many are open.
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
    let (mut slowest, mut answers) = (Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(4) {
        slowest = slowest.max(slowest_of(10, &client, &token).await);
        answers += 10;
    }
    drop(over);
    let opened = flood.join().unwrap();
    println!("{opened} connections of one client: the slowest of {answers} answers to another took {slowest:?}");
    assert!(opened > 4_096 && slowest < UNHURT, "{opened} {slowest:?}");
}

/// Asks for much and reads nothing of it. The connection stands until the client drops it or the server ends it.
fn ask_and_never_read(address: &str, certificate: Option<&CertificateDer<'static>>, token: &str) -> Box<dyn Write> {
    let request = format!("GET /page/?size=100 HTTP/1.1\r\nHost: localhost\r\nToken: {token}\r\n\r\n");
    let mut stream: Box<dyn Write> = match certificate {
        Some(certificate) => Box::new(tls::connect(address, certificate)),
        None => Box::new(std::net::TcpStream::connect(address).unwrap()),
    };
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    stream
}

async fn ends_those_who_never_read(certificate: Option<CertificateDer<'static>>, home: &TempDir) {
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    // The pages are written by a process that speaks plain HTTP.
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    for number in 0..100 {
        let page = serde_json::json!({ "title": number.to_string(), "body": "x".repeat(60_000) });
        assert_eq!(client.ask("POST", "/page/", &token, Some(page)).await.unwrap().status, 201);
    }
    drop((client, serving));

    let mut command = latchkey(home.path(), &[]);
    if certificate.is_some() {
        command.env("LATCHKEY__TLS__CERTIFICATE", "server.pem").env("LATCHKEY__TLS__KEY", "server.key");
    }
    let serving = Serving::start(&mut command);
    let address = serving.address();
    let held = || Held::by(&serving).sockets;
    let before = held();
    let unread: Vec<_> = (0..20).map(|_| ask_and_never_read(&address, certificate.as_ref(), &token)).collect();
    let asked = Instant::now();
    let mut most = before;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = held();
        most = most.max(now);
        if most >= before + unread.len() && now + unread.len() <= most {
            break;
        }
        assert!(asked.elapsed() < UNREAD_FOR, "{before} sockets before, at most {most}, now {now}");
    }
    println!(
        "{} clients that never read, TLS {}: cut within {:?}",
        unread.len(),
        certificate.is_some(),
        asked.elapsed()
    );
}

#[tokio::test]
#[ignore = "takes long"]
async fn clients_that_never_read_their_answers_are_cut() {
    ends_those_who_never_read(None, &TempDir::new().unwrap()).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn clients_that_never_read_their_answers_are_cut_with_tls_too() {
    let home = TempDir::new().unwrap();
    let certificate = tls::certify(&home.path().join("server.pem"), &home.path().join("server.key"));
    ends_those_who_never_read(Some(certificate), &home).await;
}

/// Asks for as many pages as there may be in an answer, and can be sent a few kilobytes before it reads.
async fn ask_slowly(address: &str, token: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request =
        format!("GET /page/?size=100 HTTP/1.1\r\nHost: localhost\r\nToken: {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads at this rate, in bytes per second, until the end: what was read, and whether it was all.
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
        assert_eq!(client.ask("POST", "/page/", token, Some(page)).await.unwrap().status, 201);
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn three_hundred_readers_of_long_answers_at_4600_bytes_a_second_cost_little_and_are_cut() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    write_pages(&client, &token).await;
    let began = Instant::now();
    let readers: Vec<_> = (0..300)
        .map(|_| {
            let (address, token) = (client.address().to_owned(), token.clone());
            tokio::spawn(async move { read_slowly(ask_slowly(&address, &token).await, 4_600).await })
        })
        .collect();
    let mut most = 0.0_f64;
    while readers.iter().any(|reader| !reader.is_finished()) {
        most = most.max(Held::by(&serving).kilobytes);
        assert!(began.elapsed() < UNREAD_FOR, "some are still connected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut kinds = [0; 3];
    for reader in readers {
        let (read, is_whole) = reader.await.unwrap();
        let is_refusal = read.starts_with(b"HTTP/1.1 429 ") || read.starts_with(b"HTTP/1.1 503 ");
        kinds[if is_refusal {
            0
        } else if is_whole {
            1
        } else {
            2
        }] += 1;
    }
    println!("300 slow readers: {most} kB at most, over after {:?}, refused, whole, cut: {kinds:?}", began.elapsed());
    assert!(most <= MEMORY, "{most} kB");
    assert!(kinds[1] == 0 && kinds[0] > 0 && kinds[2] > 0, "{kinds:?}");
    assert_eq!(
        client.ask("GET", "/page/?size=100", &token, None).await.unwrap().status,
        200,
        "the bytes are free again"
    );
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_client_that_reads_30_kilobytes_a_second_gets_its_answer() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    write_pages(&client, &token).await;
    let asked = Instant::now();
    let (read, is_whole) = read_slowly(ask_slowly(client.address(), &token).await, 30_000).await;
    println!("{} bytes at 30 kB/s took {:?}", read.len(), asked.elapsed());
    assert!(is_whole && read.len() > 100_000, "{}", read.len());
}

#[tokio::test]
#[ignore = "takes long"]
async fn the_second_request_of_a_connection_may_trickle_no_longer_than_the_first() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let address = serving.address();
    let live = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = "POST /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n";
    for (begins, goes_on) in [(live, HEAD), (live, BODY), (chunked, "")] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(begins.as_bytes()).await.unwrap();
        assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
        stream.write_all(goes_on.as_bytes()).await.unwrap();
        assert!(is_cut(stream, true).await, "{begins:?} {goes_on:?}");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn long_paths_that_are_refused_fill_no_log() {
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
            let (mut stream, mut answers) = (TcpStream::connect(listen).await.unwrap(), 0);
            let until = Instant::now() + Duration::from_secs(10);
            while Instant::now() < until {
                stream.write_all(request.as_bytes()).await.unwrap();
                assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
                answers += 1;
            }
            answers
        })
    };
    let answers: u32 = join_all((0..16).map(flood)).await.into_iter().map(Result::unwrap).sum();
    let written = std::fs::metadata(&log).unwrap().len();
    println!("{answers} refusals of paths of 8000 bytes in 10 s left {written} bytes of log");
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert!(answers > 1_000 && written < 200_000, "{answers} {written}");
}
