//! Accounts that own a million keys or pages: to disable or delete one takes no longer than any other change, and nobody
//! else notices what follows. `FAULT_CYCLES=20` is a million; each cycle is 50,000.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use latchkey::db::Conn;
use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::cycles;
use crate::support::Backend;
use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

/// How long a change may take that ends all of it.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long others are watched, before the change and after it.
const WATCH: Duration = Duration::from_secs(5);
/// By how much others may take longer meanwhile.
const FACTOR: u32 = 2;
/// What a busy machine makes of any request now and then.
const NOISE: Duration = Duration::from_millis(10);
/// How long the background may take over each thousand rows, on a slow disk.
const PER_THOUSAND: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Objects {
    Keys,
    Pages,
}

fn most() -> usize {
    (cycles() * 50_000).min(1_000_000)
}

/// Runs SQL however long it takes.
async fn seed(database: &Database, sql: String) {
    let run = move |conn: &mut Conn| match conn {
        Conn::Postgres(conn) => Ok(conn.batch_execute(&format!("SET statement_timeout = 0; {sql}; ANALYZE"))?),
        Conn::Sqlite(conn) => Ok(conn.batch_execute(&sql)?),
    };
    database.open().with_connection(run).await.unwrap();
}

/// Gives that many live issued keys, or pages, to a user.
async fn give(database: &Database, user: i64, what: Objects, count: usize) {
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let then = "'2026-01-01 00:00:00'";
    let sql = match what {
        Objects::Keys => format!(
            "{numbers} INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, digest, created_at, order_id)
             SELECT {user}, TRUE, 'sold key', CASE i % 2 WHEN 0 THEN 'pages:read' ELSE '' END, 'translate:use', 'digest {user} ' || i, {then}, 'order ' || i FROM n"
        ),
        Objects::Pages => format!(
            "{numbers} INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by)
             SELECT {user}, 'title', 'body', 1, {then}, {then}, {user} FROM n"
        ),
    };
    seed(database, sql).await;
}

