//! Two replicas on PostgreSQL see each other's revocations in time, even if commits are slow, a transaction stays open,
//! or a pooler is in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use futures_util::future::join_all;
use latchkey::db::Conn;
use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::command::without_limits;
use crate::cycles;
use crate::pooler::PgBouncer;
use crate::server::Server;
use crate::support::database::Database;
use crate::support::program::Serving;

/// Maximum time until another replica sees a revocation.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Clients that write without pause. There are fewer than connections, because each one occupies a connection until its
/// commit is done.
const WRITERS: usize = 4;
/// Commits wait for a receiver of the write-ahead log, which confirms it once in this time.
const COMMIT_DELAY: Duration = Duration::from_secs(1);

/// A replica with metrics.
struct Replica {
    client: Client,
    metrics: String,
    _home: TempDir,
    _serving: Serving,
}

impl Replica {
    fn start(url: &str) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = without_limits(home.path(), url);
        let serving = Serving::start(command.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0"));
        let line = serving.line("metrics on http://");
        let metrics = format!("http://{}", line.split_once("http://").unwrap().1.trim());
        Self { client: Client::of(&serving), metrics, _home: home, _serving: serving }
    }

    /// Number of cache lookups with this outcome.
    async fn cache_lookups(&self, outcome: &str) -> u64 {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = http.get(&self.metrics).send().await.unwrap().text().await.unwrap();
        let name = format!("latchkey_cache_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).expect("the outcome is counted").parse().unwrap()
    }

    async fn status(&self, token: &str) -> u16 {
        self.client.request("GET", "/protected-route", token, None).await.unwrap().status
    }

    /// Waits until this replica rejects a token that another one revoked at `ended`; returns the time since then.
    async fn rejected_after(&self, token: &str, ended: Instant) -> Duration {
        while self.status(token).await == 200 {
            assert!(ended.elapsed() < 10 * MAX_DELAY, "the revocation was missed");
        }
        ended.elapsed()
    }
}

/// Revokes tokens on one replica, one after another. Returns how long the other replica accepted each of them, sorted.
async fn revocation_delays(one: &Replica, other: &Replica, tokens: &[String]) -> Vec<Duration> {
    let mut took = Vec::new();
    for token in tokens {
        assert_eq!(other.status(token).await, 200);
        assert_eq!(one.client.request("DELETE", "/token", token, None).await.unwrap().status, 204);
        took.push(other.rejected_after(token, Instant::now()).await);
    }
    took.sort_unstable();
    took
}

/// Tokens of `count` new users.
async fn tokens(replica: &Replica, name: &str, count: usize) -> Vec<String> {
    let emails: Vec<String> = (0..count).map(|number| format!("{name}{number}@example.org")).collect();
    join_all(emails.iter().map(|email| replica.client.new_user(email))).await
}

#[tokio::test]
#[ignore = "takes long"]
async fn slow_commits_do_not_make_the_cache_uncertain_or_delay_revocations() {
    let home = TempDir::new().unwrap();
    let options: &[_] = &["-c", "synchronous_standby_names=pg_receivewal", "-c", "max_wal_senders=4"];
    let Some(server) = Server::start(home.path(), options) else { return };
    let receiver = server.receiver();
    let (one, other) = (Replica::start(&server.url()), Replica::start(&server.url()));
    let victims = tokens(&one, "victim", 5 * cycles()).await;
    let writers = tokens(&one, "writer", WRITERS).await;
    let reader = one.client.new_user("reader@example.org").await;
    assert_eq!(other.status(&reader).await, 200);
    let before = other.cache_lookups("uncertain").await;

    let done = AtomicBool::new(false);
    let is_done = || done.load(Ordering::Relaxed);
    let delay = async {
        while !is_done() {
            receiver.signal("-STOP");
            tokio::time::sleep(COMMIT_DELAY).await;
            receiver.signal("-CONT");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let write = join_all(writers.iter().map(|token| async {
        let mut slowest = Duration::ZERO;
        while !is_done() {
            let answer = one.client.request("PATCH", "/me", token, Some(json!({ "website": "x" }))).await.unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            slowest = slowest.max(answer.took);
        }
        slowest
    }));
    let read = async {
        let mut reads = 0;
        while !is_done() {
            assert_eq!(other.status(&reader).await, 200);
            reads += 1;
        }
        reads
    };
    let revoke = async {
        let took = revocation_delays(&one, &other, &victims).await;
        done.store(true, Ordering::Relaxed);
        took
    };
    let ((), slowest, reads, took) = tokio::join!(delay, write, read, revoke);
    let slowest = slowest.into_iter().max().unwrap();
    let uncertain = other.cache_lookups("uncertain").await - before;
    println!(
        "changes took up to {slowest:?}; {reads} reads, {uncertain} of them uncertain; revocations seen after {took:?}"
    );
    assert!(slowest > COMMIT_DELAY / 2, "commits were slow");
    assert_eq!(uncertain, 0);
    assert!(took[took.len() / 2] <= Duration::from_millis(100), "{took:?}");
    assert!(took.last().unwrap() <= &MAX_DELAY, "{took:?}");
}

#[tokio::test]
#[ignore = "takes long"]
async fn an_open_transaction_delays_only_its_own_revocations() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let (one, other) = (Replica::start(&server.url()), Replica::start(&server.url()));
    let victims = tokens(&one, "victim", 30).await;
    let late = one.client.new_user("late@example.org").await;
    assert_eq!(other.status(&late).await, 200);
    // A full run keeps it open for a minute.
    let open = Duration::from_secs(if cycles() > 3 { 60 } else { 10 });
    let before = other.cache_lookups("uncertain").await;

    let database = Database::at(&server.url()).open();
    let (began, begins) = tokio::sync::oneshot::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let transaction = database.with_connection(move |conn| {
        let Conn::Postgres(conn) = conn else { panic!("PostgreSQL") };
        let limits = "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0";
        conn.batch_execute(&format!("{limits}; BEGIN; DELETE FROM access_tokens WHERE user_id = 31"))?;
        began.send(()).unwrap();
        ends.recv().unwrap();
        Ok(conn.batch_execute("COMMIT")?)
    });
    let meanwhile = async {
        begins.await.unwrap();
        let opened = Instant::now();
        let mut took = Vec::new();
        for victims in victims.chunks(6) {
            took.extend(revocation_delays(&one, &other, victims).await);
            tokio::time::sleep(open / 6).await;
        }
        tokio::time::sleep(open.saturating_sub(opened.elapsed())).await;
        assert_eq!(other.status(&late).await, 200, "the transaction is not committed yet");
        end.send(()).unwrap();
        took
    };
    let (committed, took) = tokio::join!(transaction, meanwhile);
    committed.unwrap();
    let own = other.rejected_after(&late, Instant::now()).await;
    let slowest = took.iter().max().unwrap();
    println!("open for {open:?}: other revocations are seen within {slowest:?}, its own {own:?} after the commit");
    assert!(*slowest <= MAX_DELAY && own <= MAX_DELAY, "{took:?} {own:?}");
    assert_eq!(other.cache_lookups("uncertain").await, before);
}

#[tokio::test]
#[ignore = "takes long"]
async fn behind_a_transaction_pooler_the_cache_works_and_revocations_are_seen() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let Some(pooler) = PgBouncer::start(home.path(), "") else { return };
    let (one, other) = (Replica::start(&pooler.url()), Replica::start(&pooler.url()));
    let victims = tokens(&one, "victim", 5 * cycles()).await;
    let reader = one.client.new_user("reader@example.org").await;
    let (mut took, mut hits) = (Vec::new(), 0);
    for (number, victim) in victims.chunks(1).enumerate() {
        let before = other.cache_lookups("hit").await;
        for _ in 0..20 {
            assert_eq!(other.status(&reader).await, 200);
        }
        hits += other.cache_lookups("hit").await - before;
        // Ends the sessions between the pooler and PostgreSQL. Those between Latchkey and the pooler stay open.
        if number % 5 == 4 {
            let others = "pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            let end = format!("SELECT count(pg_terminate_backend(pid)) FROM {others}");
            Database::at(&server.url()).number(end).await;
            wait_until_ready(&one, &other).await;
        }
        took.extend(revocation_delays(&one, &other, victim).await);
    }
    println!("{hits} of {} reads from the cache; revocations seen after {took:?}", 20 * victims.len());
    assert!(hits > 15 * u64::try_from(victims.len()).unwrap());
    assert!(took.iter().all(|took| *took <= MAX_DELAY), "{took:?}");
}

/// Waits until both replicas have connections again.
async fn wait_until_ready(one: &Replica, other: &Replica) {
    for replica in [one, other] {
        while replica.client.request("GET", "/health/ready", "", None).await.unwrap().status != 200 {}
    }
}
