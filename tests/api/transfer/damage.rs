//! `latchkey backup verify` detects every change of a backup.

use diesel::connection::SimpleConnection;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use sha2::{Digest, Sha256};

use super::*;
use crate::support::program::failure;

#[tokio::test]
async fn one_flipped_byte_anywhere_makes_verify_fail() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let file = source.backup("backup");
    let bytes = std::fs::read(&file).unwrap();
    let damaged = source.file("damaged");
    // 25 places all over the file, among them the header and the last byte.
    let places = (0..24).map(|part| part * bytes.len() / 24 + part).chain([bytes.len() - 1]);
    for at in places {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&damaged, changed).unwrap();
        let refused = failure(&run(&mut source.command(&["backup", "verify", &damaged])));
        assert!(refused.contains("damaged"), "{at}: {refused}");
        assert!(refused.contains("use another backup") || refused.contains("name a file that"), "{at}: {refused}");
    }
    std::fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    failure(&run(&mut source.command(&["backup", "verify", &damaged])));
    std::fs::write(&damaged, &bytes).unwrap();
    out(&run(&mut source.command(&["backup", "verify", &damaged])));
}

/// A connection that leaves the journal mode as it is, and is closed when it is dropped.
#[expect(clippy::disallowed_methods, reason = "Db would change the journal mode")]
fn open(file: &str) -> SqliteConnection {
    SqliteConnection::establish(file).unwrap()
}

/// Changes a backup.
pub fn change_file(file: &str, sql: &str) {
    open(file).batch_execute(sql).unwrap();
}

#[derive(QueryableByName)]
struct Manifest {
    #[diesel(sql_type = diesel::sql_types::Text)]
    file_digest: String,
}

/// Replaces the digest of a changed backup by the right one, as somebody who changes a backup on purpose would.
pub fn seal(file: &str) {
    let select = diesel::sql_query("SELECT file_digest FROM backup_manifest");
    let old = select.get_result::<Manifest>(&mut open(file)).unwrap().file_digest;
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(64).position(|window| window == old.as_bytes()).unwrap();
    bytes[at..at + 64].fill(0);
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    bytes[at..at + 64].copy_from_slice(digest.as_bytes());
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_missing_changed_or_moved_row_makes_verify_fail() {
    let Some(source) = Filled::create(Backend::Postgres).await else { return };
    let original = source.backup("backup");
    let file = source.file("changed");
    for (change, message) in [
        ("DELETE FROM known_networks", "the rows of known_networks differ from the original (2 expected, 0 found)"),
        ("UPDATE pages SET title = 'A title' WHERE id = 1", "the rows of pages differ"),
        ("UPDATE users SET disabled_at = NULL", "the rows of users differ"),
        ("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'users'", "the rows of users differ"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM users WHERE id = 1", "rows refer to rows that do not exist: "),
    ] {
        std::fs::copy(&original, &file).unwrap();
        change_file(&file, change);
        let refused = failure(&run(&mut source.command(&["backup", "verify", &file])));
        assert!(refused.contains("its digest differs from that in its manifest"), "{change}: {refused}");
        seal(&file);
        let refused = failure(&run(&mut source.command(&["backup", "verify", &file])));
        assert!(refused.contains(message), "{change}: {refused}");
    }
}

#[tokio::test]
async fn a_backup_with_a_foreign_trigger_view_or_table_is_rejected() {
    let Some(source) = Filled::create(Backend::Postgres).await else { return };
    let (original, file) = (source.backup("backup"), source.file("changed"));
    for (change, object) in [
        (
            "CREATE TRIGGER evil AFTER INSERT ON access_tokens BEGIN UPDATE users SET role = 'admin'; END",
            "trigger evil",
        ),
        ("CREATE VIEW evil AS SELECT * FROM users", "view evil"),
        ("CREATE TABLE evil (id INTEGER)", "table evil"),
        ("ALTER TABLE users ADD COLUMN evil TEXT NOT NULL DEFAULT 'x'", "table users"),
        ("DROP TRIGGER audit_entries_no_update", "trigger audit_entries_no_update"),
    ] {
        std::fs::copy(&original, &file).unwrap();
        change_file(&file, change);
        seal(&file);
        let message = format!("these objects are not those that Latchkey creates: {object})");
        let refused = failure(&run(&mut source.command(&["backup", "verify", &file])));
        assert!(refused.contains(&message), "{change}: {refused}");
        for target in [Backend::Sqlite, Backend::Postgres] {
            let Some(target) = empty(target) else { return };
            let refused = failure(&run(&mut command(source.home.path(), &target.url, &["backup", "restore", &file])));
            assert!(refused.contains(&message), "{change}: {refused}");
        }
    }
    // An index changes no data.
    std::fs::copy(&original, &file).unwrap();
    change_file(&file, "CREATE INDEX pages_by_title ON pages (title)");
    seal(&file);
    out(&run(&mut source.command(&["backup", "verify", &file])));
}

#[tokio::test]
async fn a_database_with_a_foreign_trigger_is_not_backed_up() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    source.database.execute("CREATE TRIGGER own AFTER INSERT ON pages BEGIN DELETE FROM pages; END").await;
    let refused = failure(&run(&mut source.command(&["backup", "create", "backup"])));
    assert!(refused.contains("the source cannot be copied: ") && refused.contains("trigger own"), "{refused}");
    assert!(!source.home.path().join("backup").exists() && !source.home.path().join(".backup.part").exists());
}

#[tokio::test]
async fn a_damaged_or_newer_backup_is_not_restored() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let file = source.backup("backup");
    for (change, message) in [
        ("UPDATE pages SET version = 2 WHERE id = 1", "the rows of pages differ"),
        (
            "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')",
            "a newer version of this program",
        ),
        ("UPDATE backup_manifest SET format = 2", "has format 2, and this program reads format 1"),
    ] {
        change_file(&file, change);
        seal(&file);
        for target in [Backend::Sqlite, Backend::Postgres] {
            let Some(target) = empty(target) else { return };
            let mut restore = command(source.home.path(), &target.url, &["backup", "restore", &file]);
            let refused = failure(&run(&mut restore));
            assert!(refused.contains(message), "{refused}");
            let path = target.url.trim_start_matches("sqlite://");
            assert!(!Path::new(path).exists(), "nothing was created");
        }
    }
}
