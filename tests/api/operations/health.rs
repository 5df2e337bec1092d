//! Health checks, and responses while the database is unreachable or unusable.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use latchkey::clock::Clock;
use latchkey::config::{DatabaseUrl, Settings};
use latchkey::domain::secret::{Digest, Secret, SecretKind};
use latchkey::metrics::TextFormat;
use latchkey::server::open_service;
use serde_json::json;
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::postgres::{own_socket, set_application_name};
use crate::support::program::{Serving, failure, latchkey, run};
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

    async fn a_schema_changed_by_hand_is_not_reported_as_temporary(app: App) {
        let ada = app.user("ada@example.org").await;
        app.database.execute("ALTER TABLE pages RENAME COLUMN title TO heading").await;
        app.get("/page/", &ada).await.assert_error(500, "internal");
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.assert_error(500, "internal");
        app.get("/health/ready", &Credential::None).await.assert_error(503, "schema_changed");
        app.database.execute("ALTER TABLE pages RENAME COLUMN heading TO title").await;
        becomes_ready(&app).await;
        assert_eq!(app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.status, 201);
    }

    async fn server_errors_do_not_reveal_their_cause(app: App) {
        let ada = app.user("ada@example.org").await;
        app.database.execute("ALTER TABLE users RENAME TO users_gone").await;
        for answer in [
            app.get("/me", &ada).await,
            app.register("eve@example.org").await,
            app.sign_in("ada@example.org", "x").await,
        ] {
            assert!(answer.status >= 500, "{answer:?}");
            assert_reveals_no_cause(&answer);
        }
    }
}

/// Checks that a response reveals nothing about what is behind the server.
fn assert_reveals_no_cause(answer: &Answer) {
    let text = answer.text.replace("about:blank", "");
    for leak in ["users", "SELECT", "table", "relation", "sqlite", "postgres", "connection", "/"] {
        assert!(!text.contains(leak), "{leak:?} in {answer:?}");
    }
}

