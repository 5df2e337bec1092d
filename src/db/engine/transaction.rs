//! Transactions, and the gate that decides whether a change is committed before its request times out.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use diesel::connection::{AnsiTransactionManager, TransactionManager, TransactionManagerStatus};
use diesel::prelude::*;
use diesel::result::Error as DieselError;

use crate::db::engine::connection::{Conn, on_backend};
use crate::db::engine::diagnosis::{SqliteError, classify_sqlite_error};
use crate::db::engine::postgres::{Pooler, TRANSACTION_SETUP};
use crate::error::AppError;

/// Decides once whether a change is committed. Either the commit begins, and the response reports its outcome; or the
/// gate is closed first, the commit never begins, and the response says that nothing was stored.
pub(crate) struct CommitGate {
    state: AtomicU8,
    /// No commit begins after this, even if the request is gone and so does not close the gate.
    deadline: Option<Instant>,
}

const OPEN: u8 = 0;
const COMMITTING: u8 = 1;
const CLOSED: u8 = 2;

impl CommitGate {
    /// A gate that is open until `deadline`, or without a time limit.
    pub(crate) fn new(deadline: Option<Instant>) -> Self {
        Self { state: AtomicU8::new(OPEN), deadline }
    }

    /// Begins the commit if the gate is open, and returns whether it did. Afterwards the gate can no longer be closed.
    fn begin_commit(&self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.close();
        }
        self.state.compare_exchange(OPEN, COMMITTING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Closes the gate, so that the commit cannot begin. Returns `false` if the commit has already begun.
    pub(crate) fn close(&self) -> bool {
        match self.state.compare_exchange(OPEN, CLOSED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(state) => state == CLOSED,
        }
    }
}

/// Runs `change` in one transaction, and commits it if `gate` is still open. On SQLite the transaction begins
/// IMMEDIATE: otherwise a transaction that reads before it writes can fail with "database is locked" at once,
/// regardless of the busy timeout (`docs/decisions/04-two-databases.md`).
pub(crate) fn write_transaction<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    gate: &CommitGate,
    change: impl FnOnce(&mut Conn) -> Result<T, AppError>,
) -> Result<T, AppError> {
    begin(conn, pooler, "BEGIN;", "BEGIN IMMEDIATE")?;
    match change(conn) {
        Ok(value) if gate.begin_commit() => commit(conn).map(|()| value),
        Ok(_) => {
            roll_back(conn);
            Err(timed_out())
        }
        Err(error) => {
            roll_back(conn);
            Err(error)
        }
    }
}

/// Runs `query` in a read-only transaction, on one snapshot of the database.
pub(crate) fn read_transaction<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    query: impl FnOnce(&mut Conn) -> Result<T, AppError>,
) -> Result<T, AppError> {
    begin(conn, pooler, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", "BEGIN")?;
    let result = query(conn);
    // A read-only transaction has nothing to commit, so it is rolled back, and an error of the rollback can be ignored.
    roll_back(conn);
    result
}

/// Runs `query`, which changes nothing, without a transaction. Behind a pooler it runs in one transaction, at an
/// isolation level where each statement sees what is committed by then.
pub(crate) fn read_statements<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    query: impl FnOnce(&mut Conn) -> Result<T, AppError>,
) -> Result<T, AppError> {
    match conn {
        Conn::Postgres(_) if pooler.is_present() => {
            // Not READ ONLY, because the diagnosis reads whether the session accepts changes.
            begin(conn, pooler, "BEGIN;", "BEGIN")?;
            let result = query(conn);
            roll_back(conn);
            result
        }
        _ => query(conn),
    }
}

/// The error of a request whose time for database work is over and whose change, if any, is not stored.
pub(crate) fn timed_out() -> AppError {
    AppError::Busy("the database did not respond in time".into())
}

fn begin(conn: &mut Conn, pooler: &Pooler, postgres: &str, sqlite: &str) -> Result<(), AppError> {
    let begun = match conn {
        Conn::Postgres(conn) if pooler.is_present() => {
            AnsiTransactionManager::begin_transaction_sql(conn, &[postgres, TRANSACTION_SETUP].concat())
        }
        Conn::Postgres(conn) => AnsiTransactionManager::begin_transaction_sql(conn, postgres),
        Conn::Sqlite(conn) => AnsiTransactionManager::begin_transaction_sql(conn, sqlite),
    };
    if begun.is_err()
        && let Conn::Postgres(conn) = conn
    {
        // The transaction may have begun before the error, so the pool must discard the connection.
        AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
    }
    Ok(begun?)
}

/// Rolls back, and ignores errors: the pool discards a connection that cannot roll back, and the server then rolls
/// back.
fn roll_back(conn: &mut Conn) {
    let _ = on_backend!(conn => AnsiTransactionManager::rollback_transaction(conn));
}

fn commit(conn: &mut Conn) -> Result<(), AppError> {
    let Err(error) = on_backend!(conn => AnsiTransactionManager::commit_transaction(conn)) else {
        return Ok(());
    };
    let is_unknown = match conn {
        // A server that reports an error has rolled back. If the connection is lost, the server may have committed
        // before.
        Conn::Postgres(conn) => is_lost(conn),
        // Diesel has rolled back a commit that failed for a lock or a full disk. After a disk error, the next start may
        // recover the commit from the write-ahead log.
        Conn::Sqlite(_) => is_disk_error(&error),
    };
    Err(if is_unknown { AppError::OutcomeUnknown(error.into()) } else { error.into() })
}

fn is_disk_error(error: &DieselError) -> bool {
    let DieselError::DatabaseError(_, info) = error else { return false };
    classify_sqlite_error(info.message()) == Some(SqliteError::Io)
}

/// Whether the connection is broken.
pub(crate) fn is_lost<C>(conn: &mut C) -> bool
where
    C: Connection<TransactionManager = AnsiTransactionManager>,
{
    matches!(AnsiTransactionManager::transaction_manager_status_mut(conn), TransactionManagerStatus::InError)
}

/// Whether the connection is in a transaction, or broken.
pub(crate) fn is_mid_transaction(conn: &mut Conn) -> bool {
    on_backend!(conn => match AnsiTransactionManager::transaction_manager_status_mut(conn) {
        TransactionManagerStatus::Valid(status) => status.transaction_depth().is_some(),
        TransactionManagerStatus::InError => true,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn either_the_commit_begins_or_the_gate_is_closed_and_never_both() {
        let gate = CommitGate::new(None);
        assert!(gate.begin_commit());
        assert!(!gate.close(), "the commit has begun");

        let gate = CommitGate::new(None);
        assert!(gate.close());
        assert!(gate.close(), "it is closed already");
        assert!(!gate.begin_commit());
    }

    #[test]
    fn no_commit_begins_after_the_deadline() {
        let gate = CommitGate::new(Some(Instant::now()));
        assert!(!gate.begin_commit());
        assert!(gate.close());
        assert!(CommitGate::new(Some(Instant::now() + Duration::from_secs(60))).begin_commit());
    }
}
