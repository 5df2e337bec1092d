//! What the cache does not know is looked up, whatever becomes of single connections.

use futures_util::future::join_all;
use latchkey::config::{DatabaseUrl, Settings};

use crate::support::{App, Backend, Credential, Profile};

async fn uncached(backend: Backend, change: impl FnOnce(&mut Settings)) -> Option<App> {
    App::start_with(backend, Profile::Rfc, |settings| {
        settings.auth.cache_size = 0;
        change(settings);
    })
    .await
}

async fn ask(app: &App, credential: &Credential) -> u16 {
    app.get("/protected-route", credential).await.status
}

#[tokio::test]
async fn many_at_once_are_all_answered_and_each_with_their_own() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = uncached(backend, |_| ()).await else { continue };
        let ada = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&ada, &[]).await;
        let unknown = Credential::Token("lkt_000000000000000000000000000000000000000000000000".into());
        let answers = join_all((0..300).map(async |number| {
            let (credential, expected) = [(&ada, 200), (&key, 200), (&unknown, 401)][number % 3];
            (ask(&app, credential).await, expected)
        }));
        for (status, expected) in answers.await {
            assert_eq!(status, expected);
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_the_trouble_of_nobody_else() {
    let app = uncached(Backend::Sqlite, |_| ()).await.unwrap();
    let (ada, eve) = (app.user("ada@example.org").await, app.user("eve@example.org").await);
    app.database.execute("UPDATE access_tokens SET expiration_date = 'soon' WHERE user_id = 2").await;
    let answers = join_all((0..100).map(async |number| (number % 2, ask(&app, [&ada, &eve][number % 2]).await)));
    for (user, status) in answers.await {
        assert_eq!(status, [200, 500][user]);
    }
}

#[tokio::test]
async fn a_server_that_ends_its_connections_costs_no_request() {
    let name = |settings: &mut Settings| {
        let DatabaseUrl::Postgres(uri) = &settings.database.url else { panic!("not PostgreSQL") };
        let named = uri.with_defaults(&[("application_name", "loses_connections")]);
        settings.database.url = named.try_into().unwrap();
    };
    let Some(app) = uncached(Backend::Postgres, name).await else { return };
    let ada = app.user("ada@example.org").await;
    for _ in 0..20 {
        let (first, second) = tokio::join!(ask(&app, &ada), ask(&app, &ada));
        assert_eq!((first, second), (200, 200));
        let sessions = "pg_stat_activity WHERE application_name = 'loses_connections'";
        assert!(app.database.number(format!("SELECT count(pg_terminate_backend(pid)) FROM {sessions}")).await > 0);
        // The very next request finds dead connections that answered a moment ago.
        assert_eq!(ask(&app, &ada).await, 200);
    }
}

#[tokio::test]
async fn lookups_wait_for_those_who_hold_connections() {
    let app = uncached(Backend::Postgres, |settings| settings.database.pool_size = 2).await;
    let Some(app) = app else { return };
    let ada = app.user("ada@example.org").await;
    let admin = app.admin("root@example.org").await;
    let (lookups, changes) =
        tokio::join!(join_all((0..64).map(|_| ask(&app, &ada))), join_all((0..16).map(|_| ask(&app, &admin))),);
    assert!(lookups.into_iter().chain(changes).all(|status| status == 200));
}
