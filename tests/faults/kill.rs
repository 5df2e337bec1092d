//! Killed under load: whatever was acknowledged is there afterwards, and what was ended stays dead.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::acknowledged::{Acknowledged, Worker};
use crate::client::Client;
use crate::cycles;
use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

/// How long the program works before it is killed.
const LOAD: Duration = Duration::from_secs(2);
const CLIENTS: usize = 6;

async fn survives(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let world = Mutex::new(Acknowledged::default());
    let start = || {
        let mut command = latchkey(home.path(), &[]);
        command.env("DATABASE_URL", &database.url).env("LATCHKEY__LIMITS__ENABLED", "false");
        Serving::start(&mut command)
    };
    for cycle in 0..cycles() {
        let serving = start();
        let client = Client::of(&serving);
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| Worker { name: format!("user-{cycle}-{number}"), client: &client, world: &world })
            .collect();
        let kill = async {
            tokio::time::sleep(LOAD).await;
            serving.signal("-KILL");
        };
        tokio::join!(join_all(workers.iter().map(|worker| worker.work(|| false))), kill);
        drop(serving);

        let serving = start();
        let so_far = std::mem::take(&mut *world.lock().unwrap());
        so_far.holds(&Client::of(&serving), &database).await;
        *world.lock().unwrap() = so_far;
    }
    let world = world.into_inner().unwrap();
    assert_eq!(world.told_to_come_back, 0, "nothing but the end was in the way");
    println!("{backend:?}: {} kills; {world}", cycles());
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_nothing_acknowledged_is_lost_and_nothing_dead_rises() {
    survives(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_nothing_acknowledged_is_lost_and_nothing_dead_rises() {
    survives(Backend::Postgres).await;
}
