use std::os::unix::fs::symlink;
use std::path::PathBuf;

use futures_util::future::join_all;
use latchkey::config::{DatabaseUrl, Settings};
use latchkey::domain::secret::{Secret, SecretKind};
use serde_json::json;
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::postgres::own_socket;
use crate::support::tour::{Operation, operations};
use crate::support::warnings::{warnings_of, watch};
use crate::support::{Answer, App, Backend, Credential, Profile, specify};

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
        answer.assert_error(503, "schema_outdated");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
    }

    async fn a_schema_of_a_newer_version_is_live_but_not_ready(app: App) {
        app.database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('20991231235959')").await;
        app.get("/health/ready", &Credential::None).await.assert_error(503, "schema_unknown");
        assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);
    }

    async fn a_schema_that_was_changed_by_hand_is_no_reason_to_try_again(app: App) {
        let ada = app.user("ada@example.org").await;
        app.database.execute("ALTER TABLE pages RENAME COLUMN title TO heading").await;
        app.get("/page/", &ada).await.assert_error(500, "internal");
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.assert_error(500, "internal");
        app.get("/health/ready", &Credential::None).await.assert_error(503, "schema_changed");
        app.database.execute("ALTER TABLE pages RENAME COLUMN heading TO title").await;
        becomes_ready(&app).await;
        assert_eq!(app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.status, 201);
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
            assert_tells_no_cause(&answer);
        }
    }
}

/// Checks that an answer says nothing of what is behind the server.
fn assert_tells_no_cause(answer: &Answer) {
    let text = answer.text.replace("about:blank", "");
    for leak in ["users", "SELECT", "table", "relation", "sqlite", "postgres", "connection", "/"] {
        assert!(!text.contains(leak), "{leak:?} in {answer:?}");
    }
}

/// Whoever asks at the same time gets the same answer for a moment.
async fn becomes_ready(app: &App) {
    while app.get("/health/ready", &Credential::None).await.status != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_sqlite_file_that_was_replaced_is_not_written_to_any_longer() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let ada = app.user("ada@example.org").await;
    let file = app.database.url.strip_prefix("sqlite://").unwrap();
    let copy = format!("{file}.copy");
    std::fs::copy(file, &copy).unwrap();
    std::fs::rename(&copy, file).unwrap();
    app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.assert_error(500, "internal");
    app.get("/health/ready", &Credential::None).await.assert_error(503, "database_replaced");
}

/// A role of the tests' own server that may do what the page on operations grants; its address, if there is a server.
async fn role(database: &Database, name: &str) -> Option<String> {
    own_socket()?;
    let grants = include_str!("../../docs/operations.md").lines().filter(|line| line.starts_with("GRANT "));
    let grants = grants.collect::<Vec<_>>().join("\n").replace(" TO serve;", &format!(" TO {name};"));
    let usage = format!("EXECUTE format('GRANT USAGE ON SCHEMA %I TO {name}', current_schema())");
    database.execute(format!("CREATE ROLE {name} LOGIN; {grants}; DO $$ BEGIN {usage}; END $$")).await;
    Some(database.url.replace("user=postgres", &format!("user={name}")))
}

/// What the program says when it refuses to start as this role.
fn refusal(url: &str) -> String {
    use crate::support::program::{failure, latchkey, run};

    let place = TempDir::new().unwrap();
    let mut command = latchkey(place.path(), &[]);
    failure(&run(command.env("DATABASE_URL", url).env("LATCHKEY__DATABASE__MIGRATE_ON_START", "false")))
}

#[tokio::test]
async fn a_role_that_lacks_a_privilege_does_not_start_and_is_told_which_grant_it_lacks() {
    let Some(database) = Database::create(Backend::Postgres) else { return };
    database.open().migrate_up().await.unwrap();
    let Some(url) = role(&database, "lacks_a_privilege").await else { return };
    database.execute("REVOKE UPDATE ON users FROM lacks_a_privilege").await;
    let said = refusal(&url);
    assert!(said.contains("GRANT UPDATE ON users TO lacks_a_privilege;"), "{said}");
    database.execute("GRANT UPDATE ON users TO lacks_a_privilege").await;
    database.execute("ALTER ROLE lacks_a_privilege SET default_transaction_read_only = on").await;
    let said = refusal(&url);
    assert!(said.contains("takes no changes"), "{said}");
}

