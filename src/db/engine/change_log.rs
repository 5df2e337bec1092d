//! Reads the change log: the table `credential_changes`, in which triggers record the users whose credentials may have
//! changed, no matter which program changed them.
//!
//! A read requires no commit and no session state, so it takes one round trip and works behind a pooler. On PostgreSQL
//! each read stores its snapshot. The next read returns the rows of all transactions that were invisible to that
//! snapshot and are visible to its own, so it does not matter how long a transaction stays open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text};

use crate::db::engine::connection::Conn;
use crate::db::engine::hosts::CurrentServer;
use crate::db::engine::manager::{Manager, PooledConnection};
use crate::db::engine::postgres::Pooler;
use crate::db::engine::transaction::read_transaction;
use crate::domain::id::UserId;
use crate::error::AppError;

/// More changes than this between two reads count as a change of every user.
const MAX_CHANGES: usize = 10_000;
/// After this time without a read, the log may have a gap. The purge only removes rows that are several times older.
const MAX_GAP: Duration = Duration::from_secs(60);

/// The name of a reader's connection in `pg_stat_activity`.
const APPLICATION_NAME: &str = "latchkey-change-log";

/// Rows whose transaction ids are higher than those of the current snapshot come from another cluster, for example from
/// a restored dump, and are ignored. `ORDER BY` makes the planner use the index even before the table has statistics.
const POSTGRES_READ: &str = "
    SELECT CAST(pg_current_snapshot() AS TEXT) AS snapshot,
           CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) AS TEXT) AS server_started,
           CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT) AS server_seconds,
           pg_is_in_recovery() AS is_standby,
           ARRAY(SELECT user_id FROM credential_changes
                 WHERE xid >= pg_snapshot_xmax(CAST($1 AS pg_snapshot)) AND xid < pg_snapshot_xmax(pg_current_snapshot())
                 ORDER BY xid LIMIT $2)
           || ARRAY(SELECT user_id FROM credential_changes
                    WHERE xid = ANY(ARRAY(SELECT pg_snapshot_xip(CAST($1 AS pg_snapshot))))
                    ORDER BY xid LIMIT $2) AS changed";

/// The snapshot for the first read, which returns no rows.
const EMPTY_SNAPSHOT: &str = "1:1:";

/// The arguments of the advisory lock that a process holds in shared mode while it serves. The number is arbitrary;
/// nothing else on the database may use it.
pub(crate) const USE_LOCK: &str = "(549487211, hashtext(current_schema()))";

/// Reads the log on a connection of its own.
pub struct ChangeLogReader {
    conn: PooledConnection,
    pooler: Pooler,
    server: Arc<CurrentServer>,
    position: Position,
}

/// The position up to which the log has been read.
enum Position {
    Postgres(Option<PostgresPosition>),
    Sqlite(SqlitePosition),
}

/// The state of the last read on PostgreSQL.
struct PostgresPosition {
    snapshot: String,
    /// The upper bound of the snapshot: transactions from this id on had not ended.
    xmax: u64,
    server_started: String,
    server_seconds: i64,
    read_at: Instant,
}

#[derive(Default)]
struct SqlitePosition {
    /// SQLite's `data_version`, which changes when another connection commits to the file.
    data_version: Option<i64>,
    last_id: i64,
}

/// The result of one read of the log.
pub struct ChangeBatch {
    /// The changes since the previous read.
    pub changed: Changed,
    /// All changes that were committed before this moment have been read.
    pub certain: Instant,
}

/// The changes between two reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The credentials of these users may have changed.
    Users(Vec<UserId>),
    /// The credentials of any user may have changed.
    AllUsers,
    /// The changes are unknown, because this is the first read of the reader, or the log has a gap.
    Unknown,
}

#[derive(QueryableByName)]
struct PostgresRead {
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Text)]
    server_started: String,
    #[diesel(sql_type = BigInt)]
    server_seconds: i64,
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    #[diesel(sql_type = Array<Nullable<BigInt>>)]
    changed: Vec<Option<i64>>,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct SqliteChange {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    user_id: i64,
}

