//! Database URLs, migrations, the schema, and the settings and files of SQLite.

use std::collections::BTreeMap;

use latchkey::config::DatabaseUrl;
use latchkey::db::engine::migrate::SchemaState;

use crate::support::{Backend, specify_database};

const SCHEMA: &str = concat!(include_str!("../../../src/db/schema.rs"), include_str!("../../../src/db/schema/mail.rs"));

/// Diesel types by `table.column`, from the texts of `src/db/schema.rs` and `src/db/schema/mail.rs`.
fn declared() -> BTreeMap<String, String> {
    let mut columns = BTreeMap::new();
    let mut table = "";
    for line in SCHEMA.lines().map(str::trim) {
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            table = name;
        } else if let Some((column, kind)) =
            line.trim_end_matches(',').split_once(" -> ").filter(|_| line.ends_with(','))
        {
            columns.insert(format!("{table}.{column}"), kind.to_owned());
        }
    }
    columns
}

/// Diesel types by `table.column`, from the migrated database.
async fn migrated(database: &crate::support::database::Database) -> BTreeMap<String, String> {
    let query = match database.backend {
        Backend::Sqlite => {
            "SELECT t.name || '.' || c.name || ' ' || lower(c.type) || CASE WHEN c.\"notnull\" THEN '' ELSE ' null' END AS row \
             FROM sqlite_master t JOIN pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%' AND t.name NOT LIKE '__diesel%' AND t.name NOT LIKE 'user_search%'"
        }
        Backend::Postgres => {
            "SELECT table_name || '.' || column_name || ' ' || data_type || CASE WHEN is_nullable = 'NO' THEN '' ELSE ' null' END AS row \
             FROM information_schema.columns WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_\\_diesel%'"
        }
    };
    let rows = database.rows(query).await;
    rows.iter()
        .map(|row| {
            let (column, kind) = row.split_once(' ').unwrap();
            let (kind, nullable) = kind.strip_suffix(" null").map_or((kind, false), |kind| (kind, true));
            let kind = match kind {
                "integer" | "bigint" => "BigInt",
                "text" => "Text",
                "timestamp" | "timestamp without time zone" => "Timestamp",
                "boolean" => "Bool",
                "xid8" => "Xid8",
                other => panic!("{column} has a type that the schema must not use: {other}"),
            };
            (column.to_owned(), if nullable { format!("Nullable<{kind}>") } else { kind.to_owned() })
        })
        .collect()
}

