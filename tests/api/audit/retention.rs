//! The removal of old entries by the server: because of settings, and after an interrupted prune.

use latchkey::config::Settings;
use latchkey::domain::audit::{Actor, TrailPart};
use latchkey::server;
use latchkey::service::Service;
use latchkey::service::audit::pruning::Removed;
use serde_json::Value;

use crate::support::{App, specify};

const DAY: u32 = 86_400;

/// The service of another process, on the database and with the clock of the app.
async fn open_service(app: &App, change: impl FnOnce(&mut Settings)) -> Service {
    let mut settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    change(&mut settings);
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Adds entries with this actor and outcome, `age` days ago.
async fn add(app: &App, number: usize, actor: &str, outcome: &str, age: i64) {
    super::add_entries(&app.database, number, actor, outcome, app.clock.now().plus_seconds(-age * i64::from(DAY)))
        .await;
}

async fn count(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM audit_entries").await
}

/// The entries about removals, newest first: target, actor, credential, ids and detail.
async fn prunes(app: &App) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let root = app.admin("root@example.org").await;
    let entries = app.trail(&root, "action=audit.prune").await;
    let fields = ["target", "actor", "credential", "version_before", "version_after", "outcome", "detail"];
    entries.iter().map(|entry| fields.map(|field| text(&entry[field])).join(" ")).collect()
}

