//! `latchkey backup restore`.

use std::os::unix::fs::{MetadataExt, chown};

use super::damage::{change_file, seal};
use super::*;
use crate::support::program::failure;

async fn restores(from: Backend, to: Backend) {
    let (Some(source), Some(target)) = (Filled::create(from).await, empty(to)) else { return };
    let (home, file) = (source.home.path(), source.backup("backup"));
    let (before, bytes) = (tables(home, source.url()), std::fs::read(&file).unwrap());
    let restored = run(&mut command(home, &target.url, &["backup", "restore", &file]));
    assert!(out(&restored).starts_with("restored "), "{restored:?}");
    let warning = String::from_utf8(restored.stderr).unwrap();
    assert!(warning.contains("tokens, sessions and keys that were revoked since the backup"), "{warning}");
    assert_eq!(tables(home, &target.url), before);
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "the backup is unchanged");
    let entry = target
        .rows("SELECT actor || ' ' || action || ' ' || detail AS row FROM audit_entries ORDER BY id DESC LIMIT 1")
        .await;
    assert!(entry[0].starts_with("command-line database.restore backup of 20"), "{entry:?}");
    source.assert_works_at(&target.url).await;

    let again = failure(&run(&mut command(home, &target.url, &["backup", "restore", &file])));
    assert!(again.contains("nothing was changed") && again.contains("--replace"), "{again}");
    let serving = serve(home, &target.url);
    let client = serving.client();
    let used = failure(&run(&mut command(home, &target.url, &["backup", "restore", &file, "--replace"])));
    assert!(used.contains("stop all servers"), "{used}");
    assert_eq!(client.register("more@example.org").await.status, 201);
    drop(serving);
    out(&run(&mut command(home, &target.url, &["backup", "restore", &file, "--replace"])));
    assert_eq!(tables(home, &target.url), before);
    source.assert_works_at(&target.url).await;
}

#[tokio::test]
async fn a_backup_of_sqlite_is_restored_into_both_databases() {
    restores(Backend::Sqlite, Backend::Sqlite).await;
    restores(Backend::Sqlite, Backend::Postgres).await;
}

#[tokio::test]
async fn a_backup_of_postgres_is_restored_into_both_databases() {
    restores(Backend::Postgres, Backend::Postgres).await;
    restores(Backend::Postgres, Backend::Sqlite).await;
}

async fn revokes(to: Backend) {
    let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(to)) else { return };
    source.database.execute(WAITING_MAIL).await;
    let (home, file) = (source.home.path(), source.backup("backup"));
    let arguments = ["backup", "restore", &file, "--revoke-tokens", "--revoke-keys", "--json"];
    let restored = run(&mut command(home, &target.url, &arguments));
    let shown: Value = serde_json::from_str(&out(&restored)).unwrap();
    let ended = ["revoked_tokens", "ended_sessions", "revoked_keys"].map(|name| &shown[name]);
    assert_eq!(ended, [1, 1, 1], "{shown}");
    assert!(!String::from_utf8(restored.stderr).unwrap().contains("warning"));
    let serving = serve(home, &target.url);
    let client = serving.client();
    for credential in [&source.token, &source.key] {
        assert_eq!(client.get("/protected-route", credential).await.status, 403);
    }
    assert_eq!(client.get("/protected-route", &source.session).await.status, 401);
    assert_eq!(client.sign_in("ada@example.org", PASSWORD).await.status, 200);
    let open = target.number("SELECT count(*) FROM outbox WHERE done_at IS NULL").await;
    assert_eq!(open, 0, "a mail that waits would bring a new link");
    let entries = target.rows("SELECT action AS row FROM audit_entries WHERE actor = 'command-line' ORDER BY id").await;
    assert_eq!(entries, ["database.restore", "token.revoke", "key.revoke"]);
}

#[tokio::test]
async fn a_restore_ends_tokens_and_keys_on_request() {
    revokes(Backend::Sqlite).await;
    revokes(Backend::Postgres).await;
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_migrated() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let (home, file) = (source.home.path(), source.backup("backup"));
    let before = tables(home, source.url());
    let older = "DROP INDEX users_roles; DELETE FROM __diesel_schema_migrations WHERE version = '20261127040000'";
    change_file(&file, older);
    seal(&file);
    let verified = out(&run(&mut source.command(&["backup", "verify", &file])));
    assert!(verified.contains("its schema lacks 1 migrations, which a restore applies"), "{verified}");
    for target in [Backend::Sqlite, Backend::Postgres] {
        let Some(target) = empty(target) else { return };
        out(&run(&mut command(home, &target.url, &["backup", "restore", &file])));
        assert_eq!(tables(home, &target.url), before);
        source.assert_works_at(&target.url).await;
    }
}

#[tokio::test]
async fn side_files_of_an_earlier_database_are_removed_and_a_damaged_database_is_replaced() {
    let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(Backend::Sqlite)) else { return };
    let (home, file) = (source.home.path(), source.backup("backup"));
    let path = target.url.trim_start_matches("sqlite://").to_owned();
    for side in ["-wal", "-shm", "-journal"] {
        std::fs::write(format!("{path}{side}"), "of another database").unwrap();
    }
    out(&run(&mut command(home, &target.url, &["backup", "restore", &file])));
    source.assert_works_at(&target.url).await;
    std::fs::write(&path, "no database any more".repeat(1000)).unwrap();
    std::fs::write(format!("{path}-wal"), "of another database").unwrap();
    out(&run(&mut command(home, &target.url, &["backup", "restore", &file, "--replace"])));
    source.assert_works_at(&target.url).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_replaced_file_keeps_its_owner_and_the_link_to_it() {
    let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(Backend::Sqlite)) else { return };
    let (home, file) = (source.home.path(), source.backup("backup"));
    let path = target.url.trim_start_matches("sqlite://").to_owned();
    out(&run(&mut command(home, &target.url, &["migrate", "up"])));
    // Only root can give files away.
    let owner =
        if chown(&path, Some(65532), Some(65532)).is_ok() { 65532 } else { std::fs::metadata(&path).unwrap().uid() };
    let link = source.file("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let url = format!("sqlite://{link}");
    let restore = &["backup", "restore", &file, "--replace"][..];
    out(&run(&mut command(home, &url, restore)));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&path).unwrap().uid(), owner);
    out(&run(&mut source.command(&["copy", "--to", &url, "--replace"])));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&path).unwrap().uid(), owner);
    source.assert_works_at(&target.url).await;
}

