//! Measures reads and changes while a backup of a large database is made.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::Extent;
use crate::database::{Backend, Database};
use crate::durable::Durable;
use crate::load::{Connection, millis, percentile, response_times};
use crate::population::{Population, execute};
use crate::process::Server;
use crate::report::{Report, Row};

const USERS: u64 = 1_000;
/// Connections that send changes without pause.
const WRITERS: usize = 8;
/// Length of the text of a page in bytes.
const PAGE_LENGTH: u64 = 4_000;
const GUARDED: &str = "/protected-route";

/// Adds pages until the database has about this many bytes.
fn add_pages(database: &Database, bytes: u64) {
    let pages = bytes / PAGE_LENGTH;
    let numbers = match database.backend {
        Backend::Sqlite => {
            format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {pages})")
        }
        Backend::Postgres => format!("WITH n AS (SELECT generate_series(1, {pages}) AS i)"),
    };
    // PostgreSQL compresses texts that repeat, so each text is different.
    let text = match database.backend {
        Backend::Sqlite => format!("hex(randomblob({}))", PAGE_LENGTH / 2),
        Backend::Postgres => {
            format!(
                "(SELECT string_agg(md5(i::text || '-' || j::text), '') FROM generate_series(1, {}) j)",
                PAGE_LENGTH / 32
            )
        }
    };
    let since = "'2026-01-01 00:00:00'";
    execute(
        database,
        &format!(
            "{numbers} INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by)
             SELECT 1 + i % {USERS}, 'Page ' || i, {text}, 1, {since}, {since}, 1 FROM n"
        ),
    );
}

/// Response times in milliseconds.
#[derive(Default)]
struct Times {
    reads: Vec<f64>,
    changes: Vec<f64>,
}

/// Sends changes by [`WRITERS`] connections without pause, and guarded reads at a constant rate, while `work` runs.
/// Panics if a response is an error.
fn load_during(server: SocketAddr, population: &Population, work: impl FnOnce()) -> Times {
    let (is_over, mut times) = (AtomicBool::new(false), Times::default());
    thread::scope(|scope| {
        let changes = scope.spawn(|| change_until(server, &population.tokens[..WRITERS], &is_over));
        let reads = scope.spawn(|| {
            let mut reads = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                reads.extend(response_times(server, GUARDED, &population.tokens[WRITERS], Duration::from_secs(1)));
            }
            reads
        });
        work();
        is_over.store(true, Ordering::Relaxed);
        times = Times { reads: millis(&reads.join().unwrap()), changes: millis(&changes.join().unwrap()) };
    });
    times
}

fn change_until(server: SocketAddr, tokens: &[String], is_over: &AtomicBool) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let writers = tokens.iter().map(|token| async move {
        let mut connection = Connection::open(server).await;
        let mut took = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let body = format!(r#"{{"name":"Renamed {}"}}"#, took.len());
            let length = body.len();
            let request = format!(
                "PATCH /me HTTP/1.1\r\nHost: bench\r\nToken: {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            );
            let sent = Instant::now();
            let status = connection.send(&request).await;
            assert_eq!(status, 200, "change {} after {:?}", took.len(), sent.elapsed());
            took.push(sent.elapsed());
        }
        took
    });
    runtime.block_on(join_all(writers)).concat()
}

/// Makes a backup with the program, and returns its size in bytes and how long it took.
fn create_backup(database: &Database) -> (u64, Duration) {
    let place = TempDir::with_prefix("latchkey-backup-").unwrap();
    let file = place.path().join("backup");
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.env("DATABASE_URL", &database.url).args(["backup", "create"]).arg(&file).stdout(Stdio::null());
    assert!(command.status().expect("the program runs").success());
    (std::fs::metadata(file).unwrap().len(), began.elapsed())
}

/// Compares guarded reads during a backup under changes without pause with those under the same changes alone, and
/// measures the changes. No request may fail.
pub fn under_changes(backend: Backend, extent: &Extent, report: &mut Report) {
    // With durable commits.
    let durable = Durable::create(backend);
    let population = Population::fill(durable.database(), USERS, USERS);
    add_pages(&population.database, extent.backup_bytes);
    let server = Server::start(&population.database, &[]);
    let address = server.address;
    let idle = millis(&response_times(address, GUARDED, &population.tokens[WRITERS], extent.hashing));
    let without = load_during(address, &population, || thread::sleep(extent.hashing));
    let mut backup = (0, Duration::ZERO);
    let during = load_during(address, &population, || backup = create_backup(&population.database));
    let size = format!("{:.2} GB in {:.1} s", backup.0 as f64 / 1e9, backup.1.as_secs_f64());
    let p99 = |times: &[f64]| percentile(times, 99);
    let [idle, changing, reads] = [&idle, &without.reads, &during.reads].map(|times| p99(times));
    let name = format!("guard p99 during a backup and changes by {WRITERS} connections, against the changes alone");
    report.add(
        Row::of(name, backend)
            .at_most(2.0, reads / changing)
            .showing(format!("{reads:.2} against {changing:.2} ms, and {idle:.2} ms idle; {size}")),
    );
    let [changing, changes] = [&without.changes, &during.changes].map(|times| p99(times));
    report.add(
        Row::of("p99 of these changes", backend)
            .at_most(64.0, changes)
            .unit("ms")
            .showing(format!("without a backup {changing:.1} ms; {} changes, none failed", during.changes.len())),
    );
}
