//! PgBouncer in transaction mode stands between Latchkey and PostgreSQL, and everything works.

use std::net::{TcpListener, TcpStream};
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
use crate::server::Server;
use crate::support::app::registration;
use crate::support::installed;
use crate::support::program::{Serving, failure, latchkey, run};

/// `nobody`: PgBouncer refuses to run as root, as PostgreSQL does.
const UNPRIVILEGED: u32 = 65534;
const CLIENTS: usize = 32;
const LASTS: Duration = Duration::from_secs(8);

/// A running PgBouncer, ended when dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
}

impl PgBouncer {
    /// In front of the server whose socket is in `home`; `None` if it is not installed.
    pub fn start(home: &Path, settings: &str) -> Option<Self> {
        let program = Path::new("/usr/sbin/pgbouncer");
        let program = installed(program.is_file().then_some(program), "PGBOUNCER", "pgbouncer")?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
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

/// One user who uses both replicas, and to whom nothing wrong may be said.
struct User<'u> {
    replicas: &'u [Client],
    name: String,
    busy: &'u AtomicUsize,
    done: &'u AtomicUsize,
}

impl User<'_> {
    fn replica(&self, turn: usize) -> &Client {
        &self.replicas[turn % self.replicas.len()]
    }

    /// The answer, unless the database had no time.
    fn fair(&self, answer: Option<Answer>) -> Option<Answer> {
        let answer = answer.expect("the program lives");
        assert!(answer.is_good() || matches!(answer.status, 503 | 504), "{}: {answer:?}", self.name);
        let counter = if answer.is_good() { self.done } else { self.busy };
        counter.fetch_add(1, Ordering::Relaxed);
        answer.is_good().then_some(answer)
    }

    async fn live(&self) {
        let email = format!("{}@example.org", self.name);
        let mut body = registration(&email);
        body["name"] = json!(self.name);
        let began = Instant::now();
        while self.fair(self.replica(0).ask("POST", "/register", "", Some(body.clone())).await).is_none() {}
        let mut turn = 0;
        while began.elapsed() < LASTS {
            let Some(signed_in) = self.fair(self.replica(turn).sign_in(&email).await) else { continue };
            let token = signed_in.text("access_token");
            for _ in 0..5 {
                turn += 1;
                self.use_token(&token, turn).await;
            }
        }
    }

    async fn use_token(&self, token: &str, turn: usize) {
        let (here, there) = (self.replica(turn), self.replica(turn + 1));
        if let Some(hello) = self.fair(here.ask("GET", "/protected-route", token, None).await) {
            assert_eq!(hello.body, json!({ "hello": self.name }));
        }
        let website = format!("https://{}.example/{turn}", self.name);
        let changed = here.ask("PATCH", "/me", token, Some(json!({ "website": website }))).await;
        if self.fair(changed).is_some()
            && let Some(me) = self.fair(there.ask("GET", "/me", token, None).await)
        {
            assert_eq!((&me.body["website"], &me.body["name"]), (&json!(website), &json!(self.name)));
        }
        if let Some(page) = self.fair(there.write_page(token, &self.name).await) {
            let path = format!("/page/{}", page.body["id"]);
            if let Some(read) = self.fair(here.ask("GET", &path, token, None).await) {
                assert_eq!(read.body["title"], json!(self.name));
            }
        }
    }
}

async fn serves_through(bouncer: &PgBouncer, about: &str) {
    let place = TempDir::new().unwrap();
    let replicas: Vec<Serving> = (0..2)
        .map(|_| {
            let mut command = latchkey(place.path(), &[]);
            command.env("DATABASE_URL", bouncer.url()).env("LATCHKEY__LIMITS__ENABLED", "false");
            // What the cache remembers hides wrong statements.
            Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"))
        })
        .collect();
    for replica in &replicas {
        replica.line("reached through a pooler");
    }
    let clients: Vec<Client> = replicas.iter().map(Client::of).collect();
    let (busy, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let users: Vec<User<'_>> = (0..CLIENTS)
        .map(|number| User { replicas: &clients, name: format!("{about}{number}"), busy: &busy, done: &done })
        .collect();
    join_all(users.iter().map(User::live)).await;
    let (busy, done) = (busy.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
    println!("{about}: {done} requests done, {busy} told to come back, none told anything wrong");
    assert!(done > 10 * busy, "{done} done, {busy} told to come back");
    for client in &clients {
        let ready = client.ask("GET", "/health/ready", "", None).await.unwrap();
        assert_eq!(ready.status, 200, "{ready:?}");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn behind_a_pooler_in_transaction_mode_no_valid_token_is_refused_and_no_answer_is_wrong() {
    let home = TempDir::new().unwrap();
    let Some(_server) = Server::start(home.path(), &[]) else { return };
    let Some(strict) = PgBouncer::start(home.path(), "") else { return };
    serves_through(&strict, "strict").await;
    // It drops what it is told of sessions, and says nothing.
    let lax = PgBouncer::start(home.path(), "ignore_startup_parameters = options").unwrap();
    serves_through(&lax, "relaxed").await;

    let place = TempDir::new().unwrap();
    let url = format!("{}?options=-csearch_path%3Dother", lax.url());
    let said = failure(&run(latchkey(place.path(), &[]).env("DATABASE_URL", url)));
    assert!(said.contains("drops the parameter options"), "{said}");
}
