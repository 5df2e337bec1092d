//! PostgreSQL is restarted under load: clients are told to come back, and nothing that was acknowledged is lost.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::acknowledged::{Acknowledged, Worker};
use crate::client::{Client, RECOVERY};
use crate::cycles;
use crate::server::Server;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

const CLIENTS: usize = 6;
/// How long there is load before a restart, and after it.
const LOAD: Duration = Duration::from_secs(1);
/// How long the server is away: longer than a request waits for it, so that some are told.
const AWAY: Duration = Duration::from_secs(2);

async fn outlives(signal: &'static str) {
    let home = TempDir::new().unwrap();
    let Some(mut server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = latchkey(place.path(), &[]);
    command.env("DATABASE_URL", server.url()).env("LATCHKEY__LIMITS__ENABLED", "false");
    let serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let world = Mutex::<Acknowledged>::default();
    for cycle in 0..cycles() {
        let stop = Mutex::new(None::<Instant>);
        let end = || stop.lock().unwrap().is_some_and(|end| Instant::now() > end);
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| Worker { name: format!("user-{cycle}-{number}"), client: &client, world: &world })
            .collect();
        let harm = async {
            tokio::time::sleep(LOAD).await;
            server = tokio::task::spawn_blocking(move || {
                server.restart_after(signal, AWAY);
                server
            })
            .await
            .unwrap();
            let back = Instant::now();
            for path in ["/protected-route", "/page/"] {
                while client.ask("GET", path, &token, None).await.unwrap().status != 200 {
                    assert!(back.elapsed() < RECOVERY, "not back yet");
                }
            }
            println!("{signal}, cycle {cycle}: all is well {:?} after the server is", back.elapsed());
            *stop.lock().unwrap() = Some(Instant::now() + LOAD);
            server
        };
        (_, server) = tokio::join!(join_all(workers.iter().map(|worker| worker.work(end))), harm);
    }
    let world = world.into_inner().unwrap();
    world.holds(&client, &Database::at(&server.url())).await;
    assert!(world.told_to_come_back > 0, "it was felt");
    println!("{signal}: {} restarts; {world}", cycles());
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_fast_restart_of_postgres_is_felt_as_503_and_loses_nothing() {
    outlives("-INT").await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn an_immediate_restart_of_postgres_is_felt_as_503_and_loses_nothing() {
    outlives("-QUIT").await;
}
