//! Nobody is connected to but the database.

use std::io::copy;
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::program::{Serving, latchkey, out};
use crate::support::tls::certify;
use crate::support::tour::tour;
use crate::support::watched::{NETWORK, outgoing, seen, strace, watched};
use crate::support::{Credential, postgres, specify_database};

/// A port of this machine that forwards connections to `socket`.
fn port_to(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Threads, because the test blocks its own.
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&socket).unwrap();
            client.set_nodelay(true).unwrap();
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (mut from_server, mut to_client) = (server, client);
            thread::spawn(move || {
                let _ = copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// The address on the listener for metrics, which is logged before the other one.
fn metrics_of(serving: &Serving) -> Client {
    let told = serving.line("metrics on http://");
    let (_, address) = told.split_once("metrics on ").unwrap();
    Client::new(address.trim().trim_end_matches("/metrics"))
}

specify_database! {
    async fn from_start_to_stop_no_address_is_connected_to_but_the_databases(database: Database) {
        let Some(()) = strace() else { return };
        let port = match database.backend {
            Backend::Sqlite => None,
            // A server of somebody else's may be anywhere.
            Backend::Postgres => match postgres::own_socket() {
                Some(home) => Some(port_to(home.join(".s.PGSQL.5432"))),
                None => return,
            },
        };
        let url = match port {
            None => database.url.clone(),
            // By its name, which is looked up on this machine.
            Some(port) => {
                let (_, options) = database.url.split_once("options=").unwrap();
                format!("postgres://postgres@localhost:{port}/postgres?options={options}")
            }
        };
        let (home, watch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (serves, asks) = (watch.path().join("serves"), watch.path().join("asks"));
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &url).env("LATCHKEY__HTTP__PUBLIC_URL", "https://auth.example.org");
            command
        };
        let mut serving = Serving::start(&mut watched(command(&[]).env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0"), &serves));
        let metrics = metrics_of(&serving);
        let address = serving.address();
        tour(&Client::new(&format!("http://{address}")), command).await;
        assert_eq!(metrics.get("/metrics", &Credential::None).await.status, 200);
        let health = watched(command(&["health"]).env("LATCHKEY__SERVER__LISTEN", &address), &asks).spawn().unwrap();
        let asker = health.id();
        assert_eq!(out(&health.wait_with_output().unwrap()), "ready\n");
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());

        assert!(seen(&asks, asker).contains(NETWORK), "a connection would be seen");
        let seen = seen(&serves, serving.child.id());
        let is_database = |line: &&str| {
            let is_here = ["inet_addr(\"127.0.0.1\")", "\"::1\""].iter().any(|here| line.contains(here));
            is_here && port.is_some_and(|port| line.contains(&format!("_port=htons({port})")))
        };
        let (databases, others): (Vec<&str>, Vec<&str>) = outgoing(&seen).into_iter().partition(is_database);
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(databases.is_empty(), port.is_none(), "PostgreSQL is seen to be connected to, and SQLite has no address");
    }
}

#[test]
fn with_tls_no_address_is_connected_to() {
    let Some(()) = strace() else { return };
    let (home, watch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    certify(&certificate, &key);
    let (serves, asks) = (watch.path().join("serves"), watch.path().join("asks"));
    let with_tls = |arguments: &[&str]| {
        let mut command = latchkey(home.path(), arguments);
        command.env("LATCHKEY__TLS__CERTIFICATE", &certificate).env("LATCHKEY__TLS__KEY", &key);
        command
    };
    let mut serving = Serving::start(&mut watched(&with_tls(&[]), &serves));
    // The command that asks connects; the server that is asked does not.
    let mut health = with_tls(&["health"]);
    let health = watched(health.env("LATCHKEY__SERVER__LISTEN", serving.address()), &asks).spawn().unwrap();
    let asker = health.id();
    assert_eq!(out(&health.wait_with_output().unwrap()), "ready\n");
    certify(&certificate, &key);
    serving.line("the TLS certificate has been renewed");
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());

    assert!(seen(&asks, asker).contains(NETWORK), "a connection would be seen");
    let seen = seen(&serves, serving.child.id());
    assert!(outgoing(&seen).is_empty(), "{:?}", outgoing(&seen));
}
