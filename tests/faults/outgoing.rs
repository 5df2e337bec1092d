//! Background work of the server connects to no address except the database's.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::network::Proxy;
use crate::server::Server;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};
use crate::support::watched::{network_calls, require_strace, trace_of, under_strace};

/// Maximum time until the first removal of expired rows, which starts after a minute.
const FIRST_PURGE: Duration = Duration::from_secs(90);

#[tokio::test]
#[ignore = "takes long"]
async fn the_removal_of_expired_rows_connects_only_to_the_database() {
    let Some(()) = require_strace() else { return };
    let home = TempDir::with_prefix("latchkey-postgres-").unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let proxy = Proxy::start(server.socket());
    let (place, watch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let serves = watch.path().join("serves");
    let mut command = latchkey(place.path(), &[]);
    command.env("DATABASE_URL", proxy.url());
    let mut serving = Serving::start(&mut under_strace(&command, &serves));
    serving.client().user("ada@example.org").await;
    let database = Database::at(&server.url());
    database.execute("UPDATE access_tokens SET expiration_date = '2020-01-01 00:00:00'").await;
    let expired = "SELECT count(*) FROM access_tokens WHERE expiration_date < '2021-01-01 00:00:00'";
    assert_eq!(database.number(expired).await, 1, "there is an expired row");
    let started = Instant::now();
    while database.number("SELECT count(*) FROM access_tokens").await > 0 {
        assert!(started.elapsed() < FIRST_PURGE, "the row is not removed in time");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());

    let trace = trace_of(&serves, serving.child.id());
    let url = proxy.url();
    let (_, port) = url.trim_end_matches("/postgres").rsplit_once(':').unwrap();
    let address = format!("sin_port=htons({port}), sin_addr=inet_addr(\"127.0.0.1\")");
    let (databases, others): (Vec<&str>, Vec<&str>) =
        network_calls(&trace).into_iter().partition(|line| line.contains(&address));
    assert!(!databases.is_empty(), "strace recorded the connections to the database");
    assert!(others.is_empty(), "{others:?}");
}
