//! When the server is killed under load, acknowledged changes are kept and revoked credentials stay revoked.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::acknowledged::{Acknowledged, Worker, load};
use crate::client::Client;
use crate::command::without_limits;
use crate::cycles;
use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::Serving;

/// Duration of the load before the server is killed.
const LOAD: Duration = Duration::from_secs(2);
const CLIENTS: usize = 6;

async fn survives(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let acknowledged = Mutex::new(Acknowledged::default());
    let start = || Serving::start(&mut without_limits(home.path(), &database.url));
    for cycle in 0..cycles() {
        let serving = start();
        let client = Client::of(&serving);
        let workers = Worker::group(&format!("user-{cycle}"), CLIENTS, &client, &acknowledged);
        let kill = async {
            load(&acknowledged, LOAD).await;
            serving.signal("-KILL");
        };
        tokio::join!(join_all(workers.iter().map(|worker| worker.run(|| false))), kill);
        drop(serving);

        let serving = start();
        let snapshot = std::mem::take(&mut *acknowledged.lock().unwrap());
        snapshot.assert_stored(&Client::of(&serving), &database).await;
        *acknowledged.lock().unwrap() = snapshot;
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(acknowledged.unavailable, 0, "no response is 503 or 504");
    println!("{backend:?}: {} kills; {acknowledged}", cycles());
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_a_kill_loses_no_acknowledged_change_and_restores_no_revoked_credential() {
    survives(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_a_kill_loses_no_acknowledged_change_and_restores_no_revoked_credential() {
    survives(Backend::Postgres).await;
}