specify! {
    async fn entries_are_removed_a_day_after_the_retention_ends_and_one_entry_records_it(app: App) {
        add(&app, 1_203, "user:7", "success", 12).await;
        add(&app, 20, "user:8", "success", 5).await;
        let service = open_service(&app, |settings| settings.audit.retention_days = 10).await;
        assert_eq!(service.pruning().run_once().await.unwrap(), 1_203);
        assert_eq!(prunes(&app).await, ["audit server server 1 1204 success 1203 entries, audit.retention_days"]);
        let left = count(&app).await;
        assert_eq!(left, 20 + 1 + 2, "the kept entries, the one about the removal, and two about the admin");
        assert_eq!(service.pruning().run_once().await.unwrap(), 0);
        assert_eq!(count(&app).await, left, "a run that removes nothing writes no entry");
        app.clock.advance(10 * DAY);
        assert_eq!(service.pruning().run_once().await.unwrap(), 20, "the newer ones are kept until their day has passed");
        app.clock.advance(2 * DAY);
        assert_eq!(service.pruning().run_once().await.unwrap(), 3);
        assert_eq!(count(&app).await, 2, "the entries about the last two removals are newer");
    }

    async fn without_a_retention_all_entries_are_kept(app: App) {
        add(&app, 10, "user:7", "success", 4_000).await;
        let service = open_service(&app, |_| ()).await;
        assert_eq!((service.pruning().run_once().await.unwrap(), count(&app).await), (0, 10));
    }

    async fn failures_of_anonymous_callers_have_a_limit_of_their_own(app: App) {
        add(&app, 600, "anonymous", "failure", 3).await;
        add(&app, 5, "anonymous", "success", 3).await;
        add(&app, 5, "user:7", "failure", 3).await;
        add(&app, 409, "anonymous", "denied", 1).await;
        let service = open_service(&app, |settings| settings.audit.anonymous_failures_kept = 1_000).await;
        assert_eq!(service.pruning().run_once().await.unwrap(), 0, "up to one in a hundred more are kept");
        add(&app, 1_091, "anonymous", "failure", 0).await;
        assert_eq!(service.pruning().run_once().await.unwrap(), 1_100);
        assert_eq!(service.pruning().run_once().await.unwrap(), 0);
        let detail = "1100 entries, audit.anonymous_failures_kept";
        assert_eq!(prunes(&app).await, [format!("audit:anonymous-failures server server 1 1111 success {detail}")]);
        let left = "SELECT actor || ' ' || outcome || ' ' || CAST(count(*) AS TEXT) AS row FROM audit_entries
            WHERE action = 'page.update' GROUP BY actor, outcome ORDER BY 1";
        let left = app.database.rows(left).await;
        assert_eq!(left, ["anonymous failure 1000", "anonymous success 5", "user:7 failure 5"]);
    }

    async fn an_interrupted_removal_is_completed_by_the_next_run(app: App) {
        add(&app, 700, "user:7", "success", 12).await;
        let service = open_service(&app, |_| ()).await;
        let old = service.pruning().older_than(app.clock.now().plus_seconds(-60)).await.unwrap().unwrap();
        assert_eq!((old.first.0, old.below.0, old.count), (1, 701, 700));
        assert!(service.pruning().record(old, Actor::server(), "by a test").await.unwrap());
        assert!(service.pruning().record(old, Actor::server(), "repeated").await.unwrap());
        assert_eq!(count(&app).await, 701, "nothing is removed yet, and only one entry records it");
        let other = open_service(&app, |_| ()).await;
        assert_eq!(other.pruning().run_once().await.unwrap(), 700);
        assert_eq!(prunes(&app).await, ["audit server server 1 701 success 700 entries, by a test"]);
        let removed = service.pruning().remove_recorded(TrailPart::All).await.unwrap();
        assert_eq!(removed, Removed::default());
    }

    async fn a_pending_cleanup_keeps_its_entry_and_those_after_it(app: App) {
        add(&app, 10, "user:7", "success", 12).await;
        app.database.execute("INSERT INTO account_cleanups \
            (user_id, kind, entry_id, ended_at, key_after, key_through, keys, objects) \
            VALUES (7, 'issued', 6, '2026-01-01 00:00:00', 0, 0, 0, '')").await;
        let service = open_service(&app, |_| ()).await;
        let old = service.pruning().older_than(app.clock.now().plus_seconds(-60)).await.unwrap().unwrap();
        assert_eq!((old.below.0, old.count), (6, 5));
    }

    async fn an_entry_of_a_wrong_clock_does_not_keep_those_after_it(app: App) {
        add(&app, 3, "user:7", "success", 12).await;
        add(&app, 1, "user:7", "success", -4_000).await;
        add(&app, 2, "user:7", "success", 11).await;
        add(&app, 2, "user:7", "success", 1).await;
        let service = open_service(&app, |settings| settings.audit.retention_days = 5).await;
        assert_eq!((service.pruning().run_once().await.unwrap(), count(&app).await), (6, 3));
    }

    async fn with_a_clock_that_is_behind_newer_entries_are_kept(app: App) {
        add(&app, 5, "user:7", "success", -4_000).await;
        add(&app, 2, "user:7", "success", 0).await;
        let service = open_service(&app, |settings| settings.audit.retention_days = 5).await;
        assert_eq!((service.pruning().run_once().await.unwrap(), count(&app).await), (0, 7));
    }

    async fn entries_whose_removal_is_not_recorded_cannot_be_deleted(app: App) {
        add(&app, 5, "anonymous", "failure", 12).await;
        add(&app, 5, "user:7", "success", 12).await;
        let record = |target: &str, below: i64| format!(
            "INSERT INTO audit_entries (at, actor, credential, scopes, action, target, version_after, changed, outcome) \
             VALUES ('2026-01-01 00:00:00', 'x', 'x', '', 'audit.prune', '{target}', {below}, '', 'success')"
        );
        let refused = async |id: i64| {
            let error = app.database.sql_error(&format!("DELETE FROM audit_entries WHERE id = {id}")).await;
            assert!(error.is_some_and(|error| error.contains("audit_entries is append-only")), "{id}");
        };
        app.database.execute(record("audit:anonymous-failures", 9)).await;
        for id in [6, 8, 9, 11] {
            refused(id).await;
        }
        app.database.execute("DELETE FROM audit_entries WHERE id = 2").await;
        app.database.execute(record("audit", 4)).await;
        for id in [6, 11, 12] {
            refused(id).await;
        }
        // Even an entry that covers every id does not cover itself.
        app.database.execute(record("audit", i64::MAX)).await;
        refused(13).await;
        app.database.execute("DELETE FROM audit_entries WHERE id < 13").await;
        assert_eq!(count(&app).await, 1);
    }
}