specify_database! {
    async fn the_schema_file_agrees_with_the_migrated_database(database: Database) {
        assert!(declared().len() >= 20, "the schema file is parsed");
        database.open().migrate_up().await.unwrap();
        let mut migrated = migrated(&database).await;
        // Not in the schema file: only triggers write it, and each database has its own query.
        migrated.retain(|column, _| !column.starts_with("credential_changes."));
        assert_eq!(migrated, declared());
    }

    async fn migrations_go_up_down_and_up_again(database: Database) {
        let db = database.open();
        assert!(matches!(db.schema_state().await.unwrap(), SchemaState::Outdated(_)));
        let applied = db.migrate_up().await.unwrap();
        assert!(!applied.is_empty());
        assert_eq!(db.schema_state().await.unwrap(), SchemaState::Current);
        assert!(db.migrate_up().await.unwrap().is_empty(), "no migration is pending");
        for _ in &applied {
            assert!(db.migrate_down(false).await.unwrap().is_some());
        }
        assert_eq!(db.migrate_down(false).await.unwrap(), None);
        assert!(migrated(&database).await.is_empty(), "no table is left");
        assert_eq!(db.migrate_up().await.unwrap().len(), applied.len());
        assert!(db.migration_status().await.unwrap().iter().all(|migration| migration.applied));
    }

    async fn a_schema_of_a_newer_version_is_refused_and_the_error_names_its_migration(database: Database) {
        use crate::support::program::{failure, latchkey, run};

        let newer = "20991231235959";
        let db = database.open();
        db.migrate_up().await.unwrap();
        database.execute(format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{newer}')")).await;
        assert_eq!(db.schema_state().await.unwrap(), SchemaState::Unknown(vec![newer.to_owned()]));
        let home = tempfile::TempDir::new().unwrap();
        for arguments in
            [&[][..], &["user", "list"], &["migrate", "up"], &["migrate", "down"], &["migrate", "status"]]
        {
            for migrate_on_start in ["true", "false"] {
                let mut command = latchkey(home.path(), arguments);
                command.env("DATABASE_URL", &database.url);
                command.env("LATCHKEY__DATABASE__MIGRATE_ON_START", migrate_on_start);
                let output = run(&mut command);
                assert_eq!(output.status.code(), Some(1), "{arguments:?}");
                let error = failure(&output);
                assert!(error.contains(newer) && error.contains("newer version"), "{arguments:?}: {error}");
            }
        }
        assert_eq!(db.schema_state().await.unwrap(), SchemaState::Unknown(vec![newer.to_owned()]), "it is unchanged");
    }

    async fn replicas_that_start_together_migrate_once(database: Database) {
        let running: Vec<_> = (0..8).map(|_| database.open()).map(|db| tokio::spawn(async move { db.migrate_up().await })).collect();
        let mut applied = 0;
        for replica in running {
            applied += replica.await.unwrap().unwrap().len();
        }
        let all = database.open().migration_status().await.unwrap();
        assert_eq!(applied, all.len());
        assert!(all.iter().all(|migration| migration.applied));
    }

    async fn a_failed_write_is_rolled_back(database: Database) {
        use diesel::RunQueryDsl;
        use latchkey::error::AppError;

        database.execute("CREATE TABLE things (name TEXT)").await;
        let db = database.open();
        let answer: Result<(), AppError> = db
            .write(|conn| {
                diesel::sql_query("INSERT INTO things VALUES ('half')").execute(conn)?;
                Err(AppError::NotFound("other half"))
            })
            .await;
        assert!(matches!(answer, Err(AppError::NotFound(_))));
        assert_eq!(database.number("SELECT count(*) FROM things").await, 0);
        db.write(|conn| Ok(diesel::sql_query("INSERT INTO things VALUES ('whole')").execute(conn)?)).await.unwrap();
        assert_eq!(database.number("SELECT count(*) FROM things").await, 1, "the connection is usable afterwards");
    }
}

#[tokio::test]
async fn sqlite_connections_have_safe_settings() {
    let database = crate::support::database::Database::create(Backend::Sqlite).unwrap();
    for (pragma, value) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("secure_delete", "1"),
        ("busy_timeout", "1500"),
    ] {
        let column = if pragma == "busy_timeout" { "timeout" } else { pragma };
        let rows = database.rows(format!("SELECT CAST({column} AS TEXT) AS row FROM pragma_{pragma}")).await;
        assert_eq!(rows, [value], "{pragma}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused() {
    use crate::support::program::{failure, latchkey, run};

    let home = tempfile::TempDir::new().unwrap();
    std::fs::write(home.path().join("latchkey.db"), "This is not a database, but it is long enough. ".repeat(100))
        .unwrap();
    for arguments in [&[][..], &["migrate", "status"]] {
        let error = failure(&run(&mut latchkey(home.path(), arguments)));
        assert!(error.contains("file is not a database"), "{error}");
    }
}

#[test]
fn the_scheme_of_the_url_alone_selects_the_database() {
    let parse = |url: &str| DatabaseUrl::try_from(url.to_owned());
    for (url, file) in [
        ("sqlite://latchkey.db", "latchkey.db"),
        ("sqlite:latchkey.db", "latchkey.db"),
        ("sqlite:///var/lib/latchkey.db", "/var/lib/latchkey.db"),
        ("latchkey.db", "latchkey.db"),
        ("./data/latchkey.db", "./data/latchkey.db"),
        ("/var/lib/a:b.db", "/var/lib/a:b.db"),
    ] {
        assert_eq!(parse(url), Ok(DatabaseUrl::Sqlite(file.into())), "{url}");
    }
    for url in ["postgres://localhost/x", "postgresql://u:p@h:1/x", "postgres:///x?host=/run/postgresql"] {
        let Ok(DatabaseUrl::Postgres(uri)) = parse(url) else { panic!("{url}") };
        assert_eq!(uri.with_defaults(&[]), url);
    }
    for url in [
        "",
        "mysql://localhost/x",
        "http://x",
        "host=localhost dbname=x",
        "sqlite://",
        ":memory:",
        "sqlite::memory:",
        "file:latchkey.db",
        "sqlite:file:latchkey.db",
        "postgres:x",
        "Postgres://x",
        "postgres://ada:p@ss@localhost/x",
        "//ada:password@localhost/x",
        "sqlite://ada:password@localhost/x",
        "sqlite:user=ada password=password",
    ] {
        assert!(parse(url).is_err(), "{url}");
    }
}

#[test]
fn a_database_url_is_printed_without_its_password() {
    for (url, shown) in [
        ("postgres://ada:hunter2@db/x", "postgres://ada:***@db/x"),
        ("postgres://ada@db/x?password=hunter2&sslmode=require", "postgres://ada@db/x?password=***&sslmode=require"),
        ("postgres://ada@db/x?sslpassword=hunter2&pwd=hunter2", "postgres://ada@db/x"),
        ("postgres://ada:#hunter2@db/x", "postgres://ada:***@db/x"),
        ("postgres://ada@db:5432/x", "postgres://ada@db:5432/x"),
        ("latchkey.db", "sqlite://latchkey.db"),
    ] {
        let url = DatabaseUrl::try_from(url.to_owned()).unwrap();
        assert_eq!(url.to_string(), shown);
        assert_eq!(format!("{url:?}"), shown);
    }
}

/// SQLite's locks on the file prevent other processes from deleting the write-ahead log while it is in use. The kernel
/// releases all locks of a process on a file as soon as the process closes any descriptor of the file.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn additional_connections_keep_the_file_locks_of_the_first() {
    use std::os::unix::fs::MetadataExt;
    use std::sync::{Arc, Barrier};

    let database = crate::support::database::Database::create(Backend::Sqlite).unwrap();
    let db = database.open();
    db.migrate_up().await.unwrap();
    let both_open = Arc::new(Barrier::new(2));
    let read = || {
        let both_open = Arc::clone(&both_open);
        db.read(move |conn| {
            let count: i64 =
                diesel::RunQueryDsl::get_result(diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT 1"), conn)?;
            both_open.wait();
            Ok(count)
        })
    };
    let (one, other) = tokio::join!(read(), read());
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));

    let file = database.url.strip_prefix("sqlite://").unwrap();
    let inode = std::fs::metadata(file).unwrap().ino();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let own = locks.lines().filter(|line| line.contains(&format!(":{inode} ")) && line.contains("READ"));
    assert!(own.count() > 0, "no lock on {file} in:\n{locks}");
}

#[tokio::test]
#[cfg(unix)]
async fn a_new_sqlite_file_is_accessible_only_to_its_owner() {
    use std::os::unix::fs::MetadataExt;

    let database = crate::support::database::Database::create(Backend::Sqlite).unwrap();
    let db = database.open();
    db.migrate_up().await.unwrap();
    let file = database.url.strip_prefix("sqlite://").unwrap();
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(std::fs::metadata(format!("{file}{suffix}")).unwrap().mode() & 0o777, 0o600, "{suffix}");
    }
}
