//! The last id that each table has assigned, which is carried over, so that no id is ever assigned twice.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use crate::db::engine::connection::Conn;
use crate::error::AppError;

#[derive(QueryableByName)]
struct LastId {
    #[diesel(sql_type = BigInt)]
    last_id: i64,
}

const POSTGRES_LAST: &str =
    "SELECT coalesce(pg_sequence_last_value(CAST(pg_get_serial_sequence($1, 'id') AS regclass)), 0) AS last_id";
/// A sequence starts at 1, so 0 means that it was never used.
const POSTGRES_SET: &str = "SELECT setval(pg_get_serial_sequence($1, 'id'), greatest($2, 1), $2 > 0) AS last_id";
const SQLITE_LAST: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = $1), 0) AS last_id";
const SQLITE_REMOVE: &str = "DELETE FROM sqlite_sequence WHERE name = $1";
const SQLITE_SET: &str = "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)";

/// The last id that `table` has assigned; 0 if it never has.
pub(super) fn last_id(conn: &mut Conn, table: &str) -> Result<i64, AppError> {
    let found: LastId = match conn {
        Conn::Postgres(conn) => diesel::sql_query(POSTGRES_LAST).bind::<Text, _>(table).get_result(conn)?,
        Conn::Sqlite(conn) => diesel::sql_query(SQLITE_LAST).bind::<Text, _>(table).get_result(conn)?,
    };
    Ok(found.last_id)
}

/// Sets the last ids. On PostgreSQL the transaction must have restarted the sequences (`TRUNCATE … RESTART IDENTITY`),
/// because only then a rollback undoes this, too.
pub(super) fn set<'t>(conn: &mut Conn, last_ids: impl Iterator<Item = (&'t str, i64)>) -> Result<(), AppError> {
    for (table, last_id) in last_ids {
        match conn {
            Conn::Postgres(conn) => {
                let set = diesel::sql_query(POSTGRES_SET).bind::<Text, _>(table).bind::<BigInt, _>(last_id);
                set.get_result::<LastId>(conn)?;
            }
            Conn::Sqlite(conn) => {
                diesel::sql_query(SQLITE_REMOVE).bind::<Text, _>(table).execute(conn)?;
                if last_id > 0 {
                    let set = diesel::sql_query(SQLITE_SET).bind::<Text, _>(table).bind::<BigInt, _>(last_id);
                    set.execute(conn)?;
                }
            }
        }
    }
    Ok(())
}
