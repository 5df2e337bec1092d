//! Erasure of deleted data from SQLite's write-ahead log.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use crate::db::engine::connection::Conn;
use crate::db::engine::manager::SQLITE_BUSY_TIMEOUT;
use crate::error::AppError;

/// The checkpoint blocks other writers, so it waits only briefly for readers of old snapshots.
const SHORT_BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 20;";

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// Truncates the write-ahead log, which contains earlier states of changed rows. Returns whether this succeeded: it
/// fails while another connection reads or writes. On PostgreSQL this does nothing, because PostgreSQL recycles its own
/// log.
pub fn truncate_wal(conn: &mut Conn) -> Result<bool, AppError> {
    let Conn::Sqlite(conn) = conn else {
        return Ok(true);
    };
    conn.batch_execute(SHORT_BUSY_TIMEOUT)?;
    let checkpoint = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result::<Checkpoint>(conn);
    conn.batch_execute(SQLITE_BUSY_TIMEOUT)?;
    Ok(checkpoint?.busy == 0)
}