#[tokio::test]
async fn a_privilege_that_is_lost_is_no_reason_to_try_again() {
    let Some(database) = Database::create(Backend::Postgres) else { return };
    database.open().migrate_up().await.unwrap();
    let Some(url) = role(&database, "loses_a_privilege").await else { return };
    let app = App::start_with(Backend::Postgres, Profile::Fastapi, |settings| {
        settings.database.url = url.try_into().unwrap();
        settings.database.migrate_on_start = false;
    });
    let app = app.await.unwrap();
    app.register("ada@example.org").await;
    app.register("eve@example.org").await;
    database.execute("UPDATE users SET role = 'admin' WHERE id = 1").await;
    let ada = Credential::Token(app.new_token_of("ada@example.org").await);
    assert_eq!(app.get("/health/ready", &Credential::None).await.status, 200);
    database.execute("REVOKE UPDATE ON users FROM loses_a_privilege").await;
    app.patch("/users/2", &ada, &json!({ "role": "auditor" })).await.assert_error(500, "internal");
    while app.get("/health/ready", &Credential::None).await.status == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    app.get("/health/ready", &Credential::None).await.assert_error(503, "privilege_missing");
    database.execute("GRANT UPDATE ON users TO loses_a_privilege").await;
    becomes_ready(&app).await;
    assert_eq!(app.patch("/users/2", &ada, &json!({ "role": "auditor" })).await.status, 200);
}

/// PostgreSQL behind a symbolic link to its socket: without the link, and with all sessions ended, it is away.
struct Removable {
    server: PathBuf,
    _home: TempDir,
    link: PathBuf,
    name: &'static str,
}

impl Removable {
    /// The tests' own server, under a name for the sessions of one test.
    fn create(name: &'static str) -> Option<Self> {
        let server = own_socket()?;
        let home = TempDir::new().unwrap();
        let link = home.path().join("socket");
        symlink(&server, &link).unwrap();
        Some(Self { server, _home: home, link, name })
    }

    fn configure(&self, settings: &mut Settings) {
        let DatabaseUrl::Postgres(uri) = &settings.database.url else { panic!("PostgreSQL") };
        let url = uri.with_defaults(&[("application_name", self.name)]);
        let url = url.replace(&format!("host={}", self.server.display()), &format!("host={}", self.link.display()));
        assert!(url.contains("socket"), "{url}");
        settings.database.url = url.try_into().unwrap();
    }

    async fn take_away(&self, app: &App) {
        std::fs::remove_file(&self.link).unwrap();
        let sessions = format!("pg_stat_activity WHERE application_name = '{}'", self.name);
        app.database.number(format!("SELECT count(pg_terminate_backend(pid)) FROM {sessions}")).await;
    }

    fn bring_back(&self) {
        symlink(&self.server, &self.link).unwrap();
    }
}

