use crate::support::app::PASSWORD;
use crate::support::{App, Backend, Credential, Profile, announce, specify};

specify! {
    async fn a_fresh_server_is_live_and_ready(app: App) {
        for path in ["/health/live", "/health/ready"] {
            let answer = app.get(path, &Credential::None).await;
            assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"status":"ok"}"#), "{path}");
        }
    }

    async fn an_old_schema_is_live_but_not_ready(app: App) {
        app.database.execute("DELETE FROM __diesel_schema_migrations").await;
        let answer = app.get("/health/ready", &Credential::None).await;
        answer.assert_error(503, "busy");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
    }

    async fn nothing_of_the_cause_reaches_the_caller(app: App) {
        let ada = app.user("ada@example.org").await;
        app.database.execute("ALTER TABLE users RENAME TO users_gone").await;
        for answer in [
            app.get("/me", &ada).await,
            app.register("eve@example.org").await,
            app.sign_in("ada@example.org", "x").await,
        ] {
            assert!(answer.status >= 500, "{answer:?}");
            for leak in ["users", "SELECT", "table", "relation", "sqlite", "postgres", "/"] {
                let text = answer.text.replace("about:blank", "");
                assert!(!text.contains(leak), "{leak:?} in {answer:?}");
            }
        }
    }
}

/// PostgreSQL behind a symbolic link to its socket: without the link, and with all sessions ended, it is away.
#[tokio::test]
async fn while_the_database_is_away_everything_is_busy_and_nobody_is_refused() {
    let Some(server) = crate::support::postgres::own_socket() else {
        return announce("skipped: only the tests' own PostgreSQL server can be taken away");
    };
    let link = tempfile::TempDir::new().unwrap();
    let link = link.path().join("socket");
    std::os::unix::fs::symlink(&server, &link).unwrap();

    let away = |settings: &mut latchkey::config::Settings| {
        let url = settings.database.url.clone();
        settings.database.url = match url {
            latchkey::config::DatabaseUrl::Postgres(uri) => {
                let url = uri.with_defaults(&[("application_name", "goes_away")]);
                let url = url.replace(&format!("host={}", server.display()), &format!("host={}", link.display()));
                assert!(url.contains("socket"), "{url}");
                url.try_into().unwrap()
            }
            sqlite => sqlite,
        };
    };
    let app = App::start_with(Backend::Postgres, Profile::Fastapi, away).await.unwrap();
    let ada = app.user("ada@example.org").await;
    std::fs::remove_file(&link).unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'goes_away'";
    app.database.number(end).await;

    for answer in [
        app.get("/me", &ada).await,
        app.get("/page/", &ada).await,
        app.get("/authz", &ada).await,
        app.register("eve@example.org").await,
        app.get("/health/ready", &Credential::None).await,
    ] {
        answer.assert_error(503, "busy");
        assert_eq!(answer.header("retry-after"), "1");
    }
    for (path, caller) in [("/revoke", &Credential::None), ("/revoke", &ada), ("/introspect", &ada)] {
        let answer = app.request("POST", path).credential(caller).form(&[("token", ada.secret())]).send().await;
        answer.assert_error(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    app.sign_in("ada@example.org", PASSWORD).await.assert_error(503, "temporarily_unavailable");
    let signed_out = app.request("DELETE", "/token").credential(&ada).send().await;
    signed_out.assert_error(503, "temporarily_unavailable");
    assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);

    std::os::unix::fs::symlink(&server, &link).unwrap();
    assert_eq!(app.get("/me", &ada).await.status, 200, "it comes back without a restart");
}
