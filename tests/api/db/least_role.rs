//! A server whose database role has only the grants that `docs/operations.md` lists.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use latchkey::clock::Clock;
use latchkey::config::Settings;
use latchkey::server::open_service;
use tempfile::TempDir;

use crate::support::database::{Backend, Database};
use crate::support::postgres::own_socket;
use crate::support::program::{Serving, latchkey, out, run};
use crate::support::tour::tour;

const PAGE: &str = include_str!("../../../docs/operations.md");

/// The error with which PostgreSQL refuses `sql`.
#[expect(clippy::disallowed_methods, reason = "the test connects without the program")]
fn refusal(url: &str, sql: &str) -> String {
    PgConnection::establish(url).unwrap().batch_execute(sql).expect_err(sql).to_string()
}

#[tokio::test]
async fn the_documented_grants_suffice_for_every_operation_and_permit_nothing_else() {
    // Roles belong to the whole database server, so the test requires a server of its own.
    let Some(_) = own_socket() else { return };
    let database = Database::create(Backend::Postgres).unwrap();
    let home = TempDir::new().unwrap();
    out(&run(latchkey(home.path(), &["migrate", "up"]).env("DATABASE_URL", &database.url)));
    let grants: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("GRANT ")).collect();
    let mut granted = BTreeSet::new();
    for line in &grants {
        let (privileges, tables) = line.trim_start_matches("GRANT ").split_once(" ON ").unwrap();
        granted.extend(tables.trim_end_matches(" TO serve;").split(", ").map(|table| (table, privileges)));
    }
    assert_eq!(granted, latchkey::db::GRANTS.iter().copied().collect(), "the page and the code list the same grants");
    database.execute(format!("CREATE ROLE serve LOGIN; {}", grants.join("\n"))).await;
    // Every role has this privilege on the schema `public`.
    let usage = "EXECUTE format('GRANT USAGE ON SCHEMA %I TO serve', current_schema())";
    database.execute(format!("DO $$ BEGIN {usage}; END $$")).await;

    let url = database.url.replace("user=postgres", "user=serve");
    let command = |arguments: &[&str]| {
        let mut command = latchkey(home.path(), arguments);
        command.env("DATABASE_URL", &url).env("LATCHKEY__DATABASE__MIGRATE_ON_START", "false");
        command.env("LATCHKEY__HTTP__PUBLIC_URL", "https://auth.example.org");
        command
    };
    let mut serving = Serving::start(&mut command(&[]));
    tour(&serving.client(), command).await;
    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
    let warnings: Vec<String> = serving
        .remaining_lines()
        .into_iter()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect();
    assert!(warnings.is_empty(), "{warnings:?}");

    let mut settings = Settings::defaults().unwrap();
    settings.database = Database::at(&url).settings();
    settings.database.migrate_on_start = false;
    settings.audit.retention_days = 1;
    let clock = Clock::default();
    clock.advance(3 * 86_400);
    let service = open_service(&settings, clock).await.unwrap();
    assert!(service.lifecycle().purge().run_once().await.unwrap() > 0, "expired rows are removed");
    // A temporary table of the role must not be taken for the trail.
    let more = "CREATE TEMPORARY TABLE audit_entries AS SELECT * FROM audit_entries; \
        UPDATE audit_entries SET action = 'audit.prune', target = 'audit', version_after = 9999, id = id + 9999; \
        SELECT remove_audit_entries('audit', 0, 9998)";
    assert!(refusal(&url, more).contains("audit_entries is append-only"));
    assert!(service.pruning().run_once().await.unwrap() > 10, "old audit entries are removed");

    for (denied, reason) in [
        ("DROP TABLE pages", "must be owner"),
        ("ALTER TABLE users DISABLE TRIGGER ALL", "must be owner"),
        ("CREATE TABLE more (id BIGINT)", "permission denied"),
        ("DELETE FROM audit_entries", "permission denied"),
        ("UPDATE audit_entries SET outcome = 'success'", "permission denied"),
        ("TRUNCATE audit_entries", "permission denied"),
        ("DELETE FROM __diesel_schema_migrations", "permission denied"),
        ("CREATE ROLE more", "permission denied"),
    ] {
        let error = refusal(&url, denied);
        assert!(error.contains(reason), "{denied}: {error}");
    }
    database.execute("REVOKE EXECUTE ON FUNCTION remove_audit_entries FROM PUBLIC").await;
    let error = refusal(&url, "SELECT remove_audit_entries('audit', 0, 1)");
    assert!(error.contains("permission denied for function"), "{error}");
}