#[tokio::test]
async fn a_backup_is_not_used_or_replaced_as_a_database() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(source) = Filled::create(backend).await else { return };
        let (home, file, other) = (source.home.path(), source.backup("backup"), source.backup("other"));
        let (bytes, url) = (std::fs::read(&file).unwrap(), format!("sqlite://{file}"));
        for arguments in [
            &[][..],
            &["serve"],
            &["migrate", "up"],
            &["migrate", "status"],
            &["user", "list"],
            &["audit", "list"],
            &["backup", "create", "new"],
            &["backup", "restore", &other],
            &["backup", "restore", &other, "--replace"],
            &["copy", "--to", source.url(), "--replace"],
        ] {
            let refused = failure(&run(&mut command(home, &url, arguments)));
            assert!(refused.contains("backup is a backup: name a database"), "{arguments:?}: {refused}");
        }
        for replace in [&["copy", "--to", &url][..], &["copy", "--to", &url, "--replace"]] {
            let refused = failure(&run(&mut source.command(replace)));
            assert!(refused.contains("backup is a backup: name a database"), "{replace:?}: {refused}");
        }
        let again = failure(&run(&mut source.command(&["backup", "create", &file])));
        assert!(again.contains("exists: name a file that does not exist yet"), "{again}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "the backup is as it was");
        out(&run(&mut source.command(&["backup", "verify", &file])));
        let names: Vec<_> = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "nothing was created beside it: {names:?}");
    }
}

#[tokio::test]
async fn a_new_file_of_root_gets_the_owner_of_its_directory() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let file = source.backup("backup");
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), std::fs::metadata(source.home.path()).unwrap().uid());
    let directory = source.home.path().join("data");
    std::fs::create_dir(&directory).unwrap();
    // Only root can give files away. Files of other users have their own owner.
    let is_root = chown(&directory, Some(65532), Some(65531)).is_ok();
    let owner = |path: &Path| std::fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    let expected = owner(&directory);
    assert_eq!(expected == (65532, 65531), is_root);
    let path = |name: &str| directory.join(name);
    let url = |name: &str| format!("sqlite://{}", path(name).display());
    out(&run(&mut command(source.home.path(), &url("restored.db"), &["backup", "restore", &file])));
    out(&run(&mut source.command(&["copy", "--to", &url("copied.db")])));
    for name in ["restored.db", "copied.db"] {
        assert_eq!(owner(&path(name)).0, expected.0, "{name}");
        assert!(!is_root || owner(&path(name)) == expected, "{name}");
    }
    // A backup belongs to the user who made it.
    let backup = path("backup").display().to_string();
    out(&run(&mut source.command(&["backup", "create", &backup])));
    assert_eq!(owner(Path::new(&backup)).0, owner(Path::new(&file)).0);
}

#[tokio::test]
async fn a_rejected_restore_changes_neither_the_target_nor_the_backup() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    let (home, file) = (source.home.path(), source.backup("backup"));
    let bytes = std::fs::read(&file).unwrap();
    let link = source.file("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    // A database whose side file has the name of the backup: SQLite would remove it.
    let beside = source.file("t.db-journal");
    std::fs::copy(&file, &beside).unwrap();
    let beside_target = source.file("t.db");
    for (target, backup) in [(&file, &file), (&link, &file), (&beside_target, &beside)] {
        let restore = ["backup", "restore", backup, "--replace"];
        let refused = failure(&run(&mut command(home, &format!("sqlite://{target}"), &restore)));
        assert!(refused.contains("belongs to the database of the settings: name a backup"), "{refused}");
    }
    assert_eq!(std::fs::read(&beside).unwrap(), bytes);
    let swapped = ["backup", "restore", source.url().trim_start_matches("sqlite://"), "--replace"];
    failure(&run(&mut command(home, &format!("sqlite://{file}"), &swapped)));
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "the backup is as it was");

    let Some(target) = empty(Backend::Postgres) else { return };
    let damaged = source.file("damaged");
    std::fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    failure(&run(&mut command(home, &target.url, &["backup", "restore", &damaged])));
    assert_eq!(target.tables().await, [""; 0], "no table was created");
    out(&run(&mut command(home, &target.url, &["migrate", "up"])));
    out(&run(&mut command(home, &target.url, &["migrate", "down"])));
    let migrations = "SELECT version AS row FROM __diesel_schema_migrations ORDER BY version";
    let before = target.rows(migrations).await;
    let mut server =
        Serving::start(command(home, &target.url, &["serve"]).env("LATCHKEY__DATABASE__MIGRATE_ON_START", "true"));
    server.address();
    out(&run(&mut command(home, &target.url, &["migrate", "down", "--yes"])));
    let refused = failure(&run(&mut command(home, &target.url, &["backup", "restore", &file, "--replace"])));
    assert!(refused.contains("a program uses the target database"), "{refused}");
    assert_eq!(target.rows(migrations).await, before, "the schema that a server uses is not migrated");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
}
