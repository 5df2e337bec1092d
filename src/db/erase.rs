//! What SQLite still holds of data that was removed.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::Conn;
use super::conn::SQLITE_PATIENCE;
use crate::error::AppError;

/// Other writers wait meanwhile, so whoever reads an old state is not waited for.
const SHORT_PATIENCE: &str = "PRAGMA busy_timeout = 20;";

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// Empties the write-ahead log, which holds earlier states of what has changed. Whether that was possible: it is not while
/// somebody else reads or writes. PostgreSQL reuses its log by itself.
pub fn empty_log(conn: &mut Conn) -> Result<bool, AppError> {
    let Conn::Sqlite(conn) = conn else {
        return Ok(true);
    };
    conn.batch_execute(SHORT_PATIENCE)?;
    let emptied = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result::<Checkpoint>(conn);
    conn.batch_execute(SQLITE_PATIENCE)?;
    Ok(emptied?.busy == 0)
}
