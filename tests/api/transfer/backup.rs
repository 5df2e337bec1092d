//! `latchkey backup create` and `verify`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::support::program::failure;

async fn creates(backend: Backend) {
    let Some(source) = Filled::create(backend).await else { return };
    let file = source.file("backup");
    let made = out(&run(&mut source.command(&["backup", "create", &file, "--json"])));
    let made: Value = serde_json::from_str(&made).unwrap();
    let tables = made["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 16, "{made}");
    assert!(tables.iter().all(|table| table["rows"].as_i64().unwrap() > 0), "{made}");
    let head = source.database.number("SELECT max(id) FROM audit_entries").await;
    assert_eq!(made["audit_head"], head);
    assert_eq!(made["version"], env!("CARGO_PKG_VERSION"));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files: Vec<_> =
        std::fs::read_dir(source.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["backup"], "nothing else is left");

    let verified = run(&mut source.command(&["backup", "verify", &file]));
    assert!(out(&verified).contains("is complete: ") && out(&verified).contains(&format!("last audit entry {head}")));
    let again = failure(&run(&mut source.command(&["backup", "create", &file])));
    assert!(again.contains("exists: name a file that does not exist yet"), "{again}");
    assert_eq!(super::tables(source.home.path(), source.url()).len(), 15);
}

#[tokio::test]
async fn a_backup_of_sqlite_is_private_complete_and_described_by_itself() {
    creates(Backend::Sqlite).await;
}

#[tokio::test]
async fn a_backup_of_postgres_is_private_complete_and_described_by_itself() {
    creates(Backend::Postgres).await;
}

async fn streams(backend: Backend) {
    let Some(source) = Filled::create(backend).await else { return };
    let temporary = TempDir::new().unwrap();
    let streamed = run(source.command(&["backup", "create", "-", "--json"]).env("TMPDIR", temporary.path()));
    assert!(streamed.status.success(), "{streamed:?}");
    let progress = String::from_utf8(streamed.stderr).unwrap();
    let mut ended = Vec::new();
    for line in progress.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let (done, total) = (line["done"].as_i64().unwrap(), line["total"].as_i64().unwrap());
        assert!(done <= total, "{line}");
        if done == total {
            ended.push(format!("{} {}", line["step"].as_str().unwrap(), line["table"].as_str().unwrap()));
        }
    }
    let first = if backend == Backend::Sqlite { "copy all tables" } else { "copy users" };
    assert_eq!(ended.first().map(String::as_str), Some(first), "{progress}");
    assert!(ended.contains(&"verify users".to_owned()), "{progress}");
    let count = ended.len();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), count, "each table ends once in each step: {progress}");
    let file = source.file("streamed");
    std::fs::write(&file, streamed.stdout).unwrap();
    out(&run(&mut source.command(&["backup", "verify", &file])));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_backup_is_written_to_standard_output() {
    streams(Backend::Sqlite).await;
    streams(Backend::Postgres).await;
}

async fn serves(backend: Backend) {
    let Some(source) = Filled::create(backend).await else { return };
    let serving = serve(source.home.path(), source.url());
    let client = serving.client();
    let (mut made, mut requests) = (Vec::new(), 0);
    for number in 0..5 {
        let mut child = source.command(&["backup", "create", &source.file(&number.to_string())]).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            let page = client.post("/page/", &source.token, &json!({ "title": "more", "body": "more" })).await;
            assert_eq!(page.status, 201, "{page:?}");
            requests += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        made.push(out(&child.wait_with_output().unwrap()));
    }
    assert!(requests > 10, "{requests}");
    for number in 0..made.len() {
        out(&run(&mut source.command(&["backup", "verify", &source.file(&number.to_string())])));
    }
}

#[tokio::test]
async fn a_server_accepts_changes_during_a_backup() {
    serves(Backend::Sqlite).await;
    serves(Backend::Postgres).await;
}

#[tokio::test]
async fn on_a_terminal_the_progress_is_a_line_that_the_result_replaces() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let program = env!("CARGO_BIN_EXE_latchkey");
    // `script` runs a command on a terminal, and prints what the terminal receives.
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("{program} backup create made"), "/dev/null"]);
    let shown = out(&run(terminal.current_dir(source.home.path()).env("DATABASE_URL", source.url())));
    assert!(shown.contains("\r\x1b[Kverify users "), "{shown:?}");
    let line = shown.rsplit_once("\r\x1b[K").unwrap().1;
    assert!(line.starts_with("made made: "), "{shown:?}");
}

#[tokio::test]
async fn wrong_files_are_named_with_what_to_do() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let text = source.file("text");
    std::fs::write(&text, "no database").unwrap();
    let database = source.url().trim_start_matches("sqlite://");
    let journal = format!("{database}-journal");
    let link = source.file("link.db");
    std::os::unix::fs::symlink(database, &link).unwrap();
    let refused =
        failure(&run(&mut command(source.home.path(), &format!("sqlite://{link}"), &["backup", "create", &journal])));
    assert!(refused.contains("belongs to the database: name another file"), "{refused}");
    for (arguments, message) in [
        (&["backup", "create", database][..], "belongs to the database: name another file"),
        (&["backup", "create", &journal], "belongs to the database: name another file"),
        (&["backup", "verify", "missing"], "there is no file missing: name a backup"),
        (&["backup", "verify", "-"], "not read from standard input or a pipe: write it to a file"),
        (&["backup", "verify", "/dev/null"], "not read from standard input or a pipe: write it to a file"),
        (&["backup", "verify", &text], "is no backup, or it is damaged"),
        (&["backup", "verify", database], "is no backup, or it is damaged"),
        (&["backup", "create", "missing/backup"], "cannot write missing/backup: No such file or directory"),
        (&["backup", "create", "/"], "exists"),
    ] {
        let refused = failure(&run(&mut source.command(arguments)));
        assert!(refused.contains(message), "{arguments:?}: {refused}");
    }
    let nowhere = failure(&run(&mut command(source.home.path(), "sqlite://other.db", &["backup", "create", "b"])));
    assert!(nowhere.contains("There is no database at"), "{nowhere}");
}

#[tokio::test]
async fn invalid_texts_prevent_a_backup_and_nul_characters_do_not() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    source.database.execute("UPDATE pages SET body = 'a' || char(0) || 'b' WHERE id = 1").await;
    let file = source.backup("with-nul");
    out(&run(&mut source.command(&["backup", "verify", &file])));
    if let Some(postgres) = empty(Backend::Postgres) {
        let restore = &mut command(source.home.path(), &postgres.url, &["backup", "restore", &file]);
        let refused = failure(&run(restore));
        assert!(refused.contains("pages \"1\" has a NUL character"), "{refused}");
        assert_eq!(postgres.tables().await, [""; 0], "no table was created");
    }
    source.database.execute("UPDATE pages SET body = CAST(x'ff00' AS TEXT) WHERE id = 1").await;
    let refused = failure(&run(&mut source.command(&["backup", "create", "other"])));
    assert!(refused.contains("pages \"1\" has invalid UTF-8"), "{refused}");
    assert!(!source.home.path().join("other").exists() && !source.home.path().join(".other.part").exists());
}
