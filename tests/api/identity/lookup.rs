//! Lookups of credentials that are not in the cache, with failing rows and lost connections.

use futures_util::future::join_all;
use latchkey::config::Settings;

use crate::support::postgres::set_application_name;
use crate::support::{App, Backend, Credential, Profile};

/// A server without a cache.
async fn uncached(backend: Backend, change: impl FnOnce(&mut Settings)) -> Option<App> {
    App::start_with(backend, Profile::Rfc, |settings| {
        settings.auth.cache_size = 0;
        change(settings);
    })
    .await
}

/// The status of a request with this credential.
async fn status_of(app: &App, credential: &Credential) -> u16 {
    app.get("/protected-route", credential).await.status
}

#[tokio::test]
async fn parallel_lookups_each_return_their_own_result() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = uncached(backend, |_| ()).await else { continue };
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &[]).await;
        let unknown = Credential::Token("lkt_000000000000000000000000000000000000000000000000".into());
        let answers = join_all((0..300).map(async |number| {
            let (credential, expected) = [(&ada, 200), (&key, 200), (&unknown, 401)][number % 3];
            (status_of(&app, credential).await, expected)
        }));
        for (status, expected) in answers.await {
            assert_eq!(status, expected);
        }
    }
}

#[tokio::test]
async fn an_unreadable_row_fails_only_its_own_lookup() {
    let app = uncached(Backend::Sqlite, |_| ()).await.unwrap();
    let (ada, eve) = (app.user("ada@example.org").await, app.user("eve@example.org").await);
    app.database.execute("UPDATE access_tokens SET expiration_date = 'soon' WHERE user_id = 2").await;
    let answers = join_all((0..100).map(async |number| (number % 2, status_of(&app, [&ada, &eve][number % 2]).await)));
    for (user, status) in answers.await {
        assert_eq!(status, [200, 500][user]);
    }
}

#[tokio::test]
async fn no_request_fails_when_the_server_closes_its_connections() {
    let name_sessions = |settings: &mut Settings| set_application_name(&mut settings.database.url, "loses_connections");
    let Some(app) = uncached(Backend::Postgres, name_sessions).await else { return };
    let ada = app.user("ada@example.org").await;
    for _ in 0..20 {
        let (first, second) = tokio::join!(status_of(&app, &ada), status_of(&app, &ada));
        assert_eq!((first, second), (200, 200));
        let sessions = "pg_stat_activity WHERE application_name = 'loses_connections'";
        assert!(app.database.number(format!("SELECT count(pg_terminate_backend(pid)) FROM {sessions}")).await > 0);
        // The next request finds closed connections that worked a moment ago.
        assert_eq!(status_of(&app, &ada).await, 200);
    }
}

#[tokio::test]
async fn lookups_wait_for_a_free_connection() {
    let app = uncached(Backend::Postgres, |settings| settings.database.pool_size = 2).await;
    let Some(app) = app else { return };
    let ada = app.user("ada@example.org").await;
    let admin = app.admin("root@example.org").await;
    let (lookups, changes) = tokio::join!(
        join_all((0..64).map(|_| status_of(&app, &ada))),
        join_all((0..16).map(|_| status_of(&app, &admin))),
    );
    assert!(lookups.into_iter().chain(changes).all(|status| status == 200));
}
