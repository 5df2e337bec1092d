//! The removal of expired rows.

use std::time::Duration;

use diesel::RunQueryDsl;
use latchkey::config::Settings;
use latchkey::db::Conn;
use latchkey::error::AppError;
use latchkey::server;
use latchkey::service::Service;
use serde_json::json;

use crate::support::{App, Backend, Credential, Profile, specify};

const DAY: u32 = 86_400;

/// The service of another process, on the database and with the clock of the app.
async fn open_service(app: &App) -> Service {
    open_service_with(app, |_| ()).await
}

async fn open_service_with(app: &App, change: impl FnOnce(&mut Settings)) -> Service {
    let mut settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    change(&mut settings);
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Purges in another process; returns the number of removed rows.
async fn purge(app: &App) -> usize {
    open_service(app).await.lifecycle().purge().run_once().await.unwrap()
}

/// Runs `meanwhile` while another process holds open a transaction in which it has done `work`.
async fn during<T>(
    app: &App,
    work: impl FnOnce(&mut Conn) -> Result<(), AppError> + Send + 'static,
    meanwhile: impl Future<Output = T>,
) -> T {
    let (started_sender, started) = tokio::sync::oneshot::channel();
    let (end_sender, end) = std::sync::mpsc::channel::<()>();
    let db = app.database.open();
    let other = tokio::spawn(async move {
        db.write(move |conn| {
            work(conn)?;
            started_sender.send(()).unwrap();
            end.recv().unwrap();
            Ok(())
        })
        .await
    });
    started.await.unwrap();
    let result = meanwhile.await;
    end_sender.send(()).unwrap();
    other.await.unwrap().unwrap();
    result
}

specify! {
    async fn tokens_are_removed_a_day_after_they_expired_and_valid_ones_stay(app: App) {
        let ada = app.user("ada@example.org").await;
        app.clock.advance(DAY + 1);
        app.get("/me", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        let eve = app.user("eve@example.org").await;
        assert_eq!(purge(&app).await, 0, "no row is due yet");
        app.clock.advance(DAY - 10);
        let grace = app.user("grace@example.org").await;
        app.clock.advance(10);
        assert_eq!(purge(&app).await, 1);
        let left = app.database.rows("SELECT CAST(user_id AS TEXT) AS row FROM access_tokens ORDER BY 1").await;
        assert_eq!(left, ["2", "3"]);
        app.get("/me", &eve).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/me", &grace).await.status, 200);
        assert_eq!(purge(&app).await, 0);
        assert_eq!(app.sign_in("ada@example.org", crate::support::app::PASSWORD).await.status, 200);
    }

    async fn old_failures_and_networks_are_removed(app: App) {
        let at = |days: i64| app.clock.now().plus_seconds(-days * i64::from(DAY)).utc().format("%Y-%m-%d %H:%M:%S").to_string();
        app.register("ada@example.org").await;
        // Accounts are still stopped when limits are on again.
        for with_limits in [true, false] {
            app.database.execute("DELETE FROM sign_in_failures; DELETE FROM known_networks").await;
            for (account, failures, days) in [("fresh", 3, 0), ("old", 3, 2), ("stopped", 100, 29), ("long ago", 100, 31)] {
                app.database.execute(format!("INSERT INTO sign_in_failures VALUES ('{account}', {failures}, '{}')", at(days))
                    .replace("VALUES", "(account, failures, last_at) VALUES")).await;
            }
            for (network, days) in [("fresh", 89), ("old", 91)] {
                let network = format!("INSERT INTO known_networks (network, user_id, seen_at) VALUES ('{network}', 1, '{}')", at(days));
                app.database.execute(network).await;
            }
            let service = open_service_with(&app, |settings| settings.limits.enabled = with_limits).await;
            assert_eq!(service.lifecycle().purge().run_once().await.unwrap(), 3, "{with_limits}");
            let left = "SELECT account AS row FROM sign_in_failures UNION SELECT network FROM known_networks ORDER BY 1";
            assert_eq!(app.database.rows(left).await, ["fresh", "stopped"], "{with_limits}");
        }
    }

    async fn claim_codes_are_removed_a_month_after_they_expired_and_orders_stay(app: App) {
        let (shop, _) = app.key_of(&app.admin("shop@example.org").await, &["keys:issue"]).await;
        let order = json!({ "name": "translate", "scopes": ["translate:use"], "order": "A-1", "delivery": "claim" });
        let issued = app.post("/keys", &shop, &order).await;
        let code = json!({ "claim": issued.text_of("claim") });
        let claim = async || app.post("/keys/claim", &Credential::None, &code).await;
        app.clock.advance(3 * DAY);
        claim().await.assert_error(410, "claim_expired");
        assert_eq!(purge(&app).await, 1, "the token of the shop's owner");
        claim().await.assert_error(410, "claim_expired");
        app.clock.advance(30 * DAY);
        assert_eq!(purge(&app).await, 1, "the code");
        claim().await.assert_error(404, "not_found");
        let again = app.post("/keys", &shop, &order).await;
        assert_eq!((again.status, &again.body["id"]), (200, &issued.body["id"]));
    }
}

specify! {
    async fn idempotency_keys_are_removed_after_a_week_and_orders_stay(app: App) {
        let (shop, _) = app.key_of(&app.admin("shop@example.org").await, &["keys:issue"]).await;
        let plain = json!({ "name": "k", "scopes": [] });
        let order = json!({ "name": "k", "scopes": [], "order": "A-1" });
        let issue = async |name: &str, body: &serde_json::Value| {
            app.request("POST", "/keys").credential(&shop).header("Idempotency-Key", name).json(body).send().await
        };
        let (named, ordered) = (issue("first", &plain).await, issue("second", &order).await);
        assert_eq!((named.status, ordered.status), (201, 201));
        assert_eq!(issue("first", &plain).await.body["id"], named.body["id"]);
        app.clock.advance(7 * DAY - 10);
        assert_eq!(purge(&app).await, 1, "the token of the shop's owner");
        assert_eq!(issue("first", &plain).await.body["id"], named.body["id"]);
        app.clock.advance(10);
        assert_eq!(purge(&app).await, 2);
        assert_eq!(issue("first", &plain).await.status, 201, "the idempotency key is new again");
        let again = issue("second", &order).await;
        assert_eq!((again.status, &again.body["id"]), (200, &ordered.body["id"]));
    }
}

#[tokio::test]
async fn many_rows_are_removed_in_several_transactions() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        let columns = "(name, surname, email, email_key, website, hashed_password, created_at, updated_at)";
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)";
        let (then, name) = ("'2026-01-01 00:00:00'", "CAST(i AS TEXT)");
        app.database
            .execute(format!(
                "{numbers} INSERT INTO users {columns}
                    SELECT 'Old', '', {name}, {name}, '', '', {then}, {then} FROM n;
                 INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date, sign_in_id)
                    SELECT id, email_key, '*', {then}, {then}, 0 FROM users"
            ))
            .await;
        let service = open_service(&app).await;
        let (left, removed) = tokio::join!(
            async {
                // The first count below 12,000: some rows are removed, but not all.
                loop {
                    let left = app.database.number("SELECT count(*) FROM access_tokens").await;
                    if left < 12_000 {
                        return left;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            },
            service.lifecycle().purge().run_once(),
        );
        assert_eq!(removed.unwrap(), 12_000);
        assert!(left > 0 && left % 500 == 0, "{left}");
    }
}

