//! No clock that is wrong lengthens the life of a token.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::program::{Serving, latchkey};
use crate::support::{App, Credential, installed, specify};

/// The longest that a change by another program takes to be seen, and room for a machine that is busy with other tests.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Waits until the guard answers `status`.
async fn answers(app: &App, credential: &Credential, status: u16) {
    let started = Instant::now();
    while app.get("/protected-route", credential).await.status != status {
        assert!(started.elapsed() < SEEN_WITHIN, "the change is not seen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Has all tokens and keys be made so many seconds from now.
async fn made_in(app: &App, seconds: i64) {
    let moment = app.clock.now().plus_seconds(seconds).naive();
    for table in ["access_tokens", "api_keys"] {
        app.database.execute(format!("UPDATE {table} SET created_at = '{moment}'")).await;
    }
}

specify! {
    async fn a_token_from_the_future_is_dead_until_then(app: App) {
        let refused = app.expected.bad_token_header;
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &[]).await;
        made_in(&app, 3600).await;
        answers(&app, &ada, refused).await;
        app.get("/me", &ada).await.assert_error(refused, "invalid_token");
        let change = app.patch("/me", &ada, &json!({ "name": "Augusta" })).await;
        change.assert_error(refused, "invalid_token");
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "a key ends on a day that somebody chose");
        app.clock.advance(3600 - 60);
        answers(&app, &ada, 200).await;
    }

    async fn clocks_of_replicas_may_differ_by_a_minute(app: App) {
        let ada = app.user("ada@example.org").await;
        made_in(&app, 60).await;
        assert_eq!(app.get("/protected-route", &ada).await.status, 200);
    }
}

/// The library that gives a program another time of day.
fn libfaketime() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten().map(|place| place.path());
    let found = places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file());
    installed(found, "FAKETIME", "libfaketime (faketime)")
}

/// Seconds that a token lives in the test below: room for a machine that is busy with other tests.
const LIFE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn set_back_by_two_hours_under_way_or_before_a_restart_no_token_outlives_its_time() {
    let Some(library) = libfaketime() else { return };
    let home = TempDir::new().unwrap();
    let offset = home.path().join("offset");
    let set_clock = |by: &str| fs::write(&offset, by).unwrap();
    let start = || {
        let mut command = latchkey(home.path(), &[]);
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &offset);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("LATCHKEY__AUTH__TOKEN_TTL", LIFE.as_secs().to_string());
        Serving::start(&mut command)
    };

    set_clock("+0");
    let serving = start();
    let client = serving.client();
    let token = client.user("ada@example.org").await;
    let delivered = Instant::now();
    assert_eq!(client.get("/me", &token).await.status, 200);
    set_clock("-2h");
    client.get("/me", &token).await;
    serving.line("the system's clock was set back by 7");
    // Not a signal to be awaited, but the very time that must not become longer.
    tokio::time::sleep(LIFE.saturating_sub(delivered.elapsed())).await;
    client.get("/me", &token).await.assert_error(403, "invalid_token");

    let token = Credential::Token(client.new_token_of("ada@example.org").await);
    assert_eq!(client.get("/me", &token).await.status, 200, "who signs in now is in");
    drop(serving);
    let serving = start();
    let client = serving.client();
    client.get("/me", &token).await.assert_error(403, "invalid_token");
    client.new_token_of("ada@example.org").await;
}
