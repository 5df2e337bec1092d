//! A wrong clock never lengthens the lifetime of a token.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::program::{Serving, latchkey};
use crate::support::{App, Credential, installed, specify};

/// Time-out for a change by another program to be seen. It is long because the machine may be busy with other tests.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Waits until the guard returns `status`.
async fn wait_for_status(app: &App, credential: &Credential, status: u16) {
    let started = Instant::now();
    while app.get("/protected-route", credential).await.status != status {
        assert!(started.elapsed() < SEEN_WITHIN, "the change is not seen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sets the creation time of all tokens and keys to `seconds` from now.
async fn set_created_in(app: &App, seconds: i64) {
    let moment = app.clock.now().plus_seconds(seconds).naive();
    for table in ["access_tokens", "api_keys"] {
        app.database.execute(format!("UPDATE {table} SET created_at = '{moment}'")).await;
    }
}

specify! {
    async fn a_token_created_in_the_future_is_invalid_until_then(app: App) {
        let refused = app.expected.bad_token_header;
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &[]).await;
        set_created_in(&app, 3600).await;
        wait_for_status(&app, &ada, refused).await;
        app.get("/me", &ada).await.assert_error(refused, "invalid_token");
        let change = app.patch("/me", &ada, &json!({ "name": "Augusta" })).await;
        change.assert_error(refused, "invalid_token");
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "the expiry of a key does not depend on its creation time");
        app.clock.advance(3600 - 60);
        wait_for_status(&app, &ada, 200).await;
    }

    async fn clocks_of_replicas_may_differ_by_a_minute(app: App) {
        let ada = app.user("ada@example.org").await;
        set_created_in(&app, 60).await;
        assert_eq!(app.get("/protected-route", &ada).await.status, 200);
    }
}

/// The library that changes the time of day of a program.
fn libfaketime() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let found =
        directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file());
    installed(found, "FAKETIME", "libfaketime (faketime)")
}

/// The lifetime of tokens in the test below. It is long because the machine may be busy with other tests.
const TOKEN_TTL: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_clock_set_back_by_two_hours_lengthens_no_token_while_running_or_across_a_restart() {
    let Some(library) = libfaketime() else { return };
    let home = TempDir::new().unwrap();
    let offset = home.path().join("offset");
    let set_clock = |by: &str| fs::write(&offset, by).unwrap();
    let start = || {
        let mut command = latchkey(home.path(), &[]);
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &offset);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("LATCHKEY__AUTH__TOKEN_TTL", TOKEN_TTL.as_secs().to_string());
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
    // A fixed sleep, because this is the period that must not become longer.
    tokio::time::sleep(TOKEN_TTL.saturating_sub(delivered.elapsed())).await;
    client.get("/me", &token).await.assert_error(403, "invalid_token");

    let token = Credential::Token(client.new_token_of("ada@example.org").await);
    assert_eq!(client.get("/me", &token).await.status, 200, "a new sign-in works");
    drop(serving);
    let serving = start();
    let client = serving.client();
    client.get("/me", &token).await.assert_error(403, "invalid_token");
    client.new_token_of("ada@example.org").await;
}
