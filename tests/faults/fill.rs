//! Inserts many rows at once.

use diesel::connection::SimpleConnection;
use latchkey::db::Conn;

use crate::support::database::Database;

/// Runs SQL statements without a time-out.
pub async fn fill(database: &Database, sql: impl Into<String>) {
    let sql = sql.into();
    let run = move |conn: &mut Conn| match conn {
        Conn::Postgres(conn) => Ok(conn.batch_execute(&format!("SET statement_timeout = 0; {sql}"))?),
        Conn::Sqlite(conn) => Ok(conn.batch_execute(&sql)?),
    };
    database.open().with_connection(run).await.unwrap();
}
