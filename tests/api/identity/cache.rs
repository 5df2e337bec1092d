//! The identity cache reflects every change, whichever process or program makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use latchkey::clock::Clock;
use latchkey::config::Settings;
use latchkey::server::Server;
use serde_json::json;

use crate::support::app::PASSWORD;
use crate::support::client::Client;
use crate::support::{App, Backend, Credential, Profile, specify};

/// The documented maximum delay until another process sees a change.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// The time-out of these tests. It is longer because the machine may be busy with other tests.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Waits until `credential` is refused.
async fn wait_until_refused(app: &App, credential: &Credential) {
    let started = Instant::now();
    while app.get("/protected-route", credential).await.status == 200 {
        assert!(started.elapsed() < SEEN_WITHIN, "the change is not seen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sends enough requests that the identity is cached, if it can be.
async fn warm(app: &App, credential: &Credential) {
    for _ in 0..50 {
        assert_eq!(app.get("/protected-route", credential).await.status, 200);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

specify! {
    async fn the_cache_is_not_used_while_the_change_log_cannot_be_read(app: App) {
        let ada = app.user("ada@example.org").await;
        warm(&app, &ada).await;
        // Delete the token without an entry in the change log.
        let unlogged = match app.database.backend {
            Backend::Postgres => "SET session_replication_role = replica;",
            Backend::Sqlite => "",
        };
        let unread = "ALTER TABLE credential_changes RENAME TO elsewhere; DELETE FROM access_tokens";
        app.database.execute(format!("{unlogged} {unread}")).await;
        wait_until_refused(&app, &ada).await;
    }

    async fn changes_by_other_programs_are_seen(app: App) {
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &["pages:read"]).await;
        warm(&app, &ada).await;
        warm(&app, &key).await;
        app.database.execute("UPDATE users SET name = 'Renamed'").await;
        let started = Instant::now();
        while app.get("/protected-route", &key).await.body["hello"] != "Renamed" {
            assert!(started.elapsed() < SEEN_WITHIN, "the name is not seen");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        app.database.execute("DELETE FROM access_tokens").await;
        wait_until_refused(&app, &ada).await;
        assert_eq!(app.get("/protected-route", &key).await.status, 200);
        app.database.execute("UPDATE api_keys SET expires_at = '2026-01-01 00:00:00'").await;
        wait_until_refused(&app, &key).await;
        app.database.execute("UPDATE api_keys SET expires_at = NULL").await;
        let started = Instant::now();
        while app.get("/protected-route", &key).await.status != 200 {
            assert!(started.elapsed() < SEEN_WITHIN, "the key stays invalid");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        app.database.execute("UPDATE users SET disabled_at = '2026-01-01 00:00:00'").await;
        wait_until_refused(&app, &key).await;
    }

    async fn cached_credentials_expire_on_time(app: App) {
        let ada = app.user("ada@example.org").await;
        let (key, id) = app.key_of(&ada, &[]).await;
        let rotated = app.post(&format!("/me/keys/{id}/rotate"), &ada, &json!({ "overlap_seconds": 60 })).await;
        let fresh = Credential::Token(rotated.text_of("key"));
        for credential in [&ada, &key, &fresh] {
            warm(&app, credential).await;
        }
        app.clock.advance(60);
        app.get("/protected-route", &key).await.assert_error(app.expected.bad_token_header, "invalid_token");
        app.clock.advance(86_400 - 60);
        app.get("/protected-route", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/protected-route", &fresh).await.status, 200);
    }

    async fn no_use_that_begins_after_a_revocation_succeeds_on_the_process_that_revoked(app: App) {
        let app = Arc::new(app);
        for round in 0..5 {
            let email = format!("user{round}@example.org");
            let token = app.user(&email).await;
            warm(&app, &token).await;
            let users: Vec<_> = (0..8).map(|_| {
                let (app, token) = (Arc::clone(&app), token.clone());
                tokio::spawn(async move {
                    let mut history = Vec::new();
                    for _ in 0..40 {
                        let began = Instant::now();
                        history.push((began, app.get("/protected-route", &token).await.status));
                    }
                    history
                })
            }).collect();
            let revoked = match round % 3 {
                0 => app.delete("/token", &token).await.status,
                1 => app.sign_in(&email, PASSWORD).await.status,
                _ => app.put("/me/password", &token, &json!({ "current_password": PASSWORD, "new_password": "another password" })).await.status,
            };
            let answered = Instant::now();
            assert!(revoked < 300, "{revoked}");
            for user in users {
                for (began, status) in user.await.unwrap() {
                    assert!(status != 200 || began < answered, "a use that began after the response to the revocation succeeded");
                }
            }
        }
    }
}

/// A second server on the same database, in place of a second process.
async fn replica(app: &App) -> (std::net::SocketAddr, latchkey::http::ServerHandle) {
    let mut settings = Settings::defaults().unwrap();
    settings.server.listen = "127.0.0.1:0".parse().unwrap();
    settings.server.workers = 1;
    settings.server.shutdown_timeout = 0;
    settings.database = app.database.settings();
    settings.auth.bcrypt_cost = 4;
    settings.auth.hash_threads = 1;
    settings.limits.enabled = false;
    let server = Server::start(&settings, Clock::default()).await.unwrap();
    let (address, handle) = (server.address(), server.handle());
    tokio::spawn(server.run());
    (address, handle)
}

async fn revocations_are_seen_by_a_replica(backend: Backend, disturb: bool) {
    let Some(app) = App::start(backend, Profile::Rfc).await else { return };
    let (other, handle) = replica(&app).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let status_of = async |token: &str| {
        let answer = http.get(format!("http://{other}/protected-route")).header("Token", token).send().await.unwrap();
        answer.status().as_u16()
    };
    let (mut delays, mut killed) = (Vec::new(), 0);
    for round in 0..10 {
        let token = app.token_of(&format!("user{round}@example.org")).await;
        for _ in 0..20 {
            assert_eq!(status_of(&token).await, 200);
        }
        if disturb {
            killed += app.database.end_change_log_readers().await;
        }
        assert_eq!(app.delete("/token", &Credential::Token(token.clone())).await.status, 204);
        let started = Instant::now();
        while status_of(&token).await == 200 {
            assert!(started.elapsed() < SEEN_WITHIN, "round {round}: the revocation is missed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        delays.push(started.elapsed());
        // A revocation that was seen stays in effect.
        for _ in 0..10 {
            assert_eq!(status_of(&token).await, 403);
        }
    }
    assert_eq!(killed > 0, disturb, "{killed} readers were killed");
    // The median, because a busy machine delays single rounds, whereas a slow reader delays all of them.
    delays.sort_unstable();
    assert!(delays[delays.len() / 2] < MAX_DELAY, "{delays:?}");
    drop(handle.stop(false));
}

/// After a change of an e-mail address, `/authz` and `/introspect` on another server return the new one.
async fn a_new_email_address_is_seen_by_a_replica(backend: Backend) {
    let Some(app) = App::start(backend, Profile::Rfc).await else { return };
    let (other, handle) = replica(&app).await;
    let other = Client::new(&format!("http://{other}"));
    let (service, _) = app.key_of(&app.admin("root@example.org").await, &["tokens:introspect"]).await;
    let ada = app.user("ada@example.org").await;
    let addresses = async || {
        let forwarded = other.get("/authz", &ada).await.header("remote-email").to_owned();
        let token = [("token", ada.secret())];
        let introspected = other.request("POST", "/introspect").credential(&service).form(&token).send().await;
        [forwarded, introspected.text_of("username")]
    };
    for _ in 0..10 {
        assert_eq!(addresses().await, ["ada@example.org"; 2]);
    }
    let new = json!({ "email": "lovelace@example.org", "current_password": PASSWORD });
    assert_eq!(app.patch("/me", &ada, &new).await.status, 200);
    assert_eq!(app.register("ada@example.org").await.status, 201, "another user registers the old address");
    let started = Instant::now();
    while addresses().await != ["lovelace@example.org"; 2] {
        assert!(started.elapsed() < SEEN_WITHIN, "the new address is not seen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(handle.stop(false));
}

#[tokio::test]
async fn a_second_process_on_the_same_file_returns_the_new_email_address() {
    a_new_email_address_is_seen_by_a_replica(Backend::Sqlite).await;
}

#[tokio::test]
async fn a_second_replica_on_postgres_returns_the_new_email_address() {
    a_new_email_address_is_seen_by_a_replica(Backend::Postgres).await;
}

#[tokio::test]
async fn a_second_process_on_the_same_file_sees_revocations() {
    revocations_are_seen_by_a_replica(Backend::Sqlite, false).await;
}

#[tokio::test]
async fn many_changes_at_once_are_seen_and_leave_few_rows() {
    let app = App::start(Backend::Sqlite, Profile::Rfc).await.unwrap();
    let ada = app.user("ada@example.org").await;
    warm(&app, &ada).await;
    app.database
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) \
             INSERT INTO credential_changes (user_id) SELECT 99 FROM n; DELETE FROM access_tokens",
        )
        .await;
    wait_until_refused(&app, &ada).await;
    assert!(app.database.number("SELECT count(*) FROM credential_changes").await <= 11_000);
}

#[tokio::test]
async fn a_second_replica_on_postgres_sees_revocations() {
    revocations_are_seen_by_a_replica(Backend::Postgres, false).await;
}

#[tokio::test]
async fn no_revocation_is_missed_while_the_connection_that_reads_the_change_log_is_killed() {
    revocations_are_seen_by_a_replica(Backend::Postgres, true).await;
}

#[tokio::test]
async fn without_the_cache_every_change_is_seen_at_once() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start_with(backend, Profile::Rfc, |settings| settings.auth.cache_size = 0).await else {
            continue;
        };
        let ada = app.user("ada@example.org").await;
        assert_eq!(app.get("/me", &ada).await.status, 200);
        app.database.execute("DELETE FROM access_tokens").await;
        app.get("/me", &ada).await.assert_error(401, "invalid_token");
    }
}
