//! The commands `latchkey audit export` and `latchkey audit prune`.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use latchkey::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::add_entries;
use crate::support::database::Database;
use crate::support::program::{failure, latchkey, out, run};
use crate::support::{App, Backend, Credential, Profile, specify_database};

/// A time some days ago.
fn days_ago(days: i64) -> Timestamp {
    Clock::default().now().plus_seconds(-days * 86_400)
}

/// A date some days ago.
fn date(days: i64) -> String {
    days_ago(days).to_string()[..10].to_owned()
}

fn audit(home: &Path, database: &Database, arguments: &[&str]) -> Output {
    let all: Vec<&str> = std::iter::once("audit").chain(arguments.iter().copied()).collect();
    run(latchkey(home, &all).env("DATABASE_URL", &database.url))
}

/// The names of all files in a directory.
fn files(home: &Path) -> Vec<String> {
    let names = std::fs::read_dir(home).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The lines of the API, oldest first.
async fn api_lines(app: &App, reader: &Credential) -> Vec<String> {
    let request = app.request("GET", "/audit?order=oldest").credential(reader);
    let lines = request.header("Accept", "application/x-ndjson").send().await;
    assert_eq!(lines.status, 200);
    lines.text.lines().map(str::to_owned).collect()
}

/// The ids of all entries.
async fn ids(database: &Database) -> Vec<String> {
    database.rows("SELECT CAST(id AS TEXT) AS row FROM audit_entries ORDER BY id").await
}

#[tokio::test]
async fn an_export_holds_the_entries_as_the_api_returns_them() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        let home = TempDir::new().unwrap();
        add_entries(&app.database, 1_100, "user:7", "success", days_ago(9)).await;
        add_entries(&app.database, 3, "anonymous", "failure", days_ago(8)).await;
        add_entries(&app.database, 4, "user:7", "success", days_ago(2)).await;
        let root = app.admin("root@example.org").await;
        let expected = api_lines(&app, &root).await;
        assert!(expected.len() > 1_107, "{}", expected.len());

        let export = |arguments: &[&str]| {
            let before = date(5);
            let all: Vec<&str> = ["export", "--before", &before].into_iter().chain(arguments.iter().copied()).collect();
            audit(home.path(), &app.database, &all)
        };
        let told = out(&export(&["trail.ndjson"]));
        assert_eq!(told, format!("exported 1103 entries from before {}T00:00:00.000000Z to trail.ndjson\n", date(5)));
        let path = home.path().join("trail.ndjson");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected[..1_103]);
        assert!(text.ends_with('\n'));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let told: Value = serde_json::from_str(&out(&export(&["trail.ndjson.gz", "--json"]))).unwrap();
        assert_eq!(told["exported"], 1_103);
        let packed = std::fs::read(home.path().join("trail.ndjson.gz")).unwrap();
        assert!(packed.len() < text.len() / 4, "{} of {}", packed.len(), text.len());
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);

        assert_eq!(out(&export(&["-"])), text, "a hyphen is the standard output");
        if let Some(file) = app.database.url.strip_prefix("sqlite://") {
            for name in [file.to_owned(), format!("{file}-wal")] {
                let error = failure(&export(&[&name, "--force"]));
                assert!(error.contains("belongs to the database: name another file"), "{error}");
            }
        }
        let error = failure(&export(&["trail.ndjson"]));
        assert!(error.contains("trail.ndjson: this file exists. Choose another name, or add --force"), "{error}");
        std::fs::write(&path, "old").unwrap();
        std::fs::write(home.path().join(".trail.ndjson.part"), "of a killed process").unwrap();
        out(&export(&["trail.ndjson", "--force"]));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(files(home.path()), ["trail.ndjson", "trail.ndjson.gz"], "nothing else is left");
        for (file, reason) in
            [("missing/trail", "No such file"), (".", "this is a directory"), ("..", "this is a directory")]
        {
            let error = failure(&export(&[file]));
            assert!(error.contains(reason), "{file}: {error}");
        }
    }
}

