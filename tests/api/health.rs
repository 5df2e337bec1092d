use crate::support::{Credential, specify};

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