/// Waits until the server is ready. It reuses the last result for a moment.
async fn becomes_ready(app: &App) {
    while app.get("/health/ready", &Credential::None).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_replaced_sqlite_file_is_not_written_to() {
    let app = App::start(Backend::Sqlite, Profile::Fastapi).await.unwrap();
    let ada = app.user("ada@example.org").await;
    assert_eq!(app.get("/protected-route", &ada).await.status, 200, "the token is cached");
    let file = app.database.url.strip_prefix("sqlite://").unwrap();
    let copy = format!("{file}.copy");
    std::fs::copy(file, &copy).unwrap();
    std::fs::rename(&copy, file).unwrap();
    // Within a second, because changes to the new file cannot be seen.
    while app.get("/protected-route", &ada).await.status == 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.get("/protected-route", &ada).await.assert_error(500, "internal");
    app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.assert_error(500, "internal");
    app.get("/health/ready", &Credential::None).await.assert_error(503, "database_replaced");
}

/// Creates a role with the grants of docs/operations.md on the PostgreSQL server of the tests. Returns its URL, or
/// `None` if there is no such server.
async fn role(database: &Database, name: &str) -> Option<String> {
    own_socket()?;
    let grants = include_str!("../../../docs/operations.md").lines().filter(|line| line.starts_with("GRANT "));
    let grants = grants.collect::<Vec<_>>().join("\n").replace(" TO serve;", &format!(" TO {name};"));
    let usage = format!("EXECUTE format('GRANT USAGE ON SCHEMA %I TO {name}', current_schema())");
    database.execute(format!("CREATE ROLE {name} LOGIN; {grants}; DO $$ BEGIN {usage}; END $$")).await;
    Some(database.url.replace("user=postgres", &format!("user={name}")))
}

/// The error message of the program, which does not start as this role.
fn refusal(url: &str) -> String {
    let directory = TempDir::new().unwrap();
    let mut command = latchkey(directory.path(), &[]);
    failure(&run(command.env("DATABASE_URL", url).env("LATCHKEY__DATABASE__MIGRATE_ON_START", "false")))
}

#[tokio::test]
async fn without_a_privilege_the_server_does_not_start_and_names_the_missing_grant() {
    let Some(database) = Database::create(Backend::Postgres) else { return };
    database.open().migrate_up().await.unwrap();
    let Some(url) = role(&database, "lacks_a_privilege").await else { return };
    database.execute("REVOKE UPDATE ON users FROM lacks_a_privilege").await;
    let message = refusal(&url);
    assert!(message.contains("GRANT UPDATE ON users TO lacks_a_privilege;"), "{message}");
    database.execute("GRANT UPDATE ON users TO lacks_a_privilege").await;
    database.execute("ALTER ROLE lacks_a_privilege SET default_transaction_read_only = on").await;
    let message = refusal(&url);
    assert!(message.contains("accepts no changes"), "{message}");
}

/// The metrics of another replica, which uses this database.
async fn metrics_of(url: &str) -> String {
    let mut settings = Settings::defaults().unwrap();
    settings.database = Database::at(url).settings();
    settings.database.migrate_on_start = false;
    let service = open_service(&settings, Clock::default()).await.unwrap();
    service.metrics_text(TextFormat::Prometheus).await.unwrap()
}

#[tokio::test]
async fn a_revoked_privilege_is_not_reported_as_temporary() {
    let Some(database) = Database::create(Backend::Postgres) else { return };
    database.open().migrate_up().await.unwrap();
    let Some(url) = role(&database, "loses_a_privilege").await else { return };
    let app = App::start_with(Backend::Postgres, Profile::Fastapi, |settings| {
        settings.database.url = url.clone().try_into().unwrap();
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.get("/health/ready", &Credential::None).await.assert_error(503, "privilege_missing");
    assert!(metrics_of(&url).await.contains("latchkey_not_ready{reason=\"privilege_missing\"} 1\n"));
    database.execute("GRANT UPDATE ON users TO loses_a_privilege").await;
    becomes_ready(&app).await;
    assert!(metrics_of(&url).await.contains("latchkey_not_ready{reason=\"privilege_missing\"} 0\n"));
    assert_eq!(app.patch("/users/2", &ada, &json!({ "role": "auditor" })).await.status, 200);
}

#[tokio::test]
async fn a_rejected_database_role_is_not_reported_as_temporary() {
    let Some(database) = Database::create(Backend::Postgres) else { return };
    database.open().migrate_up().await.unwrap();
    let Some(url) = role(&database, "loses_its_login").await else { return };
    let home = TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &[]);
    command.env("DATABASE_URL", &url).env("LATCHKEY__DATABASE__MIGRATE_ON_START", "false");
    command.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0");
    let serving = Serving::start(&mut command);
    let metrics = serving.metrics_url();
    let client = serving.client();
    let ada = client.user("ada@example.org").await;
    database.execute("ALTER ROLE loses_its_login NOLOGIN").await;
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'loses_its_login'";
    database.execute(end_sessions).await;
    // The first requests can fail because their connection was ended.
    let rejected = loop {
        let answer = client.get("/me", &ada).await;
        if answer.status != 503 {
            break answer;
        }
    };
    rejected.assert_error(500, "internal");
    serving.line("is not permitted to log in: correct database.url and restart");
    while client.get("/health/ready", &Credential::None).await.body["code"] != "database_rejected" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = reqwest::Client::builder().no_proxy().build().unwrap().get(metrics).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("latchkey_not_ready{reason=\"database_rejected\"} 1\n"));
    database.execute("ALTER ROLE loses_its_login LOGIN").await;
    for path in ["/me", "/health/ready"] {
        while client.get(path, &ada).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The server as a user whom the permissions of files concern: root without its privilege to override them.
fn without_file_privileges(home: &TempDir) -> Command {
    let server = latchkey(home.path(), &[]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-dac_override,-dac_read_search"]).arg(server.get_program());
    command.current_dir(home.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LATCHKEY__AUTH__BCRYPT_COST", "10");
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 { command } else { server }
}

#[tokio::test]
async fn a_sqlite_file_that_becomes_read_only_is_not_reported_as_temporary() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("latchkey.db");
    let mut command = without_file_privileges(&home);
    command.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0");
    let serving = Serving::start(&mut command);
    let metrics = serving.metrics_url();
    let client = serving.client();
    let ada = client.user("ada@example.org").await;
    let page = json!({ "title": "t", "body": "b" });
    assert_eq!(client.post("/page/", &ada, &page).await.status, 201);

    std::fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    // Connections that were open before can write. New ones cannot.
    let refused = loop {
        let reads = (0..8).map(|_| client.get("/page/", &ada));
        assert!(join_all(reads).await.iter().all(|answer| answer.status == 200));
        let answer = client.post("/page/", &ada, &page).await;
        if answer.status != 201 {
            break answer;
        }
    };
    refused.assert_error(500, "internal");
    serving.line("attempt to write a readonly database: make the file and its directory writable, and restart");
    while client.get("/health/ready", &Credential::None).await.body["code"] != "read_only" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = http.get(&metrics).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("latchkey_not_ready{reason=\"read_only\"} 1\n"), "{text}");
    assert!(text.contains("latchkey_not_ready{reason=\"disk_full\"} 0\n"), "{text}");
    drop(serving);

    let message = failure(&run(&mut without_file_privileges(&home)));
    assert!(message.contains("readonly database") && message.contains("latchkey.db"), "{message}");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let client = Serving::start(&mut without_file_privileges(&home));
    assert_eq!(client.client().get("/health/ready", &Credential::None).await.status, 200);
}

/// The time-out for the reader of the change log. It is long because the machine may be busy with other tests.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// PostgreSQL behind a symbolic link to its socket. Without the link, and with all sessions ended, it is unreachable.
struct DetachablePostgres {
    server: PathBuf,
    _home: TempDir,
    link: PathBuf,
    name: &'static str,
}

impl DetachablePostgres {
    /// The PostgreSQL server of the tests. `name` is the application name of the sessions of one test.
    fn create(name: &'static str) -> Option<Self> {
        let server = own_socket()?;
        let home = TempDir::new().unwrap();
        let link = home.path().join("socket");
        symlink(&server, &link).unwrap();
        Some(Self { server, _home: home, link, name })
    }

    fn configure(&self, settings: &mut Settings) {
        set_application_name(&mut settings.database.url, self.name);
        let DatabaseUrl::Postgres(uri) = &settings.database.url else { panic!("PostgreSQL") };
        let url = uri
            .with_defaults(&[])
            .replace(&format!("host={}", self.server.display()), &format!("host={}", self.link.display()));
        assert!(url.contains("socket"), "{url}");
        settings.database.url = url.try_into().unwrap();
    }

    async fn detach(&self, app: &App) {
        std::fs::remove_file(&self.link).unwrap();
        let sessions = format!("pg_stat_activity WHERE application_name = '{}'", self.name);
        app.database.number(format!("SELECT count(pg_terminate_backend(pid)) FROM {sessions}")).await;
    }

    fn attach(&self) {
        symlink(&self.server, &self.link).unwrap();
    }
}

#[tokio::test]
async fn while_the_database_is_unreachable_requests_return_busy_and_no_credential_is_refused() {
    let Some(server) = DetachablePostgres::create("goes_away") else { return };
    let app =
        App::start_with(Backend::Postgres, Profile::Fastapi, |settings| server.configure(settings)).await.unwrap();
    let ada = app.user("ada@example.org").await;
    server.detach(&app).await;

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
        assert_reveals_no_cause(&answer);
    }
    let logged = warnings_of("while-away");
    assert!(logged.len() == 1 && logged[0].starts_with("WARN busy: "), "{logged:?}");
    // Every guarded operation returns 503.
    let responses = operations().into_iter().filter(Operation::requires_credential).map(|operation| {
        let request = app.request(&operation.method, &operation.path_to_first()).credential(&ada);
        async move { (operation.name(), request.send().await.status) }
    });
    let responses = join_all(responses).await;
    assert!(responses.len() > 25, "{responses:?}");
    assert!(responses.iter().all(|(_, status)| *status == 503), "{responses:?}");
    for (path, caller) in [("/revoke", &Credential::None), ("/revoke", &ada), ("/introspect", &ada)] {
        let answer = app.request("POST", path).credential(caller).form(&[("token", ada.secret())]).send().await;
        answer.assert_error(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    app.sign_in("ada@example.org", PASSWORD).await.assert_error(503, "temporarily_unavailable");
    let signed_out = app.request("DELETE", "/token").credential(&ada).send().await;
    signed_out.assert_error(503, "temporarily_unavailable");
    assert_eq!(app.get("/health/live", &Credential::None).await.status, 200);

    server.attach();
    assert_eq!(app.get("/me", &ada).await.status, 200, "the server recovers without a restart");
}

/// Waits until the server has read all changes so far from the change log. A change that it reads later removes the
/// identity of its user from the cache.
async fn wait_until_changes_are_read(app: &App) {
    let last = app.user("last@example.org").await;
    let digest = Digest::of(last.secret());
    let is_cached = || app.service.identities().cache().get_stale(&digest, Duration::MAX).is_some();
    let started = Instant::now();
    while !is_cached() {
        assert!(started.elapsed() < READ_WITHIN, "no identity is cached");
        assert_eq!(app.get("/protected-route", &last).await.status, 200);
    }
    app.database.execute("UPDATE users SET name = 'The last change' WHERE email = 'last@example.org'").await;
    while is_cached() {
        assert!(started.elapsed() < READ_WITHIN, "the change is not read");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn with_stale_serving_known_credentials_can_only_read_while_the_database_is_unreachable() {
    let Some(server) = DetachablePostgres::create("serves_stale") else { return };
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
    wait_until_changes_are_read(&app).await;
    // Cache all credentials, then revoke one.
    for known in [&root, &service, &ada, &eve] {
        assert_eq!(introspect(&root, known).await.body["active"], true);
    }
    assert_eq!(app.delete("/token", &eve).await.status, 204);
    server.detach(&app).await;

    for _ in 0..20 {
        assert_eq!(app.get("/protected-route", &ada).await.status, 200);
        assert_eq!(app.request("HEAD", "/protected-route").credential(&ada).send().await.status, 200);
        for method in ["GET", "POST", "PUT", "DELETE"] {
            assert_eq!(app.request(method, "/authz").credential(&ada).send().await.status, 200);
        }
        let described = introspect(&service, &ada).await;
        assert_eq!((described.status, &described.body["username"]), (200, &json!("ada@example.org")));
    }
    // A handler that needs the database, and requests that change something.
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
    // Credentials that are not cached, or that are known to be revoked.
    app.get("/protected-route", &eve).await.assert_error(503, "busy");
    introspect(&service, &eve).await.assert_error(503, "temporarily_unavailable");
    let unknown = Secret::generate(SecretKind::SignIn).unwrap().reveal();
    app.get("/protected-route", &Credential::Token(unknown)).await.assert_error(503, "busy");
    app.get("/protected-route", &Credential::None).await.assert_error(401, "not_authenticated");
    // Expiry needs no database.
    app.clock.advance(86_400);
    app.get("/protected-route", &ada).await.assert_error(401, "invalid_token");

    server.attach();
    assert_eq!(app.get("/protected-route", &service).await.status, 200);
    assert_eq!(app.get("/me", &app.user("new@example.org").await).await.status, 200);
    app.get("/protected-route", &eve).await.assert_error(401, "invalid_token");
}
