//! A change of any column of a credential or its user replaces the cached identity, whichever program makes the change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use latchkey::clock::Clock;
use latchkey::config::Settings;
use latchkey::domain::principal::{Identity, Principal};
use latchkey::error::{AppError, CredentialHeader};
use latchkey::server::open_service;
use latchkey::service::Service;
use latchkey::service::identity::authenticate::Purpose;

use crate::support::{App, Backend, Credential, Profile};

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The tables behind a credential.
const TABLES: [&str; 4] = ["users", "access_tokens", "sessions", "api_keys"];
/// Columns that no cached identity depends on. Each of them must be documented in docs/operations.md.
const EXCLUDED: [&str; 3] = ["api_keys.last_used_at", "api_keys.last_used_ip", "sessions.last_used_at"];
/// Columns that the database may protect against changes.
const FIXED: [&str; 3] = ["users.id", "api_keys.id", "sessions.id"];
/// Time-out for a change to be seen. It is long because the machine may be busy with other tests.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

struct Column {
    table: &'static str,
    name: String,
    kind: String,
}

impl Column {
    fn is_in(&self, list: &[&str]) -> bool {
        list.contains(&format!("{}.{}", self.table, self.name).as_str())
    }

    /// A different value of the same type. Times are in `year`. `other` is the id of a user without a token or key.
    fn another_value(&self, other: i64, year: u16) -> String {
        let name = &self.name;
        match self.kind.as_str() {
            _ if ["user_id", "owner_id"].contains(&name.as_str()) => other.to_string(),
            "integer" | "bigint" => format!("COALESCE({name}, 0) + 100000"),
            "text" => format!("COALESCE({name}, '') || 'x'"),
            "boolean" => format!("NOT COALESCE({name}, FALSE)"),
            kind if kind.starts_with("timestamp") => format!("'{year}-02-03 04:05:06'"),
            kind => panic!("no other value is defined for {}.{name} of type {kind}", self.table),
        }
    }
}

async fn columns(app: &App, table: &'static str) -> Vec<Column> {
    let query = match app.database.backend {
        Backend::Sqlite => format!("SELECT name || ' ' || lower(type) AS row FROM pragma_table_info('{table}')"),
        Backend::Postgres => format!(
            "SELECT column_name || ' ' || data_type AS row FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = '{table}'"
        ),
    };
    let rows = app.database.rows(query).await;
    let columns = rows.iter().map(|row| row.split_once(' ').unwrap());
    columns.map(|(name, kind)| Column { table, name: name.to_owned(), kind: kind.to_owned() }).collect()
}

/// The identity of `credential`, if it is valid.
async fn identity(replica: &Service, credential: &Credential) -> Option<Arc<Identity>> {
    let header = match credential {
        Credential::Session(_) => CredentialHeader::Cookie,
        _ => CredentialHeader::Bearer,
    };
    match replica.identities().authenticate(credential.secret(), header, None, Purpose::Read).await {
        Ok(Principal::User(identity, _)) => Some(identity),
        Err(AppError::Unauthenticated(_)) => None,
        other => panic!("{other:?}"),
    }
}