/// PostgreSQL only: SQLite has one writer at a time.
#[tokio::test]
async fn a_token_renewed_during_the_purge_is_kept() {
    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    for email in ["ada@example.org", "eve@example.org"] {
        app.user(email).await;
    }
    app.clock.advance(3 * DAY);
    let service = open_service(&app).await;
    let sign_in = |conn: &mut Conn| {
        diesel::sql_query("UPDATE access_tokens SET expiration_date = '2099-01-01' WHERE user_id = 1").execute(conn)?;
        Ok(())
    };
    assert_eq!(during(&app, sign_in, service.lifecycle().purge().run_once()).await.unwrap(), 1);
    assert_eq!(app.database.rows("SELECT CAST(user_id AS TEXT) AS row FROM access_tokens").await, ["1"]);
}

#[tokio::test]
async fn the_purge_is_skipped_while_another_process_purges() {
    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    app.user("ada@example.org").await;
    app.clock.advance(3 * DAY);
    let service = open_service(&app).await;
    let lock = |conn: &mut Conn| {
        assert!(latchkey::db::try_purge_lock(conn)?);
        Ok(())
    };
    assert_eq!(during(&app, lock, service.lifecycle().purge().run_once()).await.unwrap(), 0);
    assert_eq!(service.lifecycle().purge().run_once().await.unwrap(), 1);
}
