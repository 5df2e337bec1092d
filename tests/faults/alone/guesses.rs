//! Many clients guess the password of one account on several replicas. The account is not stopped, and its owner can
//! sign in.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::client::Client;
use crate::support::database::{Backend, Database};
use crate::support::program::{Serving, latchkey};

/// Concurrent guesses at each replica.
const BURST: usize = 62;
/// How long the bursts last.
const DURATION: Duration = Duration::from_secs(15);
/// An address from which the owner has signed in.
const KNOWN: &str = "192.0.2.1";

async fn sign_in(client: &Client, from: &str, password: &str) -> u16 {
    let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", password)];
    client.request("POST", "/token").header("X-Forwarded-For", from).form(&form).send().await.status
}

/// Guesses until `end`, each burst from other addresses and with one right password. Returns the statuses.
async fn guess_until(client: &Client, replica: usize, end: Instant) -> Vec<u16> {
    let mut statuses = Vec::new();
    for round in 0.. {
        if Instant::now() > end {
            break;
        }
        let guess = |number: usize| {
            let from = format!("10.{replica}.{}.{number}", round % 256);
            let password = if number == BURST - 1 && round > 0 { PASSWORD } else { "a wrong password" };
            async move { sign_in(client, &from, password).await }
        };
        statuses.extend(join_all((0..BURST).map(guess)).await);
    }
    statuses
}

async fn owner_is_not_locked_out(backend: Backend, replicas: usize) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let serving: Vec<Serving> = (0..replicas)
        .map(|_| {
            let mut command = latchkey(home.path(), &[]);
            command.env("DATABASE_URL", &database.url).env("LATCHKEY__HTTP__TRUSTED_PROXIES", "127.0.0.0/8");
            Serving::start(&mut command)
        })
        .collect();
    let clients: Vec<Client> = serving.iter().map(Serving::client).collect();
    assert_eq!(clients[0].register("ada@example.org").await.status, 201);
    assert_eq!(sign_in(&clients[0], KNOWN, PASSWORD).await, 200);

    let end = Instant::now() + DURATION;
    let guesses = join_all(clients.iter().enumerate().map(|(number, client)| guess_until(client, number, end)));
    let owner = async {
        let mut signed_in = 0;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match sign_in(&clients[0], KNOWN, PASSWORD).await {
                200 => signed_in += 1,
                status => assert_eq!(status, 503, "only a full hashing queue may reject the owner"),
            }
        }
        signed_in
    };
    let (guesses, signed_in) = tokio::join!(guesses, owner);
    let statuses: Vec<u16> = guesses.into_iter().flatten().collect();
    let count = |expected: u16| statuses.iter().filter(|status| **status == expected).count();
    let failures = database.number("SELECT max(failures) FROM sign_in_failures").await;
    let throttled = database.number("SELECT count(*) FROM audit_entries WHERE detail LIKE 'throttled%'").await;
    println!(
        "{backend:?}, {replicas} replicas: {} guesses, {} rejected, {} unavailable; {failures} failures counted, \
         {throttled} entries of throttled attempts; the owner signed in {signed_in} times",
        statuses.len(),
        count(401),
        count(503)
    );
    assert_eq!(count(200), 0, "the right password among the guesses is rejected, too");
    assert_eq!(count(401) + count(503), statuses.len());
    // Five are counted without a delay, then one each after 1, 2, 4 and 8 seconds.
    assert!((5..=9).contains(&failures), "{failures} failures are counted");
    assert!(signed_in >= 2, "the owner signed in {signed_in} times");
    // The state after a day of guesses.
    database.execute("UPDATE sign_in_failures SET failures = 1000, first_at = NULL").await;
    assert_eq!(sign_in(&clients[0], "198.51.100.1", PASSWORD).await, 401, "the stopped account rejects new addresses");
    assert_eq!(sign_in(&clients[0], KNOWN, PASSWORD).await, 200);
}

#[tokio::test]
#[ignore = "takes long"]
async fn bursts_of_guesses_at_two_replicas_on_postgres_do_not_stop_the_account_or_lock_out_its_owner() {
    owner_is_not_locked_out(Backend::Postgres, 2).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn bursts_of_guesses_on_sqlite_do_not_stop_the_account_or_lock_out_its_owner() {
    owner_is_not_locked_out(Backend::Sqlite, 1).await;
}
