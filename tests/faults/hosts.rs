//! The database URL names several hosts: one does not answer, one rejects connections, or a former primary still runs.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Client, RECOVERY};
use crate::command::without_limits;
use crate::hang::{BATCH, send_batch};
use crate::network::{Mode, Proxy};
use crate::server::Server;
use crate::start::free_port;
use crate::support::database::Database;
use crate::support::postgres::Cluster;
use crate::support::program::{Serving, latchkey};

/// Maximum time until requests succeed through another host: 2 s until connections count as lost, 2 s until an attempt
/// to connect to the host that hangs ends, and a margin for a busy machine.
const MOVED: Duration = Duration::from_millis(5_500);
/// Duration of the load through one host while the other one hangs.
const LOAD: Duration = Duration::from_secs(4);
/// Batches in a row that must succeed after a failure, so that no connection from before it is left.
const SETTLED: usize = 3;

fn start(home: &TempDir, url: &str) -> Serving {
    Serving::start(&mut without_limits(home.path(), url))
}

/// Sends batches until several in a row succeed. Returns the time until the first of them began.
async fn recovery(client: &Client, token: &str, about: &str) -> Duration {
    let failed = Instant::now();
    let (mut settled, mut since) = (0, failed);
    while settled < SETTLED {
        let began = Instant::now();
        let successful = send_batch(client, token, about).await;
        if successful < BATCH {
            assert!(failed.elapsed() < MOVED, "{about}: {successful} of {BATCH} requests succeed");
            settled = 0;
            continue;
        }
        since = if settled == 0 { began } else { since };
        settled += 1;
    }
    since - failed
}

#[tokio::test]
#[ignore = "takes long"]
async fn while_one_host_does_not_answer_requests_succeed_through_another_one() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let [first, second] = [(); 2].map(|()| Proxy::start(server.socket()));
    let url = format!("postgres://postgres@{},{}/postgres", first.address, second.address);
    let place = TempDir::new().unwrap();
    let serving = start(&place, &url);
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    for (hanging, other) in [(&first, &second), (&second, &first)] {
        hanging.mode.send_replace(Mode::Discard);
        let took = recovery(&client, &token, "after the host hangs").await;
        println!("the other host is used after {took:?}");
        let (loaded, mut sent, mut failed) = (Instant::now(), 0, 0);
        while loaded.elapsed() < LOAD {
            failed += BATCH - send_batch(&client, &token, "through the other host").await;
            sent += BATCH;
        }
        println!("{failed} of {sent} requests through the other host failed");
        assert_eq!(failed, 0, "of {sent} requests through the other host");
        // All connections are closed, and the new ones do not wait for the host that hangs.
        other.cut_all().await;
        let took = recovery(&client, &token, "after the connections are closed").await;
        println!("recovered after {took:?}");
        hanging.mode.send_replace(Mode::Pass);
    }
}

/// Two clusters with the same data, of which both accept changes, and their ports. Only the second one has the database
/// `late`. `None` if PostgreSQL is not installed.
async fn two_primaries(homes: [&TempDir; 2]) -> Option<([Cluster; 2], [u16; 2])> {
    let ports = [free_port(), free_port()];
    let mut first = Cluster::create(homes[0].path()).unwrap()?;
    first.start_on(ports[0], &[]).unwrap();
    let created = latchkey(homes[0].path(), &["migrate", "up"]).env("DATABASE_URL", first.url()).output().unwrap();
    assert!(created.status.success(), "{created:?}");
    first.stop();
    let mut second = Cluster::create(homes[1].path()).unwrap()?;
    for (program, arguments) in [("rm", ["-r"].as_slice()), ("cp", &["-a", first.data().to_str().unwrap()])] {
        assert!(second.command(program).args(arguments).arg(second.data()).status().unwrap().success());
    }
    first.start_on(ports[0], &[]).unwrap();
    second.start_on(ports[1], &[]).unwrap();
    Database::at(&second.url()).execute("CREATE DATABASE late").await;
    Some(([first, second], ports))
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_host_that_rejects_connections_or_was_the_primary_before_is_not_used() {
    let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let Some((clusters, [old, new])) = two_primaries([&homes[0], &homes[1]]).await else { return };
    let [on_old, on_new] = clusters.each_ref().map(|cluster| Database::at(&cluster.url()));
    let place = TempDir::new().unwrap();
    // Fails to start if the first host, which lacks the database, is the only one that is tried.
    let late = start(&place, &format!("postgres://postgres@127.0.0.1:{old},127.0.0.1:{new}/late"));
    assert!(!late.address().is_empty());
    drop(late);

    let url = format!("postgres://postgres@127.0.0.1:{old},127.0.0.1:{new}/postgres");
    // Also without a cache.
    let servers = ["100000", "0"].map(|cache_size| {
        Serving::start(without_limits(place.path(), &url).env("LATCHKEY__AUTH__CACHE_SIZE", cache_size))
    });
    let mut callers = Vec::new();
    for (number, serving) in servers.iter().enumerate() {
        let client = Client::of(serving);
        let token = client.new_user(&format!("user{number}@example.org")).await;
        recovery(&client, &token, "before the move").await;
        callers.push((client, token));
    }
    // New connections lead to the other host, on which the token does not exist. Those to the old one stay open.
    on_old.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
    on_old.execute("SELECT pg_reload_conf()").await;
    let is_read_only =
        "SELECT count(*) FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting = 'on'";
    let reloaded = Instant::now();
    while on_old.number(is_read_only).await == 0 {
        assert!(reloaded.elapsed() < MOVED, "the former primary has not read its settings");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reader =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'latchkey-change-log'";
    on_old.execute(reader).await;
    let ended = Instant::now();
    for (number, (client, token)) in callers.iter().enumerate() {
        let answer = loop {
            let answer = client.available("GET", "/protected-route", token).await;
            if answer.status != 200 || ended.elapsed() > RECOVERY {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(answer.status, 403, "server {number} uses the former primary: {answer:?}");
        println!("server {number} uses the new primary after {:?}", ended.elapsed());
        for _ in 0..20 {
            let answer = client.available("GET", "/protected-route", token).await;
            assert_eq!(answer.status, 403, "server {number} uses a connection to the former primary: {answer:?}");
        }
    }
    assert_eq!(on_new.number("SELECT count(*) FROM users").await, 0);
}
