//! PostgreSQL is restarted under load. Requests return 503 meanwhile, and no acknowledged change is lost.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::acknowledged::{Acknowledged, Worker, load};
use crate::client::{Client, RECOVERY};
use crate::command::without_limits;
use crate::cycles;
use crate::server::Server;
use crate::support::database::Database;
use crate::support::program::Serving;

const CLIENTS: usize = 6;
/// Duration of the load before and after a restart.
const LOAD: Duration = Duration::from_secs(1);
/// How long the server is down: longer than the database time-out of a request, so that some requests return 503.
const DOWNTIME: Duration = Duration::from_secs(2);

async fn restart_loses_nothing(signal: &'static str) {
    let home = TempDir::new().unwrap();
    let Some(mut server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = without_limits(place.path(), server.url());
    let serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let acknowledged = Mutex::<Acknowledged>::default();
    for cycle in 0..cycles() {
        let end = Mutex::new(None::<Instant>);
        let is_over = || end.lock().unwrap().is_some_and(|end| Instant::now() > end);
        let workers = Worker::group(&format!("user-{cycle}"), CLIENTS, &client, &acknowledged);
        let restart = async {
            load(&acknowledged, LOAD).await;
            server = tokio::task::spawn_blocking(move || {
                server.restart_after(signal, DOWNTIME);
                server
            })
            .await
            .unwrap();
            let restored = Instant::now();
            for path in ["/protected-route", "/page/"] {
                while client.request("GET", path, &token, None).await.unwrap().status != 200 {
                    assert!(restored.elapsed() < RECOVERY, "not recovered in time");
                }
            }
            println!("{signal}, cycle {cycle}: recovered {:?} after the server started", restored.elapsed());
            *end.lock().unwrap() = Some(Instant::now() + LOAD);
            server
        };
        (_, server) = tokio::join!(join_all(workers.iter().map(|worker| worker.run(is_over))), restart);
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    acknowledged.assert_stored(&client, &Database::at(&server.url())).await;
    assert!(acknowledged.unavailable > 0, "no request failed");
    println!("{signal}: {} restarts; {acknowledged}", cycles());
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_fast_restart_of_postgres_causes_503_and_loses_nothing() {
    restart_loses_nothing("-INT").await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn an_immediate_restart_of_postgres_causes_503_and_loses_nothing() {
    restart_loses_nothing("-QUIT").await;
}
