//! One type for connections to either database, and macros for queries that diesel cannot express for both at once.

use diesel::prelude::*;

use crate::error::AppError;

pub use self::either::Conn;

mod either {
    #![expect(clippy::disallowed_methods, reason = "the derive generates `establish`, which is never called")]

    use diesel::prelude::*;

    /// A connection to either database.
    #[derive(diesel::MultiConnection)]
    pub enum Conn {
        /// PostgreSQL, through libpq.
        Postgres(PgConnection),
        /// SQLite, which is linked into the program.
        Sqlite(SqliteConnection),
    }
}

/// Evaluates an expression with the inner connection. The expression is compiled once per database, because diesel
/// cannot express `ON CONFLICT`, `FOR UPDATE` and `RETURNING` for [`Conn`].
macro_rules! on_backend {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::engine::connection::Conn::Postgres($conn) => $query,
            crate::db::engine::connection::Conn::Sqlite($conn) => $query,
        }
    };
}
pub(crate) use on_backend;

/// The row that a query finds, if any, locked until the transaction ends. On SQLite no lock is needed, because a write
/// transaction begins IMMEDIATE and so excludes other writers. Rows that refer to this one can be inserted meanwhile
/// (`FOR NO KEY UPDATE`).
macro_rules! one_locked {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::engine::connection::Conn::Postgres($conn) => {
                $query.for_no_key_update().get_result($conn).optional()
            }
            crate::db::engine::connection::Conn::Sqlite($conn) => $query.get_result($conn).optional(),
        }
    };
}
pub(crate) use one_locked;

/// All rows of a query, in its order, locked as in [`one_locked`].
macro_rules! all_locked {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::engine::connection::Conn::Postgres($conn) => $query.for_no_key_update().load($conn),
            crate::db::engine::connection::Conn::Sqlite($conn) => $query.load($conn),
        }
    };
}
pub(crate) use all_locked;

/// The rows of a query that no other transaction has locked, locked until the transaction ends (`FOR UPDATE SKIP
/// LOCKED`).
macro_rules! free_locked {
    ($conn:ident => $query:expr) => {
        match $conn {
            crate::db::engine::connection::Conn::Postgres($conn) => $query.for_update().skip_locked().load($conn),
            crate::db::engine::connection::Conn::Sqlite($conn) => $query.load($conn),
        }
    };
}
pub(crate) use free_locked;

/// The advisory lock for purges, one per schema. The number is arbitrary; nothing else on the database may use it. The
/// next one is that of the change log (`USE_LOCK`).
const POSTGRES_PURGE_LOCK: &str = "pg_try_advisory_xact_lock(549487210, hashtext(current_schema()))";

/// The advisory lock for decisions about requested mails, one per schema.
const POSTGRES_MAIL_LOCK: &str = "SELECT pg_advisory_xact_lock(549487212, hashtext(current_schema()))";

/// Waits for the lock for decisions about requested mails, and takes it until the transaction ends. So the limits per
/// address hold for all processes together. On SQLite the transaction excludes other writers anyway.
pub fn lock_mail_decisions(conn: &mut Conn) -> Result<(), AppError> {
    if let Conn::Postgres(conn) = conn {
        diesel::sql_query(POSTGRES_MAIL_LOCK).execute(conn)?;
    }
    Ok(())
}

/// Takes the lock for purges until the transaction ends. Returns `false` if another process has it. On SQLite this
/// returns `true`, because the transaction excludes other writers anyway.
pub fn try_purge_lock(conn: &mut Conn) -> Result<bool, AppError> {
    match conn {
        Conn::Postgres(conn) => {
            let locked = diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(POSTGRES_PURGE_LOCK));
            Ok(locked.get_result(conn)?)
        }
        Conn::Sqlite(_) => Ok(true),
    }
}
