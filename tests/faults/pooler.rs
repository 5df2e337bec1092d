//! Latchkey works with PgBouncer in transaction mode in front of PostgreSQL.

use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::command::without_limits;
use crate::server::Server;
use crate::start::free_port;
use crate::support::app::registration;
use crate::support::database::Database;
use crate::support::installed;
use crate::support::program::{Serving, failure, latchkey, out, run};

/// User id of `nobody`. Like PostgreSQL, PgBouncer refuses to run as root.
const UNPRIVILEGED: u32 = 65534;
const CLIENTS: usize = 32;
const DURATION: Duration = Duration::from_secs(8);

/// A running PgBouncer, stopped when dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
}

impl PgBouncer {
    /// Starts it in front of the server whose socket is in `home`. Returns `None` if PgBouncer is not installed.
    pub fn start(home: &Path, settings: &str) -> Option<Self> {
        let program = Path::new("/usr/sbin/pgbouncer");
        let program = installed(program.is_file().then_some(program), "PGBOUNCER", "pgbouncer")?;
        let port = free_port();
        let file = home.join(format!("pgbouncer-{port}.ini"));
        let text = format!(
            "[databases]\npostgres = host={} port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 2\nmax_client_conn = 200\n{settings}\n",
            home.display()
        );
        std::fs::write(&file, text).unwrap();
        chown(&file, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        let mut command = Command::new(program);
        let child = command.arg(&file).uid(UNPRIVILEGED).gid(UNPRIVILEGED).current_dir("/");
        let child = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "PgBouncer does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port })
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A user who uses both replicas and checks each response.
struct User<'u> {
    replicas: &'u [Client],
    name: String,
    /// Counts responses with the status 503 or 504.
    unavailable: &'u AtomicUsize,
    /// Counts successes.
    successful: &'u AtomicUsize,
}

impl User<'_> {
    fn replica(&self, number: usize) -> &Client {
        &self.replicas[number % self.replicas.len()]
    }

    /// Counts a response and returns it if it is a success. It must be a success, 503 or 504.
    fn success(&self, answer: Option<Answer>) -> Option<Answer> {
        let answer = answer.expect("the server runs");
        assert!(answer.is_success() || matches!(answer.status, 503 | 504), "{}: {answer:?}", self.name);
        let counter = if answer.is_success() { self.successful } else { self.unavailable };
        counter.fetch_add(1, Ordering::Relaxed);
        answer.is_success().then_some(answer)
    }

    /// Registers, then signs in and uses the token repeatedly.
    async fn run(&self) {
        let email = format!("{}@example.org", self.name);
        let mut body = registration(&email);
        body["name"] = json!(self.name);
        let began = Instant::now();
        while self.success(self.replica(0).request("POST", "/register", "", Some(body.clone())).await).is_none() {}
        let mut number = 0;
        while began.elapsed() < DURATION {
            let Some(signed_in) = self.success(self.replica(number).sign_in(&email).await) else { continue };
            let token = signed_in.text("access_token");
            for _ in 0..5 {
                number += 1;
                self.use_token(&token, number).await;
            }
        }
    }

    /// Uses a token on both replicas and checks that the responses are about this user.
    async fn use_token(&self, token: &str, number: usize) {
        let (first, second) = (self.replica(number), self.replica(number + 1));
        if let Some(hello) = self.success(first.request("GET", "/protected-route", token, None).await) {
            assert_eq!(hello.body, json!({ "hello": self.name }), "{hello:?}");
        }
        let website = format!("https://{}.example/{number}", self.name);
        let changed = first.request("PATCH", "/me", token, Some(json!({ "website": website }))).await;
        if self.success(changed).is_some()
            && let Some(me) = self.success(second.request("GET", "/me", token, None).await)
        {
            assert_eq!((me.text("website"), me.text("name")), (website, self.name.clone()), "{me:?}");
        }
        if let Some(page) = self.success(second.write_page(token, &self.name).await) {
            let path = format!("/page/{}", page.number("id"));
            if let Some(read) = self.success(first.request("GET", &path, token, None).await) {
                assert_eq!(read.text("title"), self.name, "{read:?}");
            }
        }
    }
}

async fn all_responses_are_right(pooler: &PgBouncer, about: &str) {
    let place = TempDir::new().unwrap();
    let replicas: Vec<Serving> = (0..2)
        .map(|_| {
            let mut command = without_limits(place.path(), pooler.url());
            // The cache would hide wrong results of statements.
            Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"))
        })
        .collect();
    for replica in &replicas {
        replica.line("reached through a pooler");
    }
    let clients: Vec<Client> = replicas.iter().map(Client::of).collect();
    let (unavailable, successful) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let users: Vec<User<'_>> = (0..CLIENTS)
        .map(|number| User {
            replicas: &clients,
            name: format!("{about}{number}"),
            unavailable: &unavailable,
            successful: &successful,
        })
        .collect();
    join_all(users.iter().map(User::run)).await;
    let (unavailable, successful) = (unavailable.load(Ordering::Relaxed), successful.load(Ordering::Relaxed));
    println!("{about}: {successful} requests succeeded, {unavailable} returned 503 or 504, no response was wrong");
    assert!(successful > 10 * unavailable, "{successful} succeeded, {unavailable} returned 503 or 504");
    for client in &clients {
        let ready = client.available("GET", "/health/ready", "").await;
        assert_eq!(ready.status, 200, "{ready:?}");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn behind_a_transaction_pooler_no_valid_token_is_rejected_and_no_response_is_wrong() {
    let home = TempDir::new().unwrap();
    let Some(_server) = Server::start(home.path(), &[]) else { return };
    let Some(strict) = PgBouncer::start(home.path(), "") else { return };
    all_responses_are_right(&strict, "strict").await;
    // This one drops session options without an error.
    let lax = PgBouncer::start(home.path(), "ignore_startup_parameters = options").unwrap();
    all_responses_are_right(&lax, "relaxed").await;

    let place = TempDir::new().unwrap();
    let url = format!("{}?options=-csearch_path%3Dother", lax.url());
    let message = failure(&run(latchkey(place.path(), &[]).env("DATABASE_URL", url)));
    assert!(message.contains("drops the parameter options"), "{message}");
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_restore_through_a_transaction_pooler_detects_a_server_before_it_migrates() {
    let (home, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let Some(pooler) = PgBouncer::start(home.path(), "") else { return };
    let command = |url: &str, arguments: &[&str]| {
        let mut command = latchkey(place.path(), arguments);
        command.env("DATABASE_URL", url);
        command
    };
    out(&run(&mut command(&server.url(), &["migrate", "up"])));
    out(&run(&mut command(&server.url(), &["backup", "create", "backup"])));
    let serving = Serving::start(&mut command(&server.url(), &[]));
    serving.address();
    out(&run(&mut command(&server.url(), &["migrate", "down", "--yes"])));
    let migrations = "SELECT version AS row FROM __diesel_schema_migrations ORDER BY version";
    let before = Database::at(&server.url()).rows(migrations).await;
    let restore = ["backup", "restore", "backup", "--replace"];
    let message = failure(&run(&mut command(&pooler.url(), &restore)));
    assert!(message.contains("nothing was changed, because a program uses the target database"), "{message}");
    assert_eq!(Database::at(&server.url()).rows(migrations).await, before, "the schema is not migrated");
    drop(serving);
    out(&run(&mut command(&pooler.url(), &restore)));
    assert_eq!(Database::at(&server.url()).rows(migrations).await.len(), before.len() + 1);
}
