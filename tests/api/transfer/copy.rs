//! `latchkey copy`.

use super::*;
use crate::support::program::failure;

async fn copies(from: Backend, to: Backend) {
    let (Some(source), Some(target)) = (Filled::create(from).await, empty(to)) else { return };
    for table in source.database.tables().await {
        let known = table.starts_with("__") || table.starts_with("user_search") || table == "credential_changes";
        assert!(known || !source.database.dump(&table).await.is_empty(), "{table} has rows");
    }
    let before = tables(source.home.path(), source.url());
    let copied = out(&run(&mut source.command(&["copy", "--to", &target.url])));
    assert!(copied.starts_with("copied ") && copied.contains("set database.url to the new address"), "{copied}");
    assert_eq!(tables(source.home.path(), &target.url), before);
    assert_eq!(tables(source.home.path(), source.url()), before, "the source is unchanged");
    let entry = target.rows("SELECT actor || ' ' || action AS row FROM audit_entries ORDER BY id DESC LIMIT 1").await;
    assert_eq!(entry, ["command-line database.copy"]);
    source.assert_works_at(&target.url).await;

    let again = failure(&run(&mut source.command(&["copy", "--to", &target.url])));
    assert!(again.contains("nothing was changed, because") && again.contains("--replace"), "{again}");
    out(&run(&mut source.command(&["copy", "--to", &target.url, "--replace"])));
    assert_eq!(tables(source.home.path(), &target.url), before, "the additional user is gone");
    source.assert_works_at(&target.url).await;
}

#[tokio::test]
async fn sqlite_is_copied_to_postgres_with_all_rows_ids_and_credentials() {
    copies(Backend::Sqlite, Backend::Postgres).await;
}

#[tokio::test]
async fn postgres_is_copied_to_sqlite_with_all_rows_ids_and_credentials() {
    copies(Backend::Postgres, Backend::Sqlite).await;
}

#[tokio::test]
async fn databases_of_the_same_kind_are_copied() {
    copies(Backend::Sqlite, Backend::Sqlite).await;
    copies(Backend::Postgres, Backend::Postgres).await;
}

#[tokio::test]
async fn mails_that_wait_are_sent_by_the_source_only() {
    for to in [Backend::Sqlite, Backend::Postgres] {
        let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(to)) else { return };
        source.database.execute(WAITING_MAIL).await;
        out(&run(&mut source.command(&["copy", "--to", &target.url])));
        let open = "SELECT count(*) FROM outbox WHERE done_at IS NULL";
        assert_eq!([source.database.number(open).await, target.number(open).await], [1, 0]);
    }
}

#[tokio::test]
async fn a_target_in_use_is_not_replaced() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    for target in [Backend::Sqlite, Backend::Postgres] {
        let Some(target) = empty(target) else { return };
        let serving = serve(source.home.path(), &target.url);
        let client = serving.client();
        let token = client.user("linus@example.org").await;
        let refused = failure(&run(&mut source.command(&["copy", "--to", &target.url, "--replace"])));
        assert!(refused.contains("nothing was changed") && refused.contains("stop all servers"), "{refused}");
        assert_eq!(client.get("/protected-route", &token).await.status, 200);
        assert_eq!(client.register("later@example.org").await.status, 201, "the target still accepts changes");
        serving.signal("-TERM");
        drop(serving);
        out(&run(&mut source.command(&["copy", "--to", &target.url, "--replace"])));
        source.assert_works_at(&target.url).await;
    }
}

#[tokio::test]
async fn texts_that_postgres_cannot_store_are_listed_before_anything_is_written() {
    let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(Backend::Postgres)) else {
        return;
    };
    let database = &source.database;
    database.execute("UPDATE pages SET body = 'a' || char(0) || 'b' WHERE id = 1").await;
    database.execute("UPDATE users SET surname = CAST(x'41c3' AS TEXT) WHERE id = 2").await;
    let refused = failure(&run(&mut source.command(&["copy", "--to", &target.url])));
    assert!(refused.contains("nothing was written"), "{refused}");
    assert!(refused.contains("pages \"1\" has a NUL character"), "{refused}");
    assert!(refused.contains("users \"2\" has invalid UTF-8"), "{refused}");
    assert!(target.tables().await.is_empty(), "not even the tables were created");
}

#[tokio::test]
async fn wrong_targets_are_named_with_what_to_do() {
    let Some(source) = Filled::create(Backend::Sqlite).await else { return };
    for (url, message) in [
        (source.url(), "the source and the target are the same database"),
        ("mysql://x", "--to: Write sqlite://FILE"),
        ("sqlite:///nowhere/at/all.db", "The directory /nowhere/at does not exist"),
        ("postgres://db.example.org/x", "sslmode=verify-full"),
        ("postgres://latchkey@127.0.0.1:1/x", "Connection refused"),
    ] {
        let refused = failure(&run(&mut source.command(&["copy", "--to", url])));
        assert!(refused.contains(message), "{url}: {refused}");
    }
}

#[tokio::test]
async fn schemas_of_another_version_are_rejected() {
    let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(Backend::Postgres)) else {
        return;
    };
    out(&run(&mut command(source.home.path(), &target.url, &["migrate", "up"])));
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')";
    target.execute(newer).await;
    let refused = failure(&run(&mut source.command(&["copy", "--to", &target.url, "--replace"])));
    assert!(refused.contains("a newer version of this program") && refused.contains("run that version"), "{refused}");
    source.database.execute(newer).await;
    for arguments in [&["copy", "--to", "other.db"][..], &["backup", "create", "other.db"]] {
        let refused = failure(&run(&mut source.command(arguments)));
        assert!(refused.contains("a newer version of this program"), "{refused}");
    }
    source.database.execute("DELETE FROM __diesel_schema_migrations WHERE version > '20261127'").await;
    let refused = failure(&run(&mut source.command(&["copy", "--to", "other.db"])));
    assert!(refused.contains("run `latchkey migrate up` on it"), "{refused}");
}

#[tokio::test]
async fn rows_that_refer_to_missing_rows_are_named() {
    let (Some(source), Some(target)) = (Filled::create(Backend::Sqlite).await, empty(Backend::Postgres)) else {
        return;
    };
    source.database.execute("PRAGMA foreign_keys = OFF; UPDATE pages SET owner_id = 999 WHERE id = 1").await;
    let refused = failure(&run(&mut source.command(&["copy", "--to", &target.url])));
    assert!(refused.contains("pages row 1"), "{refused}");
}
