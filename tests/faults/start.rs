//! The database is unavailable or slow when the server starts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::Server;
use crate::support::postgres::Cluster;
use crate::support::program::{Serving, failure, latchkey, out, run};

/// A free port that no other test gets, below the range from which the system assigns ports to clients.
pub fn free_port() -> u16 {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (first + NUMBER.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn command(place: &Path, arguments: &[&str], url: &str) -> Command {
    let mut command = latchkey(place, arguments);
    command.env("DATABASE_URL", url);
    command
}

#[test]
#[ignore = "takes long"]
fn the_server_waits_for_a_database_that_is_not_up_yet() {
    let (home, place) = (TempDir::with_prefix("latchkey-postgres-").unwrap(), TempDir::new().unwrap());
    let Some(mut cluster) = Cluster::create(home.path()).unwrap() else { return };
    let port = free_port();
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let serving = Serving::start(&mut command(place.path(), &[], &url));
    let line = serving.line("waiting up to 30 s for the database");
    assert!(line.contains("Connection refused"), "{line}");
    cluster.start_on(port, &["-F"]).unwrap();
    serving.line("the database is available after");
    serving.line("listening on http");

    let began = Instant::now();
    let unknown = format!("postgres://postgres@127.0.0.1:{port}/nowhere");
    let message = failure(&run(&mut command(place.path(), &[], &unknown)));
    assert!(message.contains("does not exist"), "{message}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "the server waits for {took:?} after a permanent error");
}

#[test]
#[ignore = "takes long"]
fn a_server_that_waits_for_its_database_stops_on_a_signal_and_commands_do_not_wait() {
    let place = TempDir::new().unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
    for signal in ["-TERM", "-INT"] {
        let mut serving = Serving::start(&mut command(place.path(), &[], &url));
        serving.line("waiting up to 30 s for the database");
        let signalled = Instant::now();
        serving.signal(signal);
        assert!(serving.child.wait().unwrap().success(), "{signal}");
        assert!(signalled.elapsed() < Duration::from_secs(5), "{signal}: {:?}", signalled.elapsed());
    }
    let began = Instant::now();
    let message = failure(&run(&mut command(place.path(), &["user", "list"], &url)));
    assert!(message.contains("Connection refused") && began.elapsed() < Duration::from_secs(10), "{message}");
    let mut without_wait = command(place.path(), &[], &url);
    let message = failure(&run(without_wait.env("LATCHKEY__DATABASE__START_TIMEOUT", "0")));
    assert!(message.contains("Connection refused"), "{message}");
}

/// A proxy that starts to forward each connection three seconds after it was opened. Returns its port.
fn slow_proxy(socket: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, socket) = (listener.local_addr().unwrap().port(), socket.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let socket = socket.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                // The test and its server may have ended.
                let Ok(server) = UnixStream::connect(socket) else { return };
                let (from, to): (TcpStream, UnixStream) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || forward(from, to));
                forward(server, client);
            });
        }
    });
    port
}

fn forward(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

#[test]
#[ignore = "takes long"]
fn the_connect_timeout_of_the_url_applies_at_start_and_to_commands() {
    let (home, place) = (TempDir::with_prefix("latchkey-postgres-").unwrap(), TempDir::new().unwrap());
    let Some(server) = Server::start(home.path(), &["-F"]) else { return };
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?connect_timeout=15", slow_proxy(&server.socket()));
    out(&run(&mut command(place.path(), &["migrate", "up"], &url)));
    out(&run(&mut command(place.path(), &["user", "list"], &url)));
    Serving::start(&mut command(place.path(), &[], &url)).line("listening on http");
}
