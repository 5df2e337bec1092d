//! PostgreSQL hangs, because its processes are stopped or another session holds a lock on a table.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl};
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::client::{Client, RECOVERY};
use crate::command::without_limits;
use crate::server::Server;
use crate::support::program::Serving;

/// Concurrent requests in a batch.
pub const BATCH: usize = 50;
/// Maximum number of connections of the server: `database.pool_size`.
const MAX_CONNECTIONS: i64 = 8;

/// Sends a batch of concurrent requests. Returns how many succeeded.
pub async fn send_batch(client: &Client, token: &str, about: &str) -> usize {
    let requests = (0..BATCH).map(|number| async move {
        let answer = match number % 3 {
            0 => client.request("GET", "/me", token, None).await,
            1 => client.create_key(token).await,
            _ => client.request("GET", "/protected-route", token, None).await,
        };
        // A user has at most a hundred keys; further ones return 409.
        let answer = answer.unwrap_or_else(|| panic!("{about}: no response to request {number}"));
        usize::from(answer.status == 409 || answer.assert_graceful(about))
    });
    let done = join_all(requests).await.into_iter().sum();
    let live = client.request("GET", "/health/live", "", None).await.unwrap();
    assert_eq!(live.status, 200, "{about}: {live:?}");
    done
}

/// Waits until all requests of a batch succeed.
async fn assert_recovery(client: &Client, token: &str, about: &str) {
    let healed = Instant::now();
    loop {
        let successful = send_batch(client, token, about).await;
        if successful == BATCH {
            break;
        }
        assert!(healed.elapsed() < RECOVERY, "{about}: {successful} of {BATCH} requests succeed");
    }
    println!("{about}: recovered after {:?}", healed.elapsed());
}

#[expect(clippy::disallowed_methods, reason = "tests connect to the server directly")]
fn connect(url: &str) -> PgConnection {
    PgConnection::establish(url).unwrap()
}

/// Number of client connections except its own and that of the lock.
fn open_connections(url: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let others = "SELECT count(*) AS count FROM pg_stat_activity
                  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query NOT LIKE '%pg_sleep%'";
    let found: Count = diesel::sql_query(others).get_result(&mut connect(url)).unwrap();
    found.count
}

#[tokio::test]
#[ignore = "takes long"]
async fn while_postgres_hangs_requests_fail_in_time_and_no_connections_are_added() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = without_limits(place.path(), server.url());
    let serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;

    server.signal("-STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(5) {
        assert_eq!(send_batch(&client, &token, "stopped").await, 0);
    }
    server.signal("-CONT");
    assert_recovery(&client, &token, "after a stop").await;

    let (url, (lock_taken, takes_lock)) = (server.url(), tokio::sync::oneshot::channel());
    let locked = std::thread::spawn(move || {
        let mut conn = connect(&url);
        conn.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").unwrap();
        lock_taken.send(()).unwrap();
        conn.batch_execute("SELECT pg_sleep(4); COMMIT").unwrap();
    });
    takes_lock.await.unwrap();
    let mut rounds = 0;
    while !locked.is_finished() {
        let successful = send_batch(&client, &token, "locked").await;
        assert!(rounds > 0 || successful < BATCH, "the lock had no effect");
        rounds += 1;
        let open = open_connections(&server.url());
        assert!(open <= MAX_CONNECTIONS, "{open} connections");
    }
    locked.join().unwrap();
    println!("locked: {rounds} batches");
    assert_recovery(&client, &token, "after a lock").await;
}
