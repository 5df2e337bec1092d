//! The database is not there when the server starts, or takes its time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::Server;
use crate::support::postgres::Cluster;
use crate::support::program::{Serving, failure, latchkey, out, run};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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
    let line = serving.line("waits up to 30 s for the database");
    assert!(line.contains("Connection refused"), "{line}");
    cluster.start_on(port, &["-F"]).unwrap();
    serving.line("the database is there after");
    serving.line("listening on http");

    let began = Instant::now();
    let unknown = format!("postgres://postgres@127.0.0.1:{port}/nowhere");
    let said = failure(&run(&mut command(place.path(), &[], &unknown)));
    assert!(said.contains("does not exist"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10), "what does not mend itself is not waited for");
}

#[test]
#[ignore = "takes long"]
fn a_server_that_waits_for_its_database_stops_when_it_is_told_and_a_command_does_not_wait() {
    let place = TempDir::new().unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
    for signal in ["-TERM", "-INT"] {
        let mut serving = Serving::start(&mut command(place.path(), &[], &url));
        serving.line("waits up to 30 s for the database");
        let told = Instant::now();
        serving.signal(signal);
        assert!(serving.child.wait().unwrap().success(), "{signal}");
        assert!(told.elapsed() < Duration::from_secs(5), "{signal}: {:?}", told.elapsed());
    }
    let began = Instant::now();
    let said = failure(&run(&mut command(place.path(), &["user", "list"], &url)));
    assert!(said.contains("Connection refused") && began.elapsed() < Duration::from_secs(10), "{said}");
    let mut impatient = command(place.path(), &[], &url);
    let said = failure(&run(impatient.env("LATCHKEY__DATABASE__START_TIMEOUT", "0")));
    assert!(said.contains("Connection refused"), "{said}");
}

/// Passes on what comes, in both directions, three seconds after a connection was made.
fn slow_proxy(socket: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, socket) = (listener.local_addr().unwrap().port(), socket.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let socket = socket.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                // The test may have ended, and its server with it.
                let Ok(server) = UnixStream::connect(socket) else { return };
                let (from, to): (TcpStream, UnixStream) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to));
                pass(server, client);
            });
        }
    });
    port
}

fn pass(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

#[test]
#[ignore = "takes long"]
fn the_connect_timeout_of_the_address_holds_at_start_and_for_commands() {
    let (home, place) = (TempDir::with_prefix("latchkey-postgres-").unwrap(), TempDir::new().unwrap());
    let Some(server) = Server::start(home.path(), &["-F"]) else { return };
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?connect_timeout=15", slow_proxy(&server.socket()));
    out(&run(&mut command(place.path(), &["migrate", "up"], &url)));
    out(&run(&mut command(place.path(), &["user", "list"], &url)));
    Serving::start(&mut command(place.path(), &[], &url)).line("listening on http");
}
