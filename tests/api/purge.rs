//! What has long expired is removed.

use latchkey::config::Settings;
use latchkey::server;
use serde_json::json;

use crate::support::{App, Backend, Credential, Profile, specify};

const DAY: i64 = 86_400;

/// What a process on the app's database removes, at the app's time.
async fn purge(app: &App) -> usize {
    let settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    let service = server::open_service(&settings, app.clock.clone()).await.unwrap();
    service.purge().await.unwrap()
}

specify! {
    async fn tokens_go_a_day_after_they_expired_and_the_living_stay(app: App) {
        let ada = app.user("ada@example.org").await;
        app.clock.advance(DAY + 1);
        app.get("/me", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        let eve = app.user("eve@example.org").await;
        assert_eq!(purge(&app).await, 0, "it is not due yet");
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

    async fn claim_codes_are_forgotten_a_month_after_they_expired_and_the_receipts_stay(app: App) {
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

#[tokio::test]
async fn many_are_removed_in_batches_while_somebody_signs_in() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        app.register("ada@example.org").await;
        let users = "(name, surname, email, email_key, website, hashed_password, created_at, updated_at)";
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 1209)";
        let (then, name) = ("'2026-01-01 00:00:00'", "CAST(i AS TEXT)");
        app.database
            .execute(format!(
                "{numbers} INSERT INTO users {users}
                    SELECT 'Old', '', {name}, {name}, '', '', {then}, {then} FROM n;
                 INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date, sign_in_id)
                    SELECT id, email_key, '*', {then}, {then}, 0 FROM users WHERE name = 'Old'"
            ))
            .await;
        let (removed, token) = tokio::join!(purge(&app), app.new_token_of("ada@example.org"));
        assert_eq!(removed, 1_200);
        assert_eq!(app.get("/me", &Credential::Token(token)).await.status, 200);
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 1);
    }
}

#[tokio::test]
async fn another_process_that_is_at_it_is_left_alone() {
    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    app.user("ada@example.org").await;
    app.clock.advance(3 * DAY);
    let held = app.database.open();
    let (started, waits) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let other = tokio::spawn(async move {
        held.write(move |conn| {
            assert!(latchkey::db::purging_is_ours(conn)?);
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok(())
        })
        .await
    });
    waits.await.unwrap();
    assert_eq!(purge(&app).await, 0);
    release.send(()).unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(purge(&app).await, 1);
}
