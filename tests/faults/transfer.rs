//! Backups, restores and copies that are killed, or whose disk is full.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::alone::full_disk::SmallDisk;
use crate::cycles;
use crate::fill::fill;
use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::{failure, latchkey, out, run};

/// The number of users, so that a transfer takes some time.
const USERS: usize = 20_000;

/// A database with many users, without a server.
async fn filled(backend: Backend, home: &Path) -> Option<Database> {
    let database = Database::create(backend)?;
    out(&run(&mut command(home, &database.url, &["migrate", "up"])));
    let numbers = match backend {
        Backend::Sqlite => format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {USERS})"),
        Backend::Postgres => format!("WITH n AS (SELECT i FROM generate_series(1, {USERS}) AS t(i))"),
    };
    let users = "INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at)";
    let columns = "'Adaline', 'x', 'u' || i || '@example.org', 'u' || i || '@example.org', '', 'h', '2026-01-01 00:00:00', '2026-01-01 00:00:00'";
    let query = match backend {
        Backend::Sqlite => format!("{users} {numbers} SELECT {columns} FROM n"),
        Backend::Postgres => format!("{numbers} {users} SELECT {columns} FROM n"),
    };
    let tokens = "INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date)
        SELECT id, 'digest' || id, '', created_at, created_at FROM users";
    fill(&database, format!("{query}; {tokens}")).await;
    Some(database)
}

fn command(home: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = latchkey(home, arguments);
    command.env("DATABASE_URL", url).env("TMPDIR", home);
    command
}

/// The tables of the database as a new backup describes them.
fn tables(home: &Path, url: &str) -> String {
    let directory = TempDir::new_in(home).unwrap();
    let file = directory.path().join("backup").display().to_string();
    let made = out(&run(&mut command(home, url, &["backup", "create", &file, "--json"])));
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let tables = made["tables"].as_array().unwrap().iter().filter(|table| table["name"] != "audit_entries");
    serde_json::to_string(&tables.collect::<Vec<_>>()).unwrap()
}

/// Kills the command at moments that are spread over its duration, at least 20 times in a full run, and repeats those
/// that ended before. `check` receives whether the command had succeeded before the kill. Returns the number of kills.
fn killed(mut start: impl FnMut() -> Command, mut check: impl FnMut(bool)) -> u32 {
    let mut first = start();
    let began = Instant::now();
    out(&run(&mut first));
    let mut whole = began.elapsed();
    check(true);
    let wanted = 3 * u32::try_from(cycles()).unwrap();
    let (mut killed, mut attempts) = (0, 0);
    while killed < wanted {
        assert!(attempts < 5 * wanted, "only {killed} of {attempts} were interrupted");
        attempts += 1;
        let mut child = start().spawn().unwrap();
        std::thread::sleep(whole.mul_f64((f64::from(killed) + 0.5) / f64::from(wanted)));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(ended.is_none_or(|status| status.success()), "it failed before it was killed: {output:?}");
        match ended {
            None => killed += 1,
            // The machine is less busy than before.
            Some(_) => whole = whole.mul_f64(0.8),
        }
        check(ended.is_some());
    }
    killed
}