/// The identity of `credential`, once it is cached.
async fn cached(replica: &Service, credential: &Credential) -> Arc<Identity> {
    let started = Instant::now();
    loop {
        let [one, other] =
            [identity(replica, credential).await, identity(replica, credential).await].map(Option::unwrap);
        if Arc::ptr_eq(&one, &other) {
            return one;
        }
        assert!(started.elapsed() < SEEN_WITHIN, "nothing is cached");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Changes one column of a new user by SQL and checks that the cached identity is replaced.
async fn change(app: &App, replica: &Service, number: usize, column: &Column) {
    let Column { table, name, .. } = column;
    let (email, other) = (format!("user{number}@example.org"), format!("other{number}@example.org"));
    let token = app.user(&email).await;
    let (key, key_id) = app.key_of(&token, &["pages:read"]).await;
    let id = async |email: &str| app.database.number(format!("SELECT id FROM users WHERE email_key = '{email}'")).await;
    app.register(&other).await;
    let (user, other) = (id(&email).await, id(&other).await);
    let (session, session_id) = app.session_of(&email).await;
    let (credential, row) = match *table {
        "users" => (&token, format!("id = {user}")),
        "access_tokens" => (&token, format!("user_id = {user}")),
        "sessions" => (&session, format!("id = {session_id}")),
        _ => (&key, format!("id = {key_id}")),
    };
    let before = cached(replica, credential).await;
    let logged = format!("SELECT count(*) FROM credential_changes WHERE user_id = {user}");
    let logged_before = app.database.number(&logged).await;
    let set = |year| format!("{name} = {}", column.another_value(other, year));
    let change = format!("UPDATE {table} SET {} WHERE {row}", set(2031));
    if column.is_in(&FIXED) && app.database.sql_error(&change).await.is_some() {
        return;
    }
    if !column.is_in(&FIXED) {
        app.database.execute(&change).await;
    }
    if column.is_in(&EXCLUDED) {
        assert_eq!(app.database.number(&logged).await, logged_before, "{table}.{name} is excluded");
        return;
    }
    let started = Instant::now();
    while identity(replica, credential).await.is_some_and(|found| Arc::ptr_eq(&found, &before)) {
        assert!(started.elapsed() < SEEN_WITHIN, "a change of {table}.{name} leaves the old identity in the cache");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let used = match *table {
        "api_keys" => "last_used_at = '2031-01-01 00:00:00', last_used_ip = '192.0.2.1'",
        _ => "last_used_at = '2031-01-01 00:00:00'",
    };
    let has_last_use = ["api_keys", "sessions"].contains(table);
    if has_last_use && !column.is_in(&FIXED) && !["owner_id", "user_id"].contains(&name.as_str()) {
        let logged_before = app.database.number(&logged).await;
        app.database.execute(format!("UPDATE {table} SET {used}, {} WHERE {row}", set(2032))).await;
        let logged_after = app.database.number(&logged).await;
        assert!(logged_after > logged_before, "a change of {table}.{name} together with the last use is not logged");
    }
}

async fn check_every_column(backend: Backend) {
    let Some(app) = App::start(backend, Profile::Rfc).await else { return };
    let settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    let replica = Arc::new(open_service(&settings, Clock::default()).await.unwrap());
    replica.follow_changes().unwrap();
    let mut all = Vec::new();
    for table in TABLES {
        all.extend(columns(&app, table).await);
    }
    assert!(all.len() >= 46, "the columns are listed");
    // In batches, because each change has its own connections.
    for (batch, columns) in all.chunks(10).enumerate() {
        let numbered = columns.iter().enumerate().map(|(place, column)| (batch * 10 + place, column));
        join_all(numbered.map(|(number, column)| change(&app, &replica, number, column))).await;
    }
}

#[tokio::test]
async fn a_change_of_any_column_of_a_credential_by_sql_renews_its_cached_identity_on_sqlite() {
    check_every_column(Backend::Sqlite).await;
}

#[tokio::test]
async fn a_change_of_any_column_of_a_credential_by_sql_renews_its_cached_identity_on_postgres() {
    check_every_column(Backend::Postgres).await;
}

#[test]
fn the_excluded_columns_are_documented() {
    for column in EXCLUDED {
        assert!(OPERATIONS.contains(&format!("`{column}`")), "docs/operations.md names {column}");
    }
}

/// The session of an administrator may have another search path.
#[tokio::test]
async fn a_change_is_logged_with_any_search_path() {
    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    app.register("ada@example.org").await;
    let schema = app.database.rows("SELECT CAST(current_schema() AS TEXT) AS row").await.remove(0);
    let logged = "SELECT count(*) FROM credential_changes WHERE user_id = 1";
    let before = app.database.number(logged).await;
    app.database.execute(format!("SET search_path = pg_catalog; UPDATE {schema}.users SET name = 'Renamed'")).await;
    assert_eq!(app.database.number(logged).await, before + 1);
    app.database.execute(format!("SET search_path = pg_catalog; TRUNCATE {schema}.access_tokens")).await;
    assert_eq!(app.database.number("SELECT count(*) FROM credential_changes WHERE user_id IS NULL").await, 1);
}

/// The row has a higher transaction id than any of this cluster, as after a restore of a dump into a new cluster.
#[tokio::test]
async fn rows_of_another_cluster_invalidate_nothing_and_are_purged() {
    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    let ada = app.user("ada@example.org").await;
    let settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    let clock = Clock::default();
    let replica = Arc::new(open_service(&settings, clock.clone()).await.unwrap());
    replica.follow_changes().unwrap();
    cached(&replica, &ada).await;
    app.database.execute("INSERT INTO credential_changes (xid, user_id) VALUES ('9000000000000', 1)").await;
    let before = cached(&replica, &ada).await;
    // When a later change has been seen, that row has been read.
    let eve = app.user("eve@example.org").await;
    let cached_eve = cached(&replica, &eve).await;
    app.database.execute("UPDATE users SET name = 'Renamed' WHERE id = 2").await;
    let started = Instant::now();
    while identity(&replica, &eve).await.is_some_and(|found| Arc::ptr_eq(&found, &cached_eve)) {
        assert!(started.elapsed() < SEEN_WITHIN);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Arc::ptr_eq(&before, &cached(&replica, &ada).await));

    replica.lifecycle().purge().run_once().await.unwrap();
    assert!(
        app.database.number("SELECT count(*) FROM credential_changes").await > 0,
        "other processes may not have read them yet"
    );
    let started = Instant::now();
    // Rows that existed while another test had an open transaction are kept until the next purge.
    while app.database.number("SELECT count(*) FROM credential_changes").await > 0 {
        assert!(started.elapsed() < SEEN_WITHIN, "nothing is purged");
        clock.advance(600);
        replica.lifecycle().purge().run_once().await.unwrap();
    }
}