#[tokio::test]
async fn while_the_database_is_away_everything_is_busy_and_nobody_is_refused() {
    let Some(server) = Removable::create("goes_away") else { return };
    let app =
        App::start_with(Backend::Postgres, Profile::Fastapi, |settings| server.configure(settings)).await.unwrap();
    let ada = app.user("ada@example.org").await;
    server.take_away(&app).await;

    watch("while-away");
    for answer in [
        app.request("GET", "/me").credential(&ada).header("X-Request-Id", "while-away").send().await,
        app.get("/page/", &ada).await,
        app.get("/authz", &ada).await,
        app.register("eve@example.org").await,
        app.get("/health/ready", &Credential::None).await,
    ] {
        answer.assert_error(503, "busy");
        assert_eq!(answer.header("retry-after"), "1");
        assert_tells_no_cause(&answer);
    }
    let logged = warnings_of("while-away");
    assert!(logged.len() == 1 && logged[0].starts_with("WARN busy: "), "{logged:?}");
    // No guarded operation opens.
    let asked = operations().into_iter().filter(Operation::is_locked).map(|operation| {
        let request = app.request(&operation.method, &operation.path_to_first()).credential(&ada);
        async move { (operation.name(), request.send().await.status) }
    });
    let asked = join_all(asked).await;
    assert!(asked.len() > 25, "{asked:?}");
    assert!(asked.iter().all(|(_, status)| *status == 503), "{asked:?}");
    for (path, caller) in [("/revoke", &Credential::None), ("/revoke", &ada), ("/introspect", &ada)] {
        let answer = app.request("POST", path).credential(caller).form(&[("token", ada.secret())]).send().await;
        answer.assert_error(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    app.sign_in("ada@example.org", PASSWORD).await.assert_error(503, "temporarily_unavailable");
    let signed_out = app.request("DELETE", "/token").credential(&ada).send().await;
    signed_out.assert_error(503, "temporarily_unavailable");
    assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);

    server.bring_back();
    assert_eq!(app.get("/me", &ada).await.status, 200, "it comes back without a restart");
}

#[tokio::test]
async fn with_stale_serving_known_credentials_pass_reads_and_nothing_else_while_the_database_is_away() {
    let Some(server) = Removable::create("serves_stale") else { return };
    let app = App::start_with(Backend::Postgres, Profile::Rfc, |settings| {
        server.configure(settings);
        settings.auth.serve_stale_seconds = 3_600;
    })
    .await
    .unwrap();
    let root = app.admin("root@example.org").await;
    let service = app.key_of(&root, &["tokens:introspect"]).await.0;
    let [ada, eve] = [app.user("ada@example.org").await, app.user("eve@example.org").await];
    let introspect = async |caller: &Credential, of: &Credential| {
        app.request("POST", "/introspect").credential(caller).form(&[("token", of.secret())]).send().await
    };
    // All are known, before one is revoked here.
    for known in [&root, &service, &ada, &eve] {
        assert_eq!(introspect(&root, known).await.body["active"], true);
    }
    assert_eq!(app.delete("/token", &eve).await.status, 204);
    server.take_away(&app).await;

    for _ in 0..20 {
        assert_eq!(app.get("/protected-route", &ada).await.status, 200);
        assert_eq!(app.request("HEAD", "/protected-route").credential(&ada).send().await.status, 200);
        for method in ["GET", "POST", "PUT", "DELETE"] {
            assert_eq!(app.request(method, "/authz").credential(&ada).send().await.status, 200);
        }
        let described = introspect(&service, &ada).await;
        assert_eq!((described.status, &described.body["username"]), (200, &json!("ada@example.org")));
    }
    // A handler that needs the database, and changes.
    for answer in [
        app.get("/me", &ada).await,
        app.patch("/me", &ada, &json!({ "name": "Augusta" })).await,
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await,
    ] {
        answer.assert_error(503, "busy");
    }
    for (path, caller) in [("/revoke", &ada), ("/revoke", &Credential::None)] {
        let answer = app.request("POST", path).credential(caller).form(&[("token", ada.secret())]).send().await;
        answer.assert_error(503, "temporarily_unavailable");
    }
    // Those who are not known, or known to have been revoked.
    app.get("/protected-route", &eve).await.assert_error(503, "busy");
    introspect(&service, &eve).await.assert_error(503, "temporarily_unavailable");
    let stranger = Secret::generate(SecretKind::SignIn).unwrap().reveal();
    app.get("/protected-route", &Credential::Token(stranger)).await.assert_error(503, "busy");
    app.get("/protected-route", &Credential::None).await.assert_error(401, "not_authenticated");
    // Expiry needs no database.
    app.clock.advance(86_400);
    app.get("/protected-route", &ada).await.assert_error(401, "invalid_token");

    server.bring_back();
    assert_eq!(app.get("/protected-route", &service).await.status, 200);
    assert_eq!(app.get("/me", &app.user("new@example.org").await).await.status, 200);
    app.get("/protected-route", &eve).await.assert_error(401, "invalid_token");
}
