//! A search among two million users.

use std::time::{Duration, Instant};

use crate::support::database::Database;
use crate::support::{Answer, App, Backend, Credential, Profile};

const USERS: i64 = 2_000_000;
/// Users of one statement, which has a second and a half.
const BATCH: i64 = 20_000;
/// How long a search may take: 300 ms, and room for a busy machine and a build without optimisation.
const SOON: Duration = Duration::from_millis(900);
/// The same for a whole address: 5 ms.
const AT_ONCE: Duration = Duration::from_millis(25);

async fn fill(database: &Database) {
    for batch in 0..USERS / BATCH {
        let first = batch * BATCH;
        let rows = format!(
            "WITH RECURSIVE n(i) AS (SELECT CAST({first} AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {last})
             INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at)
             SELECT 'Name' || (i * 7919 % 100003), 'Sur' || (i * 104729 % 99991), 'user' || i || '@example.org',
                 'user' || i || '@example.org', '', '$bcrypt-sha256$v=2,t=2b,r=12$abcdefghijklmnopqrstuv$abcdefghijk',
                 '2026-01-01 00:00:00', '2026-01-01 00:00:00' FROM n",
            last = first + BATCH - 1
        );
        database.execute(rows).await;
    }
}

/// The fastest of some answers: what it takes when nobody else uses the machine.
async fn fastest(app: &App, query: &str, root: &Credential) -> (Answer, Duration) {
    let mut best = None;
    for _ in 0..5 {
        let asked = Instant::now();
        let answer = app.get(&format!("/users?{query}"), root).await;
        let took = asked.elapsed();
        if best.as_ref().is_none_or(|(_, before)| took < *before) {
            best = Some((answer, took));
        }
    }
    best.unwrap()
}

async fn finds_soon(backend: Backend) {
    let Some(app) = App::start(backend, Profile::Fastapi).await else { return };
    let root = app.admin("root@example.org").await;
    // The index is made by the migration, as for an installation that has these users.
    let db = app.database.open();
    while !db.migrate_down().await.unwrap().unwrap().contains("user_search") {}
    fill(&app.database).await;
    let began = Instant::now();
    db.migrate_up().await.unwrap();
    println!("{backend:?}: the migration of {USERS} users takes {:?}", began.elapsed());

    for (query, found, within) in [
        ("search=user1999999@example.org", Some(1), AT_ONCE),
        ("search=user1999999", Some(1), SOON),
        ("search=USER199999&total=true", Some(11), SOON),
        ("search=user199999&after=1999999", Some(2), SOON),
        ("search=Name99999", Some(20), SOON),
        ("search=nowhere", Some(0), SOON),
        ("search=example", Some(50), SOON),
        ("search=example&after=1900000", Some(50), SOON),
        ("search=example&total=true", Some(50), SOON),
        ("search=e", Some(50), SOON),
        ("search=q", None, SOON),
        ("search=r19%20us", None, SOON),
        ("total=true", Some(50), SOON),
    ] {
        let (answer, took) = fastest(&app, query, &root).await;
        let items = answer.body["items"].as_array().map(Vec::len);
        println!("{backend:?} {query}: {} with {items:?} in {took:?}", answer.status);
        match found {
            Some(count) => assert_eq!(items, Some(count), "{query}: {answer:?}"),
            // Nobody has it: an empty list, or too broad for this index.
            _ => assert!(items == Some(0) || answer.body["errors"][0]["code"] == "search_too_broad", "{answer:?}"),
        }
        assert!(took <= within, "{backend:?} {query} takes {took:?}");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_users_are_found_soon_among_two_million() {
    finds_soon(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_users_are_found_soon_among_two_million() {
    finds_soon(Backend::Postgres).await;
}
