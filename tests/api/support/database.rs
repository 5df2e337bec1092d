//! A database for each test: a SQLite file, or a schema on PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use latchkey::config::{DatabaseSettings, Settings};
use latchkey::db::{Conn, Db};
use tempfile::TempDir;

use super::postgres;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

pub struct Database {
    pub backend: Backend,
    pub url: String,
    place: Place,
}

/// What is removed with the database.
enum Place {
    Elsewhere,
    Directory { _kept: TempDir },
    Schema { server: &'static str, name: String },
}

impl Database {
    /// An empty database; `None` if there is no PostgreSQL.
    pub fn create(backend: Backend) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (url, place) = match backend {
            Backend::Sqlite => {
                let directory = TempDir::with_prefix("latchkey-").unwrap();
                (
                    format!("sqlite://{}", directory.path().join("test.db").display()),
                    Place::Directory { _kept: directory },
                )
            }
            Backend::Postgres => {
                let server = postgres::url()?;
                let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
                on_server(server, &format!("CREATE SCHEMA {name}"));
                let separator = if server.contains('?') { '&' } else { '?' };
                (format!("{server}{separator}options=-csearch_path%3D{name}"), Place::Schema { server, name })
            }
        };
        Some(Self { backend, url, place })
    }

    /// A database that somebody else made, and removes.
    pub fn at(url: &str) -> Self {
        let backend = if url.starts_with("postgres") { Backend::Postgres } else { Backend::Sqlite };
        Self { backend, url: url.to_owned(), place: Place::Elsewhere }
    }

    pub fn settings(&self) -> DatabaseSettings {
        let defaults = Settings::defaults().unwrap().database;
        DatabaseSettings { url: self.url.clone().try_into().unwrap(), pool_size: 4, ..defaults }
    }

    pub fn open(&self) -> Db {
        Db::open(&self.settings()).unwrap()
    }

    /// Runs SQL that is not the program's.
    pub async fn execute(&self, sql: impl Into<String>) {
        let sql = sql.into();
        self.open()
            .read(move |conn| match conn {
                Conn::Postgres(conn) => Ok(conn.batch_execute(&sql)?),
                Conn::Sqlite(conn) => Ok(conn.batch_execute(&sql)?),
            })
            .await
            .unwrap();
    }

    /// Why the database refuses SQL that is not the program's; `None` if it takes it.
    pub async fn refusal(&self, sql: &str) -> Option<String> {
        let sql = sql.to_owned();
        let answer = self
            .open()
            .write(move |conn| match conn {
                Conn::Postgres(conn) => Ok(conn.batch_execute(&sql)?),
                Conn::Sqlite(conn) => Ok(conn.batch_execute(&sql)?),
            })
            .await;
        answer.err().map(|error| error.to_string())
    }

    /// All that the database holds: each table with its rows.
    pub async fn everything(&self) -> Vec<(String, Vec<String>)> {
        let mut tables = Vec::new();
        for table in self.tables().await {
            let rows = self.dump(&table).await;
            tables.push((table, rows));
        }
        tables
    }

    /// All rows of a table, each as JSON text, in the order of their text.
    pub async fn dump(&self, table: &str) -> Vec<String> {
        let query = match self.backend {
            Backend::Postgres => format!("SELECT CAST(row_to_json(t) AS TEXT) AS row FROM {table} t ORDER BY 1"),
            Backend::Sqlite => {
                let columns = self.rows(format!("SELECT name AS row FROM pragma_table_info('{table}')")).await;
                // JSON cannot hold bytes.
                let texts: Vec<String> = columns
                    .iter()
                    .map(|column| format!("iif(typeof({column}) = 'blob', hex({column}), {column})"))
                    .collect();
                format!("SELECT json_array({}) AS row FROM {table} ORDER BY 1", texts.join(", "))
            }
        };
        self.rows(query).await
    }

    /// All tables of the program.
    pub async fn tables(&self) -> Vec<String> {
        let query = match self.backend {
            Backend::Postgres => {
                "SELECT CAST(tablename AS TEXT) AS row FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
            }
            Backend::Sqlite => {
                "SELECT name AS row FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY 1"
            }
        };
        self.rows(query).await
    }

    /// The one number that a query answers.
    pub async fn number(&self, sql: impl Into<String>) -> i64 {
        self.rows(format!("SELECT CAST(({}) AS TEXT) AS row", sql.into())).await[0].parse().unwrap()
    }

    /// The column `row` of a query, as text.
    pub async fn rows(&self, sql: impl Into<String>) -> Vec<String> {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            row: String,
        }
        let sql = sql.into();
        let rows: Vec<Row> =
            self.open().read(move |conn| Ok(diesel::RunQueryDsl::load(diesel::sql_query(sql), conn)?)).await.unwrap();
        rows.into_iter().map(|row| row.row).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Place::Schema { server, name } = &self.place {
            on_server(server, &format!("DROP SCHEMA {name} CASCADE"));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests reach the server beside the program")]
fn on_server(server: &str, sql: &str) {
    let mut conn = PgConnection::establish(server).expect("the test server answers");
    conn.batch_execute(&format!("SET client_min_messages = warning; {sql}")).unwrap();
}
