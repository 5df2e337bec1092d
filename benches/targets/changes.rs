//! Changes of credentials: how many a second, of what PostgreSQL could update.

use std::io::Write;
use std::process::Stdio;

use crate::Extent;
use crate::database::Backend;
use crate::durable::Durable;
use crate::load::{percentile, wrk_changes};
use crate::population::Population;
use crate::postgres::Cluster;
use crate::process::Server;
use crate::report::{Report, Row};

const USERS: u64 = 1_000;
/// A name is part of what is cached.
const CHANGE: &str = r#"{"name":"Renamed"}"#;

/// One-row updates a second, each in a transaction, by as many clients as the changes come from.
fn one_row_updates(cluster: &Cluster, seconds: u64) -> f64 {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    write!(script, "\\set id random(1, {USERS})\nUPDATE updated SET n = n + 1 WHERE id = :id;\n").unwrap();
    let mut pgbench = cluster.command("pgbench");
    pgbench.args(["--no-vacuum", "--protocol=prepared", "--client=32", "--jobs=1", &format!("--time={seconds}")]);
    // It may not read files of ours, so the script comes by standard input.
    let script = script.reopen().unwrap();
    let ran = pgbench.args(["--file=-", &cluster.url()]).stdin(script).stdout(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
    rate.and_then(|rate| rate.split(' ').next()).unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

/// `PATCH /me` by 32 connections against one-row updates by as many clients.
pub fn against_one_row_updates(backend: Backend, extent: &Extent, report: &mut Report) {
    let durable = Durable::create(backend);
    let Some(cluster) = durable.cluster() else { return };
    let population = Population::fill(durable.database(), USERS, USERS);
    let table = format!(
        "CREATE TABLE updated AS SELECT i AS id, 0 AS n FROM generate_series(1, {USERS}) i; ALTER TABLE updated ADD PRIMARY KEY (id)"
    );
    crate::population::execute(&population.database, &table);
    let server = Server::start(&population.database, &[]);
    let (mut changes, mut updates) = (Vec::new(), Vec::new());
    for _ in 0..extent.pairs {
        updates.push(one_row_updates(cluster, extent.seconds));
        changes.push(wrk_changes(server.address, "/me", CHANGE, &population.file(), extent.seconds).rate());
    }
    let (changes, updates) = (percentile(&changes, 50), percentile(&updates, 50));
    report.add(
        Row::of("changes of credentials by 32 connections against one-row updates", backend)
            .at_least(0.19, changes / updates)
            .showing(format!("{changes:.0} of {updates:.0} a second")),
    );
}
