//! TLS on the API listener.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::support::program::{Serving, failure, latchkey, out, run};
use crate::support::tls::{connect, write_certificate};

/// The longest time until the server responds to raw bytes.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The program with a certificate and key in `home`.
fn with_tls(home: &Path, arguments: &[&str]) -> Command {
    let mut command = latchkey(home, arguments);
    command.env("LATCHKEY__TLS__CERTIFICATE", "server.pem").env("LATCHKEY__TLS__KEY", "server.key");
    command
}

/// The response of a server with the certificate `trusted`, or the error.
fn get(address: &str, path: &str, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut stream = connect(address, trusted);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Sends `bytes` without TLS. Reading the response has a time-out.
fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// The response of the server to bytes that are not TLS.
fn response_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = send(address, bytes).read_to_end(&mut answer) {
        // A connection reset is an end too.
        let is_timeout = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
        assert!(!is_timeout, "the server does not close the connection: {error}");
    }
    answer
}

/// The bytes with their length before them, in two bytes.
fn length_prefixed(bytes: &[u8]) -> Vec<u8> {
    let count = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&count[..], bytes].concat()
}

/// A ClientHello of version 3.`minor`, with `extensions` in addition to those that TLS 1.2 requires. The server accepts
/// everything in it except unsupported versions.
fn hello(minor: u8, extensions: &[u8]) -> Vec<u8> {
    // The group X25519, and signatures by ECDSA with SHA-256.
    let required: [u8; 16] = [0, 10, 0, 4, 0, 2, 0, 0x1d, 0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = length_prefixed(&[&required[..], extensions].concat());
    // ECDHE-ECDSA with AES-128-GCM, and with AES-128-CBC and SHA-1 as before TLS 1.2.
    let suites = length_prefixed(&[0xc0, 0x2b, 0xc0, 0x09]);
    let (session, no_compression): ([u8; 1], [u8; 2]) = ([0], [1, 0]);
    let body = [&[3, minor][..], &[7; 32], &session, &suites, &no_compression, &extensions].concat();
    let message = [&[1_u8, 0][..], &length_prefixed(&body)].concat();
    [&[0x16_u8, 3, 1][..], &length_prefixed(&message)].concat()
}

/// The first 7 bytes of the response to a ClientHello, which is the length of an alert.
fn response_start(address: &str, hello: &[u8]) -> [u8; 7] {
    let mut answer = [0; 7];
    send(address, hello).read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn the_listener_accepts_only_tls_1_2_and_1_3() {
    let home = TempDir::new().unwrap();
    let certificate = write_certificate(&home.path().join("server.pem"), &home.path().join("server.key"));
    let serving = Serving::start(&mut with_tls(home.path(), &[]));
    let address = serving.address();

    let answer = get(&address, "/health/live", &certificate).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");

    let mut stream = connect(&address, &certificate);
    stream.write_all(b"GET /no where HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut rejection = Vec::new();
    // The server closes the connection after the response.
    let _ = stream.read_to_end(&mut rejection);
    let rejection = String::from_utf8(rejection).unwrap();
    assert!(rejection.starts_with("HTTP/1.1 400 "), "{rejection}");
    assert!(rejection.contains("strict-transport-security: max-age=31536000"), "{rejection}");

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    get(&address, "/health/live", other.cert.der()).unwrap_err();

    let plain = response_to(&address, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&plain));

    // A fatal protocol_version alert.
    for (version, old) in [
        ("SSL 3.0", hello(0, &[])),
        ("TLS 1.0", hello(1, &[])),
        ("TLS 1.1", hello(2, &[])),
        ("TLS 1.1 by the extension supported_versions", hello(3, &[0, 43, 0, 3, 2, 3, 2])),
    ] {
        let [kind, .., level, description] = response_start(&address, &old);
        assert_eq!((kind, level, description), (0x15, 2, 70), "{version}");
    }
    let [kind, .., message, _] = response_start(&address, &hello(3, &[]));
    assert_eq!((kind, message), (0x16, 2), "a ServerHello for TLS 1.2");
    let mut newest = connect(&address, &certificate);
    newest.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(newest.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3), "the server prefers the newest version");
}

#[test]
fn the_health_command_trusts_only_the_configured_certificate() {
    let home = TempDir::new().unwrap();
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    write_certificate(&certificate, &key);
    let serving = Serving::start(&mut with_tls(home.path(), &[]));
    let address = serving.address();
    let check = || run(with_tls(home.path(), &["health"]).env("LATCHKEY__SERVER__LISTEN", &address));
    assert_eq!(out(&check()), "ready\n");

    let elsewhere = TempDir::new().unwrap();
    write_certificate(&elsewhere.path().join("server.pem"), &elsewhere.path().join("server.key"));
    let mut other = with_tls(elsewhere.path(), &["health"]);
    let message = failure(&run(other.env("LATCHKEY__SERVER__LISTEN", &address)));
    assert!(message.contains("certificate"), "{message}");
}

#[test]
fn a_new_certificate_is_loaded_without_a_restart_and_an_invalid_one_is_ignored() {
    let home = TempDir::new().unwrap();
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    let first = write_certificate(&certificate, &key);
    let serving = Serving::start(&mut with_tls(home.path(), &[]));
    let address = serving.address();
    get(&address, "/health/live", &first).unwrap();

    std::fs::write(&certificate, "not a certificate").unwrap();
    let warning = serving.line("the TLS certificate was not renewed");
    assert!(warning.contains("tls.certificate: server.pem contains no certificate in PEM"), "{warning}");
    get(&address, "/health/live", &first).unwrap();

    let second = write_certificate(&certificate, &key);
    serving.line("the TLS certificate has been renewed");
    get(&address, "/health/live", &second).unwrap();
    get(&address, "/health/live", &first).unwrap_err();
}

#[test]
fn the_server_does_not_start_without_a_matching_certificate_and_key() {
    let home = TempDir::new().unwrap();
    let file = |name: &str| home.path().join(name);
    write_certificate(&file("server.pem"), &file("server.key"));
    write_certificate(&file("other.pem"), &file("other.key"));
    std::fs::write(file("empty.pem"), "").unwrap();
    for (certificate, key, expected) in [
        ("server.pem", "", "Set tls.key too, or remove tls.certificate"),
        ("", "server.key", "Set tls.certificate too, or remove tls.key"),
        ("nowhere.pem", "server.key", "tls.certificate (LATCHKEY__TLS__CERTIFICATE): cannot read nowhere.pem"),
        ("server.pem", "nowhere.key", "tls.key (LATCHKEY__TLS__KEY): cannot read nowhere.key"),
        ("empty.pem", "server.key", "empty.pem contains no certificate in PEM"),
        ("server.pem", "server.pem", "server.pem contains no private key in PEM"),
        ("server.pem", "other.key", "tls.certificate and tls.key cannot be used"),
    ] {
        let mut command = latchkey(home.path(), &[]);
        command.env("LATCHKEY__TLS__CERTIFICATE", certificate).env("LATCHKEY__TLS__KEY", key);
        let message = failure(&run(&mut command));
        assert!(message.contains(expected), "{certificate} {key}: {message}");
    }
    assert!(!file("latchkey.db").exists(), "no database was created");
}
