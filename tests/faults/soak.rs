//! Many requests later the program holds no more memory, files and threads than before.

use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::client::Client;
use crate::cycles;
use crate::held::Held;
use crate::support::program::{Serving, latchkey};

const CLIENTS: usize = 8;
/// Rounds of one client in a cycle.
const ROUNDS: usize = 500;

/// Requests of all kinds, some on connections of their own.
async fn load(client: &Client, token: &str) -> usize {
    let asked = join_all((0..CLIENTS).map(|number| async move {
        for round in 0..ROUNDS {
            let title = format!("{number} {round}");
            for answer in [
                client.ask("GET", "/protected-route", token, None).await,
                client.ask("GET", "/page/?size=5", token, None).await,
                client.ask("GET", "/me", "lkt_nonsense", None).await,
                client.write_page(token, &title).await,
                client.ask("GET", "/nowhere", "", None).await,
            ] {
                assert!(answer.unwrap().status < 500);
            }
            if round % 10 == 0 {
                drop(client.connect().await);
            }
        }
    }));
    asked.await.len() * ROUNDS * 5
}

#[tokio::test]
#[ignore = "takes long"]
async fn memory_files_and_threads_are_given_back() {
    let home = TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &[]);
    command.env("LATCHKEY__LIMITS__ENABLED", "false");
    // SQLite keeps up to 2 MB of pages for each connection, and takes long to fill them: with few that is no noise.
    command.env("LATCHKEY__DATABASE__POOL_SIZE", "2");
    let serving = Serving::start(command.env("RUST_LOG", "warn,latchkey::server=info"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    load(&client, &token).await;
    let before = Held::by(&serving);
    let mut requests = 0;
    for _ in 0..cycles() {
        requests += load(&client, &token).await;
    }
    // Connections end when the server has noticed.
    let mut after = Held::by(&serving);
    for _ in 0..100 {
        if after.files <= before.files + 5 && after.threads <= before.threads {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = Held::by(&serving);
    }
    println!("{requests} requests: {before:?}, then {after:?}");
    assert!(after.files <= before.files + 5 && after.threads <= before.threads, "{before:?} {after:?}");
    // A tenth, and the pages of the database that are kept in memory.
    assert!(after.kilobytes <= before.kilobytes * 1.1 + 4_096.0, "{before:?} {after:?}");
}
