//! A member who sends expensive requests on 64 connections does not slow other users.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::command::without_limits;
use crate::fill::fill;
use crate::resources::ProcessResources;
use crate::server::Server;
use crate::support::database::Database;
use crate::support::program::Serving;

/// Connections of the member.
const CONNECTIONS: usize = 64;
/// How long the flood lasts.
const DURATION: Duration = Duration::from_secs(8);
/// Maximum p99 of other users, with a margin for a machine without a spare core.
const MAX_P99: Duration = Duration::from_secs(1);

/// Maximum size of SQLite's write-ahead log in megabytes.
const MAX_LOG_SIZE: u64 = 100;

/// 20,000 pages of the first user.
const PAGES: &str = "INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    SELECT 1, 'page ' || i, 'text', 1, '2026-01-01 00:00:00', '2026-01-01 00:00:00', 1 FROM n";
/// 20,000 audit entries about them.
const ENTRIES: &str = "INSERT INTO audit_entries (at, actor, user_id, credential, scopes, action, changed, outcome)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    SELECT '2026-01-01 00:00:00', 'user:1', 1, 'password', '', 'page.update', '', 'success' FROM n";

async fn expensive_request(client: &Client, token: &str, number: usize) -> Option<Answer> {
    match number % 6 {
        0 | 1 => client.request("GET", "/page/?page=100&size=100", token, None).await,
        2 => client.request("GET", "/me/activity?limit=500&order=oldest", token, None).await,
        3 => client.request("GET", "/me/keys", token, None).await,
        4 => client.request("PATCH", "/me", token, Some(json!({ "website": format!("w{number}") }))).await,
        _ => client.write_page(token, "a page").await,
    }
}

/// Sends requests one after another until the flood is over. Returns the time of each.
async fn measure(client: &Client, token: &str, over: &AtomicBool) -> Vec<(&'static str, Duration)> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        for (about, answer) in [
            ("GET /me", client.request("GET", "/me", token, None).await),
            ("POST /page/", client.write_page(token, "mine").await),
            ("GET /health/ready", client.request("GET", "/health/ready", "", None).await),
            ("a wrong token", client.request("GET", "/me", "lkt_wrong", None).await),
        ] {
            let answer = answer.unwrap();
            let is_expected = if about == "a wrong token" { answer.status == 403 } else { answer.is_success() };
            assert!(is_expected, "{about}: {answer:?}");
            took.push((about, answer.took));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took
}

async fn flood_does_not_slow_others(url: &str) {
    let place = TempDir::new().unwrap();
    let mut command = without_limits(place.path(), url);
    let serving = Serving::start(command.env("RUST_LOG", "warn,latchkey=info,latchkey::access=warn"));
    let client = Client::of(&serving);
    let (member, other) = (client.new_user("ada@example.org").await, client.new_user("eve@example.org").await);
    let database = Database::at(url);
    for _ in 0..15 {
        fill(&database, PAGES).await;
    }
    for _ in 0..3 {
        fill(&database, ENTRIES).await;
    }

    let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let flood = join_all((0..CONNECTIONS).map(|number| {
        let (client, member, over, count) = (&client, &member, &over, &count);
        async move {
            let mut number = number;
            while !over.load(Ordering::Relaxed) {
                let answer = expensive_request(client, member, number).await.unwrap();
                assert!(answer.is_success() || answer.status == 503, "{answer:?}");
                count.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
        }
    }));
    let end = async {
        tokio::time::sleep(DURATION).await;
        let threads = ProcessResources::of(&serving).threads;
        over.store(true, Ordering::Relaxed);
        threads
    };
    let (_, took, threads) = tokio::join!(flood, measure(&client, &other, &over), end);
    assert!(threads < 40, "{threads} threads for a pool of 8");
    println!("{url}: {} requests of the member, {threads} threads", count.load(Ordering::Relaxed));
    if let Some(file) = url.strip_prefix("sqlite://") {
        let megabytes = std::fs::metadata(format!("{file}-wal")).unwrap().len() >> 20;
        println!("the write-ahead log has {megabytes} MB");
        assert!(megabytes < MAX_LOG_SIZE, "the write-ahead log has {megabytes} MB");
    }
    for about in ["GET /me", "POST /page/", "GET /health/ready", "a wrong token"] {
        let mut times: Vec<Duration> =
            took.iter().filter(|(request, _)| *request == about).map(|(_, took)| *took).collect();
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        println!("{about}: {} of another user, p50 {:?}, p99 {p99:?}", times.len(), times[times.len() / 2]);
        assert!(p99 < MAX_P99, "{about}: {p99:?}");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_flood_by_one_member_does_not_slow_other_users_on_sqlite() {
    let place = TempDir::new().unwrap();
    flood_does_not_slow_others(&format!("sqlite://{}", place.path().join("latchkey.db").display())).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_flood_by_one_member_does_not_slow_other_users_on_postgres() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    flood_does_not_slow_others(&server.url()).await;
}
