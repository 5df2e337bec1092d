//! PostgreSQL hangs: its processes are stopped, or somebody holds a lock that everybody needs.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl};
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::client::{Client, RECOVERY};
use crate::server::Server;
use crate::support::program::{Serving, latchkey};

/// Requests at once.
const CROWD: usize = 50;

/// Many requests at once; how many were done.
async fn crowd(client: &Client, token: &str, about: &str) -> usize {
    let asked = (0..CROWD).map(|number| async move {
        let answer = match number % 3 {
            0 => client.ask("GET", "/me", token, None).await,
            1 => client.make_key(token).await,
            _ => client.ask("GET", "/protected-route", token, None).await,
        };
        // The hundredth key is the last one.
        let answer = answer.unwrap();
        usize::from(answer.status == 409 || answer.is_fair(about))
    });
    let done = join_all(asked).await.into_iter().sum();
    let live = client.ask("GET", "/health/live", "", None).await.unwrap();
    assert_eq!(live.status, 200, "{about}: {live:?}");
    done
}

async fn all_is_well(client: &Client, token: &str, about: &str) {
    let healed = Instant::now();
    while crowd(client, token, about).await < CROWD {
        assert!(healed.elapsed() < RECOVERY, "{about}: not back yet");
    }
    println!("{about}: all is well {:?} later", healed.elapsed());
}

#[expect(clippy::disallowed_methods, reason = "tests reach the server beside the program")]
fn beside(url: &str) -> PgConnection {
    PgConnection::establish(url).unwrap()
}

fn connections_of_the_program(url: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let others = "SELECT count(*) AS count FROM pg_stat_activity
                  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query NOT LIKE '%pg_sleep%'";
    let found: Count = diesel::sql_query(others).get_result(&mut beside(url)).unwrap();
    found.count
}

#[tokio::test]
#[ignore = "takes long"]
async fn while_postgres_hangs_clients_are_told_in_time_and_it_gets_no_more_connections() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = latchkey(place.path(), &[]);
    command.env("DATABASE_URL", server.url()).env("LATCHKEY__LIMITS__ENABLED", "false");
    let serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;

    server.signal("-STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(5) {
        assert_eq!(crowd(&client, &token, "stopped").await, 0);
    }
    server.signal("-CONT");
    all_is_well(&client, &token, "after a stop").await;

    let url = server.url();
    let lock = "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT";
    let locked = std::thread::spawn(move || beside(&url).batch_execute(lock).unwrap());
    let began = Instant::now();
    while crowd(&client, &token, "about to be locked").await == CROWD {
        assert!(began.elapsed() < Duration::from_secs(2), "the lock is felt");
    }
    while !locked.is_finished() {
        crowd(&client, &token, "locked").await;
        let open = connections_of_the_program(&server.url());
        assert!(open <= 8, "{open} connections");
    }
    locked.join().unwrap();
    all_is_well(&client, &token, "after a lock").await;
}
