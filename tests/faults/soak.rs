//! After many requests the server holds no more memory, files and threads than before.

use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::client::Client;
use crate::cycles;
use crate::resources::ProcessResources;
use crate::support::program::{Serving, latchkey};

const CLIENTS: usize = 8;
/// Rounds of one client in a cycle.
const ROUNDS: usize = 500;

/// Sends requests of all kinds, some on new connections. Returns their number.
async fn load(client: &Client, token: &str) -> usize {
    let clients = join_all((0..CLIENTS).map(|number| async move {
        for round in 0..ROUNDS {
            let title = format!("{number} {round}");
            for answer in [
                client.request("GET", "/protected-route", token, None).await,
                client.request("GET", "/page/?size=5", token, None).await,
                client.request("GET", "/me", "lkt_nonsense", None).await,
                client.write_page(token, &title).await,
                client.request("GET", "/nowhere", "", None).await,
            ] {
                assert!(answer.unwrap().status < 500);
            }
            if round % 10 == 0 {
                drop(client.connect().await);
            }
        }
    }));
    clients.await.len() * ROUNDS * 5
}

#[tokio::test]
#[ignore = "takes long"]
async fn memory_files_and_threads_are_released() {
    let home = TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &[]);
    command.env("LATCHKEY__LIMITS__ENABLED", "false");
    // SQLite caches up to 2 MB of pages per connection, which fill slowly. Few connections keep this small.
    command.env("LATCHKEY__DATABASE__POOL_SIZE", "2");
    let serving = Serving::start(command.env("RUST_LOG", "warn,latchkey::server=info"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    load(&client, &token).await;
    let before = ProcessResources::of(&serving);
    let mut requests = 0;
    for _ in 0..cycles() {
        requests += load(&client, &token).await;
    }
    // The server needs some time to notice closed connections.
    let mut after = ProcessResources::of(&serving);
    for _ in 0..100 {
        if after.files <= before.files + 5 && after.threads <= before.threads {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = ProcessResources::of(&serving);
    }
    println!("{requests} requests: {before:?}, then {after:?}");
    assert!(after.files <= before.files + 5 && after.threads <= before.threads, "{before:?} {after:?}");
    // A tenth more, and 4 MB for pages that SQLite caches.
    assert!(after.kilobytes <= before.kilobytes * 1.1 + 4_096.0, "{before:?} {after:?}");
}
