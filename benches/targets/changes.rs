//! Measures the rate of credential changes against PostgreSQL's rate of one-row updates, and whether changes share
//! commits.

use std::io::Write;
use std::process::Stdio;

use crate::Extent;
use crate::database::{Backend, Database};
use crate::durable::Durable;
use crate::load::{percentile, wrk_changes};
use crate::population::{Population, execute};
use crate::postgres::Cluster;
use crate::process::Server;
use crate::report::{Report, Row};

const USERS: u64 = 1_000;
/// Additional delay of a commit in microseconds, as on a slow disk.
const SLOW_COMMIT: u32 = 2_000;
/// Changes a cached field.
const CHANGE: &str = r#"{"name":"Renamed"}"#;

/// One-row updates per second, each in a transaction, by as many clients as send the changes.
fn one_row_updates(cluster: &Cluster, seconds: u64) -> f64 {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    write!(script, "\\set id random(1, {USERS})\nUPDATE updated SET n = n + 1 WHERE id = :id;\n").unwrap();
    let mut pgbench = cluster.command("pgbench");
    pgbench.args(["--no-vacuum", "--protocol=prepared", "--client=32", "--jobs=1", &format!("--time={seconds}")]);
    // pgbench runs as another user, who cannot read the file, so it reads the script from standard input.
    let script = script.reopen().unwrap();
    let ran = pgbench.args(["--file=-", &cluster.url()]).stdin(script).stdout(Stdio::piped()).output().unwrap();
    let output = String::from_utf8_lossy(&ran.stdout);
    let rate = output.lines().find_map(|line| line.strip_prefix("tps = "));
    rate.and_then(|rate| rate.split(' ').next()).unwrap_or_else(|| panic!("{output}")).parse().unwrap()
}

/// Delays each flush of the write-ahead log, as on a slow disk.
fn delay_commits(database: &Database, micros: u32) {
    // ALTER SYSTEM must not run in a transaction with another statement.
    execute(database, &format!("ALTER SYSTEM SET commit_delay = {micros}"));
    execute(database, "ALTER SYSTEM SET commit_siblings = 0");
    execute(database, "SELECT pg_reload_conf()");
}

/// Compares `PATCH /me` by 32 connections with one-row updates by as many clients, and slow commits with fast ones.
/// Changes that commit together wait only once.
pub fn against_one_row_updates(backend: Backend, extent: &Extent, report: &mut Report) {
    let durable = Durable::create(backend);
    let Some(cluster) = durable.cluster() else { return };
    let population = Population::fill(durable.database(), USERS, USERS);
    let table = format!(
        "CREATE TABLE updated AS SELECT i AS id, 0 AS n FROM generate_series(1, {USERS}) i; ALTER TABLE updated ADD PRIMARY KEY (id)"
    );
    execute(&population.database, &table);
    let server = Server::start(&population.database, &[]);
    let change = || wrk_changes(server.address, "/me", CHANGE, &population.file(), extent.seconds).rate();
    let (mut changes, mut updates, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..extent.pairs {
        updates.push(one_row_updates(cluster, extent.seconds));
        changes.push(change());
        delay_commits(&population.database, SLOW_COMMIT);
        slow.push(change());
        delay_commits(&population.database, 0);
    }
    let [changes, updates, slow] = [changes, updates, slow].map(|rates| percentile(&rates, 50));
    report.add(
        Row::of("changes of credentials by 32 connections against one-row updates", backend)
            .at_least(0.19, changes / updates)
            .showing(format!("{changes:.0} of {updates:.0} a second")),
    );
    report.add(
        Row::of("changes of credentials while each commit waits 2 ms more, against without", backend)
            .at_least(0.8, slow / changes)
            .showing(format!("{slow:.0} of {changes:.0} a second")),
    );
}