impl ChangeLogReader {
    pub(crate) fn open(manager: &Manager) -> Result<Self, AppError> {
        let mut conn = manager.open_named(APPLICATION_NAME)?;
        let position = match conn.verified()? {
            Conn::Postgres(conn) => {
                // A lock of a session would stay with the pooler.
                if !manager.pooler().is_present() {
                    let lock = diesel::dsl::sql::<Bool>("pg_try_advisory_lock_shared").sql(USE_LOCK);
                    let _is_locked: bool = diesel::select(lock).get_result(conn)?;
                }
                Position::Postgres(None)
            }
            Conn::Sqlite(_) => Position::Sqlite(SqlitePosition::default()),
        };
        Ok(Self { conn, pooler: manager.pooler().clone(), server: Arc::clone(manager.server()), position })
    }

    /// Reads the changes since the previous read. After an error the reader must not be used again.
    pub fn read(&mut self) -> Result<ChangeBatch, AppError> {
        let certain = Instant::now();
        let conn = self.conn.verified()?;
        let changed = match &mut self.position {
            Position::Postgres(position) => {
                let changed = read_postgres(conn, &self.pooler, position, certain)?;
                if let Some(position) = position {
                    self.server.set(&position.server_started);
                }
                changed
            }
            Position::Sqlite(position) => read_sqlite(conn, position)?,
        };
        Ok(ChangeBatch { changed, certain })
    }
}

fn read_postgres(
    conn: &mut Conn,
    pooler: &Pooler,
    position: &mut Option<PostgresPosition>,
    now: Instant,
) -> Result<Changed, AppError> {
    let since = position.as_ref().map_or(EMPTY_SNAPSHOT, |position| &position.snapshot).to_owned();
    let limit = if position.is_some() { MAX_CHANGES + 1 } else { 0 };
    // Behind a pooler, the transaction runs the statement on one session.
    let read = read_transaction(conn, pooler, |conn| {
        let Conn::Postgres(conn) = conn else {
            return Err(AppError::Internal("a position in a log of PostgreSQL is used on another database".into()));
        };
        let query = diesel::sql_query(POSTGRES_READ);
        let query = query.bind::<Text, _>(&since).bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
        Ok(query.get_result::<PostgresRead>(conn)?)
    })?;
    if read.is_standby {
        // The snapshots of a standby do not list the transactions in progress.
        return Err(AppError::Busy("the database is a read-only standby".into()));
    }
    let new = PostgresPosition {
        xmax: xmax(&read.snapshot)?,
        snapshot: read.snapshot,
        server_started: read.server_started,
        server_seconds: read.server_seconds,
        read_at: now,
    };
    let continues = position.as_ref().is_some_and(|old| new.continues(old));
    *position = Some(new);
    if !continues {
        return Ok(Changed::Unknown);
    }
    if read.changed.len() > MAX_CHANGES {
        return Ok(Changed::AllUsers);
    }
    let users: Option<Vec<UserId>> = read.changed.into_iter().map(|user| user.map(UserId)).collect();
    Ok(users.map_or(Changed::AllUsers, Changed::Users))
}

/// The upper bound in the text of a snapshot, `xmin:xmax:xip,…`.
fn xmax(snapshot: &str) -> Result<u64, AppError> {
    let xmax = snapshot.split(':').nth(1).and_then(|xmax| xmax.parse().ok());
    xmax.ok_or_else(|| AppError::Internal("the PostgreSQL snapshot cannot be parsed".into()))
}

impl PostgresPosition {
    /// Whether the log has no gap since `old`: the server has not been restarted or reset to an earlier state, and the
    /// time since then is too short for a purge of unread rows.
    fn continues(&self, old: &Self) -> bool {
        let max_gap = i64::try_from(MAX_GAP.as_secs()).unwrap_or(i64::MAX);
        let gap = self.server_seconds.saturating_sub(old.server_seconds);
        self.server_started == old.server_started
            && self.xmax >= old.xmax
            && gap.saturating_abs() <= max_gap
            && self.read_at.duration_since(old.read_at) <= MAX_GAP
    }
}