/// The time that 99 of 100 requests of somebody else take: reads from memory and from the database, lists, and changes.
async fn others(client: &Client, token: &str) -> Duration {
    let page = client.write_page(token, "mine").await.unwrap().body["id"].clone();
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < WATCH {
        let text = json!({ "title": "again", "body": "text" });
        for (method, path, body) in [
            ("GET", "/me".to_owned(), None),
            ("GET", format!("/page/{page}"), None),
            ("PUT", format!("/page/{page}"), Some(text)),
            ("GET", "/page/?size=10".to_owned(), None),
            ("GET", "/keys?limit=10".to_owned(), None),
        ] {
            let answer = client.ask(method, &path, token, body).await.unwrap();
            assert!(answer.is_good(), "{method} {path}: {answer:?}");
            took.push(answer.took);
        }
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

struct World<'a> {
    database: &'a Database,
    client: Client,
    root: String,
}

impl World<'_> {
    /// Does something to an account, and watches others before and after. The audit entry that sums it up.
    async fn change(&self, backend: Backend, method: &str, user: i64, what: Objects) {
        let before = others(&self.client, &self.root).await;
        let body = (method == "PATCH").then(|| json!({ "disabled": true }));
        let changed = self.client.ask(method, &format!("/users/{user}"), &self.root, body).await.unwrap();
        assert!(changed.is_good() && changed.took <= AT_ONCE, "{method} with {} {what:?}: {changed:?}", most());
        let began = Instant::now();
        let pending = self.database.number("SELECT count(*) FROM account_cleanups").await;
        assert_eq!(pending, 1, "the rows follow");
        let after = others(&self.client, &self.root).await;
        println!(
            "{backend:?}: {method} with {} {what:?} in {:?}; p99 of others {before:?} before, {after:?} after",
            most(),
            changed.took
        );
        assert!(after <= (before * FACTOR).max(before + NOISE), "{after:?} after {before:?}");
        self.is_done(began).await;
    }

    /// Waits until all rows have followed.
    async fn is_done(&self, began: Instant) {
        let longest = PER_THOUSAND * u32::try_from(most() / 1_000 + 5).unwrap();
        while self.database.number("SELECT count(*) FROM account_cleanups").await > 0 {
            assert!(began.elapsed() < longest, "the rest goes on");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("  done after {:?}", began.elapsed());
    }

    /// The last entry of this action about this user.
    async fn detail(&self, action: &str, user: i64) -> String {
        let sql = format!(
            "SELECT detail AS row FROM audit_entries WHERE action = '{action}' AND target = 'user:{user}' ORDER BY id DESC LIMIT 1"
        );
        self.database.rows(sql).await.remove(0)
    }
}

async fn any_size_is_no_matter(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let start = || {
        let mut command = latchkey(home.path(), &[]);
        command.env("DATABASE_URL", &database.url).env("LATCHKEY__LIMITS__ENABLED", "false");
        // A million entries of the trail are as many lines.
        command.env("RUST_LOG", "warn,latchkey::server=info");
        Serving::start(&mut command)
    };
    let serving = start();
    let client = Client::of(&serving);
    for name in ["root", "keys", "pages", "killed"] {
        client.register(&format!("{name}@example.org")).await.unwrap();
    }
    database.execute("UPDATE users SET role = 'admin' WHERE id = 1").await;
    let root = client.sign_in("root@example.org").await.unwrap().text("access_token");
    give(&database, 2, Objects::Keys, most()).await;
    give(&database, 3, Objects::Pages, most()).await;
    give(&database, 4, Objects::Keys, most()).await;
    let world = World { database: &database, client, root };

    // Half of the keys act for their user.
    let token = world.client.sign_in("keys@example.org").await.unwrap().text("access_token");
    let passwords = json!({ "current_password": PASSWORD, "new_password": "another password" });
    let changed = world.client.ask("PUT", "/me/password", &token, Some(passwords)).await.unwrap();
    assert!(changed.is_good(), "{changed:?}");
    println!("{backend:?}: a new password with {} keys in {:?}, most of it for hashes", most(), changed.took);
    world.is_done(Instant::now()).await;
    assert_eq!(world.detail("user.cleanup", 2).await, format!("{} issued keys", most() / 2));

    world.change(backend, "PATCH", 2, Objects::Keys).await;
    assert_eq!(world.detail("user.cleanup", 2).await, format!("{} issued keys", most() / 2));
    let live = "SELECT count(*) FROM api_keys WHERE owner_id = 2 AND revoked_at IS NULL";
    assert_eq!(database.number(live).await, 0);
    // With as many receipts that ended before.
    let again = world.client.ask("PATCH", "/users/2", &world.root, Some(json!({ "disabled": false }))).await.unwrap();
    assert!(again.is_good() && again.took <= AT_ONCE, "{again:?}");

    world.change(backend, "DELETE", 3, Objects::Pages).await;
    assert_eq!(world.detail("user.cleanup", 3).await, format!("0 issued keys, {} pages", most()));

    let deleted = world.client.ask("DELETE", "/users/4", &world.root, None).await.unwrap();
    assert!(deleted.is_good() && deleted.took <= AT_ONCE, "{deleted:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    serving.signal("-KILL");
    drop(serving);
    let began = Instant::now();
    let serving = start();
    let world = World { client: Client::of(&serving), ..world };
    world.is_done(began).await;
    assert_eq!(world.detail("user.cleanup", 4).await, format!("{} issued keys, 0 pages", most()));
    let told = "SELECT count(*) FROM audit_entries WHERE action = 'key.revoke' AND subject_id = 4";
    assert_eq!(database.number(told).await, i64::try_from(most()).unwrap(), "each key has its entry");
    assert_eq!(database.number("SELECT count(*) FROM users").await, 2);
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_an_account_of_any_size_is_ended_at_once_and_nobody_else_notices() {
    any_size_is_no_matter(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_an_account_of_any_size_is_ended_at_once_and_nobody_else_notices() {
    any_size_is_no_matter(Backend::Postgres).await;
}
