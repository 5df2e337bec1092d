//! The server connects to no network address except that of its database.

use std::io::copy;
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::program::{Serving, latchkey, out};
use crate::support::tls::write_certificate;
use crate::support::tour::tour;
use crate::support::watched::{NETWORK, network_calls, require_strace, trace_of, under_strace};
use crate::support::{Credential, postgres, specify_database};

/// Starts a proxy on a free port of this machine that forwards connections to `socket`; returns the port.
fn forward_port_to(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Threads, because the test blocks its own thread.
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

/// A client of the metrics listener. Its address is logged before that of the API.
fn metrics_client(serving: &Serving) -> Client {
    let line = serving.line("metrics on http://");
    let (_, address) = line.split_once("metrics on ").unwrap();
    Client::new(address.trim().trim_end_matches("/metrics"))
}

specify_database! {
    async fn the_server_connects_only_to_its_database(database: Database) {
        let Some(()) = require_strace() else { return };
        let port = match database.backend {
            Backend::Sqlite => None,
            // The address of a server from TEST_POSTGRES_URL is unknown.
            Backend::Postgres => match postgres::own_socket() {
                Some(home) => Some(forward_port_to(home.join(".s.PGSQL.5432"))),
                None => return,
            },
        };
        let url = match port {
            None => database.url.clone(),
            // A host name, which is resolved on this machine.
            Some(port) => {
                let (_, options) = database.url.split_once("options=").unwrap();
                format!("postgres://postgres@localhost:{port}/postgres?options={options}")
            }
        };
        let (home, traces) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (server_trace, health_trace) = (traces.path().join("server"), traces.path().join("health"));
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &url).env("LATCHKEY__HTTP__PUBLIC_URL", "https://auth.example.org");
            command
        };
        let mut serve = command(&[]);
        serve.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0");
        let mut serving = Serving::start(&mut under_strace(&serve, &server_trace));
        let metrics = metrics_client(&serving);
        let address = serving.address();
        tour(&Client::new(&format!("http://{address}")), command).await;
        assert_eq!(metrics.get("/metrics", &Credential::None).await.status, 200);
        let mut health = command(&["health"]);
        let health = under_strace(health.env("LATCHKEY__SERVER__LISTEN", &address), &health_trace).spawn().unwrap();
        let health_id = health.id();
        assert_eq!(out(&health.wait_with_output().unwrap()), "ready\n");
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());

        assert!(trace_of(&health_trace, health_id).contains(NETWORK), "strace shows connections");
        let trace = trace_of(&server_trace, serving.child.id());
        let is_database = |line: &&str| {
            let is_local = ["inet_addr(\"127.0.0.1\")", "\"::1\""].iter().any(|address| line.contains(address));
            is_local && port.is_some_and(|port| line.contains(&format!("_port=htons({port})")))
        };
        let (databases, others): (Vec<&str>, Vec<&str>) = network_calls(&trace).into_iter().partition(is_database);
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(databases.is_empty(), port.is_none(), "the connection to PostgreSQL is traced; SQLite has no address");
    }
}

#[test]
fn the_server_with_tls_connects_to_no_address() {
    let Some(()) = require_strace() else { return };
    let (home, traces) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    write_certificate(&certificate, &key);
    let (server_trace, health_trace) = (traces.path().join("server"), traces.path().join("health"));
    let with_tls = |arguments: &[&str]| {
        let mut command = latchkey(home.path(), arguments);
        command.env("LATCHKEY__TLS__CERTIFICATE", &certificate).env("LATCHKEY__TLS__KEY", &key);
        command
    };
    let mut serving = Serving::start(&mut under_strace(&with_tls(&[]), &server_trace));
    // The health command connects to the server; the server connects to nothing.
    let mut health = with_tls(&["health"]);
    let health =
        under_strace(health.env("LATCHKEY__SERVER__LISTEN", serving.address()), &health_trace).spawn().unwrap();
    let health_id = health.id();
    assert_eq!(out(&health.wait_with_output().unwrap()), "ready\n");
    write_certificate(&certificate, &key);
    serving.line("the TLS certificate has been renewed");
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());

    assert!(trace_of(&health_trace, health_id).contains(NETWORK), "strace shows connections");
    let trace = trace_of(&server_trace, serving.child.id());
    assert!(network_calls(&trace).is_empty(), "{:?}", network_calls(&trace));
}