fn read_sqlite(conn: &mut Conn, position: &mut SqlitePosition) -> Result<Changed, AppError> {
    let version = query_number(conn, "SELECT data_version AS number FROM pragma_data_version")?;
    let Some(seen) = position.data_version.replace(version) else {
        position.last_id = newest_id(conn)?;
        return Ok(Changed::Unknown);
    };
    if version == seen {
        return Ok(Changed::Users(Vec::new()));
    }
    let limit = i64::try_from(MAX_CHANGES).unwrap_or(i64::MAX);
    let changes: Vec<SqliteChange> =
        diesel::sql_query("SELECT id, user_id FROM credential_changes WHERE id > $1 ORDER BY id LIMIT $2")
            .bind::<BigInt, _>(position.last_id)
            .bind::<BigInt, _>(limit)
            .load(conn)?;
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
        let newest = newest_id(conn)?;
        let is_replaced = newest < position.last_id;
        position.last_id = newest;
        return Ok(if is_replaced { Changed::AllUsers } else { Changed::Users(Vec::new()) });
    };
    // Ids have no gaps, so a missing id was purged before it was read.
    if first.id != position.last_id + 1 || last.id - position.last_id >= limit {
        position.last_id = newest_id(conn)?;
        return Ok(Changed::AllUsers);
    }
    position.last_id = last.id;
    Ok(Changed::Users(changes.into_iter().map(|change| UserId(change.user_id)).collect()))
}

fn newest_id(conn: &mut Conn) -> Result<i64, AppError> {
    query_number(conn, "SELECT COALESCE(MAX(id), 0) AS number FROM credential_changes")
}

fn query_number(conn: &mut Conn, sql: &str) -> Result<i64, AppError> {
    let row: NumberRow = diesel::sql_query(sql).get_result(conn)?;
    Ok(row.number)
}

/// The current end of the log, for [`purge`]. `None` on SQLite, where triggers purge the log.
pub fn horizon(conn: &mut Conn) -> Result<Option<Horizon>, AppError> {
    match conn {
        Conn::Postgres(conn) => {
            let snapshot = diesel::dsl::sql::<Text>("CAST(pg_current_snapshot() AS TEXT)");
            Ok(Some(Horizon(diesel::select(snapshot).get_result(conn)?)))
        }
        Conn::Sqlite(_) => Ok(None),
    }
}

/// A point in the log: a snapshot of PostgreSQL.
#[derive(Clone, Debug)]
pub struct Horizon(String);

/// Deletes rows that were visible to every snapshot at the `horizon`, and rows that come from another cluster, at most
/// `limit` of each. Returns the number of deleted rows. The age of a row is not used, because rows of a long
/// transaction are old when they become visible to readers.
pub fn purge(conn: &mut Conn, horizon: &Horizon, limit: i64) -> Result<usize, AppError> {
    let Conn::Postgres(conn) = conn else {
        return Ok(0);
    };
    let delete = diesel::sql_query(
        "DELETE FROM credential_changes WHERE ctid = ANY(ARRAY(
             (SELECT ctid FROM credential_changes WHERE xid < pg_snapshot_xmin(CAST($1 AS pg_snapshot))
              ORDER BY xid LIMIT $2)
             UNION ALL
             (SELECT ctid FROM credential_changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
              ORDER BY xid LIMIT $2)))",
    );
    Ok(delete.bind::<Text, _>(&horizon.0).bind::<BigInt, _>(limit).execute(conn)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(xmax: u64, started: &str, seconds: i64, read_at: Instant) -> PostgresPosition {
        let server_started = started.to_owned();
        PostgresPosition { snapshot: String::new(), xmax, server_started, server_seconds: seconds, read_at }
    }

    #[test]
    fn the_log_continues_only_on_the_same_server_without_a_reset_or_a_long_pause() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let old = position(100, "one", 1_000, now);
        assert!(position(100, "one", 1_000, now).continues(&old));
        assert!(position(900, "one", 1_060, later(60)).continues(&old));
        assert!(!position(99, "one", 1_001, later(1)).continues(&old), "transaction ids went back");
        assert!(!position(900, "two", 1_001, later(1)).continues(&old), "another server");
        assert!(!position(900, "one", 1_061, later(1)).continues(&old), "this process was suspended");
        assert!(!position(900, "one", 1_001, later(61)).continues(&old), "the reader paused");
        assert!(!position(900, "one", 939, later(1)).continues(&old), "the server's clock was set back");
    }

    #[test]
    fn the_upper_bound_of_a_snapshot_is_read_from_its_text() {
        assert_eq!(xmax("10:20:10,14,15").unwrap(), 20);
        assert_eq!(xmax("7:7:").unwrap(), 7);
        assert!(xmax("").is_err());
    }
}