async fn backup_survives(backend: Backend) {
    let home = TempDir::new().unwrap();
    let Some(source) = filled(backend, home.path()).await else { return };
    let before = tables(home.path(), &source.url);
    let file = home.path().join("backup");
    let name = file.display().to_string();
    let kills = killed(
        || {
            let _ = std::fs::remove_file(&file);
            command(home.path(), &source.url, &["backup", "create", &name])
        },
        |succeeded| {
            assert!(file.exists() || !succeeded);
            if file.exists() {
                out(&run(&mut command(home.path(), &source.url, &["backup", "verify", &name])));
            }
        },
    );
    assert_eq!(tables(home.path(), &source.url), before, "the source is unchanged");
    println!("{backend:?}: {kills} backups were interrupted");
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_backup_of_sqlite_leaves_no_incomplete_file_under_its_name() {
    backup_survives(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_backup_of_postgres_leaves_no_incomplete_file_under_its_name() {
    backup_survives(Backend::Postgres).await;
}

/// Kills `arguments`, which write all rows of `source` to `target`, and checks that `target` has either its old rows or
/// all new ones.
async fn replacement_survives(source: &Database, target: &Database, home: &Path, arguments: &[&str], of: &Database) {
    let new = tables(home, &source.url);
    out(&run(&mut command(home, &target.url, &["migrate", "up"])));
    let old_user = "INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at) \
        VALUES ('Old', '', 'old@example.org', 'old@example.org', '', '', '2026-01-01 00:00:00', '2026-01-01 00:00:00')";
    target.execute(old_user).await;
    let old = tables(home, &target.url);
    let old_backup = home.join("old").display().to_string();
    out(&run(&mut command(home, &target.url, &["backup", "create", &old_backup])));
    let kills = killed(
        || {
            // The server of a killed process may hold its locks for a moment.
            let began = Instant::now();
            loop {
                let output = run(&mut command(home, &target.url, &["backup", "restore", &old_backup, "--replace"]));
                if output.status.success() {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(30), "the locks of a killed process: {output:?}");
            }
            assert_eq!(tables(home, &target.url), old);
            command(home, &of.url, arguments)
        },
        |succeeded| {
            let found = tables(home, &target.url);
            assert!(found == new || (!succeeded && found == old), "{found}");
        },
    );
    assert_eq!(tables(home, &source.url), new, "the source is unchanged");
    println!("{:?} to {:?}: {kills} times {arguments:?} was interrupted", source.backend, target.backend);
}

async fn copy_survives(from: Backend, to: Backend) {
    let home = TempDir::new().unwrap();
    let (Some(source), Some(target)) = (filled(from, home.path()).await, Database::create(to)) else { return };
    let arguments = ["copy", "--to", &target.url, "--replace"];
    replacement_survives(&source, &target, home.path(), &arguments, &source).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_copy_leaves_the_old_or_all_new_rows_in_postgres() {
    copy_survives(Backend::Sqlite, Backend::Postgres).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_copy_leaves_the_old_or_all_new_rows_in_sqlite() {
    copy_survives(Backend::Postgres, Backend::Sqlite).await;
}

async fn restore_survives(to: Backend) {
    let home = TempDir::new().unwrap();
    let (Some(source), Some(target)) = (filled(Backend::Sqlite, home.path()).await, Database::create(to)) else {
        return;
    };
    let file = home.path().join("backup").display().to_string();
    out(&run(&mut command(home.path(), &source.url, &["backup", "create", &file])));
    let bytes = std::fs::read(&file).unwrap();
    let arguments = ["backup", "restore", &file, "--replace"];
    replacement_survives(&source, &target, home.path(), &arguments, &target).await;
    assert!(std::fs::read(&file).unwrap() == bytes, "the backup is unchanged");
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_restore_leaves_the_old_or_all_new_rows_in_sqlite() {
    restore_survives(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_killed_restore_leaves_the_old_or_all_new_rows_in_postgres() {
    restore_survives(Backend::Postgres).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_full_disk_is_reported_and_leaves_no_partial_file() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let home = TempDir::new().unwrap();
    let whole = home.path().join("whole").display().to_string();
    let target = disk.path().join("target");
    let (name, url) = (target.display().to_string(), format!("sqlite://{}", target.display()));
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(source) = filled(backend, home.path()).await else { return };
        let _ = std::fs::remove_file(&whole);
        out(&run(&mut command(home.path(), &source.url, &["backup", "create", &whole])));
        let commands = [
            command(home.path(), &source.url, &["backup", "create", &name]),
            command(home.path(), &source.url, &["copy", "--to", &url]),
            command(home.path(), &url, &["backup", "restore", &whole]),
        ];
        for mut command in commands {
            let message = failure(&run(&mut command));
            let is_clear =
                ["the disk is full: free space", "No space left on device"].iter().any(|text| message.contains(text));
            assert!(is_clear && message.contains(&name), "{message}");
            assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0, "nothing is left: {message}");
        }
        let mut to_stdout = command(home.path(), &source.url, &["backup", "create", "-"]);
        let message = failure(&run(to_stdout.env("TMPDIR", disk.path())));
        assert!(message.contains("full") || message.contains("No space left"), "{message}");
        assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0, "nothing is left: {message}");
    }
}
