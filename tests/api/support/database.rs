//! An empty database for each test: a SQLite file, or a schema on PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use latchkey::config::{DatabaseSettings, Settings};
use latchkey::db::{Conn, Db};
use tempfile::TempDir;

use super::postgres;

/// The database system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// The database of one test. It is removed when dropped.
pub struct Database {
    pub backend: Backend,
    pub url: String,
    storage: Storage,
}

/// The file or schema that is removed with the database.
enum Storage {
    NotOwned,
    Directory { _guard: TempDir },
    Schema { server: &'static str, name: String },
}

impl Database {
    /// Creates an empty database; `None` if PostgreSQL is required and missing.
    pub fn create(backend: Backend) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (url, storage) = match backend {
            Backend::Sqlite => {
                let directory = TempDir::with_prefix("latchkey-").unwrap();
                (
                    format!("sqlite://{}", directory.path().join("test.db").display()),
                    Storage::Directory { _guard: directory },
                )
            }
            Backend::Postgres => {
                let server = postgres::url()?;
                let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
                on_server(server, &format!("CREATE SCHEMA {name}"));
                let separator = if server.contains('?') { '&' } else { '?' };
                (format!("{server}{separator}options=-csearch_path%3D{name}"), Storage::Schema { server, name })
            }
        };
        Some(Self { backend, url, storage })
    }

    /// An existing database, which is not removed.
    pub fn at(url: &str) -> Self {
        let backend = if url.starts_with("postgres") { Backend::Postgres } else { Backend::Sqlite };
        Self { backend, url: url.to_owned(), storage: Storage::NotOwned }
    }

    /// The settings of a server on this database.
    pub fn settings(&self) -> DatabaseSettings {
        let defaults = Settings::defaults().unwrap().database;
        DatabaseSettings { url: self.url.clone().try_into().unwrap(), pool_size: 4, ..defaults }
    }

    /// Opens a connection pool that is separate from that of the server.
    pub fn open(&self) -> Db {
        Db::open(&self.settings()).unwrap()
    }

    /// Runs SQL statements directly on the database.
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

    /// Ends the sessions that read the change log of this PostgreSQL database, and returns their number. They hold its
    /// advisory lock.
    pub async fn end_change_log_readers(&self) -> i64 {
        let lock = "classid = 549487211 AND CAST(objid AS BIGINT) = hashtext(current_schema()) & 4294967295";
        let readers = format!("pg_locks WHERE locktype = 'advisory' AND {lock}");
        self.number(format!("SELECT count(pg_terminate_backend(pid)) FROM {readers}")).await
    }

    /// The error of SQL statements that are run directly on the database; `None` if they succeed.
    pub async fn sql_error(&self, sql: &str) -> Option<String> {
        let sql = sql.to_owned();
        let result = self
            .open()
            .write(move |conn| match conn {
                Conn::Postgres(conn) => Ok(conn.batch_execute(&sql)?),
                Conn::Sqlite(conn) => Ok(conn.batch_execute(&sql)?),
            })
            .await;
        result.err().map(|error| error.to_string())
    }

    /// The contents of the database: each table with its rows, except statistics, which a server writes in the
    /// background.
    pub async fn dump_all(&self) -> Vec<(String, Vec<String>)> {
        let mut tables = Vec::new();
        for table in self.tables().await.into_iter().filter(|table| table != "hourly_counts") {
            let rows = self.dump(&table).await;
            tables.push((table, rows));
        }
        tables
    }

    /// All rows of a table as JSON texts, sorted.
    pub async fn dump(&self, table: &str) -> Vec<String> {
        let query = match self.backend {
            Backend::Postgres => format!("SELECT CAST(row_to_json(t) AS TEXT) AS row FROM {table} t ORDER BY 1"),
            Backend::Sqlite => {
                let columns = self.rows(format!("SELECT name AS row FROM pragma_table_info('{table}')")).await;
                // JSON has no type for bytes.
                let texts: Vec<String> = columns
                    .iter()
                    .map(|column| format!("iif(typeof({column}) = 'blob', hex({column}), {column})"))
                    .collect();
                format!("SELECT json_array({}) AS row FROM {table} ORDER BY 1", texts.join(", "))
            }
        };
        self.rows(query).await
    }

    /// The names of all tables, sorted.
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

    /// The result of a query that returns one number.
    pub async fn number(&self, sql: impl Into<String>) -> i64 {
        self.rows(format!("SELECT CAST(({}) AS TEXT) AS row", sql.into())).await[0].parse().unwrap()
    }

    /// The text column `row` of each row that a query returns.
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
        if let Storage::Schema { server, name } = &self.storage {
            // A server that has not stopped yet may hold locks in another order, which PostgreSQL reports as a deadlock.
            let dropped = (0..5).any(|_| try_on_server(server, &format!("DROP SCHEMA {name} CASCADE")).is_ok());
            assert!(dropped || std::thread::panicking(), "the schema {name} cannot be dropped");
        }
    }
}

/// Runs SQL statements on the test server.
fn on_server(server: &str, sql: &str) {
    try_on_server(server, sql).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "tests connect to the server directly")]
fn try_on_server(server: &str, sql: &str) -> diesel::QueryResult<()> {
    let mut conn = PgConnection::establish(server).expect("the test server accepts connections");
    conn.batch_execute(&format!("SET client_min_messages = warning; {sql}"))
}