specify_database! {
    async fn a_prune_requires_an_export_that_contains_each_entry(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        add_entries(&database, 700, "user:7", "success", days_ago(9)).await;
        add_entries(&database, 3, "anonymous", "failure", days_ago(2)).await;
        let (before, all) = (date(5), ids(&database).await);
        let command = |arguments: &[&str]| audit(home.path(), &database, arguments);
        let prune = |file: &str| command(&["prune", "--before", &before, "--exported", file]);
        out(&command(&["export", "--before", &before, "complete"]));
        let text = std::fs::read_to_string(home.path().join("complete")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 700);

        let without = |number: usize| {
            let others = lines.iter().enumerate().filter(|(at, _)| *at != number).map(|(_, line)| format!("{line}\n"));
            others.collect::<String>()
        };
        let cut = &text[..text.len() - 40];
        let swapped = format!("{}\n{}\n", lines[1], lines[0]);
        for (name, contents, reason) in [
            ("first", without(0), "first lacks entry 1, so nothing was removed"),
            ("middle", without(350), "middle lacks entry 351, so nothing was removed"),
            ("last", without(699), "last lacks entry 700, so nothing was removed"),
            ("changed", text.replacen("user:7", "user:8", 1), "changed holds other contents of entry 1, so nothing"),
            ("cut", cut.to_owned(), "cut: line 700: the line has no end, so the file is incomplete"),
            ("swapped", swapped, "swapped lacks entry 1"),
            ("empty", String::new(), "empty lacks entry 1"),
            ("unordered", format!("{}\n{text}", lines[0]), "unordered: line 2: the entries are not in the order"),
            ("other", "{\"a\":1}\n".to_owned(), "other: line 1: missing field `id`"),
        ] {
            std::fs::write(home.path().join(name), contents).unwrap();
            let error = failure(&prune(name));
            assert!(error.contains(reason), "{name}: {error}");
        }
        let error = failure(&prune("missing"));
        assert!(error.contains("missing: No such file"), "{error}");
        let packed = std::fs::read(home.path().join("complete")).unwrap();
        std::fs::write(home.path().join("plain.gz"), packed).unwrap();
        assert!(failure(&prune("plain.gz")).contains("plain.gz: line 1: invalid gzip header"));
        out(&command(&["export", "--before", &before, "complete.gz"]));
        let packed = std::fs::read(home.path().join("complete.gz")).unwrap();
        let (end, mut changed) = (packed.len() - 8, packed.clone());
        changed[end] ^= 1;
        let garbage = [packed.as_slice(), b"garbage"].concat();
        for (name, contents) in [("cut.gz", packed[..packed.len() - 4].to_vec()), ("sum.gz", changed), ("long.gz", garbage)] {
            std::fs::write(home.path().join(name), contents).unwrap();
            let error = failure(&prune(name));
            assert!(error.starts_with(&format!("latchkey: {name}: line 701: ")), "gzip rejects it: {error}");
        }
        let error = failure(&command(&["prune", "--before", &before]));
        assert!(error.contains("<--exported <FILE>|--without-export>"), "{error}");
        for (bound, reason) in [("2999-01-01", "at least 60 seconds in the past"), ("tomorrow", "use a date such as")] {
            let error = failure(&command(&["prune", "--before", bound, "--without-export"]));
            assert!(error.contains(reason), "{bound}: {error}");
        }
        assert_eq!(ids(&database).await, all, "nothing was removed");

        let told = out(&prune("complete"));
        assert_eq!(told, format!("removed 700 entries from before {before}T00:00:00.000000Z\n"));
        assert_eq!(ids(&database).await, ["701", "702", "703", "704"]);
        let entry: Value = serde_json::from_str(&out(&command(&["list", "--json", "--limit", "1"]))).unwrap();
        let digest = "exported to a file with the SHA-256 digest ";
        let (what, digest) = entry["detail"].as_str().unwrap().split_once(digest).unwrap();
        assert_eq!(what, format!("700 entries, from before {before}T00:00:00.000000Z, "));
        let summed = std::process::Command::new("sha256sum").arg(home.path().join("complete")).output().unwrap();
        assert!(String::from_utf8(summed.stdout).unwrap().starts_with(digest), "{digest}");
        for (field, value) in [
            ("action", json!("audit.prune")), ("actor", json!("command-line")), ("target", json!("audit")),
            ("version_before", json!(1)), ("version_after", json!(701)), ("outcome", json!("success")),
        ] {
            assert_eq!(entry[field], value, "{field}");
        }
        let again: Value = serde_json::from_str(&out(&command(&["prune", "--before", &before, "--without-export", "--json"]))).unwrap();
        assert_eq!(again["removed"], 0);
        assert_eq!(ids(&database).await.len(), 4, "a prune that removes nothing writes no entry");
    }

    async fn a_compressed_export_is_compared_too(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        add_entries(&database, 40, "user:7", "success", days_ago(9)).await;
        let (before, command) = (date(5), |arguments: &[&str]| audit(home.path(), &database, arguments));
        out(&command(&["export", "--before", &before, "trail.ndjson.gz"]));
        let path = home.path().join("trail.ndjson.gz");
        let complete = std::fs::read(&path).unwrap();
        std::fs::write(&path, &complete[..complete.len() - 20]).unwrap();
        let prune = || command(&["prune", "--before", &before, "--exported", "trail.ndjson.gz"]);
        failure(&prune());
        assert_eq!(ids(&database).await.len(), 40);
        std::fs::write(&path, complete).unwrap();
        out(&prune());
        assert_eq!(ids(&database).await, ["41"]);
    }
}

#[tokio::test]
async fn entries_are_removed_while_a_server_reads_and_writes() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        let home = TempDir::new().unwrap();
        add_entries(&app.database, 20_000, "user:7", "success", days_ago(9)).await;
        let ada = app.user("ada@example.org").await;
        let mut command = latchkey(home.path(), &["audit", "prune", "--before", &date(5), "--without-export"]);
        command.env("DATABASE_URL", &app.database.url);
        let pruning = tokio::task::spawn_blocking(move || run(&mut command));
        let mut written = 0;
        while !pruning.is_finished() {
            let page = json!({ "title": "t", "body": "b" });
            assert_eq!(app.post("/page/", &ada, &page).await.status, 201);
            assert_eq!(app.get("/me", &ada).await.status, 200);
            written += 1;
        }
        assert!(out(&pruning.await.unwrap()).starts_with("removed 20000 entries"));
        assert!(written > 5, "{written}");
        let created = "SELECT count(*) FROM audit_entries WHERE action = 'page.create'";
        assert_eq!(app.database.number(created).await, written);
        assert_eq!(app.database.number("SELECT count(*) FROM audit_entries").await, written + 3);
    }
}
