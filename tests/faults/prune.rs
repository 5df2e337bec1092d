//! `latchkey audit export` and `latchkey audit prune` are killed at any moment.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::cycles;
use crate::fill::fill;
use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::{latchkey, out, run};

/// Number of entries before the bound, and after it.
const OLD: i64 = 20_000;
const KEPT: i64 = 100;
const BOUND: &str = "2026-01-01";

/// A database with old entries and newer ones; `None` if PostgreSQL is required and missing.
async fn database(backend: Backend) -> Option<Database> {
    let database = Database::create(backend)?;
    database.open().migrate_up().await.unwrap();
    for (number, day) in [(OLD, "2025-12-31"), (KEPT, "2026-01-02")] {
        let entries = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number})
             INSERT INTO audit_entries (at, actor, credential, scopes, action, target, changed, outcome)
             SELECT '{day} 12:00:00', 'user:7', 'none', '', 'page.update', 'page:1', '', 'success' FROM n"
        );
        fill(&database, entries).await;
    }
    Some(database)
}

fn command(home: &Path, database: &Database, arguments: &[&str]) -> Command {
    let mut command = latchkey(home, arguments);
    command.env("DATABASE_URL", &database.url);
    command
}

/// Starts a command and kills it after `delay`. Returns whether it had ended before.
fn kill_after(mut command: Command, delay: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let has_ended = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    has_ended
}

/// The number of entries that are left, without those about removals.
async fn left(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM audit_entries WHERE action <> 'audit.prune'").await
}

/// The number of entries that are left, the lowest id, and the number of entries about removals. One statement reads
/// them: PostgreSQL may still complete a transaction whose client was killed.
async fn state(database: &Database) -> [i64; 3] {
    let state = "SELECT CAST(sum(CASE action WHEN 'audit.prune' THEN 0 ELSE 1 END) AS TEXT) || ' '
            || CAST(min(id) AS TEXT) || ' ' || CAST(sum(CASE action WHEN 'audit.prune' THEN 1 ELSE 0 END) AS TEXT) AS row
        FROM audit_entries";
    let row = database.rows(state).await.remove(0);
    let numbers: Vec<i64> = row.split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// Kills a prune again and again until it is complete. Returns the number of kills, and of those within the removal.
async fn kill_until_pruned(backend: Backend, delay: impl Fn(u64) -> Duration) -> Option<[u64; 2]> {
    let database = database(backend).await?;
    let home = TempDir::new().unwrap();
    out(&run(&mut command(home.path(), &database, &["audit", "export", "--before", BOUND, "trail.gz"])));
    let prune = ["audit", "prune", "--before", BOUND, "--exported", "trail.gz"];
    let records = "SELECT CAST(version_before AS TEXT) || ' ' || CAST(version_after AS TEXT) || ' ' || detail AS row
        FROM audit_entries WHERE action = 'audit.prune'";
    let (mut before, mut kills, mut within) = (OLD + KEPT, 0, 0);
    while !kill_after(command(home.path(), &database, &prune), delay(kills)) && before > KEPT {
        let [after, first, recorded] = state(&database).await;
        assert!(KEPT <= after && after <= before, "{after} of {before}");
        assert!(after == OLD + KEPT || recorded == 1, "{after} are left, and {recorded} entries record it");
        // Only the oldest entries are gone.
        assert_eq!(first, OLD + KEPT - after + 1, "{after} are left");
        within += u64::from(KEPT < after && after < before);
        before = after;
        kills += 1;
    }
    out(&run(&mut command(home.path(), &database, &prune)));
    assert_eq!(left(&database).await, KEPT);
    let records = database.rows(records).await;
    let expected = format!("1 {} {OLD} entries, from before {BOUND}T00:00:00.000000Z, exported", OLD + 1);
    assert!(matches!(records.as_slice(), [only] if only.starts_with(&expected)), "{records:?}");
    Some([kills, within])
}

async fn a_killed_prune_can_be_repeated(backend: Backend) {
    let (mut kills, mut within) = (0, 0);
    let rounds = u64::try_from(4 * cycles()).unwrap();
    // On a fast machine, the removal can end between two kills: then more rounds follow.
    for round in 0..10 * rounds {
        if round >= rounds && within > 0 {
            break;
        }
        // The delays cover the start, the comparison with the export, and the removal.
        let delay = |kill: u64| Duration::from_millis(60 + 70 * kill + 13 * round);
        let Some([killed, removing]) = kill_until_pruned(backend, delay).await else { return };
        kills += killed;
        within += removing;
    }
    assert!(within > 0, "none of {kills} kills was within the removal");
    println!("{backend:?}: {kills} kills, {within} of them within the removal");
}

async fn a_killed_export_leaves_no_file_of_that_name(backend: Backend) {
    let Some(database) = database(backend).await else { return };
    let home = TempDir::new().unwrap();
    let (mut complete, mut partial) = (0, 0);
    for cycle in 0..10 * cycles() {
        let file = format!("{cycle}.ndjson");
        let export = command(home.path(), &database, &["audit", "export", "--before", BOUND, &file]);
        kill_after(export, Duration::from_millis(20 + 23 * u64::try_from(cycle % 20).unwrap()));
        partial += usize::from(home.path().join(format!(".{file}.part")).exists());
        if let Ok(text) = std::fs::read_to_string(home.path().join(&file)) {
            assert_eq!(text.lines().count(), usize::try_from(OLD).unwrap(), "a file with this name is complete");
            complete += 1;
        } else {
            out(&run(&mut command(home.path(), &database, &["audit", "export", "--before", BOUND, &file])));
            assert!(!home.path().join(format!(".{file}.part")).exists());
        }
    }
    assert_eq!(left(&database).await, OLD + KEPT);
    println!("{backend:?}: {complete} complete and {partial} partial files after {} kills", 10 * cycles());
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_prune_removes_only_what_is_recorded_and_can_be_repeated() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        a_killed_prune_can_be_repeated(backend).await;
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_export_leaves_a_complete_file_or_none() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        a_killed_export_leaves_no_file_of_that_name(backend).await;
    }
}
