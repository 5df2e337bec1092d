//! The database that is written: whether it is empty, whether a server uses it, and its preparation.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

use crate::db::engine::change_log::USE_LOCK;
use crate::db::engine::connection::Conn;
use crate::db::engine::migrate::count_existing_rows;
use crate::db::schema::for_each_table;
use crate::error::AppError;

macro_rules! truncate {
    ($($table:ident: $privileges:literal,)*) => {
        concat!(
            // The trail is append-only otherwise. A rollback restores the trigger.
            "ALTER TABLE audit_entries DISABLE TRIGGER USER; TRUNCATE ",
            $(stringify!($table), ", ",)*
            // Each process must forget the identities that it has cached. NULL means every user.
            "credential_changes RESTART IDENTITY; ALTER TABLE audit_entries ENABLE TRIGGER USER;
             INSERT INTO credential_changes (user_id) VALUES (NULL);"
        )
    };
}

/// Removes all rows, and restarts the ids.
const POSTGRES_EMPTY: &str = for_each_table!(truncate);

macro_rules! analyze {
    ($($table:ident: $privileges:literal,)*) => {
        concat!("ANALYZE ", $(stringify!($table), ", ",)* "credential_changes")
    };
}

const POSTGRES_ANALYZE: &str = for_each_table!(analyze);

/// Whether the tables of the database hold no rows. Tables that do not exist hold none.
pub fn is_empty(conn: &mut Conn) -> Result<bool, AppError> {
    Ok(count_existing_rows(conn)?.into_iter().all(|(table, rows)| rows == 0 || table == "credential_changes"))
}

/// Takes the lock that servers hold, until the session ends.
///
/// Errors: a server holds it.
pub fn take_postgres(conn: &mut Conn) -> Result<(), AppError> {
    let Conn::Postgres(conn) = conn else { return Ok(()) };
    let lock = diesel::dsl::sql::<Bool>("pg_try_advisory_lock").sql(USE_LOCK);
    require_free(diesel::select(lock).get_result(conn)?)
}

fn require_free(is_free: bool) -> Result<(), AppError> {
    if is_free { Ok(()) } else { Err(AppError::Internal(IN_USE.into())) }
}

/// Takes the lock that servers hold, until the transaction ends.
///
/// Errors: a server holds it.
pub fn require_unused(conn: &mut Conn) -> Result<(), AppError> {
    let Conn::Postgres(conn) = conn else { return Ok(()) };
    let lock = diesel::dsl::sql::<Bool>("pg_try_advisory_xact_lock").sql(USE_LOCK);
    require_free(diesel::select(lock).get_result(conn)?)
}

/// Prepares PostgreSQL for the rows of another database, in the transaction that writes them: rejects a database that
/// a server uses, and removes all rows.
pub fn prepare_postgres(conn: &mut Conn) -> Result<(), AppError> {
    require_unused(conn)?;
    let Conn::Postgres(conn) = conn else { return Ok(()) };
    Ok(conn.batch_execute(POSTGRES_EMPTY)?)
}

/// Updates the statistics of PostgreSQL's planner, which knows nothing about new rows.
pub fn analyze(conn: &mut Conn) -> Result<(), AppError> {
    if let Conn::Postgres(conn) = conn {
        conn.batch_execute(POSTGRES_ANALYZE)?;
    }
    Ok(())
}

/// The error for a target that a server uses.
pub const IN_USE: &str = "nothing was changed, because a program uses the target database: stop all servers on it, and \
    try again";

#[derive(QueryableByName)]
struct Mode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

/// Makes this the only connection to a SQLite file, and moves the changes in its write-ahead log to the file, so that
/// no side file is left.
///
/// Errors: another connection uses the file.
pub fn take_sqlite(conn: &mut Conn) -> Result<(), AppError> {
    let Conn::Sqlite(conn) = conn else { return Ok(()) };
    let mode = diesel::sql_query("PRAGMA journal_mode = DELETE").get_result::<Mode>(conn);
    match mode {
        Ok(mode) if mode.journal_mode == "delete" => {}
        Ok(_) => return Err(AppError::Internal(IN_USE.into())),
        Err(error) if error.to_string().contains("locked") => return Err(AppError::Internal(IN_USE.into())),
        Err(error) => return Err(error.into()),
    }
    Ok(conn.batch_execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;")?)
}
