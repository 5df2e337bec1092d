//! The end of sessions by time.

use std::time::{Duration, Instant};

use latchkey::config::Settings;
use latchkey::server;

use crate::support::{App, Backend, Credential, Profile, specify};

const HOUR: u32 = 3_600;
/// Time-out for the last use to be stored. It is long because the machine may be busy with other tests.
const STORED_WITHIN: Duration = Duration::from_secs(20);

async fn status(app: &App, session: &Credential) -> u16 {
    app.get("/protected-route", session).await.status
}

/// Uses the session, and waits until this use is stored.
async fn use_and_store(app: &App, session: &Credential) {
    assert_eq!(status(app, session).await, 200);
    let used = app.clock.now().plus_seconds(-1).utc().format("%Y-%m-%d %H:%M:%S").to_string();
    let stored = format!("SELECT count(*) FROM sessions WHERE last_used_at >= '{used}'");
    let started = Instant::now();
    while app.database.number(&stored).await == 0 {
        assert!(started.elapsed() < STORED_WITHIN, "the use is not stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

specify! {
    async fn a_session_ends_after_an_hour_without_use(app: App) {
        app.register("ada@example.org").await;
        let (used, _) = app.session_of("ada@example.org").await;
        let (unused, unused_id) = app.session_of("ada@example.org").await;
        app.clock.advance(HOUR - 60);
        use_and_store(&app, &used).await;
        assert_eq!(app.get("/me/sessions", &used).await.body["total"], 2);
        app.clock.advance(60);
        assert_eq!(status(&app, &used).await, 200, "a use keeps it alive, also in the cache");
        app.get("/session", &unused).await.assert_error(401, "invalid_token");
        let listed = app.get("/me/sessions", &used).await;
        assert_eq!(listed.body["total"], 1, "a session that has ended is not listed: {listed:?}");
        app.delete(&format!("/me/sessions/{unused_id}"), &used).await;
        assert_eq!(app.delete("/session", &unused).await.status, 204);
        app.clock.advance(HOUR + 60);
        app.get("/session", &used).await.assert_error(401, "invalid_token");
    }

    async fn a_session_ends_after_twelve_hours_of_use(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        for _ in 0..14 {
            app.clock.advance(50 * 60);
            use_and_store(&app, &session).await;
        }
        // Time passes also while the uses are stored.
        app.clock.advance(19 * 60);
        assert_eq!(status(&app, &session).await, 200);
        app.clock.advance(60);
        app.get("/session", &session).await.assert_error(401, "invalid_token");
        assert_eq!(app.sign_in("ada@example.org", crate::support::app::PASSWORD).await.status, 200);
    }

    async fn a_use_on_another_replica_keeps_the_session_alive_here(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        for _ in 0..5 {
            assert_eq!(status(&app, &session).await, 200);
        }
        app.clock.advance(HOUR + 60);
        // Another process has stored a use. No entry of the change log says so.
        let used = app.clock.now().plus_seconds(-120).utc().format("%Y-%m-%d %H:%M:%S").to_string();
        app.database.execute(format!("UPDATE sessions SET last_used_at = '{used}'")).await;
        assert_eq!(status(&app, &session).await, 200);
    }

    async fn the_use_is_stored_once_a_minute(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        app.clock.advance(30);
        use_and_store(&app, &session).await;
        let stored = "SELECT CAST(last_used_at AS TEXT) AS row FROM sessions";
        let before = app.database.rows(stored).await;
        app.clock.advance(30);
        assert_eq!(status(&app, &session).await, 200);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(app.database.rows(stored).await, before);
        app.clock.advance(30);
        let started = Instant::now();
        while app.database.rows(stored).await == before {
            assert!(started.elapsed() < STORED_WITHIN, "the use is not stored");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn a_session_created_in_the_future_is_invalid_until_then(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        let later = app.clock.now().plus_seconds(120).utc().format("%Y-%m-%d %H:%M:%S").to_string();
        app.database.execute(format!("UPDATE sessions SET created_at = '{later}'")).await;
        let started = Instant::now();
        while status(&app, &session).await == 200 {
            assert!(started.elapsed() < STORED_WITHIN, "the change is not seen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        app.clock.advance(61);
        assert_eq!(status(&app, &session).await, 200, "clocks may differ by a minute");
    }

    async fn expired_sessions_are_removed_a_day_later(app: App) {
        app.register("ada@example.org").await;
        app.session_of("ada@example.org").await;
        let settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
        let service = server::open_service(&settings, app.clock.clone()).await.unwrap();
        app.clock.advance(12 * HOUR + 24 * HOUR - 60);
        app.session_of("ada@example.org").await;
        assert_eq!(service.lifecycle().purge().run_once().await.unwrap(), 0);
        app.clock.advance(60);
        assert_eq!(service.lifecycle().purge().run_once().await.unwrap(), 1);
        assert_eq!(app.database.number("SELECT id FROM sessions").await, 2);
    }
}

#[tokio::test]
async fn the_settings_limit_time_and_number() {
    let short = |settings: &mut Settings| {
        settings.session.idle_minutes = 5;
        settings.session.lifetime_minutes = 10;
        settings.session.max_per_user = 1;
    };
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start_with(backend, Profile::Rfc, short).await else { continue };
        app.register("ada@example.org").await;
        let (first, _) = app.session_of("ada@example.org").await;
        let (second, _) = app.session_of("ada@example.org").await;
        app.get("/session", &first).await.assert_error(401, "invalid_token");
        let read = app.get("/session", &second).await;
        assert_eq!(read.body["idle_seconds"], 300, "{read:?}");
        app.service.identities().last_uses().flush().await;
        for _ in 0..2 {
            app.clock.advance(280);
            use_and_store(&app, &second).await;
        }
        app.clock.advance(40);
        app.get("/session", &second).await.assert_error(401, "invalid_token");
    }
}

#[test]
fn the_settings_have_bounds() {
    for (name, values) in [
        ("IDLE_MINUTES", ["4", "1441", "721", "-1"]),
        ("LIFETIME_MINUTES", ["4", "43201", "59", "0"]),
        ("MAX_PER_USER", ["0", "101", "-1", "x"]),
    ] {
        for value in values {
            let variable = (format!("LATCHKEY__SESSION__{name}"), value.to_owned());
            let error = Settings::load(None, [variable]).unwrap_err().to_string();
            assert!(error.contains("session."), "{name}={value}: {error}");
        }
    }
    let largest = [("IDLE_MINUTES", "1440"), ("LIFETIME_MINUTES", "43200"), ("MAX_PER_USER", "100")];
    let largest = largest.map(|(name, value)| (format!("LATCHKEY__SESSION__{name}"), value.to_owned()));
    assert_eq!(Settings::load(None, largest).unwrap().session.idle_seconds(), 86_400);
}
