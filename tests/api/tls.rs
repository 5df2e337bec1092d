//! TLS on the program's own listener.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::support::program::{Serving, failure, latchkey, out, run};
use crate::support::tls::{certify, connect};

/// How long an answer to bytes may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn with_tls(home: &Path, arguments: &[&str]) -> Command {
    let mut command = latchkey(home, arguments);
    command.env("LATCHKEY__TLS__CERTIFICATE", "server.pem").env("LATCHKEY__TLS__KEY", "server.key");
    command
}

/// The whole answer of a server that shows `trusted`, or why there is none.
fn get(address: &str, path: &str, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut stream = connect(address, trusted);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Sends `bytes` without TLS. Reading the answer has a time-out.
fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// What the server answers to bytes that are no TLS.
fn answer_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = send(address, bytes).read_to_end(&mut answer) {
        // A reset is an end, too.
        let is_silent = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
        assert!(!is_silent, "the server does not end it: {error}");
    }
    answer
}

/// The bytes, after how many they are.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let count = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&count[..], bytes].concat()
}

/// A ClientHello of version 3.`minor`, with these extensions beside those that TLS 1.2 needs: but for the version it is one
/// that is accepted.
fn hello(minor: u8, extensions: &[u8]) -> Vec<u8> {
    // The group X25519, and signatures by ECDSA with SHA-256.
    let needed: [u8; 16] = [0, 10, 0, 4, 0, 2, 0, 0x1d, 0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = counted(&[&needed[..], extensions].concat());
    // ECDHE-ECDSA with AES-128-GCM, and with AES-128-CBC and SHA-1 as before TLS 1.2.
    let suites = counted(&[0xc0, 0x2b, 0xc0, 0x09]);
    let (session, no_compression): ([u8; 1], [u8; 2]) = ([0], [1, 0]);
    let body = [&[3, minor][..], &[7; 32], &session, &suites, &no_compression, &extensions].concat();
    let message = [&[1_u8, 0][..], &counted(&body)].concat();
    [&[0x16_u8, 3, 1][..], &counted(&message)].concat()
}

/// The beginning of the answer to a ClientHello: as long as an alert is.
fn first_of_answer(address: &str, hello: &[u8]) -> [u8; 7] {
    let mut answer = [0; 7];
    send(address, hello).read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn it_speaks_tls_and_nothing_else() {
    let home = TempDir::new().unwrap();
    let certificate = certify(&home.path().join("server.pem"), &home.path().join("server.key"));
    let serving = Serving::start(&mut with_tls(home.path(), &[]));
    let address = serving.address();

    let answer = get(&address, "/health/live", &certificate).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");

    let mut stream = connect(&address, &certificate);
    stream.write_all(b"GET /no where HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut refused = Vec::new();
    // The connection is cut after it.
    let _ = stream.read_to_end(&mut refused);
    let refused = String::from_utf8(refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("strict-transport-security: max-age=31536000"), "{refused}");

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    get(&address, "/health/live", other.cert.der()).unwrap_err();

    let plain = answer_to(&address, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&plain));

    // A fatal alert: protocol_version.
    for (version, old) in [
        ("SSL 3.0", hello(0, &[])),
        ("TLS 1.0", hello(1, &[])),
        ("TLS 1.1", hello(2, &[])),
        ("TLS 1.1 by the extension supported_versions", hello(3, &[0, 43, 0, 3, 2, 3, 2])),
    ] {
        let [kind, .., level, description] = first_of_answer(&address, &old);
        assert_eq!((kind, level, description), (0x15, 2, 70), "{version}");
    }
    let [kind, .., message, _] = first_of_answer(&address, &hello(3, &[]));
    assert_eq!((kind, message), (0x16, 2), "a ServerHello for TLS 1.2");
    let mut newest = connect(&address, &certificate);
    newest.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(newest.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3), "the newest is preferred");
}

#[test]
fn the_health_command_trusts_the_server_that_shows_this_certificate_and_no_other() {
    let home = TempDir::new().unwrap();
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    certify(&certificate, &key);
    let serving = Serving::start(&mut with_tls(home.path(), &[]));
    let address = serving.address();
    let ask = || run(with_tls(home.path(), &["health"]).env("LATCHKEY__SERVER__LISTEN", &address));
    assert_eq!(out(&ask()), "ready\n");

    let elsewhere = TempDir::new().unwrap();
    certify(&elsewhere.path().join("server.pem"), &elsewhere.path().join("server.key"));
    let mut stranger = with_tls(elsewhere.path(), &["health"]);
    let said = failure(&run(stranger.env("LATCHKEY__SERVER__LISTEN", &address)));
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let home = TempDir::new().unwrap();
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    let first = certify(&certificate, &key);
    let serving = Serving::start(&mut with_tls(home.path(), &[]));
    let address = serving.address();
    get(&address, "/health/live", &first).unwrap();

    std::fs::write(&certificate, "not a certificate").unwrap();
    let warning = serving.line("the TLS certificate stays as it is");
    assert!(warning.contains("tls.certificate: server.pem holds no certificate in PEM"), "{warning}");
    get(&address, "/health/live", &first).unwrap();

    let second = certify(&certificate, &key);
    serving.line("the TLS certificate has been renewed");
    get(&address, "/health/live", &second).unwrap();
    get(&address, "/health/live", &first).unwrap_err();
}

#[test]
fn files_that_are_no_certificate_with_its_key_refuse_to_start() {
    let home = TempDir::new().unwrap();
    let file = |name: &str| home.path().join(name);
    certify(&file("server.pem"), &file("server.key"));
    certify(&file("other.pem"), &file("other.key"));
    std::fs::write(file("empty.pem"), "").unwrap();
    for (certificate, key, complaint) in [
        ("server.pem", "", "Name tls.key, too, or remove tls.certificate"),
        ("", "server.key", "Name tls.certificate, too, or remove tls.key"),
        ("nowhere.pem", "server.key", "tls.certificate (LATCHKEY__TLS__CERTIFICATE): cannot read nowhere.pem"),
        ("server.pem", "nowhere.key", "tls.key (LATCHKEY__TLS__KEY): cannot read nowhere.key"),
        ("empty.pem", "server.key", "empty.pem holds no certificate in PEM"),
        ("server.pem", "server.pem", "server.pem holds no private key in PEM"),
        ("server.pem", "other.key", "tls.certificate and tls.key cannot be used"),
    ] {
        let mut command = latchkey(home.path(), &[]);
        command.env("LATCHKEY__TLS__CERTIFICATE", certificate).env("LATCHKEY__TLS__KEY", key);
        let said = failure(&run(&mut command));
        assert!(said.contains(complaint), "{certificate} {key}: {said}");
    }
    assert!(!file("latchkey.db").exists(), "nothing was begun");
}
